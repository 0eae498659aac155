//! What commands and the running peer say to each other: one JSON line each way over the control socket.
use crate::{
    cli::FileArgs,
    config::{self, Layers},
    failure::Failure,
};
use serde::{Deserialize, Serialize, de::DeserializeOwned};
use shadowmesh_runtime_smol::control::{ControlClient, ControlError};
use smol::io::AsyncRead;
use std::{path::Path, time::Duration};

/// Long enough for a busy machine, short enough for a script.
const ANSWER_TIME: Duration = Duration::from_secs(10);

/// What can be asked of a running peer.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "op", rename_all = "snake_case", deny_unknown_fields)]
pub(crate) enum Request {
    /// Everything about it.
    Status {},
    /// The Prometheus text.
    Metrics {},
    /// Leave; the connection ends when it has gone.
    Leave {},
    /// One overlay ping.
    Ping {
        /// Name, overlay address or beginning of a `PeerId`.
        peer: String,
        /// How long to wait for the answer.
        wait_ms: u64,
    },
    /// What the network lets through; it takes some seconds.
    Netcheck {},
    /// Everything about one peer.
    Peer {
        /// Name, overlay address or beginning of a `PeerId`.
        peer: String,
    },
    /// Answers when that is reached, or after the wait.
    Wait {
        /// Nobody: the peer itself is connected.
        peer: Option<String>,
        /// Only a direct path will do.
        direct: bool,
        /// How long to wait.
        wait_ms: u64,
    },
    /// The level of the log, after setting it when one is given.
    LogLevel {
        /// The new one.
        level: Option<String>,
    },
    /// The last lines of the log.
    RecentLog {},
    /// Copies of what passes the interface; the answer goes on after its line, with records (`capture::record`).
    Capture {
        /// Bytes kept of each packet.
        snaplen: u32,
        /// Only what comes from or goes to this peer.
        peer: Option<String>,
    },
    /// Make a new identity that follows at the next start, and tell the others.
    Rotate {},
    /// Why a peer is on its path.
    Explain {
        /// Name, overlay address or beginning of a `PeerId`.
        peer: String,
    },
}

/// What comes back.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Answer<T> {
    /// It worked.
    Ok(T),
    /// A sentence.
    Error(String),
}

/// Whom a ping went to, and what came back.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct Pinged {
    /// Who.
    pub(crate) id: String,
    /// Its name, when it has one.
    pub(crate) name: Option<String>,
    /// Its first overlay address.
    pub(crate) address: Option<String>,
    /// Nothing: no answer in time.
    pub(crate) reply: Option<Reply>,
}

/// The answer to one ping.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct Reply {
    /// There and back.
    pub(crate) rtt_ms: f64,
    /// The path it went out on, as `direct/wss`.
    pub(crate) out: String,
    /// The path it came back on.
    pub(crate) back: String,
}

/// What is captured.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct Capturing {
    /// Of the interface.
    pub(crate) interface: String,
    /// Ethernet frames, not IP packets.
    pub(crate) ethernet: bool,
}

/// What became of a wait.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct Waited {
    /// It is reached.
    pub(crate) reached: bool,
    /// How things stand, in a few words.
    pub(crate) state: String,
}

/// A connection to the running peer.
pub(crate) struct Client(ControlClient);

impl Client {
    /// Connects to the peer that the flags, variables and file name.
    pub(crate) fn connect(files: &FileArgs) -> Result<Self, Failure> {
        let (path, _) = config::control_socket(&layers(files)?)?;
        Self::at(&path)?.ok_or_else(|| {
            Failure::failed(format!(
                "no peer is running at {}; start one with `shadowmesh up`, or name its socket with --control or --state-dir",
                path.display()
            ))
        })
    }

    /// The same, where it may be that none is running.
    pub(crate) fn find(files: &FileArgs) -> Result<Option<Self>, Failure> {
        let (path, _) = config::control_socket(&layers(files)?)?;
        Self::at(&path)
    }

    fn at(path: &Path) -> Result<Option<Self>, Failure> {
        match ControlClient::connect(path, ANSWER_TIME) {
            Ok(client) => Ok(Some(Self(client))),
            Err(ControlError::NotRunning(_)) => Ok(None),
            Err(other) => Err(Failure::failed(other.to_string())),
        }
    }

    /// Asks one thing.
    pub(crate) fn ask<T: DeserializeOwned>(&mut self, request: &Request) -> Result<T, Failure> {
        self.ask_while_it_runs(request)?.ok_or_else(|| Failure::failed("the peer ended before it answered"))
    }

    /// Asks one thing; nothing, when the peer ends before it answers.
    pub(crate) fn ask_while_it_runs<T: DeserializeOwned>(&mut self, request: &Request) -> Result<Option<T>, Failure> {
        let line = serde_json::to_string(request).expect("requests are plain data");
        let answer = match self.0.request(&line) {
            Ok(answer) => answer,
            Err(ControlError::NotRunning(_)) => return Ok(None),
            Err(other) => return Err(Failure::failed(other.to_string())),
        };
        match serde_json::from_str(&answer) {
            Ok(Answer::Ok(value)) => Ok(Some(value)),
            Ok(Answer::Error(sentence)) => Err(Failure::failed(sentence)),
            Err(error) => Err(Failure::failed(format!("the running peer answers in a form that this version does not know: {error}"))),
        }
    }

    /// Asks one thing whose answer goes on after its line.
    pub(crate) fn ask_for_stream<T: DeserializeOwned>(mut self, request: &Request) -> Result<(T, impl AsyncRead + Unpin), Failure> {
        let said = self.ask(request)?;
        let stream = self.0.into_stream().map_err(|error| Failure::failed(error.to_string()))?;
        Ok((said, stream))
    }

    /// Asks the peer to leave and waits until it has.
    pub(crate) fn leave(mut self) -> Result<(), Failure> {
        let line = serde_json::to_string(&Request::Leave {}).expect("requests are plain data");
        match self.0.request(&line) {
            // The peer keeps the connection open for as long as it has something to tidy up.
            Err(ControlError::NotRunning(_)) => Ok(()),
            Ok(answer) => Err(Failure::failed(format!("the peer does not leave: {answer}"))),
            Err(error) => Err(Failure::failed(error.to_string())),
        }
    }
}

/// The layers in which a command looks for the socket. The usual file helps where it can be read; only a named one must be right.
fn layers(files: &FileArgs) -> Result<Layers, Failure> {
    match config::layers(files.config.as_deref(), files.layer()) {
        Ok(layers) => Ok(layers),
        Err(failure) if files.config.is_some() => Err(failure),
        Err(_) => Ok(config::without_file(files.layer())),
    }
}
