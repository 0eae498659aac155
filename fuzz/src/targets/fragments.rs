//! A responder's door for handshakes by UDP: fragments from several addresses, in any order, doubled, altered, repeated from elsewhere and
//! over renewed secrets. Nothing goes to an address that it has not paid for, nothing is kept for one that has not shown itself, and whole is
//! only what was sent (protocol 8.6).
use super::{cast, script::Script};
use shadowmesh_core::{
    drops::Drop,
    fragments::{Arrived, Door, FragmentKey, Inbox, Parcel, cookie_of},
    handshake::{Mac1Key, Role, Setup},
    network::Network,
    time::{Duration, Instant},
    wire::{CookieReply, Fragment, FragmentKind},
};
use std::{collections::BTreeMap, net::SocketAddr};
use zeroize::Zeroizing;

/// Steps of one script.
const STEPS: usize = 128;
/// Addresses that play, of two IP addresses, and attempts.
const PLACES: usize = 24;
const SIDS: usize = 3;
/// Datagrams that may be repeated.
const RECORDED_MAX: usize = 64;
/// Life of a message that is not whole.
const REASSEMBLY: Duration = Duration::from_secs(5);

struct Stage {
    now: Instant,
    door: Door,
    mac1: Mac1Key,
    stranger: Mac1Key,
    secrets: u8,
    /// What each attempt from each place has as a key.
    keys: BTreeMap<(usize, u32), FragmentKey>,
    /// Everything that was sent genuinely, and from where.
    recorded: Vec<(usize, Vec<u8>)>,
    /// Bytes that came from a place, and bytes that went there.
    paid: BTreeMap<usize, (usize, usize)>,
}

/// Steps.
pub fn fragments(data: &[u8]) {
    let mut script = Script::new(data);
    let mut stage = Stage::new();
    for _ in 0..STEPS {
        if script.is_empty() {
            break;
        }
        stage.step(&mut script);
        stage.bounds();
    }
    // whatever happened, an attempt from an address of its own works, and what waited is given up
    stage.now = stage.now + REASSEMBLY;
    stage.door.expire(stage.now);
    assert_eq!(stage.door.deadline(), None, "all that waited is gone");
    let (place, sid) = (PLACES, 99);
    stage.ask(place, sid);
    let key = stage.keys.get(&(place, sid)).cloned().expect("it was asked for");
    let mut wholes = 0;
    for (kind, message) in messages() {
        let mut parcel = Parcel::new(stage.now, key.cut(kind, sid, message));
        for fragment in parcel.due(stage.now) {
            wholes += usize::from(matches!(stage.take(place, fragment), Ok(Arrived::Whole { .. })));
        }
    }
    assert_eq!(wholes, 2, "INIT, then FIN");
}

