//! Certificates, pinning, whole handshakes.
use super::{cert::CertKey, *};
use core::time::Duration;
use rustls::{
    CertificateError, DigitallySignedStruct, Error, SignatureScheme,
    client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier},
    pki_types::{CertificateDer, PrivatePkcs8KeyDer, UnixTime},
    sign::CertifiedKey,
};
use shadowmesh_core::{
    crypto::{Identity, Provider, SIGNATURE_LEN, awslc::AwsLc, rustcrypto::RustCrypto},
    time::Instant,
};
use std::time::SystemTime;
use x509_parser::{
    asn1_rs::oid,
    prelude::{FromDer, X509Certificate},
};

const DAY: Duration = Duration::from_hours(24);
const HOUR: Duration = Duration::from_hours(1);

// --- keys and certificates ---

#[test]
fn the_certificate_key_is_the_identity_key() {
    let identity = identity(1);
    let key = CertKey::new(&identity).expect("the key fits TLS");
    let signature = rcgen::SigningKey::sign(&key, b"message").expect("signs");
    let signature: [u8; SIGNATURE_LEN] = signature.try_into().expect("the length of ML-DSA-87");
    assert!(RustCrypto.verify(identity.public_key(), b"message", &signature));
}

// protocol 1.3
#[test]
fn a_certificate_is_self_signed_carries_the_key_and_lives_for_its_lifetime() {
    let identity = identity(2);
    let wall = SystemTime::UNIX_EPOCH + Duration::from_secs(1_900_000_000);
    let store = CertStore::new(&identity, DAY, Instant::ZERO, wall).expect("certificate");
    let certified = store.current();
    let (rest, certificate) = X509Certificate::from_der(&certified.cert[0]).expect("X.509");
    assert!(rest.is_empty());
    assert_eq!(certificate.subject(), certificate.issuer());
    assert!(certificate.subject().to_string().contains(&identity.id().to_string()));
    assert_eq!(certificate.public_key().algorithm.algorithm, oid!(2.16.840.1.101.3.4.3.19));
    assert_eq!(&*certificate.public_key().subject_public_key.data, &identity.public_key()[..]);
    assert_eq!(certificate.validity().not_after.timestamp(), 1_900_000_000 + 24 * 3600);
    assert_eq!(verify::read(&certified.cert[0]).expect("readable").identity, Some(identity.id()));
}

#[test]
fn the_signature_in_a_certificate_verifies_with_both_back_ends() {
    let identity = identity(3);
    let certified = store(&identity).current();
    let (_, certificate) = X509Certificate::from_der(&certified.cert[0]).expect("X.509");
    let signed: &[u8] = certificate.tbs_certificate.as_ref();
    let mut signature: [u8; SIGNATURE_LEN] = (*certificate.signature_value.data).try_into().expect("ML-DSA-87");
    assert!(RustCrypto.verify(identity.public_key(), signed, &signature));
    assert!(AwsLc.verify(identity.public_key(), signed, &signature));
    signature[100] ^= 1;
    assert!(!RustCrypto.verify(identity.public_key(), signed, &signature));
    assert!(!AwsLc.verify(identity.public_key(), signed, &signature));
}

// protocol 1.3
#[test]
fn a_certificate_is_renewed_at_two_thirds_of_its_life_and_not_before() {
    let wall = SystemTime::now();
    let store = CertStore::new(&identity(4), DAY, Instant::ZERO, wall).expect("certificate");
    let renewal_at = store.renewal_at().expect("it is its own");
    let late = renewal_at + Duration::from_mins(2);
    assert_eq!((store.overdue(renewal_at), store.overdue(late)), (None, Some((Instant::ZERO + DAY).since(late))));
    let first = store.current().cert[0].clone();
    assert_eq!(store.renewal_at(), Some(Instant::ZERO + 16 * HOUR));
    assert_eq!(store.look(Instant::ZERO + 16 * HOUR - Duration::from_nanos(1), wall), Ok(Looked::Same));
    assert_eq!(store.current().cert[0], first);
    assert_eq!(store.look(Instant::ZERO + 16 * HOUR, wall), Ok(Looked::Made));
    assert_ne!(store.current().cert[0], first);
    assert_eq!(store.renewal_at(), Some(Instant::ZERO + 32 * HOUR));
}

