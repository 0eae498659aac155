//! Randomness as a value: two streams from what the driver feeds (protocol 1.6).
//!
//! ```text
//!   seed, feed ──▶ secret stream  ChaCha20, its key overwritten at each draw: nothing kept yields old output
//!              └─▶ public stream  the same machine with a key of its own: session numbers, jitter
//! ```
//! What the public stream shows says nothing about the secret one. The same seed and feeds give the same bytes.
use crate::{crypto::hash::sha512_prefix, time::Duration};
use chacha20::{
    ChaCha20,
    cipher::{KeyIvInit, StreamCipher},
};
use core::fmt;
use zeroize::Zeroizing;

/// The two streams of a machine.
pub struct Entropy {
    secret: Stream,
    public: Stream,
}

impl Entropy {
    /// Both streams from 32 random bytes.
    pub fn new(seed: &[u8; 32]) -> Self {
        let stream = |label: &[u8]| Stream { key: Zeroizing::new(sha512_prefix(&[b"shadowmesh/1 entropy", label, seed])) };
        Self { secret: stream(b"secret"), public: stream(b"public") }
    }

    /// Mixes in 32 fresh bytes from the operating system: from here on, the earlier state is of no use to anybody.
    pub fn feed(&mut self, fresh: &[u8; 32]) {
        self.secret.feed(b"secret", fresh);
        self.public.feed(b"public", fresh);
    }

    /// `N` secret bytes, for keys and coins.
    pub fn secret<const N: usize>(&mut self) -> Zeroizing<[u8; N]> {
        self.secret.draw()
    }

    /// 32 bits that others may see.
    pub fn public_u32(&mut self) -> u32 {
        u32::from_be_bytes(*self.public.draw())
    }

    /// 64 bits that others may see.
    pub fn public_u64(&mut self) -> u64 {
        u64::from_be_bytes(*self.public.draw())
    }

    /// `N` bytes that others may see, for nonces.
    pub fn public<const N: usize>(&mut self) -> [u8; N] {
        *self.public.draw()
    }

    /// A span between zero and `most`, evenly spread, from the public stream.
    pub fn jitter(&mut self, most: Duration) -> Duration {
        let most = u64::try_from(most.as_nanos()).unwrap_or(u64::MAX);
        let scaled = (u128::from(self.public_u64()) * (u128::from(most) + 1)) >> 64;
        Duration::from_nanos(u64::try_from(scaled).unwrap_or(most))
    }
}

impl fmt::Debug for Entropy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Entropy").finish_non_exhaustive()
    }
}

/// A fast-key-erasure generator: each draw first makes the key of the next one.
struct Stream {
    key: Zeroizing<[u8; 32]>,
}

impl Stream {
    fn draw<const N: usize>(&mut self) -> Zeroizing<[u8; N]> {
        // One nonce is enough: each key is used for one draw.
        let mut cipher = ChaCha20::new((&*self.key).into(), &[0; 12].into());
        self.key.fill(0);
        cipher.apply_keystream(self.key.as_mut_slice());
        let mut out = Zeroizing::new([0; N]);
        cipher.apply_keystream(out.as_mut_slice());
        out
    }

    fn feed(&mut self, label: &[u8], fresh: &[u8; 32]) {
        self.key = Zeroizing::new(sha512_prefix(&[b"shadowmesh/1 feed", label, self.key.as_slice(), fresh]));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_same_seed_and_feeds_give_the_same_bytes() {
        let (mut a, mut b) = (Entropy::new(&[1; 32]), Entropy::new(&[1; 32]));
        for round in 0..4 {
            assert_eq!(*a.secret::<96>(), *b.secret::<96>());
            assert_eq!(a.public_u64(), b.public_u64());
            a.feed(&[round; 32]);
            b.feed(&[round; 32]);
        }
        b.feed(&[9; 32]);
        assert_ne!(*a.secret::<32>(), *b.secret::<32>());
        assert_ne!(*a.secret::<32>(), *Entropy::new(&[2; 32]).secret::<32>());
    }

    // protocol 1.6
    #[test]
    fn each_draw_overwrites_the_key_with_keystream() {
        let mut entropy = Entropy::new(&[3; 32]);
        let before = entropy.secret.key.clone();
        let drawn = entropy.secret::<32>();
        let mut stream = [0; 64];
        ChaCha20::new((&*before).into(), &[0; 12].into()).apply_keystream(&mut stream);
        assert_eq!(entropy.secret.key[..], stream[..32], "the next key comes first");
        assert_eq!(drawn[..], stream[32..], "and is never given out");
    }

    #[test]
    fn the_public_stream_does_not_move_the_secret_one() {
        let (mut a, mut b) = (Entropy::new(&[4; 32]), Entropy::new(&[4; 32]));
        for _ in 0..10 {
            a.public_u32();
        }
        assert_eq!(*a.secret::<32>(), *b.secret::<32>());
        assert_ne!(a.secret.key, a.public.key);
        assert_ne!(a.public::<32>(), b.public::<32>(), "but itself moves on");
    }

    #[test]
    fn the_keys_of_both_streams_are_not_printed() {
        assert_eq!(format!("{:?}", Entropy::new(&[5; 32])), "Entropy { .. }");
    }

    #[test]
    fn jitter_stays_within_its_span_and_uses_all_of_it() {
        let mut entropy = Entropy::new(&[5; 32]);
        let most = Duration::from_millis(100);
        let spans: Vec<_> = (0..1000).map(|_| entropy.jitter(most)).collect();
        assert!(spans.iter().all(|span| *span <= most));
        assert!(spans.iter().any(|span| *span < most / 10) && spans.iter().any(|span| *span > most * 9 / 10));
        assert_eq!(entropy.jitter(Duration::ZERO), Duration::ZERO);
        assert!(entropy.jitter(Duration::MAX) > Duration::ZERO);
    }
}
