//! `id rotate`: a new identity that follows this one at the next start (protocol 2.8).
use crate::{
    cli::FileArgs,
    config,
    control::{Client, Request},
    credentials,
    failure::Failure,
    out,
    up::State,
};
use serde::{Deserialize, Serialize};
use shadowmesh_runtime_std::succession::Prepared;

/// What was prepared.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct Rotated {
    /// Who is followed.
    pub(crate) old: String,
    /// Who follows.
    pub(crate) new: String,
    /// It had been prepared before.
    pub(crate) was_there: bool,
    /// A peer runs, and tells the others.
    pub(crate) running: bool,
    /// The oldest identity of the line, when its address is no longer kept.
    pub(crate) dropped: Option<String>,
}

impl Rotated {
    /// As it was prepared.
    pub(crate) fn new(prepared: &Prepared, running: bool) -> Self {
        let (old, new) = prepared.statement.said();
        let dropped = prepared.dropped.map(|peer| peer.to_string());
        Self { old: old.to_string(), new: new.to_string(), was_there: prepared.was_there, running, dropped }
    }
}

/// Runs `shadowmesh id rotate`.
pub(crate) fn run(json: bool, files: &FileArgs) -> Result<(), Failure> {
    let running = Client::find(files)?;
    let rotated = match running {
        Some(mut client) => client.ask(&Request::Rotate {})?,
        None => alone(files)?,
    };
    if json {
        out::json(&rotated);
        return Ok(());
    }
    let Rotated { old, new, was_there, running, dropped } = &rotated;
    let again = if *was_there { ", as was prepared before" } else { "" };
    out::line(format!("{new}\nfollows {old} at the next start{again}"));
    if *running {
        out::line("those who are connected are told now; `shadowmesh status` names who does not know it yet");
    } else {
        out::line("no peer runs here, so nobody hears of it before: peers that list their members (`[[peer]]`) have to list the new one");
    }
    if let Some(oldest) = dropped {
        out::line(format!("the addresses that follow from {oldest} are not kept from then on"));
    }
    Ok(())
}

/// Where no peer runs: the files are ours as long as we hold the lock.
fn alone(files: &FileArgs) -> Result<Rotated, Failure> {
    let settings = config::settings(&config::layers(files.config.as_deref(), files.layer())?)?;
    // before anything is made in a folder that may be a mistake
    credentials::identity(&settings.identity)?;
    let _lock = State::open(&settings.state_dir)?;
    credentials::prepare_succession(&settings.identity).map(|prepared| Rotated::new(&prepared, false))
}