// protocol 1.3, 1.7
#[test]
fn validity_is_never_checked_against_a_clock() {
    let identity = identity(5);
    let store = CertStore::new(&identity, HOUR, Instant::ZERO, SystemTime::UNIX_EPOCH).expect("a certificate of 1970");
    let (client, _) = handshake(client_config(Some(identity.id()), false), server_config(store)).expect("handshake");
    assert_eq!(client_facts(&client).expect("facts").identity, Some(identity.id()));
}

// protocol 1.4
#[test]
fn files_are_read_again_when_they_change_and_broken_ones_are_told_once() {
    let dir = tempfile::tempdir().expect("a folder");
    let files = CertFiles { certificate: dir.path().join("fullchain.pem"), key: dir.path().join("privkey.pem") };
    let write = |name: &str| {
        let (certificate, key) = ordinary(name);
        std::fs::write(&files.certificate, certificate.pem()).expect("written");
        std::fs::write(&files.key, key.serialize_pem()).expect("written");
    };
    let (store, wall) = (store(&identity(20)), SystemTime::now());
    let own = store.current().cert[0].clone();
    let why = store.show(Some(files.clone()), Instant::ZERO, wall).expect_err("no files");
    assert!(why.contains("fullchain.pem") && why.contains("tls.certificate"), "{why}");
    assert_eq!(store.current().cert[0], own, "what was shown stays");

    write("first.example");
    assert_eq!(store.show(Some(files.clone()), Instant::ZERO, wall), Ok(Looked::Read));
    assert_eq!((store.subject().as_str(), store.renewal_at()), ("CN=first.example", None));
    assert_eq!(store.look(Instant::ZERO + 10_000 * HOUR, wall), Ok(Looked::Same), "whoever made them renews them");
    write("a-second.example");
    assert_eq!(store.look(Instant::ZERO, wall), Ok(Looked::Read));
    assert_eq!(store.subject(), "CN=a-second.example");

    std::fs::write(&files.key, "half").expect("written");
    let why = store.look(Instant::ZERO, wall).expect_err("no key");
    assert!(why.contains("privkey.pem: there is no private key in it"), "{why}");
    assert_eq!(store.look(Instant::ZERO, wall), Ok(Looked::Same), "said once");
    std::fs::remove_file(&files.certificate).expect("removed");
    assert!(store.look(Instant::ZERO, wall).is_err());
    assert_eq!(store.subject(), "CN=a-second.example");
    assert_eq!(store.show(None, Instant::ZERO + HOUR, wall), Ok(Looked::Made));
    assert_eq!(store.renewal_at(), Some(Instant::ZERO + 17 * HOUR));
}

#[test]
fn files_that_do_not_fit_are_refused_with_a_reason() {
    let dir = tempfile::tempdir().expect("a folder");
    let files = CertFiles { certificate: dir.path().join("c.pem"), key: dir.path().join("k.pem") };
    let wrong = |certificate: &str, key: &str| {
        std::fs::write(&files.certificate, certificate).expect("written");
        std::fs::write(&files.key, key).expect("written");
        files.load(Some(identity(21).id())).map(drop).expect_err("it does not fit")
    };
    let ((certificate, key), (_, other)) = (ordinary("one.example"), ordinary("other.example"));
    let (certificate, key) = (certificate.pem(), key.serialize_pem());
    assert!(wrong(&certificate, &other.serialize_pem()).contains("k.pem is not that of the certificate in "));
    assert!(wrong("", &key).contains("there is no certificate in it"));
    assert!(wrong(&key, &key).contains("there is no certificate in it"), "the two keys mixed up");
    assert!(wrong("-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n", &key).contains("cannot be read"));
    assert!(wrong(&"x".repeat(70_000), &key).contains("more than 64 KiB"));
    assert!(wrong(&certificate, &key.replace("PRIVATE KEY", "ENCRYPTED PRIVATE KEY")).contains("not encrypted"));
    let strange = store(&identity(22)).current();
    let strange = pem(&strange.cert[0]);
    assert!(wrong(&strange, &key).contains("another ShadowMesh identity"));
}

