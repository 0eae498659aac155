//! REQUEST, RESPONSE, COMPLETE in any order, altered, replayed, reflected and across epochs: each proves once, and only to whom it was
//! meant (protocol 5).
use super::{cast, memo::Memo, script::Script};
use shadowmesh_core::{
    handshake::Role,
    id::PathId,
    rehandshake::{Answerer, Asker, Ground, Proven, Refusal},
    session::{Chain, EpochKeys, Side},
};
use std::{collections::BTreeSet, net::SocketAddr, sync::Arc};

/// Steps of one script.
const STEPS: usize = 96;

struct Ends {
    chain: Arc<Chain>,
    keys: [EpochKeys; 2],
    asker: Asker,
    answerer: Answerer,
    /// Everything that was sent, by kind.
    requests: Vec<Vec<u8>>,
    responses: Vec<Vec<u8>>,
    completes: Vec<Vec<u8>>,
    answered: BTreeSet<u32>,
    completed: BTreeSet<u32>,
    confirmed: BTreeSet<u32>,
    nonces: u8,
}

/// Which side asks, then steps.
pub fn rehandshake(data: &[u8]) {
    let mut script = Script::new(data);
    let side = if script.byte() & 1 == 0 { Side::Initiator } else { Side::Responder };
    let mut ends = Ends::new(side);
    for _ in 0..STEPS {
        if script.is_empty() {
            break;
        }
        ends.step(&mut script);
    }
    // whatever happened, the next attempt succeeds
    let before = ends.confirmed.len();
    ends.request();
    let request = ends.requests.last().cloned().expect("just made");
    assert_eq!(ends.answer(&request), Ok(()), "a fresh request is answered");
    let response = ends.responses.last().cloned().expect("just made");
    assert_eq!(ends.complete(&response), Ok(()));
    let complete = ends.completes.last().cloned().expect("just made");
    assert_eq!(ends.confirm(&complete), Ok(()));
    assert_eq!(ends.confirmed.len(), before + 1);
}

impl Ends {
    fn new(side: Side) -> Self {
        let chain = Arc::clone(&cast::genuine(Role::PeerPeer).concluded.chain);
        let keys = [chain.keys(side, &Memo), chain.keys(side.other(), &Memo)];
        let here = Ground { path: PathId(6), own_sid: 11, peer_sid: 22, channel_binding: [5; 32] };
        let there = Ground { own_sid: 22, peer_sid: 11, ..here };
        Self {
            chain,
            keys,
            asker: Asker::new(here),
            answerer: Answerer::new(there),
            requests: Vec::new(),
            responses: Vec::new(),
            completes: Vec::new(),
            answered: BTreeSet::new(),
            completed: BTreeSet::new(),
            confirmed: BTreeSet::new(),
            nonces: 0,
        }
    }

    fn step(&mut self, script: &mut Script<'_>) {
        let sent: Vec<&Vec<u8>> = self.requests.iter().chain(&self.responses).chain(&self.completes).collect();
        let op = script.byte();
        let picked = sent.get(script.below(sent.len())).map(|message| (*message).clone()).unwrap_or_default();
        match op % 8 {
            0 | 1 => self.request(),
            2 => _ = self.answer(&picked),
            3 => _ = self.complete(&picked),
            4 => _ = self.confirm(&picked),
            5 => {
                let altered = script.spoil(&picked, &[]);
                _ = (self.answer(&altered), self.complete(&altered), self.confirm(&altered));
            }
            6 => self.reflect(&picked),
            _ => self.rekey(),
        }
    }

    fn nonce(&mut self) -> [u8; 32] {
        self.nonces = self.nonces.wrapping_add(1);
        [self.nonces; 32]
    }

    fn request(&mut self) {
        let nonce = self.nonce();
        self.requests.push(self.asker.request(&self.keys[0].path, at(1), 100, nonce, 0));
    }

    fn answer(&mut self, bytes: &[u8]) -> Result<(), Refusal> {
        let nonce = self.nonce();
        let response = self.answerer.answer(&self.keys[1].path, bytes, at(2), 200, nonce)?;
        let place = self.requests.iter().position(|request| request == bytes).expect("only what was asked is answered");
        assert!(response.len() <= bytes.len(), "never larger than the request");
        let attempt = place as u32 + 1;
        assert!(self.answered.last().is_none_or(|newest| attempt > *newest), "an old request is dropped");
        self.answered.insert(attempt);
        self.responses.push(response.clone());
        Ok(())
    }

    fn complete(&mut self, bytes: &[u8]) -> Result<(), Refusal> {
        let (complete, proven) = self.asker.complete(&self.keys[0].path, bytes, at(3), 300)?;
        assert!(self.responses.iter().any(|response| response == bytes), "only a response completes");
        self.proves(&proven, 2, 200);
        assert!(self.completed.insert(proven.attempt()), "each attempt counts once");
        self.completes.push(complete.clone());
        Ok(())
    }

    fn confirm(&mut self, bytes: &[u8]) -> Result<(), Refusal> {
        let proven = self.answerer.confirm(&self.keys[1].path, bytes)?;
        assert!(self.completes.iter().any(|complete| complete == bytes), "only a completion confirms");
        self.proves(&proven, 3, 300);
        assert!(self.confirmed.insert(proven.attempt()), "each attempt counts once");
        Ok(())
    }

    fn proves(&self, proven: &Proven, seen: u8, floor: u64) {
        let said = (proven.path(), proven.epoch(), proven.seen(), proven.floor());
        assert_eq!(said, (PathId(6), self.chain.epoch(), at(seen), floor));
    }

    /// What an end sent comes back to it, or goes to the same end of another path.
    fn reflect(&mut self, bytes: &[u8]) {
        let mirrored = Ground { path: PathId(6), own_sid: 22, peer_sid: 11, channel_binding: [5; 32] };
        let mut mirror = Answerer::new(mirrored);
        assert!(mirror.answer(&self.keys[0].path, bytes, at(2), 0, [9; 32]).is_err(), "a reflection proves nothing");
        let mut elsewhere = Answerer::new(Ground { path: PathId(8), ..mirrored });
        assert!(elsewhere.answer(&self.keys[1].path, bytes, at(2), 0, [9; 32]).is_err(), "another path");
        let mut intercepted = Answerer::new(Ground { channel_binding: [6; 32], ..mirrored });
        assert!(intercepted.answer(&self.keys[1].path, bytes, at(2), 0, [9; 32]).is_err(), "another TLS connection");
    }

    fn rekey(&mut self) {
        let side = self.keys[0].path.side();
        self.chain = Arc::new(self.chain.next(&[1; 32], &[2; 32], &[3; 64]));
        self.keys = [self.chain.keys(side, &Memo), self.chain.keys(side.other(), &Memo)];
    }
}

fn at(last: u8) -> SocketAddr {
    SocketAddr::from(([192, 0, 2, last], 443))
}
