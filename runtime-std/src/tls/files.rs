//! A certificate of the operator's own, out of PEM files as an ACME client leaves them (protocol 1.4).
use super::verify;
use rustls::{
    Error, InconsistentKeys,
    crypto::aws_lc_rs::sign::any_supported_type,
    pki_types::{
        CertificateDer, PrivateKeyDer,
        pem::{self, PemObject},
    },
    sign::CertifiedKey,
};
use shadowmesh_core::id::PeerId;
use std::{
    fmt,
    fs::{self, File},
    io::{self, Read},
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
    sync::Arc,
};
use zeroize::Zeroizing;

/// More was never meant as a certificate: what TLS can send of one is 16 MiB, what anybody does is a few KiB.
const MAX_FILE_BYTES: u64 = 64 * 1024;

/// Where the certificate and its key are.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CertFiles {
    /// The certificate, and behind it those of its chain.
    pub certificate: PathBuf,
    /// Its key.
    pub key: PathBuf,
}

/// What tells whether both files are still the ones that were read.
pub(super) type Stamp = [Option<(u64, u64, i64, i64)>; 2];

impl CertFiles {
    /// Reads both files for the relay with this identity; without one, to see whether they are good.
    ///
    /// # Errors
    /// A sentence that names the file and what would be right.
    pub fn load(&self, own: Option<PeerId>) -> Result<Arc<CertifiedKey>, String> {
        let chain = read(&self.certificate, "tls.certificate")?;
        let chain: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(&chain).collect();
        let chain = chain.map_err(|why| format!("{}: {why}", self.certificate.display()))?;
        let first = chain.first().ok_or_else(|| {
            format!(
                "{}: there is no certificate in it; right would be a PEM file, the relay's own certificate first",
                self.certificate.display()
            )
        })?;
        let shown =
            verify::read(first).map_err(|_| format!("{}: the first certificate in it cannot be read", self.certificate.display()))?;
        if own.is_some_and(|own| shown.identity.is_some_and(|id| id != own)) {
            return Err(format!(
                "{}: this is the certificate of another ShadowMesh identity, and peers would refuse it; leave tls.certificate out for one of this relay's own",
                self.certificate.display()
            ));
        }
        let key = PrivateKeyDer::from_pem_slice(&read(&self.key, "tls.key")?).map_err(|why| match why {
            pem::Error::NoItemsFound => {
                format!("{}: there is no private key in it; right would be a PEM file with one that is not encrypted", self.key.display())
            }
            why => format!("{}: {why}", self.key.display()),
        })?;
        let key = any_supported_type(&key).map_err(|why| format!("{}: this key cannot be used for TLS: {why}", self.key.display()))?;
        let certified = CertifiedKey::new(chain, key);
        match certified.keys_match() {
            // a key that does not tell its public half shows in the first handshake
            Ok(()) | Err(Error::InconsistentKeys(InconsistentKeys::Unknown)) => Ok(Arc::new(certified)),
            Err(_) => Err(format!("the key in {} is not that of the certificate in {}", self.key.display(), self.certificate.display())),
        }
    }

    /// What the files are now; a file that is not there is `None`.
    pub(super) fn stamp(&self) -> Stamp {
        [&self.certificate, &self.key]
            .map(|path| fs::metadata(path).ok().map(|meta| (meta.ino(), meta.len(), meta.mtime(), meta.mtime_nsec())))
    }
}

impl fmt::Display for CertFiles {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.certificate.display().fmt(f)
    }
}

/// The whole of a small file, wiped when it is dropped.
fn read(path: &Path, key: &str) -> Result<Zeroizing<Vec<u8>>, String> {
    let wrong = |why: io::Error| format!("{}: {why}; {key} names a PEM file that the relay may read", path.display());
    let mut bytes = Zeroizing::new(Vec::new());
    let file = File::open(path).map_err(wrong)?;
    file.take(MAX_FILE_BYTES + 1).read_to_end(&mut bytes).map_err(wrong)?;
    if bytes.len() as u64 > MAX_FILE_BYTES {
        return Err(format!("{}: more than 64 KiB; {key} names a PEM file, and nothing else should be in it", path.display()));
    }
    Ok(bytes)
}
