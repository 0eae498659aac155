//! Handshakes by UDP: peers that no relay brings together find each other again, where they know an address (protocol 8.6, 8.7).
use shadowmesh_core::{
    config::{Member, Transports},
    crypto::rustcrypto::RustCrypto,
    event::Note,
    fragments::{FragmentKey, cookie_of},
    handshake::{Job, Outcome, Setup, Ticket, Work},
    session::Suite,
    wire::{CookieReply, Fragment, FragmentKind, PathLabel, TYPE_FRAG},
};
use shadowmesh_fuzz::world::{FlowId, Heard, HostId, World};
use std::{net::SocketAddr, time::Duration};
use zeroize::Zeroizing;

const SECOND: Duration = Duration::from_secs(1);
const PORT: u16 = 51_820;
const UDP: Option<PathLabel> = Some(PathLabel::DirectUdp);

/// Two peers with UDP on a port that stays, and their relay.
fn pair(world: &mut World) -> (HostId, HostId, HostId) {
    let relay = world.relay();
    let [a, b] = [0, 1].map(|_| world.peer_with(&[relay], |plan| (plan.config.direct, plan.udp_port) = (Transports::UDP, Some(PORT))));
    (relay, a, b)
}

/// Two peers that do not run yet and whose relay never does; each knows the other's address if `known` says so.
fn strangers(world: &mut World, known: [bool; 2]) -> (HostId, HostId) {
    let relay = world.relay_with(|_| {});
    let hosts = [0, 1].map(|_| world.idle_peer(&[relay], |plan| (plan.config.direct, plan.udp_port) = (Transports::UDP, Some(PORT))));
    for (at, other) in [(0, 1), (1, 0)] {
        let endpoints = if known[at] { vec![SocketAddr::new(world.address(hosts[other], true), PORT)] } else { Vec::new() };
        let listed = Member { id: world.id(hosts[other]), name: None, allowed: Vec::new(), endpoints };
        world.configure(hosts[at], |config| config.members = vec![listed]);
    }
    (hosts[0], hosts[1])
}

fn came(world: &mut World, flow: FlowId) -> u64 {
    let account = world.account_of(flow);
    account.handed - account.lost
}

/// Until packets of both flows come again that are sent from now on.
fn until_both_talk(world: &mut World, flows: [FlowId; 2], limit: Duration) -> Duration {
    let before = flows.map(|flow| came(world, flow));
    world.until("packets come both ways", limit, |world| flows.iter().zip(before).all(|(flow, before)| came(world, *flow) > before + 20))
}

fn connected(world: &mut World, host: HostId) -> usize {
    world.noted(host, |note| matches!(note, Note::PeerConnected { .. }))
}

// protocol 8.7
#[test]
fn a_peer_that_crashes_while_the_relay_is_down_for_good_is_found_again_within_seconds() {
    for seed in 0..4 {
        for crashes_first in [true, false] {
            let mut world = World::new(900 + seed);
            let (relay, a, b) = pair(&mut world);
            world.until_udp(a, b);
            world.kill(relay);
            world.run(3 * SECOND);
            let flows = world.both_ways(a, b, 100);
            world.run(SECOND);
            world.restart(if crashes_first { a } else { b });
            world.run(SECOND / 2);
            let took = until_both_talk(&mut world, flows, 8 * SECOND);
            assert_eq!((world.label(a, b), world.label(b, a)), (UDP, UDP), "after {took:?}");
            for flow in flows {
                let account = world.account_of(flow);
                assert_eq!((account.doubled, account.reordered), (0, 0));
            }
            assert_eq!(world.amplified(), None);
        }
    }
}

// protocol 8.7
#[test]
fn a_fifth_of_all_datagrams_lost_does_not_keep_them_apart() {
    for seed in 0..8 {
        let mut world = World::new(920 + seed);
        let (a, b) = strangers(&mut world, [true, seed % 2 == 0]);
        world.change_way(a, b, |way| way.loss = 200);
        world.start(a);
        world.start(b);
        let took = world.until("both send by UDP", 20 * SECOND, |world| world.label(a, b) == UDP && world.label(b, a) == UDP);
        assert_eq!(world.amplified(), None, "{took:?}");
    }
}

