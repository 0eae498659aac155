//! Events as they stand in a journal: in full, so that a replay needs nothing else.
use super::codec::{Field, put_list, record};
use crate::{
    config::Tuning,
    event::{Ended, Event, MappingProtocol, PortMapping, TlsFacts},
    handshake::{Done, Outcome},
    hub::HubEvent,
    plane::{LinkTally, Tally},
    wire::{Malformed, Reader, Transport},
};
use core::net::IpAddr;

/// The kinds of a peer's events; a kind's number is its place.
pub(super) const NODE: [&str; 21] = [
    "Start",
    "Entropy",
    "Alarm",
    "Opened",
    "Accepted",
    "Closed",
    "Message",
    "Computed",
    "Listening",
    "Interfaces",
    "Report",
    "Tally",
    "Ping",
    "Leave",
    "Sockets",
    "Datagram",
    "PortMapped",
    "Examine",
    "Members",
    "Tune",
    "Succeed",
];
/// The kinds of a relay's events.
pub(super) const HUB: [&str; 11] =
    ["Start", "Entropy", "Alarm", "Accepted", "Closed", "Message", "Computed", "Leave", "Datagram", "Drain", "Configure"];

/// Owns what an event borrows.
#[derive(Default)]
pub struct Loan {
    interfaces: Vec<(IpAddr, u8)>,
    mappings: Vec<PortMapping>,
    tally: Tally,
}

record!(Tuning { retry_interval, health_check_interval, connect_timeout, close_relay });
record!(TlsFacts { exporter, identity, subject });
record!(PortMapping { protocol, transport, external, until });

impl Field for MappingProtocol {
    fn put(&self, out: &mut Vec<u8>) {
        out.push(match self {
            Self::Pcp => 0,
            Self::NatPmp => 1,
            Self::Upnp => 2,
        });
    }
    fn take(from: &mut Reader<'_>) -> Result<Self, Malformed> {
        let known = [Self::Pcp, Self::NatPmp, Self::Upnp];
        known.get(usize::from(from.u8("port mapping protocol")?)).copied().ok_or(Malformed("port mapping protocol"))
    }
}

impl Field for Transport {
    fn put(&self, out: &mut Vec<u8>) {
        out.push(match self {
            Self::Udp => 0,
            Self::Wss => 1,
        });
    }
    fn take(from: &mut Reader<'_>) -> Result<Self, Malformed> {
        [Self::Udp, Self::Wss].get(usize::from(from.u8("transport")?)).copied().ok_or(Malformed("transport"))
    }
}

pub(super) fn put_node(event: &Event<'_>, out: &mut Vec<u8>) {
    match event {
        Event::Start => out.push(0),
        Event::Entropy(fresh) => {
            out.push(1);
            fresh.put(out);
        }
        Event::Alarm => out.push(2),
        Event::Opened { conn, tls, local, remote } => {
            out.push(3);
            conn.put(out);
            tls.put(out);
            (*local, *remote).put(out);
        }
        Event::Accepted { conn, exporter, local, remote } => {
            out.push(4);
            (*conn, *exporter).put(out);
            (*local, *remote).put(out);
        }
        Event::Closed { conn, why } => {
            out.push(5);
            conn.put(out);
            why.put(out);
        }
        Event::Message { conn, handle, bytes } => {
            out.push(6);
            (*conn, *handle).put(out);
            out.extend_from_slice(bytes);
        }
        Event::Computed(done) => put_kind(7, done, out),
        Event::Listening { port } => put_kind(8, port, out),
        Event::Interfaces(interfaces) => {
            out.push(9);
            put_list(interfaces, out);
        }
        Event::Report(report) => put_kind(10, report, out),
        Event::Tally(tally) => put_kind(11, *tally, out),
        Event::Ping { peer, id, payload } => {
            out.push(12);
            (*peer, *id).put(out);
            payload.put(out);
        }
        Event::Leave => out.push(13),
        Event::Members { members, revoked } => {
            out.push(18);
            members.put(out);
            revoked.put(out);
        }
        Event::Tune(tuning) => put_kind(19, tuning, out),
        Event::Succeed(statement) => put_kind(20, statement, out),
        Event::Sockets { v4, v6 } => {
            out.push(14);
            (*v4, *v6).put(out);
        }
        Event::Datagram { remote, bytes } => {
            out.push(15);
            remote.put(out);
            out.extend_from_slice(bytes);
        }
        Event::PortMapped(mappings) => {
            out.push(16);
            put_list(mappings, out);
        }
        Event::Examine => out.push(17),
    }
}

