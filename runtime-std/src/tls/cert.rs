//! Self-signed certificates with the identity's own ML-DSA-87 key, made anew at two thirds of their life (protocol 1.3).
use core::time::Duration;
use rcgen::{CertificateParams, DnType, KeyUsagePurpose, PKCS_ML_DSA_87, PublicKeyData, SerialNumber, SignatureAlgorithm};
use rustls::{
    SignatureScheme,
    crypto::aws_lc_rs::sign::any_supported_type,
    pki_types::{CertificateDer, PrivatePkcs8KeyDer},
    server::{ClientHello, ResolvesServerCert},
    sign::{CertifiedKey, SigningKey},
};
use shadowmesh_core::{crypto::Identity, time::Instant};
use std::{
    fmt,
    sync::{Arc, PoisonError, RwLock},
    time::SystemTime,
};
use zeroize::Zeroizing;

/// What stands before the 32-byte seed in the PKCS#8 form of an ML-DSA-87 key (RFC 9881, "seed" choice).
const PKCS8_SEED_PREFIX: [u8; 22] =
    [0x30, 0x34, 0x02, 0x01, 0x00, 0x30, 0x0b, 0x06, 0x09, 0x60, 0x86, 0x48, 0x01, 0x65, 0x03, 0x04, 0x03, 0x13, 0x04, 0x22, 0x80, 0x20];

/// A renewal that is due is tried within this, several times.
const OVERDUE: Duration = Duration::from_mins(1);

/// How far a certificate's life begins before its making, so that a clock slightly behind sees a valid one.
const BACKDATED: Duration = Duration::from_hours(1);

/// The certificate of an identity, as a TLS server shows it.
pub struct CertStore {
    key: CertKey,
    name: String,
    lifetime: Duration,
    current: RwLock<Current>,
}

struct Current {
    certified: Arc<CertifiedKey>,
    made_at: Instant,
}

impl CertStore {
    /// A store with a first certificate. `wall` fills the validity fields, which no verifier of ours reads.
    ///
    /// # Errors
    /// A sentence, when the TLS library refuses the key.
    pub fn new(identity: &Identity, lifetime: Duration, now: Instant, wall: SystemTime) -> Result<Arc<Self>, String> {
        let key = CertKey::new(identity).map_err(|why| format!("the identity key cannot sign TLS certificates: {why}"))?;
        let name = identity.id().to_string();
        let certified = certify(&key, &name, lifetime, wall)?;
        let current = RwLock::new(Current { certified, made_at: now });
        Ok(Arc::new(Self { key, name, lifetime, current }))
    }

    /// The certificate of the moment with its key.
    pub fn current(&self) -> Arc<CertifiedKey> {
        Arc::clone(&self.current.read().unwrap_or_else(PoisonError::into_inner).certified)
    }

    /// When the certificate is to be renewed: two thirds of its life after its making.
    pub fn renewal_at(&self) -> Instant {
        self.current.read().unwrap_or_else(PoisonError::into_inner).made_at + self.lifetime / 3 * 2
    }

    /// What is left of the certificate's life, where its renewal is overdue.
    pub fn overdue(&self, now: Instant) -> Option<Duration> {
        let made_at = self.current.read().unwrap_or_else(PoisonError::into_inner).made_at;
        (now >= self.renewal_at() + OVERDUE).then(|| (made_at + self.lifetime).since(now))
    }

    /// Makes a new certificate if it is time; tells whether it did.
    ///
    /// # Errors
    /// A sentence, when signing fails; the old certificate stays.
    pub fn renew_if_due(&self, now: Instant, wall: SystemTime) -> Result<bool, String> {
        if now < self.renewal_at() {
            return Ok(false);
        }
        let certified = certify(&self.key, &self.name, self.lifetime, wall)?;
        *self.current.write().unwrap_or_else(PoisonError::into_inner) = Current { certified, made_at: now };
        Ok(true)
    }
}

impl fmt::Debug for CertStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("CertStore").field("name", &self.name).field("lifetime", &self.lifetime).finish_non_exhaustive()
    }
}

impl ResolvesServerCert for CertStore {
    fn resolve(&self, _hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        Some(self.current())
    }
}

/// One self-signed certificate and the key to use it with.
fn certify(key: &CertKey, name: &str, lifetime: Duration, wall: SystemTime) -> Result<Arc<CertifiedKey>, String> {
    let mut params = CertificateParams::default();
    params.distinguished_name.push(DnType::CommonName, name);
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    let mut serial = [0; 16];
    serial.copy_from_slice(&crate::entropy::fresh()[..16]);
    serial[0] = serial[0] & 0x7f | 0x40; // positive and of full length (RFC 5280 4.1.2.2)
    params.serial_number = Some(SerialNumber::from_slice(&serial));
    params.not_before = wall.checked_sub(BACKDATED).unwrap_or(SystemTime::UNIX_EPOCH).into();
    params.not_after = wall.checked_add(lifetime).unwrap_or(wall).into();
    let certificate = params.self_signed(key).map_err(|why| format!("cannot make a TLS certificate: {why}"))?;
    let chain = vec![CertificateDer::from(certificate)];
    Ok(Arc::new(CertifiedKey::new(chain, Arc::clone(&key.signing))))
}

/// The identity's key in the forms that the TLS library and the certificate maker want.
pub(super) struct CertKey {
    signing: Arc<dyn SigningKey>,
    public_key: Vec<u8>,
}

impl CertKey {
    pub(super) fn new(identity: &Identity) -> Result<Self, rustls::Error> {
        let mut pkcs8 = Zeroizing::new([0; PKCS8_SEED_PREFIX.len() + 32]);
        pkcs8[..PKCS8_SEED_PREFIX.len()].copy_from_slice(&PKCS8_SEED_PREFIX);
        pkcs8[PKCS8_SEED_PREFIX.len()..].copy_from_slice(identity.seed());
        let signing = any_supported_type(&PrivatePkcs8KeyDer::from(&pkcs8[..]).into())?;
        Ok(Self { signing, public_key: identity.public_key().to_vec() })
    }
}

impl PublicKeyData for CertKey {
    fn der_bytes(&self) -> &[u8] {
        &self.public_key
    }

    fn algorithm(&self) -> &'static SignatureAlgorithm {
        &PKCS_ML_DSA_87
    }
}

impl rcgen::SigningKey for CertKey {
    fn sign(&self, message: &[u8]) -> Result<Vec<u8>, rcgen::Error> {
        self.signing
            .choose_scheme(&[SignatureScheme::ML_DSA_87])
            .and_then(|signer| signer.sign(message).ok())
            .ok_or(rcgen::Error::RemoteKeyError)
    }
}
