//! A relay on blocking threads.
use super::{
    drive::{Driven, Errand, drive},
    poll::Token,
    pumps::Pumps,
};
use crate::{
    StartError, clock,
    listen::Bounds,
    relay::{Command, Control, Relay, RelayOptions, Seat, Setup},
    room::Doors,
};
use shadowmesh_core::{crypto::Provider, handshake::Job, id::ConnId};
use std::{io, sync::Arc};

/// Binds all addresses, then starts a thread of its own that runs the hub, its forwarder and all connections.
///
/// # Errors
/// A sentence: an address in use, no permission for a low port.
pub fn start(options: RelayOptions) -> Result<Relay, StartError> {
    Setup::new(options)?.launch(run)
}

type RelayRoom = Control<ThreadDoors>;

/// What the control room wants done, done by this thread and its workers.
struct ThreadDoors {
    pumps: Pumps<RelayRoom>,
    /// By place: whether a UDP socket may have datagrams.
    readable: Vec<bool>,
}

/// Runs a relay to its end.
fn run(mut seat: Seat, commands: flume::Receiver<Command>) -> Result<(), String> {
    let unusable = |why: io::Error| format!("cannot wait for the network: {why}");
    let (errands, handed_in) = flume::unbounded::<Errand<RelayRoom>>();
    let mut pumps = Pumps::new(errands).map_err(unusable)?;
    for listener in core::mem::take(&mut seat.listeners) {
        pumps.listen(listener, Arc::clone(&seat.server_config), seat.bounds).map_err(unusable)?;
    }
    for (number, socket) in (0..).zip(seat.sockets()) {
        pumps.poll().watch(socket, Token::Datagrams(number)).map_err(unusable)?;
    }
    let readable = seat.sockets().map(|_| true).collect();
    drive(seat.control(clock::now(), ThreadDoors { pumps, readable }), commands, handed_in)
}

impl Driven for RelayRoom {
    fn pumps(&mut self) -> &mut Pumps<Self> {
        &mut self.doors().pumps
    }

    fn datagrams_ready(&mut self, number: u32, _writable: bool) {
        if let Some(readable) = self.doors().readable.get_mut(number as usize) {
            *readable = true;
        }
    }

    fn read_datagrams(&mut self) -> bool {
        let mut more = false;
        for place in 0..self.doors().readable.len() {
            if self.doors().readable[place] {
                let left = self.datagrams(clock::now(), place).unwrap_or_else(|why| {
                    tracing::warn!(%why, "a UDP socket cannot be read");
                    false
                });
                self.doors().readable[place] = left;
                more |= left;
            }
        }
        more
    }
}

impl Doors for ThreadDoors {
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
