//! The UDP sockets of a peer, one a family, and which far address is which flow.
//!
//! A datagram goes to the kernel at once. What the kernel has no room for waits here, in order, and as long as something waits the data
//! plane is told that there is no room: it drops where that is counted, before sealing.
use crate::udp;
use shadowmesh_core::id::ConnId;
use std::{
    collections::{BTreeMap, HashMap, VecDeque},
    io,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket},
};

/// Bytes that the data plane may send to a flow in one go.
const ROOM_BYTES: usize = 64 * 1024;
/// Datagrams that wait for the kernel; beyond, they are lost as on a network.
const WAITING: usize = 256;
/// A UDP payload at most, and one byte more, to see that something was cut off.
pub(super) const DATAGRAM_BYTES: usize = 65_536;

/// Sockets by family: IPv4, IPv6.
pub const FAMILIES: usize = 2;

/// The sockets and flows.
#[derive(Default)]
pub(super) struct Flows {
    sockets: [Option<UdpSocket>; FAMILIES],
    waiting: [VecDeque<(SocketAddr, Vec<u8>)>; FAMILIES],
    awaited: [bool; FAMILIES],
    remotes: BTreeMap<ConnId, SocketAddr>,
    by_remote: HashMap<SocketAddr, ConnId>,
    /// Datagrams that nobody took.
    pub(super) lost: u64,
}

fn family(remote: SocketAddr) -> usize {
    usize::from(remote.is_ipv6())
}

impl Flows {
    /// Opens a socket for each family that `listen` means: an unspecified IPv4 address means both, where the machine has both.
    ///
    /// # Errors
    /// A sentence: the address cannot be had.
    pub(super) fn open(&mut self, listen: SocketAddr) -> Result<(), String> {
        let socket = udp::bind(listen).map_err(|why| format!("no UDP on {listen}: {why}"))?;
        self.sockets[family(listen)] = Some(socket);
        if listen.ip() == IpAddr::V4(Ipv4Addr::UNSPECIFIED) {
            self.sockets[1] = udp::bind(SocketAddr::new(Ipv6Addr::UNSPECIFIED.into(), listen.port())).ok();
        }
        Ok(())
    }

    pub(super) fn socket(&self, family: usize) -> Option<&UdpSocket> {
        self.sockets.get(family)?.as_ref()
    }

    /// The ports that are open: IPv4, IPv6.
    pub(super) fn ports(&self) -> (Option<u16>, Option<u16>) {
        let port = |family| self.socket(family)?.local_addr().ok().map(|address| address.port());
        (port(0), port(1))
    }

    pub(super) fn add(&mut self, conn: ConnId, remote: SocketAddr) {
        self.remotes.insert(conn, remote);
        self.by_remote.insert(remote, conn);
    }

    /// Forgets a flow; false when there is none of this name.
    pub(super) fn remove(&mut self, conn: ConnId) -> bool {
        let Some(remote) = self.remotes.remove(&conn) else { return false };
        self.by_remote.remove(&remote);
        true
    }

    /// Whose flow this address is.
    pub(super) fn of(&self, remote: SocketAddr) -> Option<ConnId> {
        self.by_remote.get(&remote).copied()
    }

    /// Bytes that the data plane can send to this flow now.
    pub(super) fn room(&self, conn: ConnId) -> usize {
        let Some(remote) = self.remotes.get(&conn) else { return 0 };
        let family = family(*remote);
        if self.sockets[family].is_some() && self.waiting[family].is_empty() { ROOM_BYTES } else { 0 }
    }

    /// Sends to a flow, as [`Flows::send_to`] does; nothing happens when it is gone.
    pub(super) fn send(&mut self, conn: ConnId, bytes: &[u8]) -> Option<usize> {
        let remote = *self.remotes.get(&conn)?;
        self.send_to(remote, bytes)
    }

    /// Sends to an address. Some: the kernel has no room in this family's socket, and somebody should wait until it has and then call
    /// [`Flows::flush`]; said once.
    pub(super) fn send_to(&mut self, remote: SocketAddr, bytes: &[u8]) -> Option<usize> {
        let family = family(remote);
        let socket = self.sockets[family].as_ref()?;
        if self.waiting[family].is_empty() {
            match udp::send(socket, remote, bytes) {
                Err(why) if why.kind() == io::ErrorKind::WouldBlock => {}
                Ok(()) => return None,
                // no route, too long for the interface, forbidden by a firewall: a network would lose it likewise
                Err(_) => {
                    self.lost += 1;
                    return None;
                }
            }
        }
        if self.waiting[family].len() >= WAITING {
            self.lost += 1;
            return None;
        }
        self.waiting[family].push_back((remote, bytes.to_vec()));
        (!core::mem::replace(&mut self.awaited[family], true)).then_some(family)
    }

    /// The kernel has room again: sends what waits. True when nothing waits any more; else somebody should go on waiting.
    pub(super) fn flush(&mut self, family: usize) -> bool {
        let (Some(Some(socket)), Some(waiting)) = (self.sockets.get(family), self.waiting.get_mut(family)) else { return true };
        while let Some((remote, bytes)) = waiting.front() {
            match udp::send(socket, *remote, bytes) {
                Err(why) if why.kind() == io::ErrorKind::WouldBlock => return false,
                Ok(()) => {}
                Err(_) => self.lost += 1,
            }
            waiting.pop_front();
        }
        self.awaited[family] = false;
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_families_open_and_a_flow_is_found_by_its_address_until_it_is_removed() {
        let mut flows = Flows::default();
        flows.open(SocketAddr::from(([0, 0, 0, 0], 0))).expect("any port");
        assert!(flows.ports().0.is_some_and(|port| port != 0));
        let remote = SocketAddr::from(([127, 0, 0, 1], 9));
        let conn = ConnId(1 << 63);
        assert_eq!((flows.of(remote), flows.room(conn)), (None, 0));
        flows.add(conn, remote);
        assert_eq!((flows.of(remote), flows.room(conn)), (Some(conn), ROOM_BYTES));
        assert!(flows.remove(conn) && !flows.remove(conn));
        assert_eq!((flows.of(remote), flows.room(conn)), (None, 0));
    }

    #[test]
    fn a_port_that_is_taken_is_told_in_a_sentence() {
        let taken = udp::bind(SocketAddr::from(([127, 0, 0, 1], 0))).expect("loopback");
        let address = taken.local_addr().expect("bound");
        let why = Flows::default().open(address).expect_err("taken");
        assert!(why.contains(&address.to_string()), "{why}");
    }

    #[test]
    fn what_a_socket_does_not_take_waits_in_order_or_is_counted() {
        let mut flows = Flows::default();
        flows.open(SocketAddr::from(([127, 0, 0, 1], 0))).expect("any port");
        let here = udp::bind(SocketAddr::from(([127, 0, 0, 1], 0))).expect("loopback");
        let remote = here.local_addr().expect("bound");
        flows.waiting[0].push_back((remote, b"first".to_vec()));
        assert_eq!(flows.send_to(remote, b"second"), Some(0));
        assert!(flows.flush(0));
        let mut buffer = [0; 16];
        here.set_nonblocking(false).expect("a socket");
        let heard = [0, 1].map(|_| here.recv(&mut buffer).map(|len| buffer[..len].to_vec()).expect("loopback"));
        assert_eq!(heard, [b"first".to_vec(), b"second".to_vec()]);
        assert_eq!(flows.send_to(remote, &vec![0; DATAGRAM_BYTES]), None, "longer than any datagram");
        assert_eq!(flows.lost, 1);
    }
}
