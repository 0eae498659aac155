//! So many frames of a steady stream through two planes, for a count of instructions: `frames chacha20-poly1305|aes-256-gcm ROUNDS [PEERS [ACTIVE]]`.
//! The rounds go to one active peer after the other; without a number all are. `.ci/instructions.py` runs it.
use shadowmesh_core::{crypto::awslc::AwsLc, session::Suite};
use shadowmesh_fuzz::pair::{PIECES, Pair, SIZE};
use std::io;

fn main() -> io::Result<()> {
    let mut arguments = std::env::args().skip(1);
    let suite = match arguments.next().as_deref() {
        Some("chacha20-poly1305") => Suite::ChaCha20Poly1305,
        Some("aes-256-gcm") => Suite::Aes256Gcm,
        _ => return Err(io::Error::other("name a suite: chacha20-poly1305 or aes-256-gcm")),
    };
    let rounds = arguments.next().and_then(|text| text.parse().ok()).ok_or_else(|| io::Error::other("name a number of rounds"))?;
    let mut number = |other| arguments.next().map_or(Ok(other), |text| text.parse::<u16>()).map_err(io::Error::other);
    let peers = number(1)?;
    let active = number(peers)?;
    let came = Pair::among(peers, active, suite, &AwsLc).run(rounds);
    assert_eq!(came.bytes, 2 * rounds * PIECES * usize::from(SIZE), "all came");
    Ok(())
}
