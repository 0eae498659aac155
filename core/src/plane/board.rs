//! What the control room and the data plane tell each other: `Edit` in, `Report` and `Tally` out; and the paths of one peer.
use super::{PlaneBytes, Rtt, Slabs, Via, queue::FairQueue, session::Session, shard::Narrows};
use crate::{
    drops::Drops,
    id::{ConnId, LinkId, PathId},
    session::{EpochKeys, SessionId},
    time::{Duration, Instant},
    wire::PATH_REQUEST_LEN,
};
use core::net::{IpAddr, SocketAddr};
use std::collections::BTreeMap;

/// A session as the plane needs it.
#[derive(Clone)]
pub struct Install {
    /// Its id, the same at both ends.
    pub session: SessionId,
    /// Our index: stands in the frames that come.
    pub local: u32,
    /// The other end's index: stands in the frames that go.
    pub remote: u32,
    /// Keys of its first epoch.
    pub keys: EpochKeys,
    /// The path it begins on.
    pub main: PathId,
    /// Its data lanes, at least 1 (protocol 4.3).
    pub lanes: u8,
    /// Counts the memory in the rings of all of them.
    pub slabs: Slabs,
}

/// What the control room orders. Drivers pass it on unread, to each shard.
#[derive(Clone)]
pub enum Edit {
    /// A connection leads to a relay that has let us in, or does so no longer: a frame of any peer may come over it.
    Relay {
        /// Which connection.
        conn: ConnId,
        /// Whether it stands.
        stands: bool,
    },
    /// A peer and its addresses, new or changed.
    Peer {
        /// Which.
        link: LinkId,
        /// Overlay addresses that are its own.
        addresses: Vec<IpAddr>,
        /// The MAC derived from its `PeerId`.
        mac: [u8; 6],
    },
    /// A peer has left for good.
    Forget {
        /// Which.
        link: LinkId,
    },
    /// A new session opens from now on; it seals when it is promoted.
    Install {
        /// Of whom.
        link: LinkId,
        /// The session.
        install: Box<Install>,
    },
    /// An installed session takes over: both ends have confirmed it (protocol 3.10).
    Promote {
        /// Of whom.
        link: LinkId,
        /// Which session, by our index.
        local: u32,
    },
    /// Keys of a further epoch (protocol 4.5).
    Epoch {
        /// Of whom.
        link: LinkId,
        /// Which session, by our index.
        local: u32,
        /// The keys.
        keys: EpochKeys,
        /// Seal with them from now on; otherwise only open.
        seal: bool,
    },
    /// A path is there, or has changed its connection: frames that come on it are opened. Ours go there when another order names it.
    Path {
        /// Of whom.
        link: LinkId,
        /// Which path.
        path: PathId,
        /// Where its frames go.
        via: Via,
        /// Frames that may be on their way there; None = as many as the ring holds.
        window: Option<u64>,
        /// Round trip measured so far.
        rtt: Option<Duration>,
        /// Bytes of the longest sealed frame that it carries; None = any that there is, or nothing of ours is to go there yet.
        budget: Option<usize>,
    },
    /// A path is gone.
    Unpath {
        /// Of whom.
        link: LinkId,
        /// Which path.
        path: PathId,
    },
    /// The main path is suspect: copies go the rescue path too.
    Hedge {
        /// Of whom.
        link: LinkId,
        /// Where the copies go.
        rescue: PathId,
    },
    /// The suspicion was wrong.
    Calm {
        /// Of whom.
        link: LinkId,
    },
    /// Move to a better path; the old one lives.
    Switch {
        /// Of whom.
        link: LinkId,
        /// The better path.
        to: PathId,
    },
    /// Move away from a dead path and send again what may be lost.
    FallBack {
        /// Of whom.
        link: LinkId,
        /// The path to go on with.
        to: PathId,
    },
    /// End a session at once.
    Retire {
        /// Of whom.
        link: LinkId,
        /// Which session, by our index.
        local: u32,
    },
}

impl Edit {
    /// The link it is about; None: all.
    pub(super) fn link(&self) -> Option<LinkId> {
        match self {
            Self::Relay { .. } => None,
            Self::Peer { link, .. }
            | Self::Forget { link }
            | Self::Install { link, .. }
            | Self::Promote { link, .. }
            | Self::Epoch { link, .. }
            | Self::Path { link, .. }
            | Self::Unpath { link, .. }
            | Self::Hedge { link, .. }
            | Self::Calm { link }
            | Self::Switch { link, .. }
            | Self::FallBack { link, .. }
            | Self::Retire { link, .. } => Some(*link),
        }
    }
}

/// What the plane noticed. Drivers pass it on unread.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Report {
    pub(crate) link: LinkId,
    pub(crate) what: Noticed,
}

/// The kinds of report.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Noticed {
    /// Authentic frames of a peer with a path of datagrams came from an address that is no path's.
    Roamed { remote: SocketAddr },
    /// Data is out and no receipt came for a probe timeout.
    Stalled { path: PathId, pto: Duration },
    /// A packet waits for a peer without a session.
    Wanted,
}

