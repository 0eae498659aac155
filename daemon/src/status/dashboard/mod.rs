//! `status --watch` on a terminal: a picture that is drawn again each second, at each key, and when the window changes.
//!
//! ```text
//!   a thread asks the peer ── Update ──▶ one task: draws; takes keys, signals, changes of the window
//!                 ◀── who is chosen ────┘
//! ```
//! The thread may wait for a peer that does not answer; keys and signals never do.
mod screen;
mod terminal;

use super::model::Report;
use crate::{
    control::{Client, Request},
    explain::Explanation,
    failure::Failure,
    out,
};
use async_signal::{Signal, Signals};
use futures_lite::{StreamExt, future};
use screen::{Rate, View};
use std::{
    collections::BTreeMap,
    io,
    os::fd::AsFd,
    thread,
    time::{Duration, Instant},
};
use terminal::{Key, Terminal};

/// How often the peer is asked.
const INTERVAL: Duration = Duration::from_secs(1);
/// Rates are over at least this: an answer that comes early, for a key, does not make them jump.
const RATE_TIME: Duration = Duration::from_millis(800);

/// What the peer says.
struct Update {
    at: Instant,
    report: Report,
    explanation: Option<Explanation>,
}

/// Bytes received from and sent to each peer, by its id.
type Counts = BTreeMap<String, (u64, u64)>;

/// What happens next.
enum Next {
    Told(Box<Result<Update, Failure>>),
    Keys(Vec<Key>),
    Redraw,
    Leave,
}

/// Shows it until somebody leaves; gives the client back where there is no terminal for it.
pub(super) fn run(client: Client) -> Result<Option<Client>, Failure> {
    let lost = |error: io::Error| Failure::failed(format!("the terminal cannot be used: {error}"));
    // The descriptor is watched only: its mode is shared with the shell, and stays as it is.
    let stdin = io::stdin();
    let Some(terminal) = Terminal::take() else { return Ok(Some(client)) };
    let signals = Signals::new([Signal::Int, Signal::Term, Signal::Hup, Signal::Quit, Signal::Winch]).map_err(lost)?;
    let watched = smol::Async::new_nonblocking(stdin.as_fd()).map_err(lost)?;
    let (updates, told) = flume::bounded(1);
    let (choose, chosen) = flume::unbounded();
    thread::Builder::new().name("ask".to_owned()).spawn(move || ask(client, &updates, &chosen)).map_err(lost)?;
    let board = Board { terminal, shown: None, base: None, rates: BTreeMap::new(), chosen: None, choose };
    smol::block_on(board.run(&watched, &told, signals)).map(|()| None)
}

/// Asks each second, and at once when another peer is chosen.
fn ask(mut client: Client, updates: &flume::Sender<Result<Update, Failure>>, chosen: &flume::Receiver<Option<String>>) {
    let mut about: Option<String> = None;
    loop {
        let update = client.ask(&Request::Status {}).map(|report| {
            // A peer that has just gone has no explanation.
            let explanation = about.clone().and_then(|peer| client.ask(&Request::Explain { peer }).ok());
            Update { at: Instant::now(), report, explanation }
        });
        let is_over = update.is_err();
        if updates.send(update).is_err() || is_over {
            return;
        }
        match chosen.recv_timeout(INTERVAL) {
            Ok(peer) => about = chosen.try_iter().last().unwrap_or(peer),
            Err(flume::RecvTimeoutError::Timeout) => {}
            Err(flume::RecvTimeoutError::Disconnected) => return,
        }
    }
}

/// What is shown, and what it was made from.
struct Board {
    terminal: Terminal,
    shown: Option<Update>,
    /// Bytes received and sent of each peer, when rates were made last.
    base: Option<(Instant, Counts)>,
    rates: BTreeMap<String, Rate>,
    /// The id of a peer.
    chosen: Option<String>,
    choose: flume::Sender<Option<String>>,
}

impl Board {
    async fn run(
        mut self,
        stdin: &smol::Async<impl AsFd>,
        told: &flume::Receiver<Result<Update, Failure>>,
        mut signals: Signals,
    ) -> Result<(), Failure> {
        loop {
            let signal = async {
                match signals.next().await {
                    Some(Ok(Signal::Winch)) => Next::Redraw,
                    _ => Next::Leave,
                }
            };
            let pressed = async {
                match stdin.readable().await.and_then(|()| self.terminal.keys()) {
                    Ok(keys) if keys.is_empty() => Next::Redraw,
                    Ok(keys) => Next::Keys(keys),
                    Err(_) => Next::Leave,
                }
            };
            let update = async { told.recv_async().await.map_or(Next::Leave, |update| Next::Told(Box::new(update))) };
            match future::or(signal, future::or(pressed, update)).await {
                Next::Told(update) => self.take((*update)?),
                Next::Keys(keys) => {
                    if !keys.into_iter().all(|key| self.press(key)) {
                        return Ok(());
                    }
                }
                Next::Redraw => {}
                Next::Leave => return Ok(()),
            }
            self.draw();
        }
    }

