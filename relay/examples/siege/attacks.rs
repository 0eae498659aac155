//! What attackers do. Each attack is a number of tasks that end when they are dropped, and a tally of what they achieved.
use super::{
    client::{Client, Target, forward, source},
    honest::NETWORK,
    raw::{REQUEST, Raw, frame},
};
use shadowmesh_core::{
    crypto::Identity,
    id::{Handle, PeerId},
    wire::{RelayMessage, TYPE_FRAME, TYPE_INIT},
};
use smol::{Task, Timer};
use std::{
    io,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

/// Bytes of an INIT.
const INIT_BYTES: usize = 1_654;
/// A slow one's pause between two bytes.
const SLOWLY: Duration = Duration::from_millis(150);
/// An attacker who was shown out comes back after so long.
const BACK_AFTER: Duration = Duration::from_millis(100);
/// Bytes of a message as large as the relay takes.
const LARGE_BYTES: usize = 60 * 1024;

/// What attackers achieved.
#[derive(Default)]
pub(crate) struct Tally {
    /// Messages or connections that went out.
    pub(crate) sent: AtomicU64,
    /// Connections that the relay took for a while.
    pub(crate) opened: AtomicU64,
    /// Connections that were refused at once, or ended.
    pub(crate) ended: AtomicU64,
}

impl Tally {
    fn count(counter: &AtomicU64) {
        counter.fetch_add(1, Ordering::Relaxed);
    }

    pub(crate) fn numbers(&self) -> [u64; 3] {
        [&self.sent, &self.opened, &self.ended].map(|counter| counter.load(Ordering::Relaxed))
    }
}

/// How a slow one is slow.
#[derive(Clone, Copy)]
enum Slow {
    Tls,
    Upgrade,
    Init,
}

/// What a hostile member floods.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Flood {
    /// Frames to one honest peer.
    Destination,
    /// Small records to handles that nobody has.
    Unknown,
    /// Sealed questions to the relay.
    Control,
    /// INITs whose mac1 is wrong, to an honest peer and to nobody.
    Inits,
    /// WebSocket pings.
    Pings,
    /// One message in pieces without content, and without an end.
    Pieces,
}

pub(crate) fn identity(n: u32) -> Arc<Identity> {
    let mut seed = [0x60; 32];
    seed[..4].copy_from_slice(&n.to_be_bytes());
    Arc::new(Identity::from_seed(seed))
}

/// Attackers that do the same again and again, `BACK_AFTER` each end.
fn again<F: Future<Output = io::Result<()>> + Send + 'static>(
    count: usize,
    tally: &Arc<Tally>,
    attack: impl Fn(usize, Arc<Tally>) -> F + Clone + Send + Sync + 'static,
) -> Vec<Task<()>> {
    let one = |n| {
        let (tally, attack) = (Arc::clone(tally), attack.clone());
        smol::spawn(async move {
            loop {
                // Whatever ends it, it comes again.
                let _ = attack(n, Arc::clone(&tally)).await;
                Tally::count(&tally.ended);
                Timer::after(BACK_AFTER).await;
            }
        })
    };
    (0..count).map(one).collect()
}

/// Connections that begin a `ClientHello` and say no more; eight from each source.
pub(crate) fn half_open(target: &Target, count: usize, tally: &Arc<Tally>) -> Vec<Task<()>> {
    let target = target.clone();
    again(count, tally, move |n, tally| {
        let target = target.clone();
        async move {
            let mut raw = Raw::connect(&target, source(n / 8)).await?;
            let hello = raw.hello();
            raw.write_plain(&hello[..hello.len().min(120)]).await?;
            Tally::count(&tally.opened);
            raw.until_closed().await;
            Ok(())
        }
    })
}

/// Connections that go on, a byte at a time, in TLS, the upgrade or INIT.
pub(crate) fn slow(target: &Target, count: usize, first: usize, tally: &Arc<Tally>) -> Vec<Task<()>> {
    let target = target.clone();
    again(count, tally, move |n, tally| {
        let target = target.clone();
        async move {
            let mut raw = Raw::connect(&target, source(first + n / 8)).await?;
            let how = [Slow::Tls, Slow::Upgrade, Slow::Init][n % 3];
            Tally::count(&tally.opened);
            match how {
                Slow::Tls => {
                    for byte in raw.hello() {
                        raw.write_plain(&[byte]).await?;
                        Timer::after(SLOWLY).await;
                    }
                }
                Slow::Upgrade => {
                    raw.handshake().await?;
                    for byte in REQUEST {
                        raw.write(&[*byte]).await?;
                        Timer::after(SLOWLY).await;
                    }
                }
                Slow::Init => {
                    raw.upgrade().await?;
                    raw.write(&frame(0x02, &[TYPE_INIT])).await?;
                    loop {
                        raw.write(&frame(0x00, &[7])).await?;
                        Timer::after(SLOWLY).await;
                    }
                }
            }
            Ok(())
        }
    })
}

