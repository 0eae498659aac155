//! The datagrams of PCP (RFC 6887) and NAT-PMP (RFC 6886), as far as a peer needs them: to ask for a port, to give it back, to ask
//! who is there.
//!
//! ```text
//!   PCP      ask    2 │ op │ reserved 2 │ lifetime 4 │ own address 16 │ MAP: nonce 12, UDP or TCP 1, 0 × 3, ports 2 + 2, address 16
//!            answer 2 │ op + 80 │ 0 │ result 1 │ lifetime 4 │ epoch 4 │ 0 × 12 │ MAP: the same fields
//!   NAT-PMP  ask    0 │ op │ (0 × 2 │ ports 2 + 2 │ lifetime 4)
//!            answer 0 │ op + 80 │ result 2 │ epoch 4 │ address 4, or ports 2 + 2 and lifetime 4
//! ```
use core::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use shadowmesh_core::wire::Transport;

/// The router's port for both.
pub(crate) const PORT: u16 = 5351;
/// The longest datagram of PCP (RFC 6887 7).
pub(crate) const LONGEST: usize = 1100;

const PCP: u8 = 2;
const NAT_PMP: u8 = 0;
const ANSWER: u8 = 0x80;
const PCP_ANNOUNCE: u8 = 0;
const PCP_MAP: u8 = 1;
const HEADER_LEN: usize = 24;
const MAP_LEN: usize = 36;
const TCP: u8 = 6;
const UDP: u8 = 17;

/// A port that is asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Ask {
    pub(crate) transport: Transport,
    /// Ours.
    pub(crate) internal: u16,
    /// The one outside that we would like: the one that we had, or 0.
    pub(crate) external: u16,
    /// 0 gives it back.
    pub(crate) lifetime_s: u32,
}

/// What a router says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Answer {
    /// Seconds since the router began to remember, or lost all.
    pub(crate) epoch_s: u32,
    pub(crate) said: Said,
}

/// The answer itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Said {
    /// PCP: this port is ours.
    Mapped { nonce: [u8; 12], transport: Transport, internal: u16, external: u16, address: IpAddr, lifetime_s: u32 },
    /// NAT-PMP: this port is ours, at the address that it tells on another question.
    MappedPort { transport: Transport, internal: u16, external: u16, lifetime_s: u32 },
    /// NAT-PMP: its address outside.
    Address(Ipv4Addr),
    /// PCP: it is there.
    Here,
    /// It is there and does not speak this version.
    OtherVersion,
    /// It will not, for this reason; of a mapping where PCP says which. PCP says for how long this holds.
    Refused { nonce: Option<[u8; 12]>, transport: Option<Transport>, result: u16, lifetime_s: u32 },
}

/// PCP: asks for a port.
pub(crate) fn pcp_map(own: IpAddr, nonce: [u8; 12], ask: Ask, address: Option<IpAddr>) -> Vec<u8> {
    let mut out = pcp_header(PCP_MAP, own, ask.lifetime_s);
    out.extend_from_slice(&nonce);
    out.extend_from_slice(&[protocol(ask.transport), 0, 0, 0]);
    out.extend_from_slice(&ask.internal.to_be_bytes());
    out.extend_from_slice(&ask.external.to_be_bytes());
    let any = if own.is_ipv4() { IpAddr::V4(Ipv4Addr::UNSPECIFIED) } else { IpAddr::V6(Ipv6Addr::UNSPECIFIED) };
    out.extend_from_slice(&wide(address.unwrap_or(any)));
    out
}

/// PCP: asks who is there. It changes nothing (RFC 6887 14.1).
pub(crate) fn pcp_announce(own: IpAddr) -> Vec<u8> {
    pcp_header(PCP_ANNOUNCE, own, 0)
}

/// NAT-PMP: asks for a port. Who gives it back does not name the one outside (RFC 6886 3.4).
pub(crate) fn nat_pmp_map(ask: Ask) -> Vec<u8> {
    let external = if ask.lifetime_s == 0 { 0 } else { ask.external };
    let mut out = vec![NAT_PMP, nat_pmp_op(ask.transport), 0, 0];
    out.extend_from_slice(&ask.internal.to_be_bytes());
    out.extend_from_slice(&external.to_be_bytes());
    out.extend_from_slice(&ask.lifetime_s.to_be_bytes());
    out
}

/// NAT-PMP: asks for the address outside. It changes nothing.
pub(crate) fn nat_pmp_address() -> Vec<u8> {
    vec![NAT_PMP, 0]
}

/// Reads an answer of either; None: it is none, or none of those that a peer asks for.
pub(crate) fn parse(bytes: &[u8]) -> Option<Answer> {
    match *bytes.first()? {
        PCP => parse_pcp(bytes),
        NAT_PMP => parse_nat_pmp(bytes),
        _ => None,
    }
}

