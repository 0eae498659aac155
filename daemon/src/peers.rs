//! `peer list` and `peer show`: the other peers, without the rest of the status.
use crate::{
    cli::FileArgs,
    control::{Client, Request},
    failure::Failure,
    out,
    status::{self, PeerReport, Report},
};

/// Runs `shadowmesh peer list`.
pub(crate) fn list(json: bool, files: &FileArgs) -> Result<(), Failure> {
    let report: Report = Client::connect(files)?.ask(&Request::Status {})?;
    if json {
        out::json(&report.peers);
    } else {
        out::raw(&status::peers(&report.peers, out::colour()));
    }
    Ok(())
}

/// Runs `shadowmesh peer show`.
pub(crate) fn show(peer: &str, json: bool, files: &FileArgs) -> Result<(), Failure> {
    let peer: PeerReport = Client::connect(files)?.ask(&Request::Peer { peer: peer.to_owned() })?;
    if json {
        out::json(&peer);
    } else {
        out::raw(&status::peer(&peer, out::colour()));
    }
    Ok(())
}
