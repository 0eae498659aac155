//! What is looked at every few seconds: the certificate's age.
use crate::tls::{CertFiles, CertStore, Looked};
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

    /// Renews the certificate at two thirds of its life, or reads it again when its files have changed.
    pub(crate) fn look(&self, now: Instant) {
        self.tell(self.certificates.look(now, SystemTime::now()));
    }

    /// Shows another certificate, or the same files read anew.
    pub(crate) fn show(&self, now: Instant, files: Option<CertFiles>) {
        self.tell(self.certificates.show(files, now, SystemTime::now()));
    }

    fn tell(&self, looked: Result<Looked, String>) {
        match looked {
            Ok(Looked::Made) => tracing::debug!("the TLS certificate is renewed"),
            Ok(Looked::Read) => tracing::info!(subject = self.certificates.subject(), "the TLS certificate was read from its files"),
            Ok(Looked::Same) => {}
            Err(why) => tracing::warn!(%why, "the TLS certificate stays the old one"),
        }
    }
}
