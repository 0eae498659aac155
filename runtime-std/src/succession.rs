//! How an identity file gives way to the next one (protocol 2.8), so that a crash at any moment leaves one that is good.
//!
//! ```text
//!   KEY        the identity                     prepare:  KEY.next is made, then KEY.line says so
//!   KEY.next   the one that follows             take up:  at the next start KEY.next is renamed over KEY, if KEY.line says so
//!   KEY.line   what all of them have signed, the oldest first
//! ```
use crate::identity::{self, IdentityError};
use shadowmesh_core::{
    crypto::{Identity, Provider},
    id::PeerId,
    succession::{OWN_MAX, STATEMENT_LEN, Statement},
};
use std::{
    fs::{self, File, OpenOptions},
    io::{self, Write},
    os::unix::fs::{MetadataExt, OpenOptionsExt, chown},
    path::{Path, PathBuf},
};
use zeroize::Zeroizing;

/// An identity that is in use, and the statements by which it follows others, the oldest first.
pub struct InUse {
    /// Itself.
    pub identity: Identity,
    /// They end with it.
    pub line: Vec<Statement>,
    /// It has just taken the place of the one before.
    pub is_new: bool,
    /// It was said that this one follows, and its key is not here: an older key was put back, or the newer one is lost.
    pub followed_by: Option<PeerId>,
}

/// A new identity that follows at the next start. Where one is there already, it is that one.
pub struct Prepared {
    /// What both say.
    pub statement: Statement,
    /// It was there already.
    pub was_there: bool,
    /// With the next start nobody is told any more that this one is followed: the line has become too long.
    pub dropped: Option<PeerId>,
}

/// Makes the identity that will follow the one at `key`, and the statement of both.
///
/// # Errors
/// A file cannot be read or written.
pub fn prepare(key: &Path, crypto: &dyn Provider) -> Result<Prepared, IdentityError> {
    let old = identity::load(key)?;
    let next = beside(key, "next");
    let new = identity::load_or_create(&next)?;
    give(&next, key)?;
    let mut line = line(key, old.id(), crypto)?;
    if let Some(statement) = line.successor(new.id()) {
        return Ok(Prepared { statement, was_there: true, dropped: None });
    }
    let coins = [fresh(key)?, fresh(key)?];
    let statement = Statement::make(&old, &new, crypto, [&coins[0], &coins[1]]);
    line.statements.push(statement.clone());
    let surplus = line.statements.len().saturating_sub(OWN_MAX);
    let dropped = line.statements.drain(..surplus).next().map(|oldest| oldest.said().0);
    write_line(key, &line.statements)?;
    Ok(Prepared { statement, was_there: false, dropped })
}

/// Reads the identity at `key`, after the one that was prepared has taken its place; makes one where there is none.
///
/// # Errors
/// A file cannot be read or written.
pub fn take_up(key: &Path, crypto: &dyn Provider) -> Result<InUse, IdentityError> {
    let next = beside(key, "next");
    // one that was made and of which nothing was said waits for that: whoever lists this peer would not know it
    let is_new = next.exists() && line(key, identity::load(key)?.id(), crypto)?.successor(identity::load(&next)?.id()).is_some();
    if is_new {
        fs::rename(&next, key).and_then(|()| sync_folder(key)).map_err(|error| IdentityError::Io(key.to_owned(), error))?;
    }
    let identity = identity::load_or_create(key)?;
    let Line { statements, beyond } = line(key, identity.id(), crypto)?;
    Ok(InUse { identity, line: statements, is_new, followed_by: beyond.map(|statement| statement.said().1) })
}

/// What leads to an identity, and what leads on.
struct Line {
    /// Up to this identity.
    statements: Vec<Statement>,
    /// What was said beyond it.
    beyond: Option<Statement>,
}

impl Line {
    /// The line with what was said of this identity, where that is the next one.
    fn successor(&self, new: PeerId) -> Option<Statement> {
        self.beyond.clone().filter(|statement| statement.said().1 == new)
    }
}

/// Of what is in the file, that which leads to this identity without a gap: a key that was put there by hand follows nobody.
fn line(key: &Path, own: PeerId, crypto: &dyn Provider) -> Result<Line, IdentityError> {
    let path = beside(key, "line");
    let mut all = read_line(&path, crypto)?;
    let beyond = all.iter().position(|statement| statement.said().0 == own);
    let beyond = beyond.map(|place| all.drain(place..).next().expect("it has that place"));
    let mut statements = Vec::new();
    let mut follower = own;
    for statement in all.into_iter().rev() {
        let (old, new) = statement.said();
        if new != follower {
            break;
        }
        statements.insert(0, statement);
        follower = old;
    }
    Ok(Line { statements, beyond })
}