impl Report {
    pub(super) fn stalled(link: LinkId, path: PathId, pto: Duration) -> Self {
        Self { link, what: Noticed::Stalled { path, pto } }
    }

    pub(super) fn roamed(link: LinkId, remote: SocketAddr) -> Self {
        Self { link, what: Noticed::Roamed { remote } }
    }

    pub(super) fn wanted(link: LinkId) -> Self {
        Self { link, what: Noticed::Wanted }
    }
}

/// Counters of the whole plane at one moment.
#[derive(Clone, Debug, Default)]
pub struct Tally {
    /// One entry a link.
    pub links: Vec<LinkTally>,
    pub(crate) drops: Drops,
    pub(crate) bytes: PlaneBytes,
}

/// Counters of one link since it was made.
#[derive(Clone, Debug)]
pub struct LinkTally {
    /// Which link.
    pub link: LinkId,
    /// Frames and bytes of the overlay sent and received.
    pub tx_frames: u64,
    /// Bytes of overlay packets sealed.
    pub tx_bytes: u64,
    /// Frames delivered.
    pub rx_frames: u64,
    /// Bytes of overlay packets opened.
    pub rx_bytes: u64,
    /// Frames given up, either way.
    pub lost: u64,
    /// Those of them that this end sent.
    pub tx_lost: u64,
    /// Copies dropped.
    pub duplicate: u64,
    /// Delivered out of order.
    pub reordered: u64,
    /// Sent more than once.
    pub resent: u64,
    /// Frames sealed and opened in the current session: decides on rekeying.
    pub session_frames: u64,
    /// The path that new frames take.
    pub main: Option<PathId>,
    /// One entry a path.
    pub paths: Vec<PathTally>,
    /// Packets that wait before sealing.
    pub queued: usize,
}

/// What the plane knows of one path.
#[derive(Clone, Copy, Debug)]
pub struct PathTally {
    /// Which path.
    pub path: PathId,
    /// When an authentic data frame came on it last.
    pub heard_at: Option<Instant>,
    /// Smoothed round-trip time from receipts.
    pub rtt: Option<Duration>,
}

#[derive(Debug)]
#[cfg_attr(test, derive(Clone, Hash))]
struct PathEntry {
    path: PathId,
    via: Via,
    window: Option<u64>,
    budget: Option<usize>,
    rtt: Rtt,
    heard_at: Option<Instant>,
}

/// The usable paths of one peer: at most a handful, so a list.
#[derive(Debug, Default)]
#[cfg_attr(test, derive(Clone, Hash))]
pub(crate) struct Paths(Vec<PathEntry>);

impl Paths {
    /// True: the path leads over another connection than before.
    pub(super) fn put(&mut self, path: PathId, via: Via, window: Option<u64>, rtt: Option<Duration>, budget: Option<usize>) -> bool {
        let before = self.via(path);
        if let Some(entry) = self.0.iter_mut().find(|entry| entry.path == path) {
            let other_relay = entry.via.conn != via.conn && via.handle.is_some();
            (entry.via, entry.window, entry.budget) = (via, window, budget);
            if other_relay {
                // what was measured over the one says nothing of the other
                entry.rtt = rtt.map(Rtt::from_sample).unwrap_or_default();
            } else if let Some(sample) = rtt {
                entry.rtt.sample(sample);
            }
        } else {
            let rtt = rtt.map(Rtt::from_sample).unwrap_or_default();
            self.0.push(PathEntry { path, via, window, budget, rtt, heard_at: None });
        }
        before != Some(via)
    }

    pub(super) fn remove(&mut self, path: PathId) {
        self.0.retain(|entry| entry.path != path);
    }

    fn get(&self, path: PathId) -> Option<&PathEntry> {
        self.0.iter().find(|entry| entry.path == path)
    }

    pub(super) fn via(&self, path: PathId) -> Option<Via> {
        self.get(path).map(|entry| entry.via)
    }

    pub(super) fn window(&self, path: PathId) -> Option<u64> {
        self.get(path).and_then(|entry| entry.window)
    }

    /// Bytes that a sealed frame may have, so that each path that lives can carry it; None = any number.
    pub(super) fn budget(&self) -> Option<usize> {
        self.0.iter().filter_map(|entry| entry.budget).min()
    }

    /// Bytes that a sealed frame may have on this path; None = any number.
    pub(super) fn most(&self, path: PathId) -> Option<usize> {
        self.get(path).and_then(|entry| entry.budget)
    }

    /// Whether this path carries sealed frames of so many bytes, once it is there.
    pub(super) fn carries(&self, path: PathId, len: usize) -> bool {
        self.most(path).is_none_or(|most| len <= most)
    }

    pub(super) fn pto(&self, path: PathId) -> Duration {
        self.get(path).map(|entry| entry.rtt).unwrap_or_default().pto()
    }

