//! UDP over IPv6, as much of it as a name server needs: no extension headers, no fragments (RFC 8200, RFC 768).
use std::net::Ipv6Addr;

const IP_LEN: usize = 40;
const UDP_LEN: usize = 8;
const UDP: u8 = 17;

/// A datagram: between whom, and what.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Datagram<'a> {
    pub(super) from: (Ipv6Addr, u16),
    pub(super) to: (Ipv6Addr, u16),
    pub(super) payload: &'a [u8],
}

impl<'a> Datagram<'a> {
    /// Takes a packet apart. Its checksum is not looked at: it comes from this machine's own kernel, which may leave it open.
    pub(super) fn parse(packet: &'a [u8]) -> Option<Self> {
        let (ip, rest) = packet.split_first_chunk::<IP_LEN>()?;
        let (udp, payload) = rest.split_first_chunk::<UDP_LEN>()?;
        let address = |at: usize| Ipv6Addr::from(core::array::from_fn::<u8, 16, _>(|byte| ip[at + byte]));
        let word = |at: usize| u16::from_be_bytes([udp[at], udp[at + 1]]);
        let length = usize::from(u16::from_be_bytes([ip[4], ip[5]]));
        let is_plain = ip[0] >> 4 == 6 && ip[6] == UDP && length == rest.len() && usize::from(word(4)) == rest.len();
        is_plain.then(|| Self { from: (address(8), word(0)), to: (address(24), word(2)), payload })
    }

    /// The packet of it.
    pub(super) fn packet(&self) -> Vec<u8> {
        let length = u16::try_from(UDP_LEN + self.payload.len()).expect("answers are short");
        let mut packet = Vec::with_capacity(IP_LEN + UDP_LEN + self.payload.len());
        packet.extend_from_slice(&[0x60, 0, 0, 0]);
        packet.extend_from_slice(&length.to_be_bytes());
        packet.extend_from_slice(&[UDP, 64]);
        packet.extend_from_slice(&self.from.0.octets());
        packet.extend_from_slice(&self.to.0.octets());
        packet.extend_from_slice(&self.from.1.to_be_bytes());
        packet.extend_from_slice(&self.to.1.to_be_bytes());
        packet.extend_from_slice(&length.to_be_bytes());
        packet.extend_from_slice(&[0, 0]);
        packet.extend_from_slice(self.payload);
        let sum = checksum(&packet[8..], length);
        packet[IP_LEN + 6..IP_LEN + 8].copy_from_slice(&sum.to_be_bytes());
        packet
    }
}

/// Over both addresses, the datagram with an empty field, its length and the protocol (RFC 8200 8.1).
fn checksum(from_addresses_on: &[u8], length: u16) -> u16 {
    let words = from_addresses_on.chunks(2).map(|pair| u32::from(pair[0]) << 8 | pair.get(1).map_or(0, |low| u32::from(*low)));
    let mut sum = words.sum::<u32>() + u32::from(length) + u32::from(UDP);
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    match !(sum as u16) {
        0 => 0xffff,
        sum => sum,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_packet_comes_back_as_it_was_and_a_damaged_one_not_at_all() {
        let [here, there] = ["fd00::1", "fd00::53"].map(|text| text.parse().expect("an address"));
        for payload in [&b""[..], b"x", b"a longer one"] {
            let datagram = Datagram { from: (here, 40_000), to: (there, 53), payload };
            let packet = datagram.packet();
            assert_eq!(Datagram::parse(&packet), Some(datagram));
            let whole = checksum(&[&packet[8..]].concat(), payload.len() as u16 + 8);
            assert_eq!(whole, 0xffff, "with the right sum in its place there is nothing left");
            for len in 0..packet.len() {
                assert_eq!(Datagram::parse(&packet[..len]), None, "cut to {len}");
            }
            let mut tcp = packet.clone();
            tcp[6] = 6;
            assert_eq!(Datagram::parse(&tcp), None);
        }
    }
}
