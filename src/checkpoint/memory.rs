//! A store that is gone with the process: for tests and demos.

use std::collections::BTreeMap;
use std::ops::{Bound, Range};
use std::sync::{Mutex, MutexGuard, PoisonError};

use super::{Changes, CheckpointError, Store};

/// See the module.
#[derive(Debug, Default)]
pub struct MemoryStore {
    map: Mutex<BTreeMap<Vec<u8>, Vec<u8>>>,
}

impl MemoryStore {
    /// A visitor that panics leaves the map as it was, so a poisoned lock is as good as any.
    fn map(&self) -> MutexGuard<'_, BTreeMap<Vec<u8>, Vec<u8>>> {
        self.map.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Store for MemoryStore {
    fn get(&self, key: &[u8]) -> Result<Option<Vec<u8>>, CheckpointError> {
        Ok(self.map().get(key).cloned())
    }

    fn scan(&self, range: Range<&[u8]>, visit: &mut dyn FnMut(&[u8], &[u8])) -> Result<(), CheckpointError> {
        // A map panics at a range that ends before it starts; such a range holds nothing.
        if range.start < range.end {
            for (key, value) in self.map().range::<[u8], _>((Bound::Included(range.start), Bound::Excluded(range.end)))
            {
                visit(key, value);
            }
        }
        Ok(())
    }

    fn commit(&self, changes: &Changes) -> Result<(), CheckpointError> {
        let mut map = self.map();
        for range in &changes.delete_ranges {
            map.retain(|key, _| !range.contains(key));
        }
        for key in &changes.deletes {
            map.remove(key);
        }
        for (key, value) in &changes.puts {
            map.insert(key.clone(), value.clone());
        }
        Ok(())
    }
}
