//! A relay under a certificate that proves nothing by itself (protocol 1.4).
use super::{Greeting, Step};

/// What to do about it.
const REMEDY: &str = "if that is a proxy on the way, have it let connections to the relay through untouched; \
                      if it is the relay's own certificate, compare the id in the join token with what `shadowmesh-relay id` prints there";

impl Greeting {
    /// Why the handshake came to nothing. As long as the relay has not proven that it ends TLS, whoever does is named.
    pub(super) fn blame(&self, why: String) -> String {
        match (&self.subject, &self.step) {
            (None, _) | (_, Step::Confirming(_)) => why,
            (Some(subject), Step::Offering(_) | Step::Offered(_) | Step::Concluding(_)) => {
                format!("{why}: TLS is ended by {subject:?}, which has not proven to be the relay; {REMEDY}")
            }
        }
    }
}
