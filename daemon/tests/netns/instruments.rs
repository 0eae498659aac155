//! The instruments are tested first, on the bare underlay: a ruler that cannot show a loss proves nothing.

use crate::bulk::Transfer;
use crate::frames::{BROADCAST, Capture, Station};
use crate::stream::Stream;
use crate::world::{Host, World, drop_between, end_resets, heal, reset_between};
use crate::{Scenario, once};
use std::io::{ErrorKind, Read, Write};
use std::net::{IpAddr, TcpListener, TcpStream};
use std::time::Duration;

const TEXT: &[u8] = &[0x5a; 64];

pub(crate) fn all() -> Vec<Scenario> {
    vec![
        once("instruments_see_a_loss_and_its_gap", loss_and_gap),
        once("instruments_see_a_duplicate_frame", duplicate_frame),
        once("instruments_reset_a_connection", reset_a_connection),
        once("instruments_carry_a_file_across_a_cut", file_across_a_cut),
    ]
}

fn ends<'h>(a: &'h Host, b: &'h Host) -> [(&'h Host, IpAddr); 2] {
    [a, b].map(|host| (host, host.v4.map_or(IpAddr::V6(host.v6), IpAddr::V4)))
}

fn loss_and_gap(world: &World) {
    let (a, b) = (world.host("a"), world.host("b"));
    let [from, to] = ends(&a, &b);
    let capture = Capture::start(&b, TEXT);
    let stream = Stream::start(from, to);
    stream.wait_for_more(world, 200);
    let seen = capture.totals();
    assert!(seen.found > 0, "the capture does not find the text of the stream: {seen:?}");
    drop_between(&a, &b);
    std::thread::sleep(Duration::from_millis(300));
    heal(&a, &b);
    stream.wait_for_more(world, 200);
    for account in stream.finish() {
        assert!(account.lost > 100, "a cut of 300 ms loses datagrams, and this says otherwise: {account}");
        assert!(account.longest_gap >= Duration::from_millis(250), "the gap was not seen: {account}");
        assert_eq!((account.duplicated, account.reordered), (0, 0), "{account}");
    }
}

fn duplicate_frame(world: &World) {
    let (a, b) = (world.host("a"), world.host("b"));
    let (a, b) = (Station::open(&a, "eth0"), Station::open(&b, "eth0"));
    a.send(BROADCAST, 1);
    a.send(b.mac, 2);
    world.wait_for("two frames", Duration::from_secs(5), || (b.distinct(a.mac, 0..10) == 2).then_some(()));
    assert_eq!((b.count(a.mac, 1), b.oddities().len(), a.oddities().len()), (1, 0, 0));
    a.send(BROADCAST, 1);
    world.wait_for("the frame again", Duration::from_secs(5), || (b.count(a.mac, 1) == 2).then_some(()));
    assert_eq!(b.oddities().len(), 1, "a frame that comes twice has to be seen");
}

fn reset_a_connection(world: &World) {
    let (a, b) = (world.host("a"), world.host("b"));
    let [_, to] = ends(&a, &b);
    let listener = b.enter(|| TcpListener::bind((to.1, 0)).expect("a free port"));
    let target = listener.local_addr().expect("a bound listener");
    let mut near = a.enter(|| TcpStream::connect(target).expect("the underlay works"));
    let (mut far, _) = listener.accept().expect("a connection");
    reset_between(&a, &b);
    for end in [&mut near, &mut far] {
        // The first write meets the reset, the read or the write after it reports it.
        let reset = end.write_all(b"x").and_then(|()| end.read(&mut [0]));
        let kind = reset.expect_err("no data ever comes").kind();
        assert!(matches!(kind, ErrorKind::ConnectionReset | ErrorKind::BrokenPipe), "{kind}");
    }
    end_resets(&a, &b);
    a.enter(|| TcpStream::connect(target).expect("the underlay works again"));
}

fn file_across_a_cut(world: &World) {
    let (a, b) = (world.host("a"), world.host("b"));
    let [_, to] = ends(&a, &b);
    let total = 20_000_000;
    let file = Transfer::start(&a, to, total, 8_000_000);
    file.wait_for_more(world, 4_000_000);
    drop_between(&a, &b);
    std::thread::sleep(Duration::from_millis(300));
    heal(&a, &b);
    file.wait_for_more(world, 4_000_000);
    assert!(file.received() < total, "the file has to wait for its release");
    let arrived = file.finish(world, Duration::from_secs(20));
    assert_eq!((arrived.sent, arrived.bytes), (arrived.received, total));
}
