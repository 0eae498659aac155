//! The identity file of a peer or relay: one line, readable by its owner only.
//!
//! ```text
//! shadowmesh-identity-1 <48 characters base64url: seed 32 ‖ CRC-32 of the seed 4>
//! ```
use crate::credential;
use core::fmt;
use shadowmesh_core::crypto::Identity;
use std::{
    fs::{self, OpenOptions},
    io::{self, Read, Write},
    os::unix::fs::{OpenOptionsExt, PermissionsExt},
    path::{Path, PathBuf},
};
use zeroize::Zeroizing;

/// The first word of the file: its format and version.
const MAGIC: &str = "shadowmesh-identity-1";
/// Seed and checksum in base64url, no padding.
const ENCODED_LEN: usize = 48;
/// More than this was never written by us.
const MAX_FILE_BYTES: u64 = 1024;

/// Why an identity file could not be read or made; each is a sentence for a person.
#[derive(Debug)]
pub enum IdentityError {
    /// There is no such file.
    Missing(PathBuf),
    /// There is one already, and it is not overwritten.
    Exists(PathBuf),
    /// Group or world can read it; the mode is given.
    Exposed(PathBuf, u32),
    /// It ends too early.
    Truncated(PathBuf),
    /// It is whole, but a character was changed.
    Checksum(PathBuf),
    /// It is something else; the text says what is wrong.
    Malformed(PathBuf, &'static str),
    /// The operating system refused.
    Io(PathBuf, io::Error),
}

impl fmt::Display for IdentityError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Missing(path) => {
                write!(f, "identity file {} does not exist; make one with `shadowmesh keygen --out {}`", path.display(), path.display())
            }
            Self::Exists(path) => write!(f, "identity file {} exists already and is not overwritten; move it away first", path.display()),
            Self::Exposed(path, mode) => {
                write!(f, "identity file {} can be read by others (mode {mode:04o}); run `chmod 600 {}`", path.display(), path.display())
            }
            Self::Truncated(path) => write!(f, "identity file {} is truncated; restore it from a backup or make a new one", path.display()),
            Self::Checksum(path) => {
                write!(f, "identity file {} is damaged: its checksum is wrong; restore it from a backup or make a new one", path.display())
            }
            Self::Malformed(path, what) => write!(f, "identity file {} is not an identity: {what}", path.display()),
            Self::Io(path, error) => write!(f, "identity file {}: {error}", path.display()),
        }
    }
}

impl core::error::Error for IdentityError {}

/// Where an identity is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum KeyPlace {
    /// In a file of ours; made when missing.
    File(PathBuf),
    /// With the service manager, who hands it in; never written by us.
    Credential(PathBuf),
}

impl KeyPlace {
    /// The same, seen from this directory: a relative path of a file starts there.
    #[must_use]
    pub fn within(self, directory: &Path) -> Self {
        match self {
            Self::File(path) => Self::File(directory.join(path)),
            Self::Credential(path) => Self::Credential(path),
        }
    }

    /// Reads it.
    pub fn load(&self) -> Result<Identity, IdentityError> {
        match self {
            Self::File(path) => load(path),
            Self::Credential(path) => load_credential(path),
        }
    }

    /// Reads it, or makes it where it may be made and is not yet.
    pub fn load_or_create(&self) -> Result<Identity, IdentityError> {
        match self {
            Self::File(path) => load_or_create(path),
            Self::Credential(path) => load_credential(path),
        }
    }

    /// What is wrong with it, and what to do about that.
    pub fn sentence(&self, error: &IdentityError) -> String {
        match self {
            Self::File(_) => error.to_string(),
            Self::Credential(_) => format!("{error}; {}", credential::REMEDY),
        }
    }
}

/// Reads the identity at `path`, which nobody but its owner may be able to read.
pub fn load(path: &Path) -> Result<Identity, IdentityError> {
    read(path, 0o077)
}

/// Reads an identity that the service manager handed in. It lets the service's user in by an access control list, which shows as rights of
/// a group that has none (acl(5)).
fn load_credential(path: &Path) -> Result<Identity, IdentityError> {
    read(path, 0o007)
}

/// Reads the identity at `path`, unless its mode has one of these bits.
fn read(path: &Path, exposed: u32) -> Result<Identity, IdentityError> {
    let failed = |error: io::Error| match error.kind() {
        io::ErrorKind::NotFound => IdentityError::Missing(path.to_owned()),
        _ => IdentityError::Io(path.to_owned(), error),
    };
    let file = fs::File::open(path).map_err(failed)?;
    let meta = file.metadata().map_err(failed)?;
    if !meta.is_file() {
        return Err(IdentityError::Malformed(path.to_owned(), "it is not a regular file"));
    }
    let mode = meta.permissions().mode() & 0o7777;
    if mode & exposed != 0 {
        return Err(IdentityError::Exposed(path.to_owned(), mode));
    }
    let mut text = Zeroizing::new(Vec::with_capacity(MAX_FILE_BYTES as usize + 1));
    file.take(MAX_FILE_BYTES + 1).read_to_end(&mut text).map_err(failed)?;
    if text.len() as u64 > MAX_FILE_BYTES {
        return Err(IdentityError::Malformed(path.to_owned(), "it is too large"));
    }
    let seed = decode(&text).map_err(|fault| fault.at(path))?;
    Ok(Identity::from_seed(*seed))
}