    pub(super) fn sample(&mut self, path: PathId, sample: Duration) {
        if let Some(entry) = self.0.iter_mut().find(|entry| entry.path == path) {
            entry.rtt.sample(sample);
        }
    }

    /// A path of datagrams: this one, or the first.
    pub(super) fn datagrams(&self, path: PathId) -> Option<Via> {
        let all = self.0.iter().filter(|entry| entry.via.conn.is_flow());
        all.min_by_key(|entry| (entry.path != path, entry.path)).map(|entry| entry.via)
    }

    /// Whether a path leads there.
    pub(super) fn has(&self, via: Via) -> bool {
        self.0.iter().any(|entry| entry.via == via)
    }

    /// The path that `via` belongs to.
    pub(super) fn of(&self, via: Via) -> PathId {
        self.0.iter().find(|entry| entry.via == via).map_or(PathId::RELAY, |entry| entry.path)
    }

    /// The path on which a frame came; a relay path also when its handle is not known yet.
    pub(super) fn heard(&mut self, now: Instant, via: Via) -> PathId {
        match self.0.iter_mut().find(|entry| entry.via == via) {
            Some(entry) => {
                entry.heard_at = Some(now);
                entry.path
            }
            None => PathId::RELAY,
        }
    }
}

impl Paths {
    fn tally(&self) -> Vec<PathTally> {
        self.0.iter().map(|entry| PathTally { path: entry.path, heard_at: entry.heard_at, rtt: entry.rtt.smoothed() }).collect()
    }
}

/// All about one peer but its sessions.
#[derive(Default)]
pub(super) struct Peer {
    pub(super) paths: Paths,
    pub(super) queue: FairQueue,
    /// Our index of the session that seals.
    pub(super) current: Option<u32>,
    pub(super) wanted_at: Option<Instant>,
    pub(super) strays: Strays,
    /// Sessions that have lanes in other shards alone.
    pub(super) narrows: Narrows,
    /// Counters of sessions that have ended.
    before: Counters,
}

/// Authentic frames from an address that is no path's.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Strays {
    from: Option<SocketAddr>,
    /// Bytes since the last word of it.
    bytes: usize,
    told_at: Option<Instant>,
}

impl Strays {
    /// Word of an address is repeated at most so often.
    const REPEAT: Duration = Duration::from_millis(100);

    /// A frame came. True: the control room should hear of it, and may ask there with as many bytes as came.
    pub(crate) fn came(&mut self, now: Instant, remote: SocketAddr, len: usize) -> bool {
        if self.from != Some(remote) {
            *self = Self { from: Some(remote), ..Self::default() };
        }
        self.bytes += len;
        let enough = self.bytes >= PATH_REQUEST_LEN && self.told_at.is_none_or(|at| at + Self::REPEAT <= now);
        if enough {
            (self.bytes, self.told_at) = (0, Some(now));
        }
        enough
    }
}

#[derive(Clone, Copy, Default)]
struct Counters {
    tx_frames: u64,
    tx_bytes: u64,
    rx_frames: u64,
    rx_bytes: u64,
    lost: u64,
    tx_lost: u64,
    duplicate: u64,
    reordered: u64,
    resent: u64,
}

impl Counters {
    fn add(&mut self, session: &Session) {
        let tx = session.tx.counters();
        let (rx_frames, rx_bytes, order) = session.rx.counters();
        self.tx_frames += tx.frames;
        self.tx_bytes += tx.bytes;
        self.rx_frames += rx_frames;
        self.rx_bytes += rx_bytes;
        self.lost += tx.lost + order.lost;
        self.tx_lost += tx.lost;
        self.duplicate += order.duplicate;
        self.reordered += order.reordered;
        self.resent += tx.resent;
    }
}

impl Peer {
    /// A peer without anything, whose packets wait here.
    pub(super) fn new(queue: FairQueue) -> Self {
        Self { queue, ..Self::default() }
    }

    pub(super) fn keep_counters(&mut self, session: &Session) {
        self.before.add(session);
    }

    pub(super) fn tally(&self, link: LinkId, sessions: &BTreeMap<u32, Session>) -> LinkTally {
        let mut sum = self.before;
        for session in sessions.values().filter(|session| session.link == link) {
            sum.add(session);
        }
        let current = self.current.and_then(|local| sessions.get(&local));
        let session_frames = current.map_or(0, |session| session.tx.counters().frames + session.rx.counters().0);
        let paths = self.paths.tally();
        LinkTally {
            link,
            tx_frames: sum.tx_frames,
            tx_bytes: sum.tx_bytes,
            rx_frames: sum.rx_frames,
            rx_bytes: sum.rx_bytes,
            lost: sum.lost,
            tx_lost: sum.tx_lost,
            duplicate: sum.duplicate,
            reordered: sum.reordered,
            resent: sum.resent,
            session_frames,
            main: current.map(|session| session.tx.main()),
            paths,
            queued: self.queue.len(),
        }
    }
}
