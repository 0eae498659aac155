//! Large packets of every shape, cut and joined; and what must not be.
use super::*;
use crate::wire::Malformed;
use proptest::prelude::*;

/// A packet as a kernel hands it over: the sum of the pseudo-header in the checksum field.
#[derive(Clone, Copy, Debug)]
struct Shape {
    layer2: bool,
    vlan: bool,
    v6: bool,
    transport: Transport,
    options: usize,
    flags: u8,
    sequence: u32,
    payload: usize,
}

const PLAIN: Shape =
    Shape { layer2: false, vlan: false, v6: false, transport: Transport::Tcp, options: 12, flags: 0x10, sequence: 1, payload: 3000 };

fn shapes() -> impl Strategy<Value = Shape> {
    let transport = prop_oneof![Just(Transport::Tcp), Just(Transport::Udp)];
    let parts =
        (any::<[bool; 3]>(), transport, 0..=10_usize, prop_oneof![Just(0x10_u8), Just(0x18), Just(0x19)], any::<u32>(), 0..20_000_usize);
    parts.prop_map(|([layer2, vlan, v6], transport, options, flags, sequence, payload)| Shape {
        layer2,
        vlan: vlan && layer2,
        v6,
        transport,
        options: options * 4,
        flags,
        sequence,
        payload,
    })
}

fn pseudo(v6: bool, ip: &[u8], transport: Transport, covered: usize) -> u16 {
    let addresses = if v6 { &ip[8..40] } else { &ip[12..20] };
    let protocol = if transport == Transport::Tcp { 6 } else { 17 };
    checksum::fold(checksum::sum(addresses) + protocol + covered as u64)
}

fn build(shape: Shape) -> Vec<u8> {
    let Shape { transport, payload, .. } = shape;
    let mut packet = Vec::new();
    if shape.layer2 {
        packet.extend([2, 0, 0, 0, 0, 1, 2, 0, 0, 0, 0, 2]);
        packet.extend(if shape.vlan { &[0x81, 0, 0, 7][..] } else { &[] });
        packet.extend(if shape.v6 { [0x86, 0xdd] } else { [0x08, 0x00] });
    }
    let ip = packet.len();
    let header_len = if transport == Transport::Tcp { 20 + shape.options } else { 8 };
    let covered = header_len + payload;
    let protocol = if transport == Transport::Tcp { 6 } else { 17 };
    if shape.v6 {
        packet.extend([0x60, 1, 2, 3]);
        packet.extend((covered as u16).to_be_bytes());
        packet.extend([protocol, 64]);
        packet.extend((0..32).map(|i| i * 7));
    } else {
        packet.extend([0x45, 0]);
        packet.extend((20 + covered as u16).to_be_bytes());
        packet.extend([0xff, 0xfe, 0x40, 0, 64, protocol, 0, 0, 10, 77, 0, 1, 10, 77, 0, 2]);
        let sum = !checksum::fold(checksum::sum(&packet[ip..]));
        packet[ip + 10..ip + 12].copy_from_slice(&sum.to_be_bytes());
    }
    let sum = pseudo(shape.v6, &packet[ip..], transport, covered);
    packet.extend([0x30, 0x39, 0, 80]);
    if transport == Transport::Tcp {
        packet.extend(shape.sequence.to_be_bytes());
        packet.extend([1, 2, 3, 4, (header_len as u8 / 4) << 4, shape.flags, 0x20, 0]);
        packet.extend(sum.to_be_bytes());
        packet.extend([0, 0]);
        packet.extend((0..shape.options).map(|i| i as u8));
    } else {
        packet.extend((covered as u16).to_be_bytes());
        packet.extend(sum.to_be_bytes());
    }
    packet.extend((0..payload).map(|i| (i * 31 + i / 256) as u8));
    packet
}

/// All pieces, and whether their checksums are only begun.
fn cut(layer2: bool, offload: Offload, packet: &[u8]) -> Result<(Vec<Vec<u8>>, bool), Malformed> {
    let mut segments = Segments::new(layer2, offload, packet)?;
    let mut pieces = Vec::new();
    while let Some((head, body)) = segments.step() {
        pieces.push([head, body].concat());
    }
    Ok((pieces, segments.are_partial()))
}

fn join(layer2: bool, pieces: &[Vec<u8>]) -> Vec<(Offload, Vec<u8>)> {
    let mut joiner = Joiner::new(layer2, Joins { tcp: true, udp: true });
    let mut written = Vec::new();
    let mut write = |offload: Offload, packet: &[u8]| written.push((offload, packet.to_vec()));
    for piece in pieces {
        joiner.add(piece, Checksum::Partial, &mut write);
    }
    joiner.flush(&mut write);
    written
}