/// The messages that a responder takes.
fn messages() -> [(FragmentKind, &'static [u8]); 2] {
    let genuine = cast::genuine(Role::PeerPeer);
    [(FragmentKind::Init, &genuine.init), (FragmentKind::Fin, &genuine.fin)]
}

fn address(place: usize) -> SocketAddr {
    SocketAddr::from(([192, 0, 2, 1 + (place % 2) as u8], 4_000 + place as u16))
}

impl Stage {
    fn new() -> Self {
        let responder = cast::bob().id();
        let relays = cast::network().relays.clone();
        let other = Network::new([8; 32], "other", relays).expect("within limits");
        Self {
            now: Instant::from_millis(1_000),
            door: Door::default(),
            mac1: cast::setup(Role::PeerPeer).mac1_key(responder),
            stranger: Setup::peer_peer(&other).mac1_key(responder),
            secrets: 0,
            keys: BTreeMap::new(),
            recorded: Vec::new(),
            paid: BTreeMap::new(),
        }
    }

    fn step(&mut self, script: &mut Script<'_>) {
        let op = script.byte();
        let (place, sid) = (script.below(PLACES), script.below(SIDS) as u32);
        match op % 8 {
            0 => self.now = self.now + Duration::from_millis(u64::from(script.u16())),
            1 => self.ask(place, sid),
            2..=4 => self.send(script, place, sid),
            5 => {
                let Some((_, bytes)) = self.pick(script) else { return };
                drop(self.take(place, &bytes));
            }
            6 => {
                let Some((from, bytes)) = self.pick(script) else { return };
                let altered = script.spoil(&bytes, &[]);
                let is_genuine = self.recorded.iter().any(|(_, known)| *known == altered);
                let taken = self.take(from, &altered);
                assert!(is_genuine || taken.is_err(), "a fragment that nobody sent is taken");
            }
            _ => {
                let asked = FragmentKey::first(&self.stranger).cut(FragmentKind::Init, sid, messages()[0].1);
                assert!(matches!(self.take(place, &asked[0]), Err(Drop::Forged)), "a stranger is answered");
            }
        }
    }

    /// What an initiator does first.
    fn ask(&mut self, place: usize, sid: u32) {
        let asked = FragmentKey::first(&self.mac1).cut(FragmentKind::Init, sid, messages()[0].1).swap_remove(0);
        self.record(place, &asked);
        let Ok(Arrived::Asked(reply)) = self.take(place, &asked) else { panic!("a member that asks is answered") };
        let reply = CookieReply::parse(&reply).expect("a reply");
        let cookie = cookie_of(&self.mac1, &asked, &reply).expect("a good reply");
        assert_eq!(cookie_of(&self.stranger, &asked, &reply), None);
        self.keys.insert((place, sid), FragmentKey::with_cookie(&self.mac1, &cookie));
    }

    /// One fragment of a message.
    fn send(&mut self, script: &mut Script<'_>, place: usize, sid: u32) {
        let Some(key) = self.keys.get(&(place, sid)) else { return };
        let (kind, message) = messages()[script.below(2)];
        let cut = key.cut(kind, sid, message);
        let bytes = cut[script.below(cut.len())].clone();
        self.record(place, &bytes);
        drop(self.take(place, &bytes));
    }

    fn record(&mut self, place: usize, bytes: &[u8]) {
        if self.recorded.len() < RECORDED_MAX {
            self.recorded.push((place, bytes.to_vec()));
        }
    }

    fn pick(&self, script: &mut Script<'_>) -> Option<(usize, Vec<u8>)> {
        self.recorded.get(script.below(self.recorded.len())).cloned()
    }

    /// A datagram comes in.
    fn take(&mut self, place: usize, bytes: &[u8]) -> Result<Arrived, Drop> {
        let account = self.paid.entry(place).or_default();
        account.0 += bytes.len();
        let fragment = Fragment::parse(bytes).map_err(|_| Drop::Malformed)?;
        let secrets = &mut self.secrets;
        let fresh = || {
            *secrets = secrets.wrapping_add(1);
            Zeroizing::new([*secrets; 32])
        };
        let arrived = self.door.take(self.now, &self.mac1, address(place), &fragment, fresh)?;
        match &arrived {
            Arrived::Asked(reply) => {
                assert!(!fragment.with_cookie && reply.len() <= bytes.len(), "no more than came");
                account.1 += reply.len();
                assert!(account.1 <= account.0, "more goes to an address than came from it");
            }
            Arrived::Kept => assert!(fragment.with_cookie, "kept for an address that has shown nothing"),
            Arrived::Whole { kind, message, .. } => {
                assert!(messages().contains(&(*kind, message)), "whole is what was never sent");
                // the same by hand
                let mut inbox = Inbox::new(self.now, &fragment);
                assert!(inbox.put(&fragment).is_none() && inbox.is_of(&fragment));
            }
        }
        Ok(arrived)
    }

    fn bounds(&self) {
        self.door.bounds(&mut |bound| assert!(bound.is_kept(), "{bound:?}"));
        assert!(self.door.deadline().is_none_or(|at| at <= self.now + REASSEMBLY));
    }
}
