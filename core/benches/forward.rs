//! How many frames a second one `Forwarder` moves, in one thread and without I/O: `cargo bench -p shadowmesh-core --bench forward`.
//!
//! One source sends WebSocket messages of several records to one client, which takes them at once, as a relay's pumps do.
#![expect(clippy::disallowed_types, reason = "a bench measures by the clock")]
#![expect(clippy::cast_precision_loss, reason = "figures for people")]
use shadowmesh_core::{
    config::Limits,
    hub::{ForwardEdit, ForwardSink, Forwarder},
    id::{ConnId, Handle},
    time::Instant,
    wire::{Record, TYPE_FRAME, TYPE_FWD},
};
use std::{fmt::Write as _, hint::black_box, time};

/// Each figure is the best of so many rounds: what disturbs a round only ever slows it down.
const ROUNDS: usize = 5;

struct Nobody;

impl ForwardSink for Nobody {
    fn punt(&mut self, _conn: ConnId, _message: &mut [u8]) {}
    fn wake(&mut self, _conn: ConnId) {}
}

fn main() {
    let mut report = String::new();
    for (len, batch) in [(64, 1), (64, 16), (1_300, 1), (1_300, 12)] {
        let seconds = (0..ROUNDS).map(|_| round(len, batch)).fold(f64::MAX, f64::min);
        let gbits = len as f64 * 8.0 / seconds / 1e9;
        _ = writeln!(
            report,
            "{len:>5} B, {batch:>2} a message: {:>6.2} M frames/s, {gbits:>6.2} Gbit/s, {:>5.0} ns a frame",
            1e-6 / seconds,
            seconds * 1e9
        );
    }
    std::io::Write::write_all(&mut std::io::stdout(), report.as_bytes()).expect("stdout takes the report");
}

/// Seconds a frame.
fn round(len: usize, batch: usize) -> f64 {
    const FRAMES: usize = 400_000;
    let mut forwarder = Forwarder::new(&Limits::default());
    let (from, to) = (ConnId(1), ConnId(3));
    for (conn, handle) in [(from, Handle(1)), (to, Handle(2))] {
        forwarder.apply(Instant::ZERO, ForwardEdit::open(conn));
        forwarder.apply(Instant::ZERO, ForwardEdit::join(conn, handle, 1));
    }
    let mut message = Vec::new();
    let payload = vec![TYPE_FRAME; len];
    for _ in 0..batch {
        Record { kind: TYPE_FWD, flags: 0, handle: Handle(2), payload: &payload }.emit(&mut message);
    }
    let mut out = Vec::with_capacity(64 * 1024);
    let start = time::Instant::now();
    for n in 0..FRAMES / batch {
        let now = Instant::from_nanos(n as u64 * 100);
        forwarder.inbound(now, from, black_box(&mut message), &mut Nobody);
        while forwarder.next_message(now, to, &mut out) {
            black_box(&out);
        }
    }
    let seconds = start.elapsed().as_secs_f64() / FRAMES as f64;
    let stats = forwarder.stats();
    assert_eq!(stats.tx_frames as usize, FRAMES / batch * batch, "nothing was dropped");
    seconds
}
