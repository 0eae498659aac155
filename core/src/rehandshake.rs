//! The re-handshake: three messages under HMAC-SHA256 that prove a session on a new path (protocol 5).
//!
//! ```text
//!   Asker (chose the path)                         Answerer
//!   request  ── PATH_REQ nonce_a ──────────────▶   answer
//!   complete ◀─────────────── PATH_RSP nonce_b ──
//!      │     ── PATH_CMP ──────────────────────▶   confirm
//!      ▼                                              ▼
//!   Proven                                         Proven
//! ```
//!
//! How to use it. Each end keeps one `Asker` for each path on which it asks and one `Answerer` for each path on which it is
//! asked, as long as the path lives. To find the path of a message: `PathHeader::parse`, then `receiver` (the session) and
//! `path`; `epoch` tells which `PathKey` of the session to pass (one of another epoch is refused, never wrong). The caller
//! owns time: it calls `request` again to transmit again or to probe, measures the RTT from the `attempt` that
//! `Proven` names, and decides which of two crossing requests stands. The same messages open holes in a NAT.
//!
//! What a `Proven` says: the other end of *this* session holds this epoch's key *now* (fresh nonces both ways), the path
//! works both ways, both ends mean the same path and (on TLS) see the same connection. Nothing is accepted twice: an
//! attempt's nonce dies with the first answer it gets. A refusal changes no state.
use crate::{
    crypto::hash::equal,
    id::PathId,
    session::PathKey,
    wire::{
        PathComplete, PathHeader, PathRequest, PathResponse, TYPE_PATH_CMP, TYPE_PATH_REQ, TYPE_PATH_RSP,
        path::{PATH_HEADER_LEN, PATH_MAC_LEN, PATH_REQUEST_LEN},
    },
};
use core::{fmt, net::SocketAddr};

/// Nonces that are alive at one time on one path and direction: more requests in flight forget the oldest.
pub const LIVE_NONCES: usize = 8;

/// On what a re-handshake runs; the same for its whole life.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ground {
    /// The path that is proven.
    pub path: PathId,
    /// The session number that this end chose: stands in what it receives.
    pub own_sid: u32,
    /// The session number that the other end chose: stands in what it is sent.
    pub peer_sid: u32,
    /// The TLS exporter of the path; zeros on UDP.
    pub channel_binding: [u8; 32],
}

/// A path on which the other end proved this session: only this module makes one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Proven {
    path: PathId,
    epoch: u32,
    attempt: u32,
    seen: SocketAddr,
    floor: u64,
    size: usize,
}

impl Proven {
    /// The path.
    pub fn path(&self) -> PathId {
        self.path
    }

    /// The epoch whose key proved it.
    pub fn epoch(&self) -> u32 {
        self.epoch
    }

    /// The attempt that succeeded, for the RTT.
    pub fn attempt(&self) -> u32 {
        self.attempt
    }

    /// Where the other end sees us on this path.
    pub fn seen(&self) -> SocketAddr {
        self.seen
    }

    /// The other end's receive floor.
    pub fn floor(&self) -> u64 {
        self.floor
    }

    /// Bytes of the request and of its answer: messages of this length came through, both ways.
    pub fn size(&self) -> usize {
        self.size
    }
}

/// Why a message of the re-handshake was dropped.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Refusal {
    /// It does not follow the layout.
    Malformed,
    /// It is for another session, path or epoch.
    Elsewhere,
    /// Its sender plays our own part in the session: a reflection.
    Reflected,
    /// Its attempt is over or was never made: a replay, or too late.
    Old,
    /// Its mac does not hold.
    Forged,
}

/// The end that asks on a path.
pub struct Asker {
    ground: Ground,
    attempts: u32,
    asked: [Option<Asked>; LIVE_NONCES],
}

#[derive(Clone, Copy)]
struct Asked {
    attempt: u32,
    epoch: u32,
    nonce: [u8; 32],
}

impl Asker {
    /// Nothing asked yet.
    pub fn new(ground: Ground) -> Self {
        Self { ground, attempts: 0, asked: [None; LIVE_NONCES] }
    }

