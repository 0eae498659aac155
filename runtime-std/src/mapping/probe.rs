//! Which ways to ask for a port the router in front knows. Nothing is mapped, nothing is changed (`netcheck`).
use super::{
    codec::{self, Said},
    gateway,
    upnp::Device,
};
use core::{net::IpAddr, time::Duration};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use std::{net::UdpSocket, thread, time::Instant};

/// Questions go out at the start and after each of these but the last, which is only waited for.
const WAITS: [Duration; 3] = [Duration::from_millis(250), Duration::from_millis(500), Duration::from_secs(1)];
/// `UPnP` devices may answer late, and are then asked for their description.
const UPNP_TIME: Duration = Duration::from_secs(4);

/// What was found.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Found {
    /// The default gateway; of IPv4 where there is one.
    pub gateway: Option<IpAddr>,
    /// It answers PCP (RFC 6887).
    pub pcp: bool,
    /// It answers NAT-PMP (RFC 6886).
    pub nat_pmp: bool,
    /// It answers `UPnP-IGD`.
    pub upnp: bool,
    /// Its address outside, as NAT-PMP or else `UPnP-IGD` told it.
    pub external: Option<IpAddr>,
}

/// Asks the default gateway, other than through the interface `except`; blocks for some seconds.
pub fn probe(except: Option<&str>) -> Found {
    let Some(found) = gateway::find(false, except).or_else(|| gateway::find(true, except)) else { return Found::default() };
    let (tell, told) = flume::bounded(1);
    if let (IpAddr::V4(own), IpAddr::V4(router)) = (found.own, found.address.ip()) {
        let search = move || {
            // Whoever asked may have stopped waiting.
            let _ = tell.send(Device::find(own, router));
        };
        // Without a thread it is not found.
        let _ = thread::Builder::new().name("mesh-upnp".to_owned()).spawn(search);
    } else {
        drop(tell);
    }
    let end = Instant::now() + UPNP_TIME;
    let mut known = Found { gateway: Some(found.address.ip()), ..Found::default() };
    if let Ok(socket) = gateway::socket(&found) {
        ask(&socket, found.own, &mut known);
    }
    if let Ok(Ok((_, external))) = told.recv_deadline(end) {
        known.upnp = true;
        known.external = known.external.or(Some(external));
    }
    known
}

/// Asks by both protocols until both have answered, or nobody does.
fn ask(socket: &UdpSocket, own: IpAddr, known: &mut Found) {
    for wait in WAITS {
        let end = Instant::now() + wait;
        if !known.pcp {
            let _ = socket.send(&codec::pcp_announce(own));
        }
        if !known.nat_pmp && own.is_ipv4() {
            let _ = socket.send(&codec::nat_pmp_address());
        }
        while let Some(left) = end.checked_duration_since(Instant::now()) {
            if known.pcp && (known.nat_pmp || own.is_ipv6()) {
                return;
            }
            let Ok(left) = Timespec::try_from(left) else { return };
            let mut fds = [PollFd::new(socket, PollFlags::IN)];
            let mut buffer = [0; codec::LONGEST + 1];
            if poll(&mut fds, Some(&left)) == Ok(0) {
                break;
            }
            if let Ok(len) = socket.recv(&mut buffer) {
                hear(&buffer[..len], known);
            }
        }
    }
}

fn hear(bytes: &[u8], known: &mut Found) {
    match codec::parse(bytes).map(|answer| answer.said) {
        None | Some(Said::OtherVersion) => {}
        Some(Said::Address(address)) => {
            known.nat_pmp = true;
            known.external = Some(IpAddr::V4(address)).filter(|address| !address.is_unspecified());
        }
        Some(_) if codec::is_pcp(bytes) => known.pcp = true,
        Some(_) => known.nat_pmp = true,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_protocol_is_known_by_its_answer() {
        let mut announce = vec![2, 0x80, 0, 0];
        announce.resize(24, 0);
        let mut other_version = announce.clone();
        other_version[3] = 1;
        let mut unknown_question = announce.clone();
        unknown_question[3] = 4;
        let address = [0, 0x80, 0, 0, 0, 0, 0, 9, 203, 0, 113, 7];
        let refusal = [0, 0x80, 0, 2, 0, 0, 0, 9];
        for (bytes, pcp, nat_pmp) in [
            (&announce[..], true, false),
            (&unknown_question, true, false),
            (&other_version, false, false),
            (&[0, 0x80, 0, 1], false, false),
            (&address, false, true),
            (&refusal, false, true),
            (b"nonsense", false, false),
        ] {
            let mut known = Found::default();
            hear(bytes, &mut known);
            assert_eq!((known.pcp, known.nat_pmp), (pcp, nat_pmp), "{bytes:?}");
        }
    }

    #[test]
    fn a_router_of_its_own_is_asked_until_it_has_answered_both() {
        let router = UdpSocket::bind(("127.0.0.1", 0)).expect("loopback");
        let socket = UdpSocket::bind(("127.0.0.1", 0)).expect("loopback");
        socket.connect(router.local_addr().expect("bound")).expect("loopback");
        let work = thread::spawn(move || {
            let mut buffer = [0; 64];
            loop {
                let (len, from) = router.recv_from(&mut buffer).expect("a question");
                if len == 2 {
                    router.send_to(&[0, 0x80, 0, 0, 0, 0, 0, 9, 203, 0, 113, 7], from).expect("loopback");
                    return;
                }
                let mut answer = vec![2, 0x80, 0, 0];
                answer.resize(24, 0);
                router.send_to(&answer, from).expect("loopback");
            }
        });
        let mut known = Found::default();
        ask(&socket, "127.0.0.1".parse().expect("an address"), &mut known);
        work.join().expect("it has answered both");
        assert_eq!((known.pcp, known.nat_pmp, known.external), (true, true, Some("203.0.113.7".parse().expect("an address"))));
    }
}