// protocol 8.7
#[test]
fn with_an_address_in_the_configuration_they_never_need_a_relay() {
    for (seed, known) in [(940, [true, true]), (941, [true, false]), (942, [false, true])] {
        let mut world = World::new(seed);
        let (a, b) = strangers(&mut world, known);
        world.start(a);
        world.start(b);
        let took = world.until("both send by UDP", 5 * SECOND, |world| world.label(a, b) == UDP && world.label(b, a) == UDP);
        let flows = world.both_ways(a, b, 500);
        world.run(3 * SECOND);
        world.assert_whole(&flows);
        assert_eq!((connected(&mut world, a), connected(&mut world, b)), (1, 1), "one session, after {took:?}");
        assert_eq!((world.dropped(a, "forged"), world.dropped(b, "forged")), (0, 0));
    }
}

// protocol 8.7: nobody is asked where nobody knows an address
#[test]
fn without_an_address_nothing_is_sent() {
    let mut world = World::new(950);
    let (a, b) = strangers(&mut world, [false, false]);
    world.start(a);
    world.start(b);
    world.run(30 * SECOND);
    assert_eq!(world.label(a, b), None);
    let to = SocketAddr::new(world.address(b, true), PORT);
    assert_eq!(world.exchange(a, to).received + world.exchange(a, to).sent, 0);
}

// protocol 8.7
#[test]
fn when_a_relay_comes_back_the_session_has_a_path_over_it_and_stays() {
    let mut world = World::new(960);
    let (relay, a, b) = pair(&mut world);
    world.until_udp(a, b);
    world.kill(relay);
    let lost = world.both_ways(a, b, 100);
    world.restart(b);
    until_both_talk(&mut world, lost, 10 * SECOND);
    let flows = world.both_ways(a, b, 200);
    let sessions = (connected(&mut world, a), connected(&mut world, b));
    world.start(relay);
    let has_both = |world: &mut World, one, other| world.peer_status(one, other).is_some_and(|peer| peer.paths.len() == 1);
    world.until("a path over the relay stands by", 15 * SECOND, |world| has_both(world, a, b) && has_both(world, b, a));
    world.run(5 * SECOND);
    assert_eq!((world.label(a, b), world.label(b, a)), (UDP, UDP));
    world.assert_whole(&flows);
    assert_eq!((connected(&mut world, a), connected(&mut world, b)), sessions, "the session is the same");
}

// protocol 3.9: of two attempts at one time one stands
#[test]
fn two_that_call_each_other_at_the_same_time_have_one_session() {
    for seed in 0..12 {
        let mut world = World::new(970 + seed);
        let (a, b) = strangers(&mut world, [true, true]);
        world.change_way(a, b, |way| way.latency = Duration::from_millis(200 + 30 * seed));
        world.start(a);
        world.start(b);
        world.until("both send by UDP", 15 * SECOND, |world| world.label(a, b) == UDP && world.label(b, a) == UDP);
        let flows = world.both_ways(a, b, 100);
        world.run(8 * SECOND);
        world.assert_whole(&flows);
    }
}

// protocol 8.7
#[test]
fn who_left_in_good_order_and_comes_back_is_found_where_it_was() {
    let mut world = World::new(990);
    let (relay, a, b) = pair(&mut world);
    world.until_udp(a, b);
    world.kill(relay);
    world.leave(b);
    world.run(5 * SECOND);
    world.start(b);
    world.until("both send by UDP", 10 * SECOND, |world| world.label(a, b) == UDP && world.label(b, a) == UDP);
}

// protocol 8.7: an address that leads nowhere must not stand against one that does
#[test]
fn a_peer_at_a_new_address_that_knows_the_other_is_let_in() {
    for seed in 0..4 {
        let mut world = World::new(1_000 + seed);
        let (relay, a, b) = pair(&mut world);
        world.until_udp(a, b);
        let at_a = SocketAddr::new(world.address(a, true), PORT);
        let listed = Member { id: world.id(a), name: None, allowed: Vec::new(), endpoints: vec![at_a] };
        world.configure(b, |config| config.members = vec![listed]);
        world.kill(relay);
        world.kill(b);
        world.run(8 * SECOND);
        world.move_host(b);
        world.start(b);
        world.until("both send by UDP", 10 * SECOND, |world| world.label(a, b) == UDP && world.label(b, a) == UDP);
    }
}