    /// The next transmission of `PATH_REQ`. `seen` is where we see the other end, `floor` our receive floor, `nonce` fresh; `size` is
    /// how long it shall be, in bytes, with padding.
    pub fn request(&mut self, key: &PathKey, seen: SocketAddr, floor: u64, nonce: [u8; 32], size: usize) -> Vec<u8> {
        self.attempts = self.attempts.saturating_add(1);
        let attempt = self.attempts;
        self.asked[attempt as usize % LIVE_NONCES] = Some(Asked { attempt, epoch: key.epoch(), nonce });
        let request = PathRequest { header: header(key, &self.ground, TYPE_PATH_REQ, attempt), nonce, seen, floor };
        sealed(size, |out| request.emit(out), |bytes| mac(key, &self.ground, REQUEST, [&[], &[]], bytes))
    }

    /// The number of the last transmission; 0 before the first.
    pub fn attempts(&self) -> u32 {
        self.attempts
    }

    /// Takes `PATH_RSP` and makes `PATH_CMP`. The path is proven for this end.
    pub fn complete(&mut self, key: &PathKey, response: &[u8], seen: SocketAddr, floor: u64) -> Result<(Vec<u8>, Proven), Refusal> {
        let said = PathResponse::parse(response).map_err(|_| Refusal::Malformed)?;
        placed(key, &self.ground, &said.header)?;
        let attempt = said.header.attempt;
        let asked = self.asked[attempt as usize % LIVE_NONCES]
            .filter(|asked| asked.attempt == attempt && asked.epoch == key.epoch())
            .ok_or(Refusal::Old)?;
        checked(key, &self.ground, RESPONSE, [&asked.nonce, &[]], response)?;
        for slot in &mut self.asked {
            slot.take_if(|asked| asked.attempt <= attempt);
        }
        let complete = PathComplete { header: header(key, &self.ground, TYPE_PATH_CMP, attempt), seen, floor };
        let bytes = sealed(0, |out| complete.emit(out), |bytes| mac(key, &self.ground, COMPLETE, [&asked.nonce, &said.nonce], bytes));
        Ok((bytes, proven(key, &said.header, said.seen, said.floor, response.len())))
    }
}

/// The end that is asked on a path.
pub struct Answerer {
    ground: Ground,
    newest: u32,
    answered: [Option<Answered>; LIVE_NONCES],
}

#[derive(Clone, Copy)]
struct Answered {
    attempt: u32,
    epoch: u32,
    theirs: [u8; 32],
    ours: [u8; 32],
    size: usize,
}

impl Answerer {
    /// Nothing answered yet.
    pub fn new(ground: Ground) -> Self {
        Self { ground, newest: 0, answered: [None; LIVE_NONCES] }
    }

    /// Takes `PATH_REQ` and makes `PATH_RSP`, as long as it. `seen` is where we see the other end, `floor` our receive floor, `nonce` fresh.
    pub fn answer(&mut self, key: &PathKey, request: &[u8], seen: SocketAddr, floor: u64, nonce: [u8; 32]) -> Result<Vec<u8>, Refusal> {
        let said = PathRequest::parse(request).map_err(|_| Refusal::Malformed)?;
        placed(key, &self.ground, &said.header)?;
        let attempt = said.header.attempt;
        // protocol 5.3: attempts rise with each transmission, an old one is dropped
        if attempt <= self.newest {
            return Err(Refusal::Old);
        }
        checked(key, &self.ground, REQUEST, [&[], &[]], request)?;
        self.newest = attempt;
        self.answered[attempt as usize % LIVE_NONCES] =
            Some(Answered { attempt, epoch: key.epoch(), theirs: said.nonce, ours: nonce, size: request.len() });
        let response = PathResponse { header: header(key, &self.ground, TYPE_PATH_RSP, attempt), nonce, seen, floor };
        Ok(sealed(request.len(), |out| response.emit(out), |bytes| mac(key, &self.ground, RESPONSE, [&said.nonce, &[]], bytes)))
    }

    /// Takes `PATH_CMP`. The path is proven for this end.
    pub fn confirm(&mut self, key: &PathKey, complete: &[u8]) -> Result<Proven, Refusal> {
        let said = PathComplete::parse(complete).map_err(|_| Refusal::Malformed)?;
        placed(key, &self.ground, &said.header)?;
        let attempt = said.header.attempt;
        let answered = self.answered[attempt as usize % LIVE_NONCES]
            .filter(|answered| answered.attempt == attempt && answered.epoch == key.epoch())
            .ok_or(Refusal::Old)?;
        checked(key, &self.ground, COMPLETE, [&answered.theirs, &answered.ours], complete)?;
        for slot in &mut self.answered {
            slot.take_if(|answered| answered.attempt <= attempt);
        }
        Ok(proven(key, &said.header, said.seen, said.floor, answered.size))
    }
}

