//! Results of jobs as a journal holds them: all that a machine reads of them, and nothing that only arithmetic needs.
//!
//! `Offer`, `Answer` and `RekeyOffer` stand as the message that they made. Their keys are for one later job, whose result the journal
//! holds as well; so no key of a KEM is ever written, whatever back end made it (docs/decisions/0021-journal.md).
//! A `VerifiedPeer` that was read back proves only that the journal says so: a replay talks to nobody.
use super::{Answer, Concluded, Done, HandshakeError, Offer, Outcome, RekeyOffer, Ticket, Verified, VerifiedPeer};
use crate::{
    journal::{Field, put_list, record},
    wire::{Malformed, Reader},
};
use std::sync::Arc;

record!(Done { ticket, outcome });
record!(Concluded { peer, fin, chain, peer_sid, params });
record!(Verified { peer, chain, peer_sid, params });
record!(VerifiedPeer { id });

impl Field for Ticket {
    fn put(&self, out: &mut Vec<u8>) {
        self.0.put(out);
    }
    fn take(from: &mut Reader<'_>) -> Result<Self, Malformed> {
        Field::take(from).map(Self)
    }
}

impl<T: Field> Field for Arc<T> {
    fn put(&self, out: &mut Vec<u8>) {
        self.as_ref().put(out);
    }
    fn take(from: &mut Reader<'_>) -> Result<Self, Malformed> {
        T::take(from).map(Self::new)
    }
}

impl Field for Offer {
    fn put(&self, out: &mut Vec<u8>) {
        put_list(self.init(), out);
    }
    fn take(from: &mut Reader<'_>) -> Result<Self, Malformed> {
        Self::recorded(Field::take(from)?)
    }
}

impl Field for Answer {
    fn put(&self, out: &mut Vec<u8>) {
        put_list(self.resp(), out);
    }
    fn take(from: &mut Reader<'_>) -> Result<Self, Malformed> {
        Self::recorded(Field::take(from)?)
    }
}

impl Field for RekeyOffer {
    fn put(&self, out: &mut Vec<u8>) {
        self.epoch().put(out);
        put_list(self.rekey1(), out);
    }
    fn take(from: &mut Reader<'_>) -> Result<Self, Malformed> {
        Ok(Self::recorded(Field::take(from)?, Field::take(from)?))
    }
}

impl<T: Field> Field for Result<T, HandshakeError> {
    fn put(&self, out: &mut Vec<u8>) {
        match self {
            Ok(value) => {
                out.push(0);
                value.put(out);
            }
            Err(error) => out.push(1 + *error as u8),
        }
    }
    fn take(from: &mut Reader<'_>) -> Result<Self, Malformed> {
        match from.u8("result")? {
            0 => T::take(from).map(Ok),
            code => HandshakeError::ALL.get(usize::from(code) - 1).copied().map(Err).ok_or(Malformed("result")),
        }
    }
}

impl Field for Outcome {
    fn put(&self, out: &mut Vec<u8>) {
        match self {
            Self::Offered(offer) => {
                out.push(0);
                offer.put(out);
            }
            Self::Answered(result) => {
                out.push(1);
                result.put(out);
            }
            Self::Concluded(result) => {
                out.push(2);
                result.put(out);
            }
            Self::Verified(result) => {
                out.push(3);
                result.put(out);
            }
            Self::RekeyOffered(offer) => {
                out.push(4);
                offer.put(out);
            }
            Self::RekeyAnswered(result) => {
                out.push(5);
                result.put(out);
            }
            Self::RekeyConcluded(result) => {
                out.push(6);
                result.put(out);
            }
        }
    }
    fn take(from: &mut Reader<'_>) -> Result<Self, Malformed> {
        Ok(match from.u8("outcome")? {
            0 => Self::Offered(Field::take(from)?),
            1 => Self::Answered(Field::take(from)?),
            2 => Self::Concluded(Field::take(from)?),
            3 => Self::Verified(Field::take(from)?),
            4 => Self::RekeyOffered(Field::take(from)?),
            5 => Self::RekeyAnswered(Field::take(from)?),
            6 => Self::RekeyConcluded(Field::take(from)?),
            _ => return Err(Malformed("outcome")),
        })
    }
}
