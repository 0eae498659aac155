//! Which runtime drives the machines: both have the same doors.
use crate::cli::Runtime;
use shadowmesh_runtime_std::{
    StartError,
    peer::{self, Peer, PeerOptions},
    relay::{self, Relay, RelayOptions},
};

impl Runtime {
    /// All that are built in, by name.
    pub(crate) const NAMES: [&str; 2] = ["smol", "threads"];

    /// Its name, as people give it and as reports tell it.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Smol => "smol",
            Self::Threads => "threads",
        }
    }

    /// Starts a peer on it.
    pub(crate) fn start_peer(self, options: PeerOptions) -> Result<Peer, StartError> {
        match self {
            Self::Smol => shadowmesh_runtime_smol::peer::start(options),
            Self::Threads => peer::start(options),
        }
    }

    /// Starts a relay on it.
    pub(crate) fn start_relay(self, options: RelayOptions) -> Result<Relay, StartError> {
        match self {
            Self::Smol => shadowmesh_runtime_smol::relay::start(options),
            Self::Threads => relay::start(options),
        }
    }
}
