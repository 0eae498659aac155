//! The demo's story: which phases there are, what ends each, and what the peers told meanwhile.
//!
//! ```text
//!   handshake ─▶ relay ─▶ open the line ─▶ direct ─┬▶ silence ─▶ fallback ─▶ heal ─▶ direct again ─┐
//!                                                   │                                               │ cycles
//!                                                   └▶ reset ───▶ fallback ─▶ heal ─▶ direct again ◀┘
//! ```
use super::{forwarder::Line, picture::Picture, stage::Stage, traffic::Flow};
use crate::{failure::Failure, status};
use futures_lite::future;
use shadowmesh_core::{event::Note, id::PathId, wire::PathLabel};
use smol::Timer;
use std::{
    sync::Arc,
    time::{Duration, Instant},
};

/// Picture and conditions are looked at so often.
const TICK: Duration = Duration::from_millis(100);
/// A phase that has not happened by then will not happen.
const PATIENCE: Duration = Duration::from_secs(20);
/// The shortest time between two phases, so that each can be seen.
const LEAST_HOLD: Duration = Duration::from_millis(300);
/// The line is opened before the peers' first attempt gives up.
const MOST_RELAY: Duration = Duration::from_secs(3);
/// Peers change the path of their traffic a few times a minute at most (protocol 7.5), and a round of silence and reset takes four changes.
const ROUND_S: u64 = 60;

/// What one peer told.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Told {
    /// It has a session with the other.
    pub(crate) connected: bool,
    /// It sends on the direct path.
    pub(crate) direct: bool,
    migrations: u64,
    fallbacks: u64,
    retries: u64,
}

/// What happened so far.
#[derive(Clone, Debug, Default)]
pub(crate) struct Story {
    /// By peer.
    pub(crate) peers: [Told; 2],
    /// How the direct path is cut at the moment.
    pub(crate) cut: Option<&'static str>,
    /// The longest handshake.
    pub(crate) handshake: Duration,
    rehandshakes: Vec<Duration>,
    /// The longest move to the direct path, from its beginning or from the opening of the line, whichever was later.
    pub(crate) migration: Duration,
    /// The longest time from a cut to the first frame over the relay.
    pub(crate) fallback: Duration,
    /// The longest gap between frames around a move to the direct path.
    pub(crate) hand_over: Duration,
    /// The session's suite.
    pub(crate) suite: &'static str,
    /// When the line was opened last: an attempt that began before could not succeed.
    opened: Option<Instant>,
}

impl Story {
    /// Moves to the direct path that both directions made.
    pub(crate) fn migrations(&self) -> u64 {
        self.peers[0].migrations.min(self.peers[1].migrations)
    }

    /// Moves back to the relay that both directions made.
    pub(crate) fn fallbacks(&self) -> u64 {
        self.peers[0].fallbacks.min(self.peers[1].fallbacks)
    }

    /// Attempts that brought the direct path back, as the peer with more of them counts.
    pub(crate) fn retries(&self) -> u64 {
        self.peers[0].retries.max(self.peers[1].retries)
    }

    /// The median re-handshake.
    pub(crate) fn rehandshake(&self) -> Duration {
        let mut all = self.rehandshakes.clone();
        all.sort_unstable();
        all.get(all.len() / 2).copied().unwrap_or_default()
    }

    /// Takes a note of peer `who`; gives back a line for people where it is worth one.
    fn note(&mut self, who: usize, note: &Note) -> Option<String> {
        let told = &mut self.peers[who];
        match note {
            Note::PeerConnected { handshake, suite, .. } => {
                told.connected = true;
                self.handshake = self.handshake.max(*handshake);
                self.suite = suite;
                Some(format!("has a session after {:.1} ms: {suite}", super::summary::millis(*handshake)))
            }
            Note::PeerLost { why, .. } => {
                *told = Told { connected: false, direct: false, ..*told };
                Some(format!("lost the session: {why}"))
            }
            Note::PathValidated { path, rehandshake, .. } if *path != PathId::RELAY => {
                self.rehandshakes.push(*rehandshake);
                Some(format!("proved the direct path by a re-handshake in {} µs", rehandshake.as_micros()))
            }
            Note::Migrated { to: PathLabel::RelayWss, .. } => {
                told.direct = false;
                None
            }
            Note::Migrated { to, took, .. } => {
                told.direct = true;
                told.migrations += 1;
                let took = self.opened.map_or(*took, |opened| opened.elapsed().min(*took));
                self.migration = self.migration.max(took);
                let (kind, transport) = status::label(*to);
                Some(format!("moved to {kind}/{transport} in {:.1} ms", super::summary::millis(took)))
            }
            Note::MigrationFailed { why, .. } => Some(format!("found no direct path: {why}")),
            Note::FellBack { why, silent, .. } => {
                told.direct = false;
                told.fallbacks += 1;
                Some(format!("fell back to the relay after {} ms of silence: {why}", silent.as_millis()))
            }
            Note::Retry { success, .. } => {
                told.retries += u64::from(*success);
                Some(format!("{} the direct path again", if *success { "found" } else { "did not find" }))
            }
            Note::Rerouted { why, .. } => Some(format!("took another relay: {why}")),
            Note::RelayLost { why, .. } => Some(format!("lost the relay: {why}")),
            Note::Refused { what, .. } => Some(format!("refused: {what}")),
            Note::RelayConnected { .. } => Some("joined at the relay".to_owned()),
            Note::PathValidated { .. }
            | Note::RelayConnecting { .. }
            | Note::RelayGoing { .. }
            | Note::AddressRefused { .. }
            | Note::Pong { .. }
            | Note::Succeeded { .. }
            | Note::Left => None,
        }
    }
}

