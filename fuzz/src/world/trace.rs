//! A digest of all that happened: two runs are alike when their digests are.
use shadowmesh_core::time::Instant;
use std::fmt::Write;

/// FNV-1a over everything that a machine ordered; it must tell runs apart, not resist anybody.
#[derive(Clone, Debug)]
pub(super) struct Trace {
    digest: u64,
    entries: u64,
}

impl Default for Trace {
    fn default() -> Self {
        Self { digest: 0xcbf2_9ce4_8422_2325, entries: 0 }
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
    }

    fn fold(&mut self, bytes: &[u8]) {
        for byte in bytes {
            self.digest = (self.digest ^ u64::from(*byte)).wrapping_mul(0x0000_0100_0000_01b3);
        }
    }
}
