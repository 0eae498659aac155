//! Why a relay dropped or refused something: one name and one counter each.

macro_rules! reasons {
    ($($(#[doc = $doc:literal])+ $variant:ident = $name:literal,)+) => {
        /// A reason, counted under its name.
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub(super) enum Reason {
            $($(#[doc = $doc])+ $variant,)+
        }

        const NAMES: &[&str] = &[$($name),+];
    };
}

reasons! {
    // Admission, by source.
    /// Too many connections without a proven identity, in all.
    PreauthTotal = "preauth_total",
    /// Too many of them from one source.
    PreauthPerSource = "preauth_per_source",
    /// One source connects too often.
    JoinRate = "join_rate",
    /// Too many sources are remembered.
    SourceTable = "source_table",
    /// A source from which this relay takes nobody.
    SourceDenied = "source_denied",
    /// A source that used up its new connections and proved nothing.
    SourceRefused = "source_refused",
    /// One more connection would not fit into the relay's memory.
    Memory = "memory",
    /// The relay goes away.
    Leaving = "leaving",
    /// A trusted proxy that did not say from where its connection comes, or not so that it can be read, or not in time.
    ProxyHeader = "proxy_header",
    /// Somebody says from where a connection comes who is not trusted to.
    ProxyUntrusted = "proxy_untrusted",
    /// As many clients as the relay takes.
    ClientsFull = "clients_full",
    // Before an identity is proven.
    /// Not established in time.
    PreauthTime = "preauth_time",
    /// More bytes than a handshake needs.
    PreauthBytes = "preauth_bytes",
    /// Too many handshakes under way.
    HalfOpenTotal = "half_open_total",
    /// A HELLO whose mac1 is wrong or that is not one.
    BadHello = "bad_hello",
    /// A second HELLO that is not the first, or once too often the first.
    RepeatedHello = "repeated_hello",
    /// A RESPONSE that does not prove an identity on this connection.
    BadResponse = "bad_response",
    /// An identity that this relay does not take.
    PeerDenied = "peer_denied",
    /// An access token is wanted, and none or another was shown.
    AccessDenied = "access_denied",
    /// A RESPONSE that names no network.
    NoNetwork = "no_network",
    /// A message that has no place in this state.
    UnexpectedMessage = "unexpected_message",
    // Established clients.
    /// A sealed frame that is not for this session, or whose tag is wrong.
    BadFrame = "bad_frame",
    /// A counter that was there before.
    ReplayedFrame = "replayed_frame",
    /// A sealed message that follows no layout, or that only a relay sends.
    BadControl = "bad_control",
    /// A client sends more control messages than it may.
    ControlRate = "control_rate",
    /// A datagram that is no BIND, and none to be passed on.
    MalformedDatagram = "malformed_datagram",
    /// A BIND for a session that no client has.
    UnknownSession = "unknown_session",
    /// A BIND whose mac is wrong.
    ForgedBind = "forged_bind",
    /// A client asks for its UDP address more often than it may.
    BindRate = "bind_rate",
    /// A client shows a ticket that is not good, or not any more, for its UDP address.
    StaleTicket = "stale_ticket",
    /// Nothing was heard for three keepalives.
    Silent = "silent",
    /// The session reached its age or its frames.
    SessionOld = "session_old",
    // The forwarder.
    /// A message longer than a control message can be.
    ControlTooBig = "control_too_big",
    /// A record whose header or length is wrong.
    MalformedRecord = "malformed_record",
    /// A record with a payload longer than the limit.
    FrameTooBig = "frame_too_big",
    /// Nobody with this handle is online in the sender's network.
    UnknownHandle = "unknown_handle",
    /// The destination's queue is full; dropped from the source that has most in it.
    QueueFull = "queue_full",
    /// All queues together are full.
    QueueMemory = "queue_memory",
    /// The destination's queue of urgent messages is full.
    UrgentFull = "urgent_full",
    /// A client starts more peer handshakes than it may.
    HandshakeRate = "handshake_rate",
    /// A client sends more records than it may.
    ClientFrameRate = "client_frame_rate",
    /// A client sends more bytes than it may.
    ClientByteRate = "client_byte_rate",
    /// All clients together send more records than the relay may take, and this one more than its share.
    RelayFrameRate = "relay_frame_rate",
    /// All clients together send more bytes than the relay may take, and this one more than its share.
    RelayByteRate = "relay_byte_rate",
    /// Waited for a client that went away.
    DestinationGone = "destination_gone",
    /// A datagram from an address that is no client's.
    UnknownSource = "unknown_source",
    /// A datagram with a receiver for which its client named nobody, or somebody who is not there by UDP.
    NoRoute = "no_route",
    /// A datagram that was to be passed on and that the network did not take.
    DatagramLost = "datagram_lost",
    /// A client names more receivers than it may.
    RouteTable = "route_table",
    /// A consumer with a full queue that took nothing.
    Stalled = "stalled",
    /// A consumer that does not take its control messages.
    ControlQueueFull = "control_queue_full",
}

impl Reason {
    /// The name in status and metrics.
    pub(super) fn name(self) -> &'static str {
        NAMES[self as usize]
    }
}

/// A counter for each reason.
#[derive(Clone, Debug)]
pub(super) struct Drops {
    counts: [u64; NAMES.len()],
}

impl Default for Drops {
    fn default() -> Self {
        Self { counts: [0; NAMES.len()] }
    }
}

impl Drops {
    /// Counts one.
    pub(super) fn count(&mut self, reason: Reason) {
        self.add(reason, 1);
    }

    /// Counts several.
    pub(super) fn add(&mut self, reason: Reason, count: u64) {
        self.counts[reason as usize] += count;
    }

    /// Name and count of every reason, in the order above.
    pub(super) fn list(&self) -> Vec<(&'static str, u64)> {
        NAMES.iter().copied().zip(self.counts).collect()
    }
}
