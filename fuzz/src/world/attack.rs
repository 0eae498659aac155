//! What somebody between two hosts, or a relay that is not what it says, sees and does.
use super::air::{HostId, WireId};
use shadowmesh_core::time::Instant;

/// One WebSocket message on its way.
pub struct Letter {
    /// The connection.
    pub wire: WireId,
    /// Who sent it.
    pub from: HostId,
    /// Whose it should be.
    pub to: HostId,
    /// The message.
    pub bytes: Vec<u8>,
}

/// Takes each message between two hosts, gives what goes on instead.
pub type Tap = Box<dyn FnMut(Letter) -> Vec<Vec<u8>>>;

/// A message that was sent.
#[derive(Clone, Debug)]
pub struct Recorded {
    /// When.
    pub at: Instant,
    /// On which connection.
    pub wire: WireId,
    /// Who sent it.
    pub from: HostId,
    /// To whom.
    pub to: HostId,
    /// Whether the sender had dialled.
    pub dialled: bool,
    /// The message.
    pub bytes: Vec<u8>,
}
