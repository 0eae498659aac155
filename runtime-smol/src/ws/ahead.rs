//! A TCP connection that is read ahead of TLS.
use shadowmesh_runtime_std::ahead::ReadAhead;
use smol::{
    Async,
    io::{AsyncRead, AsyncWrite},
};
use std::{
    io::{self, ErrorKind, Read},
    net::TcpStream,
    pin::Pin,
    task::{Context, Poll, ready},
};

/// The connection, and what was read of it.
pub(super) struct Ahead {
    tcp: Async<TcpStream>,
    ahead: ReadAhead,
}

impl Ahead {
    pub(super) fn new(tcp: Async<TcpStream>) -> Self {
        Self { tcp, ahead: ReadAhead::default() }
    }

    /// A connection that somebody else began: until `upgraded` it takes no more bytes than `ahead` lets through.
    pub(super) fn accepting(tcp: Async<TcpStream>, ahead: ReadAhead) -> Self {
        Self { tcp, ahead }
    }

    /// The WebSocket stands: messages are read by other means.
    pub(super) fn into_parts(self) -> (Async<TcpStream>, ReadAhead) {
        (self.tcp, self.ahead)
    }
}

impl AsyncRead for Ahead {
    fn poll_read(mut self: Pin<&mut Self>, context: &mut Context<'_>, buffer: &mut [u8]) -> Poll<io::Result<usize>> {
        loop {
            let Self { tcp, ahead } = &mut *self;
            match ahead.of(tcp.get_ref()).read(buffer) {
                Err(why) if why.kind() == ErrorKind::WouldBlock && ahead.turn_is_over() => {
                    context.waker().wake_by_ref();
                    return Poll::Pending;
                }
                Err(why) if why.kind() == ErrorKind::WouldBlock => ready!(tcp.poll_readable(context))?,
                done => return Poll::Ready(done),
            }
        }
    }
}

impl AsyncWrite for Ahead {
    fn poll_write(mut self: Pin<&mut Self>, context: &mut Context<'_>, buffer: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.tcp).poll_write(context, buffer)
    }

    fn poll_write_vectored(mut self: Pin<&mut Self>, context: &mut Context<'_>, buffers: &[io::IoSlice<'_>]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.tcp).poll_write_vectored(context, buffers)
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.tcp).poll_flush(context)
    }

    fn poll_close(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.tcp).poll_close(context)
    }
}
