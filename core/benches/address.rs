//! How long it takes to find addresses in ESTABLISHED (protocol 6.5); the goal is at most 1 µs.
//!
//! `cargo bench -p shadowmesh-core --bench address` prints nanoseconds for one message, the median of several rounds.
#![allow(
    clippy::print_stdout,
    clippy::disallowed_methods,
    clippy::disallowed_types,
    reason = "a bench reads the clock and writes its figures"
)]
use shadowmesh_core::{
    id::{Handle, PeerId},
    wire::{DirectoryEntry, Established, RelayMessage, addr::AddressField},
};
use std::{
    hint::black_box,
    net::{IpAddr, SocketAddr},
    time::Instant,
};

const ROUNDS: usize = 15;
const CALLS: u32 = 20_000;

fn main() {
    let empty = message(0);
    let page = message(32);
    let address: IpAddr = [203, 0, 113, 7].into();
    report("ESTABLISHED without entries: observed address", || observed(&empty));
    report("ESTABLISHED with 32 entries: observed address", || observed(&page));
    report("ESTABLISHED with 32 entries: all PeerPublicIP", || public(&page));
    report("16-byte field to text", || AddressField::from(black_box(address)).to_string());
}

fn observed(body: &[u8]) -> Option<SocketAddr> {
    match RelayMessage::parse(black_box(body)) {
        Ok(RelayMessage::Established(established)) => Some(established.observed),
        _ => None,
    }
}

fn public(body: &[u8]) -> usize {
    match RelayMessage::parse(black_box(body)) {
        Ok(RelayMessage::Established(established)) => {
            established.entries.iter().filter_map(|entry| entry.public).map(|a| usize::from(a.port())).sum()
        }
        _ => 0,
    }
}

fn message(entries: u32) -> Vec<u8> {
    let entry = |number: u32| DirectoryEntry {
        handle: Handle(number),
        peer: PeerId([number as u8; 32]),
        public: Some(SocketAddr::from(([198, 51, 100, 4], number as u16))),
        supports_direct: true,
        online: true,
    };
    let established = Established {
        session_id: [7; 16],
        your_handle: Handle(1),
        observed: SocketAddr::from(([203, 0, 113, 7], 41_022)),
        keepalive_s: 25,
        max_frame: 9_216,
        window: 256,
        udp_port: 0,
        entries: (0..entries).map(entry).collect(),
    };
    let mut body = Vec::new();
    RelayMessage::Established(established).emit(&mut body);
    body
}

fn report<T>(name: &str, mut call: impl FnMut() -> T) {
    let mut rounds: Vec<u64> = (0..ROUNDS)
        .map(|_| {
            let start = Instant::now();
            for _ in 0..CALLS {
                black_box(call());
            }
            u64::try_from(start.elapsed().as_nanos()).unwrap_or(u64::MAX) / u64::from(CALLS)
        })
        .collect();
    rounds.sort_unstable();
    println!("{name}: {} ns/op", rounds[ROUNDS / 2]);
}
