//! What a dialler accepts: a true handshake signature, and the pinned identity if the key is one of ours (protocol 1.3, 1.4).
use rustls::{
    CertificateError, DigitallySignedStruct, Error, OtherError, PeerIncompatible, SignatureScheme,
    client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier},
    crypto::{CryptoProvider, verify_tls13_signature},
    pki_types::{CertificateDer, ServerName, UnixTime},
};
use shadowmesh_core::{crypto::peer_id_of, id::PeerId};
use std::{fmt, sync::Arc};
use x509_parser::{asn1_rs::oid, prelude::FromDer, prelude::X509Certificate};

/// Bytes of an ML-DSA-87 public key (FIPS 204).
const PUBLIC_KEY_LEN: usize = 2592;

/// Characters of a foreign subject that are kept for messages.
const SUBJECT_CHARS: usize = 120;

/// The server is somebody else, or has no identity of ours where one is demanded.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WrongIdentity {
    /// Who it is, if its key is an ML-DSA-87 key.
    pub got: Option<PeerId>,
    /// Who a certificate of another kind says it is.
    pub subject: Option<String>,
}

impl fmt::Display for WrongIdentity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (&self.got, &self.subject) {
            (Some(id), _) => write!(f, "the server is {id}, not the expected one"),
            (None, Some(subject)) => write!(f, "the server shows a certificate of {subject:?} instead of an ML-DSA-87 one"),
            (None, None) => f.write_str("the server shows a certificate without an ML-DSA-87 key"),
        }
    }
}

impl std::error::Error for WrongIdentity {}

/// The `WrongIdentity` inside a TLS error.
pub(super) fn wrong_identity(error: &Error) -> Option<&WrongIdentity> {
    match error {
        Error::InvalidCertificate(CertificateError::Other(OtherError(inner))) => inner.downcast_ref(),
        _ => None,
    }
}

/// Who a certificate says its holder is.
pub(super) struct Shown {
    /// The identity of an ML-DSA-87 key.
    pub(super) identity: Option<PeerId>,
    /// The subject of a certificate with another key.
    pub(super) subject: Option<String>,
}

/// Reads key and subject; the certificate's own signature, names and dates mean nothing here.
pub(super) fn read(certificate: &CertificateDer<'_>) -> Result<Shown, Error> {
    let malformed = || Error::InvalidCertificate(CertificateError::BadEncoding);
    let (rest, certificate) = X509Certificate::from_der(certificate).map_err(|_| malformed())?;
    if !rest.is_empty() {
        return Err(malformed());
    }
    let spki = certificate.public_key();
    if spki.algorithm.algorithm == oid!(2.16.840.1.101.3.4.3.19) {
        let key = &spki.subject_public_key.data;
        if key.len() != PUBLIC_KEY_LEN {
            return Err(malformed());
        }
        return Ok(Shown { identity: Some(peer_id_of(key)), subject: None });
    }
    let subject = certificate.subject().to_string();
    let subject = subject.chars().filter(|c| !c.is_control()).take(SUBJECT_CHARS).collect();
    Ok(Shown { identity: None, subject: Some(subject) })
}

/// Checks a server for one dial.
#[derive(Debug)]
pub(super) struct Verifier {
    provider: Arc<CryptoProvider>,
    pin: Option<PeerId>,
    foreign: bool,
}

impl Verifier {
    pub(super) fn new(provider: Arc<CryptoProvider>, pin: Option<PeerId>, foreign: bool) -> Self {
        Self { provider, pin, foreign }
    }
}

impl ServerCertVerifier for Verifier {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        _intermediates: &[CertificateDer<'_>],
        _server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        _now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        let shown = read(end_entity)?;
        let accepted = match (shown.identity, self.pin) {
            (Some(id), Some(pin)) => id == pin,
            (Some(_), None) => true,
            (None, _) => self.foreign,
        };
        if accepted {
            return Ok(ServerCertVerified::assertion());
        }
        let wrong = WrongIdentity { got: shown.identity, subject: shown.subject };
        Err(CertificateError::Other(OtherError(Arc::new(wrong))).into())
    }

    fn verify_tls12_signature(
        &self,
        _message: &[u8],
        _certificate: &CertificateDer<'_>,
        _signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        Err(Error::PeerIncompatible(PeerIncompatible::ServerTlsVersionIsDisabledByOurConfig))
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls13_signature(message, certificate, signature, &self.provider.signature_verification_algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        if self.foreign { self.provider.signature_verification_algorithms.supported_schemes() } else { vec![SignatureScheme::ML_DSA_87] }
    }
}
