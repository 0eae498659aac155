//! The peer's two queues of packets as a device of the TCP/IP stack.
use smoltcp::{
    phy::{Checksum, Device, DeviceCapabilities, Medium, RxToken, TxToken},
    time::Instant,
};
use std::collections::VecDeque;

/// Packets taken out of the peer's queue before the stack looks at them.
const AT_ONCE: usize = 64;

/// Both directions, seen from the stack.
pub(crate) struct Queues {
    from_mesh: flume::Receiver<Vec<u8>>,
    to_mesh: flume::Sender<Vec<u8>>,
    taken: VecDeque<Vec<u8>>,
    mtu: usize,
}

impl Queues {
    /// `mtu`: the longest packet, in bytes.
    pub(crate) fn new(from_mesh: flume::Receiver<Vec<u8>>, to_mesh: flume::Sender<Vec<u8>>, mtu: u16) -> Self {
        Self { from_mesh, to_mesh, taken: VecDeque::new(), mtu: mtu.into() }
    }

    /// Where packets come from.
    pub(crate) fn inbound(&self) -> flume::Receiver<Vec<u8>> {
        self.from_mesh.clone()
    }

    /// A packet that came, and what came with it.
    pub(crate) fn put(&mut self, packet: Vec<u8>) {
        self.taken.push_back(packet);
        self.taken.extend(self.from_mesh.try_iter().take(AT_ONCE));
    }

    /// The peer takes no more for now.
    pub(crate) fn is_full(&self) -> bool {
        self.to_mesh.is_full()
    }
}

impl Device for Queues {
    type RxToken<'a> = Received;
    type TxToken<'a> = Room<'a>;

    fn receive(&mut self, _now: Instant) -> Option<(Received, Room<'_>)> {
        // Each packet may ask for an answer: what cannot be answered yet waits, in the end in the peer's queue.
        if self.is_full() {
            return None;
        }
        let packet = self.taken.pop_front()?;
        Some((Received(packet), Room(&self.to_mesh)))
    }

    fn transmit(&mut self, _now: Instant) -> Option<Room<'_>> {
        (!self.is_full()).then_some(Room(&self.to_mesh))
    }

    fn capabilities(&self) -> DeviceCapabilities {
        let mut capabilities = DeviceCapabilities::default();
        capabilities.medium = Medium::Ip;
        capabilities.max_transmission_unit = self.mtu;
        // What came was opened with its key: its bytes are those that were sent. The other end's stack may look, so ours are right.
        capabilities.checksum.ipv4 = Checksum::Tx;
        capabilities.checksum.tcp = Checksum::Tx;
        capabilities.checksum.udp = Checksum::Tx;
        capabilities
    }
}

/// One packet for the stack.
pub(crate) struct Received(Vec<u8>);

impl RxToken for Received {
    fn consume<R, F: FnOnce(&[u8]) -> R>(self, f: F) -> R {
        f(&self.0)
    }
}

/// Room for one packet of the stack.
pub(crate) struct Room<'a>(&'a flume::Sender<Vec<u8>>);

impl TxToken for Room<'_> {
    fn consume<R, F: FnOnce(&mut [u8]) -> R>(self, len: usize, f: F) -> R {
        let mut packet = vec![0; len];
        let result = f(&mut packet);
        // There was room a moment ago, and nobody else sends; a peer that has ended takes nothing, and nobody misses it.
        let _ = self.0.try_send(packet);
        result
    }
}