/// Whether this answer is one of PCP.
pub(crate) fn is_pcp(bytes: &[u8]) -> bool {
    bytes.first() == Some(&PCP)
}

fn parse_pcp(bytes: &[u8]) -> Option<Answer> {
    if bytes.len() < HEADER_LEN || bytes.len() > LONGEST || !bytes.len().is_multiple_of(4) {
        return None;
    }
    let op = bytes[1].checked_sub(ANSWER)?;
    let (result, lifetime_s, epoch_s) = (bytes[3], u32_at(bytes, 4)?, u32_at(bytes, 8)?);
    let map = bytes.get(HEADER_LEN..HEADER_LEN + MAP_LEN).filter(|_| op == PCP_MAP);
    let nonce = map.and_then(|map| map.first_chunk::<12>()).copied();
    let transport = map.and_then(|map| transport(map[12]));
    let said = match (result, op) {
        (1, _) => Said::OtherVersion,
        (0, PCP_ANNOUNCE) => Said::Here,
        (0, PCP_MAP) => {
            let map = map?;
            let address = narrow(map.get(20..36)?.try_into().ok()?);
            Said::Mapped {
                nonce: nonce?,
                transport: transport?,
                internal: u16_at(map, 16)?,
                external: u16_at(map, 18)?,
                address,
                lifetime_s,
            }
        }
        (0, _) => return None,
        (result, _) => Said::Refused { nonce, transport, result: result.into(), lifetime_s },
    };
    Some(Answer { epoch_s, said })
}

fn parse_nat_pmp(bytes: &[u8]) -> Option<Answer> {
    let op = bytes.get(1)?.checked_sub(ANSWER)?;
    let result = u16_at(bytes, 2)?;
    // who does not know a question's version answers with the head alone, at the least (RFC 6886 3.5, RFC 6887 appendix A)
    let epoch_s = u32_at(bytes, 4).unwrap_or(0);
    let transport = [(1, Transport::Udp), (2, Transport::Wss)].into_iter().find(|(code, _)| *code == op).map(|(_, transport)| transport);
    let said = match (result, op, transport) {
        (1, ..) => Said::OtherVersion,
        (0, 0, _) => Said::Address(Ipv4Addr::from(u32_at(bytes, 8)?)),
        (0, _, Some(transport)) => {
            Said::MappedPort { transport, internal: u16_at(bytes, 8)?, external: u16_at(bytes, 10)?, lifetime_s: u32_at(bytes, 12)? }
        }
        (0, ..) => return None,
        (result, ..) => Said::Refused { nonce: None, transport, result, lifetime_s: 0 },
    };
    Some(Answer { epoch_s, said })
}

fn pcp_header(op: u8, own: IpAddr, lifetime_s: u32) -> Vec<u8> {
    let mut out = Vec::with_capacity(HEADER_LEN + MAP_LEN);
    out.extend_from_slice(&[PCP, op, 0, 0]);
    out.extend_from_slice(&lifetime_s.to_be_bytes());
    out.extend_from_slice(&wide(own));
    out
}

fn protocol(transport: Transport) -> u8 {
    match transport {
        Transport::Udp => UDP,
        Transport::Wss => TCP,
    }
}

fn transport(protocol: u8) -> Option<Transport> {
    match protocol {
        UDP => Some(Transport::Udp),
        TCP => Some(Transport::Wss),
        _ => None,
    }
}

fn nat_pmp_op(transport: Transport) -> u8 {
    match transport {
        Transport::Udp => 1,
        Transport::Wss => 2,
    }
}

/// 16 bytes hold an address of either family (RFC 6887 5).
fn wide(address: IpAddr) -> [u8; 16] {
    match address {
        IpAddr::V4(v4) => v4.to_ipv6_mapped().octets(),
        IpAddr::V6(v6) => v6.octets(),
    }
}

fn narrow(bytes: [u8; 16]) -> IpAddr {
    IpAddr::V6(Ipv6Addr::from(bytes)).to_canonical()
}

fn u16_at(bytes: &[u8], at: usize) -> Option<u16> {
    Some(u16::from_be_bytes(bytes.get(at..at + 2)?.try_into().ok()?))
}

