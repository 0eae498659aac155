//! Fresh randomness of the operating system, for the machines' secret streams (protocol 1.6).

/// 32 fresh bytes. Blocks at most once, early after boot, until the kernel's generator is seeded.
///
/// # Panics
/// When the kernel has no working generator: nothing that needs keys can go on then.
pub fn fresh() -> [u8; 32] {
    let mut bytes = [0; 32];
    getrandom::fill(&mut bytes).expect("the kernel's random generator works");
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn two_draws_differ() {
        assert_ne!(fresh(), fresh());
    }
}
