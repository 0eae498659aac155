//! Connections of a relay: the door, both pumps, and how they end.
use super::{
    drive::{Drive, Shared},
    wires::Pending,
};
use crate::{
    bell::Bell,
    listen::{Accepted, Door},
    ws::{Reader, Writer},
};
use core::{net::SocketAddr, time::Duration};
use shadowmesh_core::{event::Ended, id::ConnId};
use shadowmesh_runtime_std::clock;
use smol::{Task, Timer, future};
use std::{cell::Cell, rc::Rc};

/// How long a connection that is hung up may take to send what waits (protocol 9).
const FLUSH_WITHIN: Duration = Duration::from_secs(1);

/// Messages that a pump moves before other tasks get their turn.
const TURN_MESSAGES: usize = 16;

/// One connection: its pumps stop when this is dropped.
pub(super) struct Conn {
    bell: Bell,
    closing: Rc<Cell<bool>>,
    reader: Option<Task<()>>,
    #[expect(dead_code, reason = "held so that dropping the connection stops its writer")]
    writer: Task<()>,
    watchdog: Option<Task<()>>,
}

/// Starts the writer of a new connection; the reader follows when the hub knows it.
pub(super) fn open(shared: &Rc<Shared>, drive: &mut Drive, conn: ConnId, writer: Writer) {
    let (bell, closing) = (Bell::default(), Rc::new(Cell::new(false)));
    drive.wires.bells.insert(conn, bell.clone());
    let task = shared.spawn(write(Rc::clone(shared), conn, writer, bell.clone(), Rc::clone(&closing)));
    drive.conns.insert(conn, Conn { bell, closing, reader: None, writer: task, watchdog: None });
}

/// Starts the reader, unless the hub has hung up already.
pub(super) fn listen_to(shared: &Rc<Shared>, drive: &mut Drive, conn: ConnId, reader: Reader) {
    if let Some(entry) = drive.conns.get_mut(&conn)
        && !entry.closing.get()
    {
        entry.reader = Some(shared.spawn(read(Rc::clone(shared), conn, reader)));
    }
}

/// Lets the writer send what waits, for a moment, and then closes.
pub(super) fn hang_up(shared: &Rc<Shared>, drive: &mut Drive, conn: ConnId) {
    let Some(entry) = drive.conns.get_mut(&conn) else {
        return; // closed meanwhile: the hub hears or has heard so
    };
    entry.reader = None;
    entry.closing.set(true);
    entry.bell.ring();
    let shared_too = Rc::clone(shared);
    entry.watchdog = Some(shared.spawn(async move {
        Timer::after(FLUSH_WITHIN).await;
        shared_too.closed(conn);
    }));
}

/// Hands each message to the forwarder until the connection ends.
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
            Err(why) => {
                tracing::debug!(conn = conn.0, ?why, "a connection ended");
                return shared.closed(conn);
            }
        }
        turn += 1;
        if turn % TURN_MESSAGES == 0 {
            future::yield_now().await;
        }
    }
}

/// Pulls messages from the forwarder until the connection ends or is hung up.
async fn write(shared: Rc<Shared>, conn: ConnId, mut writer: Writer, bell: Bell, closing: Rc<Cell<bool>>) {
    let mut turn = 0;
    loop {
        match shared.next_message(clock::now(), conn) {
            Some(message) => {
                if let Err(why) = writer.send(message).await {
                    tracing::debug!(conn = conn.0, ?why, "a connection ended");
                    return shared.closed(conn);
                }
                turn += 1;
                if turn % TURN_MESSAGES == 0 {
                    future::yield_now().await;
                }
            }
            None if closing.get() => {
                writer.close().await;
                return shared.closed(conn);
            }
            None => bell.wait().await,
        }
    }
}

/// The relay's door: the hub's limits before any TLS work.
pub(super) struct RelayDoor {
    shared: Rc<Shared>,
}

impl RelayDoor {
    pub(super) fn new(shared: Rc<Shared>) -> Self {
        Self { shared }
    }
}

impl Door for RelayDoor {
    fn admit(&self, remote: SocketAddr) -> Result<(), &'static str> {
        self.shared.with(|drive| drive.hub.admit(clock::now(), remote))
    }

    fn accepted(&self, accepted: Accepted) {
        self.shared.with(|drive| drive.wires.post(Pending::Accepted(Box::new(accepted))));
    }

    fn released(&self, remote: SocketAddr, why: Ended) {
        tracing::debug!(%remote, ?why, "a connection came to nothing");
        self.shared.with(|drive| drive.hub.released(remote));
    }
}
