//! What is known of a direct path.
use super::{ConnId, Direct, Duration, Instant, PathId, PathLabel, SocketAddr, State, Via, label_of};

impl Direct {
    pub(in crate::link) fn path(&self) -> PathId {
        self.path
    }

    pub(in crate::link) fn conn(&self) -> ConnId {
        self.conn
    }

    pub(in crate::link) fn remote(&self) -> SocketAddr {
        self.remote
    }

    pub(in crate::link) fn is_usable(&self) -> bool {
        matches!(self.state, State::Usable { .. })
    }

    /// Whether it is proven by small messages alone.
    pub(in crate::link) fn is_sizing(&self) -> bool {
        matches!(self.state, State::Sizing { .. })
    }

    pub(in crate::link) fn is_proving(&self) -> bool {
        !self.is_usable()
    }

    /// Whether a relay passes its datagrams on: no direct path, but one like it (protocol 8.8).
    pub(in crate::link) fn is_detour(&self) -> bool {
        self.conn.is_passed_on()
    }

    /// Whether it carries frames straight to the peer.
    pub(in crate::link) fn is_straight(&self) -> bool {
        self.is_usable() && !self.is_detour()
    }

    /// Whether it leads over UDP.
    pub(in crate::link) fn is_datagrams(&self) -> bool {
        self.conn.is_flow()
    }

    pub(in crate::link) fn label(&self) -> PathLabel {
        label_of(self.via())
    }

    /// Whether the plane opens what comes on it: the other end has proven itself.
    pub(super) fn is_in_plane(&self) -> bool {
        match self.state {
            State::Proving { .. } => false,
            // datagrams that verify are taken from any address, but only one that was shown to lead to the peer is answered (protocol 8.4)
            State::Asked { .. } => !self.is_datagrams(),
            State::Sizing { .. } | State::Usable { .. } => true,
        }
    }

    pub(in crate::link) fn is_suspect(&self) -> bool {
        self.doubt.is_some_and(|doubt| doubt.stalled_since.is_some())
    }

    /// Whether it has to show life.
    pub(in crate::link) fn is_in_doubt(&self) -> bool {
        self.doubt.is_some()
    }

    pub(in crate::link) fn usable_since(&self) -> Option<Instant> {
        match self.state {
            State::Usable { since } => Some(since),
            State::Proving { .. } | State::Asked { .. } | State::Sizing { .. } => None,
        }
    }

    pub(in crate::link) fn first_at(&self) -> Instant {
        self.first_at
    }

    /// How long data went unanswered on it; zero when its end was noticed at once.
    pub(in crate::link) fn silent(&self, now: Instant) -> Duration {
        self.doubt.and_then(|doubt| doubt.stalled_since).map_or(Duration::ZERO, |since| now.since(since))
    }

    pub(in crate::link) fn rtt(&self) -> Option<Duration> {
        self.rtt.smoothed()
    }

    /// Bytes of the longest sealed frame that goes there; None = any.
    pub(in crate::link) fn budget(&self) -> Option<usize> {
        (self.is_datagrams() && self.is_usable()).then_some(self.size)
    }

    pub(in crate::link) fn via(&self) -> Via {
        Via { conn: self.conn, handle: None }
    }

    /// An authentic frame came on it: received data counts as life (protocol 7.5).
    pub(in crate::link) fn heard(&mut self, at: Instant) {
        self.heard_at = self.heard_at.max(at);
        // what was heard before the doubt began says nothing against it, and may be told later
        if self.doubt.is_some_and(|doubt| doubt.stalled_since.is_none() && !doubt.of_size && at > doubt.since) {
            self.doubt = None;
        }
    }
}
