//! How far a partition's state is, and what it amounts to: written with each transaction, so that state that has lost
//! records, or that is older than what was known of it, is told from the state that was committed. No broker is asked.

use serde::{Deserialize, Serialize};

use crate::checkpoint::{Doubt, MemoryStore, Store};

/// As it is stored beside the state.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Position {
    /// Made at random with the partition's first state.
    pub identity: u64,
    /// Counted with each transaction.
    pub commits: u64,
    /// Entries of the state.
    keys: u64,
    /// The sum of the hashes of all entries, which does not depend on their order, in hex.
    sum: String,
}

/// What is known of a partition's state from elsewhere: it was this one, and had come so far.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Standing {
    /// Which state.
    pub identity: u64,
    /// How many transactions it counted at least.
    pub commits: u64,
}

/// What a state amounts to, kept up with each change.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Sum {
    keys: u64,
    hashes: u128,
}

impl Sum {
    /// Of a whole state.
    pub(super) fn of(state: &MemoryStore) -> Self {
        let mut sum = Self::default();
        // A map in memory can always be read.
        let _ = state.scan(&[]..&[0xff; 8], &mut |key, value| sum.change(key, None, Some(value)));
        sum
    }

    /// One key's value becomes another, or comes, or goes.
    pub(super) fn change(&mut self, key: &[u8], before: Option<&[u8]>, after: Option<&[u8]>) {
        if let Some(before) = before {
            self.keys = self.keys.wrapping_sub(1);
            self.hashes = self.hashes.wrapping_sub(hash(key, before));
        }
        if let Some(after) = after {
            self.keys = self.keys.wrapping_add(1);
            self.hashes = self.hashes.wrapping_add(hash(key, after));
        }
    }

    pub(super) fn position(self, standing: Standing) -> Position {
        let Standing { identity, commits } = standing;
        Position { identity, commits, keys: self.keys, sum: format!("{:032x}", self.hashes) }
    }
}

fn hash(key: &[u8], value: &[u8]) -> u128 {
    let mut hash = blake3::Hasher::new();
    hash.update(&(key.len() as u64).to_le_bytes()).update(key).update(value);
    let mut bytes = [0; 16];
    bytes.copy_from_slice(&hash.finalize().as_bytes()[..16]);
    u128::from_le_bytes(bytes)
}

/// Which state it is that was read, if nothing speaks against it; a new one where nothing was kept before.
///
/// | beside the state | known from elsewhere | verdict |
/// | --- | --- | --- |
/// | nothing | nothing | new; or of an earlier version, which wrote no position |
/// | nothing | a standing | gone, or of an earlier version and so another |
/// | a position that the entries do not add up to | | records are missing, or not ours |
/// | a position | another identity | another |
/// | a position | more commits | older |
/// | a position | as many commits or fewer, or nothing | right |
pub(super) fn judge(state: Sum, position: Option<&Position>, known: Option<Standing>) -> Result<Standing, Doubt> {
    let Some(position) = position else {
        return match known {
            None => Ok(Standing { identity: rand::random(), commits: 0 }),
            Some(_) if state.keys == 0 => Err(Doubt::Gone),
            Some(_) => Err(Doubt::Other),
        };
    };
    let standing = Standing { identity: position.identity, commits: position.commits };
    if state.position(standing) != *position {
        return Err(Doubt::Torn);
    }
    match known {
        Some(known) if known.identity != standing.identity => Err(Doubt::Other),
        Some(Standing { commits, .. }) if commits > standing.commits => {
            Err(Doubt::Older { has: standing.commits, seen: commits })
        }
        _ => Ok(standing),
    }
}

impl Standing {
    /// As an offset and the text beside it.
    pub(super) fn to_offset(self) -> (i64, String) {
        (i64::try_from(self.commits).unwrap_or(i64::MAX), format!("trailcast state {:016x}", self.identity))
    }

    /// What [`Standing::to_offset`] made; nothing else says anything.
    pub(super) fn of_offset(offset: i64, text: &str) -> Option<Self> {
        let identity = u64::from_str_radix(text.strip_prefix("trailcast state ")?, 16).ok()?;
        Some(Self { identity, commits: u64::try_from(offset).ok()? })
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::prelude::*;

    use super::*;

    type Entries = BTreeMap<Vec<u8>, Vec<u8>>;

    fn store(entries: &Entries) -> MemoryStore {
        let store = MemoryStore::default();
        entries.iter().for_each(|(key, value)| store.put(key, Some(value)));
        store
    }

    proptest! {
        /// Any log of changes, of which any may be lost, doubled or come from elsewhere.
        #[test]
        fn what_is_not_the_committed_state_is_doubted(
            changes in prop::collection::vec((0..6_u8, prop::option::of(0..4_u8)), 1..30),
            read in 0..30_usize,
            lost in prop::option::of(0..6_u8),
            of_another in any::<bool>(),
        ) {
            let (mut entries, mut sum) = (Entries::new(), Sum::default());
            let mut history = Vec::new();
            for (commits, (key, value)) in (1..).zip(&changes) {
                let (key, value) = (vec![b'c', *key], value.map(|value| vec![value]));
                let before = entries.get(&key).cloned();
                sum.change(&key, before.as_deref(), value.as_deref());
                match value {
                    Some(value) => drop(entries.insert(key, value)),
                    None => drop(entries.remove(&key)),
                }
                history.push((entries.clone(), sum.position(Standing { identity: 7, commits })));
            }
            let last = Standing { identity: 7, commits: changes.len() as u64 };
            prop_assert_eq!(Sum::of(&store(&entries)), sum, "kept up");

            let read = read % history.len();
            let (mut entries, position) = history[read].clone();
            let damaged = lost.is_some_and(|lost| entries.remove(&[b'c', lost][..]).is_some());
            let known = if of_another { Standing { identity: 8, ..last } } else { last };
            let verdict = judge(Sum::of(&store(&entries)), Some(&position), Some(known));
            let is_right = !damaged && !of_another && read + 1 == history.len();
            prop_assert_eq!(verdict.is_ok(), is_right, "{:?}", verdict);
            prop_assert_eq!(is_right.then_some(last), verdict.ok());
        }

        #[test]
        fn a_standing_comes_back_from_the_group(identity: u64, commits in 0..i64::MAX as u64) {
            let standing = Standing { identity, commits };
            let (offset, text) = standing.to_offset();
            prop_assert_eq!(Standing::of_offset(offset, &text), Some(standing));
            prop_assert_eq!(Standing::of_offset(offset, "of someone else"), None);
        }
    }

    #[test]
    fn nothing_where_something_was_is_doubted() {
        let known = Some(Standing { identity: 7, commits: 3 });
        assert_eq!(judge(Sum::default(), None, known), Err(Doubt::Gone));
        let of_an_earlier_version = store(&[(b"c1".to_vec(), b"1".to_vec())].into());
        assert_eq!(judge(Sum::of(&of_an_earlier_version), None, known), Err(Doubt::Other));
        assert_eq!(judge(Sum::of(&of_an_earlier_version), None, None).map(|standing| standing.commits), Ok(0));
    }
}