/// Makes a new identity and writes it to `path` with mode 0600. An existing file is never touched.
pub fn create(path: &Path) -> Result<Identity, IdentityError> {
    let failed = |error: io::Error| match error.kind() {
        io::ErrorKind::AlreadyExists => IdentityError::Exists(path.to_owned()),
        _ => IdentityError::Io(path.to_owned(), error),
    };
    let no_chance = |error: getrandom::Error| failed(io::Error::other(error.to_string()));
    let (identity, line) = generate().map_err(no_chance)?;
    let mut half = [0; 8];
    getrandom::fill(&mut half).map_err(no_chance)?;
    // The whole file appears at once: whoever looks meanwhile, or after a loss of power, finds all of it or nothing.
    let mut name = path.as_os_str().to_owned();
    name.push(format!(".{:016x}", u64::from_be_bytes(half)));
    let fresh = PathBuf::from(name);
    let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&fresh).map_err(failed)?;
    let made = file.write_all(line.as_bytes()).and_then(|()| file.sync_all()).and_then(|()| fs::hard_link(&fresh, path));
    let _ = fs::remove_file(&fresh);
    made.map_err(failed)?;
    Ok(identity)
}

/// Makes a new identity: itself, and the line of its file.
pub fn generate() -> Result<(Identity, Zeroizing<String>), getrandom::Error> {
    let mut seed = Zeroizing::new([0; 32]);
    getrandom::fill(seed.as_mut_slice())?;
    Ok((Identity::from_seed(*seed), encode(&seed)))
}

/// Reads the identity at `path`, or makes one where there is no file.
pub fn load_or_create(path: &Path) -> Result<Identity, IdentityError> {
    match load(path) {
        Err(IdentityError::Missing(_)) => match create(path) {
            // another program was faster
            Err(IdentityError::Exists(_)) => load(path),
            made => made,
        },
        other => other,
    }
}

/// What is wrong with the text, before a path is known.
#[derive(Debug, PartialEq, Eq)]
enum Fault {
    Truncated,
    Checksum,
    Malformed(&'static str),
}

impl Fault {
    fn at(self, path: &Path) -> IdentityError {
        match self {
            Self::Truncated => IdentityError::Truncated(path.to_owned()),
            Self::Checksum => IdentityError::Checksum(path.to_owned()),
            Self::Malformed(what) => IdentityError::Malformed(path.to_owned(), what),
        }
    }
}

fn encode(seed: &[u8; 32]) -> Zeroizing<String> {
    let mut bytes = Zeroizing::new([0; 36]);
    bytes[..32].copy_from_slice(seed);
    bytes[32..].copy_from_slice(&crc32(seed).to_be_bytes());
    let mut line = Zeroizing::new(String::with_capacity(MAGIC.len() + ENCODED_LEN + 2));
    line.push_str(MAGIC);
    line.push(' ');
    for three in bytes.chunks_exact(3) {
        let word = u32::from_be_bytes([0, three[0], three[1], three[2]]);
        for shift in [18, 12, 6, 0] {
            line.push(char::from(character((word >> shift) as u8 & 63)));
        }
    }
    line.push('\n');
    line
}

fn decode(text: &[u8]) -> Result<Zeroizing<[u8; 32]>, Fault> {
    let text = text.trim_ascii_end();
    let Some(rest) = text.strip_prefix(MAGIC.as_bytes()) else {
        let cut = MAGIC.as_bytes().starts_with(text);
        return Err(if cut { Fault::Truncated } else { Fault::Malformed("it does not begin with `shadowmesh-identity-1`") });
    };
    let encoded = rest.trim_ascii_start();
    if encoded.len() < ENCODED_LEN {
        return Err(Fault::Truncated);
    }
    if rest.len() == encoded.len() || encoded.len() > ENCODED_LEN {
        return Err(Fault::Malformed("one word of 48 characters must follow `shadowmesh-identity-1`"));
    }
    let mut bytes = Zeroizing::new([0; 36]);
    for (four, three) in encoded.chunks_exact(4).zip(bytes.chunks_exact_mut(3)) {
        let mut word = 0;
        for byte in four {
            let value = value(*byte).ok_or(Fault::Malformed("a character is not base64url"))?;
            word = word << 6 | u32::from(value);
        }
        three.copy_from_slice(&word.to_be_bytes()[1..]);
    }
    let mut seed = Zeroizing::new([0; 32]);
    seed.copy_from_slice(&bytes[..32]);
    if bytes[32..] != crc32(&seed[..]).to_be_bytes() {
        return Err(Fault::Checksum);
    }
    Ok(seed)
}

fn character(value: u8) -> u8 {
    match value {
        0..=25 => b'A' + value,
        26..=51 => b'a' + value - 26,
        52..=61 => b'0' + value - 52,
        62 => b'-',
        _ => b'_',
    }
}

fn value(character: u8) -> Option<u8> {
    match character {
        b'A'..=b'Z' => Some(character - b'A'),
        b'a'..=b'z' => Some(character - b'a' + 26),
        b'0'..=b'9' => Some(character - b'0' + 52),
        b'-' => Some(62),
        b'_' => Some(63),
        _ => None,
    }
}

/// CRC-32 as in IEEE 802.3: it finds accidents, and is not meant to find more.
fn crc32(bytes: &[u8]) -> u32 {
    let mut crc = u32::MAX;
    for byte in bytes {
        crc ^= u32::from(*byte);
        for _ in 0..8 {
            crc = if crc & 1 == 1 { crc >> 1 ^ 0xedb8_8320 } else { crc >> 1 };
        }
    }
    !crc
}

#[cfg(test)]
mod tests {
    use super::*;

