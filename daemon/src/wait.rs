//! `wait`: for scripts that start the peer and go on when it, or another peer, is there.
use crate::{
    cli::WaitArgs,
    control::{Client, Request, Waited},
    failure::Failure,
    out,
};
use serde::Serialize;
use std::time::{Duration, Instant};

/// One question: the client's own limit for an answer is above it.
const ASK_TIME: Duration = Duration::from_secs(5);
/// How often it is looked for a daemon that does not run yet: a socket that is not there tells nobody when it appears.
const LOOK_INTERVAL: Duration = Duration::from_millis(100);

/// What `wait --json` prints.
#[derive(Debug, Serialize)]
struct Summary {
    reached: bool,
    state: String,
    elapsed_s: f64,
}

/// Runs `shadowmesh wait`.
pub(crate) fn run(args: &WaitArgs) -> Result<(), Failure> {
    let started = Instant::now();
    let deadline = started + args.timeout;
    let mut last = Waited { reached: false, state: "no peer is running".to_owned() };
    loop {
        let left = deadline.saturating_duration_since(Instant::now());
        if last.reached || left.is_zero() {
            break;
        }
        match Client::find(&args.files)? {
            Some(client) => last = ask(client, args, left)?,
            None => std::thread::sleep(LOOK_INTERVAL.min(left)),
        }
    }
    let Waited { reached, state } = last;
    let late = || Failure::failed(format!("not within {}: {state}", humantime::format_duration(args.timeout)));
    let result = if reached { Ok(()) } else { Err(late()) };
    if args.json {
        out::json(&Summary { reached, state, elapsed_s: (started.elapsed().as_secs_f64() * 1e3).round() / 1e3 });
    }
    result
}

/// Asks the daemon, which answers when it is so.
fn ask(mut client: Client, args: &WaitArgs, left: Duration) -> Result<Waited, Failure> {
    let wait_ms = u64::try_from(left.min(ASK_TIME).as_millis()).expect("at most five seconds").max(1);
    let waited = client.ask_while_it_runs(&Request::Wait { peer: args.peer.clone(), direct: args.direct, wait_ms })?;
    // A daemon that ends meanwhile may be one that starts again.
    Ok(waited.unwrap_or_else(|| Waited { reached: false, state: "the peer ended".to_owned() }))
}
