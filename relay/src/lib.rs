//! The parts of `shadowmesh-relay`, the self-hosted relay that forwards what it cannot read.
//!
//! ```text
//!   command ─▶ cli ─┬─ settings (flag > environment > file > default)
//!                   ├─ id, status ─▶ control socket of a running relay
//!                   └─ run ─▶ a runtime's relay ─┬─ report  (status)
//!                                                ├─ metrics (Prometheus)
//!                                                └─ page    (for a browser)
//! ```
pub mod cli;
pub mod dev;
mod logs;
pub mod metrics;
mod page;
pub mod report;
pub mod run;
pub mod settings;

use core::fmt;

/// Why a command did not succeed: a sentence for stderr and the exit code.
#[derive(Debug, PartialEq, Eq)]
pub struct Failure {
    /// 1 = failed or not running, 2 = wrong usage or configuration.
    pub code: u8,
    /// One line.
    pub sentence: String,
}

impl Failure {
    /// Something did not work, or nothing is running.
    pub fn failed(sentence: impl fmt::Display) -> Self {
        Self { code: 1, sentence: sentence.to_string() }
    }

    /// Wrong usage or configuration.
    pub fn usage(sentence: impl fmt::Display) -> Self {
        Self { code: 2, sentence: sentence.to_string() }
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.sentence)
    }
}

impl core::error::Error for Failure {}

/// Writes one line to stdout: the only place where this program does. A reader that went away is not an error.
pub fn say(line: impl fmt::Display) {
    use std::io::Write;
    let mut out = std::io::stdout().lock();
    let _ = writeln!(out, "{line}").and_then(|()| out.flush());
}
