//! Tasks of a machine's connections: how they come to be, their two pumps, how they end.
use crate::{
    bell::Bell,
    drive::{Driven, Shared},
    listen::{self, Accepted, Door},
    ws::{Connected, Reader, Writer},
};
use core::{future::poll_fn, net::SocketAddr, pin::pin};
use rustls::ServerConfig;
use shadowmesh_core::{
    crypto::Provider,
    event::Ended,
    handshake::Job,
    hub::{Refusal, Standing},
    id::ConnId,
};
use shadowmesh_runtime_std::{
    clock,
    listen::{Bounds, Slots},
    room::{Arrival, Next, Room, TURN_MESSAGES},
};
use smol::{Async, Task, future};
use std::{
    collections::BTreeMap,
    net::TcpListener,
    rc::{Rc, Weak},
    sync::Arc,
};

/// The tasks that a later action may stop.
pub(crate) struct Pumps<R> {
    shared: Weak<Shared<R>>,
    bell: Bell,
    conns: BTreeMap<ConnId, Conn>,
    listeners: Vec<(Task<()>, Slots)>,
}

/// One connection: its pumps stop when this is dropped.
struct Conn {
    bell: Bell,
    reader: Option<Task<()>>,
    #[expect(dead_code, reason = "held so that dropping the connection stops its writer")]
    writer: Task<()>,
}

impl<R: Driven> Pumps<R> {
    pub(crate) fn new(shared: Weak<Shared<R>>, bell: Bell) -> Self {
        Self { shared, bell, conns: BTreeMap::new(), listeners: Vec::new() }
    }

    /// Those who share the room with these tasks.
    pub(crate) fn shared(&self) -> Rc<Shared<R>> {
        self.shared.upgrade().expect("the room outlives its doors")
    }

    /// Starts the pumps of a new connection; they run when the room is free.
    pub(crate) fn attach(&mut self, conn: ConnId, reader: Reader, writer: Writer) {
        let (shared, bell) = (self.shared(), Bell::default());
        let reading = shared.spawn(read(Rc::clone(&shared), conn, reader));
        let writing = shared.spawn(write(Rc::clone(&shared), conn, writer, bell.clone()));
        self.conns.insert(conn, Conn { bell, reader: Some(reading), writer: writing });
    }

    pub(crate) fn ring(&self) {
        self.bell.ring();
    }

    pub(crate) fn wake(&self, conn: ConnId) {
        if let Some(conn) = self.conns.get(&conn) {
            conn.bell.ring();
        }
    }

    /// Reads no more; the writer goes on.
    pub(crate) fn hang_up(&mut self, conn: ConnId) {
        if let Some(conn) = self.conns.get_mut(&conn) {
            conn.reader = None;
        }
    }

    pub(crate) fn close(&mut self, conn: ConnId) {
        self.conns.remove(&conn);
    }

    pub(crate) fn listen(&mut self, listener: Async<TcpListener>, config: Arc<ServerConfig>, bounds: Bounds) {
        let shared = self.shared();
        let door = Rc::new(MachineDoor { shared: Rc::clone(&shared) });
        let slots = Slots::new(bounds);
        let task = shared.spawn(listen::serve(listener, config, slots.clone(), door, shared.executor()));
        self.listeners.push((task, slots));
    }

    pub(crate) fn configure(&self, bounds: Bounds) {
        for (_, slots) in &self.listeners {
            slots.configure(bounds);
        }
    }

    pub(crate) fn close_listeners(&mut self) {
        self.listeners.clear();
    }

    pub(crate) fn compute(&self, job: Job, crypto: Arc<dyn Provider>) {
        let shared = self.shared();
        let work = smol::unblock(move || job.run(&*crypto));
        let task = Rc::clone(&shared);
        shared
            .spawn(async move {
                let done = work.await;
                task.with(|room| room.computed(done));
            })
            .detach();
    }
}

/// Hands each message to the room until the connection ends.
async fn read<R: Driven>(shared: Rc<Shared<R>>, conn: ConnId, mut reader: Reader) {
    let mut cost = 0;
    loop {
        match next_or_over(&shared, &mut reader).await {
            Ok(mut message) => cost += shared.with(|room| room.message(clock::now(), conn, &mut message)),
            Err(why) => {
                return shared.with(|room| {
                    room.messages_over();
                    room.closed(conn, why);
                });
            }
        }
        if cost >= TURN_MESSAGES || shared.with(|room| room.is_busy()) {
            shared.with(Room::messages_over);
            future::yield_now().await;
        }
        while cost >= TURN_MESSAGES {
            // One message may cost several turns.
            cost -= TURN_MESSAGES;
            if cost >= TURN_MESSAGES {
                future::yield_now().await;
            }
        }
        while shared.with(|room| room.is_busy()) {
            // The control room is behind: the sender waits in its socket.
            future::yield_now().await;
        }
    }
}

/// The next message. When there is none now, the room hears that it has them all; nothing is tried twice in one turn of this task.
async fn next_or_over<R: Driven>(shared: &Shared<R>, reader: &mut Reader) -> Result<Vec<u8>, Ended> {
    let mut next = pin!(reader.next());
    let mut told = false;
    poll_fn(|context| {
        let polled = next.as_mut().poll(context);
        if polled.is_pending() && !core::mem::replace(&mut told, true) {
            shared.with(Room::messages_over);
        }
        polled
    })
    .await
}

/// Sends what waits until the connection ends or nothing more will come.
async fn write<R: Driven>(shared: Rc<Shared<R>>, conn: ConnId, mut writer: Writer, bell: Bell) {
    let mut turn = 0;
    loop {
        let next = if writer.is_full() { Next::Wait } else { shared.with(|room| room.next(clock::now(), conn)) };
        let done = match next {
            Next::Send(message) => writer.feed(message),
            Next::Close => {
                writer.close().await;
                Err(Ended::ByPeer)
            }
            Next::Wait if writer.is_empty() => {
                bell.wait().await;
                Ok(())
            }
            Next::Wait => writer.flush().await.map(|len| shared.with(|room| room.sent(clock::now(), conn, len))),
        };
        if let Err(why) = done {
            return shared.with(|room| room.closed(conn, why));
        }
        turn += 1;
        if turn % TURN_MESSAGES == 0 {
            future::yield_now().await;
        }
    }
}

/// The door of a machine's listeners.
struct MachineDoor<R> {
    shared: Rc<Shared<R>>,
}

impl<R: Driven> Door for MachineDoor<R> {
    fn announces(&self, remote: SocketAddr) -> bool {
        self.shared.with(|room| room.announces(remote))
    }

    fn misannounced(&self, remote: SocketAddr, why: Ended) {
        self.shared.with(|room| room.misannounced(remote, why));
    }

    fn admit(&self, remote: SocketAddr) -> Result<Standing, Refusal> {
        self.shared.with(|room| room.admit(clock::now(), remote))
    }

    fn accepted(&self, accepted: Accepted) {
        let Accepted { connected, exporter, since } = accepted;
        let Connected { reader, writer, local, remote } = connected;
        self.shared.with(|room| {
            let conn = room.number();
            room.pumps().attach(conn, reader, writer);
            room.accepted(clock::now(), conn, Arrival { exporter, local, remote, since });
        });
    }

    fn released(&self, remote: SocketAddr, why: Ended) {
        self.shared.with(|room| room.released(remote, why));
    }
}
