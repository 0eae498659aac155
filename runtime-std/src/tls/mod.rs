//! TLS 1.3 with post-quantum key exchange only; identities are ML-DSA-87 keys in self-signed certificates (protocol 1.3).
//!
//! ```text
//!   Identity ─▶ CertStore ─▶ server_config          client_config(pin, foreign) ─▶ Verifier: signature, then pin
//!                    ▲ look                                        │
//!                    └ at two thirds of a lifetime,                ▼ after the handshake
//!                      or when files have changed     client_facts: exporter, identity, subject
//! ```
//!
//! What is switched off, and why: TLS 1.2 (no post-quantum key exchange), tickets and early data (each connection must have an
//! exporter and a pin check of its own), client certificates (clients prove themselves inside, protocol 3), and any look at a
//! clock or a root store (a machine without a clock boots in 1970; trust comes from the pin).

mod cert;
mod files;
mod verify;

pub use cert::{CertStore, Looked};
pub use files::CertFiles;
pub use verify::WrongIdentity;

use rustls::{
    CipherSuite, ClientConfig, ClientConnection, ServerConfig, ServerConnection, SupportedCipherSuite,
    client::Resumption,
    crypto::{
        CryptoProvider,
        aws_lc_rs::{self, kx_group},
        ring,
    },
    pki_types::ServerName,
    version::TLS13,
};
use shadowmesh_core::{
    crypto::awslc,
    event::{Ended, TlsFacts},
    id::PeerId,
    wire::ProxyFault,
};
use std::{
    io,
    sync::{Arc, LazyLock},
};

/// The exporter that binds a handshake inside to this connection (protocol 1.4).
const EXPORTER_LABEL: &[u8] = b"EXPORTER-shadowmesh/1";

/// The protocol inside, for proxies that look (RFC 7301).
const ALPN: &[u8] = b"http/1.1";

/// What to do about who ends TLS on the way.
const THROUGH: &str = "if that is a proxy on the way, have it let connections to the relay through untouched";

/// Why two ends have no TLS in common.
const CLASSICAL: &str = "the other end, or a proxy on the way that ends TLS, has no TLS 1.3 with post-quantum key exchange";

/// aws-lc-rs with two key exchanges, best first: both survive a quantum computer, neither is classical only.
static PROVIDER: LazyLock<Arc<CryptoProvider>> = LazyLock::new(|| {
    let default = aws_lc_rs::default_provider();
    Arc::new(CryptoProvider {
        kx_groups: vec![kx_group::MLKEM1024, kx_group::X25519MLKEM768],
        cipher_suites: default.cipher_suites.into_iter().map(fastest).collect(),
        ..default
    })
});

/// The same suite by the library that has the faster AES on this machine.
fn fastest(suite: SupportedCipherSuite) -> SupportedCipherSuite {
    match suite.suite() {
        CipherSuite::TLS13_AES_256_GCM_SHA384 if awslc::is_aes_of_ring_faster() => ring::cipher_suite::TLS13_AES_256_GCM_SHA384,
        CipherSuite::TLS13_AES_128_GCM_SHA256 if awslc::is_aes_of_ring_faster() => ring::cipher_suite::TLS13_AES_128_GCM_SHA256,
        _ => suite,
    }
}

/// How this end dials: the other must have `pin`'s ML-DSA-87 key, if one is given and its certificate has such a key.
/// `foreign` allows certificates of other algorithms; the caller then trusts the connection only by the handshake inside.
///
/// # Panics
/// Never: the provider has suites for TLS 1.3.
pub fn client_config(pin: Option<PeerId>, foreign: bool) -> Arc<ClientConfig> {
    let verifier = verify::Verifier::new(Arc::clone(&PROVIDER), pin, foreign);
    let mut config = ClientConfig::builder_with_provider(Arc::clone(&PROVIDER))
        .with_protocol_versions(&[&TLS13])
        .expect("the provider has TLS 1.3 suites")
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(verifier))
        .with_no_client_auth();
    config.resumption = Resumption::disabled();
    config.enable_early_data = false;
    config.alpn_protocols = vec![ALPN.to_vec()];
    Arc::new(config)
}

