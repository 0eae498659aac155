//! A host without a machine: what an attacker can do with bare hands, a connection and any bytes.
use super::air::{Air, Parcel, Side, WireId};
use shadowmesh_core::{event::Ended, id::ConnId};
use std::collections::BTreeMap;

/// One connection of a stranger.
#[derive(Default)]
pub(super) struct Hand {
    wire: Option<(WireId, Side)>,
    pub(super) exporter: Option<[u8; 32]>,
    pub(super) heard: Vec<Vec<u8>>,
    pub(super) ended: Option<Ended>,
}

/// A host that answers nothing by itself.
#[derive(Default)]
pub(super) struct Stranger {
    pub(super) hands: BTreeMap<ConnId, Hand>,
    next_conn: u64,
}

impl Stranger {
    pub(super) fn fresh_conn(&mut self) -> ConnId {
        self.next_conn += 1;
        let conn = ConnId(self.next_conn);
        self.hands.insert(conn, Hand::default());
        conn
    }

    pub(super) fn attach(&mut self, conn: ConnId, wire: WireId, side: Side) {
        self.hands.entry(conn).or_default().wire = Some((wire, side));
    }

    pub(super) fn opened(&mut self, conn: ConnId, wire: WireId, exporter: [u8; 32]) {
        self.attach(conn, wire, 0);
        self.hands.entry(conn).or_default().exporter = Some(exporter);
    }

    pub(super) fn arrived(&mut self, air: &mut Air, conn: ConnId, parcel: Parcel) {
        let Some(hand) = self.hands.get_mut(&conn) else { return };
        match parcel {
            Parcel::Message(bytes) => hand.heard.push(bytes),
            Parcel::End(why) => {
                if let Some((wire, side)) = hand.wire.take() {
                    air.shut(wire, side);
                }
                hand.ended = Some(why);
            }
        }
    }

    /// Sends one message; false when the connection is not open.
    pub(super) fn say(&mut self, air: &mut Air, conn: ConnId, bytes: Vec<u8>) -> bool {
        let Some((wire, side)) = self.hands.get(&conn).and_then(|hand| hand.wire) else { return false };
        air.push(wire, side, bytes);
        true
    }

    pub(super) fn hang_up(&mut self, air: &mut Air, conn: ConnId) {
        if let Some((wire, side)) = self.hands.get_mut(&conn).and_then(|hand| hand.wire.take()) {
            air.finish(wire, side, Ended::ByPeer);
        }
    }
}
