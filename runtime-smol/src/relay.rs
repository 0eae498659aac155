//! A relay on smol.
use crate::{
    drive::{Driven, Shared},
    pumps::Pumps,
};
use shadowmesh_core::{crypto::Provider, handshake::Job, id::ConnId};
pub use shadowmesh_runtime_std::relay::{Relay, RelayOptions};
use shadowmesh_runtime_std::{
    StartError, clock,
    listen::Bounds,
    relay::{Command, Control, Seat, Setup},
    room::Doors,
};
use smol::{Async, LocalExecutor, future};
use std::{net::UdpSocket, rc::Rc, sync::Arc};

/// Binds all addresses, then starts a thread of its own that runs the hub, its forwarder and the pumps.
///
/// # Errors
/// A sentence: an address in use, no permission for a low port.
pub fn start(options: RelayOptions) -> Result<Relay, StartError> {
    Setup::new(options)?.launch(run)
}

type RelayRoom = Control<TaskDoors>;

/// What the control room wants done, done by tasks.
struct TaskDoors {
    pumps: Pumps<RelayRoom>,
}

/// Runs a relay to its end.
fn run(mut seat: Seat, commands: flume::Receiver<Command>) -> Result<(), String> {
    let executor = Rc::new(LocalExecutor::new());
    let (listeners, config, bounds) = (core::mem::take(&mut seat.listeners), Arc::clone(&seat.server_config), seat.bounds);
    // a second descriptor of each socket, to wait for it
    let sockets = seat.sockets().map(UdpSocket::try_clone).collect::<Result<Vec<_>, _>>();
    let sockets = sockets.map_err(|why| format!("cannot receive datagrams: {why}"))?;
    let shared = Shared::new(&executor, |pumps| seat.control(clock::now(), TaskDoors { pumps }));
    for listener in listeners {
        let listener = Async::new(listener).map_err(|why| format!("cannot listen: {why}"))?;
        shared.with(|room| room.pumps().listen(listener, Arc::clone(&config), bounds));
    }
    for (place, socket) in sockets.into_iter().enumerate() {
        let socket = Async::new(socket).map_err(|why| format!("cannot receive datagrams: {why}"))?;
        shared.spawn(receive(Rc::clone(&shared), place, socket)).detach();
    }
    shared.spawn(Rc::clone(&shared).obey(commands)).detach();
    smol::block_on(executor.run(shared.drive()))
}

/// Lets the room read a UDP socket whenever it has something.
async fn receive(shared: Rc<Shared<RelayRoom>>, place: usize, socket: Async<UdpSocket>) {
    while socket.readable().await.is_ok() {
        loop {
            match shared.with(|room| room.datagrams(clock::now(), place)) {
                Ok(true) => future::yield_now().await,
                Ok(false) => break,
                Err(why) => return tracing::warn!(%why, "a UDP socket cannot be read"),
            }
        }
    }
}

impl Driven for RelayRoom {
    fn pumps(&mut self) -> &mut Pumps<Self> {
        &mut self.doors().pumps
    }
}

impl Doors for TaskDoors {
    fn ring(&mut self) {
        self.pumps.ring();
    }

    fn wake(&mut self, conn: ConnId) {
        self.pumps.wake(conn);
    }

    fn hang_up(&mut self, conn: ConnId) {
        self.pumps.hang_up(conn);
    }

    fn close(&mut self, conn: ConnId) {
        self.pumps.close(conn);
    }

    fn configure(&mut self, bounds: Bounds) {
        self.pumps.configure(bounds);
    }

    fn close_listeners(&mut self) {
        self.pumps.close_listeners();
    }

    fn compute(&mut self, job: Job, crypto: Arc<dyn Provider>) {
        self.pumps.compute(job, crypto);
    }
}
