//! An attacker's tool for the real relay: it starts the program, lays siege to it from outside, and prints what came of it.
//!
//! ```text
//!   siege ─┬─ starts shadowmesh-relay, looks at /proc and at its control socket
//!          ├─ a thread of honest peers: their throughput, latency and joins are the figures
//!          └─ attackers, from hundreds of addresses in 127.1.0.0/16
//! ```
//! `cargo run --release -p shadowmesh-relay --example siege -- --program target/release/shadowmesh-relay half-open`
//! The relay's limits are its defaults and what the environment says (`SHADOWMESH_LIMITS_…`).
#![expect(clippy::print_stdout, clippy::cast_precision_loss, reason = "figures for people")]

mod attacks;
mod client;
mod honest;
mod passing;
mod prey;
mod raw;

use attacks::{Flood, Tally};
use clap::{Parser, ValueEnum};
use client::{Target, source};
use honest::Honest;
use prey::{Look, Prey};
use serde_json::{Value, json};
use smol::{Task, Timer};
use std::{
    path::PathBuf,
    process::ExitCode,
    sync::Arc,
    time::{Duration, Instant},
};

/// How often an idle client says that it is there.
const KEEPALIVE: Duration = Duration::from_secs(20);
/// Clients of one network in the crowd of idle ones.
const CROWD_NETWORK: usize = 50;

#[derive(Parser)]
struct Arguments {
    /// The relay's program
    #[arg(long, default_value = "target/release/shadowmesh-relay")]
    program: PathBuf,
    /// What drives it
    #[arg(long, default_value = "smol")]
    runtime: String,
    /// How many attackers, where the mode has one number
    #[arg(long)]
    count: Option<usize>,
    /// Seconds of the attack
    #[arg(long, default_value_t = 10)]
    seconds: u64,
    /// Honest pairs of peers
    #[arg(long, default_value_t = 5)]
    pairs: usize,
    /// Frames a second that each honest peer sends
    #[arg(long, default_value_t = 500)]
    rate: u64,
    mode: Mode,
}

#[derive(Clone, Copy, ValueEnum)]
enum Mode {
    /// Joined clients that do nothing
    Idle,
    /// Clients that join and leave as fast as they can
    Joins,
    /// What passing frames on costs, by UDP and by WebSocket
    Datagrams,
    /// Connections that begin TLS and say no more
    HalfOpen,
    /// Connections that go on a byte at a time
    Slow,
    /// INITs with a wrong mac1, before any proof
    Inits,
    /// The same from members, to peers
    MemberInits,
    /// Members that flood a destination, unknown handles and the relay itself
    Floods,
    /// Members that flood one honest peer
    Destination,
    /// Members that send records of one byte to nobody
    Unknown,
    /// Members that ask the relay without end
    Control,
    /// WebSocket pings without end
    Pings,
    /// A WebSocket message in pieces without content and without end
    Pieces,
    /// Clients that take almost nothing of what they are sent
    SlowConsumers,
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    raise_descriptors();
    match smol::block_on(lay(&arguments)) {
        Ok(figures) => {
            println!("{figures}");
            ExitCode::SUCCESS
        }
        Err(why) => {
            eprintln!("siege: {why}");
            ExitCode::FAILURE
        }
    }
}

/// As many descriptors as may be.
fn raise_descriptors() {
    use rustix::process::{Resource, getrlimit, setrlimit};
    let mut limit = getrlimit(Resource::Nofile);
    limit.current = limit.maximum;
    // Without it there are fewer attackers, and the figures say how many.
    let _ = setrlimit(Resource::Nofile, limit);
}

