//! The air's datagrams: each arrives or not, and what the way does to it is what the way says.
use shadowmesh_fuzz::world::{Exchange, Heard, HostId, Way, World};
use std::{net::SocketAddr, time::Duration};

const PORT: u16 = 7;

#[test]
fn a_datagram_arrives_once_unaltered_after_the_latency() {
    let (mut world, [a, b], to) = pair(|way| way.latency = Duration::from_millis(30));
    assert!(world.send_datagram(a, PORT, to, b"hello"));
    world.run(Duration::from_millis(29));
    assert_eq!(world.hear(b, PORT), []);
    world.run(Duration::from_millis(2));
    let from = SocketAddr::new(world.address(a, true), PORT);
    assert_eq!(world.hear(b, PORT), [Heard::Datagram { from, bytes: b"hello".to_vec() }]);
    assert!(!world.send_datagram(a, 8, to, b"no such socket"));
}

#[test]
fn what_is_lost_doubled_reordered_and_altered_is_as_much_as_the_way_says() {
    let thousand = |change: fn(&mut Way)| {
        let (mut world, [a, b], to) = pair(change);
        for number in 0..1_000_u32 {
            world.send_datagram(a, PORT, to, &number.to_be_bytes());
            world.run(Duration::from_millis(1));
        }
        world.run(Duration::from_secs(1));
        numbers(&mut world, b)
    };
    let whole: Vec<u32> = (0..1_000).collect();
    assert_eq!(thousand(|_| {}), whole);
    let lossy = thousand(|way| way.loss = 100);
    assert!((850..950).contains(&lossy.len()) && lossy.is_sorted(), "{}", lossy.len());
    let doubled = thousand(|way| way.doubling = 100);
    assert!((1_050..1_150).contains(&doubled.len()), "{}", doubled.len());
    let reordered = thousand(|way| way.reordering = 100);
    assert!(reordered.len() == 1_000 && !reordered.is_sorted());
    let jittered = thousand(|way| way.jitter = Duration::from_millis(20));
    assert!(jittered.len() == 1_000 && !jittered.is_sorted());
    let altered = thousand(|way| way.corruption = 100);
    let wrong = whole.iter().zip(&altered).filter(|(sent, came)| sent != came).count();
    assert!((50..150).contains(&wrong), "{wrong}");
}

#[test]
fn a_slow_way_queues_up_to_its_window_and_loses_the_rest() {
    let (mut world, [a, b], to) = pair(|way| (way.rate, way.window) = (10_000, 8_000));
    for _ in 0..20 {
        world.send_datagram(a, PORT, to, &[0; 972]);
    }
    world.run(Duration::from_millis(450));
    assert_eq!(world.hear(b, PORT).len(), 4, "a thousand bytes each 100 ms");
    world.run(Duration::from_secs(2));
    assert_eq!(world.hear(b, PORT).len(), 4, "eight fitted into the queue");
}

#[test]
fn a_datagram_above_the_mtu_comes_back_as_icmp() {
    let (mut world, [a, b], to) = pair(|way| way.mtu = 1_300);
    world.send_datagram(a, PORT, to, &[0; 1_272]);
    world.send_datagram(a, PORT, to, &[0; 1_273]);
    world.run(Duration::from_secs(1));
    assert_eq!(world.hear(b, PORT).len(), 1);
    assert_eq!(world.hear(a, PORT), [Heard::TooBig { to, mtu: 1_300 }]);
}

#[test]
fn a_closed_port_refuses_and_a_cut_says_nothing() {
    let (mut world, [a, b], to) = pair(|_| {});
    world.cut_one_way(a, b);
    world.send_datagram(a, PORT, to, b"lost");
    world.run(Duration::from_secs(1));
    let back = SocketAddr::new(world.address(a, true), PORT);
    world.send_datagram(b, PORT, back, b"the other way lives");
    world.run(Duration::from_secs(1));
    assert_eq!((world.hear(a, PORT).len(), world.hear(b, PORT).len()), (1, 0));
    world.heal(a, b);
    world.close_socket(b, PORT);
    world.send_datagram(a, PORT, to, b"nobody");
    world.run(Duration::from_secs(1));
    assert_eq!(world.hear(a, PORT), [Heard::Refused { to }]);
}

#[test]
fn more_to_a_stranger_than_came_from_it_is_counted_until_it_is_known() {
    let (mut world, [a, b], to) = pair(|_| {});
    let back = SocketAddr::new(world.address(a, true), PORT);
    world.send_datagram(a, PORT, to, &[0; 100]);
    world.run(Duration::from_secs(1));
    world.send_datagram(b, PORT, back, &[0; 100]);
    assert_eq!(world.amplified(), None, "as much as came");
    world.send_datagram(b, PORT, back, &[0]);
    let exchange = Exchange { sent: 101, received: 100, is_validated: false };
    assert_eq!(world.amplified(), Some((b, back, exchange)), "and it stays a breach");
    assert_eq!(world.exchange(a, to), Exchange::default(), "who is no peer and speaks first chose its partner");
}

// protocol 8.5
#[test]
fn a_validated_address_pays_nothing_and_an_opener_nobody() {
    let (mut world, [a, b], to) = pair(|_| {});
    let back = SocketAddr::new(world.address(a, true), PORT);
    world.send_datagram(a, PORT, to, &[0x26, 0, 0, 0]);
    world.run(Duration::from_secs(1));
    assert_eq!(world.exchange(b, back).received, 0);
    world.send_datagram(a, PORT, to, &[0]);
    world.run(Duration::from_secs(1));
    world.validate_address(b, back);
    world.send_datagram(b, PORT, back, &[0; 100]);
    assert_eq!(world.amplified(), None);
}

/// Two hosts with a socket each, and the address of the second one.
fn pair(change: fn(&mut Way)) -> (World, [HostId; 2], SocketAddr) {
    let mut world = World::new(3);
    let hosts = [world.stranger(), world.stranger()];
    for host in hosts {
        world.open_socket(host, PORT);
    }
    world.change_way(hosts[0], hosts[1], change);
    let to = SocketAddr::new(world.address(hosts[1], true), PORT);
    (world, hosts, to)
}

fn numbers(world: &mut World, host: HostId) -> Vec<u32> {
    let heard = world.hear(host, PORT).into_iter();
    heard
        .filter_map(|heard| match heard {
            Heard::Datagram { bytes, .. } => bytes.first_chunk().map(|bytes| u32::from_be_bytes(*bytes)),
            Heard::Refused { .. } | Heard::TooBig { .. } => None,
        })
        .collect()
}