    /// So systemd leaves them: read by the service's user by an access control list, whose mask stands where the group's rights would.
    #[test]
    fn a_credential_may_show_a_mask_and_nothing_for_others() {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let path = dir.path().join("identity.key");
        let (identity, line) = generate().expect("chance");
        fs::write(&path, line.as_bytes()).expect("written");
        let with = |mode| fs::set_permissions(&path, fs::Permissions::from_mode(mode)).expect("ours");
        with(0o440);
        assert!(matches!(load(&path), Err(IdentityError::Exposed(_, 0o440))), "a file of our own is nobody else's");
        assert_eq!(load_credential(&path).expect("a credential").id(), identity.id());
        with(0o444);
        assert!(matches!(load_credential(&path), Err(IdentityError::Exposed(_, 0o444))));
    }

    #[test]
    fn what_is_written_is_read_again_and_never_overwritten() {
        let dir = tempfile::tempdir().expect("temp dir");
        let path = dir.path().join("identity.key");
        let made = load_or_create(&path).expect("makes");
        assert_eq!(load_or_create(&path).expect("loads").id(), made.id());
        assert_eq!(fs::metadata(&path).expect("there").permissions().mode() & 0o777, 0o600);
        let before = fs::read(&path).expect("reads");
        assert!(matches!(create(&path), Err(IdentityError::Exists(_))));
        assert_eq!(fs::read(&path).expect("reads"), before);
    }

    #[test]
    fn programs_that_make_the_identity_at_the_same_moment_have_one_and_the_same() {
        for _ in 0..20 {
            let dir = tempfile::tempdir().expect("temp dir");
            let path = dir.path().join("identity.key");
            let start = std::sync::Barrier::new(8);
            let make = || {
                start.wait();
                load_or_create(&path).expect("made or loaded").id()
            };
            let ids: Vec<_> = std::thread::scope(|scope| {
                let threads: Vec<_> = (0..8).map(|_| scope.spawn(make)).collect();
                threads.into_iter().map(|thread| thread.join().expect("no panic")).collect()
            });
            assert!(ids.iter().all(|id| *id == ids[0]), "{ids:?}");
            assert_eq!(fs::read_dir(dir.path()).expect("reads").count(), 1, "nothing else is left");
        }
    }

    #[test]
    fn each_fault_has_its_sentence() {
        let dir = tempfile::tempdir().expect("temp dir");
        let path = dir.path().join("identity.key");
        let good = encode(&[7; 32]);
        let changed = good.replacen("HB", "HC", 1);
        assert_ne!(*good, changed);
        for (text, sentence) in [
            ("", "is truncated"),
            ("shadowmesh-ide", "is truncated"),
            (&good[..40], "is truncated"),
            (&good[..good.len() - 2], "is truncated"),
            (&changed, "checksum is wrong"),
            ("-----BEGIN PRIVATE KEY-----\n", "does not begin with"),
            (&format!("{} x\n", good.trim_end()), "48 characters"),
            (&good.replacen("HB", "H!", 1), "not base64url"),
            (&" ".repeat(2000), "too large"),
        ] {
            fs::write(&path, text).expect("writes");
            fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).expect("chmod");
            let said = load(&path).expect_err("refused").to_string();
            assert!(said.contains(sentence), "{text:?} gave {said:?}");
            assert!(!said.contains('\n') && said.contains("identity.key"), "{said:?}");
        }
        fs::write(&path, good.as_bytes()).expect("writes");
        fs::set_permissions(&path, fs::Permissions::from_mode(0o640)).expect("chmod");
        let said = load(&path).expect_err("refused").to_string();
        assert!(said.contains("chmod 600") && said.contains("0640"), "{said:?}");
        assert!(matches!(load(dir.path()), Err(IdentityError::Malformed(..))));
        assert!(matches!(load(&dir.path().join("none")), Err(IdentityError::Missing(_))));
    }

    #[test]
    fn the_checksum_is_the_standard_one() {
        assert_eq!(crc32(b"123456789"), 0xcbf4_3926);
    }
}
