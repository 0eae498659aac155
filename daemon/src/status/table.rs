//! The table that people read.
use super::model::{PathReport, PeerReport, Report, SuccessionReport, UntoldReport};
use std::{fmt::Write as _, time::Duration};

const HEAD: [&str; 9] = ["PEER", "ADDRESS", "STATE", "PATH", "SINCE", "RTT", "RX", "TX", "SUITE"];
/// Of those who do not know who follows, so many are named; the JSON has all.
const UNTOLD_SHOWN: usize = 8;
pub(super) const BOLD: &str = "\x1b[1m";
pub(super) const GREEN: &str = "\x1b[32m";
pub(super) const YELLOW: &str = "\x1b[33m";
pub(super) const RED: &str = "\x1b[31m";
pub(super) const PLAIN: &str = "\x1b[0m";

/// The whole status as text that ends with a newline.
pub(crate) fn render(report: &Report, colour: bool) -> String {
    let mut text = String::new();
    let state = paint(&report.state, state_colour(&report.state), colour);
    let _ = writeln!(
        text,
        "{}  {state}  up {}  {} {} mtu {}  {}",
        paint(&report.name, BOLD, colour),
        span(report.uptime_s),
        report.interface.mode,
        report.interface.name,
        report.interface.mtu,
        report.interface.addresses.join(" "),
    );
    let _ = writeln!(text, "{}", report.id);
    if let Some(proxy) = &report.interface.proxy {
        let _ = writeln!(text, "SOCKS5 and HTTP CONNECT at {proxy}");
    }
    if let Some(dns) = &report.interface.dns {
        let _ = writeln!(text, "names below .mesh at {dns}");
    }
    for relay in &report.relays {
        let state = paint(&relay.state, state_colour(&relay.state), colour);
        let _ = write!(text, "relay {}  {state}", relay.url);
        if let Some(proxy) = &relay.proxy {
            let _ = write!(text, "  by way of {proxy}");
        }
        if let Some(rtt) = relay.rtt_ms {
            let _ = write!(text, "  {rtt:.1} ms");
        }
        if let Some(observed) = &relay.observed {
            let _ = write!(text, "  seen as {observed}");
        }
        if let Some(reflexive) = &relay.reflexive {
            let varies = if relay.mapping_varies == Some(true) { ", another for others" } else { "" };
            let _ = write!(text, "  UDP {reflexive}{varies}");
        }
        if let Some(error) = relay.error.as_ref().filter(|_| relay.state != "connected") {
            let _ = write!(text, "  ({error})");
        }
        text.push('\n');
    }
    if let Some(mapping) = &report.port_mapping {
        let _ = write!(text, "router forwards ({})", mapping.protocol);
        for (kind, external) in [("UDP", &mapping.external), ("TCP", &mapping.external_tcp)] {
            let _ = external.as_ref().map(|external| write!(text, "  {kind} {external}"));
        }
        let _ = writeln!(text, "  for {}", span(mapping.expires_s));
    }
    if let Some(succession) = &report.succession {
        let _ = writeln!(text, "{} follows at the next start; {}", succession.id, untold(succession));
    }
    for warning in &report.warnings {
        let _ = writeln!(text, "{} {}", paint("warning:", YELLOW, colour), warning.text);
    }
    if !report.peers.is_empty() {
        text.push('\n');
    }
    text + &peers(&report.peers, colour)
}

/// Who has not said that it knows who follows; names, or the beginnings of ids.
fn untold(succession: &SuccessionReport) -> String {
    let mut names: Vec<String> = succession.untold.iter().take(UNTOLD_SHOWN).map(called_so).collect();
    if names.is_empty() {
        return "all who were here since the start, or are listed, know it".to_owned();
    }
    let others = succession.untold.len().saturating_sub(UNTOLD_SHOWN);
    if others > 0 {
        names.push(format!("{others} more"));
    }
    format!("not known to {}", names.join(", "))
}

fn called_so(untold: &UntoldReport) -> String {
    untold.name.clone().unwrap_or_else(|| untold.id.chars().take(11).collect())
}

/// The peers, a line each.
pub(crate) fn peers(peers: &[PeerReport], colour: bool) -> String {
    let mut text = String::new();
    if peers.is_empty() {
        return "no peers yet\n".to_owned();
    }
    rows(&mut text, peers, colour);
    for peer in peers {
        for refused in &peer.refused {
            let _ = writeln!(text, "{} announces {}: refused, {}", called(peer), refused.address, refused.why);
        }
    }
    text
}

/// One peer, a line for each thing.
pub(crate) fn peer(peer: &PeerReport, colour: bool) -> String {
    let mut lines: Vec<(&str, String)> = vec![
        ("name", peer.name.clone().unwrap_or_else(|| "-".to_owned())),
        ("id", peer.id.clone()),
        ("state", paint(&peer.state, state_colour(&peer.state), colour)),
        ("addresses", peer.addresses.join(" ")),
    ];
    lines.extend(peer.refused.iter().map(|refused| ("refused", format!("{}: {}", refused.address, refused.why))));
    let path = |path: &PathReport| {
        let remote = path.remote.as_deref().map(|remote| format!(" to {remote}")).unwrap_or_default();
        let rtt = path.rtt_ms.map(|rtt| format!(", {rtt:.1} ms")).unwrap_or_default();
        format!("{}/{}{remote}, {} since {}{rtt}", path.kind, path.transport, path.state, span(path.since_s))
    };
    lines.extend(peer.path.iter().map(|active| ("path", path(active))));
    lines.extend(peer.paths.iter().map(|other| ("other path", path(other))));
    if let Some(suite) = &peer.suite {
        let age = peer.handshake_age_s.map(|age| format!(", handshake {} ago", span(age))).unwrap_or_default();
        lines.push(("keys", format!("{suite}, epoch {}{age}", peer.epoch)));
    }
    lines.push(("moves", format!("{} to direct, {} back, {} retries", peer.migrations, peer.fallbacks, peer.retries)));
    lines.push(("received", format!("{} in {} frames", bytes(peer.rx_bytes), peer.rx_frames)));
    lines.push(("sent", format!("{} in {} frames, {} of them again", bytes(peer.tx_bytes), peer.tx_frames, peer.resent_frames)));
    lines.push(("missed", format!("{} lost, {} duplicate, {} reordered", peer.lost_frames, peer.duplicate_frames, peer.reordered_frames)));
    lines.iter().fold(String::new(), |text, (head, line)| text + &format!("{}  {line}\n", paint(&format!("{head:<10}"), BOLD, colour)))
}

