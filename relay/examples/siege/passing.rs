//! What passing frames on costs the relay: pairs of clients, the same frames by UDP (protocol 8.8) and in WebSocket messages (9.1).
//!
//! ```text
//!   sender ── at most WINDOW frames ahead ──▶ relay ──▶ receiver ── credit ──▶ sender
//! ```
use super::{
    attacks::identity,
    client::{Client, Sealer, Target, forward},
    prey::Prey,
};
use core::{
    cell::Cell,
    net::{Ipv4Addr, SocketAddr},
};
use serde_json::{Value, json};
use shadowmesh_core::{
    id::Handle,
    wire::{Records, RelayMessage, TYPE_DLV, TYPE_FRAME},
};
use shadowmesh_runtime_smol::ws::Writer;
use shadowmesh_runtime_std::udp::{self, RunBuffer};
use smol::{Async, LocalExecutor, Timer, future, lock::Mutex};
use std::{
    net::UdpSocket,
    rc::Rc,
    time::{Duration, Instant},
};

/// Small and full-size frames, in bytes.
const SIZES: [usize; 2] = [64, 1_400];
/// Frames that go at once: alone, and as a busy sender has them.
const RUNS: [usize; 2] = [1, 40];
/// Frames of a pair under way: less than a socket's buffer holds.
const WINDOW: u64 = 200;
/// Frames that did not come in so long are lost.
const LOST_AFTER: Duration = Duration::from_millis(100);
/// The receiver number that all senders name.
const RECEIVER: u32 = 50;

/// A pair's frames in one direction.
#[derive(Default)]
struct Flow {
    sent: Cell<u64>,
    received: Cell<u64>,
    lost: Cell<u64>,
}

impl Flow {
    /// What was given up may still come.
    fn under_way(&self) -> u64 {
        self.sent.get().saturating_sub(self.received.get() + self.lost.get())
    }

    fn give_up(&self) {
        self.lost.set(self.lost.get() + self.under_way());
    }
}

/// How a pair's frames go: how long each is, and how many go at once.
#[derive(Clone, Copy)]
struct Manner {
    by_udp: bool,
    bytes: usize,
    run: usize,
}

/// The sending end of a pair.
struct Sender {
    writer: Writer,
    socket: Async<UdpSocket>,
    relay: SocketAddr,
    other: Handle,
}

/// One pair at work.
struct Pair {
    flow: Rc<Flow>,
    sender: Rc<Mutex<Sender>>,
    credit: flume::Receiver<()>,
}

/// Measures each manner for so long.
pub(crate) async fn measure(prey: &Prey, target: &Target, pairs: usize, seconds: u64) -> Result<Value, String> {
    let executor = Rc::new(LocalExecutor::new());
    let work = async {
        let mut all = Vec::new();
        for pair in 0..pairs {
            all.push(begin(&executor, target, pair as u32).await?);
        }
        let mut figures = Vec::new();
        for bytes in SIZES {
            for run in RUNS {
                for by_udp in [true, false] {
                    let manner = Manner { by_udp, bytes, run };
                    figures.push(run_for(&executor, prey, &all, manner, seconds).await);
                }
            }
        }
        Ok(Value::Array(figures))
    };
    executor.run(work).await
}

/// A pair that has joined, is there by UDP, and takes what comes.
async fn begin(executor: &Rc<LocalExecutor<'static>>, target: &Target, pair: u32) -> Result<Pair, String> {
    let from = Ipv4Addr::new(127, 0, 0, 2 + (pair % 200) as u8);
    let (mut a, mut b) = (target.join(from, identity(2 * pair), pair).await?, target.join(from, identity(2 * pair + 1), pair).await?);
    let relay = SocketAddr::new(target.address.ip(), a.established.udp_port);
    let [near, far] = [attach(&mut a, from, relay).await?, attach(&mut b, from, relay).await?];
    let route = a.sealer.seal(&RelayMessage::Route { receiver: RECEIVER, to: b.handle() });
    a.connected.writer.send(route).await.map_err(|why| format!("ROUTE: {why:?}"))?;
    let other = b.handle();
    let (flow, (give, credit)) = (Rc::<Flow>::default(), flume::bounded(1));
    executor.spawn(keep(a.connected.reader)).detach();
    let Client { connected, sealer, .. } = b;
    executor.spawn(stay(connected.writer, sealer)).detach();
    executor.spawn(take_messages(connected.reader, Rc::clone(&flow), give.clone())).detach();
    executor.spawn(take_datagrams(far, Rc::clone(&flow), give)).detach();
    let sender = Rc::new(Mutex::new(Sender { writer: a.connected.writer, socket: near, relay, other }));
    Ok(Pair { flow, sender, credit })
}

/// Asks where a client is, and shows the ticket.
async fn attach(client: &mut Client, from: Ipv4Addr, relay: SocketAddr) -> Result<Async<UdpSocket>, String> {
    let failed = |why: std::io::Error| format!("UDP: {why}");
    let socket = udp::bind(SocketAddr::from((from, 0))).map_err(failed)?;
    udp::join_arrivals(&socket);
    let socket = Async::new(socket).map_err(failed)?;
    socket.send_to(&client.sealer.question(), relay).await.map_err(failed)?;
    let mut answer = [0; 128];
    let (len, _) = socket.recv_from(&mut answer).await.map_err(failed)?;
    let bound = client.sealer.answer(&answer[..len]).ok_or("the relay does not say where a client is")?;
    let attach = client.sealer.seal(&RelayMessage::Attach { address: bound.address, ticket: bound.ticket });
    client.connected.writer.send(attach).await.map_err(|why| format!("ATTACH: {why:?}"))?;
    Ok(socket)
}

