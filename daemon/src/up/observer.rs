//! Listens to what the node tells: durations for metrics, what happened to each peer, answers to pings. (The runtime writes the log.)
use crate::{explain::Happened, metrics::Metrics, status::label};
use shadowmesh_core::{
    event::Note,
    id::PeerId,
    status::SHARED_IDENTITY,
    time::{Duration, Instant},
    wire::PathLabel,
};
use std::collections::{BTreeMap, VecDeque};

/// Events kept for one peer: a few rounds of falling back and retrying.
const MAX_EVENTS: usize = 24;
/// Peers of which events are kept.
const MAX_PEERS: usize = 4096;
/// Pings under way at once.
const MAX_PINGS: usize = 1024;

/// The answer to a ping.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Pong {
    /// There and back.
    pub(crate) rtt: Duration,
    /// The path out.
    pub(crate) out: PathLabel,
    /// The path back.
    pub(crate) back: PathLabel,
}

/// What was told so far.
#[derive(Debug)]
pub(crate) struct Observer {
    /// Durations for `/metrics`.
    pub(crate) metrics: Metrics,
    /// Since when each relay is not connected.
    pub(crate) missed_relays: BTreeMap<usize, Instant>,
    /// When a relay last said that another machine has our identity.
    pub(crate) shared_identity_at: Option<Instant>,
    /// A relay or a peer has been connected.
    pub(crate) been_ready: bool,
    events: BTreeMap<PeerId, VecDeque<(Instant, &'static str, String)>>,
    pings: BTreeMap<u32, flume::Sender<Pong>>,
    next_ping: u32,
    /// Who waits for something to happen: the receiver of each wakes when its sender is dropped.
    waiting: Vec<flume::Sender<()>>,
}

impl Observer {
    /// Nothing told yet.
    pub(crate) fn new() -> Self {
        Self {
            metrics: Metrics::new(),
            missed_relays: BTreeMap::new(),
            shared_identity_at: None,
            been_ready: false,
            events: BTreeMap::new(),
            pings: BTreeMap::new(),
            next_ping: 1,
            waiting: Vec::new(),
        }
    }

    /// Something whose end is the next note.
    pub(crate) fn next_note(&mut self) -> flume::Receiver<()> {
        let (sender, receiver) = flume::bounded(0);
        self.waiting.retain(|sender| !sender.is_disconnected());
        self.waiting.push(sender);
        receiver
    }

    /// Takes one note.
    pub(crate) fn note(&mut self, at: Instant, note: &Note) {
        self.waiting.clear();
        self.metrics.note(note);
        match note {
            Note::RelayConnected { index, .. } => {
                self.been_ready = true;
                self.missed_relays.remove(index);
            }
            Note::RelayConnecting { index } => {
                self.missed_relays.entry(*index).or_insert(at);
            }
            Note::RelayLost { index, why, .. } => {
                self.missed_relays.entry(*index).or_insert(at);
                if why.contains(SHARED_IDENTITY) {
                    self.shared_identity_at = Some(at);
                }
            }
            Note::PeerConnected { peer, handshake, .. } => {
                self.been_ready = true;
                self.remember(at, *peer, "connected", format!("a session was made, handshake {:.1} ms", millis(*handshake)));
            }
            Note::PeerLost { peer, why } => self.remember(at, *peer, "lost", format!("the peer was lost ({why})")),
            Note::PathValidated { peer, rehandshake, .. } => {
                self.remember(at, *peer, "validated", format!("a path was proven, re-handshake {:.2} ms", millis(*rehandshake)));
            }
            Note::Migrated { peer, to, took, .. } => {
                let (kind, transport) = label(*to);
                self.remember(at, *peer, "migrated", format!("traffic moved to {kind}/{transport} in {:.1} ms", millis(*took)));
            }
            Note::MigrationFailed { peer, why } => {
                self.remember(at, *peer, "migration_failed", format!("an attempt at a direct path failed ({why})"));
            }
            Note::FellBack { peer, to, why, silent } => {
                let (kind, transport) = label(*to);
                let what =
                    format!("back to {kind}/{transport}: the path before was lost after {:.0} ms of silence ({why})", millis(*silent));
                self.remember(at, *peer, "fell_back", what);
            }
            Note::Rerouted { peer, from, to, why } => {
                let what = format!("relay {} of the token carries instead of relay {} ({why})", to + 1, from + 1);
                self.remember(at, *peer, "rerouted", what);
            }
            Note::Retry { peer, success: true } => {
                self.remember(at, *peer, "retry_succeeded", "a retry of the direct path succeeded".to_owned());
            }
            Note::Retry { peer, success: false } => {
                self.remember(at, *peer, "retry_failed", "a retry of the direct path failed".to_owned());
            }
            Note::AddressRefused { peer, address, why } => {
                self.remember(at, *peer, "address_refused", format!("its address {address} was refused ({why})"));
            }
            Note::Pong { id, rtt, out, back, .. } => {
                if let Some(waiting) = self.pings.remove(id) {
                    // Whoever asked may have given up by now.
                    let _ = waiting.try_send(Pong { rtt: *rtt, out: *out, back: *back });
                }
            }
            Note::Succeeded { old, new } => {
                self.remember(at, *old, "followed", format!("{} follows it", new.short()));
                self.remember(at, *new, "follows", format!("it follows {}", old.short()));
            }
            Note::RelayGoing { .. } | Note::Refused { .. } | Note::Left => {}
        }
    }

