//! Further queues of a device, and one to write to.
//!
//! ```text
//!   kernel: hash of a packet's flow, the same both ways ─▶ queue 0 ─▶ thread 0
//!                                                       ─▶ queue 1 ─▶ thread 1 …
//!   all threads ─▶ a queue that is detached ─▶ kernel
//! ```
//! A packet that is written to a queue makes the kernel put what answers it into that queue, so two ends that choose by each other can drive
//! a flow to and fro between queues, and its packets out of their order. What is written to a detached queue moves nothing (Linux,
//! Documentation/networking/tuntap.rst): a flow stays where its hash puts it.
use std::{
    io,
    os::fd::{AsFd, BorrowedFd},
    sync::Arc,
};
use tun_rs::SyncDevice;

/// Asks the kernel to give a queue packets no more (`TUNSETQUEUE` of `linux/if_tun.h`).
const TUNSETQUEUE: rustix::ioctl::Opcode = rustix::ioctl::opcode::write::<i32>(b'T', 217);
const IFF_DETACH_QUEUE: i16 = 0x0400;

/// A name, which this request does not look at, and flags: `struct ifreq`.
#[repr(C)]
struct Request {
    name: [u8; 16],
    flags: i16,
    rest: [u8; 22],
}

/// What a device has beside its first queue.
pub(super) struct Queues {
    /// Where all write, if there is more than one queue.
    pub(super) writer: Option<Arc<SyncDevice>>,
    pub(super) others: Vec<SyncDevice>,
}

/// Opens the queues of a device beside its first one.
pub(super) fn open(first: &SyncDevice, queues: u8) -> io::Result<Queues> {
    if queues < 2 {
        return Ok(Queues { writer: None, others: Vec::new() });
    }
    let others = (1..queues).map(|_| another(first)).collect::<io::Result<_>>()?;
    let writer = another(first)?;
    detach(writer.as_fd())?;
    Ok(Queues { writer: Some(Arc::new(writer)), others })
}

fn another(first: &SyncDevice) -> io::Result<SyncDevice> {
    let queue = first.try_clone()?;
    queue.set_nonblocking(true)?;
    Ok(queue)
}

#[expect(unsafe_code, reason = "the request is not among those that our dependencies know")]
fn detach(queue: BorrowedFd<'_>) -> io::Result<()> {
    let request = Request { name: [0; 16], flags: IFF_DETACH_QUEUE, rest: [0; 22] };
    // SAFETY: the descriptor is open for as long as it is borrowed; the kernel reads a `struct ifreq`, 40 bytes, which `Request` is, and
    // writes nothing.
    let done = unsafe { rustix::ioctl::ioctl(queue, rustix::ioctl::Setter::<TUNSETQUEUE, Request>::new(request)) };
    Ok(done?)
}