/// An event of one field.
fn put_kind(kind: u8, field: &impl Field, out: &mut Vec<u8>) {
    out.push(kind);
    field.put(out);
}

pub(super) fn take_node<'a>(body: &'a mut [u8], loan: &'a mut Loan) -> Result<Event<'a>, Malformed> {
    let mut from = Reader::new(body);
    let event = match from.u8("event")? {
        0 => Event::Start,
        1 => return entropy(body).map(Event::Entropy),
        2 => Event::Alarm,
        3 => {
            let (conn, tls) = Field::take(&mut from)?;
            let (local, remote) = Field::take(&mut from)?;
            Event::Opened { conn, tls, local, remote }
        }
        4 => {
            let (conn, exporter) = Field::take(&mut from)?;
            let (local, remote) = Field::take(&mut from)?;
            Event::Accepted { conn, exporter, local, remote }
        }
        5 => Event::Closed { conn: Field::take(&mut from)?, why: Field::take(&mut from)? },
        6 => {
            let (conn, handle) = Field::take(&mut from)?;
            let at = body.len() - from.remaining();
            return Ok(Event::Message { conn, handle, bytes: &mut body[at..] });
        }
        7 => Event::Computed(Field::take(&mut from)?),
        8 => Event::Listening { port: Field::take(&mut from)? },
        9 => {
            loan.interfaces = Field::take(&mut from)?;
            Event::Interfaces(&loan.interfaces)
        }
        10 => Event::Report(Field::take(&mut from)?),
        11 => {
            loan.tally = Field::take(&mut from)?;
            Event::Tally(&loan.tally)
        }
        12 => {
            let (peer, id) = Field::take(&mut from)?;
            Event::Ping { peer, id, payload: Field::take(&mut from)? }
        }
        13 => Event::Leave,
        18 => {
            let members = Field::take(&mut from)?;
            Event::Members { members, revoked: Field::take(&mut from)? }
        }
        14 => {
            let (v4, v6) = Field::take(&mut from)?;
            Event::Sockets { v4, v6 }
        }
        15 => {
            let remote = Field::take(&mut from)?;
            let at = body.len() - from.remaining();
            return Ok(Event::Datagram { remote, bytes: &mut body[at..] });
        }
        16 => {
            loan.mappings = Field::take(&mut from)?;
            Event::PortMapped(&loan.mappings)
        }
        17 => Event::Examine,
        19 => Event::Tune(Field::take(&mut from)?),
        20 => Event::Succeed(Field::take(&mut from)?),
        _ => return Err(Malformed("event")),
    };
    from.end("event")?;
    Ok(event)
}

pub(super) fn put_hub(event: &HubEvent<'_>, out: &mut Vec<u8>) {
    match event {
        HubEvent::Start => out.push(0),
        HubEvent::Entropy(fresh) => {
            out.push(1);
            fresh.put(out);
        }
        HubEvent::Alarm => out.push(2),
        HubEvent::Accepted { conn, exporter, remote, since } => {
            out.push(3);
            (*conn, *exporter).put(out);
            (*remote, *since).put(out);
        }
        HubEvent::Closed { conn } => {
            out.push(4);
            conn.put(out);
        }
        HubEvent::Message { conn, bytes } => {
            out.push(5);
            conn.put(out);
            out.extend_from_slice(bytes);
        }
        HubEvent::Computed(done) => {
            out.push(6);
            done.put(out);
        }
        HubEvent::Leave => out.push(7),
        HubEvent::Datagram { port, remote, bytes } => {
            out.push(8);
            (*port, *remote).put(out);
            out.extend_from_slice(bytes);
        }
        HubEvent::Drain { within } => {
            out.push(9);
            within.put(out);
        }
        HubEvent::Configure { limits, access } => {
            out.push(10);
            limits.put(out);
            access.put(out);
        }
    }
}

