//! Makes the run in a journal again: a line for each event, the actions under it, and whether they are those of the run.
//!
//! `replay FILE`: everything. `replay --quiet FILE`: only what differs, and the last line.
//! Ends with 0 when all digests agree, with 1 at the first difference or damage, with 2 when it cannot begin.
use shadowmesh_core::journal::{Difference, Digest, Journal, JournalError, Recorded, Replay, Step, Tape, Verdict};
use std::io::{self, BufWriter, Write};
use std::process::ExitCode;

/// The largest journal that is read, bytes: a week of a busy relay.
const FILE_BYTES: u64 = 4 << 30;

fn main() -> ExitCode {
    let mut arguments: Vec<String> = std::env::args().skip(1).collect();
    let quiet = arguments.iter().position(|argument| argument == "--quiet").map(|at| arguments.remove(at)).is_some();
    let [file] = &arguments[..] else {
        return fail(2, "usage: replay [--quiet] FILE (a journal, as --journal makes it)");
    };
    let bytes =
        match std::fs::metadata(file).and_then(|meta| if meta.len() > FILE_BYTES { Ok(None) } else { std::fs::read(file).map(Some) }) {
            Ok(Some(bytes)) => bytes,
            Ok(None) => return fail(2, &format!("{file} is larger than a journal may be")),
            Err(error) => return fail(2, &format!("{file} cannot be read: {error}")),
        };
    let mut out = BufWriter::new(io::stdout().lock());
    let outcome = match Journal::open(&bytes) {
        Ok(Journal::Node(tape)) => replay(tape, quiet, &mut out),
        Ok(Journal::Hub(tape)) => replay(tape, quiet, &mut out),
        Err(error) => return fail(2, &format!("{file}: {error}")),
    };
    match outcome.and_then(|same| out.flush().map(|()| same)) {
        Ok(true) => ExitCode::SUCCESS,
        // whoever read the trace has seen enough, and does not know how it ends
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => ExitCode::FAILURE,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => fail(1, &error.to_string()),
    }
}

fn fail(code: u8, why: &str) -> ExitCode {
    let _ = writeln!(io::stderr(), "{why}");
    ExitCode::from(code)
}

/// Replays a whole tape; whether every digest agreed.
fn replay<M: Recorded>(tape: Tape<'_, M>, quiet: bool, out: &mut impl Write) -> io::Result<bool> {
    let own = env!("CARGO_PKG_VERSION");
    writeln!(out, "the journal of a {}, written by version {}", M::NAME, tape.software())?;
    if tape.software() != own {
        writeln!(out, "this is version {own}: where it acts otherwise, digests differ")?;
    }
    let mut replay = Replay::new(tape);
    let mut compared = 0_u64;
    loop {
        let step = match replay.step() {
            Ok(Some(step)) => step,
            Ok(None) => break,
            Err(error) => return damaged(out, compared, error),
        };
        if !quiet {
            show(out, &step)?;
        }
        match &step.verdict {
            Verdict::Same => compared += 1,
            Verdict::Unknown => writeln!(out, "record {} is the last: what came of it is not in the journal", step.number)?,
            Verdict::Differs(difference) => return differs(out, &step, difference),
        }
    }
    if replay.tape().is_cut() {
        writeln!(out, "the journal was cut off in the middle of a record")?;
    }
    writeln!(out, "{compared} events, the same actions after each")?;
    Ok(true)
}

fn show(out: &mut impl Write, step: &Step) -> io::Result<()> {
    writeln!(out, "{:>7} {} {} {}", step.number, seconds(step.at.as_nanos()), step.kind, step.detail)?;
    step.actions.iter().try_for_each(|action| writeln!(out, "{:>24} {action}", "→"))
}

fn differs(out: &mut impl Write, step: &Step, difference: &Difference) -> io::Result<bool> {
    writeln!(
        out,
        "record {} at {} s, {} {}: other actions than in the run",
        step.number,
        seconds(step.at.as_nanos()),
        step.kind,
        step.detail
    )?;
    writeln!(out, "    in the journal: {} {}", hex(&difference.expected), difference.expected_kinds.join(", "))?;
    writeln!(out, "    now:            {} {}", hex(&difference.found), difference.found_kinds.join(", "))?;
    step.actions.iter().try_for_each(|action| writeln!(out, "        {action}"))?;
    Ok(false)
}

fn damaged(out: &mut impl Write, compared: u64, error: JournalError) -> io::Result<bool> {
    writeln!(out, "{error}; {compared} events before it, the same actions after each")?;
    Ok(false)
}

fn seconds(nanos: u64) -> String {
    format!("{}.{:06}", nanos / 1_000_000_000, nanos % 1_000_000_000 / 1_000)
}

fn hex(digest: &Digest) -> String {
    format!("{:032x}", u128::from_be_bytes(*digest))
}