fn read_line(path: &Path, crypto: &dyn Provider) -> Result<Vec<Statement>, IdentityError> {
    let failed = |error| IdentityError::Io(path.to_owned(), error);
    let length = match fs::metadata(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        other => other.map_err(failed)?.len(),
    };
    let wrong = |what| IdentityError::Malformed(path.to_owned(), what);
    if length > (STATEMENT_LEN * OWN_MAX) as u64 || length % STATEMENT_LEN as u64 != 0 {
        return Err(wrong("it is not a list of statements; without it, others take this peer for a new one"));
    }
    let bytes = fs::read(path).map_err(failed)?;
    let good = |bytes| Statement::parse(bytes).ok().filter(|statement| statement.verify(crypto).is_some());
    let statements = bytes.chunks(STATEMENT_LEN).map(good);
    statements.collect::<Option<_>>().ok_or_else(|| wrong("a statement in it is damaged; without it, others take this peer for a new one"))
}

fn write_line(key: &Path, statements: &[Statement]) -> Result<(), IdentityError> {
    let path = beside(key, "line");
    let fresh = beside(key, "line.new");
    let written = || {
        let mut file = OpenOptions::new().create(true).truncate(true).write(true).mode(0o600).open(&fresh)?;
        for statement in statements {
            file.write_all(statement.bytes())?;
        }
        file.sync_all()
    };
    written().map_err(|error| IdentityError::Io(fresh.clone(), error))?;
    give(&fresh, key)?;
    fs::rename(&fresh, &path).and_then(|()| sync_folder(key)).map_err(|error| IdentityError::Io(path, error))
}

/// A name beside the key's.
fn beside(key: &Path, end: &str) -> PathBuf {
    let mut name = key.as_os_str().to_owned();
    name.push(".");
    name.push(end);
    PathBuf::from(name)
}

/// A file belongs to whom the key belongs: root may do this for a daemon that has a user of its own.
fn give(path: &Path, key: &Path) -> Result<(), IdentityError> {
    let given = || {
        let (file, owner) = (fs::metadata(path)?, fs::metadata(key)?);
        if (file.uid(), file.gid()) == (owner.uid(), owner.gid()) {
            return Ok(());
        }
        chown(path, Some(owner.uid()), Some(owner.gid()))
    };
    given().map_err(|error| IdentityError::Io(path.to_owned(), error))
}

/// What was renamed stays so over a loss of power.
fn sync_folder(key: &Path) -> io::Result<()> {
    let folder = key.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    File::open(folder)?.sync_all()
}

fn fresh(key: &Path) -> Result<Zeroizing<[u8; 32]>, IdentityError> {
    let mut coins = Zeroizing::new([0; 32]);
    getrandom::fill(coins.as_mut_slice()).map_err(|error| IdentityError::Io(key.to_owned(), io::Error::other(error.to_string())))?;
    Ok(coins)
}

#[cfg(test)]
mod tests {
    use super::*;
    use shadowmesh_core::crypto::awslc::AwsLc;
    use std::os::unix::fs::PermissionsExt;

    /// A folder with a key that nobody has used yet.
    fn key() -> (tempfile::TempDir, PathBuf) {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let key = dir.path().join("identity.key");
        identity::create(&key).expect("made");
        (dir, key)
    }

    fn ids(line: &[Statement]) -> Vec<(PeerId, PeerId)> {
        line.iter().map(Statement::said).collect()
    }

    // protocol 2.8
    #[test]
    fn the_next_start_takes_up_what_was_prepared_and_both_have_signed_it() {
        let (dir, key) = key();
        let old = identity::load(&key).expect("there").id();
        let first = prepare(&key, &AwsLc).expect("prepared");
        let again = prepare(&key, &AwsLc).expect("prepared");
        assert_eq!((first.was_there, again.was_there), (false, true));
        assert_eq!(first.statement, again.statement, "asked twice is once");
        assert_eq!(identity::load(&key).expect("there").id(), old, "nothing changes before the next start");
        let begun = take_up(&key, &AwsLc).expect("taken up");
        assert!(begun.is_new && begun.line == [first.statement.clone()]);
        let proven = first.statement.verify(&AwsLc).expect("signed by both");
        assert_eq!((proven.old(), proven.new_id()), (old, begun.identity.id()));
        let later = take_up(&key, &AwsLc).expect("read");
        assert!(!later.is_new && later.identity.id() == begun.identity.id() && later.line == begun.line);
        for entry in fs::read_dir(dir.path()).expect("a folder") {
            let entry = entry.expect("a file");
            assert_eq!(entry.metadata().expect("there").permissions().mode() & 0o777, 0o600, "{:?}", entry.path());
            assert!(!entry.path().to_string_lossy().ends_with("next"), "it has become the key");
        }
    }

