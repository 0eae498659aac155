//! The demo as a test: everything happens, and no frame is lost, doubled or out of order.
mod support;

use serde_json::Value;
use support::run;

#[test]
fn the_demo_loses_nothing() {
    loses_nothing("smol");
}

#[test]
fn the_demo_on_threads_loses_nothing() {
    loses_nothing("threads");
}

fn loses_nothing(runtime: &str) {
    let output = run(&["demo", "--json", "--seconds", "8", "--runtime", runtime]);
    let said = String::from_utf8_lossy(&output.stderr);
    let summary: Value = serde_json::from_slice(&output.stdout).unwrap_or_else(|error| panic!("{error}; stderr: {said}"));
    assert!(output.status.success(), "{said}; {summary}");
    for field in ["lost", "duplicated", "reordered"] {
        assert_eq!(summary[field], 0, "{summary}");
    }
    assert_eq!(summary["sent"], summary["delivered"]);
    assert!(summary["sent"].as_u64().is_some_and(|sent| sent > 2000), "{summary}");
    for (field, least) in [("migrations", 3), ("fallbacks", 2), ("retries", 1)] {
        assert!(summary[field].as_u64().is_some_and(|count| count >= least), "{field} in {summary}");
    }
    for field in ["seconds", "handshake_ms", "rehandshake_us", "migration_ms", "fallback_ms", "longest_gap_ms"] {
        assert!(summary[field].as_f64().is_some_and(|value| value > 0.0), "{field} in {summary}");
    }
    assert_eq!(summary["runtime"], runtime);
    assert!(summary["suite"].as_str().is_some_and(|suite| suite.starts_with("ML-KEM-1024")), "{summary}");
    assert_eq!(summary.as_object().map(serde_json::Map::len), Some(16), "the fields of the interface and no others: {summary}");
}