fn offload_of(shape: Shape, packet: &[u8], size: Option<u16>) -> Offload {
    let layout = Layout::of(shape.layer2, packet).expect("a plain packet");
    Offload { checksum: layout.partial(), segmentation: size.map(|size| Segmentation { kind: layout.large(), size }) }
}

/// A receiver's check, made from nothing but the packet.
fn verify(layer2: bool, packet: &[u8]) {
    let layout = Layout::of(layer2, packet).expect("a whole packet");
    let ip = &packet[layout.ip..layout.start];
    if !layout.is_v6 {
        assert_eq!(checksum::fold(checksum::sum(ip)), 0xffff, "IPv4 header");
    }
    let covered = &packet[layout.start..];
    let sum = u64::from(pseudo(layout.is_v6, ip, layout.transport, covered.len())) + checksum::sum(covered);
    assert_eq!(checksum::fold(sum), 0xffff, "TCP or UDP");
}

proptest! {
    // protocol 4.2
    #[test]
    fn what_is_cut_is_whole_packets_and_joins_to_what_it_was(shape in shapes(), size in 1..2000_u16) {
        let packet = build(shape);
        let offload = offload_of(shape, &packet, Some(size));
        let (pieces, partial) = cut(shape.layer2, offload, &packet).expect("a plain packet");
        prop_assert!(partial);
        prop_assert_eq!(pieces.len(), shape.payload.div_ceil(usize::from(size)));
        for piece in &pieces {
            let layout = Layout::of(shape.layer2, piece).expect("a whole packet");
            let mut full = piece.clone();
            prop_assert!(finish(&mut full, layout.partial().expect("it fits")));
            verify(shape.layer2, &full);
        }
        let joined = join(shape.layer2, &pieces);
        let most = if shape.transport == Transport::Udp { pieces.len().div_ceil(64) } else { 1.min(pieces.len()) };
        prop_assert_eq!(joined.len(), most);
        if let [(known, whole)] = &joined[..] {
            prop_assert_eq!(known.checksum, offload.checksum);
            prop_assert_eq!(known.segmentation.is_some(), pieces.len() > 1);
            prop_assert!(*whole == packet);
        }
    }

    #[test]
    fn a_packet_that_is_not_cut_keeps_its_bytes_and_its_checksum_can_be_completed(shape in shapes()) {
        let mut packet = build(shape);
        let offload = offload_of(shape, &packet, None);
        let (pieces, partial) = cut(shape.layer2, offload, &packet).expect("a plain packet");
        prop_assert!(partial && pieces == [packet.clone()]);
        prop_assert!(finish(&mut packet, offload.checksum.expect("one")));
        verify(shape.layer2, &packet);
    }

    #[test]
    fn nothing_that_an_interface_or_a_peer_says_breaks_it(
        layer2: bool,
        shape in shapes(),
        size: u16,
        (start, offset) in (0..300_u16, 0..40_u16),
        damage in proptest::collection::vec((0..120_usize, any::<u8>()), 0..4),
        copies in 1..5_usize,
    ) {
        let mut packet = build(shape);
        for (at, value) in damage {
            if let Some(byte) = packet.get_mut(at) {
                *byte = value;
            }
        }
        for kind in [Large::TcpV4, Large::TcpV6, Large::Udp] {
            for segmentation in [None, Some(Segmentation { kind, size })] {
                if let Ok((pieces, _)) = cut(layer2, Offload { checksum: Some(PartialChecksum { start, offset }), segmentation }, &packet) {
                    prop_assert!(pieces.iter().map(Vec::len).sum::<usize>() >= packet.len());
                }
            }
        }
        let given = vec![packet.clone(); copies];
        let joined = join(layer2, &given);
        let most = packet.len() * copies;
        prop_assert!(joined.iter().map(|(_, packet)| packet.len()).sum::<usize>() <= most);
    }
}

#[test]
fn flags_belong_to_the_first_or_the_last_piece() {
    let packet = build(Shape { flags: 0x99, ..PLAIN });
    let offload = offload_of(PLAIN, &packet, Some(1000));
    let (pieces, _) = cut(false, offload, &packet).expect("a plain packet");
    let flags: Vec<u8> = pieces.iter().map(|piece| piece[20 + 13]).collect();
    assert_eq!(flags, [0x90, 0x10, 0x19]);
}

