//! Known answers, and each back end against the other in both directions.
use super::{
    hash::{HmacKey, Prk, equal, sha512},
    x25519::Scalar,
    *,
};
use proptest::prelude::*;

const BOTH: [&dyn Provider; 2] = [&rustcrypto::RustCrypto, &awslc::AwsLc];
/// The AEAD of each library that may be chosen on some machine, with the library's name.
pub(super) fn aeads(suite: Suite, key: &[u8; 32]) -> Vec<(&'static str, Box<dyn Aead>)> {
    let mut all = vec![("RustCrypto", rustcrypto::RustCrypto.aead(suite, key)), ("aws-lc", awslc::own_aead(suite, key))];
    #[cfg(target_arch = "x86_64")]
    match suite {
        Suite::Aes256Gcm => all.push(("ring", vaes::aes_256_gcm(key))),
        Suite::ChaCha20Poly1305 => all.extend(wide::chacha20_poly1305(key).map(|aead| ("wide", aead))),
    }
    all
}

const SUITES: [Suite; 2] = [Suite::ChaCha20Poly1305, Suite::Aes256Gcm];

// protocol 3.7
#[test]
fn aes_is_offered_only_where_it_is_computed_in_hardware() {
    let both = [Suite::Aes256Gcm, Suite::ChaCha20Poly1305];
    assert_eq!(offered_with(&both, true), both, "in the order of the operator");
    assert_eq!(offered_with(&both, false), both[1..]);
    assert_eq!(offered_with(&both[..1], false), [], "and nothing else in its place");
    assert_eq!(offered(&both[1..]), both[1..]);
    assert_eq!(offered(&both), offered_with(&both, has_aes_instructions()));
}

#[test]
fn sha512_of_fips_180() {
    let want = "ddaf35a193617abacc417349ae20413112e6fa4e89a97ea20a9eeee64b55d39a\
                2192992a274fc1a836ba3c23a3feebbd454d4423643ce80e2a9ac94fa54ca49f";
    assert_eq!(hex(&sha512(&[b"a", b"", b"bc"])), want);
}

#[test]
fn hmac_sha256_of_rfc_4231() {
    for (key, data, want) in [
        (vec![0x0b; 20], &b"Hi There"[..], "b0344c61d8db38535ca8afceaf0bf12b881dc200c9833da726e9376c2e32cff7"),
        (b"Jefe".to_vec(), b"what do ya want for nothing?", "5bdcc146bf60754e6a042426089575c75a003f089d2739839dec58b964ec3843"),
        (vec![0xaa; 20], &[0xdd; 50], "773ea91e36800e46854db8ebd09181a72959098b3ef8c122d9635514ced565fe"),
        (
            vec![0xaa; 131],
            b"Test Using Larger Than Block-Size Key - Hash Key First",
            "60e431591ee0b67f0d8a26aacbf5b77f8e0bc6213728c5140546040f0ee37f54",
        ),
    ] {
        let key = HmacKey::new(&key);
        let (left, right) = data.split_at(data.len() / 2);
        let tag = key.mac(&[left, right]);
        assert_eq!(hex(&tag), want);
        assert!(key.verify(&[data], &tag) && key.verify(&[data], &tag[..16]));
        assert!(!key.verify(&[data], &tag[..15]) && !key.verify(&[data], &[]) && !key.verify(&[left], &tag));
    }
}

#[test]
fn hkdf_sha512_with_the_inputs_of_rfc_5869() {
    // RFC 5869 A.1 with SHA-512 in place of SHA-256; the outputs are from an implementation in another language.
    let salt: Vec<u8> = (0..13).collect();
    let info: Vec<u8> = (0xf0..0xfa).collect();
    let prk = Prk::extract(&salt, &[&[0x0b; 10], &[0x0b; 12]]);
    assert_eq!(
        hex(prk.as_bytes()),
        "665799823737ded04a88e47e54a5890bb2c3d247c7a4254a8e61350723590a26\
         c36238127d8661b88cf80ef802d57e2f7cebcf1e00e083848be19929c61b4237"
    );
    let okm = prk.expand::<42>(&[&info[..3], &info[3..]]);
    assert_eq!(hex(okm.as_slice()), "832390086cda71fb47625bb5ceb168e4c8e26a1a16ed34d9fc7fe92c1481579338da362cb8d9f925d7cb");
}

#[test]
fn x25519_of_rfc_7748() {
    // RFC 7748 6.1
    let alice = Scalar::new(unhex("77076d0a7318a57d3c16c17251b26645df4c2f87ebc0992ab177fba51db92c2a"));
    let bob = Scalar::new(unhex("5dab087e624a8a4b79e17f8b83800ee66f3bb1292618b6fd1c2f8b27ff88e0eb"));
    assert_eq!(hex(&alice.public()), "8520f0098930a754748b7ddcb43ef75a0dbf3a0d26381af4eba4a98eaa9b4e6a");
    let want = "4a5d9d5ba4ce2de1728e3bf480350f25e07e21c947d19e3376f09b3c1e161742";
    assert_eq!(alice.agree(&bob.public()).map(|shared| hex(&*shared)).as_deref(), Some(want));
    assert_eq!(bob.agree(&alice.public()).map(|shared| hex(&*shared)).as_deref(), Some(want));
}

