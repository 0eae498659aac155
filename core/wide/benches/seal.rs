//! What sealing a frame costs here, in AWS-LC and in the portable implementation: the quickest of many short runs, by turns.
//!
//! `cargo bench -p shadowmesh-wide --bench seal`
#![expect(clippy::disallowed_types, reason = "a bench measures by the clock")]
#![expect(clippy::print_stdout, reason = "the figures are the output")]
#[cfg(target_arch = "x86_64")]
fn main() {
    for len in [64, 256, 1436, 8192, 16384] {
        figures::of(len);
    }
}

#[cfg(not(target_arch = "x86_64"))]
fn main() {
    println!("this code is for x86-64");
}

#[cfg(target_arch = "x86_64")]
mod figures {
    use aws_lc_rs::aead::{Aad, CHACHA20_POLY1305, LessSafeKey, Nonce, UnboundKey};
    use chacha20poly1305::{AeadInOut, KeyInit};
    use shadowmesh_wide::ChaCha20Poly1305;
    use std::{hint::black_box, time::Instant};

    const TURNS: usize = 400;
    const RUNS: usize = 5;
    /// Bytes of one measurement.
    const BYTES: usize = 60_000;
    const KEY: [u8; 32] = [1; 32];
    const NONCE: [u8; 12] = [2; 12];
    const HEADER: [u8; 16] = [3; 16];

    /// Prints a line for frames of so many bytes.
    pub(crate) fn of(len: usize) {
        let library = LessSafeKey::new(UnboundKey::new(&CHACHA20_POLY1305, &KEY).expect("a key of 32 bytes"));
        let portable = chacha20poly1305::ChaCha20Poly1305::new(&KEY.into());
        let wide = ChaCha20Poly1305::new(&KEY);
        let mut frame = vec![7; len];
        let mut best = [f64::MAX; 4];
        for _ in 0..TURNS {
            best[0] = best[0].min(time(len, || {
                let nonce = Nonce::assume_unique_for_key(NONCE);
                black_box(library.seal_in_place_separate_tag(nonce, Aad::from(HEADER), &mut frame).is_ok());
            }));
            best[1] = best[1].min(time(len, || {
                black_box(portable.encrypt_inout_detached(&NONCE.into(), &HEADER, (&mut frame[..]).into()).is_ok());
            }));
            if let Some(wide) = &wide {
                let mut tag = [0; 16];
                best[2] = best[2].min(time(len, || tag = black_box(wide.seal(&NONCE, &HEADER, &mut frame))));
                let mut sealed = frame.clone();
                let tag = wide.seal(&NONCE, &HEADER, &mut sealed);
                best[3] = best[3].min(time(len, || {
                    frame.copy_from_slice(&sealed);
                    black_box(wide.open(&NONCE, &HEADER, &mut frame, &tag).is_ok());
                }));
            }
        }
        let [library, portable, seal, open] = best;
        println!(
            "{len:>6} bytes: aws-lc {library:>6.0} ns, portable {portable:>6.0}, wide {seal:>6.0} to seal, {open:>6.0} to open with a copy"
        );
    }

    /// Nanoseconds of one call, the quickest of some runs.
    fn time(len: usize, mut call: impl FnMut()) -> f64 {
        let calls = u32::try_from(BYTES / len).unwrap_or(0).max(1);
        let mut best = f64::MAX;
        for _ in 0..RUNS {
            let start = Instant::now();
            for _ in 0..calls {
                call();
            }
            best = best.min(start.elapsed().as_secs_f64() * 1e9 / f64::from(calls));
        }
        best
    }
}
