//! The state machines print themselves: `docs/state-machines.md` is what their declarations say, and every edge is taken somewhere.
use hmac::{Hmac, KeyInit, Mac};
use sha2::{Digest, Sha256, Sha512};
use shadowmesh_core::config::Transports;
use shadowmesh_core::{
    edges::{Chart, charts, taken},
    event::{Action, Event},
    machine::Machine,
    status::RelayState,
    wire::{TYPE_FIN, TYPE_INIT, TYPE_RESP},
};
use shadowmesh_fuzz::world::{HostId, Letter, World, rewrite};
use std::{fmt::Write, fs, path::Path, time::Duration};

const SECOND: Duration = Duration::from_secs(1);
const MILLISECOND: Duration = Duration::from_millis(1);

const OPENING: &str = "# State machines

Printed from the declarations beside the states (`edges!` in `core`). A test compares this page with them; to renew it:

    BLESS=1 cargo test -p shadowmesh-fuzz --test machines

Debug builds refuse a transition that is not declared here. The first state of a table is the one a machine begins in. What is given up
is dropped whole: a direct path, a half-open handshake and a session have no state for their end. What holds back frames at a receiver
(a switch under way, a gate) and which path is taken are bounds and choices rather than states; they are drawn in
`core/src/plane/order.rs` and `core/src/link/steer.rs`, and proven by trying all orders of events (`core/src/plane/exhaustive.rs`).
";

#[test]
fn the_page_is_what_the_declarations_say() {
    let page = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/state-machines.md");
    let expected = charts().iter().fold(OPENING.to_owned(), |page, chart| page + &print(chart));
    if std::env::var_os("BLESS").is_some() {
        fs::write(&page, &expected).expect("the page can be written");
    }
    let found = fs::read_to_string(&page).unwrap_or_default();
    assert!(
        found == expected,
        "docs/state-machines.md is not what the code declares: BLESS=1 cargo test -p shadowmesh-fuzz --test machines"
    );
}

/// Title, table and drawing of one machine.
fn print(chart: &Chart) -> String {
    let mut page = format!("\n## {}\n\n| from | to | when |\n|---|---|---|\n", chart.title);
    for (from, to, cause) in chart.edges {
        writeln!(page, "| {from} | {to} | {cause} |").expect("writing to a string does not fail");
    }
    writeln!(page, "\n```mermaid\nstateDiagram-v2\n    [*] --> {}", chart.states[0]).expect("writing to a string does not fail");
    for (from, to, _) in chart.edges {
        writeln!(page, "    {from} --> {to}").expect("writing to a string does not fail");
    }
    page + "```\n"
}

#[cfg(debug_assertions)]
#[test]
fn each_declared_edge_is_taken() {
    a_path_is_proven_dies_and_keys_grow_old();
    a_path_by_udp_is_proven_small_and_large();
    a_relay_that_is_parked_and_one_that_never_comes();
    messages_that_are_not_good();
    the_relay_dies_at_each_moment();
    a_client_dies_at_each_moment();
    let taken = taken();
    let mut untaken = Vec::new();
    for chart in charts() {
        let edges = chart.edges.iter().filter(|(from, to, _)| !taken.contains(&(chart.title, *from, *to)));
        untaken.extend(edges.map(|(from, to, _)| format!("{}: {from} to {to}", chart.title)));
    }
    assert!(untaken.is_empty(), "no scenario takes these edges:\n{}", untaken.join("\n"));
}

fn a_path_is_proven_dies_and_keys_grow_old() {
    let mut world = World::new(701);
    let relay = world.relay();
    let (a, b) = (world.peer(relay), world.peer(relay));
    world.until_direct(a, b);
    world.both_ways(a, b, 20);
    world.until("the keys are replaced", 140 * SECOND, |world| world.peer_status(a, b).is_some_and(|peer| peer.epoch == 1));
    world.kill(relay);
    world.run(SECOND);
}

fn a_path_by_udp_is_proven_small_and_large() {
    let mut world = World::new(706);
    let relay = world.relay();
    let [a, b] = [0; 2].map(|_| world.peer_with(&[relay], |plan| plan.config.direct = Transports::UDP));
    world.until_udp(a, b);
}

fn a_relay_that_is_parked_and_one_that_never_comes() {
    let mut world = World::new(702);
    let relay = world.relay();
    let [a, b] = [0; 2].map(|_| world.peer_with(&[relay], |plan| plan.config.close_relay = true));
    world.until_direct(a, b);
    world.until("the relay is parked", 60 * SECOND, |world| world.status(a).relays[0].state == RelayState::Parked);
    world.cut(a, b);
    world.stream(a, b, 20);
    world.until("it is dialled again", 60 * SECOND, |world| world.status(a).relays[0].state == RelayState::Connected);
    let absent = world.relay_with(|_| {});
    let lonely = world.peer(absent);
    world.until("a dial has failed", 20 * SECOND, |world| world.status(lonely).relays[0].state == RelayState::Waiting);
    // an alarm that was under way when it left must not make it dial again
    let (mut node, _) = world.kill(lonely).expect("a peer that runs");
    let mut actions = Vec::new();
    node.handle(world.now(), Event::Leave, &mut actions);
    actions.clear();
    node.handle(world.now() + 10 * SECOND, Event::Alarm, &mut actions);
    assert!(actions.iter().all(|action| !matches!(action, Action::Dial { .. })) && node.deadline().is_none());
}

