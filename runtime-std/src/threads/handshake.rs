//! TLS and the WebSocket upgrade, a step at a time: whoever drives it waits for the socket in between.
//!
//! ```text
//!   Tls ─▶ Upgrade ─▶ a WebSocket
//! ```
use super::stream::TlsStream;
use crate::{
    ahead::ReadAhead,
    tls,
    ws::{self, channel::Channel},
};
use core::net::SocketAddr;
use rustls::{ClientConfig, ClientConnection, Connection, ServerConfig, ServerConnection};
use shadowmesh_core::event::{Ended, TlsFacts};
use std::{io::ErrorKind, net::TcpStream, sync::Arc};
use tungstenite::{
    ClientHandshake, ServerHandshake, accept_with_config,
    client::client_with_config,
    handshake::{HandshakeError, HandshakeRole, MidHandshake, server::NoCallback},
};

/// A WebSocket over TLS, and its socket.
pub(crate) type Socket = (Channel, TcpStream);

/// A server's handshake.
pub(crate) type Accepting = Handshake<ServerHandshake<TlsStream, NoCallback>>;

/// A client's handshake.
pub(crate) struct Dialling {
    handshake: Handshake<ClientHandshake<TlsStream>>,
    url: String,
    /// What TLS showed, once it is done.
    facts: Option<TlsFacts>,
}

/// A handshake under way.
pub(crate) struct Handshake<R: HandshakeRole> {
    state: State<R>,
    /// This end's address.
    pub(crate) local: SocketAddr,
    /// The other end's address.
    pub(crate) remote: SocketAddr,
}

enum State<R: HandshakeRole> {
    Tls(Box<TlsStream>),
    Upgrade(Box<MidHandshake<R>>),
    /// Between two states, and after the end.
    Over,
}

/// What a step came to.
pub(crate) enum Step<T> {
    /// The socket has to become ready first.
    Wait,
    /// Done.
    Done(T),
}

/// What a round of the upgrade came to.
type Round<R> = Result<<R as HandshakeRole>::FinalResult, Box<HandshakeError<R>>>;

impl Accepting {
    /// A server's handshake on a socket that does not block.
    pub(crate) fn server(tcp: TcpStream, ahead: ReadAhead, config: Arc<ServerConfig>) -> Result<Self, Ended> {
        let (local, remote) = ws::prepare(&tcp)?;
        let connection = ServerConnection::new(config).map_err(|why| Ended::Tls(why.to_string()))?;
        Ok(Self::new(TlsStream::accepting(connection, tcp, ahead), local, remote))
    }

    /// Goes on; in the end gives the connection and the TLS exporter.
    pub(crate) fn step(&mut self) -> Result<Step<(Socket, [u8; 32])>, Ended> {
        let upgrade = |stream| accept_with_config(stream, Some(ws::limits())).map_err(Box::new);
        let Step::Done(socket) = self.advance(upgrade)? else {
            return Ok(Step::Wait);
        };
        let Connection::Server(tls) = socket.get_ref().tls() else {
            return Err(Ended::Local("a server's handshake made no server's connection".to_owned()));
        };
        let exporter = tls::server_exporter(tls)?;
        Ok(Step::Done((socket.into_inner().upgraded(), exporter)))
    }
}

impl Dialling {
    /// A client's handshake on a socket that does not block.
    pub(crate) fn client(tcp: TcpStream, config: Arc<ClientConfig>, host: &str, url: String) -> Result<Self, Ended> {
        let (local, remote) = ws::prepare(&tcp)?;
        let connection = ClientConnection::new(config, tls::server_name(host)?).map_err(|why| Ended::Tls(why.to_string()))?;
        let stream = TlsStream::new(Connection::Client(connection), tcp);
        Ok(Self { handshake: Handshake::new(stream, local, remote), url, facts: None })
    }

    /// Goes on; in the end gives the connection and what TLS showed.
    pub(crate) fn step(&mut self) -> Result<Step<(Socket, TlsFacts)>, Ended> {
        let Self { handshake, url, facts } = self;
        let upgrade = |stream: TlsStream| {
            if let Connection::Client(tls) = stream.tls() {
                *facts = tls::client_facts(tls).ok();
            }
            client_with_config(url.as_str(), stream, Some(ws::limits())).map_err(Box::new)
        };
        match (handshake.advance(upgrade), facts) {
            // a server says nothing before its client has: the library holds nothing back
            (Ok(Step::Done((socket, _response))), Some(facts)) => Ok(Step::Done((socket.into_inner().upgraded(), facts.clone()))),
            (Ok(Step::Done(_)), None) => Err(Ended::Tls("the server showed no certificate that can be read".to_owned())),
            (Ok(Step::Wait), _) => Ok(Step::Wait),
            (Err(why), Some(facts)) => Err(tls::not_upgraded(why, facts)),
            (Err(why), None) => Err(why),
        }
    }

    /// The stream, to be waited for; `None` after the end.
    pub(crate) fn stream(&self) -> Option<&TlsStream> {
        self.handshake.stream()
    }

    /// This end's address and the other's.
    pub(crate) fn addresses(&self) -> (SocketAddr, SocketAddr) {
        (self.handshake.local, self.handshake.remote)
    }
}

impl<R: HandshakeRole<InternalStream = TlsStream>> Handshake<R> {
    fn new(stream: TlsStream, local: SocketAddr, remote: SocketAddr) -> Self {
        Self { state: State::Tls(Box::new(stream)), local, remote }
    }

    /// The stream, to be waited for; `None` after the end.
    pub(crate) fn stream(&self) -> Option<&TlsStream> {
        match &self.state {
            State::Tls(stream) => Some(stream),
            State::Upgrade(mid) => Some(mid.get_ref().get_ref()),
            State::Over => None,
        }
    }

    /// Goes on with TLS, then with what `upgrade` begins.
    fn advance(&mut self, upgrade: impl FnOnce(TlsStream) -> Round<R>) -> Result<Step<R::FinalResult>, Ended> {
        let round = match core::mem::replace(&mut self.state, State::Over) {
            State::Tls(mut stream) => match stream.handshake() {
                Ok(()) => upgrade(*stream),
                Err(why) if why.kind() == ErrorKind::WouldBlock => {
                    self.state = State::Tls(stream);
                    return Ok(Step::Wait);
                }
                Err(why) => return Err(tls::ended(&why)),
            },
            State::Upgrade(mid) => mid.handshake().map_err(Box::new),
            State::Over => return Err(Ended::Local("a handshake went on after its end".to_owned())),
        };
        match round.map_err(|why| *why) {
            Ok(done) => Ok(Step::Done(done)),
            Err(HandshakeError::Interrupted(mid)) => {
                self.state = State::Upgrade(Box::new(mid));
                Ok(Step::Wait)
            }
            Err(HandshakeError::Failure(why)) => Err(ws::ended(&why)),
        }
    }
}
