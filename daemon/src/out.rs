//! The one place that writes to stdout: results of commands. Everything else (logs, errors) goes to stderr.
use serde::Serialize;
use std::io::{self, IsTerminal, Write};

/// Writes one line. A closed pipe (`shadowmesh status | head -1`) ends the program quietly, as it does any other tool.
#[expect(clippy::needless_pass_by_value, reason = "callers hand over what format! gave them")]
pub(crate) fn line(text: impl ToString) {
    raw(&(text.to_string() + "\n"));
}

/// Writes text as it is and flushes it.
pub(crate) fn raw(text: &str) {
    let mut stdout = io::stdout().lock();
    if stdout.write_all(text.as_bytes()).and_then(|()| stdout.flush()).is_err() {
        std::process::exit(0);
    }
}

/// Writes a value as JSON over several lines, for people and programs alike.
pub(crate) fn json(value: &impl Serialize) {
    line(serde_json::to_string_pretty(value).expect("output types have string keys and no failing serializers"));
}

/// Whether stdout may be coloured and redrawn: a terminal, and `NO_COLOR` not set.
pub(crate) fn colour() -> bool {
    is_terminal() && std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty())
}

/// Whether somebody looks at stdout.
pub(crate) fn is_terminal() -> bool {
    io::stdout().is_terminal()
}

/// Whether stdout is a terminal on which lines can be redrawn.
pub(crate) fn terminal() -> bool {
    is_terminal() && std::env::var_os("TERM").is_none_or(|term| term != "dumb")
}
