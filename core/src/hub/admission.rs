//! Who may take up the relay's time before proving an identity: limits in all and by source (protocol 9.4).
use super::{Standing, drops::Reason};
use crate::{
    bound::Bound,
    bucket::{Bucket, Rate},
    config::{HubConfig, Limits},
    source::Source,
    time::{Duration, Instant},
};
use core::net::IpAddr;
use std::collections::BTreeMap;

/// Sources remembered at one time, about 4 MiB; each is forgotten when its bucket is full again and nothing of it is open.
const SOURCES: usize = 65_536;
/// A full table is swept at most this often, so that a flood of sources does not make each connection cost a sweep.
const SWEEP_INTERVAL: Duration = Duration::from_millis(500);

/// Whether so many connections fit, and one from this address may be among them.
pub(super) fn is_welcome(config: &HubConfig, connections: usize, ip: IpAddr) -> Result<(), Reason> {
    let HubConfig { limits, access, .. } = config;
    if !access.takes_address(ip) {
        Err(Reason::SourceDenied)
    } else if limits.memory_of(connections) > limits.memory {
        Err(Reason::Memory)
    } else {
        Ok(())
    }
}

#[derive(Default)]
struct Entry {
    /// Connections without a proven identity.
    open: usize,
    joins: Bucket,
    /// Somebody there has proven an identity.
    proven: bool,
    /// Nobody had, and all its connections were used up.
    refused_until: Instant,
}

/// The counts of connections that have not proven an identity.
pub(super) struct Admission {
    total: usize,
    per_source: usize,
    joins: Rate,
    refuse_time: Duration,
    open: usize,
    sources: BTreeMap<Source, Entry>,
    swept_at: Option<Instant>,
}

impl Admission {
    pub(super) fn new(limits: &Limits) -> Self {
        Self {
            total: limits.preauth_total,
            per_source: limits.preauth_per_source,
            joins: Rate { per_second: limits.joins_per_second.into(), burst: limits.join_burst.into() },
            refuse_time: limits.refuse_time,
            open: 0,
            sources: BTreeMap::new(),
            swept_at: None,
        }
    }

    /// Other limits; what is counted stays counted.
    pub(super) fn configure(&mut self, limits: &Limits) {
        let Self { total, per_source, joins, refuse_time, .. } = Self::new(limits);
        (self.total, self.per_source, self.joins, self.refuse_time) = (total, per_source, joins, refuse_time);
    }

    /// Takes one place and one token for `source`, or says which limit stands against it.
    pub(super) fn admit(&mut self, now: Instant, source: Source) -> Result<(), Reason> {
        if self.sources.len() >= SOURCES && !self.sources.contains_key(&source) {
            self.sweep(now)?;
        }
        let entry = self.sources.entry(source).or_default();
        if entry.refused_until > now {
            return Err(Reason::SourceRefused);
        }
        if entry.open >= self.per_source {
            return Err(Reason::PreauthPerSource);
        }
        if self.open >= self.total {
            return Err(Reason::PreauthTotal);
        }
        if !entry.joins.take(now, 1, self.joins) {
            if !entry.proven {
                entry.refused_until = now + self.refuse_time;
            }
            return Err(Reason::JoinRate);
        }
        entry.open += 1;
        self.open += 1;
        Ok(())
    }

    /// How this source stands.
    pub(super) fn standing(&self, now: Instant, source: Source) -> Standing {
        let is_known = |entry: &Entry| entry.proven && entry.joins.is_half_full(now, self.joins);
        if self.sources.get(&source).is_some_and(is_known) { Standing::Known } else { Standing::Stranger }
    }

    /// The connection ended without proof: its place is free, its token is spent.
    pub(super) fn release(&mut self, source: Source) {
        if let Some(entry) = self.sources.get_mut(&source)
            && entry.open > 0
        {
            entry.open -= 1;
            self.open -= 1;
        }
    }

    /// The connection proved an identity: its place is free, and its token comes back.
    pub(super) fn prove(&mut self, source: Source) {
        self.release(source);
        if let Some(entry) = self.sources.get_mut(&source) {
            entry.proven = true;
            entry.refused_until = Instant::ZERO;
            entry.joins.refund(1, self.joins);
        }
    }

    /// Connections without a proven identity.
    pub(super) fn open(&self) -> usize {
        self.open
    }