// protocol 1.3
#[test]
fn an_end_without_post_quantum_tls_is_told_apart() {
    let classical = CryptoProvider { kx_groups: vec![kx_group::X25519], ..aws_lc_rs::default_provider() };
    let refused = handshake(lax_client(classical), server_config(store(&identity(23)))).expect_err("nothing in common");
    let as_seen = ended(&io::Error::new(io::ErrorKind::InvalidData, refused));
    assert!(matches!(&as_seen, Ended::Tls(why) if why.contains("no TLS 1.3 with post-quantum key exchange")), "{as_seen}");
    let alert = Error::AlertReceived(rustls::AlertDescription::HandshakeFailure);
    let as_seen = ended(&io::Error::new(io::ErrorKind::InvalidData, alert)).to_string();
    assert!(as_seen.contains("a proxy on the way that ends TLS"), "{as_seen}");
}

// --- connections ---

// protocol 1.3, 1.4
#[test]
fn a_full_connection_exchanges_the_certificate_and_both_ends_export_the_same() {
    let identity = identity(6);
    let server = server_config(store(&identity));
    let started = std::time::Instant::now();
    let (mut client, mut server) = handshake(client_config(Some(identity.id()), false), server).expect("handshake");
    eprintln!("TLS 1.3 handshake, both sides, in memory: {:.2} ms", started.elapsed().as_secs_f64() * 1e3);
    let facts = client_facts(&client).expect("facts");
    assert_eq!(facts.identity, Some(identity.id()));
    assert_eq!(facts.subject, None);
    assert_eq!(facts.exporter, server_exporter(&server).expect("exporter"));
    assert_eq!(client.negotiated_key_exchange_group().expect("group").name(), rustls::NamedGroup::MLKEM1024);
    assert_eq!(client.protocol_version(), Some(rustls::ProtocolVersion::TLSv1_3));
    io::Write::write_all(&mut client.writer(), b"hello").expect("write");
    pump(&mut client, &mut server).expect("pump");
    let mut came = [0; 5];
    io::Read::read_exact(&mut server.reader(), &mut came).expect("read");
    assert_eq!(&came, b"hello");
}

#[test]
fn two_connections_of_the_same_ends_never_share_an_exporter_and_never_resume() {
    let identity = identity(7);
    let (client, server) = (client_config(Some(identity.id()), false), server_config(store(&identity)));
    let exporters: Vec<_> = (0..2)
        .map(|_| {
            let (c, _) = handshake(Arc::clone(&client), Arc::clone(&server)).expect("handshake");
            assert_eq!(c.handshake_kind(), Some(rustls::HandshakeKind::Full));
            client_facts(&c).expect("facts").exporter
        })
        .collect();
    assert_ne!(exporters[0], exporters[1]);
}

// protocol 1.3
#[test]
fn a_server_with_another_identity_is_refused_before_any_application_data() {
    let (expected, other) = (identity(8), identity(9));
    let refused = handshake(client_config(Some(expected.id()), true), server_config(store(&other))).expect_err("pin");
    let wrong = verify::wrong_identity(&refused).expect("the pin is the reason");
    assert_eq!(wrong, &WrongIdentity { got: Some(other.id()), subject: None });
    let as_seen = ended(&io::Error::new(io::ErrorKind::InvalidData, refused));
    assert_eq!(as_seen, Ended::WrongIdentity { got: Some(other.id()), subject: None });
}

#[test]
fn without_a_pin_any_ml_dsa_identity_is_accepted_and_reported() {
    let identity = identity(10);
    let (client, _) = handshake(client_config(None, false), server_config(store(&identity))).expect("handshake");
    assert_eq!(client_facts(&client).expect("facts").identity, Some(identity.id()));
}

// protocol 1.4
#[test]
fn a_foreign_certificate_passes_only_where_the_caller_allows_it_and_its_name_is_kept() {
    let pin = Some(identity(11).id());
    let (client, server) = handshake(client_config(pin, true), foreign_server("proxy.example")).expect("handshake");
    let facts = client_facts(&client).expect("facts");
    assert_eq!(facts.identity, None);
    assert!(facts.subject.expect("subject").contains("proxy.example"));
    assert_eq!(facts.exporter, server_exporter(&server).expect("exporter"));
    assert!(handshake(client_config(pin, false), foreign_server("proxy.example")).is_err());
}

