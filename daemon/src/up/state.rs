//! The state directory: one daemon at a time in it, the remembered join token, which peer owns which address, and who follows whom.
use crate::{credentials, failure::Failure};
use shadowmesh_core::{
    id::PeerId,
    network::Network,
    succession::{SUCCESSIONS_MAX, Succession},
};
use std::{
    collections::BTreeMap,
    fmt::Write as _,
    fs::{self, DirBuilder, File, OpenOptions},
    io::{self, Write},
    net::IpAddr,
    os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt},
    path::{Path, PathBuf},
};

/// More remembered addresses than this are an attack or a mistake; newer ones are then not remembered.
const MAX_CLAIMS: usize = 65_536;
/// One line a claim.
const MAX_CLAIMS_BYTES: u64 = 16 << 20;
/// One line an identity that is followed: it, the one that follows, and a word.
const MAX_SUCCESSIONS_BYTES: u64 = 256 * SUCCESSIONS_MAX as u64;
/// The file of who follows whom.
const SUCCESSIONS: &str = "successions";
/// The follower has been here: the old identity is refused.
const PROVEN: &str = "proven";
/// It was told and has not been here.
const PENDING: &str = "pending";

/// A state directory that this process owns until it ends.
#[derive(Debug)]
pub(crate) struct State {
    dir: PathBuf,
    /// The lock lives as long as the file is open.
    _lock: File,
}

impl State {
    /// Makes the directory when missing and takes its lock.
    pub(crate) fn open(dir: &Path) -> Result<Self, Failure> {
        let failed = |error: io::Error| {
            Failure::failed(format!("{}: the state directory cannot be used: {error}; choose another with --state-dir", dir.display()))
        };
        DirBuilder::new().recursive(true).mode(0o700).create(dir).map_err(failed)?;
        let lock = OpenOptions::new().create(true).truncate(false).write(true).mode(0o600).open(dir.join("lock")).map_err(failed)?;
        give(&lock, dir).map_err(failed)?;
        match rustix::fs::flock(&lock, rustix::fs::FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => Ok(Self { dir: dir.to_owned(), _lock: lock }),
            Err(error) if error == rustix::io::Errno::WOULDBLOCK => Err(Failure::failed(format!(
                "{}: another peer runs with this state; stop it with `shadowmesh down`, or choose another with --state-dir",
                dir.display()
            ))),
            Err(error) => Err(failed(error.into())),
        }
    }

    /// The network that an earlier `up --join` left here.
    pub(crate) fn remembered_network(&self) -> Result<Option<Network>, Failure> {
        let path = self.dir.join("join.token");
        if !path.exists() {
            return Ok(None);
        }
        credentials::network_of_file(&path).map(|(network, _)| Some(network)).map_err(Failure::usage)
    }

    /// Keeps a join token for the next start.
    pub(crate) fn remember_network(&self, token: &str) -> Result<(), Failure> {
        let path = self.dir.join("join.token");
        if fs::read_to_string(&path).is_ok_and(|known| known.trim() == token) {
            return Ok(());
        }
        self.replace("join.token", format!("{token}\n").as_bytes())
            .map_err(|error| Failure::failed(format!("{}: the join token cannot be kept: {error}", path.display())))
    }

    /// The addresses that peers proved to own in earlier runs.
    pub(crate) fn claims(&self) -> Claims {
        let path = self.dir.join("claims");
        let owners = match read_claims(&path) {
            Ok(owners) => owners,
            Err(error) => {
                tracing::warn!(file = %path.display(), %error, "remembered addresses cannot be read; starting without them");
                BTreeMap::new()
            }
        };
        Claims { owners }
    }

    /// Writes the claims down.
    pub(crate) fn keep_claims(&self, claims: &Claims) -> io::Result<()> {
        let mut text = String::new();
        for (address, peer) in &claims.owners {
            let _ = writeln!(text, "{address} {peer}");
        }
        self.replace("claims", text.as_bytes())
    }

    /// Which identity follows which, as earlier runs were told.
    pub(crate) fn successions(&self) -> Successions {
        let path = self.dir.join(SUCCESSIONS);
        let by_old = read_successions(&path).unwrap_or_else(|error| {
            tracing::warn!(
                file = %path.display(), %error,
                "who follows whom cannot be read, so a key that was followed is taken again until its follower is here; put back a copy of the file"
            );
            BTreeMap::new()
        });
        Successions { by_old }
    }

    /// Writes down who follows whom.
    pub(crate) fn keep_successions(&self, successions: &Successions) -> io::Result<()> {
        let mut text = String::new();
        for Succession { old, new, proven } in successions.by_old.values() {
            let _ = writeln!(text, "{old} {new} {}", if *proven { PROVEN } else { PENDING });
        }
        self.replace(SUCCESSIONS, text.as_bytes())
    }

    /// Writes a private file beside the old one and puts it in its place: there is always a whole one.
    fn replace(&self, name: &str, bytes: &[u8]) -> io::Result<()> {
        let fresh = self.dir.join(format!("{name}.new"));
        match fs::remove_file(&fresh) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        let mut file = OpenOptions::new().create_new(true).write(true).mode(0o600).open(&fresh)?;
        give(&file, &self.dir)?;
        file.write_all(bytes)?;
        file.sync_all()?;
        fs::rename(&fresh, self.dir.join(name))
    }
}