#[test]
fn a_packet_with_headers_that_the_far_end_would_not_find_gets_its_checksums_here() {
    // a destination options header between IPv6 and TCP
    let mut packet = build(Shape { v6: true, ..PLAIN });
    packet.splice(40..40, [6, 0, 1, 4, 0, 0, 0, 0]);
    let length = (packet.len() - 40) as u16;
    packet[6] = 60;
    packet[4..6].copy_from_slice(&length.to_be_bytes());
    for (segmentation, count) in [(None, 1), (Some(Segmentation { kind: Large::TcpV6, size: 1001 }), 3)] {
        let offload = Offload { checksum: Some(PartialChecksum { start: 48, offset: 16 }), segmentation };
        let (pieces, partial) = cut(false, offload, &packet).expect("a packet");
        assert!(!partial);
        assert_eq!(pieces.len(), count);
        for piece in pieces {
            assert_eq!(usize::from(u16::from_be_bytes([piece[4], piece[5]])), piece.len() - 40);
            let covered = &piece[48..];
            let sum = u64::from(pseudo(true, &piece, Transport::Tcp, covered.len())) + checksum::sum(covered);
            assert_eq!(checksum::fold(sum), 0xffff);
        }
    }
}

#[test]
fn what_does_not_continue_a_run_ends_it() {
    let packet = build(PLAIN);
    let (pieces, _) = cut(false, offload_of(PLAIN, &packet, Some(1000)), &packet).expect("a plain packet");
    let lengths = |pieces: &[Vec<u8>]| join(false, pieces).iter().map(|(_, packet)| packet.len() - 52).collect::<Vec<_>>();
    let [a, b, c] = [0, 1, 2].map(|at| pieces[at].clone());
    assert_eq!(lengths(&[a.clone(), b.clone(), c.clone()]), [3000]);
    assert_eq!(lengths(&[a.clone(), c.clone(), b.clone()]), [1000, 1000, 1000], "a gap");
    assert_eq!(lengths(&[a.clone(), a.clone()]), [1000, 1000], "a copy");
    let other = |at: usize, value: u8| {
        let mut other = b.clone();
        other[at] = value;
        lengths(&[a.clone(), other, c.clone()])
    };
    // time to live, ports, acknowledgement, urgent pointer, window, an option
    for at in [8, 20, 22, 28, 34, 38, 41] {
        assert_eq!(other(at, 99), [1000, 1000, 1000], "byte {at}");
    }
    for flags in [0x11, 0x18] {
        assert_eq!(other(33, flags), [2000, 1000], "FIN and PSH end a run");
    }
    for flags in [0x00, 0x12, 0x14, 0x30] {
        assert_eq!(other(33, flags), [1000, 1000, 1000], "SYN, RST and URG stay alone");
    }
}

#[test]
fn other_packets_keep_their_place_and_pure_acknowledgements_stay_alone() {
    let packet = build(PLAIN);
    let (pieces, _) = cut(false, offload_of(PLAIN, &packet, Some(1500)), &packet).expect("a plain packet");
    let mut joiner = Joiner::new(false, Joins { tcp: true, udp: true });
    let mut seen = Vec::new();
    let mut write = |offload: Offload, packet: &[u8]| seen.push((offload, packet.len()));
    joiner.add(&pieces[0], Checksum::Partial, &mut write);
    joiner.add(&[0x45; 30], Checksum::Full, &mut write);
    joiner.add(&pieces[1], Checksum::Partial, &mut write);
    let bare = build(Shape { payload: 0, ..PLAIN });
    joiner.add(&bare, Checksum::Partial, &mut write);
    joiner.restrict(Joins::default());
    joiner.add(&pieces[0], Checksum::Partial, &mut write);
    joiner.add(&pieces[1], Checksum::Partial, &mut write);
    joiner.flush(&mut write);
    let alone = Offload { segmentation: None, ..offload_of(PLAIN, &packet, None) };
    let expected = [(alone, 1552), (Offload::default(), 30), (alone, 1552), (alone, 52), (alone, 1552), (alone, 1552)];
    assert_eq!(seen, expected);
}

// found by the fuzz target `offload`: it was taken for IPv4, and what was joined of two could not be cut again
#[test]
fn a_packet_of_neither_version_has_no_layout() {
    let mut packet = build(PLAIN);
    assert!(Layout::of(false, &packet).is_some());
    packet[0] = 0x75;
    assert_eq!(Layout::of(false, &packet), None);
}

#[test]
fn a_run_is_no_longer_than_an_ip_packet() {
    let many: Vec<Vec<u8>> = (0..70_u32).map(|number| build(Shape { sequence: 1 + number * 1400, payload: 1400, ..PLAIN })).collect();
    let joined = join(false, &many);
    assert_eq!(joined.len(), 2);
    assert!(joined.iter().all(|(_, packet)| packet.len() <= 65_535));
    assert_eq!(joined.iter().map(|(_, packet)| packet.len() - 52).sum::<usize>(), 70 * 1400);
}
