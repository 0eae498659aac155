//! What a machine holds at one moment, beside the most that it may hold: every limit of this crate, to be looked at from outside.

/// One queue, table or buffer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Bound {
    /// What it is.
    pub name: &'static str,
    /// Entries or bytes in it now.
    pub held: usize,
    /// The most that may be in it.
    pub most: usize,
}

impl Bound {
    pub(crate) const fn new(name: &'static str, held: usize, most: usize) -> Self {
        Self { name, held, most }
    }

    /// Whether it is kept.
    pub const fn is_kept(self) -> bool {
        self.held <= self.most
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bound_is_kept_up_to_its_most_and_not_beyond() {
        assert!(Bound::new("queue", 7, 7).is_kept());
        assert!(!Bound::new("queue", 8, 7).is_kept());
    }
}
