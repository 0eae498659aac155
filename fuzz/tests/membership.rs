//! Who gets a session with whom, and when a handshake is made, repeated and given up (protocol 2.3, 3.9).
use shadowmesh_core::{
    config::{Member, Transports},
    event::Event,
    status::RelayState,
    time::Instant,
    wire::{RECORD_FLAG_URGENT, Records, TYPE_FIN, TYPE_FWD, TYPE_INIT, TYPE_RESP},
};
use shadowmesh_fuzz::world::{HostId, Letter, World, payloads, rewrite};
use std::time::Duration;

const SECOND: Duration = Duration::from_secs(1);

// protocol 2.3
#[test]
fn a_peer_that_lists_its_peers_has_no_session_with_another_member() {
    let mut world = World::new(501);
    let relay = world.relay();
    let (friend, other) = (world.peer(relay), world.peer(relay));
    let listed = Member { id: world.id(friend), name: None, allowed: Vec::new(), endpoints: Vec::new() };
    let closed = world.peer_with(&[relay], |plan| plan.config.members = vec![listed]);
    world.until_connected(closed, friend);
    world.until_connected(friend, other);
    let flow = world.stream(other, closed, 20);
    world.run(20 * SECOND);
    assert!(!world.is_connected(other, closed) && !world.is_connected(closed, other));
    assert_eq!(world.account_of(flow).handed, world.account_of(flow).lost, "nothing of it came out");
    assert!(world.dropped(closed, "handshake") > 0, "it tried, and was counted");
}

/// From one moment to the next the other end is a stranger, on a direct path and over the relay, and later no stranger any more.
// protocol 2.3
#[test]
fn who_is_revoked_is_left_at_once_and_who_is_taken_back_is_greeted_at_once() {
    let mut world = World::new(505);
    let relay = world.relay();
    let [a, b, c] = [0, 1, 2].map(|_| world.peer(relay));
    world.until_direct(a, b);
    world.until_connected(a, c);
    let revoked = world.id(b);
    let alone = Member { id: world.id(c), name: Some("c".to_owned()), allowed: Vec::new(), endpoints: Vec::new() };
    for (members, revoked) in [(Vec::new(), vec![revoked]), (vec![alone], Vec::new())] {
        world.event(a, Event::Members { members, revoked });
        assert!(!world.is_connected(a, b), "at once");
        let refused = world.dropped(a, "handshake");
        let [kept, there, back] = [(a, c), (a, b), (b, a)].map(|(from, to)| world.stream(from, to, 20));
        world.run(60 * SECOND);
        assert!(!world.is_connected(a, b) && world.is_connected(a, c), "and for as long as it stays so");
        assert!(world.dropped(a, "handshake") > refused, "it tried to come back");
        world.assert_whole(&[kept]);
        for flow in [there, back] {
            assert_eq!(world.account_of(flow).handed, world.account_of(flow).lost, "nothing of it came out");
            world.stop(flow);
        }
        world.stop(kept);
        world.event(a, Event::Members { members: Vec::new(), revoked: Vec::new() });
        world.until("they are connected again", 5 * SECOND, |world| world.is_connected(a, b));
        world.until_direct(a, b);
    }
}

// protocol 2.2, 2.3
#[test]
fn a_relay_forwards_nothing_between_two_networks() {
    let mut world = World::new(502);
    let relay = world.relay();
    let (a, b) = (world.peer(relay), world.peer(relay));
    let elsewhere = World::new(999).network().clone();
    let stranger = world.peer_with(&[relay], |plan| plan.config.network = elsewhere);
    world.until_connected(a, b);
    world.until("the other network's peer is at the relay", 5 * SECOND, |world| {
        world.status(stranger).relays.iter().all(|relay| relay.state == RelayState::Connected)
    });
    world.run(5 * SECOND);
    assert_eq!(world.hub_status(relay).networks, 2);
    assert_eq!(world.status(stranger).peers.len(), 0, "it is not even told of the others");
    assert!(world.peer_status(a, stranger).is_none() && world.peer_status(b, stranger).is_none());
}

// protocol 3.9
#[test]
fn the_smaller_peer_begins_at_once_and_the_larger_after_a_second_of_silence() {
    let mut world = World::new(503);
    let couple = Couple::new(&mut world, |_, _| true);
    couple.until_connected(&mut world);
    let begun: Vec<_> = couple.sent(&mut world).into_iter().filter(|sent| sent.kind == TYPE_INIT).map(|sent| sent.by_smaller).collect();
    assert_eq!(begun, [true]);

    // what the smaller one begins does not come through: the larger begins, once it has heard nothing for a second
    let mut world = World::new(503);
    let couple = Couple::new(&mut world, |by_smaller, kind| !(by_smaller && kind == TYPE_INIT));
    world.run(3 * SECOND);
    let sent = couple.sent(&mut world);
    let begun = |smaller| sent.iter().find(|sent| sent.kind == TYPE_INIT && sent.by_smaller == smaller).expect("an INIT").at;
    let wait = begun(false).since(begun(true));
    assert!(wait >= Duration::from_millis(900) && wait <= SECOND + Duration::from_millis(200), "{wait:?}");
}

// protocol 3.9
#[test]
fn init_is_sent_again_after_half_a_second_doubling_and_an_attempt_ends_after_thirty() {
    let mut world = World::new(504);
    let couple = Couple::new(&mut world, |_, kind| kind != TYPE_RESP);
    world.run(40 * SECOND);
    let sent = couple.times(&mut world, TYPE_INIT);
    let gaps: Vec<f64> = sent.windows(2).map(|pair| pair[1].since(pair[0]).as_secs_f64()).collect();
    for (gap, expected) in gaps.iter().zip([0.5, 1.0, 2.0, 4.0, 8.0]) {
        assert!(*gap >= expected - 0.01 && *gap <= expected * 1.125 + 0.05, "{gaps:?}");
    }
    // after 15.5 s the next repetition would be due 16 s later, and the attempt has ended by then; another begins after a rest of 1 s
    let anew: f64 = gaps[..6].iter().sum();
    assert!((30.9..31.3).contains(&anew), "{anew}: {gaps:?}");
}

