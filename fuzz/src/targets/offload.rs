//! Packets that are cut and joined on the two sides of the seal.
use super::script::Script;
use shadowmesh_core::offload::{Checksum, Joiner, Joins, Large, Layout, Offload, PartialChecksum, Segmentation, Segments, finish};

/// A packet of an interface, well made or not, is cut as its header says or otherwise; what comes of it, changed, doubled and in another
/// order, is joined as by a peer that got it.
pub fn offload(data: &[u8]) {
    let mut script = Script::new(data);
    let shape = script.byte();
    let layer2 = shape & 1 != 0;
    let mut packet = build(&mut script, shape);
    for _ in 0..script.below(4) {
        let at = script.below(packet.len());
        packet[at] = script.byte();
    }
    let said = said(&mut script, layer2, &packet);
    let Some(pieces) = cut(layer2, said, &packet) else { return };
    let mut given = Vec::new();
    for piece in pieces.into_iter().take(200) {
        match script.below(16) {
            0 => {}
            1 => given.extend([piece.clone(), piece]),
            2 => given.insert(given.len().saturating_sub(1), piece),
            3 => given.push(script.spoil(&piece, &[])),
            _ => given.push(piece),
        }
    }
    let most = Joins { tcp: script.below(8) != 0, udp: script.below(8) != 0 };
    joined(layer2, most, &given);
}

fn build(script: &mut Script<'_>, shape: u8) -> Vec<u8> {
    let (is_v6, is_tcp) = (shape & 2 != 0, shape & 4 != 0);
    let payload = script.below(5_000);
    let options = if is_tcp { script.below(11) * 4 } else { 0 };
    let covered = (if is_tcp { 20 + options } else { 8 }) + payload;
    let protocol = if is_tcp { 6 } else { 17 };
    let mut packet = if shape & 1 != 0 { vec![2; 12] } else { Vec::new() };
    if shape & 1 != 0 {
        packet.extend(if shape & 8 != 0 { &[0x81, 0, 0, 7][..] } else { &[] });
        packet.extend(if is_v6 { [0x86, 0xdd] } else { [0x08, 0x00] });
    }
    if is_v6 {
        packet.extend([0x60, 0, 0, 0]);
        packet.extend((covered as u16).to_be_bytes());
        packet.extend([protocol, 64]);
        packet.extend([0xfd; 32]);
    } else {
        packet.extend([0x45, 0]);
        packet.extend((20 + covered as u16).to_be_bytes());
        packet.extend([0xff, 0xff, if shape & 16 != 0 { 0x40 } else { 0 }, 0, 64, protocol, 0, 0]);
        packet.extend([10, 0, 0, 1, 10, 0, 0, 2]);
    }
    packet.extend([0x30, 0x39, 0, 80]);
    if is_tcp {
        packet.extend(script.u32().to_be_bytes());
        packet.extend([1, 2, 3, 4, ((20 + options) as u8 / 4) << 4, 0x10 | script.byte() & 0x09, 1, 0, 0, 0, 0, 0]);
        packet.resize(packet.len() + options, 1);
    } else {
        packet.extend((covered as u16).to_be_bytes());
        packet.extend([0, 0]);
    }
    packet.extend((0..payload).map(|i| (i * 31) as u8));
    packet
}

/// What the interface says of it: mostly the truth.
fn said(script: &mut Script<'_>, layer2: bool, packet: &[u8]) -> Offload {
    let layout = Layout::of(layer2, packet);
    let partial = layout.and_then(|layout| layout.partial()).filter(|_| script.below(8) != 0);
    let checksum = partial.unwrap_or_else(|| PartialChecksum { start: script.u16() % 200, offset: script.below(20) as u16 });
    let kind = match (script.below(8), checksum.offset) {
        (1, _) => Large::TcpV6,
        (0, _) | (_, 16) => Large::TcpV4,
        _ => Large::Udp,
    };
    let size = script.u16() % 2_000;
    Offload { checksum: Some(checksum), segmentation: (script.below(8) != 0).then_some(Segmentation { kind, size }) }
}

/// The pieces, of which each is whole.
fn cut(layer2: bool, offload: Offload, packet: &[u8]) -> Option<Vec<Vec<u8>>> {
    let mut segments = Segments::new(layer2, offload, packet).ok()?;
    let partial = segments.are_partial();
    let mut pieces = Vec::new();
    while let Some((head, body)) = segments.step() {
        let piece = [head, body].concat();
        let layout = Layout::of(layer2, &piece);
        if partial {
            let partial = layout.and_then(|layout| layout.partial());
            assert_eq!(partial, offload.checksum, "the far end finds the checksum");
            assert!(finish(&mut piece.clone(), partial.expect("just seen")));
        }
        pieces.push(piece);
    }
    Some(pieces)
}

/// What a joiner writes stands for exactly the packets that it was given.
fn joined(layer2: bool, joins: Joins, given: &[Vec<u8>]) {
    let mut joiner = Joiner::new(layer2, joins);
    let mut written = Vec::new();
    let mut write = |offload: Offload, packet: &[u8]| {
        let transport = offload.segmentation.map(|segmentation| segmentation.kind == Large::Udp);
        assert!(transport.is_none_or(|is_udp| if is_udp { joins.udp } else { joins.tcp }), "only what the interface takes");
        match offload.segmentation {
            Some(_) => written.extend(cut(layer2, offload, packet).expect("what was joined can be cut")),
            None => written.push(packet.to_vec()),
        }
    };
    for packet in given {
        let checksum = if Layout::of(layer2, packet).is_some() { Checksum::Partial } else { Checksum::Full };
        joiner.add(packet, checksum, &mut write);
    }
    joiner.flush(&mut write);
    assert_eq!(written.len(), given.len());
    for (written, given) in written.iter().zip(given) {
        assert!(plain(layer2, written) == plain(layer2, given), "a packet is as it was");
    }
}

/// A packet without what cutting makes anew: checksums, and the number of an IPv4 packet that may not be cut on its way.
fn plain(layer2: bool, packet: &[u8]) -> Vec<u8> {
    let mut plain = packet.to_vec();
    if let Some(partial) = Layout::of(layer2, packet).and_then(|layout| layout.partial()) {
        let field = usize::from(partial.start + partial.offset);
        plain[field..field + 2].fill(0);
        let ip = usize::from(partial.start) - 20;
        if let Some(header) = plain.get_mut(ip..).filter(|header| header[0] == 0x45) {
            header[10..12].fill(0);
            if header[6] & 0x40 != 0 {
                header[4..6].fill(0);
            }
        }
    }
    plain
}