async fn lay(arguments: &Arguments) -> Result<Value, String> {
    let prey = Prey::start(&arguments.program, &arguments.runtime)?;
    let target = Target::new(prey.address, prey.id);
    let count = |usual: usize| arguments.count.unwrap_or(usual);
    match arguments.mode {
        Mode::Idle => return idle(&prey, &target, count(10_000), arguments.seconds).await,
        Mode::Datagrams => return passing::measure(&prey, &target, arguments.pairs, arguments.seconds).await,
        Mode::Joins => return joins(&prey, &target, count(64), arguments.seconds).await,
        _ => {}
    }
    let honest = Honest::start(&target, arguments.pairs, arguments.rate)?;
    let span = Duration::from_secs(arguments.seconds);
    Timer::after(Duration::from_secs(1)).await;
    let calm_look = prey.look().await;
    let calm = honest.watch(span / 2).await;
    let before = prey.look().await;
    let tally = Arc::default();
    let tasks = attack(arguments.mode, &target, arguments.count, &honest, &tally).await?;
    let sent = tally.numbers()[0];
    let begun = Instant::now();
    let siege = honest.watch(span).await;
    let took = begun.elapsed().as_secs_f64();
    let during = prey.look().await;
    let sent = tally.numbers()[0] - sent;
    drop(tasks);
    Timer::after(Duration::from_secs(1)).await;
    let after = honest.watch(span / 4).await;
    say("calm", &calm);
    say("siege", &siege);
    say("after", &after);
    println!(
        "relay: {} KiB before, {} KiB under siege (peak {}), {} threads",
        before.rss_kib, during.rss_kib, during.peak_kib, during.threads
    );
    let numbers = tally.numbers();
    println!("attackers: {:.0} messages/s, {} connections taken, {} ended", sent as f64 / took, numbers[1], numbers[2]);
    println!("drops: {:?}{}", during.drops_since(&before), if during.mute { "; it was too busy to say" } else { "" });
    Ok(json!({
        "runtime": arguments.runtime, "calm": calm.json(), "siege": siege.json(), "after": after.json(),
        "rss_kib": { "calm": calm_look.rss_kib, "siege": during.rss_kib, "peak": during.peak_kib }, "threads": during.threads,
        "attack": { "messages_per_s": sent as f64 / took, "taken": numbers[1], "ended": numbers[2] },
        "cpu_percent": { "calm": percent(&calm_look, &before, calm.seconds), "siege": percent(&before, &during, took) },
        "answered": during.answered.saturating_sub(before.answered), "joined": during.joined.saturating_sub(before.joined), "preauth": during.preauth,
        "queue_bytes": during.queue_bytes, "mute": during.mute, "drops": during.drops_since(&before),
    }))
}

fn percent(from: &Look, to: &Look, seconds: f64) -> f64 {
    (to.cpu_ms - from.cpu_ms) as f64 / 10.0 / seconds
}

fn say(when: &str, figures: &honest::Figures) {
    let [p50, p99, most] = figures.latency_us;
    println!(
        "{when:>6}: {} of {} frames in {:.1} s, latency p50 {p50} p99 {p99} most {most} us; {} joins p50 {} p99 {} us, {} failed {:?}",
        figures.received,
        figures.sent,
        figures.seconds,
        figures.joins,
        figures.join_us[0],
        figures.join_us[1],
        figures.join_failures,
        figures.failure,
    );
}

async fn attack(mode: Mode, target: &Target, count: Option<usize>, honest: &Honest, tally: &Arc<Tally>) -> Result<Vec<Task<()>>, String> {
    let victims = &honest.handles;
    let count = |usual| count.unwrap_or(usual);
    let kinds: &[Flood] = match mode {
        Mode::HalfOpen => return Ok(attacks::half_open(target, count(10_000), tally)),
        Mode::Slow => return Ok(attacks::slow(target, count(1_000), 0, tally)),
        Mode::Inits => return Ok(attacks::inits(target, count(200), tally)),
        Mode::SlowConsumers => return attacks::slow_consumers(target, count(300), tally).await,
        Mode::MemberInits => &[Flood::Inits],
        Mode::Destination => &[Flood::Destination],
        Mode::Unknown => &[Flood::Unknown],
        Mode::Control => &[Flood::Control],
        Mode::Pings => return attacks::floods(target, count(8), &[Flood::Pings], victims, tally).await,
        Mode::Pieces => return attacks::floods(target, count(8), &[Flood::Pieces], victims, tally).await,
        Mode::Floods | Mode::Idle | Mode::Joins | Mode::Datagrams => &[Flood::Destination, Flood::Unknown, Flood::Control, Flood::Inits],
    };
    let one = &victims[..if mode as u8 == Mode::Destination as u8 { 1 } else { victims.len() }];
    attacks::floods(target, count(100), kinds, one, tally).await
}