    /// Whatever was done when the power went, the next start ends with one identity and a statement that leads to it.
    #[test]
    fn each_half_way_leads_to_the_same_end() {
        // the new key is there and nothing was said of it: nobody would know it, so it waits until it is asked for again
        let (_dir, key) = key();
        let old = identity::load(&key).expect("there").id();
        let new = identity::create(&beside(&key, "next")).expect("made").id();
        let begun = take_up(&key, &AwsLc).expect("read");
        assert_eq!((begun.identity.id(), begun.is_new, begun.followed_by, begun.line.len()), (old, false, None, 0));
        let prepared = prepare(&key, &AwsLc).expect("prepared");
        assert_eq!((prepared.statement.said(), prepared.was_there), ((old, new), false));
        let begun = take_up(&key, &AwsLc).expect("taken up");
        assert_eq!((begun.identity.id(), ids(&begun.line)), (new, vec![(old, new)]));
        // it was said, and the key was lost before it took effect: what was said leads nowhere, and another may be prepared
        let lost = prepare(&key, &AwsLc).expect("prepared").statement;
        fs::remove_file(beside(&key, "next")).expect("there");
        let begun = take_up(&key, &AwsLc).expect("read");
        assert_eq!((begun.identity.id(), ids(&begun.line)), (new, vec![(old, new)]));
        assert_eq!(begun.followed_by, Some(lost.said().1), "somebody should know");
        let other = prepare(&key, &AwsLc).expect("prepared").statement;
        assert_ne!(other.said(), lost.said());
        assert_eq!(ids(&take_up(&key, &AwsLc).expect("taken up").line), [(old, new), other.said()]);
    }

    #[test]
    fn a_key_from_a_backup_has_its_line_and_says_who_followed_it() {
        let (_dir, key) = key();
        let mut kept = Vec::new();
        let mut said = Vec::new();
        for _ in 0..3 {
            said.push(prepare(&key, &AwsLc).expect("prepared").statement.said());
            kept.push(fs::read(&key).expect("there"));
            assert_eq!(take_up(&key, &AwsLc).expect("taken up").followed_by, None);
        }
        fs::write(&key, &kept[1]).expect("written");
        let back = take_up(&key, &AwsLc).expect("read");
        assert_eq!((back.identity.id(), ids(&back.line), back.followed_by), (said[1].0, vec![said[0]], Some(said[1].1)));
    }

    #[test]
    fn a_line_slides_and_a_key_from_elsewhere_follows_nobody() {
        let (_dir, key) = key();
        let first = identity::load(&key).expect("there").id();
        for _ in 0..OWN_MAX {
            assert_eq!(prepare(&key, &AwsLc).expect("prepared").dropped, None);
            take_up(&key, &AwsLc).expect("taken up");
        }
        assert_eq!(prepare(&key, &AwsLc).expect("prepared").dropped, Some(first));
        let line = take_up(&key, &AwsLc).expect("taken up").line;
        assert_eq!((line.len(), line.iter().any(|statement| statement.said().0 == first)), (OWN_MAX, false));
        let mut bent = fs::read(beside(&key, "line")).expect("there");
        *bent.last_mut().expect("bytes") ^= 1;
        fs::write(beside(&key, "line"), &bent).expect("written");
        let said = take_up(&key, &AwsLc).err().expect("refused").to_string();
        assert!(said.contains("identity.key.line") && said.contains("damaged"), "{said}");
        *bent.last_mut().expect("bytes") ^= 1;
        fs::write(beside(&key, "line"), &bent).expect("written");
        fs::remove_file(&key).expect("there");
        identity::create(&key).expect("made");
        assert!(take_up(&key, &AwsLc).expect("read").line.is_empty());
        fs::write(beside(&key, "line"), "nonsense").expect("written");
        let said = take_up(&key, &AwsLc).err().expect("refused").to_string();
        assert!(said.contains("identity.key.line") && said.contains("list of statements"), "{said}");
    }
}
