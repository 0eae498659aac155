//! What is looked at every few seconds: the addresses of this machine, and the certificate's age.
use crate::{interfaces, tls::CertStore};
use shadowmesh_core::time::Instant;
use std::{net::IpAddr, sync::Arc, time::SystemTime};

/// Addresses of this machine with prefix length.
type Addresses = Vec<(IpAddr, u8)>;

/// Looks after a certificate and, for a peer, the local addresses.
pub(crate) struct House {
    certificates: Arc<CertStore>,
    known: Option<Addresses>,
}

impl House {
    pub(crate) fn new(certificates: Arc<CertStore>) -> Self {
        Self { certificates, known: None }
    }

    /// The addresses without those of the interface `except`, when they are not what they were.
    pub(crate) fn addresses(&mut self, except: Option<&str>) -> Option<Addresses> {
        match interfaces::local_addresses(except) {
            Ok(found) => {
                let found: Addresses = found.iter().map(|a| (a.address, a.prefix)).collect();
                let news = self.known.as_ref() != Some(&found);
                news.then(|| self.known.insert(found).clone())
            }
            Err(why) => {
                tracing::warn!(%why, "cannot list the addresses of this machine");
                None
            }
        }
    }

    /// Renews the certificate at two thirds of its life.
    pub(crate) fn renew(&self, now: Instant) {
        match self.certificates.renew_if_due(now, SystemTime::now()) {
            Ok(true) => tracing::debug!("the TLS certificate is renewed"),
            Ok(false) => {}
            Err(why) => tracing::warn!(%why, "the TLS certificate stays the old one"),
        }
    }
}