/// Plays the story.
pub(crate) struct Script<'a> {
    /// What it plays with.
    pub(crate) stage: &'a Stage,
    /// Both directions, from `a` first.
    pub(crate) flows: &'a [Arc<Flow>; 2],
    /// How it shows.
    pub(crate) picture: Picture,
    /// What happened.
    pub(crate) story: Story,
    started: Instant,
    length: Duration,
}

impl<'a> Script<'a> {
    /// At the beginning.
    pub(crate) fn new(stage: &'a Stage, flows: &'a [Arc<Flow>; 2], picture: Picture, seconds: u64) -> Self {
        let (story, started, length) = (Story::default(), Instant::now(), Duration::from_secs(seconds));
        Self { stage, flows, picture, story, started, length }
    }

    /// From the first handshake to the last frame.
    pub(crate) async fn play(&mut self) -> Result<(), Failure> {
        self.picture.title("post-quantum handshakes, with the relay and through it");
        self.wait("a session between the peers", |script| script.story.peers.iter().all(|peer| peer.connected)).await?;
        let [a, b] = &self.stage.actors;
        let thread = |error: std::io::Error| Failure::failed(format!("demo: no thread: {error}"));
        self.flows[0].send(a.into.clone()).map_err(thread)?;
        self.flows[1].send(b.into.clone()).map_err(thread)?;
        self.picture.title("traffic both ways over the relay");
        let begun = Instant::now();
        self.wait("traffic over the relay", |script| script.arrived_since(begun)).await?;
        self.hold_until(self.started + (self.length / 8).min(MOST_RELAY)).await;
        self.migrate("the direct path opens", 0.25).await?;
        let rounds = u32::try_from(self.length.as_secs() / ROUND_S).unwrap_or(u32::MAX).max(1);
        for round in 0..rounds {
            // The part of the time that is over, from 0.25 on.
            let at = |part: f64| 0.25 + 0.75 * (f64::from(round) + part) / f64::from(rounds);
            self.kill(Line::Silent, "the direct path goes silent", "silent", at(0.3)).await?;
            self.migrate("the direct path is healed", at(0.55)).await?;
            self.kill(Line::Reset, "the direct path is reset", "reset", at(0.7)).await?;
            self.migrate("the direct path is there again", at(1.0)).await?;
        }
        self.drain().await
    }

    /// Opens the line and waits until both directions use it; then holds until that part of the time is over.
    async fn migrate(&mut self, title: &str, part: f64) -> Result<(), Failure> {
        self.picture.title(title);
        self.mark();
        self.story.cut = None;
        self.story.opened = Some(Instant::now());
        self.stage.set_line(Line::Open);
        self.wait("both directions on the direct path", |script| script.story.peers.iter().all(|peer| peer.direct)).await?;
        let moved = Instant::now();
        self.wait("traffic over the direct path", |script| script.arrived_since(moved)).await?;
        self.hold_until(moved + LEAST_HOLD).await;
        self.story.hand_over = self.story.hand_over.max(self.longest_gap());
        self.hold_until(self.started + self.length.mul_f64(part)).await;
        Ok(())
    }