pub(super) fn take_hub(body: &mut [u8]) -> Result<HubEvent<'_>, Malformed> {
    let mut from = Reader::new(body);
    let event = match from.u8("event")? {
        0 => HubEvent::Start,
        1 => return entropy(body).map(HubEvent::Entropy),
        2 => HubEvent::Alarm,
        3 => {
            let (conn, exporter) = Field::take(&mut from)?;
            let (remote, since) = Field::take(&mut from)?;
            HubEvent::Accepted { conn, exporter, remote, since }
        }
        4 => HubEvent::Closed { conn: Field::take(&mut from)? },
        5 => {
            let conn = Field::take(&mut from)?;
            let at = body.len() - from.remaining();
            return Ok(HubEvent::Message { conn, bytes: &mut body[at..] });
        }
        6 => HubEvent::Computed(Field::take(&mut from)?),
        7 => HubEvent::Leave,
        8 => {
            let (port, remote) = Field::take(&mut from)?;
            let at = body.len() - from.remaining();
            return Ok(HubEvent::Datagram { port, remote, bytes: &body[at..] });
        }
        9 => HubEvent::Drain { within: Field::take(&mut from)? },
        10 => {
            let limits = Box::new(Field::take(&mut from)?);
            HubEvent::Configure { limits, access: Box::new(Field::take(&mut from)?) }
        }
        _ => return Err(Malformed("event")),
    };
    from.end("event")?;
    Ok(event)
}

/// The 32 bytes behind the kind.
fn entropy(body: &[u8]) -> Result<&[u8; 32], Malformed> {
    body.get(1..).and_then(|rest| rest.try_into().ok()).ok_or(Malformed("entropy"))
}

impl Field for Ended {
    fn put(&self, out: &mut Vec<u8>) {
        match self {
            Self::Refused => out.push(0),
            Self::Unreachable => out.push(1),
            Self::TimedOut => out.push(2),
            Self::Reset => out.push(3),
            Self::ByPeer => out.push(4),
            Self::Tls(why) => {
                out.push(5);
                why.put(out);
            }
            Self::WebSocket(why) => {
                out.push(6);
                why.put(out);
            }
            Self::WrongIdentity { got, subject } => {
                out.push(7);
                got.put(out);
                subject.put(out);
            }
            Self::Resolve(why) => {
                out.push(8);
                why.put(out);
            }
            Self::Local(why) => {
                out.push(9);
                why.put(out);
            }
            Self::Proxy(why) => {
                out.push(10);
                why.put(out);
            }
        }
    }
    fn take(from: &mut Reader<'_>) -> Result<Self, Malformed> {
        Ok(match from.u8("end of a connection")? {
            0 => Self::Refused,
            1 => Self::Unreachable,
            2 => Self::TimedOut,
            3 => Self::Reset,
            4 => Self::ByPeer,
            5 => Self::Tls(Field::take(from)?),
            6 => Self::WebSocket(Field::take(from)?),
            7 => Self::WrongIdentity { got: Field::take(from)?, subject: Field::take(from)? },
            8 => Self::Resolve(Field::take(from)?),
            9 => Self::Local(Field::take(from)?),
            10 => Self::Proxy(Field::take(from)?),
            _ => return Err(Malformed("end of a connection")),
        })
    }
}

