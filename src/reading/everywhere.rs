//! Records that every window lists, whatever bounds are asked for: such as those whose time the API itself cannot read.
//!
//! Pure. They are counted apart from what a window holds: a shorter window would list them, too. Which they are is told by
//! two readings of different windows that both list them; so records that merely show no time are none of them.

use std::collections::HashSet;
use std::hash::BuildHasherDefault;

use super::Found;
use crate::event::{Fingerprint, FingerprintHasher};

/// The most that are looked for.
const REMEMBERED: usize = 20_000;

/// See the module.
#[derive(Debug, Default)]
pub struct Everywhere {
    /// The records without a time of the reading before.
    before: HashSet<Fingerprint, BuildHasherDefault<FingerprintHasher>>,
    listed: Listed,
}

/// So many records, of so many bytes.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Listed {
    /// Records, each as often as it is listed.
    pub rows: u64,
    /// The bytes of their texts.
    pub bytes: u64,
}

impl Everywhere {
    /// What every window lists, as far as is known.
    #[must_use]
    pub const fn listed(&self) -> Listed {
        self.listed
    }

    /// Takes note of what a window listed. The answer is what of it is its own.
    pub fn saw(&mut self, found: &[Found]) -> Listed {
        let mut own = Listed::default();
        let mut everywhere = Listed::default();
        for found in found {
            let of = if found.time.is_none() && self.before.contains(&found.fingerprint) {
                &mut everywhere
            } else {
                &mut own
            };
            of.rows += found.raw.len() as u64;
            of.bytes += found.raw.iter().map(|raw| raw.len() as u64).sum::<u64>();
        }
        let untimed = found.iter().filter(|found| found.time.is_none()).map(|found| found.fingerprint);
        self.before.clear();
        self.before.extend(untimed.take(REMEMBERED));
        self.listed = everywhere;
        own
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::*;

    fn found(fingerprint: u8, time: Option<i64>) -> Found {
        Found { fingerprint: Fingerprint([fingerprint; 16]), time, raw: vec![Bytes::from_static(b"{}"); 2] }
    }

    #[test]
    fn what_two_windows_list_without_a_time_is_listed_everywhere() {
        let mut everywhere = Everywhere::default();
        let listed = |rows| Listed { rows, bytes: 2 * rows };
        assert_eq!(everywhere.saw(&[found(1, None), found(2, None), found(3, Some(7))]), listed(6));
        assert_eq!(everywhere.listed(), listed(0), "nobody can tell yet");
        assert_eq!(everywhere.saw(&[found(1, None), found(3, Some(7)), found(4, None)]), listed(4));
        assert_eq!(everywhere.listed(), listed(2));
        assert_eq!(everywhere.saw(&[found(5, None)]), listed(2), "each window has others");
        assert_eq!(everywhere.listed(), listed(0));
    }
}
