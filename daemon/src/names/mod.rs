//! Names of peers for all programs of this machine: `server.mesh` has the addresses of the peer `server`.
//!
//! ```text
//!   resolver of the system ── query to fd…::53 ──▶ interface ──▶ Peer::answer_for ──▶ message ◀── table ◀── Status, [[peer]]
//!                          ◀─────────────────────  interface ◀── Peer::hand_in  ◀──────┘
//! ```
//!
//! The server's address lies in the mesh's own prefix, where the kernel routes it into the interface, so there is no socket, no port 53 and
//! no capability (decision 38). Only this machine can ask: what comes from the mesh never gets here.
mod datagram;
pub(crate) mod message;
mod resolved;
pub(crate) mod table;

use datagram::Datagram;
use shadowmesh_core::{id::PeerId, network::Network};
use shadowmesh_runtime_std::peer::Peer;
use std::{
    collections::BTreeSet,
    net::{IpAddr, Ipv6Addr},
    time::{Duration, Instant},
};
use table::Names;

/// Of DNS.
const PORT: u16 = 53;
/// The last bits of the server's address.
const HOST: u128 = 0x53;
/// Ambiguous names that are logged: whoever claims more of them is heard well enough.
const MAX_TOLD: usize = 64;
/// The table is made anew at most so often, whatever is asked.
const FRESH_TIME: Duration = Duration::from_secs(1);

/// Where names are answered in a network.
pub(crate) fn address(network: &Network, own: PeerId) -> Option<Ipv6Addr> {
    network.addresses(own).into_iter().find_map(|(address, length)| match address {
        IpAddr::V6(v6) if length <= 120 => {
            let net = v6.to_bits() >> (128 - u32::from(length)) << (128 - u32::from(length));
            Some(Ipv6Addr::from_bits(net | HOST))
        }
        IpAddr::V4(_) | IpAddr::V6(_) => None,
    })
}

/// Answers until the peer ends. `listed` gives the names of `[[peer]]` as they are now.
pub(crate) async fn serve(peer: &Peer, address: Ipv6Addr, listed: impl Fn() -> Vec<(String, PeerId)>) {
    let packets = peer.answer_for(address).await;
    let interface = peer.interface_name();
    tracing::info!(%address, "names below .mesh are answered");
    let registered = smol::unblock(move || resolved::register(&interface, address));
    let registering = async {
        match registered.await {
            Ok(()) => tracing::info!("systemd-resolved asks here for names below .mesh"),
            Err(why) => {
                tracing::info!(why, server = %address, "for names below .mesh, the system's resolver has to be pointed here by hand");
            }
        }
    };
    let mut server = Server { peer, address, listed, made: None, names: Names::default(), own: Vec::new(), told: BTreeSet::new() };
    let answering = async {
        while let Ok(packet) = packets.recv_async().await {
            server.packet(&packet).await;
        }
    };
    futures_lite::future::zip(registering, answering).await;
}

struct Server<'a, L> {
    peer: &'a Peer,
    address: Ipv6Addr,
    listed: L,
    made: Option<Instant>,
    names: Names,
    /// Our own addresses: only this machine asks from one.
    own: Vec<IpAddr>,
    /// Ambiguous names that the log has.
    told: BTreeSet<String>,
}

impl<L: Fn() -> Vec<(String, PeerId)>> Server<'_, L> {
    async fn packet(&mut self, packet: &[u8]) {
        let Some(datagram) = Datagram::parse(packet).filter(|datagram| datagram.to == (self.address, PORT)) else { return };
        self.refresh().await;
        if !self.own.contains(&IpAddr::V6(datagram.from.0)) {
            return; // forwarded for somebody else
        }
        if let Some(answer) = message::answer(datagram.payload, &self.names) {
            self.peer.hand_in(Datagram { from: datagram.to, to: datagram.from, payload: &answer }.packet());
        }
    }

    /// Makes the table anew when it is old.
    async fn refresh(&mut self) {
        if self.made.is_some_and(|made| made.elapsed() < FRESH_TIME) {
            return;
        }
        let Some((_, status)) = self.peer.status().await else { return };
        self.made = Some(Instant::now());
        self.names = Names::new(&status, &(self.listed)());
        self.own = status.addresses.iter().map(|(address, _)| *address).collect();
        for label in self.names.ambiguous() {
            if self.told.len() < MAX_TOLD && self.told.insert(label.clone()) {
                tracing::warn!(name = %label, "several peers are called so, and none is found by it; name the right one in [[peer]]");
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use shadowmesh_core::network::RelayAddress;

    #[test]
    fn the_server_is_in_the_prefix_of_the_network() {
        let relay = RelayAddress::new("wss://127.0.0.1:9", None).expect("a relay");
        let network = Network::new([8; 32], "test", vec![relay]).expect("a network");
        let [one, other] = [1, 2].map(|byte| address(&network, PeerId([byte; 32])).expect("an address"));
        assert_eq!(one, other, "all peers of a network have it at the same place");
        assert_eq!((one.octets()[0], one.segments()[4..].to_vec()), (0xfd, vec![0, 0, 0, 0x53]));
    }
}