// protocol 3.9
#[test]
fn a_session_that_is_not_confirmed_four_seconds_after_fin_starts_anew_with_fresh_keys() {
    let mut world = World::new(505);
    let couple = Couple::new(&mut world, |_, kind| kind != TYPE_FIN);
    world.run(12 * SECOND);
    let sent = couple.sent(&mut world);
    let of = |kind: u8| sent.iter().filter(move |sent| sent.kind == kind && sent.by_smaller);
    let first_fin = of(TYPE_FIN).next().expect("a FIN").at;
    let again = of(TYPE_INIT).find(|init| init.at > first_fin).expect("another INIT");
    let wait = again.at.since(first_fin);
    assert!(wait >= 4 * SECOND && wait < 6 * SECOND, "{wait:?}");
    assert_eq!(of(TYPE_FIN).filter(|fin| fin.at < again.at).count(), 4, "FIN went again after 0.5, 1 and 2 s");
    assert_ne!(of(TYPE_INIT).next().expect("an INIT").bytes, again.bytes);
}

// protocol 3.8
#[test]
fn an_init_with_a_wrong_mac1_is_not_answered_though_all_else_in_it_is_good() {
    let mut world = World::new(507);
    let couple = Couple::new(&mut world, |_, _| true);
    world.tap(
        couple.relay,
        couple.larger,
        Box::new(|letter: Letter| {
            vec![rewrite(&letter.bytes, |handle, payload| {
                if handle.0 != 0 && payload[0] == TYPE_INIT {
                    let mac1 = payload.len() - 32;
                    payload[mac1] ^= 1;
                }
            })]
        }),
    );
    world.run(SECOND / 2);
    assert!(couple.sent(&mut world).iter().all(|sent| sent.kind != TYPE_RESP));
    assert!(world.dropped(couple.larger, "forged") > 0);
}

// protocol 9.2
#[test]
fn handshakes_are_urgent_and_sealed_frames_are_not() {
    let mut world = World::new(506);
    let relay = world.relay();
    let (a, b) = (world.idle_peer(&[relay], |_| {}), world.idle_peer(&[relay], |_| {}));
    world.record();
    world.start(a);
    world.start(b);
    world.until_direct(a, b);
    world.stream(a, b, 100);
    world.run(SECOND);
    let (mut urgent, mut plain) = (0, 0);
    for message in world.recorded().iter().filter(|message| message.to == relay && message.bytes[0] == TYPE_FWD) {
        for record in Records::new(&message.bytes).map_while(Result::ok) {
            let is_handshake = matches!(record.payload[0], TYPE_INIT | TYPE_RESP | TYPE_FIN);
            assert_eq!(record.flags & RECORD_FLAG_URGENT != 0, is_handshake, "a message of type {:02x}", record.payload[0]);
            *(if is_handshake { &mut urgent } else { &mut plain }) += 1;
        }
    }
    assert!(urgent >= 3 && plain >= 3, "{urgent} urgent, {plain} not");
}

/// A handshake message that a peer sent to the relay.
struct Sent {
    at: Instant,
    kind: u8,
    by_smaller: bool,
    bytes: Vec<u8>,
}

/// Two peers of a relay, without direct paths.
struct Couple {
    relay: HostId,
    smaller: HostId,
    larger: HostId,
}

impl Couple {
    /// Both start now; of what they send, the relay gets no handshake message that `passes` refuses (by the smaller one?, type).
    fn new(world: &mut World, passes: impl Fn(bool, u8) -> bool + Clone + 'static) -> Self {
        let relay = world.relay();
        let mut pair = [0; 2].map(|_| world.idle_peer(&[relay], |plan| plan.config.direct = Transports::NONE));
        pair.sort_by_key(|host| world.id(*host));
        let [smaller, larger] = pair;
        world.record();
        for host in pair {
            let passes = passes.clone();
            let tap = move |letter: Letter| match handshake(&letter.bytes) {
                Some((kind, _)) if letter.from == host && !passes(host == smaller, kind) => Vec::new(),
                Some(_) | None => vec![letter.bytes],
            };
            world.tap(relay, host, Box::new(tap));
            world.start(host);
        }
        Self { relay, smaller, larger }
    }

    fn until_connected(&self, world: &mut World) {
        world.until_connected(self.smaller, self.larger);
    }

    /// All handshake messages that the two sent to each other so far.
    fn sent(&self, world: &mut World) -> Vec<Sent> {
        let mut sent = Vec::new();
        for message in world.recorded() {
            if let Some((kind, bytes)) = handshake(&message.bytes)
                && [self.smaller, self.larger].contains(&message.from)
            {
                sent.push(Sent { at: message.at, kind, by_smaller: message.from == self.smaller, bytes });
            }
        }
        sent
    }

    /// When the smaller one sent messages of this type.
    fn times(&self, world: &mut World, kind: u8) -> Vec<Instant> {
        self.sent(world).into_iter().filter(|sent| sent.kind == kind && sent.by_smaller).map(|sent| sent.at).collect()
    }
}

/// Type and content of a handshake message between peers.
fn handshake(message: &[u8]) -> Option<(u8, Vec<u8>)> {
    let (handle, payload) = payloads(message).into_iter().next()?;
    let kind = *payload.first()?;
    (handle.is_some() && [TYPE_INIT, TYPE_RESP, TYPE_FIN].contains(&kind)).then_some((kind, payload))
}
