//! A store that is gone with the process: for tests and demos, and what a taken partition of the state topic holds.

use std::collections::BTreeMap;
use std::ops::{Bound, Range};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::{Changes, CheckpointError, Store};

type Map = BTreeMap<Box<[u8]>, Box<[u8]>>;

/// See the module.
#[derive(Debug, Default)]
pub struct MemoryStore {
    map: Mutex<Map>,
}

impl MemoryStore {
    /// What `ranges` of `store` hold once `changes` are committed in this order. It does not matter whether some of
    /// them, from the first on, are already: of each key the last change decides. Nothing else is of use in it.
    ///
    /// # Errors
    /// The store cannot be read.
    pub fn foreseen(
        store: &dyn Store,
        ranges: &[Range<Vec<u8>>],
        changes: &[Arc<Changes>],
    ) -> Result<Self, CheckpointError> {
        let foreseen = Self::default();
        for range in ranges {
            store.scan(&range.start..&range.end, &mut |key, value| foreseen.put(key, Some(value)))?;
        }
        changes.iter().for_each(|changes| foreseen.apply(changes));
        Ok(foreseen)
    }

    /// A visitor that panics leaves the map as it was, so a poisoned lock is as good as any.
    fn map(&self) -> MutexGuard<'_, Map> {
        self.map.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Sets a key, or takes it away.
    pub(super) fn put(&self, key: &[u8], value: Option<&[u8]>) {
        match value {
            Some(value) => self.map().insert(key.into(), value.into()),
            None => self.map().remove(key),
        };
    }

    pub(super) fn has(&self, key: &[u8]) -> bool {
        self.map().contains_key(key)
    }

    /// The keys that are there in `range`.
    pub(super) fn keys(&self, range: &Range<Vec<u8>>) -> Vec<Vec<u8>> {
        keys(&self.map(), &range.start..&range.end)
    }

    /// As [`Store::commit`], which cannot fail here.
    pub(super) fn apply(&self, changes: &Changes) {
        let mut map = self.map();
        for range in &changes.delete_ranges {
            for key in keys(&map, &range.start..&range.end) {
                map.remove(key.as_slice());
            }
        }
        for key in &changes.deletes {
            map.remove(key.as_slice());
        }
        for (key, value) in &changes.puts {
            map.insert(key.as_slice().into(), value.as_slice().into());
        }
    }
}

impl Store for MemoryStore {
    fn get(&self, key: &[u8]) -> Result<Option<Vec<u8>>, CheckpointError> {
        Ok(self.map().get(key).map(|value| value.to_vec()))
    }

    fn scan(&self, range: Range<&[u8]>, visit: &mut dyn FnMut(&[u8], &[u8])) -> Result<(), CheckpointError> {
        entries(&self.map(), range).for_each(|(key, value)| visit(key, value));
        Ok(())
    }

    fn commit(&self, changes: &Changes) -> Result<(), CheckpointError> {
        self.apply(changes);
        Ok(())
    }
}

fn keys(map: &Map, range: Range<&[u8]>) -> Vec<Vec<u8>> {
    entries(map, range).map(|(key, _)| key.to_vec()).collect()
}

/// A map panics at a range that ends before it starts; such a range holds nothing.
fn entries<'m>(map: &'m Map, range: Range<&[u8]>) -> impl Iterator<Item = (&'m Box<[u8]>, &'m Box<[u8]>)> {
    let end = range.end.max(range.start);
    map.range::<[u8], _>((Bound::Included(range.start), Bound::Excluded(end)))
}
