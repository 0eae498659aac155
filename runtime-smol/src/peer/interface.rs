//! The interface of a peer: a kernel device or two queues, read in turns.
use super::{Interface, drive::Shared};
use crate::{
    StartError,
    tun::{Device, Shape},
};
use shadowmesh_runtime_std::clock;
use smol::future;
use std::rc::Rc;

/// Packets of a memory interface that are read in one turn before other tasks get theirs.
const TURN_PACKETS: usize = 64;

/// An interface that is open, on its way to the driver's thread.
pub(super) enum Opened {
    Device(Device),
    Memory(super::MemoryInterface),
}

/// Where packets that came over the mesh are written.
pub(super) enum Port {
    Device(Rc<Device>),
    Memory(flume::Sender<Vec<u8>>),
}

/// Where packets for the mesh are read.
pub(super) enum Source {
    Device(Rc<Device>),
    Memory(flume::Receiver<Vec<u8>>),
}

impl Opened {
    pub(super) fn open(interface: Interface) -> Result<Self, StartError> {
        match interface {
            Interface::Memory(memory) => Ok(Self::Memory(memory)),
            Interface::Device { name, layer2, mtu, addresses, mac } => {
                Device::open(&Shape { name, layer2, mtu, addresses, mac }).map(Self::Device)
            }
        }
    }

    /// What people call it.
    pub(super) fn name(&self) -> &str {
        match self {
            Self::Device(device) => device.name(),
            Self::Memory(_) => "memory",
        }
    }

    /// The name of a kernel interface, whose addresses are not candidates.
    pub(super) fn device_name(&self) -> Option<String> {
        match self {
            Self::Device(device) => Some(device.name().to_owned()),
            Self::Memory(_) => None,
        }
    }

    /// Both ends, on the thread that uses them.
    pub(super) fn split(self) -> (Source, Port) {
        match self {
            Self::Device(device) => {
                let device = Rc::new(device);
                (Source::Device(Rc::clone(&device)), Port::Device(device))
            }
            Self::Memory(memory) => (Source::Memory(memory.inbound), Port::Memory(memory.outbound)),
        }
    }
}

impl Port {
    /// Writes one packet; false when it was not taken.
    pub(super) fn write(&self, packet: &[u8]) -> bool {
        match self {
            Self::Device(device) => device.write(packet),
            Self::Memory(queue) => queue.try_send(packet.to_vec()).is_ok(),
        }
    }
}

/// Reads packets into the plane for ever; an error means that the interface is gone.
pub(super) async fn read(shared: Rc<Shared>, source: Source) -> Result<(), String> {
    match source {
        Source::Device(device) => {
            let mut buffer = vec![0; device.buffer_len()];
            loop {
                let turn = device.read(&mut buffer, |packet| shared.packet(clock::now(), packet));
                turn.await.map_err(|why| format!("the interface {} is gone: {why}", device.name()))?;
            }
        }
        Source::Memory(queue) => {
            while let Ok(packet) = queue.recv_async().await {
                shared.packet(clock::now(), &packet);
                for packet in queue.try_iter().take(TURN_PACKETS - 1) {
                    shared.packet(clock::now(), &packet);
                }
                future::yield_now().await;
            }
            // Whoever fed the queue has gone: the peer goes on, with nothing of its own to send.
            Ok(())
        }
    }
}
