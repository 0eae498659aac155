//! Secrets that the service manager hands in (systemd.exec(5), CREDENTIALS): decrypted into memory for one service, and for no other.
//!
//! ```text
//!   /etc/credstore.encrypted/… ── LoadCredentialEncrypted=identity.key:… ──▶ $CREDENTIALS_DIRECTORY/identity.key ──▶ load, never written
//! ```
use std::{
    ffi::OsString,
    path::{Path, PathBuf},
};

/// The variable that names the directory.
pub const DIRECTORY: &str = "CREDENTIALS_DIRECTORY";

/// The name of an identity among the credentials.
pub const IDENTITY: &str = "identity.key";

/// The name of a join token among the credentials.
pub const JOIN_TOKEN: &str = "join.token";

/// What to do about a credential that is wrong.
pub const REMEDY: &str =
    "it is a credential of the service manager: seal a right one with `systemd-creds encrypt`, or take it out of the unit";

/// The directory that the service manager made for this process, where it did.
pub fn directory(value: Option<OsString>) -> Option<PathBuf> {
    value.filter(|value| !value.is_empty()).map(PathBuf::from)
}

/// The file of a credential of this name. One that is there and cannot be looked at is there: nothing else may be taken for it.
pub fn find(directory: Option<&Path>, name: &str) -> Option<PathBuf> {
    let path = directory?.join(name);
    path.try_exists().unwrap_or(true).then_some(path)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_credential_is_found_where_the_variable_says_and_nowhere_else() {
        let dir = tempfile::tempdir().expect("a temporary directory");
        std::fs::write(dir.path().join(IDENTITY), "x").expect("written");
        let directory = directory(Some(dir.path().into()));
        assert_eq!(find(directory.as_deref(), IDENTITY), Some(dir.path().join(IDENTITY)));
        assert_eq!(find(directory.as_deref(), JOIN_TOKEN), None);
        assert_eq!((super::directory(None), super::directory(Some(OsString::new())), find(None, IDENTITY)), (None, None, None));
        // as for a directory without permission: whether it is there cannot be told
        let long = "x".repeat(5_000);
        assert!(find(directory.as_deref(), &long).is_some());
    }
}