#[test]
fn x25519_refuses_shares_of_small_order() {
    let scalar = Scalar::new([7; 32]);
    let one: [u8; 32] = core::array::from_fn(|i| u8::from(i == 0));
    for share in [[0; 32], one] {
        assert!(scalar.agree(&share).is_none());
    }
    assert!(scalar.agree(&Scalar::new([9; 32]).public()).is_some());
}

#[test]
fn comparison() {
    assert!(equal(b"", b"") && equal(b"ab", b"ab"));
    assert!(!equal(b"ab", b"aB") && !equal(b"ab", b"abc"));
}

// protocol 1.1
#[test]
fn a_peer_id_is_the_hash_of_algorithm_and_key_and_its_text_has_a_checksum() {
    let identity = Identity::from_seed([7; 32]);
    let expected = sha512(&[b"shadowmesh/1 peer-id", &[0, 1], identity.public_key()]);
    assert_eq!(identity.id().0[..], expected[..32]);
    let sum = sha512(&[b"shadowmesh/1 peer-id text", &identity.id().0]);
    let text = crate::text::to_base32(&[&identity.id().0[..], &sum[..3]].concat());
    assert_eq!(identity.id().to_string(), format!("sm-{text}"));
    assert!(text.len() == 56 && text.chars().all(|c| c.is_ascii_lowercase() || ('2'..='7').contains(&c)));
}

#[test]
fn one_seed_gives_one_key_pair_on_both_back_ends() {
    for seed in [[0; 32], [7; 32], [0xff; 32]] {
        let identity = Identity::from_seed(seed);
        for crypto in BOTH {
            assert_eq!(crypto.public_key_of_seed(&seed)[..], identity.public_key()[..], "{}", crypto.name());
        }
        assert_eq!(identity.id(), peer_id_of(identity.public_key()));
        assert_eq!(identity.seed(), &seed);
    }
    assert_ne!(Identity::from_seed([1; 32]).id(), Identity::from_seed([2; 32]).id());
}

#[test]
fn the_fips_204_key_of_a_seed_begins_as_the_standard_says() {
    // rho is the first 32 bytes of SHAKE256(seed ‖ 8 ‖ 7, 128) in FIPS 204 algorithm 6; from an implementation in another language.
    let identity = Identity::from_seed(core::array::from_fn(|i| i as u8));
    assert_eq!(hex(&identity.public_key()[..32]), RHO_OF_00_TO_1F);
}

#[test]
fn each_back_end_verifies_the_signatures_of_the_other() {
    let (identity, other) = (Identity::from_seed([3; 32]), Identity::from_seed([4; 32]));
    for signer in BOTH {
        let signature = signer.sign(&identity, b"message", &[5; 32]);
        for verifier in BOTH {
            let pair = (signer.name(), verifier.name());
            assert!(verifier.verify(identity.public_key(), b"message", &signature), "{pair:?}");
            assert!(!verifier.verify(identity.public_key(), b"massage", &signature), "{pair:?}");
            assert!(!verifier.verify(other.public_key(), b"message", &signature), "{pair:?}");
            for at in [0, 63, 64, 2000, SIGNATURE_LEN - 84, SIGNATURE_LEN - 1] {
                let mut bad = signature;
                bad[at] ^= 1;
                assert!(!verifier.verify(identity.public_key(), b"message", &bad), "{pair:?}, byte {at}");
            }
            assert!(!verifier.verify(identity.public_key(), b"message", &[0; SIGNATURE_LEN]));
            assert!(!verifier.verify(&[0xff; PUBLIC_KEY_LEN], b"message", &signature));
        }
    }
}

// protocol 1.2
#[test]
fn signatures_are_hedged() {
    let identity = Identity::from_seed([3; 32]);
    let portable = BOTH[0];
    assert_eq!(portable.sign(&identity, b"m", &[1; 32])[..], portable.sign(&identity, b"m", &[1; 32])[..], "a function of the coins");
    assert_ne!(portable.sign(&identity, b"m", &[1; 32])[..], portable.sign(&identity, b"m", &[2; 32])[..]);
    let fast = BOTH[1];
    assert_ne!(fast.sign(&identity, b"m", &[1; 32])[..], fast.sign(&identity, b"m", &[1; 32])[..], "draws coins of its own");
}