// protocol 8.7: a relay that is there knows who is; whoever left is not asked for by all others
#[test]
fn who_left_is_not_asked_for_while_a_relay_is_there_unless_wanted() {
    let mut world = World::new(1_010);
    let (_, a, b) = pair(&mut world);
    world.until_udp(a, b);
    world.leave(b);
    world.open_socket(b, PORT);
    world.run(60 * SECOND);
    assert!(fragments(&mut world, b, PORT).is_empty());
    world.stream(a, b, 10);
    world.run(5 * SECOND);
    assert!(!fragments(&mut world, b, PORT).is_empty(), "a packet waits for it");
}

// protocol 8.6, 8.7
#[test]
fn a_member_that_only_begins_and_all_that_is_repeated_disturb_no_session() {
    const FROM: u16 = 7;
    let mut world = World::new(1_020);
    let (_, a, b) = pair(&mut world);
    world.until_udp(a, b);
    let flows = world.both_ways(a, b, 200);
    let stranger = world.stranger();
    world.open_socket(stranger, FROM);
    let to = SocketAddr::new(world.address(b, true), PORT);
    let mac1 = Setup::peer_peer(world.network()).mac1_key(world.id(b));
    let (mut sent, mut answered) = (Vec::new(), 0);
    for sid in 1..=60 {
        let init = init(&world, b, sid);
        let asked = FragmentKey::first(&mac1).cut(FragmentKind::Init, sid, &init).swap_remove(0);
        world.send_datagram(stranger, FROM, to, &asked);
        world.run(SECOND / 20);
        let heard = world.hear(stranger, FROM);
        let reply = heard.iter().find_map(|heard| match heard {
            Heard::Datagram { bytes, .. } => CookieReply::parse(bytes).ok(),
            Heard::Refused { .. } | Heard::TooBig { .. } => None,
        });
        let cookie = cookie_of(&mac1, &asked, &reply.expect("a member that asks is answered")).expect("a good reply");
        for fragment in FragmentKey::with_cookie(&mac1, &cookie).cut(FragmentKind::Init, sid, &init) {
            world.send_datagram(stranger, FROM, to, &fragment);
            sent.push(fragment);
        }
        world.run(SECOND / 20);
        let resp =
            |bytes: &Vec<u8>| Fragment::parse(bytes).is_ok_and(|part| (part.kind, part.index, part.sid) == (FragmentKind::Resp, 0, sid));
        answered += usize::from(fragments(&mut world, stranger, FROM).iter().any(resp));
    }
    assert!((4..30).contains(&answered), "{answered} of 60 in six seconds, four at a time");
    assert!(world.dropped(b, "handshake_rate") > 0);
    for fragment in &sent {
        world.send_datagram(stranger, FROM, to, fragment);
    }
    world.run(3 * SECOND);
    world.bounds(b, &mut |bound| assert!(bound.is_kept(), "{bound:?}"));
    assert_eq!(world.amplified(), None);
    assert_eq!((connected(&mut world, a), connected(&mut world, b)), (1, 1));
    assert_eq!((world.label(a, b), world.label(b, a)), (UDP, UDP));
    world.assert_whole(&flows);
}

/// Parts of handshakes that a socket has heard since the last call.
fn fragments(world: &mut World, host: HostId, port: u16) -> Vec<Vec<u8>> {
    let heard = world.hear(host, port).into_iter().filter_map(|heard| match heard {
        Heard::Datagram { bytes, .. } => Some(bytes),
        Heard::Refused { .. } | Heard::TooBig { .. } => None,
    });
    heard.filter(|bytes| bytes.first() == Some(&TYPE_FRAG)).collect()
}

/// INIT of a member for this peer.
fn init(world: &World, to: HostId, sid: u32) -> Vec<u8> {
    let (setup, suites) = (Setup::peer_peer(world.network()), vec![Suite::ChaCha20Poly1305]);
    let coins = Zeroizing::new([sid as u8; 96]);
    let work = Work::Offer { setup, responder: world.id(to), sid, suites, coins };
    let Outcome::Offered(offer) = (Job { ticket: Ticket(0), work }).run(&RustCrypto).outcome else { panic!("an offer cannot fail") };
    offer.init().to_vec()
}
