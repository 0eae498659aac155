//! Packets on their way to the interface: joined where it takes large ones, seen by who captures.
use super::super::{
    capture::{Captures, Direction},
    run,
};
use shadowmesh_core::offload::{Checksum, Joiner, Joins, Offload, Segments};
use std::io;

/// The way to the interface.
pub(in super::super) struct Outlet {
    joiner: Joiner,
    pub(in super::super) captures: Captures,
    /// Packets that the interface did not take.
    pub(in super::super) unwritten: u64,
}

impl Outlet {
    pub(in super::super) fn new(layer2: bool, joins: Joins) -> Self {
        Self { joiner: Joiner::new(layer2, joins), captures: Captures::default(), unwritten: 0 }
    }

    /// A packet passes the interface: who captures gets a copy.
    pub(in super::super) fn see(&mut self, direction: Direction, offload: Offload, packet: &[u8]) {
        self.captures.see(direction, self.joiner.is_layer2(), offload, packet);
    }

    /// A packet of the mesh, which may wait for those that continue it.
    pub(in super::super) fn add(
        &mut self,
        packet: &[u8],
        checksum: Checksum,
        waits: bool,
        deliver: &mut dyn FnMut(Offload, &[u8]) -> io::Result<()>,
    ) {
        self.write(deliver, |joiner, write| {
            joiner.add(packet, checksum, write);
            if !waits {
                joiner.flush(write);
            }
        });
    }

    /// Writes what waits, and then a packet of the program's own, if there is one.
    pub(in super::super) fn flush(&mut self, own: Option<&[u8]>, deliver: &mut dyn FnMut(Offload, &[u8]) -> io::Result<()>) {
        self.write(deliver, |joiner, write| {
            joiner.flush(write);
            if let Some(packet) = own {
                write(Offload::default(), packet);
            }
        });
    }

    /// Writes what the joiner gives to the interface.
    fn write(
        &mut self,
        deliver: &mut dyn FnMut(Offload, &[u8]) -> io::Result<()>,
        join: impl FnOnce(&mut Joiner, &mut dyn FnMut(Offload, &[u8])),
    ) {
        let (unwritten, captures, layer2) = (&mut self.unwritten, &mut self.captures, self.joiner.is_layer2());
        let mut deliver = |offload: Offload, packet: &[u8]| {
            let taken = deliver(offload, packet);
            if taken.is_ok() {
                captures.see(Direction::In, layer2, offload, packet);
            }
            taken
        };
        let mut refused = false;
        join(&mut self.joiner, &mut |offload, packet| match deliver(offload, packet) {
            Ok(()) => {}
            Err(why) if offload.segmentation.is_some() && run::is_refusal(&why) => {
                refused = true;
                *unwritten += deliver_cut(&mut deliver, layer2, offload, packet);
            }
            Err(_) => *unwritten += 1,
        });
        if refused {
            tracing::debug!("the interface takes no large packets");
            self.joiner.restrict(Joins::default());
        }
    }
}

/// Writes a large packet that the interface does not take piece by piece; how many of those it did not take either.
fn deliver_cut(deliver: &mut impl FnMut(Offload, &[u8]) -> io::Result<()>, layer2: bool, offload: Offload, packet: &[u8]) -> u64 {
    let Ok(mut segments) = Segments::new(layer2, offload, packet) else { return 1 };
    let mut refused = 0;
    while let Some((head, body)) = segments.step() {
        let piece = Offload { segmentation: None, ..offload };
        refused += u64::from(deliver(piece, &[head, body].concat()).is_err());
    }
    refused
}