impl fmt::Debug for Asker {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Asker").field("path", &self.ground.path).field("attempts", &self.attempts).finish_non_exhaustive()
    }
}

impl fmt::Debug for Answerer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Answerer").field("path", &self.ground.path).field("newest", &self.newest).finish_non_exhaustive()
    }
}

/// One label for each message type, all of one length.
type Label = &'static [u8; 22];
const REQUEST: Label = b"shadowmesh/1 path-req\0";
const RESPONSE: Label = b"shadowmesh/1 path-rsp\0";
const COMPLETE: Label = b"shadowmesh/1 path-cmp\0";

fn header(key: &PathKey, ground: &Ground, kind: u8, attempt: u32) -> PathHeader {
    PathHeader { kind, epoch: key.epoch() as u8, flags: 0, role: key.side().code(), receiver: ground.peer_sid, path: ground.path, attempt }
}

/// Whether a message is for this session, path and epoch, and from the other side.
fn placed(key: &PathKey, ground: &Ground, header: &PathHeader) -> Result<(), Refusal> {
    if header.role != key.side().other().code() {
        return Err(Refusal::Reflected);
    }
    if header.receiver != ground.own_sid || header.path != ground.path || header.epoch != key.epoch() as u8 {
        return Err(Refusal::Elsewhere);
    }
    Ok(())
}

/// Whether this is a request that the other end made for this ground, whenever that was.
pub(crate) fn is_request(key: &PathKey, ground: &Ground, request: &[u8]) -> bool {
    let said = PathRequest::parse(request);
    said.is_ok_and(|said| placed(key, ground, &said.header).is_ok()) && checked(key, ground, REQUEST, [&[], &[]], request).is_ok()
}

/// protocol 5.2: `HMAC(path_key`, label ‖ `session_id` ‖ header ‖ nonces so far ‖ fields ‖ `channel_binding`)
///
/// `message` is all before the mac; `earlier` are the nonces that it does not hold itself: the asker's for RSP, both for CMP.
fn mac(key: &PathKey, ground: &Ground, label: Label, earlier: [&[u8]; 2], message: &[u8]) -> [u8; PATH_MAC_LEN] {
    let (header, rest) = message.split_at(PATH_HEADER_LEN.min(message.len()));
    let session = key.session_id().0;
    key.hmac().mac(&[label, &session, header, earlier[0], earlier[1], rest, &ground.channel_binding])
}

/// Whether the mac at the end of a message holds.
fn checked(key: &PathKey, ground: &Ground, label: Label, earlier: [&[u8]; 2], message: &[u8]) -> Result<(), Refusal> {
    let (message, tag) = message.split_last_chunk::<PATH_MAC_LEN>().ok_or(Refusal::Malformed)?;
    if equal(&mac(key, ground, label, earlier, message), tag) { Ok(()) } else { Err(Refusal::Forged) }
}

/// What `emit` appends, zeros up to `size` bytes in all, and the mac over it.
fn sealed(size: usize, emit: impl FnOnce(&mut Vec<u8>), mac: impl FnOnce(&[u8]) -> [u8; PATH_MAC_LEN]) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(size.max(PATH_REQUEST_LEN));
    emit(&mut bytes);
    bytes.resize(bytes.len().max(size.saturating_sub(PATH_MAC_LEN)), 0);
    let tag = mac(&bytes);
    bytes.extend_from_slice(&tag);
    bytes
}

