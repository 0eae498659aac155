//! Join tokens, identities in text, relay URLs: what people paste.
use sha2::{Digest, Sha512};
use shadowmesh_core::{
    id::PeerId,
    network::{Network, NetworkError, RelayAddress, TOKEN_LEN_MAX, TOKEN_PREFIX, URL_LEN_MAX, host_port},
};

/// The first byte chooses a parser; the rest is its text, a network to make a token of, or the inside of a token that lacks its armour.
pub fn token(data: &[u8]) {
    let Some((kind, rest)) = data.split_first() else { return };
    let text = String::from_utf8_lossy(rest);
    match kind % 5 {
        0 => read(&text),
        1 => identity(&text),
        2 => url(&text),
        3 => made(rest),
        _ => read(&armoured(rest)),
    }
}

fn read(text: &str) {
    match Network::from_token(text) {
        Ok(network) => {
            assert_eq!(network.check(), Ok(()));
            let again = network.token().expect("what was read can be written");
            assert_eq!(again, text.trim(), "a token has one spelling (protocol 2.1)");
            assert!(Network::from_token(&again) == Ok(network));
        }
        Err(error) => told(&error.to_string()),
    }
}

fn identity(text: &str) {
    match text.parse::<PeerId>() {
        Ok(id) => {
            assert_eq!(id.to_string(), text, "an identity has one spelling");
            assert!(id.text_starts_with(&id.short()));
        }
        Err(error) => told(&error.to_string()),
    }
}

fn url(text: &str) {
    match host_port(text) {
        Ok((host, port)) => {
            assert!(port != 0 && !host.is_empty() && host.len() <= URL_LEN_MAX);
            assert!(!host.contains(|character: char| character.is_whitespace() || character.is_control() || "/?#@[]".contains(character)));
            let bracketed = if host.contains(':') { format!("[{host}]") } else { host.to_owned() };
            let with_port = format!("wss://{bracketed}:{port}");
            // one without its port may be as long as an address can be
            assert!(with_port.len() > URL_LEN_MAX || host_port(&with_port) == Ok((host, port)));
            let relay = RelayAddress::new(text, None).expect("its URL was read");
            assert_eq!(relay.host_port(), Ok((host, port)));
        }
        Err(error) => told(&error.to_string()),
    }
}

/// A network of any content: either it is refused, or its token gives it back.
fn made(bytes: &[u8]) {
    let mut parts = bytes.split(|byte| *byte == 0).map(String::from_utf8_lossy);
    let name = parts.next().unwrap_or_default();
    let id = |number: usize| number.is_multiple_of(2).then_some(PeerId([number as u8; 32]));
    let relays =
        parts.take(10).enumerate().map(|(number, url)| RelayAddress { url: url.into_owned(), id: id(number), access: None }).collect();
    match Network::new([0x5e; 32], &name, relays) {
        Ok(network) => {
            let token = network.token().expect("within limits");
            assert!(token.len() <= TOKEN_LEN_MAX, "{} characters", token.len());
            assert!(Network::from_token(&token) == Ok(network));
        }
        Err(error) => {
            assert!(!matches!(error, NetworkError::Checksum | NetworkError::Prefix | NetworkError::Length(_)));
            told(&error.to_string());
        }
    }
}

/// A token of any content under a checksum that fits (protocol 2.1), made without `core`.
fn armoured(body: &[u8]) -> String {
    let sum: [u8; 64] = Sha512::new().chain_update(b"shadowmesh/1 token").chain_update(body).finalize().into();
    let mut text = String::from(TOKEN_PREFIX);
    for group in [body, &sum[..4]].concat().chunks(3) {
        let bits = group.iter().fold(0, |bits, byte| bits << 8 | u32::from(*byte)) << (8 * (3 - group.len()));
        for digit in 0..=group.len() {
            let six = bits >> (18 - 6 * digit) & 63;
            text.push(char::from(b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"[six as usize]));
        }
    }
    text
}

/// A mistake is told in one line.
fn told(sentence: &str) {
    assert!(!sentence.is_empty() && sentence.lines().count() == 1, "{sentence:?}");
}