    /// A new ping's id, and where its answer will come. None: too many are under way.
    pub(crate) fn expect_pong(&mut self) -> Option<(u32, flume::Receiver<Pong>)> {
        if self.pings.len() >= MAX_PINGS {
            return None;
        }
        let id = self.next_ping;
        self.next_ping = self.next_ping.wrapping_add(1);
        let (answer, answers) = flume::bounded(1);
        self.pings.insert(id, answer);
        Some((id, answers))
    }

    /// Nobody waits for this ping any more.
    pub(crate) fn forget_ping(&mut self, id: u32) {
        self.pings.remove(&id);
    }

    /// What happened to a peer, newest first.
    pub(crate) fn history(&self, now: Instant, peer: PeerId) -> Vec<Happened> {
        let events = self.events.get(&peer).into_iter().flatten().rev();
        events
            .map(|(at, kind, what)| Happened {
                ago_s: (now.since(*at).as_secs_f64() * 10.0).round() / 10.0,
                kind: (*kind).to_owned(),
                what: what.clone(),
            })
            .collect()
    }

    fn remember(&mut self, at: Instant, peer: PeerId, kind: &'static str, what: String) {
        if self.events.len() >= MAX_PEERS && !self.events.contains_key(&peer) {
            return;
        }
        let events = self.events.entry(peer).or_default();
        if events.len() >= MAX_EVENTS {
            events.pop_front();
        }
        events.push_back((at, kind, what));
    }
}

fn millis(span: Duration) -> f64 {
    span.as_secs_f64() * 1e3
}

#[cfg(test)]
mod tests {
    use super::*;

    const PEER: PeerId = PeerId([1; 32]);

    #[test]
    fn an_answer_reaches_only_who_asked() {
        let mut observer = Observer::new();
        let (first, first_answers) = observer.expect_pong().expect("room");
        let (second, second_answers) = observer.expect_pong().expect("room");
        assert_ne!(first, second);
        let pong = |id| Note::Pong { id, peer: PEER, rtt: Duration::from_millis(3), out: PathLabel::RelayWss, back: PathLabel::DirectWss };
        observer.note(Instant::ZERO, &pong(second));
        assert_eq!(second_answers.try_recv().expect("answered").rtt, Duration::from_millis(3));
        assert!(first_answers.try_recv().is_err());
        observer.forget_ping(first);
        observer.note(Instant::ZERO, &pong(first));
        assert!(first_answers.try_recv().is_err());
    }

    #[test]
    fn a_relay_is_missed_from_the_first_attempt_until_it_is_there() {
        let mut observer = Observer::new();
        let at = Instant::from_millis;
        let lost = |why: &str| Note::RelayLost { index: 0, why: why.to_owned(), retry_in: Duration::from_secs(1) };
        observer.note(at(1), &Note::RelayConnecting { index: 0 });
        observer.note(at(2), &lost("refused"));
        assert_eq!((observer.missed_relays.get(&0), observer.shared_identity_at), (Some(&at(1)), None));
        observer.note(at(3), &Note::RelayConnected { index: 0, id: PEER, observed: ([192, 0, 2, 1], 1).into() });
        assert!(observer.missed_relays.is_empty());
        observer.note(at(4), &lost(&format!("closed by the relay: {SHARED_IDENTITY}")));
        assert_eq!((observer.missed_relays.get(&0), observer.shared_identity_at), (Some(&at(4)), Some(at(4))));
    }

    #[test]
    fn history_is_bounded_and_newest_first() {
        let mut observer = Observer::new();
        for step in 0..100 {
            observer.note(Instant::from_millis(step * 1000), &Note::Retry { peer: PEER, success: step == 99 });
        }
        let history = observer.history(Instant::from_millis(100_000), PEER);
        assert_eq!(history.len(), MAX_EVENTS);
        assert_eq!((history[0].ago_s, history[0].kind.as_str()), (1.0, "retry_succeeded"));
        assert_eq!(history[1].kind, "retry_failed");
    }
}