#[test]
fn a_certificate_without_its_key_fails_the_handshake_signature() {
    let (owner, thief) = (identity(12), identity(13));
    let stolen = CertifiedKey::new(store(&owner).current().cert.clone(), Arc::clone(&store(&thief).current().key));
    let refused = handshake(client_config(Some(owner.id()), false), showing(stolen)).expect_err("signature");
    assert_eq!(refused, Error::InvalidCertificate(CertificateError::BadSignature));
}

// protocol 1.3
#[test]
fn a_client_with_classical_key_exchange_only_is_refused() {
    let provider = CryptoProvider { kx_groups: vec![kx_group::X25519, kx_group::SECP256R1], ..aws_lc_rs::default_provider() };
    let refused = handshake(lax_client(provider), server_config(store(&identity(14)))).expect_err("refused");
    assert_eq!(refused, Error::PeerIncompatible(rustls::PeerIncompatible::NoKxGroupsInCommon));
}

// protocol 1.3
#[test]
fn a_client_with_the_hybrid_only_is_served_with_it() {
    let provider = CryptoProvider { kx_groups: vec![kx_group::X25519MLKEM768], ..aws_lc_rs::default_provider() };
    let (client, _) = handshake(lax_client(provider), server_config(store(&identity(15)))).expect("handshake");
    assert_eq!(client.negotiated_key_exchange_group().expect("group").name(), rustls::NamedGroup::X25519MLKEM768);
}

// protocol 1.3
#[test]
fn a_tls_1_2_client_is_refused() {
    let mut server = ServerConnection::new(server_config(store(&identity(16)))).expect("server");
    let hello = tls_1_2_hello();
    let mut bytes = &hello[..];
    server.read_tls(&mut bytes).expect("read");
    let refused = server.process_new_packets().expect_err("refused");
    assert!(matches!(refused, Error::PeerIncompatible(_)), "{refused:?}");
}

#[test]
fn errors_of_the_socket_become_reasons() {
    let of = |kind| ended(&io::Error::from(kind));
    assert_eq!(of(io::ErrorKind::ConnectionRefused), Ended::Refused);
    assert_eq!(of(io::ErrorKind::ConnectionReset), Ended::Reset);
    assert_eq!(of(io::ErrorKind::UnexpectedEof), Ended::ByPeer);
    assert_eq!(of(io::ErrorKind::HostUnreachable), Ended::Unreachable);
    assert!(server_name("bad name").is_err());
    assert!(server_name("::1").is_ok());
}

// --- helpers ---

fn identity(number: u8) -> Identity {
    Identity::from_seed([number; 32])
}

fn store(identity: &Identity) -> Arc<CertStore> {
    CertStore::new(identity, DAY, Instant::ZERO, SystemTime::now()).expect("certificate")
}

/// Runs both ends until the handshake is done; the first error of either.
fn handshake(client: Arc<ClientConfig>, server: Arc<ServerConfig>) -> Result<(ClientConnection, ServerConnection), Error> {
    let mut client = ClientConnection::new(client, server_name("relay.example").expect("name"))?;
    let mut server = ServerConnection::new(server)?;
    pump(&mut client, &mut server)?;
    assert!(!client.is_handshaking() && !server.is_handshaking());
    Ok((client, server))
}

/// Moves bytes between both ends until neither has any to send.
fn pump(client: &mut ClientConnection, server: &mut ServerConnection) -> Result<(), Error> {
    while client.wants_write() || server.wants_write() {
        let mut wire = Vec::new();
        while client.wants_write() {
            client.write_tls(&mut wire).expect("a vector takes all");
        }
        let mut rest = &wire[..];
        while !rest.is_empty() {
            server.read_tls(&mut rest).expect("a slice gives all");
            server.process_new_packets()?;
        }
        wire.clear();
        while server.wants_write() {
            server.write_tls(&mut wire).expect("a vector takes all");
        }
        let mut rest = &wire[..];
        while !rest.is_empty() {
            client.read_tls(&mut rest).expect("a slice gives all");
            client.process_new_packets()?;
        }
    }
    Ok(())
}