    /// What is counted here, beside the most.
    pub(super) fn bounds(&self, each: &mut dyn FnMut(Bound)) {
        each(Bound::new("connections without a proven identity", self.open, self.total));
        each(Bound::new("sources of connections", self.sources.len(), SOURCES));
        let most = self.sources.values().map(|entry| entry.open).max().unwrap_or(0);
        each(Bound::new("connections of one source without a proven identity", most, self.per_source));
    }

    fn sweep(&mut self, now: Instant) -> Result<(), Reason> {
        if self.swept_at.is_none_or(|at| now.since(at) >= SWEEP_INTERVAL) {
            self.swept_at = Some(now);
            self.sources.retain(|_, entry| entry.open > 0 || !entry.joins.is_full(now) || entry.refused_until > now);
        }
        if self.sources.len() < SOURCES { Ok(()) } else { Err(Reason::SourceTable) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn source(text: &str) -> Source {
        Source::of(text.parse().expect("an address"))
    }

    // protocol 9.4
    #[test]
    fn who_proves_is_known_until_many_come_from_there_that_do_not() {
        let limits = Limits { preauth_per_source: 100, joins_per_second: 1, join_burst: 10, ..Limits::default() };
        let mut admission = Admission::new(&limits);
        let (a, b) = (source("192.0.2.1:1"), source("192.0.2.2:1"));
        let now = Instant::from_millis(1_000);
        assert_eq!(admission.standing(now, a), Standing::Stranger);
        assert_eq!(admission.admit(now, a), Ok(()));
        admission.prove(a);
        assert_eq!((admission.standing(now, a), admission.standing(now, b)), (Standing::Known, Standing::Stranger));
        for _ in 0..5 {
            assert_eq!((admission.standing(now, a), admission.admit(now, a)), (Standing::Known, Ok(())));
        }
        assert_eq!(admission.admit(now, a), Ok(()));
        assert_eq!(admission.standing(now, a), Standing::Stranger, "more than half of its tokens are spent");
        assert_eq!(admission.standing(now + Duration::from_secs(2), a), Standing::Known);
    }

    #[test]
    fn places_and_tokens() {
        let limits = Limits { preauth_total: 5, preauth_per_source: 2, joins_per_second: 1, join_burst: 3, ..Limits::default() };
        let mut admission = Admission::new(&limits);
        let (a, b, c) = (source("192.0.2.1:1"), source("192.0.2.2:1"), source("192.0.2.3:1"));
        let now = Instant::from_millis(1_000);
        assert_eq!(admission.admit(now, a), Ok(()));
        assert_eq!(admission.admit(now, a), Ok(()));
        assert_eq!(admission.admit(now, a), Err(Reason::PreauthPerSource));
        admission.release(a);
        assert_eq!(admission.admit(now, a), Ok(()));
        admission.release(a);
        assert_eq!(admission.admit(now, a), Err(Reason::JoinRate), "three tokens are spent");
        assert_eq!(admission.admit(now, b), Ok(()), "another source is not concerned");
        admission.prove(a);
        assert_eq!(admission.admit(now, a), Ok(()), "proof gives the token back");
        assert_eq!((admission.admit(now, b), admission.admit(now, c), admission.admit(now, c)), (Ok(()), Ok(()), Ok(())));
        assert_eq!(admission.admit(now, c), Err(Reason::PreauthPerSource), "a source that is full pushes nobody out");
        assert_eq!(admission.admit(now, source("192.0.2.4:1")), Err(Reason::PreauthTotal));
        assert_eq!(admission.open(), 5);
        admission.release(source("198.51.100.1:1"));
        assert_eq!(admission.open(), 5, "a source that has nothing gives nothing back");
    }

    #[test]
    fn the_table_of_sources_is_bounded() {
        let limits = Limits { preauth_total: usize::MAX, joins_per_second: 1, join_burst: 1, ..Limits::default() };
        let mut admission = Admission::new(&limits);
        let now = Instant::from_millis(1_000);
        for n in 0..SOURCES as u32 {
            let source = Source::V4(n.to_be_bytes());
            assert_eq!(admission.admit(now, source), Ok(()));
            admission.release(source);
        }
        let late = Source::V4(u32::MAX.to_be_bytes());
        assert_eq!(admission.admit(now, late), Err(Reason::SourceTable));
        assert_eq!(admission.admit(now + Duration::from_secs(2), late), Ok(()), "forgotten when their buckets are full");
        assert_eq!(admission.sources.len(), 1);
    }
}
