//! Two lines before one counter: whoever comes from a source in good standing waits for its like alone.
//!
//! ```text
//!   known     ─▶ ─▶ ─┐
//!                    ├─▶ in turn, one of each, while both have somebody
//!   strangers ─▶ ─▶ ─┘
//! ```
use shadowmesh_core::hub::Standing;
use std::collections::VecDeque;

/// Who waits, in two lines.
#[derive(Debug)]
pub struct Lines<T> {
    known: VecDeque<T>,
    strangers: VecDeque<T>,
    /// Whose turn it is, when both have somebody.
    next: Standing,
}

impl<T> Default for Lines<T> {
    fn default() -> Self {
        Self { known: VecDeque::new(), strangers: VecDeque::new(), next: Standing::Known }
    }
}

impl<T> Lines<T> {
    /// To the end of its line.
    pub fn push(&mut self, standing: Standing, one: T) {
        match standing {
            Standing::Known => self.known.push_back(one),
            Standing::Stranger => self.strangers.push_back(one),
        }
    }

    /// The next one.
    pub fn pop(&mut self) -> Option<T> {
        let (first, other, then) = match self.next {
            Standing::Known => (&mut self.known, &mut self.strangers, Standing::Stranger),
            Standing::Stranger => (&mut self.strangers, &mut self.known, Standing::Known),
        };
        match first.pop_front() {
            Some(one) => {
                self.next = then;
                Some(one)
            }
            None => other.pop_front(),
        }
    }

    /// Whether nobody waits.
    pub fn is_empty(&self) -> bool {
        self.known.is_empty() && self.strangers.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_crowd_of_strangers_costs_one_who_is_known_one_turn() {
        let mut lines = Lines::default();
        for number in 0..100 {
            lines.push(Standing::Stranger, number);
        }
        assert_eq!((lines.pop(), lines.pop()), (Some(0), Some(1)), "nobody waits for who is not there");
        lines.push(Standing::Known, 500);
        lines.push(Standing::Known, 501);
        let next: Vec<_> = core::iter::from_fn(|| lines.pop()).collect();
        assert_eq!(next[..4], [500, 2, 501, 3]);
        assert_eq!((next.len(), lines.is_empty()), (100, true), "and the strangers come too");
    }
}
