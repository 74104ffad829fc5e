//! Finds calls by id: almost always one look into a table, as ids are given in order and few calls are under way at once.

use rustc_hash::FxHashMap;

/// Places of the table, 4 KiB.
const PLACES: usize = 512;

/// Slots by id.
#[derive(Debug, Default)]
pub(super) struct CallIds {
    /// Id and slot; id 0 in a free place. Empty until the first call.
    table: Vec<(u32, u32)>,
    /// Calls whose place has an older one.
    rest: FxHashMap<u32, u32>,
}

impl CallIds {
    #[inline]
    pub(super) fn get(&self, id: u32) -> Option<u32> {
        match self.table.get(id as usize % PLACES) {
            Some((own, slot)) if *own == id => Some(*slot),
            _ if self.rest.is_empty() => None,
            _ => self.rest.get(&id).copied(),
        }
    }

    /// `id` is not 0, and no other call has it.
    pub(super) fn insert(&mut self, id: u32, slot: u32) {
        if self.table.is_empty() {
            self.table.resize(PLACES, (0, 0));
        }
        match self.table.get_mut(id as usize % PLACES) {
            Some(place) if place.0 == 0 => *place = (id, slot),
            _ => drop(self.rest.insert(id, slot)),
        }
    }

    pub(super) fn remove(&mut self, id: u32) {
        match self.table.get_mut(id as usize % PLACES) {
            Some(place) if place.0 == id => *place = (0, 0),
            _ => drop(self.rest.remove(&id)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_id_finds_its_slot_however_many_there_are() {
        let mut ids = CallIds::default();
        assert_eq!(ids.get(1), None);
        let all: Vec<u32> = (0..2000).map(|n| 1 + 2 * n).collect();
        all.iter().for_each(|id| ids.insert(*id, id + 7));
        assert!(all.iter().all(|id| ids.get(*id) == Some(id + 7)));
        assert_eq!(ids.get(2), None);
        for (n, id) in all.iter().enumerate() {
            ids.remove(*id);
            assert_eq!(ids.get(*id), None);
            assert!(all[n + 1..].iter().all(|id| ids.get(*id) == Some(id + 7)));
        }
        ids.insert(1, 3);
        assert_eq!(ids.get(1), Some(3));
    }
}
