//! Whether an answer is one to what was asked: where what it lists lies.
//!
//! Pure: no I/O, no clock. What lies outside of what was asked for is delivered all the same, since an API may go by another
//! time than records show. But where one has gone by it for long, a window whose records lie elsewhere is rather the answer to
//! another question, of a cache or of a mixed-up connection: it is asked again, at other times, and counts once it says the
//! same again and again, or lists what belongs to it.

use std::collections::HashSet;

use crate::event::{Fingerprint, Millis};
use crate::reading::Found;
use crate::state::admit::{MOST_SKEW, is_outside};
use crate::window::Window;

/// After so many windows whose records all lie where they belong, one whose records do not is doubted …
const PLACED: u32 = 2;
/// … and after so many, once that has turned out to be the API's way.
const PLACED_AGAIN: u32 = 256;

/// Where the records of a window lie.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Place {
    /// Nowhere, or none of them shows a time.
    Unknown,
    /// All in what was asked for.
    Inside,
    /// Some outside.
    Outside,
    /// Most of them further outside than any record is filed from its time.
    FarOutside,
}

/// What lies outside.
pub(super) fn strays(window: Window, unit: Millis, found: &[Found]) -> HashSet<Fingerprint> {
    let outside = found.iter().filter(|found| found.time.is_some_and(|time| is_outside(window, unit, time)));
    outside.map(|found| found.fingerprint).collect()
}

/// How many windows listed what belongs to them.
#[derive(Debug, Default)]
pub(super) struct Places {
    placed: u32,
    strays: bool,
}

impl Place {
    pub(super) fn of(window: Window, unit: Millis, found: &[Found]) -> Self {
        let (mut all, mut outside, mut far) = (0u64, 0u64, 0u64);
        let wide = Window { from: window.from - MOST_SKEW, to: window.to + MOST_SKEW };
        for (time, rows) in found.iter().filter_map(|found| Some((found.time?, found.raw.len() as u64))) {
            all += rows;
            outside += if is_outside(window, unit, time) { rows } else { 0 };
            far += if is_outside(wide, unit, time) { rows } else { 0 };
        }
        match all {
            0 => Self::Unknown,
            _ if 2 * far > all => Self::FarOutside,
            _ if outside > 0 => Self::Outside,
            _ => Self::Inside,
        }
    }
}

impl Places {
    /// Takes note of a window; whether it is doubted.
    pub(super) fn saw(&mut self, place: Place) -> bool {
        match place {
            Place::Unknown => false,
            Place::Inside => {
                self.placed = self.placed.saturating_add(1);
                false
            }
            Place::Outside | Place::FarOutside => self.placed >= if self.strays { PLACED_AGAIN } else { PLACED },
        }
    }

    /// It lists such windows whenever it is asked.
    pub(super) const fn stray(&mut self) {
        (self.placed, self.strays) = (0, true);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(time: Millis) -> Found {
        Found { fingerprint: Fingerprint([1; 16]), time: Some(time), raw: vec![bytes::Bytes::new()] }
    }

    #[test]
    fn records_say_where_a_window_lies() {
        let window = Window { from: 10_000_000, to: 10_060_000 };
        let place = |times: &[Millis]| {
            Place::of(window, 1, &times.iter().map(|time| found(10_000_000 + time)).collect::<Vec<_>>())
        };
        assert_eq!(place(&[]), Place::Unknown);
        assert_eq!(place(&[0, 30_000, 61_000]), Place::Inside);
        assert_eq!(place(&[0, 30_000, 90_000]), Place::Outside);
        assert_eq!(place(&[0, 8_000_000, -8_000_000]), Place::FarOutside);
        let untimed = Found { time: None, ..found(0) };
        assert_eq!(Place::of(window, 1, &[untimed]), Place::Unknown);
    }

    #[test]
    fn who_has_gone_by_the_times_that_records_show_is_doubted_when_he_does_not() {
        let mut places = Places::default();
        assert!(!places.saw(Place::Outside), "nothing is known of it");
        (0..PLACED).for_each(|_| assert!(!places.saw(Place::Inside)));
        assert!(places.saw(Place::Outside) && places.saw(Place::FarOutside) && !places.saw(Place::Unknown));
        places.stray();
        (0..PLACED).for_each(|_| assert!(!places.saw(Place::Inside)));
        assert!(!places.saw(Place::Outside), "it is its way");
    }
}
