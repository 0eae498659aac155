//! An address inside the mesh's own prefix that this program answers itself, such as that of its name server.
//!
//! ```text
//!   interface ── packet ──▶ Inside ── other ──▶ Plane
//!                              └── to that address ──▶ bounded queue ──▶ who answers ── Peer::hand_in ──▶ interface
//! ```
//!
//! The kernel routes it into the interface as it does any address of the prefix, so there is no socket, no port and no capability; and
//! nobody but this machine can send to it, for what comes from the mesh goes to the kernel and not here.
use core::net::Ipv6Addr;

/// Packets that wait to be answered: a burst of one page's names. More are dropped, as a network would, and asked again.
const QUEUE_PACKETS: usize = 64;

/// Nothing longer is taken (RFC 8200 5: what every link carries).
const LONGEST: usize = 1280;

/// The address and where its packets go; each lane has one.
#[derive(Clone)]
pub struct Inside {
    address: Ipv6Addr,
    packets: flume::Sender<Vec<u8>>,
    dropped: u64,
}

impl Inside {
    /// One for this address, and what comes to it.
    pub(super) fn new(address: Ipv6Addr) -> (Self, flume::Receiver<Vec<u8>>) {
        let (sender, receiver) = flume::bounded(QUEUE_PACKETS);
        (Self { address, packets: sender, dropped: 0 }, receiver)
    }

    /// Takes a packet that is for it; false for all others.
    #[inline]
    pub(super) fn takes(&mut self, packet: &[u8]) -> bool {
        let is_meant = packet.get(24..40) == Some(&self.address.octets()) && packet[0] >> 4 == 6;
        if is_meant && (packet.len() > LONGEST || self.packets.try_send(packet.to_vec()).is_err()) {
            self.dropped += 1;
        }
        is_meant
    }

    /// Packets that had no room, or were too long.
    pub(super) fn dropped(&self) -> u64 {
        self.dropped
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_is_meant_is_taken_and_the_queue_has_an_end() {
        let address: Ipv6Addr = "fd00::53".parse().expect("an address");
        let (mut inside, packets) = Inside::new(address);
        let mut packet = vec![0x60; 48];
        for other in [&packet[..], &[], &[0x60; 39], &[0x45; 20]] {
            assert!(!inside.takes(other), "{other:?}");
        }
        packet[24..40].copy_from_slice(&address.octets());
        assert!(inside.takes(&packet));
        assert_eq!(packets.try_recv().as_ref(), Ok(&packet));
        let mut v4 = packet.clone();
        v4[0] = 0x45;
        assert!(!inside.takes(&v4), "the same bytes in a packet of IPv4 are no address");
        packet.resize(LONGEST + 1, 0);
        assert!(inside.takes(&packet), "too long for us, and for nobody else");
        packet.truncate(48);
        for _ in 0..=QUEUE_PACKETS {
            assert!(inside.takes(&packet));
        }
        assert_eq!((packets.len(), inside.dropped()), (QUEUE_PACKETS, 2));
    }
}
