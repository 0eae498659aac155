//! How a command ends when it does not end well: one sentence for stderr and the exit code that goes with it.
use std::fmt;

/// A sentence for the person at the terminal, and the exit code.
#[derive(Debug)]
pub(crate) struct Failure {
    /// 1: failed or not running; 2: wrong usage or configuration.
    pub(crate) code: u8,
    /// One line: what is wrong, where, and what would be right. Empty when stdout has said it already.
    pub(crate) sentence: String,
}

impl Failure {
    /// The thing was asked for rightly but did not work: exit code 1.
    pub(crate) fn failed(sentence: impl Into<String>) -> Self {
        Self { code: 1, sentence: sentence.into() }
    }

    /// The command line, a variable or a file is wrong: exit code 2.
    pub(crate) fn usage(sentence: impl Into<String>) -> Self {
        Self { code: 2, sentence: sentence.into() }
    }

    /// Exit code 1 without a sentence: the output tells it.
    pub(crate) fn silent() -> Self {
        Self { code: 1, sentence: String::new() }
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // One line, whatever an inner error wrote.
        let mut first = true;
        for line in self.sentence.lines().map(str::trim).filter(|line| !line.is_empty()) {
            if !first {
                f.write_str(" ")?;
            }
            f.write_str(line)?;
            first = false;
        }
        Ok(())
    }
}