    fn take(&mut self, update: Update) {
        let count = |report: &Report| report.peers.iter().map(|peer| (peer.id.clone(), (peer.rx_bytes, peer.tx_bytes))).collect();
        match &self.base {
            Some((since, before)) if update.at - *since >= RATE_TIME => {
                self.rates = rates(before, &update.report, update.at - *since);
                self.base = Some((update.at, count(&update.report)));
            }
            Some(_) => {}
            None => self.base = Some((update.at, count(&update.report))),
        }
        self.shown = Some(update);
    }

    /// Does what a key says; false: it says to leave.
    fn press(&mut self, key: Key) -> bool {
        let mut peers = self.shown.iter().flat_map(|update| &update.report.peers).map(|peer| peer.id.as_str());
        let chosen = match key {
            Key::Quit => return false,
            Key::Back => None,
            Key::Up => step(peers.rev(), self.chosen.as_deref()),
            Key::Down => step(peers, self.chosen.as_deref()),
            Key::First => peers.next(),
            Key::Last => peers.next_back(),
        };
        let chosen = chosen.map(str::to_owned);
        if chosen != self.chosen {
            self.chosen.clone_from(&chosen);
            // Without the thread that asks, its last word is on the way.
            let _ = self.choose.send(chosen);
        }
        true
    }

    fn draw(&self) {
        let Some(update) = &self.shown else { return };
        let view = View {
            report: &update.report,
            rates: &self.rates,
            chosen: self.chosen.as_deref(),
            explanation: update.explanation.as_ref(),
            colour: out::colour(),
        };
        self.terminal.show(&screen::draw(&view, self.terminal.size()));
    }
}

/// The one behind the chosen one; at the end that one itself, and without one the first.
fn step<'a>(mut peers: impl Iterator<Item = &'a str> + Clone, chosen: Option<&'a str>) -> Option<&'a str> {
    let mut behind = peers.clone().skip_while(|id| Some(*id) != chosen);
    match behind.next() {
        Some(same) => behind.next().or(Some(same)),
        None => peers.next(),
    }
}

/// What each peer received and sent in a second. One that counts anew was replaced, and begins at 0.
#[expect(clippy::cast_precision_loss, reason = "three digits are shown")]
fn rates(before: &Counts, report: &Report, time: Duration) -> BTreeMap<String, Rate> {
    let per_second = |now: u64, before: u64| now.saturating_sub(before) as f64 / time.as_secs_f64();
    let rate = |peer: &super::PeerReport| {
        let (rx, tx) = before.get(&peer.id).copied()?;
        Some((peer.id.clone(), Rate { rx: per_second(peer.rx_bytes, rx), tx: per_second(peer.tx_bytes, tx) }))
    };
    report.peers.iter().filter_map(rate).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn arrows_go_from_peer_to_peer_and_stop_at_the_ends() {
        let peers = ["a", "b", "c"];
        let down = |chosen| step(peers.iter().copied(), chosen);
        let up = |chosen| step(peers.iter().rev().copied(), chosen);
        assert_eq!([down(None), down(Some("a")), down(Some("c")), down(Some("gone"))], [Some("a"), Some("b"), Some("c"), Some("a")]);
        assert_eq!([up(None), up(Some("b")), up(Some("a"))], [Some("c"), Some("a"), Some("a")]);
        assert_eq!(step([].into_iter(), None), None);
    }

    #[test]
    fn rates_are_differences_over_time() {
        let mut report = screen::tests::report(2);
        (report.peers[0].rx_bytes, report.peers[0].tx_bytes, report.peers[1].rx_bytes) = (5_000, 1_000, 10);
        let before = [(report.peers[0].id.clone(), (1_000, 1_000)), (report.peers[1].id.clone(), (900, 0))].into();
        let rates = rates(&before, &report, Duration::from_secs(2));
        assert_eq!(rates[&report.peers[0].id], Rate { rx: 2_000.0, tx: 0.0 });
        assert_eq!(rates[&report.peers[1].id], Rate::default(), "it counts anew");
    }
}
