//! The table that people read.
use super::model::{PeerReport, Report};
use std::{fmt::Write as _, time::Duration};

const HEAD: [&str; 9] = ["PEER", "ADDRESS", "STATE", "PATH", "SINCE", "RTT", "RX", "TX", "SUITE"];
const BOLD: &str = "\x1b[1m";
const GREEN: &str = "\x1b[32m";
const YELLOW: &str = "\x1b[33m";
const RED: &str = "\x1b[31m";
const PLAIN: &str = "\x1b[0m";

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
    for relay in &report.relays {
        let state = paint(&relay.state, state_colour(&relay.state), colour);
        let _ = write!(text, "relay {}  {state}", relay.url);
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
    if report.peers.is_empty() {
        text.push_str("no peers yet\n");
        return text;
    }
    text.push('\n');
    peers(&mut text, &report.peers, colour);
    for peer in &report.peers {
        for refused in &peer.refused {
            let _ = writeln!(text, "{} announces {}: refused, {}", called(peer), refused.address, refused.why);
        }
    }
    text
}

fn peers(text: &mut String, peers: &[PeerReport], colour: bool) {
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
fn called(peer: &PeerReport) -> String {
    peer.name.clone().unwrap_or_else(|| peer.id.chars().take(11).collect())
}

fn state_colour(state: &str) -> &'static str {
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
fn span(seconds: f64) -> String {
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
fn bytes(count: u64) -> String {
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
}
