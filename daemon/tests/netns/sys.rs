//! The two system calls that the safe crates in the lock file do not offer: joining a network
//! namespace, and naming an interface to a packet socket.
#![expect(unsafe_code, reason = "setns and sockaddr_ll have no safe form among our dependencies")]

use socket2::{Domain, Protocol, SockAddr, Socket, Type};
use std::fs::File;
use std::io;
use std::os::fd::AsRawFd;

/// Every protocol, outgoing frames included (`ETH_P_ALL`).
pub(crate) const EVERY_ETHERTYPE: u16 = 0x0003;

/// Moves the calling thread, and only it, into the network namespace behind `file`.
pub(crate) fn join_network_namespace(file: &File) -> io::Result<()> {
    // SAFETY: setns takes a descriptor that we hold open and a constant; it touches no memory of ours.
    let result = unsafe { libc::setns(file.as_raw_fd(), libc::CLONE_NEWNET) };
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

/// A raw packet socket of the calling thread's namespace.
///
/// With a single ethertype the kernel hands over incoming frames only, so a frame that comes back to
/// its sender is seen and the frame on its way out is not.
pub(crate) fn packet_socket(ethertype: u16) -> io::Result<Socket> {
    let socket = Socket::new(Domain::PACKET, Type::RAW, Some(Protocol::from(i32::from(ethertype.to_be()))))?;
    // Best effort: the kernel clamps it to its own limit.
    socket.set_recv_buffer_size(16 << 20)?;
    Ok(socket)
}

/// Sends one whole Ethernet frame out of the interface with this index.
pub(crate) fn send_frame(socket: &Socket, interface_index: i32, frame: &[u8]) -> io::Result<()> {
    // SAFETY: `storage` is zeroed, aligned and large enough for every address family, and the
    // length returned is that of the sockaddr_ll written into it.
    let ((), address) = unsafe {
        SockAddr::try_init(|storage, length| {
            let link = storage.cast::<libc::sockaddr_ll>();
            (*link).sll_family = libc::AF_PACKET as libc::sa_family_t;
            (*link).sll_ifindex = interface_index;
            *length = size_of::<libc::sockaddr_ll>() as libc::socklen_t;
            Ok(())
        })?
    };
    socket.send_to(frame, &address).map(|_| ())
}