fn rows(text: &mut String, peers: &[PeerReport], colour: bool) {
    let rows: Vec<[String; 9]> = peers.iter().map(row).collect();
    let width = |column: usize| rows.iter().map(|row| row[column].chars().count()).chain([HEAD[column].len()]).max().unwrap_or(0);
    let widths: Vec<usize> = (0..HEAD.len()).map(width).collect();
    let mut line = |cells: &[&str], style: &dyn Fn(usize) -> &'static str| {
        for (column, cell) in cells.iter().enumerate() {
            let last = column + 1 == cells.len();
            let padding = if last { 0 } else { widths[column] + 2 - cell.chars().count() };
            let _ = write!(text, "{}{}", paint(cell, style(column), colour), " ".repeat(padding));
        }
        text.push('\n');
    };
    line(&HEAD, &|_| BOLD);
    for (row, peer) in rows.iter().zip(peers) {
        let cells: Vec<&str> = row.iter().map(String::as_str).collect();
        let direct = peer.path.as_ref().is_some_and(|path| path.kind == "direct");
        line(&cells, &|column| match column {
            2 => state_colour(&peer.state),
            3 if direct => GREEN,
            3 => YELLOW,
            _ => "",
        });
    }
}

fn row(peer: &PeerReport) -> [String; 9] {
    let path = peer.path.as_ref();
    [
        called(peer),
        peer.address().cloned().unwrap_or_else(|| "-".to_owned()),
        peer.state.clone(),
        path.map_or_else(|| "-".to_owned(), |path| format!("{}/{}", path.kind, path.transport)),
        path.map_or_else(|| "-".to_owned(), |path| span(path.since_s)),
        path.and_then(|path| path.rtt_ms).map_or_else(|| "-".to_owned(), |rtt| format!("{rtt:.1} ms")),
        bytes(peer.rx_bytes),
        bytes(peer.tx_bytes),
        peer.suite.clone().unwrap_or_else(|| "-".to_owned()),
    ]
}

/// The name, or the beginning of the id.
pub(super) fn called(peer: &PeerReport) -> String {
    peer.name.clone().unwrap_or_else(|| peer.id.chars().take(11).collect())
}

pub(super) fn state_colour(state: &str) -> &'static str {
    match state {
        "ready" | "connected" => GREEN,
        "starting" | "connecting" => YELLOW,
        _ => RED,
    }
}

fn paint(text: &str, style: &str, colour: bool) -> String {
    if colour && !style.is_empty() { format!("{style}{text}{PLAIN}") } else { text.to_owned() }
}

/// `3.2s`, `4m 12s`, `2h 5m`.
pub(super) fn span(seconds: f64) -> String {
    if seconds < 60.0 {
        return format!("{seconds:.1}s");
    }
    let whole = Duration::from_secs_f64(seconds.min(1e12)).as_secs();
    match whole {
        0..3600 => format!("{}m {}s", whole / 60, whole % 60),
        3600..86_400 => format!("{}h {}m", whole / 3600, whole % 3600 / 60),
        _ => format!("{}d {}h", whole / 86_400, whole % 86_400 / 3600),
    }
}

/// `512 B`, `1.4 kB`, `3.0 GB`.
#[expect(clippy::cast_precision_loss, reason = "two digits are shown")]
pub(super) fn bytes(count: u64) -> String {
    const UNITS: [&str; 5] = ["kB", "MB", "GB", "TB", "PB"];
    if count < 1000 {
        return format!("{count} B");
    }
    let mut value = count as f64 / 1000.0;
    let mut unit = 0;
    while value >= 999.95 && unit + 1 < UNITS.len() {
        value /= 1000.0;
        unit += 1;
    }
    format!("{value:.1} {}", UNITS[unit])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn spans_and_sizes_read_well() {
        assert_eq!([span(3.21), span(252.0), span(7_500.0), span(180_000.0)], ["3.2s", "4m 12s", "2h 5m", "2d 2h"]);
        assert_eq!([bytes(512), bytes(1_400), bytes(999_999), bytes(3_000_000_000)], ["512 B", "1.4 kB", "1.0 MB", "3.0 GB"]);
    }

    #[test]
    fn who_does_not_know_the_next_identity_is_named() {
        let untold = |number: u32| UntoldReport { id: format!("sm-{number:08}xyz"), name: (number == 0).then(|| "ann".to_owned()) };
        let says = |count| super::untold(&SuccessionReport { id: String::new(), untold: (0..count).map(untold).collect() });
        assert_eq!(says(0), "all who were here since the start, or are listed, know it");
        assert_eq!(says(2), "not known to ann, sm-00000001");
        assert!(says(10).ends_with("sm-00000007, 2 more"), "{}", says(10));
    }
}
