//! What goes into a `Node` and what comes out.
use crate::{
    config::{Member, Tuning},
    handshake::{Done, Job},
    id::{ConnId, Handle, PathId, PeerId},
    plane::{Edit, Report, Tally},
    succession::{Statement, Succession},
    time::{Duration, Instant},
    wire::{PathLabel, Transport},
};
use core::{
    fmt,
    net::{IpAddr, SocketAddr},
};

/// What TLS showed when a connection opened.
#[derive(Clone, Debug)]
pub struct TlsFacts {
    /// Exporter "EXPORTER-shadowmesh/1" (RFC 8446 7.5), 32 bytes: the same at both ends of one TLS connection.
    pub exporter: [u8; 32],
    /// The identity of an ML-DSA-87 certificate; None for another certificate. Known to the dialler only.
    pub identity: Option<PeerId>,
    /// Who a foreign certificate says it is, for messages.
    pub subject: Option<String>,
}

/// Why a connection ended or never came to be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Ended {
    /// Nobody listens there.
    Refused,
    /// No route, or the network is down.
    Unreachable,
    /// No answer in time.
    TimedOut,
    /// TCP reset.
    Reset,
    /// The other end closed it.
    ByPeer,
    /// TLS failed, with its reason.
    Tls(String),
    /// The WebSocket upgrade or a message failed, with its reason.
    WebSocket(String),
    /// The certificate is another identity's, or nobody's.
    WrongIdentity {
        /// The identity in the certificate.
        got: Option<PeerId>,
        /// The subject of a foreign certificate.
        subject: Option<String>,
    },
    /// The name could not be resolved.
    Resolve(String),
    /// A proxy in between: what it has against it, or what is wrong with what it says. A whole sentence.
    Proxy(String),
    /// This machine refused.
    Local(String),
}

impl Ended {
    /// Nothing of the dial came to a program at the other end, as far as this end can tell.
    pub(crate) const fn reached_nobody(&self) -> bool {
        matches!(self, Self::Refused | Self::Unreachable | Self::TimedOut | Self::Resolve(_))
    }
}

impl fmt::Display for Ended {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Refused => f.write_str("connection refused: nothing listens there"),
            Self::Unreachable => f.write_str("network unreachable"),
            Self::TimedOut => f.write_str("no answer in time"),
            Self::Reset => f.write_str("connection reset"),
            Self::ByPeer => f.write_str("closed by the other end"),
            Self::Tls(why) => write!(f, "TLS failed: {why}"),
            Self::WebSocket(why) => write!(f, "WebSocket failed: {why}"),
            Self::WrongIdentity { got: Some(id), .. } => write!(f, "the certificate belongs to {id}, not to the expected identity"),
            Self::WrongIdentity { got: None, subject: Some(subject) } => {
                write!(f, "TLS is ended by \"{subject}\", which is not the expected identity")
            }
            Self::WrongIdentity { got: None, subject: None } => f.write_str("the certificate is not of the expected identity"),
            Self::Resolve(why) => write!(f, "the name does not resolve: {why}"),
            Self::Proxy(why) | Self::Local(why) => f.write_str(why),
        }
    }
}

/// A port of the router in front that leads to this peer (protocol 6.3).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PortMapping {
    /// How the router was asked.
    pub protocol: MappingProtocol,
    /// What it forwards: datagrams, or connections to the direct listener.
    pub transport: Transport,
    /// The router's address and port outside.
    pub external: SocketAddr,
    /// The router forgets it then, unless it is renewed.
    pub until: Instant,
}

/// A way to ask a router for a port.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MappingProtocol {
    /// Port Control Protocol (RFC 6887).
    Pcp,
    /// NAT Port Mapping Protocol (RFC 6886).
    NatPmp,
    /// Internet Gateway Device of `UPnP`.
    Upnp,
}

impl MappingProtocol {
    /// Its name in status and logs.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Pcp => "pcp",
            Self::NatPmp => "nat-pmp",
            Self::Upnp => "upnp",
        }
    }
}

