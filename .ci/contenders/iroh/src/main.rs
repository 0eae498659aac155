//! A tunnel made of iroh: what an interface sends goes as QUIC datagrams to one other endpoint, whose address is known. No relay, no discovery.
//!
//! ```text
//! iroh-tunnel key FILE                                       makes a secret key if there is none, and prints the id of it
//! iroh-tunnel run FILE INTERFACE ADDRESS/BITS MTU LISTEN PEER AT      carries packets to the endpoint PEER at the socket address AT
//! ```
//!
//! It is what iroh can do in a tunnel, not what is least work: the kernel hands over and takes runs of TCP segments, datagrams go in and
//! come out of a connection many at a time, and what finds no room waits in the interface's queue. All else is iroh's own default.

use std::{
    env,
    error::Error,
    fs,
    io::{self, Write},
    net::{Ipv4Addr, SocketAddr},
    os::unix::fs::OpenOptionsExt,
    process::ExitCode,
    time::Duration,
};

use bytes::Bytes;
use iroh::{
    Endpoint, EndpointAddr, EndpointId, RelayMode, SecretKey,
    endpoint::{Connection, MtuDiscoveryConfig, QuicTransportConfig, presets},
};
use tun_rs::{AsyncDevice, DeviceBuilder, GROTable, IDEAL_BATCH_SIZE, VIRTIO_NET_HDR_LEN};

type Failure = Box<dyn Error + Send + Sync>;

const PROTOCOL: &[u8] = b"iroh-tunnel/1";
/// What UDP carries on an Ethernet of 1,500 bytes under IPv4.
const UDP_BYTES: u16 = 1472;
/// The largest thing that an interface hands over in one read.
const LARGEST_RUN: usize = VIRTIO_NET_HDR_LEN + 65_535;
/// Before the other end is called again.
const PAUSE: Duration = Duration::from_millis(100);

#[tokio::main]
async fn main() -> ExitCode {
    let arguments: Vec<String> = env::args().skip(1).collect();
    let words: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let result = match words[..] {
        ["key", file] => key(file).and_then(|secret| Ok(writeln!(io::stdout(), "{}", secret.public())?)),
        ["run", file, interface, address, mtu, listen, peer, at] => run(file, interface, address, mtu, listen, peer, at).await,
        _ => Err("iroh-tunnel key FILE | iroh-tunnel run FILE INTERFACE ADDRESS/BITS MTU LISTEN PEER AT".into()),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(why) => {
            let _ = writeln!(io::stderr(), "iroh-tunnel: {why}");
            ExitCode::FAILURE
        }
    }
}

/// The secret key in a file, which is made if there is none.
fn key(file: &str) -> Result<SecretKey, Failure> {
    match fs::read(file) {
        Ok(bytes) => Ok(SecretKey::from_bytes(&bytes.as_slice().try_into()?)),
        Err(why) if why.kind() == io::ErrorKind::NotFound => {
            let secret = SecretKey::generate();
            fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(file)?.write_all(&secret.to_bytes())?;
            Ok(secret)
        }
        Err(why) => Err(why.into()),
    }
}

async fn run(file: &str, interface: &str, address: &str, mtu: &str, listen: &str, peer: &str, at: &str) -> Result<(), Failure> {
    let device = device(interface, address, mtu.parse()?)?;
    let (peer, at): (EndpointId, SocketAddr) = (peer.parse()?, at.parse()?);
    let endpoint = endpoint(key(file)?, listen).await?;
    loop {
        match connection(&endpoint, peer, at).await {
            Ok(connection) => {
                let why = tokio::select! {
                    why = outward(&device, &connection) => why,
                    why = inward(&device, &connection) => why,
                };
                let _ = writeln!(io::stderr(), "the connection ended: {why:?}");
            }
            Err(why) => {
                let _ = writeln!(io::stderr(), "no connection: {why}");
                tokio::time::sleep(PAUSE).await;
            }
        }
    }
}