/// Connections that send INITs with a wrong mac1 as fast as they can.
pub(crate) fn inits(target: &Target, count: usize, tally: &Arc<Tally>) -> Vec<Task<()>> {
    let target = target.clone();
    let turn = Arc::new(AtomicU64::new(0));
    again(count, tally, move |_, tally| {
        let (target, turn) = (target.clone(), Arc::clone(&turn));
        async move {
            let mut raw = Raw::connect(&target, source(turn.fetch_add(1, Ordering::Relaxed) as usize % 4_000)).await?;
            raw.upgrade().await?;
            Tally::count(&tally.opened);
            let mut init = vec![0x5a; INIT_BYTES];
            init[0] = TYPE_INIT;
            let message = frame(0x82, &init);
            loop {
                raw.write(&message).await?;
                Tally::count(&tally.sent);
            }
        }
    })
}

/// Established members that flood; what they are sent they read.
pub(crate) async fn floods(
    target: &Target,
    count: usize,
    kinds: &[Flood],
    victims: &[Handle],
    tally: &Arc<Tally>,
) -> Result<Vec<Task<()>>, String> {
    let mut tasks = Vec::new();
    for n in 0..count {
        let kind = kinds[n % kinds.len()];
        let from = source(3_000 + n / 4);
        if matches!(kind, Flood::Pings | Flood::Pieces) {
            // The relay hangs up on who proves nothing: these come back.
            tasks.push(frames_without_messages(target, n, kind, tally));
            continue;
        }
        let client = target.join(from, identity(n as u32), NETWORK).await?;
        Tally::count(&tally.opened);
        tasks.extend(flood(client, kind, victims[n % victims.len()], tally));
    }
    Ok(tasks)
}

/// A connection that sends frames of WebSocket of which no message comes.
fn frames_without_messages(target: &Target, n: usize, kind: Flood, tally: &Arc<Tally>) -> Task<()> {
    let (target, tally) = (target.clone(), Arc::clone(tally));
    smol::spawn(async move {
        loop {
            let attack = async {
                let mut raw = Raw::connect(&target, source(3_000 + n)).await?;
                raw.upgrade().await?;
                Tally::count(&tally.opened);
                let (first, one) = if kind == Flood::Pings { (0x89, 0x89) } else { (0x02, 0x00) };
                raw.write(&frame(first, &[])).await?;
                let many = frame(one, &[]).repeat(2_000);
                loop {
                    raw.write(&many).await?;
                    tally.sent.fetch_add(2_000, Ordering::Relaxed);
                }
            };
            let _ended: io::Result<()> = attack.await;
            Tally::count(&tally.ended);
            Timer::after(BACK_AFTER).await;
        }
    })
}

/// What one member sends, in turn: as large as messages may be.
fn messages(kind: Flood, victim: Handle) -> Vec<Vec<u8>> {
    let many = |record: Vec<u8>| record.repeat(LARGE_BYTES / record.len());
    let mut init = vec![0x5a; INIT_BYTES];
    init[0] = TYPE_INIT;
    match kind {
        Flood::Destination => vec![many(forward(victim, &[&[TYPE_FRAME][..], &[0; 1_199]].concat()))],
        Flood::Unknown => vec![many(forward(Handle(0x7fff_ffff), &[TYPE_FRAME]))],
        Flood::Inits => vec![forward(victim, &init), forward(Handle(0x7fff_ffff), &init)],
        Flood::Control | Flood::Pings | Flood::Pieces => Vec::new(),
    }
}

fn flood(client: Client, kind: Flood, victim: Handle, tally: &Arc<Tally>) -> [Task<()>; 2] {
    let Client { connected, mut sealer, .. } = client;
    let (mut reader, mut writer) = (connected.reader, connected.writer);
    let ended = Arc::clone(tally);
    let reading = smol::spawn(async move {
        while reader.next().await.is_ok() {}
        Tally::count(&ended.ended);
    });
    let tally = Arc::clone(tally);
    let writing = smol::spawn(async move {
        let messages = messages(kind, victim);
        for n in 0u64.. {
            let message = match messages.get(n as usize % messages.len().max(1)) {
                Some(message) => message.clone(),
                None => sealer.seal(&RelayMessage::Lookup { peer: PeerId([n as u8; 32]) }),
            };
            if writer.send(message).await.is_err() {
                return;
            }
            Tally::count(&tally.sent);
        }
    });
    [reading, writing]
}

/// Clients that take nothing, each with another that sends to it.
pub(crate) async fn slow_consumers(target: &Target, count: usize, tally: &Arc<Tally>) -> Result<Vec<Task<()>>, String> {
    let mut pairs = Vec::new();
    for n in 0..count {
        let (from, network) = (source(3_500 + n / 4), 1_000 + n as u32 / 50);
        let deaf = target.join(from, identity(100_000 + n as u32), network).await?;
        let sender = target.join(from, identity(200_000 + n as u32), network).await?;
        Tally::count(&tally.opened);
        pairs.push((deaf, sender));
    }
    let mut tasks = Vec::new();
    for (deaf, sender) in pairs {
        let [reading, writing] = flood(sender, Flood::Destination, deaf.handle(), tally);
        // Held, and a byte of it read now and then is all that it takes.
        let holding = smol::spawn(async move {
            let mut deaf = deaf;
            loop {
                Timer::after(Duration::from_secs(1)).await;
                if deaf.connected.reader.next().await.is_err() {
                    return;
                }
            }
        });
        tasks.extend([reading, writing, holding]);
    }
    Ok(tasks)
}
