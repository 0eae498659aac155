//! Honest peers on a thread of their own: pairs that exchange frames, and newcomers that join and leave. What they see is the figure.
use super::client::{Client, Target, forward};
use core::net::Ipv4Addr;
use serde_json::{Value, json};
use shadowmesh_core::{
    crypto::Identity,
    id::Handle,
    wire::{RECORD_HEADER_LEN, Records, TYPE_DLV, TYPE_FRAME},
};
use smol::{LocalExecutor, Timer};
use std::{
    rc::Rc,
    sync::{Arc, Mutex, PoisonError},
    thread,
    time::{Duration, Instant},
};

/// Bytes of a frame: a packet of the usual size.
const FRAME_BYTES: usize = 1_200;
/// The network of the honest ones, and of those attackers who are its members.
pub(crate) const NETWORK: u32 = 1;
/// One newcomer after the other, so long after the last one's end.
const NEWCOMERS_EVERY: Duration = Duration::from_millis(100);
/// A sender that is late makes up for at most so many frames at once: they go as one message, which has its most.
const MOST_AT_ONCE: u64 = 50;

/// What honest peers have seen.
#[derive(Default)]
struct Seen {
    sent: u64,
    received: u64,
    latencies_us: Vec<u32>,
    joins_us: Vec<u32>,
    failures: Vec<String>,
    broken: u64,
}

/// Honest peers at work.
pub(crate) struct Honest {
    seen: Arc<Mutex<Seen>>,
    /// Where frames go: the receivers' handles.
    pub(crate) handles: Vec<Handle>,
}

/// What they saw in a span of time.
#[derive(Clone, Debug)]
pub(crate) struct Figures {
    pub(crate) seconds: f64,
    pub(crate) sent: u64,
    pub(crate) received: u64,
    pub(crate) latency_us: [u32; 3],
    pub(crate) joins: usize,
    pub(crate) join_us: [u32; 3],
    pub(crate) join_failures: usize,
    pub(crate) failure: Option<String>,
    pub(crate) broken: u64,
}

impl Honest {
    /// `pairs` of peers, each of which sends `rate` frames a second to the other one.
    pub(crate) fn start(target: &Target, pairs: usize, rate: u64) -> Result<Self, String> {
        let seen: Arc<Mutex<Seen>> = Arc::default();
        let (ready, begun) = flume::bounded(1);
        let (target, shared) = (target.clone(), Arc::clone(&seen));
        thread::spawn(move || {
            let executor = Rc::new(LocalExecutor::new());
            smol::block_on(executor.run(async {
                let outcome = begin(&executor, &target, pairs, rate, &shared).await;
                let failed = outcome.is_err();
                if ready.send(outcome).is_err() || failed {
                    return;
                }
                newcomers(&target, &shared).await;
            }));
        });
        let handles = begun.recv().map_err(|_| "the honest peers' thread ended".to_owned())??;
        Ok(Self { seen, handles })
    }

    /// What they see from now on for so long.
    pub(crate) async fn watch(&self, time: Duration) -> Figures {
        let start = Instant::now();
        core::mem::take(&mut *lock(&self.seen));
        Timer::after(time).await;
        let seen = core::mem::take(&mut *lock(&self.seen));
        Figures {
            seconds: start.elapsed().as_secs_f64(),
            sent: seen.sent,
            received: seen.received,
            latency_us: quantiles(seen.latencies_us),
            joins: seen.joins_us.len(),
            join_us: quantiles(seen.joins_us),
            join_failures: seen.failures.len(),
            failure: seen.failures.into_iter().next_back(),
            broken: seen.broken,
        }
    }
}

impl Figures {
    pub(crate) fn json(&self) -> Value {
        let mbit = |frames: u64| (frames * FRAME_BYTES as u64 * 8) as f64 / 1e6 / self.seconds;
        json!({
            "offered_mbit_s": mbit(self.sent), "received_mbit_s": mbit(self.received),
            "latency_us_p50_p99_max": self.latency_us,
            "joins": self.joins, "join_us_p50_p99_max": self.join_us,
            "join_failures": self.join_failures, "last_failure": self.failure, "broken": self.broken,
        })
    }
}

fn lock(seen: &Mutex<Seen>) -> std::sync::MutexGuard<'_, Seen> {
    seen.lock().unwrap_or_else(PoisonError::into_inner)
}

