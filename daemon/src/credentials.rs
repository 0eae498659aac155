//! Identities, join tokens and `PeerId`s as the command line meets them: text in, checked values or sentences out.
use crate::failure::Failure;
use shadowmesh_core::{
    crypto::{Identity, Provider, awslc::AwsLc},
    id::PeerId,
    network::{AccessKey, Network, RelayAddress},
};
use shadowmesh_runtime_std::{
    credential,
    identity::{self, IdentityError, KeyPlace},
    succession::{self, InUse, Prepared},
};
use std::{io::Read, ops::Deref, path::Path, sync::Arc};

/// A join token is a few hundred bytes; a larger file is something else.
const MAX_TOKEN_BYTES: u64 = 64 * 1024;

/// The back end for all arithmetic of the daemon.
pub(crate) fn provider() -> Arc<dyn Provider> {
    Arc::new(AwsLc)
}

/// The network of a join token, or what is wrong with the token.
pub(crate) fn network(token: &str) -> Result<Network, String> {
    Network::from_token(token).map_err(|why| format!("{why}; `shadowmesh network new` makes one"))
}

/// Reads a join token from a file.
pub(crate) fn network_of_file(path: &Path) -> Result<(Network, String), String> {
    let shown = path.display();
    let meta = std::fs::metadata(path).map_err(|error| format!("{shown}: the join token cannot be read: {error}"))?;
    if !meta.is_file() || meta.len() > MAX_TOKEN_BYTES {
        return Err(format!("{shown}: is not a file with a join token"));
    }
    let file = std::fs::File::open(path).map_err(|error| format!("{shown}: the join token cannot be read: {error}"))?;
    network_of(file, &shown.to_string())
}

/// The network of the join token that the service manager handed in.
pub(crate) fn sealed_network(path: &Path) -> Result<Network, Failure> {
    let network = network_of_file(path).map(|(network, _)| network);
    network.map_err(|why| Failure::usage(format!("{why}; {}", credential::REMEDY)))
}

/// Reads a join token from anything that ends; `shown` is what people call it.
pub(crate) fn network_of(from: impl Read, shown: &str) -> Result<(Network, String), String> {
    let mut text = String::new();
    from.take(MAX_TOKEN_BYTES).read_to_string(&mut text).map_err(|error| format!("{shown}: the join token cannot be read: {error}"))?;
    let token = text.trim().to_owned();
    network(&token).map(|network| (network, token)).map_err(|why| format!("{shown}: {why}"))
}

/// A new network: its join token.
pub(crate) fn new_network(name: &str, urls: &[String], ids: &[String], tokens: &[String]) -> Result<String, Failure> {
    for (flag, count, what) in [("--relay-id", ids.len(), "id"), ("--relay-token", tokens.len(), "token")] {
        if count > urls.len() {
            let relays = urls.len();
            return Err(Failure::usage(format!(
                "{flag} is given {count} times and --relay {relays} times; give each relay at most one {what}, in the same order"
            )));
        }
    }
    let mut relays = Vec::with_capacity(urls.len());
    for (index, url) in urls.iter().enumerate() {
        let id = ids.get(index).map(|text| peer_id(text)).transpose().map_err(|why| Failure::usage(format!("--relay-id: {why}")))?;
        let relay = RelayAddress::new(url, id).map_err(|why| Failure::usage(format!("--relay: {why}")))?;
        let access = tokens.get(index).filter(|token| *token != "-").map(|token| AccessKey::of(token.trim()));
        relays.push(relay.with_access(access));
    }
    let network = Network::new(secret()?, name, relays).and_then(|network| network.token());
    network.map_err(|why| Failure::usage(format!("network new: {why}")))
}

/// 32 bytes from the operating system.
pub(crate) fn secret() -> Result<[u8; 32], Failure> {
    let mut bytes = [0; 32];
    getrandom::fill(&mut bytes).map_err(|error| Failure::failed(format!("the operating system gives no random numbers: {error}")))?;
    Ok(bytes)
}

/// A whole `PeerId`, or what is wrong with the text.
pub(crate) fn peer_id(text: &str) -> Result<PeerId, String> {
    text.trim().parse::<PeerId>().map_err(|why| format!("{text:?} is not a PeerId: {why}; write it as `shadowmesh id` prints it"))
}

/// Reads an identity; a missing or damaged one is the operator's to repair.
pub(crate) fn identity(place: &KeyPlace) -> Result<Identity, Failure> {
    place.load().map_err(|error| told(place, &error))
}

/// Makes a new identity file.
pub(crate) fn new_identity(path: &Path) -> Result<Identity, Failure> {
    identity::create(path).map_err(|error| told(&KeyPlace::File(path.to_owned()), &error))
}

/// The identity of this start: the one that was prepared to follow, else that of the place, made on the first start.
pub(crate) fn identity_in_use(place: &KeyPlace) -> Result<InUse, Failure> {
    let used = match place {
        KeyPlace::File(key) => succession::take_up(key, &*provider()),
        KeyPlace::Credential(_) => place.load().map(|identity| InUse { identity, line: Vec::new(), is_new: false, followed_by: None }),
    };
    used.map_err(|error| told(place, &error))
}

/// Makes the identity that follows at the next start, and the statement of both.
pub(crate) fn prepare_succession(place: &KeyPlace) -> Result<Prepared, Failure> {
    match place {
        KeyPlace::File(key) => succession::prepare(key, &*provider()).map_err(|error| told(place, &error)),
        KeyPlace::Credential(path) => Err(Failure::usage(format!(
            "{}: this identity is the service manager's, and is not replaced here; seal a new one as you sealed this, and list it where \
             [[peer]] lists the old one",
            path.display()
        ))),
    }
}

/// A new identity that is in no file yet, and the line of its file.
pub(crate) fn loose_identity() -> Result<(Identity, impl Deref<Target = String>), Failure> {
    identity::generate().map_err(|error| Failure::failed(format!("the operating system gives no random numbers: {error}")))
}

fn told(place: &KeyPlace, error: &IdentityError) -> Failure {
    let sentence = place.sentence(error);
    match error {
        IdentityError::Truncated(_) | IdentityError::Checksum(_) | IdentityError::Malformed(..) | IdentityError::Exposed(..) => {
            Failure::usage(sentence)
        }
        IdentityError::Missing(_) | IdentityError::Exists(_) | IdentityError::Io(..) => Failure::failed(sentence),
    }
}
