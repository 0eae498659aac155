//! A run on its way out: datagrams of one length to one address, back to back in one buffer; the last may be shorter, and ends it.
pub(super) use crate::udp::is_refusal;
use crate::udp::{self, RUN_BYTES, RUN_DATAGRAMS};
use rustix::io::Errno;
use std::{
    io,
    net::{SocketAddr, UdpSocket},
    slice::Chunks,
};

/// Datagrams that go together.
pub(super) struct Run {
    remote: SocketAddr,
    bytes: Vec<u8>,
    stride: usize,
    /// Bytes at the front that the kernel has.
    sent: usize,
}

/// No room now, or no route: it may be otherwise in a moment.
pub(super) fn is_for_later(why: &io::Error) -> bool {
    why.kind() == io::ErrorKind::WouldBlock || is_without_route(why)
}

/// No route, or no network at all: it may be back in a moment.
pub(super) fn is_without_route(why: &io::Error) -> bool {
    use io::ErrorKind as Kind;
    matches!(why.kind(), Kind::NetworkUnreachable | Kind::NetworkDown | Kind::AddrNotAvailable)
}

impl Run {
    /// A run of one, in a buffer that was used before.
    pub(super) fn new(remote: SocketAddr, datagram: &[u8], mut buffer: Vec<u8>) -> Self {
        buffer.clear();
        buffer.extend_from_slice(datagram);
        Self { remote, bytes: buffer, stride: datagram.len().max(1), sent: 0 }
    }

    /// Adds one more; false when the run is full, has had its shorter last one, or is of shorter ones.
    pub(super) fn add(&mut self, datagram: &[u8]) -> bool {
        let len = self.bytes.len();
        let is_open = len > 0 && len.is_multiple_of(self.stride) && len / self.stride < RUN_DATAGRAMS;
        let fits = !datagram.is_empty() && datagram.len() <= self.stride && len + datagram.len() <= RUN_BYTES;
        if is_open && fits {
            self.bytes.extend_from_slice(datagram);
        }
        is_open && fits
    }

    /// What was not sent yet. An empty datagram is none.
    pub(super) fn datagrams(&self) -> Chunks<'_, u8> {
        self.rest().chunks(self.stride)
    }

    /// Whether a run is a word too large.
    pub(super) fn is_one(&self) -> bool {
        self.rest().len() <= self.stride
    }

    /// Sends all in one call.
    ///
    /// # Errors
    /// Nothing was sent.
    pub(super) fn send_whole(&self, socket: &UdpSocket) -> io::Result<()> {
        let stride = u16::try_from(self.stride).map_err(|_| io::Error::from(Errno::MSGSIZE))?;
        udp::send_run(socket, self.remote, self.rest(), stride)
    }

    /// Sends one by one; how many were sent. Those that the kernel refuses for good are counted.
    ///
    /// # Errors
    /// What is left stays for later.
    pub(super) fn send_each(&mut self, socket: &UdpSocket, lost: &mut u64) -> io::Result<usize> {
        let mut taken = 0;
        while self.sent < self.bytes.len() {
            let end = self.bytes.len().min(self.sent + self.stride);
            match udp::send(socket, self.remote, &self.bytes[self.sent..end]) {
                Ok(()) => taken += 1,
                Err(why) if is_for_later(&why) => return Err(why),
                // too long for the interface, forbidden by a firewall: a network would lose it likewise
                Err(_) => *lost += 1,
            }
            self.sent = end;
        }
        Ok(taken)
    }

    /// The buffer, for another run.
    pub(super) fn into_buffer(self) -> Vec<u8> {
        self.bytes
    }

    fn rest(&self) -> &[u8] {
        &self.bytes[self.sent..]
    }
}

#[cfg(test)]
impl Run {
    /// A run of so many datagrams of a byte, whatever the kernel takes; and its bytes.
    pub(super) fn unbounded(remote: SocketAddr, datagrams: u8) -> (Self, Vec<u8>) {
        let bytes: Vec<u8> = (0..datagrams).collect();
        (Self { remote, bytes: bytes.clone(), stride: 1, sent: 0 }, bytes)
    }
}