fn quantiles(mut all: Vec<u32>) -> [u32; 3] {
    all.sort_unstable();
    let at = |percent: usize| all.get((all.len().saturating_sub(1)) * percent / 100).copied().unwrap_or_default();
    [at(50), at(99), at(100)]
}

fn identity(n: u32) -> Arc<Identity> {
    let mut seed = [0x40; 32];
    seed[..4].copy_from_slice(&n.to_be_bytes());
    Arc::new(Identity::from_seed(seed))
}

/// Joins all pairs and starts their traffic; the handles of all.
async fn begin(
    executor: &Rc<LocalExecutor<'static>>,
    target: &Target,
    pairs: usize,
    rate: u64,
    seen: &Arc<Mutex<Seen>>,
) -> Result<Vec<Handle>, String> {
    let mut handles = Vec::new();
    let start = Instant::now();
    for pair in 0..pairs as u32 {
        let from = Ipv4Addr::new(127, 0, 0, 2 + (pair % 200) as u8);
        let a = target.join(from, identity(2 * pair), NETWORK).await?;
        let b = target.join(from, identity(2 * pair + 1), NETWORK).await?;
        let ends = [a.handle(), b.handle()];
        handles.extend(ends);
        for (client, other) in [(a, ends[1]), (b, ends[0])] {
            attach(executor, client, other, start, rate, seen);
        }
    }
    Ok(handles)
}

/// One peer: sends at its rate, takes what comes.
fn attach(executor: &Rc<LocalExecutor<'static>>, client: Client, other: Handle, start: Instant, rate: u64, seen: &Arc<Mutex<Seen>>) {
    let Client { connected, mut sealer, .. } = client;
    let (mut reader, mut writer) = (connected.reader, connected.writer);
    let taken = Arc::clone(seen);
    executor
        .spawn(async move {
            while let Ok(bytes) = reader.next().await {
                if bytes.first() == Some(&TYPE_DLV) {
                    take(&bytes, other, start, &taken);
                }
            }
            lock(&taken).broken += 1;
        })
        .detach();
    let given = Arc::clone(seen);
    executor
        .spawn(async move {
            let (mut sent, begun, mut alive_at) = (0, Instant::now(), Instant::now());
            loop {
                Timer::after(Duration::from_millis(1)).await;
                let due = begun.elapsed().as_micros() as u64 * rate / 1_000_000;
                let count = (due - sent).min(MOST_AT_ONCE);
                sent = due;
                let mut message = Vec::with_capacity(count as usize * (FRAME_BYTES + RECORD_HEADER_LEN));
                for _ in 0..count {
                    let mut payload = vec![0; FRAME_BYTES];
                    payload[0] = TYPE_FRAME;
                    payload[1..9].copy_from_slice(&(start.elapsed().as_nanos() as u64).to_be_bytes());
                    message.extend(forward(other, &payload));
                }
                lock(&given).sent += count;
                if alive_at.elapsed() > Duration::from_secs(10) {
                    alive_at = Instant::now();
                    let alive = sealer.keepalive();
                    if writer.send(alive).await.is_err() {
                        return;
                    }
                }
                if count > 0 && writer.send(message).await.is_err() {
                    return;
                }
            }
        })
        .detach();
}

/// Counts what a message brought from the other one of the pair.
fn take(bytes: &[u8], other: Handle, start: Instant, seen: &Mutex<Seen>) {
    let now = start.elapsed().as_nanos() as u64;
    let mut seen = lock(seen);
    for record in Records::new(bytes).flatten().filter(|record| record.handle == other) {
        let Some(stamp) = record.payload.get(1..9).and_then(|at| at.try_into().ok()) else { continue };
        seen.received += 1;
        seen.latencies_us.push((now.saturating_sub(u64::from_be_bytes(stamp)) / 1_000) as u32);
    }
}

/// Joins and leaves, for ever.
async fn newcomers(target: &Target, seen: &Mutex<Seen>) {
    for n in 0u32.. {
        let from = Ipv4Addr::new(127, 0, 0, 210 + (n % 20) as u8);
        let begun = Instant::now();
        let joined = target.join(from, identity(1_000_000 + n), NETWORK + 1).await;
        let took = begun.elapsed().as_micros() as u32;
        match joined {
            Ok(mut client) => {
                lock(seen).joins_us.push(took);
                client.connected.writer.close().await;
            }
            Err(why) => lock(seen).failures.push(why),
        }
        Timer::after(NEWCOMERS_EVERY).await;
    }
}
