//! Connections of a peer: how they come to be, their two pumps, how they end.
use super::{
    drive::{ConnTasks, Drive, FLUSH_WITHIN, Shared},
    ports::Pending,
};
use crate::{
    listen::{Accepted, Door},
    outbox::{Next, Outbox},
    ws::{Connected, Reader, Writer},
};
use core::net::SocketAddr;
use shadowmesh_core::{
    event::{Ended, TlsFacts},
    id::ConnId,
};
use shadowmesh_runtime_std::clock;
use smol::{Timer, future};
use std::rc::Rc;

/// Connections that came in by the direct listener, at once (protocol 6: capped).
const ACCEPTED: usize = 256;

/// Messages that a pump moves before other tasks get their turn.
const TURN_MESSAGES: usize = 16;

/// A dial has ended one way or the other.
pub(super) fn dialled(shared: &Rc<Shared>, conn: ConnId, outcome: Result<(Connected, TlsFacts), Ended>) {
    shared.with(|drive| {
        let Some(task) = drive.tasks.dials.remove(&conn) else {
            return; // hung up meanwhile
        };
        task.detach();
        match outcome {
            Ok((connected, tls)) => {
                let (local, remote) = (connected.local, connected.remote);
                drive.ports.post(Pending::Opened { conn, tls, local, remote });
                attach(shared, drive, conn, connected);
            }
            Err(why) => drive.ports.post(Pending::Closed { conn, why }),
        }
    });
}

/// Ends a connection or a dial from this side: what waits is still sent, for a moment. The node hears no more of it.
pub(super) fn hang_up(shared: &Rc<Shared>, drive: &mut Drive, conn: ConnId) {
    drive.tasks.known.remove(&conn);
    drive.tasks.dials.remove(&conn);
    if let Some(outbox) = drive.ports.outboxes.remove(&conn) {
        outbox.finish();
    }
    if let Some(tasks) = drive.tasks.conns.remove(&conn) {
        drop(tasks.reader);
        shared
            .spawn(future::or(tasks.writer, async {
                Timer::after(FLUSH_WITHIN).await;
            }))
            .detach();
    }
}

/// Starts the pumps of a new connection.
fn attach(shared: &Rc<Shared>, drive: &mut Drive, conn: ConnId, connected: Connected) {
    let outbox = Outbox::default();
    drive.ports.outboxes.insert(conn, outbox.clone());
    let reader = shared.spawn(read(Rc::clone(shared), conn, connected.reader));
    let writer = shared.spawn(write(Rc::clone(shared), conn, connected.writer, outbox));
    drive.tasks.conns.insert(conn, ConnTasks { reader, writer });
}

/// Hands each message to the plane until the connection ends.
async fn read(shared: Rc<Shared>, conn: ConnId, mut reader: Reader) {
    let mut turn = 0;
    loop {
        match reader.next().await {
            Ok(mut message) => {
                let mut busy = shared.message(clock::now(), conn, &mut message);
                while busy {
                    // The control room is behind: the sender waits in its socket.
                    future::yield_now().await;
                    busy = shared.is_busy();
                }
            }
            Err(why) => return shared.closed(conn, why),
        }
        turn += 1;
        if turn % TURN_MESSAGES == 0 {
            future::yield_now().await;
        }
    }
}

/// Sends what waits until the connection ends or is hung up.
async fn write(shared: Rc<Shared>, conn: ConnId, mut writer: Writer, outbox: Outbox) {
    let mut turn = 0;
    loop {
        match outbox.next().await {
            Next::Send(message) => {
                let len = message.len();
                if let Err(why) = writer.send(message).await {
                    return shared.closed(conn, why);
                }
                outbox.sent(len);
                shared.writable(clock::now(), conn);
                turn += 1;
                if turn % TURN_MESSAGES == 0 {
                    future::yield_now().await;
                }
            }
            Next::Close => return writer.close().await,
        }
    }
}

/// The direct listener's door: who comes in is proven later, by the re-handshake (protocol 5).
pub(super) struct PeerDoor {
    shared: Rc<Shared>,
}

impl PeerDoor {
    pub(super) fn new(shared: Rc<Shared>) -> Self {
        Self { shared }
    }
}

impl Door for PeerDoor {
    fn admit(&self, _remote: SocketAddr) -> Result<(), &'static str> {
        // Numbers that this driver gives out are odd.
        let open = self.shared.with(|drive| drive.ports.outboxes.keys().filter(|c| c.0 % 2 == 1).count());
        if open < ACCEPTED { Ok(()) } else { Err("too many direct connections") }
    }

    fn accepted(&self, accepted: Accepted) {
        let Accepted { connected, exporter } = accepted;
        self.shared.with(|drive| {
            let conn = ConnId(2 * drive.tasks.accepted + 1);
            drive.tasks.accepted += 1;
            drive.tasks.known.insert(conn);
            let (local, remote) = (connected.local, connected.remote);
            drive.ports.post(Pending::Accepted { conn, exporter, local, remote });
            attach(&self.shared, drive, conn, connected);
        });
    }

    fn released(&self, remote: SocketAddr, why: Ended) {
        tracing::debug!(%remote, ?why, "a direct connection came to nothing");
    }
}
