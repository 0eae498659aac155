//! The kernel finds the socket of a frame's lane, among those that share a port.
use nix::{
    libc,
    sys::socket::{setsockopt, sockopt::AttachReusePortCbpf},
};
use shadowmesh_core::wire::{LANE_CONTROL_BIT, TYPE_FRAME};
use std::{io, net::UdpSocket};

/// Where the lane stands in a frame: the first byte of its counter (protocol 4.1).
const LANE_AT: u32 = 8;

/// Gives a frame of lane n, or of its control lane, to the n-th socket of the group, of so many; all else, and what is too short, to the
/// first. A kernel that cannot do so spreads them by address, and each lane passes on what is not its own.
///
/// # Errors
/// What the kernel says against it.
pub(super) fn steer(of_group: &UdpSocket, sockets: u8) -> io::Result<()> {
    let mut program = program(u32::from(sockets));
    let program = libc::sock_fprog { len: program.len() as u16, filter: program.as_mut_ptr() };
    Ok(setsockopt(of_group, AttachReusePortCbpf, &program)?)
}

/// The filter looks at the payload; what it returns is the number of a socket. A load from beyond the end returns 0.
fn program(sockets: u32) -> [libc::sock_filter; 7] {
    let step = |code: u32, jt, jf, k| libc::sock_filter { code: code as u16, jt, jf, k };
    let load_byte = libc::BPF_LD | libc::BPF_B | libc::BPF_ABS;
    [
        step(load_byte, 0, 0, 0),
        step(libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K, 0, 3, u32::from(TYPE_FRAME)),
        step(load_byte, 0, 0, LANE_AT),
        step(libc::BPF_ALU | libc::BPF_AND | libc::BPF_K, 0, 0, u32::from(!LANE_CONTROL_BIT)),
        step(libc::BPF_JMP | libc::BPF_JGE | libc::BPF_K, 0, 1, sockets),
        step(libc::BPF_RET | libc::BPF_K, 0, 0, 0),
        step(libc::BPF_RET | BPF_A, 0, 0, 0),
    ]
}

/// Return what is in the accumulator (`BPF_A` of `linux/filter.h`).
const BPF_A: u32 = 0x10;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::udp;
    use core::net::{Ipv4Addr, Ipv6Addr, SocketAddr};

    /// Which of the sockets something came to.
    fn came_to(sockets: &[UdpSocket]) -> Vec<usize> {
        let has_some = |socket: &UdpSocket| udp::receive(socket, &mut [0; 64]).expect("a socket").is_some();
        (0..sockets.len()).filter(|at| has_some(&sockets[*at])).collect()
    }

    // protocol 4.1, 4.3
    #[test]
    fn a_frame_of_lane_n_comes_to_the_nth_socket_and_all_else_to_the_first() {
        for loopback in [SocketAddr::from((Ipv4Addr::LOCALHOST, 0)), SocketAddr::from((Ipv6Addr::LOCALHOST, 0))] {
            let Ok(first) = udp::bind(loopback) else { continue }; // a machine without IPv6
            let mut sockets = vec![first];
            for _ in 1..4 {
                sockets.push(udp::bind_beside(&sockets[0]).expect("the same port"));
            }
            steer(&sockets[0], 4).expect("Linux 4.5");
            let sender = udp::bind(loopback).expect("loopback");
            let to = sockets[0].local_addr().expect("bound");
            let frame = |kind, lane| {
                let mut frame = [0; 33];
                (frame[0], frame[8]) = (kind, lane);
                frame.to_vec()
            };
            let short = vec![TYPE_FRAME; 8];
            let cases = [(0, 0), (1, 1), (2, 2), (3, 3), (4, 0), (0x7e, 0), (0x80, 0), (0x81, 1), (0x83, 3), (0x84, 0), (0xff, 0)];
            let frames = cases.map(|(lane, at)| (frame(TYPE_FRAME, lane), at));
            for (bytes, at) in frames.into_iter().chain([(frame(0x20, 2), 0), (short, 0), (Vec::new(), 0)]) {
                udp::send(&sender, to, &bytes).expect("loopback");
                assert_eq!(came_to(&sockets), [at], "{bytes:02x?}");
            }
        }
    }

    #[test]
    fn a_port_is_shared_only_by_sockets_beside_each_other() {
        let first = udp::bind(SocketAddr::from((Ipv4Addr::LOCALHOST, 0))).expect("any port");
        let beside = udp::bind_beside(&first).expect("the same port");
        let port = first.local_addr().expect("bound");
        assert_eq!(beside.local_addr().expect("bound"), port);
        assert_eq!(udp::bind(port).expect_err("taken").kind(), io::ErrorKind::AddrInUse);
    }
}
