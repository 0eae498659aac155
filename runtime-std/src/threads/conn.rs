//! One connection, and what the kernel said about its socket last.
use super::handshake::Socket;
use crate::ws::channel::{Came, Channel, Flushed};
use shadowmesh_core::event::Ended;
use std::net::TcpStream;

/// How writing stands.
#[derive(Clone, Copy)]
pub(crate) struct Writing {
    /// The kernel has not said that it would block.
    pub(crate) ready: bool,
    /// It stands in the list of those to be written.
    pub(crate) listed: bool,
    /// It takes what is in hand before it gets more.
    blocked: bool,
}

/// A connection with both directions.
pub(crate) struct Conn {
    channel: Channel,
    tcp: TcpStream,
    /// It stands in the list of those to be read.
    pub(crate) to_read: bool,
    pub(crate) write: Writing,
    /// What its last message cost beyond its turn, in messages.
    pub(crate) owed: usize,
    /// Hung up: nothing more is read.
    pub(crate) deaf: bool,
}

impl Conn {
    /// A connection of which nothing is known: both directions are tried first, and so stand in their lists.
    pub(crate) fn new((channel, tcp): Socket) -> Self {
        let write = Writing { ready: true, listed: true, blocked: false };
        Self { channel, tcp, to_read: true, write, owed: 0, deaf: false }
    }

    /// The next binary message, or why there is none now.
    ///
    /// # Errors
    /// Why there will be no more.
    pub(crate) fn read(&mut self) -> Result<Came, Ended> {
        self.channel.read(&self.tcp)
    }

    /// Whether what is in hand goes to the kernel before more is taken.
    pub(crate) fn is_full(&self) -> bool {
        self.write.blocked || self.channel.is_full()
    }

    /// Takes a message; `flush` says when the kernel has it.
    ///
    /// # Errors
    /// Why the connection is gone.
    pub(crate) fn send(&mut self, message: Vec<u8>) -> Result<(), Ended> {
        self.channel.send(message)
    }

    /// Says good-bye behind what was sent; `flush` says when the kernel has it.
    ///
    /// # Errors
    /// Why the connection is gone.
    pub(crate) fn say_goodbye(&mut self) -> Result<(), Ended> {
        self.channel.say_goodbye()
    }

    /// Hands to the kernel what is in hand, and what WebSocket and TLS have to say of their own.
    ///
    /// # Errors
    /// Why the connection is gone.
    pub(crate) fn flush(&mut self) -> Result<Flushed, Ended> {
        let flushed = self.channel.flush(&self.tcp)?;
        self.write.blocked = flushed == Flushed::Blocked;
        self.write.ready &= !self.write.blocked;
        Ok(flushed)
    }
}
