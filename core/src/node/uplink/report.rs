//! A relay connection as `status` shows it.
use super::{State, Uplink};
use crate::{
    node::reflexive::Reflexive,
    status::{RelayState, RelayStatus},
};

impl Uplink {
    /// How it stands.
    pub(crate) fn status(&self) -> RelayStatus {
        let state = match &self.state {
            State::Idle { .. } => RelayState::Waiting,
            State::Parked => RelayState::Parked,
            State::Dialling { .. } | State::Greeting(_) => RelayState::Connecting,
            State::Up(_) => RelayState::Connected,
        };
        RelayStatus {
            url: self.url.clone(),
            id: self.pin,
            state,
            rtt: self.up().and_then(|up| up.rtt),
            observed: self.observed(),
            reflexive: self.mapped().map(|mapped| mapped.address),
            reflexive_at: self.up().and_then(|up| up.reflexive.as_ref()).and_then(Reflexive::answered_at),
            draining: self.goes(),
            has_reflector: self.up().is_some_and(|up| up.reflexive.is_some()),
            mapping_varies: self.mapping_varies(),
            last_error: self.last_error.clone(),
        }
    }
}
