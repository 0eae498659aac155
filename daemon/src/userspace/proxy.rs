//! The proxy on the loopback interface: SOCKS5 with CONNECT and UDP ASSOCIATE (RFC 1928), and CONNECT of HTTP (RFC 9110 9.3.6), told apart
//! by their first byte.
use super::{
    Resolve, both_ways,
    socks::{self, Command, METHOD_NONE, METHOD_REFUSED, Reply, Target, Unread, VERSION},
    stack::{Stack, UdpSocket},
};
use futures_lite::{AsyncReadExt, AsyncWriteExt, future};
use smol::{Timer, net::TcpStream};
use std::{
    io,
    net::{Ipv4Addr, SocketAddr},
    time::Duration,
};

/// How long a client may take to say what it wants.
const ASK_TIME: Duration = Duration::from_secs(10);
/// The longest head of an HTTP request, in bytes, and the most fields in it.
const MAX_HEAD: usize = 8 * 1024;
const MAX_FIELDS: usize = 64;
/// The longest datagram of a client, in bytes.
const MAX_DATAGRAM: usize = 65_535;

/// What each client needs.
pub(crate) struct Proxy<'a> {
    stack: &'a Stack,
    resolve: &'a dyn Resolve,
}

/// What a client asked for.
enum Asked {
    Socks(Command, Target),
    Http(Target),
    /// It has been told that this cannot be.
    Refused,
}

impl<'a> Proxy<'a> {
    pub(crate) fn new(stack: &'a Stack, resolve: &'a dyn Resolve) -> Self {
        Self { stack, resolve }
    }

    /// Serves one client to its end.
    pub(crate) async fn serve(&self, mut client: TcpStream) -> io::Result<()> {
        let late = async {
            Timer::after(ASK_TIME).await;
            Err(io::ErrorKind::TimedOut.into())
        };
        match future::or(ask(&mut client), late).await? {
            Asked::Socks(Command::Connect, target) => self.connect(client, target, socks_answer).await,
            Asked::Socks(Command::Associate, _) => self.associate(client).await,
            Asked::Http(target) => self.connect(client, target, http_answer).await,
            Asked::Refused => Ok(()),
        }
    }

    async fn connect(&self, mut client: TcpStream, target: Target, answer: fn(Result<(), &io::Error>) -> Vec<u8>) -> io::Result<()> {
        let connected = async { self.stack.connect(self.resolve.resolve(target).await?).await };
        match connected.await {
            Ok(far) => {
                client.write_all(&answer(Ok(()))).await?;
                both_ways(client, far).await
            }
            Err(why) => {
                client.write_all(&answer(Err(&why))).await?;
                Err(why)
            }
        }
    }

    /// Passes datagrams for as long as the client's connection lives (RFC 1928 clause 7).
    async fn associate(&self, mut client: TcpStream) -> io::Result<()> {
        let local = client.local_addr()?.ip();
        let opened = match (smol::net::UdpSocket::bind(SocketAddr::new(local, 0)).await, self.stack.udp()) {
            (Ok(near), Ok(far)) => Ok((near, far)),
            (Err(why), _) | (_, Err(why)) => Err(why),
        };
        let (near, far) = match opened {
            Ok(both) => both,
            Err(why) => {
                client.write_all(&socks_answer(Err(&why))).await?;
                return Err(why);
            }
        };
        client.write_all(&socks::reply(Reply::Done, near.local_addr()?)).await?;
        let ended = async {
            // Nothing is to be said here any more; what is said means nothing.
            while matches!(client.read(&mut [0; 64]).await, Ok(1..)) {}
            Ok(())
        };
        future::or(ended, self.datagrams(&near, &far)).await
    }

    async fn datagrams(&self, near: &smol::net::UdpSocket, far: &UdpSocket) -> io::Result<()> {
        let mut buffer = vec![0; MAX_DATAGRAM];
        // The program that sent first; others on this machine are strangers.
        let mut program = None;
        loop {
            let from_program = async { near.recv_from(&mut buffer).await.map(|(length, from)| Ok((length, from))) };
            let from_mesh = async { Ok(Err(far.receive().await)) };
            match future::or(from_program, from_mesh).await? {
                Ok((length, from)) if *program.get_or_insert(from) == from => {
                    let Some((target, bytes)) = socks::datagram(&buffer[..length]) else { continue };
                    if let Ok(to) = self.resolve.resolve(target).await {
                        far.send(bytes, to);
                    }
                }
                Ok(_) => {}
                Err((bytes, from)) => {
                    if let Some(program) = program {
                        let _ = near.send_to(&[socks::datagram_head(from), bytes].concat(), program).await;
                    }
                }
            }
        }
    }
}

