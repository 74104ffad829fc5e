//! Finds the slot of an id: a hash table with chains, without hashing.
//!
//! ```text
//!   id ──► bucket ──► head ──► slot ──next──► slot ──► NONE        heads and slots share the cells of one array
//! ```
//! Wires give ids in sequence, or each side every second one. So the bucket is the half of an id, with odd ids half an array
//! away from even ones: neighbours share none. A peer that leaves ids out could fill one bucket: once a chain is longer than
//! [`CHAIN_MAX`], buckets are the high bits of a product with an odd number that the peer does not know (multiply-shift),
//! whose chains are short for any ids.

/// Slots in a chain: more are a reason to mix.
const CHAIN_MAX: usize = 8;
/// No slot: the end of a chain.
const NONE: u32 = u32::MAX;
/// Cells of the first array.
const CELLS_MIN: usize = 4;

/// The head of a bucket's chain, and the link of a slot.
#[derive(Clone, Copy, Debug)]
struct Cell {
    head: u32,
    id: u32,
    next: u32,
}

const EMPTY: Cell = Cell {
    head: NONE,
    id: 0,
    next: NONE,
};

/// See the module.
#[derive(Debug)]
pub(crate) struct Ids {
    /// None, or a power of two: more than the highest slot.
    cells: Vec<Cell>,
    /// `32 - log2(cells)`.
    shift: u32,
    /// `(1 << shift) + 1`, by which the high bits of the product are the sum of the low and the high bits; or `secret`.
    factor: u32,
    /// Odd, and different for each session.
    secret: u32,
}

impl Ids {
    pub(crate) const fn new(seed: u64) -> Self {
        Self {
            cells: Vec::new(),
            shift: 0,
            factor: 0,
            secret: ((seed ^ 0xD1B5_4A32_D192_ED03).wrapping_mul(0x9E37_79B9_7F4A_7C15) >> 32)
                as u32
                | 1,
        }
    }

    pub(crate) fn clear(&mut self) {
        self.cells = Vec::new();
    }

    #[inline]
    const fn bucket(&self, id: u32) -> usize {
        (id.rotate_right(1).wrapping_mul(self.factor) >> self.shift) as usize
    }

    /// The slot of an id.
    #[inline]
    pub(crate) fn find(&self, id: u32) -> Option<u32> {
        let mut slot = self.cells.get(self.bucket(id))?.head;
        loop {
            // There is no cell for `NONE`.
            let cell = self.cells.get(slot as usize)?;
            if cell.id == id {
                return Some(slot);
            }
            slot = cell.next;
        }
    }

    /// The id, which has no slot, gets this one, which has no id.
    #[inline]
    pub(crate) fn insert(&mut self, id: u32, slot: u32) {
        if slot as usize >= self.cells.len() {
            self.grow(slot);
        }
        let bucket = self.bucket(id);
        if self.cells[bucket].head != NONE {
            return self.insert_behind(id, slot);
        }
        self.cells[bucket].head = slot;
        let cell = &mut self.cells[slot as usize];
        (cell.id, cell.next) = (id, NONE);
    }

    /// The same where the bucket of the id has others.
    #[inline(never)]
    fn insert_behind(&mut self, id: u32, slot: u32) {
        self.mix_if_long(id);
        self.link(id, slot);
    }

    /// Frees the id. Nothing happens if this is not its slot.
    #[inline]
    pub(crate) fn remove(&mut self, id: u32, slot: u32) {
        let bucket = self.bucket(id);
        let Some(cell) = self.cells.get(bucket) else {
            return;
        };
        if cell.head == slot {
            self.cells[bucket].head = self.cells[slot as usize].next;
        } else {
            self.unlink(cell.head, slot);
        }
    }

    /// Takes a slot out of the rest of the chain that begins with `first`.
    fn unlink(&mut self, first: u32, slot: u32) {
        let mut before = first;
        while let Some(&cell) = self.cells.get(before as usize) {
            if cell.next == slot {
                self.cells[before as usize].next = self.cells[slot as usize].next;
                return;
            }
            before = cell.next;
        }
    }

    fn link(&mut self, id: u32, slot: u32) {
        let bucket = self.bucket(id);
        let next = std::mem::replace(&mut self.cells[bucket].head, slot);
        let cell = &mut self.cells[slot as usize];
        (cell.id, cell.next) = (id, next);
    }

