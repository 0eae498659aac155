//! `[[peer]]`: the peers to which a network is narrowed, their names and the addresses they may have.
use super::{
    parse,
    raw::{FileLayer, GivenPeer, Raw},
};
use crate::{credentials, failure::Failure};
use shadowmesh_core::id::PeerId;
use std::net::{IpAddr, SocketAddr};

/// A bound for the table of links in the core.
const MAX_PEERS: usize = 4096;

/// One listed peer.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Listed {
    /// Who.
    pub(crate) id: PeerId,
    /// What it is called here, whatever it calls itself.
    pub(crate) name: Option<String>,
    /// Addresses and networks that it may announce and send from.
    pub(crate) allowed: Vec<(IpAddr, u8)>,
    /// Where it may be reached by UDP when no relay has it.
    pub(crate) endpoints: Vec<SocketAddr>,
}

/// Understands the `[[peer]]` tables of a file.
pub(crate) fn understand(file: &FileLayer) -> Result<Vec<Listed>, Failure> {
    let mut peers: Vec<Listed> = Vec::with_capacity(file.peers.len());
    if file.peers.len() > MAX_PEERS {
        return Err(Failure::usage(format!(
            "{}: peer: {} peers are listed; at most {MAX_PEERS} are possible",
            file.path,
            file.peers.len()
        )));
    }
    for given in &file.peers {
        let peer = one(file, given)?;
        let told = |line: usize, key: &str, what: String| Failure::usage(format!("{}:{line}: {key}: {what}", file.path));
        let line_of = |key: &str| given.fields.get(key).map_or(given.line, |(_, line)| *line);
        if peers.iter().any(|known| known.id == peer.id) {
            return Err(told(line_of("id"), "peer.id", format!("{} is listed twice; keep one [[peer]] for it", peer.id)));
        }
        if let Some(name) = peer.name.as_ref().filter(|name| peers.iter().any(|known| known.name.as_ref() == Some(*name))) {
            return Err(told(line_of("name"), "peer.name", format!("{name:?} names two peers; give each a name of its own")));
        }
        if let Some((address, length)) = peer.allowed.iter().find(|network| peers.iter().any(|known| known.allowed.contains(network))) {
            return Err(told(
                line_of("allowed"),
                "peer.allowed",
                format!("{address}/{length} is allowed to two peers; it can belong to one"),
            ));
        }
        peers.push(peer);
    }
    Ok(peers)
}

fn one(file: &FileLayer, given: &GivenPeer) -> Result<Listed, Failure> {
    let wrong = |line: usize, key: &str, why: String| Failure::usage(format!("{}:{line}: peer.{key}: {why}", file.path));
    let Some((raw, line)) = given.fields.get("id") else {
        return Err(wrong(given.line, "id", "is missing; every [[peer]] has the id that `shadowmesh id` prints there".to_owned()));
    };
    let id = parse::text(raw).and_then(|text| credentials::peer_id(&text)).map_err(|why| wrong(*line, "id", why))?;
    let name = match given.fields.get("name") {
        Some((raw, line)) => Some(parse::peer_name(raw).map_err(|why| wrong(*line, "name", why))?),
        None => None,
    };
    let allowed = match given.fields.get("allowed") {
        Some((raw, line)) => networks(raw).map_err(|why| wrong(*line, "allowed", why))?,
        None => Vec::new(),
    };
    let endpoints = match given.fields.get("endpoint") {
        Some((raw, line)) => parse::endpoints(raw).map_err(|why| wrong(*line, "endpoint", why))?,
        None => Vec::new(),
    };
    Ok(Listed { id, name, allowed, endpoints })
}

fn networks(raw: &Raw) -> Result<Vec<(IpAddr, u8)>, String> {
    parse::list(raw)?
        .iter()
        .map(|item| parse::cidr(item).ok_or_else(|| format!("{item:?} is not a network; write it like \"10.77.0.1/32\"")))
        .collect()
}