/// Reads what a client wants.
async fn ask(client: &mut TcpStream) -> io::Result<Asked> {
    let mut first = [0];
    client.read_exact(&mut first).await?;
    if first[0] == VERSION { ask_socks(client).await } else { ask_http(client, first[0]).await }
}

async fn ask_socks(client: &mut TcpStream) -> io::Result<Asked> {
    let mut count = [0];
    client.read_exact(&mut count).await?;
    let mut methods = vec![0; count[0].into()];
    client.read_exact(&mut methods).await?;
    if !methods.contains(&METHOD_NONE) {
        client.write_all(&[VERSION, METHOD_REFUSED]).await?;
        return Ok(Asked::Refused);
    }
    client.write_all(&[VERSION, METHOD_NONE]).await?;
    let mut head = [0; 3];
    client.read_exact(&mut head).await?;
    if head[0] != VERSION {
        return Err(io::ErrorKind::InvalidData.into());
    }
    let mut bytes = Vec::new();
    let target = loop {
        match socks::target(&bytes) {
            Ok((target, _)) => break Ok(target),
            Err(Unread::Unknown) => break Err(Reply::NoSuchAddressType),
            // Byte by byte: what follows belongs to whom the client wants to talk to.
            Err(Unread::Short) => {
                let mut next = [0];
                client.read_exact(&mut next).await?;
                bytes.push(next[0]);
            }
        }
    };
    let command = match head[1] {
        1 => Ok(Command::Connect),
        3 => Ok(Command::Associate),
        _ => Err(Reply::NoSuchCommand),
    };
    match (command, target) {
        (Ok(command), Ok(target)) => Ok(Asked::Socks(command, target)),
        (Err(why), _) | (_, Err(why)) => {
            client.write_all(&socks::reply(why, nowhere())).await?;
            Ok(Asked::Refused)
        }
    }
}

async fn ask_http(client: &mut TcpStream, first: u8) -> io::Result<Asked> {
    let mut head = vec![first];
    while !head.ends_with(b"\r\n\r\n") {
        let mut next = [0];
        client.read_exact(&mut next).await?;
        head.push(next[0]);
        if head.len() > MAX_HEAD {
            return refuse_http(client, "431 Request Header Fields Too Large").await;
        }
    }
    let mut fields = [httparse::EMPTY_HEADER; MAX_FIELDS];
    let mut request = httparse::Request::new(&mut fields);
    if !request.parse(&head).is_ok_and(|status| status.is_complete()) {
        return refuse_http(client, "400 Bad Request").await;
    }
    if request.method != Some("CONNECT") {
        return refuse_http(client, "405 Method Not Allowed\r\nAllow: CONNECT").await;
    }
    match request.path.and_then(socks::host_port) {
        Some(target) => Ok(Asked::Http(target)),
        None => refuse_http(client, "400 Bad Request").await,
    }
}

async fn refuse_http(client: &mut TcpStream, status: &str) -> io::Result<Asked> {
    client.write_all(format!("HTTP/1.1 {status}\r\nContent-Length: 0\r\nConnection: close\r\n\r\n").as_bytes()).await?;
    Ok(Asked::Refused)
}

fn socks_answer(result: Result<(), &io::Error>) -> Vec<u8> {
    socks::reply(result.map_or_else(Reply::of, |()| Reply::Done), nowhere())
}

fn http_answer(result: Result<(), &io::Error>) -> Vec<u8> {
    let status = match result.map_err(io::Error::kind) {
        Ok(()) => return b"HTTP/1.1 200 Connection established\r\n\r\n".to_vec(),
        Err(io::ErrorKind::TimedOut) => "504 Gateway Timeout",
        Err(_) => "502 Bad Gateway",
    };
    format!("HTTP/1.1 {status}\r\nContent-Length: 0\r\nConnection: close\r\n\r\n").into_bytes()
}

/// The address of a reply where none is of use to the client.
fn nowhere() -> SocketAddr {
    (Ipv4Addr::UNSPECIFIED, 0).into()
}
