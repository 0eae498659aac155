//! What is looked at every few seconds: the certificate's age.
use crate::tls::CertStore;
use shadowmesh_core::time::Instant;
use std::{sync::Arc, time::SystemTime};

/// Looks after a certificate.
pub(crate) struct House {
    certificates: Arc<CertStore>,
}

impl House {
    pub(crate) fn new(certificates: Arc<CertStore>) -> Self {
        Self { certificates }
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