/// What people see of a peer's event.
pub(super) fn tell_node(event: &Event<'_>) -> String {
    match event {
        Event::Start | Event::Entropy(_) | Event::Alarm | Event::Leave | Event::Examine => String::new(),
        Event::Tune(Tuning { retry_interval, health_check_interval, connect_timeout, close_relay }) => {
            let relay = if *close_relay { "closed" } else { "kept" };
            format!(
                "retry within {retry_interval:?}, health within {health_check_interval:?}, {connect_timeout:?} to connect, relays are {relay}"
            )
        }
        Event::Succeed(statement) => format!("{} will follow", statement.said().1.short()),
        Event::Members { members, revoked } => format!("{} listed, {} revoked", members.len(), revoked.len()),
        Event::Opened { conn, tls, remote, .. } => {
            format!("{} to {remote}, {}", name(*conn), tls.identity.map_or("a foreign certificate".into(), |id| id.short()))
        }
        Event::Accepted { conn, remote, .. } => format!("{} from {remote}", name(*conn)),
        Event::Closed { conn, why } => format!("{}: {why}", name(*conn)),
        Event::Message { conn, handle, bytes } => {
            let from = handle.map_or_else(String::new, |handle| format!(" from handle {}", handle.0));
            format!("{}{from}: {}", name(*conn), message(bytes))
        }
        Event::Computed(done) => tell_done(done),
        Event::Listening { port: Some(port) } => format!("on port {port}"),
        Event::Listening { port: None } => "on no port".into(),
        Event::Interfaces(list) => list.iter().map(|(address, len)| format!("{address}/{len}")).collect::<Vec<_>>().join(", "),
        Event::PortMapped(list) => {
            let one = |mapping: &PortMapping| format!("{:?} at {} by {}", mapping.transport, mapping.external, mapping.protocol.name());
            list.iter().map(one).collect::<Vec<_>>().join(", ")
        }
        Event::Report(report) => format!("link {}: {:?}", report.link.0, report.what),
        Event::Tally(tally) => tell_tally(tally),
        Event::Ping { peer, id, payload } => format!("{id} to {}, {} bytes", peer.short(), payload.len()),
        Event::Sockets { v4, v6 } => format!("UDP ports: IPv4 {}, IPv6 {}", port_or_none(*v4), port_or_none(*v6)),
        Event::Datagram { remote, bytes } => format!("from {remote}: {}", message(bytes)),
    }
}

/// What people see of a relay's event.
pub(super) fn tell_hub(event: &HubEvent<'_>) -> String {
    match event {
        HubEvent::Start | HubEvent::Entropy(_) | HubEvent::Alarm | HubEvent::Leave => String::new(),
        HubEvent::Configure { limits, .. } => format!("{limits:?}"),
        HubEvent::Drain { within } => format!("within {within:?}"),
        HubEvent::Accepted { conn, remote, .. } => format!("{} from {remote}", name(*conn)),
        HubEvent::Closed { conn } => name(*conn),
        HubEvent::Message { conn, bytes } => format!("{}: {}", name(*conn), message(bytes)),
        HubEvent::Computed(done) => tell_done(done),
        HubEvent::Datagram { port, remote, bytes } => format!("from {remote} to port {port}: {}", message(bytes)),
    }
}

fn port_or_none(port: Option<u16>) -> String {
    port.map_or_else(|| "none".into(), |port| port.to_string())
}

/// A connection for people.
pub(super) fn name(conn: crate::id::ConnId) -> String {
    format!("connection {}", conn.0)
}

/// A message for people: its type and length.
pub(super) fn message(bytes: &[u8]) -> String {
    match bytes.first() {
        Some(kind) => format!("type {kind:#04x}, {} bytes", bytes.len()),
        None => "empty".into(),
    }
}

fn tell_done(done: &Done) -> String {
    let what = match &done.outcome {
        Outcome::Offered(_) => "INIT is made".into(),
        Outcome::Answered(Ok(_)) => "RESP is made".into(),
        Outcome::Concluded(Ok(concluded)) => format!("{} is verified, FIN is made", concluded.peer.id().short()),
        Outcome::Verified(Ok(verified)) => format!("{} is verified", verified.peer.id().short()),
        Outcome::RekeyOffered(offer) => format!("REKEY1 of epoch {} is made", offer.epoch()),
        Outcome::RekeyAnswered(Ok((_, chain))) => format!("REKEY2 of epoch {} is made", chain.epoch()),
        Outcome::RekeyConcluded(Ok(chain)) => format!("epoch {} is made", chain.epoch()),
        Outcome::Answered(Err(error))
        | Outcome::Concluded(Err(error))
        | Outcome::Verified(Err(error))
        | Outcome::RekeyAnswered(Err(error))
        | Outcome::RekeyConcluded(Err(error)) => error.to_string(),
    };
    format!("job {}: {what}", done.ticket.0)
}

fn tell_tally(tally: &Tally) -> String {
    let link = |link: &LinkTally| format!("; link {}: {} out, {} in", link.link.0, link.tx_frames, link.rx_frames);
    format!("{} links{}", tally.links.len(), tally.links.iter().map(link).collect::<String>())
}