#[derive(Debug)]
struct Always(Arc<CertifiedKey>);

impl rustls::server::ResolvesServerCert for Always {
    fn resolve(&self, _hello: rustls::server::ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        Some(Arc::clone(&self.0))
    }
}

fn showing(certified: CertifiedKey) -> Arc<ServerConfig> {
    let config = ServerConfig::builder_with_provider(Arc::clone(&PROVIDER))
        .with_protocol_versions(&[&TLS13])
        .expect("suites")
        .with_no_client_auth()
        .with_cert_resolver(Arc::new(Always(Arc::new(certified))));
    Arc::new(config)
}

/// An ECDSA certificate with its key, as an ACME client has.
fn ordinary(name: &str) -> (rcgen::Certificate, rcgen::KeyPair) {
    let key = rcgen::KeyPair::generate().expect("key");
    let mut params = rcgen::CertificateParams::new(vec![name.to_owned()]).expect("params");
    params.distinguished_name = rcgen::DistinguishedName::new();
    params.distinguished_name.push(rcgen::DnType::CommonName, name);
    (params.self_signed(&key).expect("certificate"), key)
}

/// A certificate as PEM (RFC 7468), its base64 in one line.
fn pem(der: &[u8]) -> String {
    const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut text = String::new();
    for three in der.chunks(3) {
        let bits = three.iter().fold(0, |bits, byte| bits << 8 | u32::from(*byte)) << (8 * (3 - three.len()));
        for at in 0..4 {
            let letter = ALPHABET[(bits >> (18 - 6 * at) & 63) as usize] as char;
            text.push(if at <= three.len() { letter } else { '=' });
        }
    }
    format!("-----BEGIN CERTIFICATE-----\n{text}\n-----END CERTIFICATE-----\n")
}

/// A server with an ECDSA certificate, as a proxy that ends TLS would have.
fn foreign_server(name: &str) -> Arc<ServerConfig> {
    let (certificate, key) = ordinary(name);
    let key = PrivatePkcs8KeyDer::from(key.serialize_der());
    let key = aws_lc_rs::sign::any_supported_type(&key.into()).expect("key");
    showing(CertifiedKey::new(vec![certificate.into()], key))
}

/// A client that accepts any server, with key exchange of its own choice.
fn lax_client(provider: CryptoProvider) -> Arc<ClientConfig> {
    let config = ClientConfig::builder_with_provider(Arc::new(provider))
        .with_protocol_versions(&[&TLS13])
        .expect("suites")
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(Lax))
        .with_no_client_auth();
    Arc::new(config)
}

#[derive(Debug)]
struct Lax;

impl ServerCertVerifier for Lax {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn verify_tls13_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        vec![SignatureScheme::ML_DSA_87, SignatureScheme::ECDSA_NISTP256_SHA256]
    }
}

/// The hello of a client that knows no version above TLS 1.2 (RFC 5246).
fn tls_1_2_hello() -> Vec<u8> {
    let mut extensions = Vec::new();
    extensions.extend([0x00, 0x0a, 0, 4, 0, 2, 0, 0x1d]); // supported_groups: x25519
    extensions.extend([0x00, 0x0d, 0, 4, 0, 2, 0x04, 0x03]); // signature_algorithms: ecdsa_secp256r1_sha256
    let mut body = vec![0x03, 0x03];
    body.extend([7; 32]);
    body.extend([0, 0, 2, 0xc0, 0x2b, 1, 0]); // no session, one suite, no compression
    body.extend(u16::try_from(extensions.len()).expect("short").to_be_bytes());
    body.extend(extensions);
    let mut hello = vec![22, 3, 1];
    hello.extend(u16::try_from(body.len() + 4).expect("short").to_be_bytes());
    hello.extend([1, 0]);
    hello.extend(u16::try_from(body.len()).expect("short").to_be_bytes());
    hello.extend(body);
    hello
}