    #[cold]
    fn grow(&mut self, slot: u32) {
        let cells = (slot as usize + 1).next_power_of_two().max(CELLS_MIN);
        self.rebuild(cells, self.is_mixed());
    }

    const fn is_mixed(&self) -> bool {
        self.factor == self.secret
    }

    /// The bucket of an id that is to be linked is not empty.
    fn mix_if_long(&mut self, id: u32) {
        let chain = self.chain(self.cells[self.bucket(id)].head);
        if chain.count() >= CHAIN_MAX && !self.is_mixed() {
            self.rebuild(self.cells.len(), true);
        }
    }

    fn chain(&self, first: u32) -> impl Iterator<Item = u32> {
        let next = |&slot: &u32| self.cells.get(slot as usize).map(|cell| cell.next);
        std::iter::successors(Some(first), next).take_while(|&slot| slot != NONE)
    }

    /// An array of this size, with the same ids.
    fn rebuild(&mut self, cells: usize, mixed: bool) {
        let shift = 32 - cells.trailing_zeros();
        let mut rebuilt = Self {
            cells: vec![EMPTY; cells],
            shift,
            factor: if mixed { self.secret } else { (1 << shift) + 1 },
            secret: self.secret,
        };
        for bucket in &self.cells {
            for slot in self.chain(bucket.head) {
                rebuilt.link(self.cells[slot as usize].id, slot);
            }
        }
        *self = rebuilt;
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use proptest::prelude::*;

    use super::*;

    fn longest_chain(ids: &Ids) -> usize {
        let chains = ids.cells.iter().map(|cell| ids.chain(cell.head).count());
        chains.max().unwrap_or(0)
    }

    /// The longest chain of 64 streams at once, each the `step`th id after the last.
    fn longest_of_sequence(step: u32) -> usize {
        let mut ids = Ids::new(7);
        let mut longest = 0;
        for n in 0..10_000 {
            ids.insert(1 + step * n, n % 64);
            assert_eq!(ids.find(1 + step * n), Some(n % 64));
            if let Some(old) = n.checked_sub(63) {
                ids.remove(1 + step * old, old % 64);
                assert_eq!(ids.find(1 + step * old), None);
            }
            longest = longest.max(longest_chain(&ids));
        }
        assert_eq!(ids.cells.len(), 64, "as many as slots");
        longest
    }

    #[test]
    fn ids_in_sequence_share_no_bucket_however_many_have_passed() {
        // Two where the high bits change.
        assert!(longest_of_sequence(1) <= 2);
        assert!(longest_of_sequence(2) <= 2);
    }

    #[test]
    fn a_peer_that_chooses_its_ids_makes_no_long_chain() {
        for seed in 0..50 {
            for stride in [1 << 10, 1 << 16, 1 << 21] {
                let mut ids = Ids::new(seed);
                for slot in 0..1024 {
                    ids.insert(stride * slot + 1, slot);
                }
                assert!(
                    longest_chain(&ids) <= 4 * CHAIN_MAX,
                    "seed {seed}, stride {stride}"
                );
                assert!((0..1024).all(|slot| ids.find(stride * slot + 1) == Some(slot)));
            }
        }
    }

    #[test]
    fn another_slot_does_not_free_an_id() {
        let mut ids = Ids::new(0);
        ids.insert(5, 0);
        ids.remove(5, 3);
        ids.remove(9, 1);
        assert_eq!(ids.find(5), Some(0));
    }

    proptest! {
        #[test]
        fn it_is_a_map_of_ids_to_slots(
            steps in prop::collection::vec((0u32..40, 1u32..9, 0u32..12), 0..300),
        ) {
            let mut ids = Ids::new(1);
            let mut map: HashMap<u32, u32> = HashMap::new();
            for (slot, factor, shift) in steps {
                let id = factor << shift;
                let old = map.iter().find(|(_, at)| **at == slot).map(|(id, _)| *id);
                if let Some(old) = old {
                    map.remove(&old);
                    ids.remove(old, slot);
                }
                if let Some(of) = map.remove(&id) {
                    ids.remove(id, of);
                }
                map.insert(id, slot);
                ids.insert(id, slot);
                for (id, slot) in &map {
                    prop_assert_eq!(ids.find(*id), Some(*slot));
                }
                if let Some(old) = old {
                    prop_assert_eq!(ids.find(old), map.get(&old).copied());
                }
            }
        }
    }
}
