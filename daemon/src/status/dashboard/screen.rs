//! The picture: text from what is known, for a screen of so many columns and rows; nothing is written here.
//!
//! ```text
//!   head: name, state, interface, relays, warnings
//!   peers, a line each, with rates                    ◀ the chosen one stays in sight
//!   all about the chosen one, as `peer explain` has it
//!   keys
//! ```
use super::super::{
    model::{PeerReport, Report},
    table::{BOLD, GREEN, PLAIN, RED, YELLOW, bytes, called, span, state_colour},
};
use crate::explain::Explanation;
use std::collections::BTreeMap;

const INVERSE: &str = "\x1b[7m";
const HEAD: [&str; 11] = ["PEER", "ADDRESS", "STATE", "PATH", "SINCE", "RTT", "IN/s", "OUT/s", "MOVED", "BACK", "AGAIN"];
/// The table keeps so many rows, its head included, however much there is about one peer.
const LEAST_ROWS: usize = 4;
const KEYS: &str = "q leaves   ↑ ↓ choose a peer   esc shows them all";

/// Bytes in a second.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(super) struct Rate {
    pub(super) rx: f64,
    pub(super) tx: f64,
}

/// All that is shown.
pub(super) struct View<'a> {
    pub(super) report: &'a Report,
    pub(super) rates: &'a BTreeMap<String, Rate>,
    /// The id of the peer that was chosen.
    pub(super) chosen: Option<&'a str>,
    pub(super) explanation: Option<&'a Explanation>,
    pub(super) colour: bool,
}

/// A line, its parts with their styles.
type Line = Vec<(String, &'static str)>;

/// The lines of the picture, none longer and no more than the screen.
pub(super) fn draw(view: &View<'_>, (columns, rows): (usize, usize)) -> Vec<String> {
    let mut lines = head(view.report);
    let detail = view.explanation.filter(|explained| Some(explained.peer.id.as_str()) == view.chosen);
    let detail: Vec<Line> = detail.map(Explanation::lines).unwrap_or_default().into_iter().map(|text| vec![(text, "")]).collect();
    let body = rows.saturating_sub(1);
    lines.truncate(body.saturating_sub(LEAST_ROWS).max(1));
    let for_detail = detail.len().min(body.saturating_sub(lines.len() + LEAST_ROWS + 1));
    let for_table = body.saturating_sub(lines.len() + for_detail + usize::from(for_detail > 0));
    lines.extend(table(view, for_table));
    if for_detail > 0 {
        lines.push(Vec::new());
        lines.extend(detail.into_iter().take(for_detail));
    }
    lines.resize_with(body, Vec::new);
    lines.push(vec![(KEYS.to_owned(), "")]);
    lines.into_iter().take(rows).map(|line| paint(line, columns, view.colour)).collect()
}

fn head(report: &Report) -> Vec<Line> {
    let interface = &report.interface;
    let place = format!("  up {}  {} {}  {}", span(report.uptime_s), interface.mode, interface.name, interface.addresses.join(" "));
    let mut lines =
        vec![vec![(report.name.clone(), BOLD), ("  ".to_owned(), ""), (report.state.clone(), state_colour(&report.state)), (place, "")]];
    for relay in &report.relays {
        let rtt = relay.rtt_ms.map(|rtt| format!("  {rtt:.1} ms")).unwrap_or_default();
        let error = relay.error.as_ref().filter(|_| relay.state != "connected").map(|error| format!("  ({error})")).unwrap_or_default();
        let going = if relay.draining { "  goes away" } else { "" };
        lines.push(vec![
            (format!("relay {}  ", relay.url), ""),
            (relay.state.clone(), state_colour(&relay.state)),
            (rtt + going + &error, ""),
        ]);
    }
    for warning in &report.warnings {
        lines.push(vec![("warning: ".to_owned(), YELLOW), (warning.text.clone(), "")]);
    }
    lines.push(Vec::new());
    lines
}

/// Head and peers in so many rows, with the chosen one among them.
fn table(view: &View<'_>, rows: usize) -> Vec<Line> {
    let peers = &view.report.peers;
    if peers.is_empty() {
        return vec![vec![("no peers yet".to_owned(), "")]];
    }
    let cells: Vec<[String; 11]> = peers.iter().map(|peer| row(peer, view.rates.get(&peer.id).copied().unwrap_or_default())).collect();
    let width = |column: usize| cells.iter().map(|row| row[column].chars().count()).chain([HEAD[column].len()]).max().unwrap_or(0);
    let widths: [usize; 11] = core::array::from_fn(width);
    let pad = |text: &str, column: usize| format!("{text:<width$}  ", width = widths[column]);
    let mut lines = vec![vec![(HEAD.iter().enumerate().map(|(column, text)| pad(text, column)).collect::<String>(), BOLD)]];
    let shown = rows.saturating_sub(1);
    let chosen = peers.iter().position(|peer| Some(peer.id.as_str()) == view.chosen);
    let first = chosen.map_or(0, |at| (at + 1).saturating_sub(shown));
    for (peer, cells) in peers.iter().zip(&cells).skip(first).take(shown) {
        let is_chosen = Some(peer.id.as_str()) == view.chosen;
        // Without colours the mark tells who is chosen.
        let mark = if is_chosen && !view.colour { ">" } else { "" };
        let line = cells.iter().enumerate().map(|(column, text)| {
            let text = if column == 0 && !mark.is_empty() { format!("{mark}{text}") } else { text.clone() };
            (pad(&text, column), if is_chosen { INVERSE } else { style(peer, column) })
        });
        lines.push(line.collect());
    }
    lines
}

fn row(peer: &PeerReport, rate: Rate) -> [String; 11] {
    let path = peer.path.as_ref();
    let or_none = |text: Option<String>| text.unwrap_or_else(|| "-".to_owned());
    [
        called(peer),
        or_none(peer.address().cloned()),
        peer.state.clone(),
        or_none(path.map(|path| format!("{}/{}", path.kind, path.transport))),
        or_none(path.map(|path| span(path.since_s))),
        or_none(path.and_then(|path| path.rtt_ms).map(|rtt| format!("{rtt:.1} ms"))),
        per_second(rate.rx),
        per_second(rate.tx),
        peer.migrations.to_string(),
        peer.fallbacks.to_string(),
        peer.resent_frames.to_string(),
    ]
}

fn style(peer: &PeerReport, column: usize) -> &'static str {
    let is_direct = peer.path.as_ref().is_some_and(|path| path.kind == "direct");
    match column {
        0 => BOLD,
        2 => state_colour(&peer.state),
        3 if is_direct => GREEN,
        3 if peer.path.is_some() => YELLOW,
        3 => RED,
        _ => "",
    }
}

#[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a rate is at least 0, and three digits are shown")]
fn per_second(rate: f64) -> String {
    bytes(rate.round() as u64)
}

/// A line cut to the width, and styled where that is wanted. What peers sent is text here and nothing else.
fn paint(line: Line, columns: usize, colour: bool) -> String {
    let mut left = columns;
    let mut text = String::new();
    for (part, style) in line {
        let part: String = part.chars().take(left).map(|letter| if letter.is_control() { '·' } else { letter }).collect();
        left -= part.chars().count();
        if colour && !style.is_empty() && !part.is_empty() {
            text = text + style + &part + PLAIN;
        } else {
            text.push_str(&part);
        }
    }
    text
}

#[cfg(test)]
#[path = "screen/tests.rs"]
pub(super) mod tests;