/// An interface from which runs of TCP segments come as one, and which takes them as one.
fn device(name: &str, address: &str, mtu: u16) -> Result<AsyncDevice, Failure> {
    let (address, bits) = address.split_once('/').ok_or("ADDRESS/BITS")?;
    let (address, bits): (Ipv4Addr, u8) = (address.parse()?, bits.parse()?);
    Ok(DeviceBuilder::new().name(name).ipv4(address, bits, None).mtu(mtu).offload(true).build_async()?)
}

/// An endpoint that knows nobody but whom it is told of, and speaks from one address alone, never through its own tunnel.
async fn endpoint(secret: SecretKey, listen: &str) -> Result<Endpoint, Failure> {
    let mut discovery = MtuDiscoveryConfig::default();
    discovery.upper_bound(UDP_BYTES);
    let transport = QuicTransportConfig::builder().initial_mtu(UDP_BYTES).mtu_discovery_config(Some(discovery)).build();
    let builder = Endpoint::builder(presets::Minimal).secret_key(secret).alpns(vec![PROTOCOL.to_vec()]).transport_config(transport);
    Ok(builder.relay_mode(RelayMode::Disabled).clear_address_lookup().clear_ip_transports().bind_addr(listen)?.bind().await?)
}

/// The end with the smaller id calls; the other one takes no call but that.
async fn connection(endpoint: &Endpoint, peer: EndpointId, at: SocketAddr) -> Result<Connection, Failure> {
    if endpoint.id() < peer {
        return Ok(endpoint.connect(EndpointAddr::new(peer).with_ip_addr(at), PROTOCOL).await?);
    }
    let connection = endpoint.accept().await.ok_or("the endpoint is closed")?.await?;
    if connection.remote_id() != peer {
        connection.close(1u32.into(), b"unknown");
        return Err("somebody else called".into());
    }
    Ok(connection)
}

/// From the interface to the other end.
async fn outward(device: &AsyncDevice, connection: &Connection) -> Result<(), Failure> {
    let (mut run, mut sizes) = (vec![0; LARGEST_RUN], [0; IDEAL_BATCH_SIZE]);
    let mut packets = vec![vec![0; usize::from(UDP_BYTES)]; IDEAL_BATCH_SIZE];
    let mut datagrams = Vec::with_capacity(IDEAL_BATCH_SIZE);
    loop {
        let count = device.recv_multiple(&mut run, &mut packets, &mut sizes, 0).await?;
        let longest = connection.max_datagram_size().ok_or("the other end takes no datagrams")?;
        let fitting = packets.iter().zip(sizes).take(count).filter(|(_, size)| *size <= longest);
        datagrams.extend(fitting.map(|(packet, size)| Bytes::copy_from_slice(&packet[..size])));
        let bytes: usize = datagrams.iter().map(Bytes::len).sum();
        if bytes <= connection.datagram_send_buffer_space() {
            connection.send_many_datagrams(&datagrams)?;
            datagrams.clear();
        }
        for datagram in datagrams.drain(..) {
            connection.send_datagram_wait(datagram).await?;
        }
    }
}

/// From the other end to the interface.
async fn inward(device: &AsyncDevice, connection: &Connection) -> Result<(), Failure> {
    let mut datagrams = vec![Bytes::new(); IDEAL_BATCH_SIZE];
    let mut packets = vec![Vec::with_capacity(LARGEST_RUN); IDEAL_BATCH_SIZE];
    let mut joined = GROTable::default();
    loop {
        let count = connection.read_many_datagrams(&mut datagrams).await?;
        for (packet, datagram) in packets.iter_mut().zip(&datagrams[..count]) {
            packet.clear();
            packet.resize(VIRTIO_NET_HDR_LEN, 0);
            packet.extend_from_slice(datagram);
        }
        // What the kernel does not take, like a packet of somebody else's, is lost; the tunnel goes on.
        if let Err(why) = device.send_multiple(&mut joined, &mut packets[..count], VIRTIO_NET_HDR_LEN).await {
            let _ = writeln!(io::stderr(), "the interface refused a packet: {why}");
        }
    }
}
