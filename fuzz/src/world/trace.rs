//! A digest of all that happened: two runs are alike when their digests are.
use shadowmesh_core::time::Instant;
use std::{collections::VecDeque, fmt::Write};

/// FNV-1a over everything that a machine ordered; it must tell runs apart, not resist anybody.
#[derive(Clone, Debug)]
pub(super) struct Trace {
    digest: u64,
    entries: u64,
    /// What can be read, oldest first, for whoever asked for it.
    told: Option<VecDeque<(Instant, usize, String)>>,
}

/// Lines kept to be read.
const TOLD_MAX: usize = 20_000;

impl Default for Trace {
    fn default() -> Self {
        Self { digest: 0xcbf2_9ce4_8422_2325, entries: 0, told: None }
    }
}

impl Trace {
    /// The digest so far, and of how many entries.
    pub(super) fn digest(&self) -> (u64, u64) {
        (self.digest, self.entries)
    }

    pub(super) fn add(&mut self, now: Instant, host: usize, what: &str, bytes: &[u8]) {
        self.entries += 1;
        self.fold(&now.as_nanos().to_be_bytes());
        self.fold(&(host as u64).to_be_bytes());
        self.fold(what.as_bytes());
        self.fold(bytes);
    }

    pub(super) fn say(&mut self, now: Instant, host: usize, what: &impl std::fmt::Debug) {
        let mut text = String::new();
        // Writing to a string cannot fail.
        let _ = write!(text, "{what:?}");
        self.add(now, host, &text, &[]);
        self.tell(now, host, || text);
    }

    /// Keeps what is said from now on so that it can be read.
    pub(super) fn listen(&mut self) {
        self.told.get_or_insert_default();
    }

    /// One line to be read, no part of the digest.
    pub(super) fn tell(&mut self, now: Instant, host: usize, line: impl FnOnce() -> String) {
        if let Some(told) = &mut self.told {
            if told.len() >= TOLD_MAX {
                told.pop_front();
            }
            told.push_back((now, host, line()));
        }
    }

    /// What was said.
    pub(super) fn told(&self) -> impl Iterator<Item = &(Instant, usize, String)> {
        self.told.iter().flatten()
    }

    fn fold(&mut self, bytes: &[u8]) {
        let (words, rest) = bytes.as_chunks::<8>();
        for word in words {
            self.digest = (self.digest ^ u64::from_le_bytes(*word)).wrapping_mul(0x0000_0100_0000_01b3).rotate_left(23);
        }
        for byte in rest {
            self.digest = (self.digest ^ u64::from(*byte)).wrapping_mul(0x0000_0100_0000_01b3);
        }
    }
}