/// Each handshake message is spoilt once behind its mac1, and each attempt goes on with the right one.
fn messages_that_are_not_good() {
    for kind in [TYPE_RESP, TYPE_FIN] {
        let mut world = World::new(703);
        let relay = world.relay();
        let pair = [0; 2].map(|_| world.idle_peer(&[relay], |plan| plan.config.direct = Transports::NONE));
        let responder = *pair.iter().max_by_key(|host| world.id(**host)).expect("two");
        let key = mac1_key_between_peers(&world, responder);
        for host in pair {
            let mut spoilt = false;
            let spoil = move |letter: Letter| {
                let may = letter.from == relay;
                vec![rewrite(&letter.bytes, |handle, payload| {
                    if may && handle.0 != 0 && payload[0] == kind && !core::mem::replace(&mut spoilt, true) {
                        payload[2_000] ^= 1;
                        if kind == TYPE_RESP {
                            sign(&key, payload);
                        }
                    }
                })]
            };
            world.tap(relay, host, Box::new(spoil));
            world.start(host);
        }
        world.until_connected(pair[0], pair[1]);
    }
    // at a relay: a HELLO without a share, and a RESPONSE that was altered
    let mut world = World::new(704);
    let relay = world.relay();
    let peer = world.idle_peer(&[relay], |_| {});
    let key = sha512_prefix(&[b"mac1", &world.id(relay).0]);
    let mut spoilt = false;
    let spoil = move |letter: Letter| {
        let mut bytes = letter.bytes;
        if letter.from == peer && bytes[0] == TYPE_FIN {
            bytes[2_000] ^= 1;
        } else if letter.from == peer && bytes[0] == TYPE_INIT && !core::mem::replace(&mut spoilt, true) {
            bytes[20..52].fill(0);
            let len = bytes.len() - 16;
            sign(&key, &mut bytes[..len]);
        }
        vec![bytes]
    };
    world.tap(relay, peer, Box::new(spoil));
    world.start(peer);
    world.run(60 * SECOND);
    assert!(world.hub_status(relay).clients.is_empty());
}

/// Peers greet each other again and again, and the relay ends after ever one millisecond more.
fn the_relay_dies_at_each_moment() {
    let mut world = World::new(705);
    let relay = world.relay();
    let first = world.peer_with(&[relay], |plan| plan.config.direct = Transports::NONE);
    for moment in 0..110 {
        world.until("the first is there", 10 * SECOND, |world| world.status(first).relays[0].state == RelayState::Connected);
        let other = world.peer_with(&[relay], |plan| plan.config.direct = Transports::NONE);
        world.run(MILLISECOND * moment);
        world.kill(relay);
        world.run(SECOND / 10);
        world.kill(other);
        world.start(relay);
    }
}

/// A client joins again and again, and ends after ever one millisecond more.
fn a_client_dies_at_each_moment() {
    let mut world = World::new(706);
    let relay = world.relay();
    let client = world.idle_peer(&[relay], |_| {});
    for moment in 0..70 {
        world.start(client);
        world.run(MILLISECOND * moment);
        world.kill(client);
        world.run(SECOND);
    }
    let stranger = world.stranger();
    let door = std::net::SocketAddr::new(world.address(relay, true), 443);
    let conn = world.knock(stranger, door).expect("the relay listens");
    world.hang_up(stranger, conn);
    world.run(SECOND);
}

/// Writes mac1 at the end of a message anew.
fn sign(key: &[u8; 32], message: &mut [u8]) {
    let (all, mac1) = message.split_last_chunk_mut::<16>().expect("a message has a mac1");
    *mac1 = *hmac(key, &[all]).first_chunk().expect("32 bytes");
}

fn mac1_key_between_peers(world: &World, responder: HostId) -> [u8; 32] {
    hmac(world.network().psk(), &[b"mac1", &world.id(responder).0])
}

fn hmac(key: &[u8; 32], parts: &[&[u8]]) -> [u8; 32] {
    let mut mac = Hmac::<Sha256>::new_from_slice(key).expect("a key of any length");
    for part in parts {
        mac.update(part);
    }
    mac.finalize().into_bytes().into()
}

fn sha512_prefix(parts: &[&[u8]]) -> [u8; 32] {
    let mut hash = Sha512::new();
    for part in parts {
        hash.update(part);
    }
    *hash.finalize().first_chunk().expect("64 bytes")
}
