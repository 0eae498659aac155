//! How a client learns its UDP address from a relay: BIND and BOUND under the path key of their session (protocol 8.1).
//!
//! The mac says who asks and who answers. It does not say where from: an address that came this way is a candidate, never proof.
use crate::{
    crypto::hash::equal,
    session::PathKey,
    wire::{
        Malformed,
        bind::{BIND_LEN, BIND_MAC_LEN, Bind, Bound},
    },
};

/// One label for each message, both of one length.
type Label = &'static [u8; 22];
const BIND: Label = b"shadowmesh/1 bind\0\0\0\0\0";
const BOUND: Label = b"shadowmesh/1 bound\0\0\0\0";

/// Why a message was not taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BindError {
    /// It does not follow the layout.
    Malformed,
    /// Its mac does not hold.
    Forged,
}

impl From<Malformed> for BindError {
    fn from(_: Malformed) -> Self {
        Self::Malformed
    }
}

/// A whole BIND.
pub fn seal_bind(key: &PathKey, bind: &Bind) -> [u8; BIND_LEN] {
    sealed(key, BIND, |out| bind.emit(out))
}

/// A whole BOUND.
pub fn seal_bound(key: &PathKey, bound: &Bound) -> [u8; BIND_LEN] {
    sealed(key, BOUND, |out| bound.emit(out))
}

/// Reads a BIND of this session.
pub fn open_bind(key: &PathKey, bytes: &[u8]) -> Result<Bind, BindError> {
    let bind = Bind::parse(bytes)?;
    checked(key, BIND, bytes).map(|()| bind)
}

/// Reads a BOUND of this session.
pub fn open_bound(key: &PathKey, bytes: &[u8]) -> Result<Bound, BindError> {
    let bound = Bound::parse(bytes)?;
    checked(key, BOUND, bytes).map(|()| bound)
}

/// protocol 8.1: `HMAC(path_key`, label ‖ `session_id` ‖ all before the mac)
fn mac(key: &PathKey, label: Label, message: &[u8]) -> [u8; BIND_MAC_LEN] {
    key.hmac().mac(&[label, &key.session_id().0, message])
}

fn checked(key: &PathKey, label: Label, bytes: &[u8]) -> Result<(), BindError> {
    let (message, tag) = bytes.split_last_chunk::<BIND_MAC_LEN>().ok_or(BindError::Malformed)?;
    if equal(&mac(key, label, message), tag) { Ok(()) } else { Err(BindError::Forged) }
}

fn sealed(key: &PathKey, label: Label, emit: impl FnOnce(&mut Vec<u8>)) -> [u8; BIND_LEN] {
    let mut bytes = Vec::with_capacity(BIND_LEN);
    emit(&mut bytes);
    let tag = mac(key, label, &bytes);
    bytes.extend_from_slice(&tag);
    bytes.try_into().expect("both messages have one length")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        crypto::rustcrypto::RustCrypto,
        session::{Chain, Side, Suite},
    };
    use std::sync::Arc;
    use zeroize::Zeroizing;

    fn key(secret: u8, side: Side) -> Arc<PathKey> {
        Chain::start(Zeroizing::new([secret; 64]), Suite::ChaCha20Poly1305).keys(side, &RustCrypto).path
    }

    fn messages() -> (Bind, Bound) {
        let address = "[2001:db8::7]:443".parse().expect("an address");
        (Bind { receiver: 5, nonce: [1; 8] }, Bound { receiver: 6, nonce: [1; 8], address, other_port: 2, ticket: [4; 16] })
    }

    // protocol 8.1
    #[test]
    fn what_one_end_seals_the_other_reads() {
        let (bind, bound) = messages();
        let (client, relay) = (key(1, Side::Initiator), key(1, Side::Responder));
        assert_eq!(open_bind(&relay, &seal_bind(&client, &bind)), Ok(bind));
        assert_eq!(open_bound(&client, &seal_bound(&relay, &bound)), Ok(bound));
    }

    // protocol 8.1
    #[test]
    fn another_session_and_each_altered_bit_are_noticed() {
        let (bind, bound) = messages();
        let (client, stranger) = (key(1, Side::Initiator), key(2, Side::Initiator));
        assert_eq!(open_bind(&stranger, &seal_bind(&client, &bind)), Err(BindError::Forged));
        assert_eq!(open_bound(&stranger, &seal_bound(&client, &bound)), Err(BindError::Forged));
        for bit in 0..BIND_LEN * 8 {
            let (mut a, mut b) = (seal_bind(&client, &bind), seal_bound(&client, &bound));
            a[bit / 8] ^= 1 << (bit % 8);
            b[bit / 8] ^= 1 << (bit % 8);
            assert!(open_bind(&client, &a).is_err() && open_bound(&client, &b).is_err(), "bit {bit}");
        }
    }

    // protocol 8.1: the mac of a question is not that of an answer, even where all else is the same
    #[test]
    fn the_labels_differ() {
        let key = key(1, Side::Initiator);
        assert_ne!(mac(&key, BIND, b"the same"), mac(&key, BOUND, b"the same"));
    }
}
