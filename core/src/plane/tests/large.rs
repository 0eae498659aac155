//! Large packets of the interface: cut, sealed one by one, or queued, and known at the other end by their inner type.
use super::*;
use crate::offload::{Large, PartialChecksum, Segmentation};

/// A packet of TCP from `a` to `b`, as a kernel hands it over.
fn large(payload: usize) -> (Offload, Vec<u8>) {
    let mut packet = vec![0x45, 0];
    packet.extend((40 + payload as u16).to_be_bytes());
    packet.extend([0, 1, 0x40, 0, 64, 6, 0, 0, 10, 0, 0, 1, 10, 0, 0, 2]);
    packet.extend([0, 1, 0, 2, 0, 0, 0, 0, 0, 0, 0, 0, 0x50, 0x10, 1, 0, 0, 0, 0, 0]);
    packet.resize(40 + payload, 7);
    let checksum = Some(PartialChecksum { start: 20, offset: 16 });
    (Offload { checksum, segmentation: Some(Segmentation { kind: Large::TcpV4, size: 1000 }) }, packet)
}

// protocol 4.2
#[test]
fn a_large_packet_comes_as_its_pieces_at_once_or_through_the_queue() {
    for full in [None, Some(RELAY.conn)] {
        let mut world = World::new();
        world.a.ports.full = full;
        let (offload, packet) = large(2_500);
        assert_eq!(world.a.plane.outbound_offloaded(world.now, offload, &packet, &mut world.a.ports), 3);
        world.exchange(&[]);
        assert_eq!(world.b.ports.shapes.is_empty(), full.is_some());
        world.a.ports.full = None;
        world.a.plane.writable(world.now, RELAY.conn, &mut world.a.ports);
        world.exchange(&[]);
        let partial = |len| (len, Checksum::Partial);
        assert_eq!(world.b.ports.shapes, [partial(1040), partial(1040), partial(540)]);
    }
}

#[test]
fn what_is_not_to_be_cut_goes_as_it_is_and_what_cannot_be_is_counted() {
    let mut world = World::new();
    let (offload, packet) = large(200);
    let alone = Offload { segmentation: None, ..offload };
    for offload in [Offload::default(), alone] {
        assert_eq!(world.a.plane.outbound_offloaded(world.now, offload, &packet, &mut world.a.ports), 1);
    }
    world.exchange(&[]);
    assert_eq!(world.b.ports.shapes, [(240, Checksum::Full), (240, Checksum::Partial)]);
    let elsewhere = Offload { checksum: Some(PartialChecksum { start: 9_000, offset: 16 }), ..offload };
    world.a.plane.outbound_offloaded(world.now, elsewhere, &packet, &mut world.a.ports);
    // no piece may be longer than a frame (protocol 9.4)
    let (offload, packet) = large(30_000);
    let huge = Offload { segmentation: Some(Segmentation { kind: Large::TcpV4, size: 20_000 }), ..offload };
    assert_eq!(world.a.plane.outbound_offloaded(world.now, huge, &packet, &mut world.a.ports), 2);
    assert_eq!(world.a.plane.tally().drops.get(Drop::Packet), 3);
}
