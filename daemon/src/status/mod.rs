//! `status`: what the running peer says about itself, as JSON for scripts and as a table for people.
mod dashboard;
mod model;
mod table;

pub(crate) use model::{Facts, PathReport, PeerReport, Report, from_core, label, millis};
pub(crate) use table::{peer, peers};

use crate::{
    cli::{Check, FileArgs},
    control::{Client, Request},
    failure::Failure,
    out,
};
use std::time::Duration;

/// How often `--watch` prints where it cannot draw.
const WATCH_INTERVAL: Duration = Duration::from_secs(1);

/// Runs `shadowmesh status`.
pub(crate) fn run(json: bool, watch: bool, check: Option<Check>, files: &FileArgs) -> Result<(), Failure> {
    let mut client = Client::connect(files)?;
    if let Some(check) = check {
        let report: Report = client.ask(&Request::Status {})?;
        return match check {
            Check::Live => Ok(()),
            Check::Ready if report.state == "ready" => Ok(()),
            Check::Ready => Err(Failure::failed(format!("the peer is {}: no relay and no peer is connected", report.state))),
        };
    }
    if watch && !json {
        match dashboard::run(client)? {
            None => return Ok(()),
            Some(unused) => client = unused,
        }
    }
    loop {
        let report: Report = client.ask(&Request::Status {})?;
        if json {
            out::json(&report);
        } else {
            let clear = if watch && out::terminal() { "\x1b[H\x1b[2J" } else { "" };
            out::raw(&format!("{clear}{}", table::render(&report, out::colour())));
        }
        if !watch {
            return Ok(());
        }
        std::thread::sleep(WATCH_INTERVAL);
    }
}
