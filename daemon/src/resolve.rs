//! Which peer a person means: a name, an overlay address, or the beginning of a `PeerId`.
use shadowmesh_core::{id::PeerId, status::Status};
use std::net::IpAddr;

/// Why no single peer is meant.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Unresolved {
    /// Nobody, so far.
    Unknown(String),
    /// Several.
    Ambiguous(String),
}

impl Unresolved {
    /// As a sentence.
    pub(crate) fn sentence(&self) -> &str {
        match self {
            Self::Unknown(sentence) | Self::Ambiguous(sentence) => sentence,
        }
    }
}

/// What `[[peer]]` calls this peer, or the one whose place it has taken.
pub(crate) fn listed_name(status: &Status, listed: &[(String, PeerId)], id: PeerId) -> Option<String> {
    listed.iter().find(|(_, listed)| status.present(*listed) == id).map(|(name, _)| name.clone())
}

/// Finds the peer. A name from `[[peer]]` (`listed`) wins over what peers call themselves.
pub(crate) fn resolve(status: &Status, listed: &[(String, PeerId)], text: &str) -> Result<PeerId, Unresolved> {
    if let Some((_, id)) = listed.iter().find(|(name, _)| name == text) {
        return Ok(status.present(*id));
    }
    if let Ok(address) = text.parse::<IpAddr>() {
        let holders = status.peers.iter().filter(|peer| peer.addresses.contains(&address)).map(|peer| peer.id);
        return single(holders, || format!("no peer has the address {address}; `shadowmesh status` lists the peers"), text);
    }
    // A claimed name may look like the beginning of an id, but the id cannot be claimed: it goes first.
    let by_id: Vec<PeerId> = if text.starts_with("sm-") && text.len() > 3 {
        status.peers.iter().map(|peer| peer.id).filter(|id| id.to_string().starts_with(text)).collect()
    } else {
        Vec::new()
    };
    if !by_id.is_empty() {
        return single(by_id.into_iter(), String::new, text);
    }
    let named = status.peers.iter().filter(|peer| peer.name.as_deref() == Some(text)).map(|peer| peer.id);
    single(named, || format!("no peer is called {text:?}; `shadowmesh status` lists the peers"), text)
}

fn single(found: impl Iterator<Item = PeerId>, unknown: impl FnOnce() -> String, text: &str) -> Result<PeerId, Unresolved> {
    let found: Vec<PeerId> = found.collect();
    match found.as_slice() {
        [] => Err(Unresolved::Unknown(unknown())),
        [one] => Ok(*one),
        several => {
            let ids: Vec<String> = several.iter().take(4).map(PeerId::to_string).collect();
            Err(Unresolved::Ambiguous(format!("{text:?} means {} peers ({}); give the PeerId", several.len(), ids.join(", "))))
        }
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use shadowmesh_core::status::{PeerState, PeerStatus, Totals};

    pub(crate) fn peer(byte: u8, name: &str, address: &str) -> PeerStatus {
        PeerStatus {
            id: PeerId([byte; 32]),
            name: Some(name.to_owned()),
            state: PeerState::Connected,
            addresses: vec![address.parse().expect("an address")],
            path: None,
            paths: Vec::new(),
            suite: None,
            epoch: 0,
            handshake_at: None,
            migrations: 0,
            fallbacks: 0,
            retries: 0,
            tx_frames: 0,
            tx_bytes: 0,
            rx_frames: 0,
            rx_bytes: 0,
            lost_frames: 0,
            duplicate_frames: 0,
            reordered_frames: 0,
            resent_frames: 0,
            refused: Vec::new(),
            candidates: Vec::new(),
            next_attempt_at: None,
            last_failure: None,
        }
    }

    pub(crate) fn status() -> Status {
        Status {
            id: PeerId([9; 32]),
            name: "me".to_owned(),
            addresses: Vec::new(),
            relays: Vec::new(),
            mappings: Vec::new(),
            peers: vec![peer(1, "a", "10.77.0.1"), peer(2, "b", "10.77.0.2"), peer(3, "b", "10.77.0.3")],
            drops: Vec::new(),
            totals: Totals::default(),
            succession: None,
            replaced: Vec::new(),
        }
    }

    #[test]
    fn names_addresses_and_ids_find_their_peer() {
        let status = status();
        assert_eq!(resolve(&status, &[], "a"), Ok(PeerId([1; 32])));
        assert_eq!(resolve(&status, &[], "10.77.0.3"), Ok(PeerId([3; 32])));
        let id = PeerId([2; 32]).to_string();
        assert_eq!(resolve(&status, &[], &id), Ok(PeerId([2; 32])));
        assert_eq!(resolve(&status, &[], &id[..id.len() / 2]), Ok(PeerId([2; 32])));
    }

    #[test]
    fn a_listed_name_wins_and_a_claimed_one_must_be_unique() {
        let status = status();
        assert!(matches!(resolve(&status, &[], "b"), Err(Unresolved::Ambiguous(_))));
        assert_eq!(resolve(&status, &[("b".to_owned(), PeerId([3; 32]))], "b"), Ok(PeerId([3; 32])));
        assert!(matches!(resolve(&status, &[], "c"), Err(Unresolved::Unknown(_))));
        assert!(matches!(resolve(&status, &[], "sm-"), Err(Unresolved::Unknown(_))));
        assert!(matches!(resolve(&status, &[], "10.0.0.1"), Err(Unresolved::Unknown(_))));
        let followed = Status { replaced: vec![(PeerId([3; 32]), PeerId([1; 32]))], ..status };
        assert_eq!(resolve(&followed, &[("b".to_owned(), PeerId([3; 32]))], "b"), Ok(PeerId([1; 32])), "whoever follows has the name");
    }
}