/// How this end accepts: with the store's certificate of the moment.
///
/// # Panics
/// Never: the provider has suites for TLS 1.3.
pub fn server_config(store: Arc<CertStore>) -> Arc<ServerConfig> {
    let mut config = ServerConfig::builder_with_provider(Arc::clone(&PROVIDER))
        .with_protocol_versions(&[&TLS13])
        .expect("the provider has TLS 1.3 suites")
        .with_no_client_auth()
        .with_cert_resolver(store);
    config.send_tls13_tickets = 0;
    config.max_early_data_size = 0;
    config.alpn_protocols = vec![ALPN.to_vec()];
    Arc::new(config)
}

/// The name to put into the client's hello: host names only, addresses are not sent.
///
/// # Errors
/// When `host` is neither a host name nor an address.
pub fn server_name(host: &str) -> Result<ServerName<'static>, Ended> {
    ServerName::try_from(host.to_owned()).map_err(|_| Ended::Local(format!("{host:?} is no host name")))
}

/// What TLS showed to the client; `Err` before the end of the handshake.
///
/// # Errors
/// When the handshake is not done, or the certificate cannot be read.
pub fn client_facts(connection: &ClientConnection) -> Result<TlsFacts, Ended> {
    let chain = connection.peer_certificates().unwrap_or_default();
    let end_entity = chain.first().ok_or_else(|| Ended::Tls("the server showed no certificate".to_owned()))?;
    let shown = verify::read(end_entity).map_err(|why| Ended::Tls(why.to_string()))?;
    let exporter = export(|room| connection.export_keying_material(room, EXPORTER_LABEL, None))?;
    Ok(TlsFacts { exporter, identity: shown.identity, subject: shown.subject })
}

/// The exporter as the server has it; `Err` before the end of the handshake.
///
/// # Errors
/// When the handshake is not done.
pub fn server_exporter(connection: &ServerConnection) -> Result<[u8; 32], Ended> {
    export(|room| connection.export_keying_material(room, EXPORTER_LABEL, None))
}

fn export(from: impl FnOnce([u8; 32]) -> Result<[u8; 32], rustls::Error>) -> Result<[u8; 32], Ended> {
    from([0; 32]).map_err(|why| Ended::Tls(why.to_string()))
}

/// Whether the other end has nothing in common with us: it is older, or somebody else's.
fn is_classical(error: &rustls::Error) -> bool {
    use rustls::AlertDescription as Alert;
    match error {
        rustls::Error::AlertReceived(alert) => {
            matches!(alert, Alert::HandshakeFailure | Alert::ProtocolVersion | Alert::InsufficientSecurity | Alert::IllegalParameter)
        }
        rustls::Error::PeerIncompatible(_) => true,
        _ => false,
    }
}

/// What came of an upgrade that did not come about: with the name of who ended TLS, when that proves nothing (protocol 1.4).
pub fn not_upgraded(why: Ended, tls: &TlsFacts) -> Ended {
    match (why, &tls.subject) {
        (Ended::WebSocket(why), Some(subject)) => Ended::WebSocket(format!("{why}; TLS is ended by {subject:?}: {THROUGH}")),
        (why, _) => why,
    }
}

/// Why a connection ended, out of an error of its stream.
pub fn ended(error: &io::Error) -> Ended {
    if let Some(tls) = error.get_ref().and_then(|inner| inner.downcast_ref::<rustls::Error>()) {
        return match verify::wrong_identity(tls) {
            Some(wrong) => Ended::WrongIdentity { got: wrong.got, subject: wrong.subject.clone() },
            None if is_classical(tls) => Ended::Tls(format!("{tls}: {CLASSICAL}")),
            None => Ended::Tls(tls.to_string()),
        };
    }
    if let Some(fault) = error.get_ref().and_then(|inner| inner.downcast_ref::<ProxyFault>()) {
        return Ended::Proxy(fault.to_string());
    }
    match error.kind() {
        io::ErrorKind::ConnectionRefused => Ended::Refused,
        io::ErrorKind::TimedOut => Ended::TimedOut,
        io::ErrorKind::ConnectionReset | io::ErrorKind::ConnectionAborted | io::ErrorKind::BrokenPipe => Ended::Reset,
        io::ErrorKind::UnexpectedEof => Ended::ByPeer,
        io::ErrorKind::HostUnreachable | io::ErrorKind::NetworkUnreachable | io::ErrorKind::NetworkDown => Ended::Unreachable,
        _ => Ended::Local(error.to_string()),
    }
}

#[cfg(test)]
mod tests;
