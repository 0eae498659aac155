//! A peer on smol.
use crate::{
    dial,
    drive::{Driven, Shared},
    interface::{self, Opened, Port},
    pumps::Pumps,
    ws::Connected,
};
use core::{net::SocketAddr, time::Duration};
use rustls::ServerConfig;
use shadowmesh_core::{
    crypto::Provider,
    event::{Ended, Target, TlsFacts},
    handshake::Job,
    id::ConnId,
    offload::{Joins, Offload},
};
pub use shadowmesh_runtime_std::peer::{Interface, MemoryInterface, Peer, PeerOptions};
use shadowmesh_runtime_std::{
    StartError, clock, listen,
    peer::{Command, Control, DOOR, Number, PeerDoors, Seat, Setup},
    room::Doors,
    tunnel::Proxies,
};
use smol::{Async, LocalExecutor, Task, future};
use std::{collections::BTreeMap, io, net::UdpSocket, os::fd::BorrowedFd, rc::Rc, sync::Arc};

/// Starts a thread of its own that runs the node, its data plane and the pumps.
///
/// # Errors
/// A sentence: no permission for the interface, its name taken, the port in use.
pub fn start(options: PeerOptions) -> Result<Peer, StartError> {
    let (setup, interface) = Setup::new(options)?;
    let mut interface = Opened::open(interface)?;
    let (name, queues) = (interface.device_name(), interface.take_queues());
    setup.launch(name.as_deref(), queues, move |seat, commands| run(seat, commands, interface))
}

type PeerRoom = Control<TaskDoors>;

/// What the control room wants done, done by tasks.
struct TaskDoors {
    pumps: Pumps<PeerRoom>,
    dials: BTreeMap<ConnId, Task<()>>,
    port: Port,
    listen_tcp: SocketAddr,
    server_config: Arc<ServerConfig>,
    proxies: Arc<Proxies>,
    /// The UDP sockets, and the tasks that read them.
    sockets: BTreeMap<Number, (Rc<Async<UdpSocket>>, Task<()>)>,
    /// The task that hears of changes of addresses and routes.
    network: Option<Task<()>>,
}

/// Runs a peer to its end.
fn run(seat: Seat, commands: flume::Receiver<Command>, interface: Opened) -> Result<(), String> {
    let executor = Rc::new(LocalExecutor::new());
    let (source, port) = interface.split().map_err(|why| format!("the interface cannot be used: {why}"))?;
    let shared = Shared::new(&executor, |pumps| {
        let (listen_tcp, server_config, proxies) = (seat.listen_tcp, Arc::clone(&seat.server_config), Arc::clone(&seat.proxies));
        seat.control(
            clock::now(),
            TaskDoors { pumps, dials: BTreeMap::new(), port, listen_tcp, server_config, proxies, sockets: BTreeMap::new(), network: None },
        )
    });
    shared.spawn(Rc::clone(&shared).obey(commands)).detach();
    let carrying = Rc::clone(&shared);
    shared
        .spawn(async move {
            let take = |packet: Option<(Offload, &[u8])>| {
                carrying.with(|room| {
                    if let Some((offload, packet)) = packet {
                        return room.packet(clock::now(), offload, packet);
                    }
                    room.packets_over();
                    0
                })
            };
            if let Err(why) = interface::read(source, take).await {
                carrying.with(|room| room.interface_gone(why));
            }
        })
        .detach();
    smol::block_on(executor.run(shared.drive()))
}

impl Driven for PeerRoom {
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
        self.dials.remove(&conn);
        self.pumps.hang_up(conn);
    }

    fn close(&mut self, conn: ConnId) {
        self.pumps.close(conn);
    }

    fn close_listeners(&mut self) {
        self.pumps.close_listeners();
    }

    fn compute(&mut self, job: Job, crypto: Arc<dyn Provider>) {
        self.pumps.compute(job, crypto);
    }
}

impl PeerDoors for TaskDoors {
    fn joins(&self) -> Joins {
        self.port.joins()
    }

    fn deliver(&mut self, offload: Offload, packet: &[u8]) -> io::Result<()> {
        self.port.write(offload, packet)
    }

    fn dial(&mut self, conn: ConnId, target: Target, timeout: Duration) {
        let shared = self.pumps.shared();
        let (task, proxies, server) = (Rc::clone(&shared), Arc::clone(&self.proxies), Arc::clone(&self.server_config));
        let dial = shared.spawn(async move {
            let outcome = Box::pin(dial::dial_or_serve(target, &proxies, Some(server), timeout)).await;
            task.with(|room| dialled(room, conn, outcome));
        });
        self.dials.insert(conn, dial);
    }

    fn open_listener(&mut self) -> Option<u16> {
        let opened = listen::bind_any(self.listen_tcp).map_err(|why| why.to_string());
        match opened.and_then(|listener| Async::new(listener).map_err(|why| why.to_string())) {
            Ok(listener) => {
                let port = listener.get_ref().local_addr().ok()?.port();
                self.pumps.listen(listener, Arc::clone(&self.server_config), DOOR);
                Some(port)
            }
            Err(why) => {
                tracing::warn!(%why, "no direct connections can come in");
                None
            }
        }
    }

    fn watch_datagrams(&mut self, number: Number, socket: &UdpSocket) -> io::Result<()> {
        let socket = Rc::new(Async::new(socket.try_clone()?)?);
        let shared = self.pumps.shared();
        let (reading, room) = (Rc::clone(&socket), Rc::clone(&shared));
        let task = shared.spawn(async move {
            while reading.readable().await.is_ok() {
                while room.with(|room| room.datagrams(clock::now(), number)) {
                    future::yield_now().await;
                }
            }
        });
        self.sockets.insert(number, (socket, task));
        Ok(())
    }

    fn unwatch_datagrams(&mut self, number: Number) {
        self.sockets.remove(&number);
    }

    fn watch_network(&mut self, socket: BorrowedFd<'_>) -> io::Result<()> {
        let socket = Async::new(socket.try_clone_to_owned()?)?;
        let shared = self.pumps.shared();
        let room = Rc::clone(&shared);
        self.network = Some(shared.spawn(async move {
            while socket.readable().await.is_ok() {
                match room.with(|room| room.network_changed(clock::now())) {
                    Ok(true) => future::yield_now().await,
                    Ok(false) => {}
                    Err(_) => return,
                }
            }
        }));
        Ok(())
    }

    fn await_datagram_room(&mut self, number: Number) {
        let Some((socket, _)) = self.sockets.get(&number) else { return };
        let socket = Rc::clone(socket);
        let shared = self.pumps.shared();
        let room = Rc::clone(&shared);
        let waiting = async move { while socket.writable().await.is_ok() && room.with(|room| room.datagram_room(clock::now(), number)) {} };
        shared.spawn(waiting).detach();
    }
}

/// A dial has ended one way or the other.
fn dialled(room: &mut PeerRoom, conn: ConnId, outcome: Result<(Connected, TlsFacts), Ended>) {
    let Some(task) = room.doors().dials.remove(&conn) else {
        return; // hung up meanwhile
    };
    task.detach();
    match outcome {
        Ok((connected, tls)) => {
            let Connected { reader, writer, local, remote } = connected;
            room.pumps().attach(conn, reader, writer);
            room.opened(clock::now(), conn, tls, local, remote);
        }
        Err(why) => room.failed(conn, why),
    }
}
