//! What somebody between two hosts, or a relay that is not what it says, sees and does.
use super::air::{HostId, WireId};
use shadowmesh_core::{
    id::Handle,
    time::Instant,
    wire::{Record, Records, TYPE_DLV, TYPE_FWD},
};

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

/// The payloads of a WebSocket message: each record's with its handle, or the whole of a bare one.
pub fn payloads(message: &[u8]) -> Vec<(Option<Handle>, Vec<u8>)> {
    match message.first() {
        Some(&(TYPE_FWD | TYPE_DLV)) => {
            Records::new(message).map_while(Result::ok).map(|record| (Some(record.handle), record.payload.to_vec())).collect()
        }
        Some(_) | None => vec![(None, message.to_vec())],
    }
}

/// A message with each payload changed, and with it the handle that it goes to or comes from.
pub fn rewrite(message: &[u8], mut change: impl FnMut(&mut Handle, &mut Vec<u8>)) -> Vec<u8> {
    if !matches!(message.first(), Some(&(TYPE_FWD | TYPE_DLV))) {
        let mut bytes = message.to_vec();
        change(&mut Handle(0), &mut bytes);
        return bytes;
    }
    let mut out = Vec::new();
    for record in Records::new(message).map_while(Result::ok) {
        let (mut handle, mut payload) = (record.handle, record.payload.to_vec());
        change(&mut handle, &mut payload);
        Record { handle, payload: &payload, ..record }.emit(&mut out);
    }
    out
}

/// A record for the relay.
pub fn forward(to: Handle, payload: &[u8]) -> Vec<u8> {
    let mut out = Vec::new();
    Record { kind: TYPE_FWD, flags: 0, handle: to, payload }.emit(&mut out);
    out
}

/// A record from the relay.
pub fn deliver(from: Handle, payload: &[u8]) -> Vec<u8> {
    let mut out = Vec::new();
    Record { kind: TYPE_DLV, flags: 0, handle: from, payload }.emit(&mut out);
    out
}
