//! The interface of a peer: a kernel device or two queues, read in turns.
use shadowmesh_core::offload::{Joins, Offload};
use shadowmesh_runtime_std::{
    StartError,
    peer::{Interface, MemoryInterface, deliver_to_memory},
    room::TURN_PACKETS,
    tun::{Device, Shape},
};
use smol::{Async, future};
use std::{io, rc::Rc};

/// An interface that is open, on its way to the driver's thread.
pub(crate) enum Opened {
    Device(Device),
    Memory(MemoryInterface),
}

/// Where packets that came over the mesh are written.
pub(crate) enum Port {
    Device(Rc<Async<Device>>),
    Memory(flume::Sender<Vec<u8>>),
}

/// Where packets for the mesh are read.
pub(crate) enum Source {
    Device(Rc<Async<Device>>),
    Memory(flume::Receiver<Vec<u8>>),
}

impl Opened {
    pub(crate) fn open(interface: Interface) -> Result<Self, StartError> {
        match interface {
            Interface::Memory(memory) => Ok(Self::Memory(memory)),
            Interface::Device { name, layer2, mtu, addresses, mac, queues } => {
                Device::open(&Shape { name, layer2, mtu, addresses, mac, queues }).map(Self::Device)
            }
        }
    }

    /// The name of a kernel interface.
    pub(crate) fn device_name(&self) -> Option<String> {
        match self {
            Self::Device(device) => Some(device.name().to_owned()),
            Self::Memory(_) => None,
        }
    }

    /// The queues of a kernel interface beside the first.
    pub(crate) fn take_queues(&mut self) -> Vec<Device> {
        match self {
            Self::Device(device) => device.take_queues(),
            Self::Memory(_) => Vec::new(),
        }
    }

    /// Both ends, on the thread that uses them.
    pub(crate) fn split(self) -> io::Result<(Source, Port)> {
        match self {
            Self::Device(device) => {
                let device = Rc::new(Async::new_nonblocking(device)?);
                Ok((Source::Device(Rc::clone(&device)), Port::Device(device)))
            }
            Self::Memory(memory) => Ok((Source::Memory(memory.inbound), Port::Memory(memory.outbound))),
        }
    }
}

impl Port {
    /// What it takes joined.
    pub(crate) fn joins(&self) -> Joins {
        match self {
            Self::Device(device) => device.get_ref().joins(),
            Self::Memory(_) => Joins::default(),
        }
    }

    /// Writes one packet.
    pub(crate) fn write(&self, offload: Offload, packet: &[u8]) -> io::Result<()> {
        match self {
            Self::Device(device) => device.get_ref().write(offload, packet),
            Self::Memory(queue) => deliver_to_memory(queue, offload, packet),
        }
    }
}

/// Hands each packet to `take` for ever, which says how many it was, and `None` at the end of each turn; an error means that the interface
/// is gone.
pub(crate) async fn read(source: Source, mut take: impl FnMut(Option<(Offload, &[u8])>) -> usize) -> Result<(), String> {
    match source {
        Source::Device(device) => {
            let mut buffer = vec![0; device.get_ref().buffer_len()];
            loop {
                let turn = read_turn(&device, &mut buffer, &mut take).await;
                turn.map_err(|why| format!("the interface {} is gone: {why}", device.get_ref().name()))?;
            }
        }
        Source::Memory(queue) => {
            while let Ok(packet) = queue.recv_async().await {
                let first = core::iter::once(packet);
                for packet in first.chain(queue.try_iter().take(TURN_PACKETS - 1)) {
                    take(Some((Offload::default(), &packet)));
                }
                take(None);
                future::yield_now().await;
            }
            // Whoever fed the queue has gone: the peer goes on, with nothing of its own to send.
            Ok(())
        }
    }
}

/// Hands the packets that are there to `take`, up to a number, and lets other tasks run; without any, waits until there may be some.
async fn read_turn(device: &Async<Device>, buffer: &mut [u8], take: &mut impl FnMut(Option<(Offload, &[u8])>) -> usize) -> io::Result<()> {
    let taken = read_packets(device.get_ref(), buffer, take)?;
    if taken == 0 {
        return device.readable().await;
    }
    take(None);
    future::yield_now().await;
    Ok(())
}

/// Hands packets to `take`, up to a number, and gives how many there were.
fn read_packets(device: &Device, buffer: &mut [u8], take: &mut impl FnMut(Option<(Offload, &[u8])>) -> usize) -> io::Result<usize> {
    let mut taken = 0;
    while taken < TURN_PACKETS {
        match device.read(buffer) {
            Ok((offload, len)) => taken += take(Some((offload, &buffer[..len]))),
            Err(why) if why.kind() == io::ErrorKind::WouldBlock => break,
            Err(why) => return Err(why),
        }
    }
    Ok(taken)
}