/// Clients that are there: memory, CPU and the price of joining.
async fn idle(prey: &Prey, target: &Target, count: usize, seconds: u64) -> Result<Value, String> {
    let empty = prey.look().await;
    let begun = Instant::now();
    let joins: Vec<_> = (0..16).map(|lane| smol::spawn(join_lane(target.clone(), (lane..count).step_by(16).collect()))).collect();
    let (mut held, mut errors) = (Vec::new(), Vec::new());
    for lane in joins {
        let (alive, failed) = lane.await;
        held.extend(alive);
        errors.extend(failed);
    }
    let took = begun.elapsed().as_secs_f64();
    let joined = held.len();
    Timer::after(Duration::from_secs(3)).await;
    let full = prey.look().await;
    Timer::after(Duration::from_secs(seconds)).await;
    let rested = prey.look().await;
    drop(held);
    let per_client = (rested.rss_kib - empty.rss_kib) as f64 / joined.max(1) as f64;
    let idle_us = (rested.cpu_ms - full.cpu_ms) as f64 * 1e3 / joined.max(1) as f64 / seconds as f64;
    println!("{joined} of {count} joined in {took:.1} s, {} errors {:?}", errors.len(), errors.last());
    println!("memory: {} KiB empty, {} KiB full: {per_client:.1} KiB a client", empty.rss_kib, rested.rss_kib);
    println!("CPU: {idle_us:.1} us a second and client with a keepalive each 20 s; {} clients at the end", rested.clients);
    let cpu = (full.cpu_ms - empty.cpu_ms) as f64 / joined.max(1) as f64;
    let main = (full.main_ms - empty.main_ms) as f64 / joined.max(1) as f64;
    println!("a join: {cpu:.3} ms of CPU, {main:.3} of them on the thread that does all but handshake arithmetic");
    Ok(json!({ "joined": joined, "errors": errors.len(), "seconds": took, "rss_kib_per_client": per_client, "idle_us_per_s": idle_us,
        "join_cpu_ms": cpu, "join_main_ms": main, "clients": rested.clients, "drops": rested.drops, "threads": rested.threads }))
}

/// Joins one after the other; each is kept alive from then on.
async fn join_lane(target: Target, which: Vec<usize>) -> (Vec<[Task<()>; 2]>, Vec<String>) {
    let (mut alive, mut errors) = (Vec::new(), Vec::new());
    for n in which {
        match target.join(source(n / 8), attacks::identity(n as u32), 100 + (n / CROWD_NETWORK) as u32).await {
            Ok(client) => alive.push(keep_alive(client)),
            Err(why) => errors.push(why),
        }
    }
    (alive, errors)
}

/// Reads whatever comes, and says every 20 s that it is there.
fn keep_alive(client: client::Client) -> [Task<()>; 2] {
    let client::Client { connected, mut sealer, .. } = client;
    let (mut reader, mut writer) = (connected.reader, connected.writer);
    let reading = smol::spawn(async move { while reader.next().await.is_ok() {} });
    let writing = smol::spawn(async move {
        loop {
            Timer::after(KEEPALIVE).await;
            if writer.send(sealer.keepalive()).await.is_err() {
                return;
            }
        }
    });
    [reading, writing]
}

/// Clients that join and leave: how many a second, and what each costs.
async fn joins(prey: &Prey, target: &Target, lanes: usize, seconds: u64) -> Result<Value, String> {
    let before = prey.look().await;
    let until = Instant::now() + Duration::from_secs(seconds);
    let lane = |lane: usize| {
        let target = target.clone();
        smol::spawn(async move {
            let (mut done, mut errors) = (0u64, Vec::new());
            while Instant::now() < until {
                let network = 100 + lane as u32;
                match target.join(source(lane), attacks::identity(lane as u32), network).await {
                    Ok(mut client) => {
                        done += 1;
                        client.connected.writer.close().await;
                    }
                    Err(why) => errors.push(why),
                }
            }
            (done, errors)
        })
    };
    let (mut done, mut errors) = (0, Vec::new());
    for task in (0..lanes).map(lane).collect::<Vec<_>>() {
        let (some, failed) = task.await;
        done += some;
        errors.extend(failed);
    }
    let after = prey.look().await;
    let each = |ms: u64| ms as f64 / done.max(1) as f64;
    let (cpu, main) = (each(after.cpu_ms - before.cpu_ms), each(after.main_ms - before.main_ms));
    println!("{:.0} joins/s, {} errors {:?}", done as f64 / seconds as f64, errors.len(), errors.last());
    println!("a join and a leave: {cpu:.3} ms of CPU ({:.0} a second and core), {main:.3} of them on the one thread", 1e3 / cpu);
    Ok(json!({ "joins_per_s": done as f64 / seconds as f64, "errors": errors.len(), "join_cpu_ms": cpu, "join_main_ms": main,
        "rss_kib": after.rss_kib, "drops": after.drops_since(&before) }))
}