#[test]
fn the_kem_agrees_across_back_ends() {
    for receiver in BOTH {
        let pair = receiver.kem_keygen(&core::array::from_fn(|i| i as u8));
        for sender in BOTH {
            let sent = sender.kem_encapsulate(&pair.public_key, &[9; 32]).expect("a good key");
            let got = pair.secret.decapsulate(&sent.ciphertext).expect("a good ciphertext");
            assert_eq!(*got, *sent.shared, "{} to {}", sender.name(), receiver.name());
            let mut bad = sent.ciphertext;
            bad[100] ^= 1;
            assert_ne!(*pair.secret.decapsulate(&bad).expect("rejected implicitly"), *sent.shared);
        }
    }
}

#[test]
fn both_back_ends_refuse_an_invalid_kem_key() {
    // FIPS 203 7.2: coefficients at or above the modulus
    for crypto in BOTH {
        assert!(crypto.kem_encapsulate(&[0xff; KEM_PUBLIC_KEY_LEN], &[1; 32]).is_none(), "{}", crypto.name());
    }
}

#[test]
fn the_portable_kem_is_a_function_of_its_coins() {
    let crypto = BOTH[0];
    let (a, b) = (crypto.kem_keygen(&[1; 64]), crypto.kem_keygen(&[1; 64]));
    assert_eq!(a.public_key[..], b.public_key[..]);
    let (x, y) = (crypto.kem_encapsulate(&a.public_key, &[2; 32]), crypto.kem_encapsulate(&b.public_key, &[2; 32]));
    assert_eq!(x.map(|sent| sent.ciphertext.to_vec()), y.map(|sent| sent.ciphertext.to_vec()));
}

#[test]
fn chacha20_poly1305_of_rfc_8439() {
    // RFC 8439 2.8.2
    let key = core::array::from_fn(|i| 0x80 + i as u8);
    let nonce = [7, 0, 0, 0, 0x40, 0x41, 0x42, 0x43, 0x44, 0x45, 0x46, 0x47];
    let ad = [0x50, 0x51, 0x52, 0x53, 0xc0, 0xc1, 0xc2, 0xc3, 0xc4, 0xc5, 0xc6, 0xc7];
    let text = b"Ladies and Gentlemen of the class of '99: If I could offer you only one tip for the future, sunscreen would be it.";
    for crypto in BOTH {
        let mut data = text.to_vec();
        let tag = crypto.aead(Suite::ChaCha20Poly1305, &key).seal(&nonce, &ad, &mut data);
        assert_eq!(hex(&data[..16]), "d31a8d34648e60db7b86afbc53ef7ec2");
        assert_eq!(hex(&tag), "1ae10b594f09e26a7e902ecbd0600691");
    }
}

#[test]
fn secrets_are_not_printed() {
    let identity = Identity::from_seed([0xab; 32]);
    let shown = format!("{identity:?}");
    assert!(shown.contains("sm-") && !shown.contains("171") && !shown.to_lowercase().contains("abab"), "{shown}");
}

proptest! {
    #[test]
    fn all_libraries_seal_and_open_alike(
        suite in 0_usize..2, key: [u8; 32], nonce: [u8; 12], ad in proptest::collection::vec(any::<u8>(), 0..40),
        data in proptest::collection::vec(any::<u8>(), 0..2000), flip: (usize, u8),
    ) {
        let all = aeads(SUITES[suite], &key);
        let mut sealed = all.iter().map(|(_, aead)| {
            let mut copy = data.clone();
            let tag = aead.seal(&nonce, &ad, &mut copy);
            (copy, tag)
        });
        let (first, tag) = sealed.next().expect("there are some");
        for other in sealed {
            prop_assert_eq!(&other, &(first.clone(), tag));
        }
        for (library, aead) in all {
            let mut bad = [&first[..], &tag].concat();
            let at = flip.0 % bad.len();
            bad[at] ^= 1 << (flip.1 % 8);
            let (body, bad_tag) = bad.split_last_chunk_mut().expect("there is a tag");
            prop_assert_eq!(aead.open(&nonce, &ad, body, bad_tag), Err(Forged), "{}", library);
            let mut good = first.clone();
            prop_assert_eq!(aead.open(&nonce, &ad, &mut good, &tag), Ok(()), "{}", library);
            prop_assert_eq!(&good, &data);
        }
    }
}

const RHO_OF_00_TO_1F: &str = "9792bcec2f2430686a82fccf3c2f5ff665e771d7ab41b90258cfa7e90ec97124";

fn hex(bytes: &[u8]) -> String {
    let digit = |value: u8| char::from(b"0123456789abcdef"[usize::from(value)]);
    bytes.iter().flat_map(|byte| [digit(byte >> 4), digit(byte & 15)]).collect()
}

fn unhex(text: &str) -> [u8; 32] {
    core::array::from_fn(|i| u8::from_str_radix(&text[2 * i..2 * i + 2], 16).expect("hexadecimal"))
}