fn u32_at(bytes: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_be_bytes(bytes.get(at..at + 4)?.try_into().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    const OWN: IpAddr = IpAddr::V4(Ipv4Addr::new(192, 168, 1, 2));
    const NONCE: [u8; 12] = [9; 12];
    const ASK: Ask = Ask { transport: Transport::Udp, internal: 0x1234, external: 0x5678, lifetime_s: 3600 };

    // RFC 6887 7.1, 11.1
    #[test]
    fn a_question_of_pcp_has_these_bytes() {
        let mut expected = vec![2, 1, 0, 0, 0, 0, 0x0e, 0x10];
        expected.extend([0; 10]);
        expected.extend([0xff, 0xff, 192, 168, 1, 2]);
        expected.extend(NONCE);
        expected.extend([17, 0, 0, 0, 0x12, 0x34, 0x56, 0x78]);
        expected.extend([0; 10]);
        expected.extend([0xff, 0xff, 0, 0, 0, 0]);
        assert_eq!(pcp_map(OWN, NONCE, ASK, None), expected);
        assert_eq!(pcp_announce(OWN), [&[2, 0, 0, 0, 0, 0, 0, 0][..], &expected[8..24]].concat());
        let v6 = pcp_map("2001:db8::1".parse().expect("an address"), NONCE, ASK, None);
        assert_eq!((v6.len(), &v6[44..60]), (60, &[0; 16][..]), "no address of this family");
    }

    // RFC 6886 3.2, 3.3, 3.4
    #[test]
    fn a_question_of_nat_pmp_has_these_bytes() {
        assert_eq!(nat_pmp_map(ASK), [0, 1, 0, 0, 0x12, 0x34, 0x56, 0x78, 0, 0, 0x0e, 0x10]);
        let back = Ask { transport: Transport::Wss, lifetime_s: 0, ..ASK };
        assert_eq!(nat_pmp_map(back), [0, 2, 0, 0, 0x12, 0x34, 0, 0, 0, 0, 0, 0]);
        assert_eq!(nat_pmp_address(), [0, 0]);
    }

    #[test]
    fn answers_are_read_and_cut_ones_are_none() {
        let mapped = [&pcp_answer(1, 0)[..], &NONCE, &[6, 0, 0, 0, 0, 80, 0x1f, 0x90], &[0; 10], &[0xff, 0xff, 203, 0, 113, 7]].concat();
        let said = Said::Mapped {
            nonce: NONCE,
            transport: Transport::Wss,
            internal: 80,
            external: 8080,
            address: IpAddr::from([203, 0, 113, 7]),
            lifetime_s: 120,
        };
        assert_eq!(parse(&mapped), Some(Answer { epoch_s: 77, said }));
        let pmp = [0, 129, 0, 0, 0, 0, 0, 77, 0, 80, 0x1f, 0x90, 0, 0, 0, 120];
        let said = Said::MappedPort { transport: Transport::Udp, internal: 80, external: 8080, lifetime_s: 120 };
        assert_eq!(parse(&pmp), Some(Answer { epoch_s: 77, said }));
        let address = [0, 128, 0, 0, 0, 0, 0, 77, 203, 0, 113, 7];
        assert_eq!(parse(&address), Some(Answer { epoch_s: 77, said: Said::Address(Ipv4Addr::new(203, 0, 113, 7)) }));
        for whole in [&mapped[..], &pmp, &address] {
            for len in 0..whole.len() {
                assert_eq!(parse(&whole[..len]), None, "{len} of {}", whole.len());
            }
        }
        // a question is no answer
        assert_eq!(parse(&pcp_map(OWN, NONCE, ASK, None)), None);
        assert_eq!(parse(&nat_pmp_map(ASK)), None);
    }

    /// Every length, with bytes that lead into each branch.
    #[test]
    fn whatever_comes_is_judged_without_panic() {
        for version in [0, 2] {
            for op in [0x80, 0x81, 0x82, 0xff] {
                for fill in [0, 1, 0xff] {
                    for len in 0..=LONGEST + 4 {
                        let mut bytes = vec![fill; len];
                        for (place, byte) in [version, op, 0, fill].into_iter().enumerate().take(len) {
                            bytes[place] = byte;
                        }
                        let longest = if version == 2 { LONGEST } else { usize::MAX };
                        assert!(parse(&bytes).is_none() || (4..=longest).contains(&len));
                    }
                }
            }
        }
    }

    // RFC 6887 7.4, appendix A
    #[test]
    fn refusals_and_other_versions_are_told_apart() {
        let said = |bytes: &[u8]| parse(bytes).map(|answer| answer.said);
        assert_eq!(said(&pcp_answer(0, 0)), Some(Said::Here));
        assert_eq!(said(&pcp_answer(1, 1)), Some(Said::OtherVersion));
        assert_eq!(said(&[0, 0x81, 0, 1]), Some(Said::OtherVersion));
        assert_eq!(said(&[0, 0x80, 0, 1, 0, 0, 0, 5]), Some(Said::OtherVersion));
        let refused = Said::Refused { nonce: None, transport: None, result: 2, lifetime_s: 120 };
        assert_eq!(said(&pcp_answer(1, 2)), Some(refused));
        let refused = Said::Refused { nonce: None, transport: Some(Transport::Udp), result: 3, lifetime_s: 0 };
        assert_eq!(said(&[0, 0x81, 0, 3, 0, 0, 0, 5]), Some(refused));
    }

    fn pcp_answer(op: u8, result: u8) -> Vec<u8> {
        let mut out = vec![2, ANSWER + op, 0, result, 0, 0, 0, 120, 0, 0, 0, 77];
        out.extend([0; 12]);
        out
    }
}
