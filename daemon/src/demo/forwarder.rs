//! A TCP forwarder in front of a peer's direct listener: the place where the demo really cuts the direct path.
//!
//! ```text
//!   other peer ──TCP──▶ forwarder ──TCP──▶ this peer's listener
//!                          │
//!                          └ Open: carries bytes · Silent: reads and writes nothing, like a dead line · Reset: RST to both ends
//! ```
//! Bytes that were read but not yet written survive a silence, so a healed line goes on where it stopped, as TCP does.
use futures_lite::{AsyncReadExt, AsyncWriteExt, future};
use smol::{
    LocalExecutor,
    net::{TcpListener, TcpStream},
};
use std::{
    io,
    net::{Ipv4Addr, Shutdown, SocketAddr},
    time::Duration,
};

/// Connections carried at once; the demo needs two or three.
const MAX_CONNECTIONS: usize = 64;
/// What is read at once.
const CHUNK_BYTES: usize = 64 * 1024;

/// What the line does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Line {
    /// Carries bytes.
    Open,
    /// Takes connections and carries nothing.
    Silent,
    /// Resets what it carries and what comes.
    Reset,
}

/// A running forwarder; it ends when this is dropped.
#[derive(Debug)]
pub(crate) struct Forwarder {
    address: SocketAddr,
    line: flume::Sender<Order>,
}

/// What the line shall do, and whom to tell when nothing is carried otherwise any more.
type Order = (Line, flume::Sender<()>);

impl Forwarder {
    /// Listens on a port of 127.0.0.1 and carries to `target` as `first` says.
    pub(crate) fn start(target: SocketAddr, first: Line) -> io::Result<Self> {
        let listener = std::net::TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
        let address = listener.local_addr()?;
        let listener = TcpListener::from(smol::Async::new(listener)?);
        let (line, lines) = flume::unbounded();
        std::thread::Builder::new().name("demo-forwarder".to_owned()).spawn(move || {
            let executor = LocalExecutor::new();
            smol::block_on(executor.run(serve(&executor, listener, target, first, lines)));
        })?;
        Ok(Self { address, line })
    }

    /// Where it listens.
    pub(crate) fn address(&self) -> SocketAddr {
        self.address
    }

    /// Changes what the line does, for connections there are and for those to come: what is written from now on meets the line as it is then.
    pub(crate) fn set(&self, line: Line) {
        let (done, heard) = flume::bounded(1);
        // The thread lives as long as this sender.
        if self.line.send((line, done)).is_ok() {
            let _ = heard.recv();
        }
    }
}

async fn serve(executor: &LocalExecutor<'_>, listener: TcpListener, target: SocketAddr, mut line: Line, lines: flume::Receiver<Order>) {
    let mut connections: Vec<flume::Sender<Line>> = Vec::new();
    loop {
        let order = async { Err(lines.recv_async().await) };
        let accept = async { Ok(listener.accept().await) };
        match future::or(order, accept).await {
            Err(Ok((wanted, done))) => {
                line = wanted;
                connections.retain(|connection| connection.send(line).is_ok());
                // Each connection looks at its orders first whenever it runs, and they share this thread.
                let _ = done.send(());
            }
            Err(Err(_)) => return,
            Ok(Ok((near, _))) => {
                connections.retain(|connection| !connection.is_disconnected());
                if line == Line::Reset || connections.len() >= MAX_CONNECTIONS {
                    reset(near);
                    continue;
                }
                let (orders, wanted) = flume::unbounded();
                connections.push(orders);
                executor.spawn(carry(near, target, line, wanted)).detach();
            }
            Ok(Err(error)) => tracing::debug!(%error, "the demo's forwarder cannot accept"),
        }
    }
}

async fn carry(near: TcpStream, target: SocketAddr, mut line: Line, wanted: flume::Receiver<Line>) {
    while line != Line::Open {
        match wanted.recv_async().await {
            Ok(Line::Reset) | Err(_) => return reset(near),
            Ok(next) => line = next,
        }
    }
    let Ok(far) = TcpStream::connect(target).await else { return reset(near) };
    let _ = near.set_nodelay(true).and_then(|()| far.set_nodelay(true));
    let (mut there, mut back) = (Pipe::new(), Pipe::new());
    loop {
        let order = async { Some(wanted.recv_async().await) };
        let next = match line {
            Line::Reset => break,
            Line::Silent => order.await,
            Line::Open => {
                let both = async {
                    let (there, back) = future::zip(there.run(&near, &far), back.run(&far, &near)).await;
                    if let Err(error) = there.and(back) {
                        tracing::trace!(%error, "the demo's forwarder lost a connection");
                    }
                    None
                };
                future::or(order, both).await
            }
        };
        match next {
            Some(Ok(next)) => line = next,
            // Both ends have closed, or the demo is over.
            None | Some(Err(_)) => return,
        }
    }
    reset(near);
    reset(far);
}

