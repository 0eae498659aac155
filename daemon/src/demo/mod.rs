//! `demo`: a relay and two peers on loopback, live traffic, a migration, a killed path, its recovery, and what was measured.
//!
//! ```text
//!   sender ─▶ peer a ═╤═ relay ═╤═ peer b ─▶ bookkeeping        and the same the other way
//!                     └ forwarder ┘  the only way to a direct connection; the demo cuts it for real
//! ```
mod forwarder;
mod picture;
mod script;
mod stage;
mod summary;
mod traffic;

use crate::{cli::Runtime, config::parse::LogFormat, failure::Failure, logs, out};
use async_signal::{Signal, Signals};
use futures_lite::{StreamExt, future};
use picture::Picture;
use script::Script;
use stage::Stage;
use std::time::Instant;
use summary::Summary;
use traffic::Flow;

/// Runs `shadowmesh demo`.
pub(crate) fn run(seconds: u64, json: bool, runtime: Runtime) -> Result<(), Failure> {
    // The picture tells what happens; the log is for those who ask for it.
    let level = std::env::var("SHADOWMESH_LOG").unwrap_or_else(|_| "off".to_owned());
    logs::start(&level, LogFormat::Text).map_err(|why| Failure::usage(format!("SHADOWMESH_LOG: log.level: {why}")))?;
    let started = Instant::now();
    let picture = Picture::new(json);
    let stage = Stage::build(runtime)?;
    smol::block_on(async {
        let mut signals =
            Signals::new([Signal::Int, Signal::Term]).map_err(|error| Failure::failed(format!("signals cannot be received: {error}")))?;
        let interrupted = async {
            signals.next().await;
            Err(Failure::failed("demo: interrupted"))
        };
        let played = future::or(interrupted, play(&stage, picture, seconds, json, runtime, started)).await;
        stage.leave().await;
        played
    })
}

async fn play(stage: &Stage, picture: Picture, seconds: u64, json: bool, runtime: Runtime, started: Instant) -> Result<(), Failure> {
    let [a, b] = &stage.actors;
    let flows = [Flow::new(a.address, b.address), Flow::new(b.address, a.address)];
    let thread = |error: std::io::Error| Failure::failed(format!("demo: no thread: {error}"));
    flows[0].receive(b.from.clone()).map_err(thread)?;
    flows[1].receive(a.from.clone()).map_err(thread)?;
    let mut script = Script::new(stage, &flows, picture, seconds);
    let played = script.play().await;
    for flow in &flows {
        flow.stop();
    }
    let arrivals = [flows[0].arrivals(), flows[1].arrivals()];
    let sent = flows[0].sent() + flows[1].sent();
    let summary = Summary::new(runtime, started.elapsed(), sent, &arrivals, &script.story);
    if json {
        out::json(&summary);
    } else {
        out::line(format!("\n{}", summary.text(script.story.hand_over)));
    }
    played?;
    match summary.fault(arrivals.iter().map(|arrivals| arrivals.damaged).sum()) {
        None => Ok(()),
        Some(fault) => Err(Failure::failed(format!("demo: {fault}"))),
    }
}
