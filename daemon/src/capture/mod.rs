//! `capture`: what passes the interface of the running peer, into a file that tcpdump and Wireshark read.
mod pcapng;
pub(crate) mod record;

use crate::{
    cli::CaptureArgs,
    control::{Capturing, Client, Request},
    failure::Failure,
};
use async_signal::{Signal, Signals};
use futures_lite::StreamExt;
use pcapng::Writer;
use smol::{
    Timer, future,
    io::{AsyncRead, BufReader},
};
use std::{
    fs::OpenOptions,
    io::{self, BufWriter, IsTerminal, Write},
    os::unix::fs::OpenOptionsExt,
    path::Path,
};

/// Why it ended.
enum End {
    /// As it was asked to.
    Asked,
    /// The peer did.
    PeerEnded,
    /// Whoever read standard output has had enough.
    Unread,
}

/// Where it goes.
type Output = Writer<BufWriter<Box<dyn Write>>>;

/// Runs `shadowmesh capture`.
pub(crate) fn run(args: &CaptureArgs) -> Result<(), Failure> {
    let to_stdout = args.file == Path::new("-");
    if to_stdout && io::stdout().is_terminal() {
        return Err(Failure::usage("capture: packets are not for a terminal; name a file, or pipe `-` into another program"));
    }
    let client = Client::connect(&args.files)?;
    let request = Request::Capture { snaplen: args.snaplen, peer: args.peer.clone() };
    // Asked first: a wrong PEER leaves an older file as it is.
    let (capturing, stream): (Capturing, _) = client.ask_for_stream(&request)?;
    let name = args.file.display();
    let failed = |error: io::Error| Failure::failed(format!("{name}: the packets cannot be written: {error}"));
    let mut writer = open(args, &capturing, to_stdout).map_err(failed)?;
    if !to_stdout {
        eprintln!("shadowmesh: capturing {} into {name}; ctrl-c ends it", capturing.interface);
    }
    let mut lost = 0;
    let end = smol::block_on(until_end(args, BufReader::new(stream), &mut writer, &mut lost));
    let received = writer.received();
    let end = match end.and_then(|end| writer.finish(lost).map(|_| end)) {
        Err(error) if to_stdout && error.kind() == io::ErrorKind::BrokenPipe => End::Unread,
        other => other.map_err(failed)?,
    };
    eprintln!("shadowmesh: {received} packets captured, {lost} lost because they were not taken in time");
    match end {
        End::Asked | End::Unread => Ok(()),
        End::PeerEnded => Err(Failure::failed("the peer ended; the packets so far are written")),
    }
}

/// The file begins. It holds what people say to each other: it is its owner's alone.
fn open(args: &CaptureArgs, capturing: &Capturing, to_stdout: bool) -> io::Result<Output> {
    let to: Box<dyn Write> = if to_stdout {
        Box::new(io::stdout())
    } else {
        Box::new(OpenOptions::new().create(true).truncate(true).write(true).mode(0o600).open(&args.file)?)
    };
    let mut writer = Writer::new(BufWriter::new(to), &capturing.interface, capturing.ethernet, args.snaplen)?;
    writer.flush()?;
    Ok(writer)
}

/// Copies records until something ends it.
async fn until_end(args: &CaptureArgs, stream: BufReader<impl AsyncRead + Unpin>, to: &mut Output, lost: &mut u64) -> io::Result<End> {
    let mut signals = Signals::new([Signal::Int, Signal::Term, Signal::Hup])?;
    let asked = async {
        signals.next().await;
        Ok(End::Asked)
    };
    let late = async {
        match args.duration {
            Some(duration) => Timer::after(duration).await,
            None => future::pending().await,
        };
        Ok(End::Asked)
    };
    future::or(asked, future::or(late, copy(args, stream, to, lost))).await
}

async fn copy(args: &CaptureArgs, mut stream: BufReader<impl AsyncRead + Unpin>, to: &mut Output, lost: &mut u64) -> io::Result<End> {
    while let Some(record) = record::read(&mut stream).await? {
        *lost = record.lost;
        to.packet(&record)?;
        if args.count.is_some_and(|count| to.received() >= count) {
            return Ok(End::Asked);
        }
        if stream.buffer().is_empty() {
            to.flush()?;
        }
    }
    Ok(End::PeerEnded)
}