/// Closes with RST instead of FIN.
fn reset(stream: TcpStream) {
    if let Err(error) = rustix::net::sockopt::set_socket_linger(&stream, Some(Duration::ZERO)) {
        tracing::debug!(%error, "the demo's forwarder closes gently");
    }
    drop(stream);
}

/// One direction of a connection. Every await can be given up without losing a byte.
struct Pipe {
    chunk: Box<[u8]>,
    start: usize,
    end: usize,
    finished: bool,
}

impl Pipe {
    fn new() -> Self {
        Self { chunk: vec![0; CHUNK_BYTES].into_boxed_slice(), start: 0, end: 0, finished: false }
    }

    async fn run(&mut self, from: &TcpStream, to: &TcpStream) -> io::Result<()> {
        let (mut from, mut to) = (from.clone(), to.clone());
        while !self.finished {
            if self.start < self.end {
                self.start += to.write(&self.chunk[self.start..self.end]).await?;
                continue;
            }
            self.end = from.read(&mut self.chunk).await?;
            self.start = 0;
            if self.end == 0 {
                self.finished = true;
                to.shutdown(Shutdown::Write)?;
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::{
        io::{ErrorKind, Read, Write},
        net::{TcpListener as Listener, TcpStream as Stream},
    };

    const LONG: Duration = Duration::from_secs(20);

    fn connected() -> (Forwarder, Stream, Stream) {
        let listener = Listener::bind("127.0.0.1:0").expect("loopback binds");
        let forwarder = Forwarder::start(listener.local_addr().expect("bound"), Line::Open).expect("starts");
        let near = Stream::connect(forwarder.address()).expect("connects");
        let (far, _) = listener.accept().expect("the forwarder connects");
        for stream in [&near, &far] {
            stream.set_read_timeout(Some(LONG)).expect("a timeout");
        }
        (forwarder, near, far)
    }

    fn expect(stream: &mut Stream, want: &[u8]) {
        let mut got = vec![0; want.len()];
        stream.read_exact(&mut got).expect("bytes arrive");
        assert_eq!(got, want);
    }

    #[test]
    fn a_healed_line_goes_on_where_it_stopped() {
        let (forwarder, mut near, mut far) = connected();
        near.write_all(b"one").expect("writes");
        expect(&mut far, b"one");
        forwarder.set(Line::Silent);
        near.write_all(b"two").expect("the kernel takes it");
        far.set_nonblocking(true).expect("set");
        assert_eq!(far.read(&mut [0; 8]).expect_err("nothing comes").kind(), ErrorKind::WouldBlock);
        far.set_nonblocking(false).expect("set");
        forwarder.set(Line::Open);
        expect(&mut far, b"two");
        far.write_all(b"back").expect("writes");
        expect(&mut near, b"back");
    }

    #[test]
    fn a_reset_reaches_both_ends_and_later_dials() {
        let (forwarder, mut near, mut far) = connected();
        forwarder.set(Line::Reset);
        for stream in [&mut near, &mut far] {
            assert_eq!(stream.read(&mut [0; 8]).expect_err("reset").kind(), ErrorKind::ConnectionReset);
        }
        let mut late = Stream::connect(forwarder.address()).expect("the kernel takes it");
        late.set_read_timeout(Some(LONG)).expect("a timeout");
        assert_eq!(late.read(&mut [0; 8]).expect_err("reset").kind(), ErrorKind::ConnectionReset);
    }

    #[test]
    fn the_end_of_one_direction_leaves_the_other() {
        let (_forwarder, mut near, mut far) = connected();
        near.shutdown(Shutdown::Write).expect("shuts down");
        assert_eq!(far.read(&mut [0; 8]).expect("the end arrives"), 0);
        far.write_all(b"still").expect("writes");
        expect(&mut near, b"still");
    }
}
