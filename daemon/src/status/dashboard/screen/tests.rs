//! The picture, as text: what stands where, and that it keeps to the screen.
use super::*;
use crate::status::model::{InterfaceReport, PathReport, RelayReport};
use serde_json::{Value, json};

/// A report of a peer that knows so many others.
pub(in crate::status) fn report(peers: usize) -> Report {
    Report {
        version: "1".to_owned(),
        id: "sm-me".to_owned(),
        name: "laptop".to_owned(),
        state: "ready".to_owned(),
        runtime: "smol".to_owned(),
        uptime_s: 252.0,
        interface: InterfaceReport {
            name: "mesh0".to_owned(),
            mode: "tun".to_owned(),
            mtu: 1280,
            addresses: vec!["10.77.0.1/24".to_owned()],
            proxy: None,
            dns: None,
        },
        relays: vec![RelayReport {
            proxy: None,
            url: "wss://relay.example".to_owned(),
            id: None,
            state: "connected".to_owned(),
            rtt_ms: Some(12.34),
            draining: false,
            observed: None,
            reflexive: None,
            mapping_varies: None,
            error: None,
        }],
        port_mapping: None,
        peers: (0..peers).map(peer).collect(),
        succession: None,
        warnings: Vec::new(),
    }
}

fn peer(number: usize) -> PeerReport {
    let path = PathReport {
        kind: "direct".to_owned(),
        transport: "udp".to_owned(),
        state: "active".to_owned(),
        remote: None,
        relay: None,
        since_s: 3.0,
        rtt_ms: Some(1.5),
    };
    let blank: Value = json!({
        "id": format!("sm-{number}"), "name": format!("peer{number}"), "state": "connected", "addresses": [format!("10.77.0.{number}")],
        "path": path, "paths": [], "suite": null, "epoch": 0, "handshake_age_s": null, "migrations": 3, "fallbacks": 2, "retries": 0,
        "tx_frames": 0, "tx_bytes": 0, "rx_frames": 0, "rx_bytes": 0, "lost_frames": 0, "duplicate_frames": 0, "reordered_frames": 0,
        "resent_frames": 7, "refused": []
    });
    serde_json::from_value(blank).expect("a peer")
}

fn explanation(report: &Report, number: usize) -> Explanation {
    let blank = json!({
        "reason": "a direct path was proven", "direct_transports": ["udp"], "candidates": [],
        "nat": {"here": "steady", "there": "steady", "verdict": "no NAT is in the way"}, "last_failure": null,
        "next_attempt_in_s": null, "peer": report.peers[number], "history": [{"ago_s": 1.0, "kind": "connected", "what": "a session was made"}]
    });
    serde_json::from_value(blank).expect("an explanation")
}

fn drawn(report: &Report, chosen: Option<&str>, explanation: Option<&Explanation>, size: (usize, usize)) -> Vec<String> {
    let rates = [("sm-1".to_owned(), Rate { rx: 1_400_000.0, tx: 512.4 })].into();
    let lines = draw(&View { report, rates: &rates, chosen, explanation, colour: false }, size);
    assert_eq!(lines.len(), size.1, "each row has a line");
    assert!(lines.iter().all(|line| line.chars().count() <= size.0 && !line.contains('\x1b')), "{lines:#?}");
    let coloured = draw(&View { report, rates: &rates, chosen, explanation, colour: true }, size);
    let plain = coloured.iter().map(|line| without_styles(line).replace('>', "")).collect::<Vec<_>>();
    assert_eq!(plain.len(), lines.len());
    lines
}

fn without_styles(line: &str) -> String {
    let mut parts = line.split('\x1b');
    let first = parts.next().unwrap_or_default().to_owned();
    parts.fold(first, |text, part| text + part.split_once('m').map_or("", |(_, rest)| rest))
}

#[test]
fn head_peers_and_keys_stand_in_their_places() {
    let lines = drawn(&report(3), None, None, (120, 20));
    assert!(lines[0].starts_with("laptop  ready  up 4m 12s  tun mesh0  10.77.0.1/24"), "{}", lines[0]);
    assert_eq!(lines[1], "relay wss://relay.example  connected  12.3 ms");
    assert!(lines[3].starts_with("PEER") && lines[3].contains("IN/s"), "{}", lines[3]);
    let words: Vec<&str> = lines[5].split_whitespace().collect();
    assert_eq!(words, ["peer1", "10.77.0.1", "connected", "direct/udp", "3.0s", "1.5", "ms", "1.4", "MB", "512", "B", "3", "2", "7"]);
    assert_eq!(lines[19], KEYS);
}

#[test]
fn a_chosen_peer_is_marked_and_explained() {
    let report = report(3);
    let explained = explanation(&report, 1);
    let lines = drawn(&report, Some("sm-1"), Some(&explained), (120, 24));
    assert!(lines[5].starts_with(">peer1"), "{}", lines[5]);
    assert!(lines.iter().any(|line| line == "a direct path was proven"), "{lines:#?}");
    assert!(lines.iter().any(|line| line.ends_with("a session was made")), "{lines:#?}");
    // The explanation of another is not shown for it.
    let lines = drawn(&report, Some("sm-2"), Some(&explained), (120, 24));
    assert!(!lines.iter().any(|line| line == "a direct path was proven"), "{lines:#?}");
}

#[test]
fn the_chosen_one_stays_in_sight() {
    let report = report(200);
    let explained = explanation(&report, 150);
    for size in [(120, 24), (120, 10), (40, 8), (120, 60)] {
        let lines = drawn(&report, Some("sm-150"), Some(&explained), size);
        assert!(lines.iter().any(|line| line.starts_with(">peer150")), "{size:?}: {lines:#?}");
    }
}

#[test]
fn any_screen_is_kept_to() {
    let mut full = report(30);
    full.warnings = vec![crate::warnings::Warning { kind: "relay".to_owned(), text: "look at it ".repeat(40) }; 50];
    full.peers[0].name = Some("\x1b[2Jevil\n\u{7f}".to_owned());
    let explained = explanation(&full, 0);
    for columns in [1, 2, 10, 79, 300] {
        for rows in [1, 2, 3, 5, 8, 24, 100] {
            drawn(&full, Some("sm-0"), Some(&explained), (columns, rows));
            drawn(&report(0), None, None, (columns, rows));
        }
    }
    assert!(drawn(&full, None, None, (120, 24)).iter().any(|line| line.starts_with("warning: look at it")));
    let lines = drawn(&full, None, None, (120, 100));
    assert!(lines.iter().any(|line| line.contains("·[2Jevil··")), "{lines:#?}");
}
