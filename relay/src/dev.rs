//! `--dev`: a join token for this relay, kept from one start to the next so that peers stay in their network.
use crate::Failure;
use core::net::SocketAddr;
use shadowmesh_core::{
    id::PeerId,
    network::{AccessKey, Network, RelayAddress},
};
use shadowmesh_runtime_std::entropy;
use std::{
    fs::{self, OpenOptions},
    io::Write,
    os::unix::fs::OpenOptionsExt,
    path::Path,
};

/// What the network is called.
const NETWORK_NAME: &str = "dev";

/// Writes the token to `join.token` in `state_dir` (mode 0600) and gives it back.
pub fn join_token(state_dir: &Path, id: PeerId, addresses: &[SocketAddr], access: Option<AccessKey>) -> Result<String, Failure> {
    let path = state_dir.join("join.token");
    let secret = match fs::read_to_string(&path).ok().and_then(|text| Network::from_token(&text).ok()) {
        // Another relay's token would name another relay: its network is not ours to keep.
        Some(network) if network.relays.iter().any(|relay| relay.id == Some(id)) => network.secret,
        _ => entropy::fresh(),
    };
    let url = format!("wss://{}", reachable(addresses));
    let token = RelayAddress::new(&url, Some(id))
        .and_then(|relay| Network::new(secret, NETWORK_NAME, vec![relay.with_access(access)]))
        .and_then(|network| network.token());
    let token = token.map_err(|error| Failure::failed(format!("no join token for {url}: {error}")))?;
    write_private(&path, &token).map_err(|error| Failure::failed(format!("{}: {error}", path.display())))?;
    Ok(token)
}

/// The address that most others can use: the first that is not loopback, else the first.
fn reachable(addresses: &[SocketAddr]) -> SocketAddr {
    let outside = addresses.iter().find(|address| !address.ip().is_loopback() && !address.ip().is_unspecified());
    let mut address = *outside.or(addresses.first()).expect("a relay listens somewhere");
    if address.ip().is_unspecified() {
        address.set_ip(if address.is_ipv4() { [127, 0, 0, 1].into() } else { core::net::Ipv6Addr::LOCALHOST.into() });
    }
    address
}

/// Replaces the file at once, so that no reader sees half a token.
fn write_private(path: &Path, token: &str) -> std::io::Result<()> {
    let new = path.with_extension("new");
    let _ = fs::remove_file(&new);
    let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&new)?;
    writeln!(file, "{token}")?;
    fs::rename(new, path)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt;

    fn addresses(list: &[&str]) -> Vec<SocketAddr> {
        list.iter().map(|text| text.parse().expect("an address")).collect()
    }

    #[test]
    fn the_token_names_the_first_address_that_others_can_use() {
        for (list, chosen) in [
            (&["127.0.0.1:8443", "192.0.2.5:8443", "192.0.2.6:8443"][..], "192.0.2.5:8443"),
            (&["127.0.0.1:8443"], "127.0.0.1:8443"),
            (&["0.0.0.0:8443"], "127.0.0.1:8443"),
            (&["[::]:8443"], "[::1]:8443"),
            (&["[::1]:1", "[2001:db8::1]:2"], "[2001:db8::1]:2"),
        ] {
            assert_eq!(reachable(&addresses(list)).to_string(), chosen);
        }
    }

    #[test]
    fn the_network_is_kept_as_long_as_the_relay_is_the_same() {
        let dir = tempfile::tempdir().expect("temp dir");
        let token = |id: u8, list: &[&str]| join_token(dir.path(), PeerId([id; 32]), &addresses(list), None).expect("a token");
        let first = Network::from_token(&token(1, &["127.0.0.1:1"])).expect("good");
        let moved = Network::from_token(&token(1, &["192.0.2.5:2"])).expect("good");
        assert_eq!(
            (moved.secret, moved.relays[0].url.as_str(), moved.relays[0].id),
            (first.secret, "wss://192.0.2.5:2", Some(PeerId([1; 32])))
        );
        let other = Network::from_token(&token(2, &["127.0.0.1:1"])).expect("good");
        assert_ne!(other.secret, first.secret);
        let mode = fs::metadata(dir.path().join("join.token")).expect("there").permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
    }
}
