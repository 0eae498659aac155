//! CPU time of a TLS 1.3 handshake with ML-KEM-1024 and ML-DSA-87, both sides together, in memory.
//!
//! `cargo bench -p shadowmesh-runtime-std --bench tls`
use rustls::{ClientConnection, ServerConnection};
use shadowmesh_core::crypto::Identity;
use shadowmesh_runtime_std::{clock, tls};
use std::{
    io::Write,
    sync::Arc,
    time::{Duration, SystemTime},
};

const ROUNDS: u32 = 500;

fn main() {
    let identity = Identity::from_seed([1; 32]);
    let store = tls::CertStore::new(&identity, Duration::from_hours(24), clock::now(), SystemTime::now())
        .expect("the identity key signs certificates");
    let server = tls::server_config(store);
    let client = tls::client_config(Some(identity.id()), false);
    let (mut client_bytes, mut server_bytes) = (0, 0);
    let mut took = Vec::new();
    for _ in 0..ROUNDS {
        let name = tls::server_name("relay.example").expect("a host name");
        let mut c = ClientConnection::new(Arc::clone(&client), name).expect("client");
        let mut s = ServerConnection::new(Arc::clone(&server)).expect("server");
        let before = cpu_time();
        (client_bytes, server_bytes) = run(&mut c, &mut s);
        took.push(cpu_time().saturating_sub(before));
        assert!(!c.is_handshaking() && !s.is_handshaking(), "the handshake is done");
    }
    took.sort();
    let micros = |at: usize| took[at].as_secs_f64() * 1e6;
    let line = format!(
        "TLS handshake, both sides: median {:.0} us, p10 {:.0} us, p90 {:.0} us CPU; {client_bytes} B from the client, {server_bytes} B from the server\n",
        micros(took.len() / 2),
        micros(took.len() / 10),
        micros(took.len() * 9 / 10),
    );
    std::io::stdout().write_all(line.as_bytes()).expect("stdout is open");
}

fn run(client: &mut ClientConnection, server: &mut ServerConnection) -> (usize, usize) {
    let (mut up, mut down) = (0, 0);
    while client.wants_write() || server.wants_write() {
        let mut wire = Vec::new();
        client.write_tls(&mut wire).expect("a vector takes all");
        up += wire.len();
        server.read_tls(&mut &wire[..]).expect("a slice gives all");
        server.process_new_packets().expect("a good client");
        let mut wire = Vec::new();
        while server.wants_write() {
            server.write_tls(&mut wire).expect("a vector takes all");
        }
        down += wire.len();
        let mut rest = &wire[..];
        while !rest.is_empty() {
            client.read_tls(&mut rest).expect("a slice gives all");
            client.process_new_packets().expect("a good server");
        }
    }
    (up, down)
}

fn cpu_time() -> Duration {
    let time = rustix::time::clock_gettime(rustix::time::ClockId::ThreadCPUTime);
    Duration::new(u64::try_from(time.tv_sec).unwrap_or(0), u32::try_from(time.tv_nsec).unwrap_or(0))
}
