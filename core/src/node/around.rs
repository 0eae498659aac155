//! What a node knows of its surroundings, and what it offers because of them (protocol 6.3).
use super::{Node, uplink::Uplink};
use crate::{
    event::PortMapping,
    path::candidate::{Ports, TcpEnds, gather},
    time::Instant,
};
use core::net::IpAddr;

/// Datagrams and connections, of two families.
const MAPPINGS_MAX: usize = 4;

impl Node {
    /// What the router in front forwards to us now.
    pub(super) fn port_mapped(&mut self, now: Instant, mappings: &[PortMapping]) {
        self.room.around.mapped = mappings.iter().take(MAPPINGS_MAX).copied().collect();
        self.refresh_surroundings(now);
    }

    /// What the router has not renewed is gone, whatever became of whoever asks it.
    pub(super) fn expire_mappings(&mut self, now: Instant) {
        let before = self.room.around.mapped.len();
        self.room.around.mapped.retain(|mapping| mapping.until > now);
        if self.room.around.mapped.len() < before {
            self.refresh_surroundings(now);
        }
    }

    pub(super) fn mappings_deadline(&self) -> Option<Instant> {
        self.room.around.mapped.iter().map(|mapping| mapping.until).min()
    }

    /// Addresses changed: what may be dialled, and what we offer.
    pub(super) fn refresh_surroundings(&mut self, now: Instant) {
        self.room.around.relay_ends = self.uplinks.iter().filter_map(Uplink::ends).collect();
        let ends = |uplink: &Uplink| TcpEnds::new(uplink.ends()?, uplink.observed()?);
        self.room.around.tcp_ends = self.uplinks.iter().filter_map(ends).collect();
        self.room.around.observed = self.uplinks.iter().filter_map(Uplink::observed).map(|observed| observed.ip()).collect();
        self.room.around.reflexive = self.reflexive();
        // sockets that are there for the relay alone are nobody's candidates
        let udp = if self.room.config.direct.udp { self.room.udp_ports } else { (None, None) };
        let ports = Ports { wss: self.room.listen_port, udp };
        let candidates = gather(&self.room.around, &self.room.config.advertise, ports);
        if candidates == self.room.candidates {
            return;
        }
        // without a relay nothing is known of the outside; what was offered stands until it is back
        if self.room.around.relay_ends.is_empty() && ports != Ports::default() {
            return;
        }
        self.room.candidates = candidates;
        self.room.candidates_generation += 1;
        for link in self.links.values_mut() {
            link.offer_candidates(now, &mut self.room);
            link.attempt_soon(now);
        }
    }

    /// Our addresses have changed, or, where they are the same ones again, the ways to others. A connection from an address that is gone
    /// falls silent, and nobody tells. Each must show life.
    pub(super) fn interfaces(&mut self, now: Instant, interfaces: &[(IpAddr, u8)]) {
        let before = core::mem::replace(&mut self.room.around.interfaces, interfaces.to_vec());
        let gone: Vec<IpAddr> = before.iter().map(|(ip, _)| *ip).filter(|ip| interfaces.iter().all(|(present, _)| present != ip)).collect();
        let rerouted = before == interfaces;
        for index in 0..self.uplinks.len() {
            let lost = self.uplinks.get_mut(index).is_some_and(|uplink| uplink.moved(now, &mut self.room, &gone, rerouted));
            if lost {
                self.uplink_lost(now, index);
            }
        }
        for link in self.links.values_mut() {
            link.moved(now, &mut self.room);
        }
    }
}
