//! Known answers, and each length against another implementation. On a processor without the instructions there is nothing to test.
use super::*;
use chacha20poly1305::{AeadInOut, KeyInit};
use proptest::prelude::*;

/// Seals with the portable implementation.
fn portable(key: &[u8; 32], nonce: &[u8; 12], ad: &[u8], data: &mut [u8]) -> [u8; 16] {
    let aead = chacha20poly1305::ChaCha20Poly1305::new(key.into());
    aead.encrypt_inout_detached(nonce.into(), ad, data.into()).expect("within its limits").into()
}

fn wide(key: &[u8; 32]) -> Option<ChaCha20Poly1305> {
    let aead = ChaCha20Poly1305::new(key);
    if aead.is_none() {
        eprintln!("this processor lacks AVX-512 with IFMA: not tested");
    }
    aead
}

#[test]
fn rfc_8439_2_8_2() {
    let Some(aead) = wide(&std::array::from_fn(|i| 0x80 + i as u8)) else { return };
    let nonce = [7, 0, 0, 0, 0x40, 0x41, 0x42, 0x43, 0x44, 0x45, 0x46, 0x47];
    let ad = [0x50, 0x51, 0x52, 0x53, 0xc0, 0xc1, 0xc2, 0xc3, 0xc4, 0xc5, 0xc6, 0xc7];
    let text = b"Ladies and Gentlemen of the class of '99: If I could offer you only one tip for the future, sunscreen would be it.";
    let mut data = text.to_vec();
    let tag = aead.seal(&nonce, &ad, &mut data);
    assert_eq!(data[..4], [0xd3, 0x1a, 0x8d, 0x34]);
    assert_eq!(u128::from_be_bytes(tag), 0x1ae1_0b59_4f09_e26a_7e90_2ecb_d060_0691);
    assert_eq!(aead.open(&nonce, &ad, &mut data, &tag), Ok(()));
    assert_eq!(data, text);
}

#[test]
fn each_length_of_a_frame_and_beyond_two_passes() {
    for len in 0..3300_usize {
        let (key, nonce) = ([len as u8; 32], [(len >> 8) as u8; 12]);
        let Some(aead) = wide(&key) else { return };
        let ad = vec![3; len % 37];
        let plain: Vec<u8> = (0..len).map(|at| (at * 7 + len) as u8).collect();
        let (mut ours, mut theirs) = (plain.clone(), plain.clone());
        let tag = aead.seal(&nonce, &ad, &mut ours);
        assert_eq!(tag, portable(&key, &nonce, &ad, &mut theirs), "the tag of {len} bytes");
        assert_eq!(ours, theirs, "{len} bytes");
        assert_eq!(aead.open(&nonce, &ad, &mut ours, &tag), Ok(()), "{len} bytes");
        assert_eq!(ours, plain, "{len} bytes");
    }
}

#[test]
fn each_bit_of_a_tag_counts_and_what_is_refused_stays_as_it_was() {
    let Some(aead) = wide(&[1; 32]) else { return };
    let mut sealed = [5; 100];
    let tag = aead.seal(&[2; 12], b"header", &mut sealed);
    let before = sealed;
    for bit in 0..128 {
        let forged = (u128::from_ne_bytes(tag) ^ 1 << bit).to_ne_bytes();
        assert_eq!(aead.open(&[2; 12], b"header", &mut sealed, &forged), Err(Forged), "bit {bit}");
        assert_eq!(sealed, before);
    }
    assert_eq!(aead.open(&[2; 12], b"heeder", &mut sealed, &tag), Err(Forged));
    assert_eq!(aead.open(&[3; 12], b"header", &mut sealed, &tag), Err(Forged));
}

/// The one-time authenticator alone, which the keys of an AEAD do not lead to its edges: r and s of nothing but ones, and messages
/// whose sums lie next to 2^130 - 5 and 2^128.
#[test]
fn poly1305_at_the_edges_of_its_numbers() {
    if !is_supported() {
        return;
    }
    let zeros_and_ones =
        |pattern: u32, len: usize| -> Vec<u8> { (0..len).map(|at| if pattern >> (at / 16 % 32) & 1 == 1 { 0xff } else { 0 }).collect() };
    for (r, s) in [(0xff, 0xff), (0xff, 0), (0, 0xff), (1, 0xff), (2, 0xfb), (0xfe, 0xff)] {
        let key: [u8; 32] = std::array::from_fn(|at| if at < 16 { r } else { s });
        for pattern in [0, !0, 1, 0x5555_5555, 0x8000_0001, 0x0ff0_f00f] {
            for len in (0..700).step_by(16).chain([1, 15, 17, 127, 129, 255, 257, 1436]) {
                let text = zeros_and_ones(pattern, len);
                let (ad, ciphertext) = text.split_at(len.min(16));
                // SAFETY: the features were asked for above.
                #[expect(unsafe_code, reason = "code for instructions that not each x86-64 has")]
                let ours = unsafe { poly::authenticate(&key, ad, ciphertext) };
                assert_eq!(ours, poly1305_of(&key, ad, ciphertext), "r {r:x}, s {s:x}, pattern {pattern:x}, {len} bytes");
            }
        }
    }
}

/// RFC 8439 2.8 by the authenticator of another library.
fn poly1305_of(key: &[u8; 32], ad: &[u8], ciphertext: &[u8]) -> [u8; 16] {
    use poly1305::universal_hash::UniversalHash;
    let mut state = poly1305::Poly1305::new(key.into());
    state.update_padded(ad);
    state.update_padded(ciphertext);
    let mut lengths = [0; 16];
    lengths[..8].copy_from_slice(&(ad.len() as u64).to_le_bytes());
    lengths[8..].copy_from_slice(&(ciphertext.len() as u64).to_le_bytes());
    state.update_padded(&lengths);
    state.finalize().into()
}

proptest! {
    #[test]
    fn any_key_nonce_and_content(
        key: [u8; 32], nonce: [u8; 12], ad in proptest::collection::vec(any::<u8>(), 0..400),
        data in proptest::collection::vec(any::<u8>(), 0..9100),
    ) {
        if let Some(aead) = wide(&key) {
            let (mut ours, mut theirs) = (data.clone(), data.clone());
            let tag = aead.seal(&nonce, &ad, &mut ours);
            prop_assert_eq!(tag, portable(&key, &nonce, &ad, &mut theirs));
            prop_assert!(ours == theirs);
            prop_assert_eq!(aead.open(&nonce, &ad, &mut ours, &tag), Ok(()));
            prop_assert!(ours == data);
        }
    }
}