/// What can happen to a peer.
pub enum Event<'a> {
    /// The first event: bring everything up.
    Start,
    /// 32 bytes from the operating system; given at the start and after each `Action::Compute`.
    Entropy(&'a [u8; 32]),
    /// The deadline has come.
    Alarm,
    /// A `Dial` succeeded: TCP, TLS 1.3 and WebSocket are done.
    Opened {
        /// The number given with `Dial`.
        conn: ConnId,
        /// What TLS showed.
        tls: TlsFacts,
        /// Our address on it.
        local: SocketAddr,
        /// The other end's address.
        remote: SocketAddr,
    },
    /// The direct listener took a connection; TLS and WebSocket are done.
    Accepted {
        /// A fresh odd number.
        conn: ConnId,
        /// The TLS exporter.
        exporter: [u8; 32],
        /// Our address on it.
        local: SocketAddr,
        /// The other end's address.
        remote: SocketAddr,
    },
    /// A connection ended, or a `Dial` failed. Not given after `Action::Hangup`.
    Closed {
        /// Which.
        conn: ConnId,
        /// Why.
        why: Ended,
    },
    /// The UDP sockets that are open, by family; `None`: there is none. Given when `Action::Sockets` was carried out, and when a
    /// socket was lost or opened anew. Flows outlive a change.
    Sockets {
        /// Port of the IPv4 socket.
        v4: Option<u16>,
        /// Port of the IPv6 socket.
        v6: Option<u16>,
    },
    /// A datagram that the plane punted from an address that is nobody's flow.
    Datagram {
        /// Where it came from.
        remote: SocketAddr,
        /// The datagram; opened where it lies.
        bytes: &'a mut [u8],
    },
    /// What the plane punted: a bare message, or the payload of one record.
    Message {
        /// The connection it came on.
        conn: ConnId,
        /// The handle in the record: who sent it over the relay.
        handle: Option<Handle>,
        /// The message; opened where it lies.
        bytes: &'a mut [u8],
    },
    /// A job is done.
    Computed(Done),
    /// The direct listener is open on this port; None: closed, or it could not be opened.
    Listening {
        /// TCP port.
        port: Option<u16>,
    },
    /// Addresses of the local interfaces with prefix length, the overlay interface left out. The same ones again: the ways to others may
    /// be new ones, since a default route changed or this machine slept.
    Interfaces(&'a [(IpAddr, u8)]),
    /// All ports that the router in front forwards to us now; those that were told before and are missing here are gone.
    PortMapped(&'a [PortMapping]),
    /// Somebody wants to know how the network is now: each relay is pinged, and asked anew where it sees our datagrams come from.
    Examine,
    /// What the plane noticed.
    Report(Report),
    /// The plane's counters, about once a second.
    Tally(&'a Tally),
    /// Overlay ping; the answer is `Note::Pong` with the same id, no answer is silence. A payload that is too long is not sent: it is counted
    /// (`Drop::Control`), and `Note::Refused` names the limit.
    Ping {
        /// To whom.
        peer: PeerId,
        /// Comes back with the answer.
        id: u32,
        /// At most 1,000 bytes ([`CONTROL_PIECE_MAX_LEN`](crate::wire::CONTROL_PIECE_MAX_LEN), protocol 7.9).
        payload: Vec<u8>,
    },
    /// Who may be a member from now on: as `NodeConfig::members` and `NodeConfig::revoked`.
    Members {
        /// When not empty, the network is closed to these.
        members: Vec<Member>,
        /// No members, whatever else is said of them.
        revoked: Vec<PeerId>,
    },
    /// An identity will follow ours at the next start: tell the others (protocol 2.8).
    Succeed(Statement),
    /// How patient it is from now on; what is under way ends as it began.
    Tune(Tuning),
    /// Leave: tell all peers and relays; `Note::Left` follows.
    Leave,
}

/// Where a `Dial` goes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Target {
    /// A relay of the join token.
    Relay {
        /// Its place in the token.
        index: usize,
        /// `wss://host[:port]`.
        url: String,
        /// Its identity, once known. Another ML-DSA-87 certificate ends the connection; a foreign certificate is reported.
        pin: Option<PeerId>,
    },
    /// A peer's direct listener.
    Direct {
        /// Its address.
        address: SocketAddr,
        /// Its identity: any other certificate ends the connection.
        pin: PeerId,
    },
    /// A peer that dials us at the same time (TCP simultaneous open, RFC 9293 3.5): it may never answer. A refusal is told at once, since the
    /// dial is made again.
    Punch {
        /// Its address, as a relay sees it.
        address: SocketAddr,
        /// Where the dial comes from: our end of a connection with a relay.
        from: SocketAddr,
        /// Its identity; looked at by the client of TLS alone.
        pin: PeerId,
        /// Both ends have dialled: what this one is in TLS and the upgrade.
        role: TlsRole,
    },
}

/// What an end is in TLS and in the upgrade to WebSocket.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TlsRole {
    /// It speaks first, and looks at the other's certificate.
    Client,
    /// It shows its certificate; `Opened` tells nothing of who the other is.
    Server,
}

/// What a peer's machine wants done.
#[expect(clippy::large_enum_variant, reason = "edits are rare and short-lived; a box each would cost more than it saves")]
pub enum Action {
    /// Open TCP, TLS 1.3 and WebSocket; answer with `Opened` or `Closed` within `timeout`.
    Dial {
        /// A fresh even number.
        conn: ConnId,
        /// Where to.
        target: Target,
        /// The whole of it.
        timeout: Duration,
    },
    /// End a connection or a dial; nothing more comes from it.
    Hangup {
        /// Which.
        conn: ConnId,
    },
    /// One WebSocket binary message, behind what waits already; or, in a flow, one datagram.
    Send {
        /// Which connection.
        conn: ConnId,
        /// The message.
        bytes: Vec<u8>,
    },
    /// Open one UDP socket a family, on the ports of the configuration; answer with `Sockets`. Ordered once.
    Sockets,
    /// Datagrams to and from `remote` are the messages of connection `conn` from now on, until `Hangup`. A flow has no `Opened` and no
    /// `Closed`. An address has one flow at most in the family's socket, beside those with sockets of their own.
    Flow {
        /// A fresh number with [`ConnId::is_flow`].
        conn: ConnId,
        /// The other end.
        remote: SocketAddr,
        /// Through a socket of its own, on a port by chance, which `Hangup` closes. What comes there from elsewhere is dropped. If there
        /// can be none, nothing comes and what is sent is lost.
        is_own: bool,
    },
    /// One datagram to an address that need not be a flow's; may be dropped.
    Datagram {
        /// Where to.
        remote: SocketAddr,
        /// The datagram.
        bytes: Vec<u8>,
    },
    /// Run the job and bring back `Computed`.
    Compute(Job),
    /// Apply to the plane, in order with `Send`.
    Edit(Edit),
    /// Open or close the direct listener; answer with `Listening`.
    Listen(bool),
    /// Keep for the next run: this overlay address belongs to this peer.
    Remember {
        /// The address.
        address: IpAddr,
        /// Its holder.
        peer: PeerId,
    },
    /// Keep for the next run: one identity follows another, in the place of what was kept of the old one before.
    Succeeded(Succession),
    /// Tell people.
    Note(Note),
}

/// Facts for people: logs, metrics, status.
#[derive(Clone, Debug, PartialEq)]
pub enum Note {
    /// A relay is dialled.
    RelayConnecting {
        /// Its place in the token.
        index: usize,
    },
    /// A relay has let us in.
    RelayConnected {
        /// Its place in the token.
        index: usize,
        /// Its identity.
        id: PeerId,
        /// Our address as it sees it.
        observed: SocketAddr,
    },
    /// A relay is gone or did not answer.
    RelayLost {
        /// Its place in the token.
        index: usize,
        /// Why.
        why: String,
        /// When it is tried again.
        retry_in: Duration,
    },
    /// A session with a peer stands.
    PeerConnected {
        /// Who.
        peer: PeerId,
        /// From the first message to the confirmation.
        handshake: Duration,
        /// The suite.
        suite: &'static str,
    },
    /// A peer is not reachable any more.
    PeerLost {
        /// Who.
        peer: PeerId,
        /// Why.
        why: &'static str,
    },
    /// A direct path is proven.
    PathValidated {
        /// To whom.
        peer: PeerId,
        /// Which path.
        path: PathId,
        /// From the first re-handshake message to the proof.
        rehandshake: Duration,
        /// Round trip, where this end asked.
        rtt: Option<Duration>,
    },
    /// Traffic to a peer has moved to a better path.
    Migrated {
        /// To whom.
        peer: PeerId,
        /// The path before; `None`: it was gone, and nothing took its place until now.
        from: Option<PathLabel>,
        /// The new path.
        to: PathLabel,
        /// From the decision to go direct to the first frame on the new path.
        took: Duration,
    },
    /// An attempt at a direct path has failed.
    MigrationFailed {
        /// To whom.
        peer: PeerId,
        /// Why.
        why: String,
    },
    /// A direct path died, and traffic to a peer goes another way: back over the relay, or over another direct path where no relay is.
    FellBack {
        /// To whom.
        peer: PeerId,
        /// The path it takes now.
        to: PathLabel,
        /// Why.
        why: &'static str,
        /// How long data had been unanswered on the dead path; zero when its end was noticed at once.
        silent: Duration,
    },
    /// A relay has said that it goes away: whoever can takes another one.
    RelayGoing {
        /// Which relay of the token.
        index: usize,
        /// At the latest.
        within: Duration,
    },
    /// Another relay carries what goes to a peer over relays.
    Rerouted {
        /// To whom.
        peer: PeerId,
        /// The relay before: which of the token.
        from: usize,
        /// The relay now.
        to: usize,
        /// Why.
        why: &'static str,
    },
    /// A direct path was tried again after it had failed.
    Retry {
        /// To whom.
        peer: PeerId,
        /// Whether it stands now.
        success: bool,
    },
    /// An attack or a misconfiguration worth a log line.
    Refused {
        /// Who is said to have done it.
        who: Option<PeerId>,
        /// What was refused.
        what: String,
    },
    /// A peer announced an overlay address that it does not get.
    AddressRefused {
        /// Who.
        peer: PeerId,
        /// Which.
        address: IpAddr,
        /// Why.
        why: &'static str,
    },
    /// The answer to an overlay ping.
    Pong {
        /// Of the ping.
        id: u32,
        /// Who answered.
        peer: PeerId,
        /// Round trip.
        rtt: Duration,
        /// The path on which the ping arrived there.
        out: PathLabel,
        /// The path on which the answer came.
        back: PathLabel,
    },
    /// One identity follows another; both have signed that.
    Succeeded {
        /// Who is followed.
        old: PeerId,
        /// Who follows.
        new: PeerId,
    },
    /// Everybody was told that we leave.
    Left,
}
