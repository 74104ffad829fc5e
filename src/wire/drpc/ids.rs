//! The ids that streams have used, so that none is used twice.
//!
//! Ids increase, but a peer with many threads may invoke streams a little out of order: the last [`WINDOW`] ids are known one
//! by one, and all older ones count as used.

/// Ids that are known one by one.
const WINDOW: u64 = 1024;
const WORDS: usize = (WINDOW / 64) as usize;

/// See the module.
#[derive(Debug)]
pub(super) struct Ids {
    newest: u64,
    /// A bit for each id, at its place in the window.
    used: [u64; WORDS],
}

/// The word and the bit of an id.
const fn place(id: u64) -> (usize, u64) {
    let at = id % WINDOW;
    ((at / 64) as usize, 1 << (at % 64))
}

impl Ids {
    pub(super) const fn new() -> Self {
        Self {
            newest: 0,
            used: [0; WORDS],
        }
    }

    /// The greatest id that was used; 0 before the first.
    pub(super) const fn newest(&self) -> u64 {
        self.newest
    }

    pub(super) fn is_used(&self, id: u64) -> bool {
        let (word, bit) = place(id);
        id <= self.newest && (self.newest - id >= WINDOW || self.used[word] & bit != 0)
    }

    /// A stream uses the id.
    pub(super) fn add(&mut self, id: u64) {
        if id > self.newest {
            let new = (id - self.newest).min(WINDOW);
            for other in 0..new {
                let (word, bit) = place(id - other);
                self.used[word] &= !bit;
            }
            self.newest = id;
        }
        let (word, bit) = place(id);
        self.used[word] |= bit;
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn an_id_is_used_once_and_old_ones_count_as_used(
            steps in prop::collection::vec((0_u64..3000, any::<bool>()), 0..200),
        ) {
            let (mut ids, mut model) = (Ids::new(), BTreeSet::new());
            let mut base = 1;
            for (step, moves) in steps {
                base += if moves { step } else { 0 };
                let id = base + step % 700;
                let newest = model.last().copied().unwrap_or(0);
                let old = id <= newest && newest - id >= WINDOW;
                prop_assert_eq!(ids.is_used(id), old || model.contains(&id));
                if !old {
                    ids.add(id);
                    model.insert(id);
                }
                prop_assert_eq!(ids.newest(), *model.last().unwrap_or(&0));
            }
        }
    }
}