fn proven(key: &PathKey, header: &PathHeader, seen: SocketAddr, floor: u64, size: usize) -> Proven {
    Proven { path: header.path, epoch: key.epoch(), attempt: header.attempt, seen, floor, size }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        crypto::rustcrypto::RustCrypto,
        session::{Chain, Side, Suite},
    };
    use proptest::prelude::*;
    use zeroize::Zeroizing;

    // protocol 5.3
    #[test]
    fn three_messages_prove_the_path_to_both_ends() {
        for side in [Side::Initiator, Side::Responder] {
            let mut world = World::new(side);
            let (request, response, complete, proven) = world.run();
            assert_eq!((request.len(), response.len(), complete.len()), (108, 108, 76));
            assert_eq!(proven[0], Proven { path: PathId(6), epoch: 0, attempt: 1, seen: at(2), floor: 200, size: 108 });
            assert_eq!(proven[1], Proven { path: PathId(6), epoch: 0, attempt: 1, seen: at(3), floor: 300, size: 108 });
            let said = (proven[0].path(), proven[0].epoch(), proven[0].attempt(), proven[0].seen(), proven[0].floor(), proven[0].size());
            assert_eq!(said, (PathId(6), 0, 1, at(2), 200, 108), "and whoever holds the proof can ask it");
        }
    }

    // protocol 5.1, 8.3
    #[test]
    fn a_padded_request_is_answered_at_its_length_and_both_ends_know_it() {
        let mut world = World::new(Side::Initiator);
        let request = world.padded(1_313);
        let response = world.answer(&request).expect("a fresh request");
        assert_eq!((request.len(), response.len()), (1_313, 1_313));
        let (complete, here) = world.complete(&response).expect("a good response");
        let there = world.confirm(&complete).expect("a good completion");
        assert_eq!((complete.len(), here.size(), there.size()), (76, 1_313, 1_313));
        let longer = [&request[..], &[0]].concat();
        assert!(world.answer(&longer).is_err());
    }

    #[test]
    fn it_can_be_run_again_and_again() {
        let mut world = World::new(Side::Initiator);
        for attempt in 1..20 {
            let (.., proven) = world.run();
            assert_eq!(proven.map(|proven| proven.attempt), [attempt; 2]);
        }
    }

    #[test]
    fn what_is_printed_of_a_path_holds_no_nonce() {
        let mut world = World::new(Side::Initiator);
        world.run();
        let shown = format!("{:?} {:?}", world.asker, world.answerer);
        assert_eq!(shown, "Asker { path: PathId(6), attempts: 1, .. } Answerer { path: PathId(6), newest: 1, .. }");
    }

    // protocol 5.3
    #[test]
    fn each_message_counts_once() {
        let mut world = World::new(Side::Initiator);
        let (request, response, complete, _) = world.run();
        world.refuses(&request, &response, &complete, Refusal::Old);
        world.run();
        world.refuses(&request, &response, &complete, Refusal::Old);
    }

    #[test]
    fn answers_to_a_request_that_was_sent_again_still_count() {
        let mut world = World::new(Side::Initiator);
        let requests: Vec<_> = (0..3).map(|_| world.request()).collect();
        let responses: Vec<_> = requests.iter().map(|request| world.answer(request).expect("rising attempts")).collect();
        let (complete, proven) = world.complete(&responses[1]).expect("attempt 2 is alive");
        assert_eq!(proven.attempt(), 2);
        assert_eq!(world.complete(&responses[0]), Err(Refusal::Old), "attempt 1 died with it");
        let (later, _) = world.complete(&responses[2]).expect("attempt 3 is still alive");
        assert_eq!(world.confirm(&complete).map(|proven| proven.attempt()), Ok(2));
        assert_eq!(world.confirm(&later).map(|proven| proven.attempt()), Ok(3));
        assert_eq!(world.answer(&requests[2]), Err(Refusal::Old));
    }

    // protocol 5.3
    #[test]
    fn an_old_request_is_dropped_when_a_newer_one_was_answered() {
        let mut world = World::new(Side::Initiator);
        let (old, new) = (world.request(), world.request());
        assert!(world.answer(&new).is_ok());
        assert_eq!(world.answer(&old), Err(Refusal::Old));
    }

    // protocol 5.3
    #[test]
    fn the_ninth_request_in_flight_forgets_the_first() {
        let mut world = World::new(Side::Initiator);
        let requests: Vec<_> = (0..=LIVE_NONCES).map(|_| world.request()).collect();
        let responses: Vec<_> = requests.iter().map(|request| world.answer(request).expect("rising attempts")).collect();
        assert_eq!(world.complete(&responses[0]), Err(Refusal::Old));
        assert!(world.complete(&responses[1]).is_ok());
        assert_eq!(world.asker.attempts(), 9);
    }

    // protocol 5.3
    #[test]
    fn a_reflected_message_is_refused() {
        // The same end asks and is asked on the path, as when requests cross.
        let mut world = World::new(Side::Initiator);
        let key = world.chain.keys(Side::Initiator, &RustCrypto).path;
        let mut own = Answerer::new(world.asker.ground);
        let request = world.request();
        assert_eq!(own.answer(&key, &request, at(1), 0, [1; 32]), Err(Refusal::Reflected));
        // Even when both session numbers are equal and the role byte is turned over, the mac covers it.
        let mut turned = request.clone();
        turned[3] = Side::Responder.code();
        turned[4..8].copy_from_slice(&world.asker.ground.own_sid.to_be_bytes());
        assert_eq!(own.answer(&key, &turned, at(1), 0, [1; 32]), Err(Refusal::Forged));
        let response = world.answer(&request).expect("a fresh request");
        assert_eq!(world.answerer.confirm(&world.keys[1].path, &response), Err(Refusal::Malformed));
    }

    // protocol 5.2, 5.3
    #[test]
    fn another_session_epoch_path_or_connection_is_refused() {
        let other_session = World::with(Side::Initiator, 2, World::GROUND);
        let other_binding = World::with(Side::Initiator, 1, Ground { channel_binding: [8; 32], ..World::GROUND });
        let other_path = World::with(Side::Initiator, 1, Ground { path: PathId(8), ..World::GROUND });
        let other_sid = World::with(Side::Initiator, 1, Ground { peer_sid: 99, ..World::GROUND });
        let mut other_epoch = World::new(Side::Initiator);
        other_epoch.rekey();
        for (mut other, want) in [
            (other_session, Refusal::Forged),
            (other_binding, Refusal::Forged),
            (other_path, Refusal::Elsewhere),
            (other_sid, Refusal::Elsewhere),
            (other_epoch, Refusal::Elsewhere),
        ] {
            let mut world = World::new(Side::Initiator);
            // The same attempt with the same nonces, so that nothing but the tried difference can speak against it.
            let request = other.request();
            assert_eq!(world.answer(&request), Err(want));
            let mine = world.request();
            let response = other.answer(&request).expect("at home it is good");
            if want == Refusal::Forged {
                assert_eq!(world.complete(&response), Err(want));
                world.answer(&mine).expect("a fresh request");
                let (complete, _) = other.complete(&response).expect("at home it is good");
                assert_eq!(world.confirm(&complete), Err(want));
            } else {
                assert!(world.complete(&response).is_err());
            }
        }
    }

    // protocol 5.3
    #[test]
    fn an_attempt_does_not_outlive_its_epoch() {
        // 256 epochs later the low byte is the same again.
        let mut world = World::new(Side::Initiator);
        let request = world.request();
        let response = world.answer(&request).expect("a fresh request");
        let (complete, _) = world.complete(&response).expect("a good response");
        let unanswered = world.request();
        for _ in 0..256 {
            world.rekey();
        }
        assert_eq!(world.confirm(&complete), Err(Refusal::Old));
        assert_eq!(world.complete(&response), Err(Refusal::Old));
        assert_eq!(world.answer(&unanswered), Err(Refusal::Forged));
        world.run();
    }

    // protocol 5.2
    #[test]
    fn each_altered_bit_is_noticed_and_changes_nothing() {
        for side in [Side::Initiator, Side::Responder] {
            let mut world = World::new(side);
            let request = world.request();
            each_flip(&request, |bad| assert!(world.answer(bad).is_err()));
            let response = world.answer(&request).expect("the attempt was not harmed");
            each_flip(&response, |bad| assert!(world.complete(bad).is_err()));
            let (complete, _) = world.complete(&response).expect("the attempt was not harmed");
            each_flip(&complete, |bad| assert!(world.confirm(bad).is_err()));
            assert!(world.confirm(&complete).is_ok());
        }
    }

    #[test]
    fn a_response_without_its_request_is_refused() {
        let mut world = World::new(Side::Initiator);
        let request = world.request();
        let response = world.answer(&request).expect("a fresh request");
        let mut fresh = Asker::new(World::GROUND);
        assert_eq!(fresh.complete(&world.keys[0].path, &response, at(3), 0), Err(Refusal::Old));
        fresh.request(&world.keys[0].path, at(3), 0, [0x77; 32], 0);
        assert_eq!(fresh.complete(&world.keys[0].path, &response, at(3), 0), Err(Refusal::Forged), "the nonce is another");
    }

    proptest! {
        #[test]
        fn random_bytes_never_panic(bytes in proptest::collection::vec(any::<u8>(), 0..130), kind in 0_usize..3) {
            let mut world = World::new(Side::Initiator);
            let request = world.request();
            world.answer(&request).expect("a fresh request");
            let mut bytes = bytes;
            if let Some(first) = bytes.first_mut() {
                *first = [TYPE_PATH_REQ, TYPE_PATH_RSP, TYPE_PATH_CMP][kind];
            }
            prop_assert!(world.answer(&bytes).is_err() && world.complete(&bytes).is_err() && world.confirm(&bytes).is_err());
        }
    }

    /// Both ends of one path.
    struct World {
        chain: Chain,
        side: Side,
        keys: [crate::session::EpochKeys; 2],
        asker: Asker,
        answerer: Answerer,
        nonces: u64,
    }

    impl World {
        const GROUND: Ground = Ground { path: PathId(6), own_sid: 11, peer_sid: 22, channel_binding: [5; 32] };

        fn new(side: Side) -> Self {
            Self::with(side, 1, Self::GROUND)
        }

        /// The end that asks plays `side` in the session.
        fn with(side: Side, secret: u8, ground: Ground) -> Self {
            let chain = Chain::start(Zeroizing::new([secret; 64]), Suite::ChaCha20Poly1305);
            let keys = [chain.keys(side, &RustCrypto), chain.keys(side.other(), &RustCrypto)];
            let there = Ground { own_sid: ground.peer_sid, peer_sid: ground.own_sid, ..ground };
            Self { chain, side, keys, asker: Asker::new(ground), answerer: Answerer::new(there), nonces: 0 }
        }

        fn rekey(&mut self) {
            self.chain = self.chain.next(&[1; 32], &[2; 32], &[3; 64]);
            self.keys = [self.chain.keys(self.side, &RustCrypto), self.chain.keys(self.side.other(), &RustCrypto)];
        }

        fn request(&mut self) -> Vec<u8> {
            self.padded(0)
        }

        fn padded(&mut self, size: usize) -> Vec<u8> {
            let nonce = self.nonce();
            self.asker.request(&self.keys[0].path, at(1), 100, nonce, size)
        }

        fn answer(&mut self, request: &[u8]) -> Result<Vec<u8>, Refusal> {
            let nonce = self.nonce();
            self.answerer.answer(&self.keys[1].path, request, at(2), 200, nonce)
        }

        fn complete(&mut self, response: &[u8]) -> Result<(Vec<u8>, Proven), Refusal> {
            self.asker.complete(&self.keys[0].path, response, at(3), 300)
        }

        fn confirm(&mut self, complete: &[u8]) -> Result<Proven, Refusal> {
            self.answerer.confirm(&self.keys[1].path, complete)
        }

        fn run(&mut self) -> (Vec<u8>, Vec<u8>, Vec<u8>, [Proven; 2]) {
            let request = self.request();
            let response = self.answer(&request).expect("a fresh request");
            let (complete, here) = self.complete(&response).expect("a good response");
            let there = self.confirm(&complete).expect("a good completion");
            (request, response, complete, [here, there])
        }

        fn refuses(&mut self, request: &[u8], response: &[u8], complete: &[u8], want: Refusal) {
            assert_eq!(self.answer(request), Err(want));
            assert_eq!(self.complete(response), Err(want));
            assert_eq!(self.confirm(complete), Err(want));
        }

        fn nonce(&mut self) -> [u8; 32] {
            self.nonces += 1;
            core::array::from_fn(|i| self.nonces.to_be_bytes()[i % 8])
        }
    }

    fn at(last: u8) -> SocketAddr {
        SocketAddr::from(([192, 0, 2, last], 443))
    }

    fn each_flip(message: &[u8], mut check: impl FnMut(&[u8])) {
        for bit in 0..message.len() * 8 {
            let mut bad = message.to_vec();
            bad[bit / 8] ^= 1 << (bit % 8);
            check(&bad);
        }
    }
}
