//! The UDP socket of a peer in this world.
use super::{Peer, Pending};
use crate::world::{air::Air, datagram::Heard};
use shadowmesh_core::id::ConnId;
use std::net::SocketAddr;

impl Peer {
    /// Opens its UDP socket, of both families.
    pub(in super::super) fn open_socket(&mut self, air: &mut Air) {
        let port = self.listen_udp.unwrap_or_else(|| air.fresh_port());
        air.open_socket_of_peer(self.host, port);
        self.udp_port = Some(port);
        self.ports.inbox.push_back(Pending::Sockets(Some(port)));
    }

    /// A flow begins, perhaps with a socket of its own.
    pub(super) fn open_flow(&mut self, air: &mut Air, conn: ConnId, remote: SocketAddr, is_own: bool) {
        let own = is_own.then(|| air.fresh_port());
        if let Some(port) = own {
            air.open_socket_of_peer(self.host, port);
        }
        self.ports.flows.insert(conn, (remote, own));
    }

    /// A flow ends, and with it a socket of its own.
    pub(super) fn close_flow(&mut self, air: &mut Air, conn: ConnId) {
        if let Some((_, Some(port))) = self.ports.flows.remove(&conn) {
            air.sockets.remove(&(self.host, port));
        }
    }

    /// Takes what its sockets have heard.
    pub(super) fn datagrams(&mut self, air: &mut Air) {
        let own = self.ports.flows.values().filter_map(|(_, port)| *port);
        let ports: Vec<u16> = self.udp_port.into_iter().chain(own).collect();
        for port in ports {
            let own = Some(port).filter(|port| Some(*port) != self.udp_port);
            for heard in air.hear(self.host, port) {
                if let Heard::Datagram { from, mut bytes } = heard {
                    let flow = self.ports.flows.iter().find(|(_, known)| **known == (from, own)).map(|(conn, _)| *conn);
                    if flow.is_some() || own.is_none() {
                        self.plane.datagrams(self.now(air), flow, from, [&mut bytes[..]], &mut self.ports);
                    }
                }
            }
        }
    }
}