/// Reads and forgets.
async fn keep(mut reader: shadowmesh_runtime_smol::ws::Reader) {
    while reader.next().await.is_ok() {}
}

/// Says now and then that it is there.
async fn stay(mut writer: Writer, mut sealer: Sealer) {
    while writer.send(sealer.keepalive()).await.is_ok() {
        Timer::after(Duration::from_secs(20)).await;
    }
}

async fn take_messages(mut reader: shadowmesh_runtime_smol::ws::Reader, flow: Rc<Flow>, credit: flume::Sender<()>) {
    while let Ok(message) = reader.next().await {
        if message.first() == Some(&TYPE_DLV) {
            flow.received.set(flow.received.get() + Records::new(&message).flatten().count() as u64);
            let _ = credit.try_send(());
        }
    }
}

async fn take_datagrams(socket: Async<UdpSocket>, flow: Rc<Flow>, credit: flume::Sender<()>) {
    let mut buffer = RunBuffer::default();
    while socket.readable().await.is_ok() {
        while let Ok(Some((_, datagrams))) = buffer.receive(socket.get_ref()) {
            flow.received.set(flow.received.get() + datagrams.len() as u64);
        }
        let _ = credit.try_send(());
    }
}

/// Sends without a pause, as far as the window goes.
async fn send(pair: (Rc<Flow>, Rc<Mutex<Sender>>, flume::Receiver<()>), manner: Manner) {
    let (flow, sender, credit) = pair;
    let Manner { by_udp, bytes, run } = manner;
    let mut frame = [&[TYPE_FRAME, 0, 0, 0][..], &RECEIVER.to_be_bytes()].concat();
    frame.resize(bytes, 7);
    let mut sender = sender.lock().await;
    let message = if by_udp { frame.repeat(run) } else { forward(sender.other, &frame).repeat(run) };
    loop {
        while flow.under_way() + run as u64 > WINDOW {
            let waited = future::or(async { credit.recv_async().await.is_ok() }, async {
                Timer::after(LOST_AFTER).await;
                false
            });
            if !waited.await {
                flow.give_up();
            }
        }
        let is_sent = if by_udp {
            let (socket, to) = (sender.socket.get_ref(), sender.relay);
            if run == 1 { udp::send(socket, to, &message).is_ok() } else { udp::send_run(socket, to, &message, bytes as u16).is_ok() }
        } else {
            sender.writer.send(message.clone()).await.is_ok()
        };
        if is_sent {
            flow.sent.set(flow.sent.get() + run as u64);
        }
        future::yield_now().await;
    }
}

async fn run_for(executor: &LocalExecutor<'static>, prey: &Prey, pairs: &[Pair], manner: Manner, seconds: u64) -> Value {
    let received = || pairs.iter().map(|pair| pair.flow.received.get()).sum::<u64>();
    let lost = || pairs.iter().map(|pair| pair.flow.lost.get()).sum::<u64>();
    let start = |pair: &Pair| executor.spawn(send((Rc::clone(&pair.flow), Rc::clone(&pair.sender), pair.credit.clone()), manner));
    let tasks: Vec<_> = pairs.iter().map(start).collect();
    Timer::after(Duration::from_millis(500)).await;
    let (before, first, missing, begun) = (prey.look().await, received(), lost(), Instant::now());
    Timer::after(Duration::from_secs(seconds)).await;
    let (frames, took, after) = (received() - first, begun.elapsed().as_secs_f64(), prey.look().await);
    for task in tasks {
        task.cancel().await;
    }
    // what is still under way does not count for the next
    Timer::after(Duration::from_millis(300)).await;
    for pair in pairs {
        pair.flow.give_up();
    }
    let cpu = (after.cpu_ms - before.cpu_ms) as f64 / 1e3;
    let per = |amount: f64| if amount > 0.0 { cpu / amount } else { f64::NAN };
    let (rate, gbytes) = (frames as f64 / took, (frames * manner.bytes as u64) as f64 / 1e9);
    let (per_million, per_gbyte) = (per(frames as f64 / 1e6), per(gbytes));
    let Manner { by_udp, bytes, run } = manner;
    let (way, gbit, share) = (if by_udp { "UDP" } else { "WebSocket" }, gbytes * 8.0 / took, cpu / took * 100.0);
    println!("{way:>9} {bytes:>5} bytes, {run:>2} at once: {rate:>9.0} frames/s, {gbit:>5.2} Gbit/s, {} lost", lost() - missing);
    println!("          relay: {share:.0} % of a core, {per_million:.2} s a million frames, {per_gbyte:.2} s a GB");
    let drops = after.drops_since(&before);
    if !drops.is_empty() {
        println!("          drops: {drops:?}");
    }
    json!({ "by": if by_udp { "udp" } else { "websocket" }, "bytes": bytes, "at_once": run, "frames_per_s": rate, "relay_cpu_s": cpu,
        "cpu_s_per_million_frames": per_million, "cpu_s_per_gbyte": per_gbyte })
}
