//! TAP mode: a plane is a switch with a port for each peer and one for the interface, and no way from peer to peer.
use super::*;
use crate::{
    offload::PartialChecksum,
    wire::{INNER_ETHERNET, INNER_ETHERNET_PARTIAL},
};

const OTHER: LinkId = LinkId(1);
const OURS: [u8; 6] = [2; 6];
const THEIRS: [u8; 6] = [4; 6];
const EVERYBODY: [u8; 6] = [0xff; 6];
/// One over the relay, the other one direct.
const VIAS: [Via; 2] = [RELAY, DIRECT];

/// A plane with two peers, both with a session.
fn switch() -> End {
    let mut end = alone();
    for (link, local, via) in [(LINK, 10, VIAS[0]), (OTHER, 11, VIAS[1])] {
        let keys = chain(local as u8).keys(Side::Initiator, &RustCrypto);
        let install = Install {
            session: chain(local as u8).session_id(),
            local,
            remote: 20,
            keys,
            main: PathId::RELAY,
            lanes: 1,
            slabs: Slabs::default(),
        };
        end.apply(at(1), Edit::Path { link, path: PathId::RELAY, via, window: None, rtt: None, budget: None });
        end.apply(at(1), Edit::Install { link, install: Box::new(install) });
        end.apply(at(1), Edit::Promote { link, local });
    }
    end
}

/// The same before any session stands.
fn alone() -> End {
    let config = PlaneConfig { layer2: true, addresses: Vec::new(), mac: OURS, mode: Mode::SwitchLossless };
    let mut end = End { plane: Plane::new(config), ports: Ports::default() };
    end.apply(at(0), Edit::Peer { link: LINK, addresses: Vec::new(), mac: THEIRS });
    end.apply(at(0), Edit::Peer { link: OTHER, addresses: Vec::new(), mac: [6; 6] });
    end
}

fn frame(to: [u8; 6], from: [u8; 6]) -> Vec<u8> {
    [&to[..], &from, &[0x08, 0x06], &[0; 46]].concat()
}

impl End {
    /// Where the frames went that it gave since this was last asked.
    fn went(&mut self) -> Vec<Via> {
        self.ports.out.drain(..).map(|(via, _)| via).collect()
    }
}

// protocol 2.6
#[test]
fn a_frame_for_everybody_goes_to_each_peer_and_one_for_a_peer_to_it_alone() {
    let mut end = switch();
    end.plane.outbound(at(2), &frame(EVERYBODY, OURS), &mut end.ports);
    assert_eq!(end.went(), VIAS);
    end.plane.outbound(at(2), &frame(THEIRS, OURS), &mut end.ports);
    assert_eq!(end.went(), VIAS[..1]);
    end.apply(at(2), Edit::Forget { link: LINK });
    end.plane.outbound(at(2), &frame(EVERYBODY, OURS), &mut end.ports);
    assert_eq!(end.went(), VIAS[1..], "a peer that is gone gets none");
    assert!(end.plane.tally().drops.iter().all(|(_, count)| count == 0));
}

// protocol 2.6
#[test]
fn a_frame_for_everybody_waits_for_nobody() {
    let mut end = alone();
    end.plane.outbound(at(2), &frame(EVERYBODY, OURS), &mut end.ports);
    assert_eq!(end.plane.tally().drops.get(Drop::NoRoute), 1);
    assert!(end.ports.reports.is_empty(), "no session is made for it");
    end.plane.outbound(at(2), &frame(THEIRS, OURS), &mut end.ports);
    assert_eq!(end.ports.reports, [Report::wanted(LINK)], "for one of them it is");
}

// protocol 2.6
#[test]
fn what_a_peer_floods_reaches_the_interface_and_no_other_peer() {
    let mut end = switch();
    let keys = chain(10).keys(Side::Responder, &RustCrypto);
    let mut sealed = [&[0; FRAME_HEADER_LEN][..], &[INNER_ETHERNET], &frame(EVERYBODY, THEIRS), &[0; TAG_LEN]].concat();
    keys.seal.seal(FrameHeader { epoch: 0, generation: 0, receiver: 10, counter: Counter::new(0, 0) }, &mut sealed);
    let mut record = crate::wire::record_header(TYPE_DLV, 0, Handle(9), sealed.len() as u16).to_vec();
    record.extend(sealed);
    end.plane.inbound(at(2), RELAY.conn, &mut record, &mut end.ports);
    assert_eq!(end.ports.shapes, [(60, Checksum::Full)]);
    assert!(!end.went().contains(&VIAS[1]), "split horizon: a full mesh has no loops");
}

// protocol 4.2
#[test]
fn a_checksum_that_is_only_begun_goes_as_it_is_where_both_ends_find_it_and_is_made_elsewhere() {
    let udp = [0, 1, 0, 2, 0, 12, 0, 0, 1, 2, 3, 4];
    let plain = [&[0x45, 0, 0, 32, 0, 0, 0, 0, 64, 17, 0, 0, 10, 0, 0, 1, 10, 0, 0, 2][..], &udp].concat();
    // behind a header of hop-by-hop options nobody looks for it
    let options = [&[0x60, 0, 0, 0, 0, 20, 0, 64][..], &[0xfd; 32], &[17, 0, 1, 4, 0, 0, 0, 0], &udp].concat();
    for (kind, packet, start, inner) in [([0x08, 0x00], plain, 34, INNER_ETHERNET_PARTIAL), ([0x86, 0xdd], options, 62, INNER_ETHERNET)] {
        let mut end = switch();
        let whole = [&THEIRS[..], &OURS, &kind, &packet].concat();
        let offload = Offload { checksum: Some(PartialChecksum { start, offset: 6 }), segmentation: None };
        assert_eq!(end.plane.outbound_offloaded(at(2), offload, &whole, &mut end.ports), 1);
        let (_, mut sealed) = end.ports.out.pop_front().expect("it went at once");
        let keys = chain(10).keys(Side::Responder, &RustCrypto);
        let opened = keys.open.open(&mut sealed).expect("sealed for the other end");
        assert_eq!((opened[0], opened.len() - 1), (inner, whole.len()));
        let field = &opened[1 + usize::from(start) + 6..][..2];
        assert_eq!(field == [0, 0], inner == INNER_ETHERNET_PARTIAL, "{field:?}");
    }
}