/// A file belongs to whom its directory belongs: root may join a network for a daemon that has a user of its own.
fn give(file: &File, dir: &Path) -> io::Result<()> {
    let owner = fs::metadata(dir)?;
    if rustix::process::geteuid().is_root() && owner.uid() != 0 {
        std::os::unix::fs::fchown(file, Some(owner.uid()), Some(owner.gid()))?;
    }
    Ok(())
}

/// Which peer proved to own which address first.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Claims {
    owners: BTreeMap<IpAddr, PeerId>,
}

impl Claims {
    /// Adds one; false when nothing changed.
    pub(crate) fn add(&mut self, address: IpAddr, peer: PeerId) -> bool {
        if self.owners.get(&address) == Some(&peer) || (self.owners.len() >= MAX_CLAIMS && !self.owners.contains_key(&address)) {
            return false;
        }
        self.owners.insert(address, peer);
        true
    }

    /// As the node wants them.
    pub(crate) fn list(&self) -> Vec<(IpAddr, PeerId)> {
        self.owners.iter().map(|(address, peer)| (*address, *peer)).collect()
    }
}

/// Which identity follows which.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Successions {
    by_old: BTreeMap<PeerId, Succession>,
}

impl Successions {
    /// Adds one, in the place of what was kept of the old identity; false when nothing changed.
    pub(crate) fn add(&mut self, succession: Succession) -> bool {
        self.by_old.insert(succession.old, succession) != Some(succession)
    }

    /// As the node wants them.
    pub(crate) fn list(&self) -> Vec<Succession> {
        self.by_old.values().copied().collect()
    }
}

fn read_successions(path: &Path) -> io::Result<BTreeMap<PeerId, Succession>> {
    let mut by_old = BTreeMap::new();
    for (number, line) in read_small(path, MAX_SUCCESSIONS_BYTES)?.lines().enumerate() {
        let parsed = match line.split(' ').collect::<Vec<_>>()[..] {
            [old, new, state @ (PROVEN | PENDING)] => old.parse().ok().zip(new.parse().ok()).map(|(old, new)| (old, new, state == PROVEN)),
            _ => None,
        };
        let wrong = || io::Error::other(format!("line {} is not two PeerIds and {PROVEN} or {PENDING}", number + 1));
        let (old, new, proven) = parsed.ok_or_else(wrong)?;
        by_old.insert(old, Succession { old, new, proven });
    }
    Ok(by_old)
}

/// The text of a file; nothing where there is none.
fn read_small(path: &Path, most: u64) -> io::Result<String> {
    let meta = match fs::metadata(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(String::new()),
        other => other?,
    };
    if meta.len() > most {
        return Err(io::Error::other("the file is too large"));
    }
    fs::read_to_string(path)
}

fn read_claims(path: &Path) -> io::Result<BTreeMap<IpAddr, PeerId>> {
    let mut owners = BTreeMap::new();
    for (number, line) in read_small(path, MAX_CLAIMS_BYTES)?.lines().enumerate() {
        let parsed = line.split_once(' ').and_then(|(address, peer)| Some((address.parse().ok()?, peer.parse().ok()?)));
        let (address, peer) = parsed.ok_or_else(|| io::Error::other(format!("line {} is not an address and a PeerId", number + 1)))?;
        owners.insert(address, peer);
    }
    Ok(owners)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_directory_has_one_owner_at_a_time() {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let first = State::open(dir.path()).expect("nobody else is there");
        let second = State::open(dir.path()).expect_err("the first one holds it");
        assert_eq!(second.code, 1);
        assert!(second.sentence.contains("another peer runs"), "{second}");
        drop(first);
        State::open(dir.path()).expect("it is free again");
    }

    #[test]
    fn claims_survive_and_damage_is_not_fatal() {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let state = State::open(dir.path()).expect("nobody else is there");
        let mut claims = state.claims();
        assert_eq!(claims, Claims::default());
        let address: IpAddr = "10.77.0.1".parse().expect("an address");
        assert!(claims.add(address, PeerId([1; 32])));
        assert!(!claims.add(address, PeerId([1; 32])));
        state.keep_claims(&claims).expect("written");
        assert_eq!(state.claims(), claims);
        fs::write(dir.path().join("claims"), "nonsense\n").expect("written");
        assert_eq!(state.claims(), Claims::default());
    }

    // protocol 2.8
    #[test]
    fn who_follows_whom_survives_and_damage_is_not_fatal() {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let state = State::open(dir.path()).expect("nobody else is there");
        let mut kept = state.successions();
        let told = |proven| Succession { old: PeerId([1; 32]), new: PeerId([2; 32]), proven };
        assert!(kept.add(told(false)) && !kept.add(told(false)) && kept.add(told(true)));
        state.keep_successions(&kept).expect("written");
        assert_eq!(state.successions().list(), [told(true)]);
        let revoked = Succession { old: PeerId([1; 32]), new: PeerId([3; 32]), proven: false };
        assert!(kept.add(revoked), "another one in its place");
        assert_eq!(kept.list(), [revoked]);
        fs::write(dir.path().join(SUCCESSIONS), format!("{} {} perhaps\n", PeerId([1; 32]), PeerId([2; 32]))).expect("written");
        assert_eq!(state.successions(), Successions::default());
    }
}