    /// Cuts the line and waits until both directions are back on the relay; then holds until that part of the time is over.
    async fn kill(&mut self, line: Line, title: &str, how: &'static str, part: f64) -> Result<(), Failure> {
        self.picture.title(title);
        let before = [self.story.peers[0].fallbacks, self.story.peers[1].fallbacks];
        self.mark();
        self.story.cut = Some(how);
        self.stage.set_line(line);
        self.wait("both directions back on the relay", |script| {
            script.story.peers.iter().zip(before).all(|(peer, before)| peer.fallbacks > before)
        })
        .await?;
        let back = Instant::now();
        self.wait("traffic over the relay again", |script| script.arrived_since(back)).await?;
        // The cut ended one direction's frames at once: the longest silence since then is the time to the first one over the relay.
        self.story.fallback = self.story.fallback.max(self.longest_gap());
        self.hold_until((back + LEAST_HOLD).max(self.started + self.length.mul_f64(part))).await;
        Ok(())
    }

    /// Stops sending and waits for what is under way.
    async fn drain(&mut self) -> Result<(), Failure> {
        self.picture.title("the last frames arrive");
        for flow in self.flows {
            flow.stop();
        }
        // What does not arrive is lost; the summary says so.
        let all = |script: &Self| script.flows.iter().all(|flow| flow.arrivals().delivered == flow.sent());
        let _ = self.pump(Instant::now() + LEAST_HOLD, |_| false).await;
        let _ = self.pump(Instant::now() + Duration::from_secs(5), all).await;
        self.picture.draw(&self.story, self.flows);
        Ok(())
    }

    fn mark(&self) {
        for flow in self.flows {
            flow.mark();
        }
    }

    fn longest_gap(&self) -> Duration {
        self.flows.iter().map(|flow| flow.arrivals().gap_since_mark).max().unwrap_or_default()
    }

    fn arrived_since(&self, moment: Instant) -> bool {
        self.flows.iter().all(|flow| flow.arrivals().last.is_some_and(|last| last > moment))
    }

    async fn wait(&mut self, what: &str, condition: impl Fn(&Self) -> bool) -> Result<(), Failure> {
        if self.pump(Instant::now() + PATIENCE, condition).await {
            return Ok(());
        }
        Err(Failure::failed(format!("demo: {what}: did not happen within {} s", PATIENCE.as_secs())))
    }

    async fn hold_until(&mut self, end: Instant) {
        self.pump(end, |_| false).await;
    }

    /// Takes notes and draws until the condition holds (true) or the time is over (false).
    async fn pump(&mut self, end: Instant, condition: impl Fn(&Self) -> bool) -> bool {
        let mut draw_at = Instant::now();
        loop {
            if condition(self) {
                return true;
            }
            let now = Instant::now();
            if now >= end {
                return false;
            }
            if now >= draw_at {
                self.picture.draw(&self.story, self.flows);
                draw_at = now + TICK;
            }
            let [a, b] = &self.stage.actors;
            let of_a = async { Some((0, a.notes.recv_async().await)) };
            let of_b = async { Some((1, b.notes.recv_async().await)) };
            let tick = async {
                Timer::at(draw_at.min(end)).await;
                None
            };
            match future::or(future::or(of_a, of_b), tick).await {
                Some((who, Ok((_, note)))) => {
                    if let Some(line) = self.story.note(who, &note) {
                        self.picture.event(&format!("peer {} {line}", self.stage.actors[who].name));
                    }
                }
                // A peer has ended: nothing more will come, so the condition decides when its time is over.
                Some((_, Err(_))) => {
                    Timer::at(end).await;
                }
                None => {}
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use shadowmesh_core::id::PeerId;

    const PEER: PeerId = PeerId([1; 32]);

    #[test]
    fn a_move_counts_when_both_directions_made_it() {
        let mut story = Story::default();
        let moved = |took| Note::Migrated {
            peer: PEER,
            from: Some(PathLabel::RelayWss),
            to: PathLabel::DirectWss,
            took: Duration::from_millis(took),
        };
        story.note(0, &moved(3));
        assert_eq!((story.migrations(), story.peers[0].direct), (0, true));
        story.note(1, &moved(7));
        story.note(1, &Note::FellBack { peer: PEER, to: PathLabel::RelayWss, why: "silent", silent: Duration::ZERO });
        assert_eq!((story.migrations(), story.fallbacks(), story.migration), (1, 0, Duration::from_millis(7)));
        assert!(!story.peers[1].direct);
    }

    #[test]
    fn the_median_rehandshake_leaves_the_relay_out() {
        let mut story = Story::default();
        for (path, micros) in [(0, 9_000), (2, 300), (4, 100), (6, 200)] {
            let rehandshake = Duration::from_micros(micros);
            story.note(0, &Note::PathValidated { peer: PEER, path: PathId(path), rehandshake, rtt: None });
        }
        assert_eq!(story.rehandshake(), Duration::from_micros(200));
    }
}
