//! The UDP socket of a peer in this world.
use super::{Edit, Peer, Pending};
use crate::world::{air::Air, datagram::Heard};

impl Peer {
    /// Opens its UDP socket, of both families.
    pub(in super::super) fn open_socket(&mut self, air: &mut Air) {
        let port = air.fresh_port();
        air.open_socket(self.host, port);
        self.udp_port = Some(port);
        self.ports.inbox.push_back(Pending::Sockets(Some(port)));
    }

    /// Takes what its socket has heard.
    pub(super) fn datagrams(&mut self, air: &mut Air) {
        let Some(port) = self.udp_port else { return };
        for heard in air.hear(self.host, port) {
            if let Heard::Datagram { from, mut bytes } = heard {
                let flow = self.ports.flows.iter().find(|(_, known)| **known == from).map(|(conn, _)| *conn);
                self.plane.datagram(self.now(air), flow, from, &mut bytes, &mut self.ports);
            }
        }
    }

    /// The plane hears of a path by UDP when the other end asks on it, and again when that end has proven that it is there.
    pub(super) fn note_proof(&mut self, air: &mut Air, edit: &Edit) {
        match edit {
            Edit::Path { path, via, .. } if via.conn.is_flow() => {
                if let (false, Some(remote), Some(port)) = (self.asked.insert(*path), self.ports.flows.get(&via.conn), self.udp_port) {
                    air.validate(self.host, port, *remote);
                }
            }
            Edit::Unpath { path, .. } => {
                self.asked.remove(path);
            }
            _ => {}
        }
    }
}
