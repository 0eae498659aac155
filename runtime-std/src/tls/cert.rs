//! The certificate that a server shows: self-signed with the identity's own ML-DSA-87 key and made anew at two thirds of its life
//! (protocol 1.3), or the operator's, out of files that are read again when they change (protocol 1.4).
use super::{
    files::{CertFiles, Stamp},
    verify,
};
use core::time::Duration;
use rcgen::{CertificateParams, DnType, KeyUsagePurpose, PKCS_ML_DSA_87, PublicKeyData, SerialNumber, SignatureAlgorithm};
use rustls::{
    SignatureScheme,
    crypto::aws_lc_rs::sign::any_supported_type,
    pki_types::{CertificateDer, PrivatePkcs8KeyDer},
    server::{ClientHello, ResolvesServerCert},
    sign::{CertifiedKey, SigningKey},
};
use shadowmesh_core::{crypto::Identity, id::PeerId, time::Instant};
use std::{
    fmt,
    sync::{Arc, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard},
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
    identity: PeerId,
    key: CertKey,
    name: String,
    lifetime: Duration,
    current: RwLock<Current>,
}

struct Current {
    certified: Arc<CertifiedKey>,
    source: Source,
}

/// Where a certificate came from.
enum Source {
    Made {
        at: Instant,
    },
    /// As the files were when they were read last, whatever came of it.
    Read {
        files: CertFiles,
        stamp: Stamp,
    },
}

/// What a look at a certificate came to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Looked {
    /// It is the one that it was.
    Same,
    /// A new one was made.
    Made,
    /// The files have changed and were read.
    Read,
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
        let current = RwLock::new(Current { certified, source: Source::Made { at: now } });
        Ok(Arc::new(Self { identity: identity.id(), key, name, lifetime, current }))
    }

    /// Shows what is in these files from now on, read anew; `None`: a certificate of its own, made now unless it is one already.
    ///
    /// # Errors
    /// A sentence that names the file and what would be right; what was shown before stays.
    pub fn show(&self, files: Option<CertFiles>, now: Instant, wall: SystemTime) -> Result<Looked, String> {
        let (next, looked) = match files {
            None if matches!(self.read().source, Source::Made { .. }) => return Ok(Looked::Same),
            None => (self.made(now, wall)?, Looked::Made),
            Some(files) => {
                let stamp = files.stamp();
                (Current { certified: files.load(Some(self.identity))?, source: Source::Read { files, stamp } }, Looked::Read)
            }
        };
        *self.write() = next;
        Ok(looked)
    }

    /// Who the certificate says its holder is, for people.
    pub fn subject(&self) -> String {
        let certified = self.current();
        let shown = certified.cert.first().and_then(|first| verify::read(first).ok());
        shown.and_then(|shown| shown.subject).unwrap_or_else(|| self.name.clone())
    }

    /// The certificate of the moment with its key.
    pub fn current(&self) -> Arc<CertifiedKey> {
        Arc::clone(&self.read().certified)
    }

    /// When a certificate of its own is to be renewed: two thirds of its life after its making.
    pub fn renewal_at(&self) -> Option<Instant> {
        match self.read().source {
            Source::Made { at } => Some(at + self.lifetime / 3 * 2),
            Source::Read { .. } => None,
        }
    }

    /// What is left of the life of a certificate of its own, where its renewal is overdue.
    pub fn overdue(&self, now: Instant) -> Option<Duration> {
        let Source::Made { at } = self.read().source else { return None };
        (now >= at + self.lifetime / 3 * 2 + OVERDUE).then(|| (at + self.lifetime).since(now))
    }

    /// Makes a new certificate if it is time, or reads the files if they have changed since they were read last.
    ///
    /// # Errors
    /// A sentence, when signing fails or the files are no good, once for each change of them; the old certificate stays.
    pub fn look(&self, now: Instant, wall: SystemTime) -> Result<Looked, String> {
        if self.renewal_at().is_some_and(|at| now >= at) {
            let next = self.made(now, wall)?;
            *self.write() = next;
            return Ok(Looked::Made);
        }
        let mut current = self.write();
        let Source::Read { files, stamp: known } = &mut current.source else { return Ok(Looked::Same) };
        let stamp = files.stamp();
        if core::mem::replace(known, stamp) == stamp {
            return Ok(Looked::Same);
        }
        current.certified = files.load(Some(self.identity))?;
        Ok(Looked::Read)
    }

    fn made(&self, now: Instant, wall: SystemTime) -> Result<Current, String> {
        let certified = certify(&self.key, &self.name, self.lifetime, wall)?;
        Ok(Current { certified, source: Source::Made { at: now } })
    }

    fn read(&self) -> RwLockReadGuard<'_, Current> {
        self.current.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn write(&self) -> RwLockWriteGuard<'_, Current> {
        self.current.write().unwrap_or_else(PoisonError::into_inner)
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
