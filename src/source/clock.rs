//! What time it is at the server, from the `Date` headers of its answers.
//!
//! A header has whole seconds, so one answer tells the offset to a second and the request's duration; what
//! many answers agree on is narrower.

use std::sync::atomic::{AtomicI64, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::Instant;

use crate::clock;
use crate::event::Millis;

/// How long an answer counts, in slots of a minute: long enough to narrow the interval, short enough that
/// clocks that drift apart are followed.
const SLOTS: u64 = 10;
const SLOT_SECONDS: u64 = 60;

/// The server's clock, as far as its answers tell. Shared by all that ask the same server.
#[derive(Debug)]
pub struct ServerClock {
    started: Instant,
    offsets: Mutex<Offsets>,
    /// The estimate, apart from its evidence, so that reading the clock takes no lock.
    offset: AtomicI64,
}

impl ServerClock {
    /// Believes the local clock until an answer contradicts it.
    #[must_use]
    pub fn new() -> Self {
        Self { started: Instant::now(), offsets: Mutex::default(), offset: AtomicI64::new(0) }
    }

    /// The server's now. Where answers leave room, the local clock if it lies in it, else the earliest: a
    /// window must not be taken for closed before it is.
    #[must_use]
    pub fn now(&self) -> Millis {
        clock::now() + self.offset()
    }

    /// The server's clock minus the local one, in milliseconds.
    #[must_use]
    pub fn offset(&self) -> i64 {
        self.offset.load(Ordering::Relaxed)
    }

    /// Takes in the `Date` of an answer to a request sent and answered at these local times.
    pub fn observe(&self, date: Millis, sent: Millis, received: Millis) {
        let slot = self.started.elapsed().as_secs() / SLOT_SECONDS;
        let mut offsets = self.offsets.lock().unwrap_or_else(PoisonError::into_inner);
        offsets.observe(slot, Interval::of(date, sent, received));
        self.offset.store(offsets.estimate(), Ordering::Relaxed);
    }
}

impl Default for ServerClock {
    fn default() -> Self {
        Self::new()
    }
}

/// Offsets that are possible, both ends included.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Interval {
    low: i64,
    high: i64,
}

impl Interval {
    /// The server wrote `date` somewhere in the second that it names, and between `sent` and `received`.
    fn of(date: Millis, sent: Millis, received: Millis) -> Self {
        // A local clock that stepped back in between would turn the interval round.
        let (sent, received) = (sent.min(received), sent.max(received));
        Self { low: date.saturating_sub(received), high: date.saturating_add(1000).saturating_sub(sent) }
    }

    fn meet(self, other: Self) -> Self {
        Self { low: self.low.max(other.low), high: self.high.min(other.high) }
    }

    fn is_empty(self) -> bool {
        self.low > self.high
    }
}

/// What the answers of the last minutes agree on, in bounded memory: one interval a minute.
#[derive(Debug, Default)]
struct Offsets {
    slots: Vec<(u64, Interval)>,
}

impl Offsets {
    fn observe(&mut self, slot: u64, seen: Interval) {
        self.slots.retain(|(old, _)| old + SLOTS > slot);
        if self.agreed().is_some_and(|agreed| agreed.meet(seen).is_empty()) {
            // One of the two clocks has stepped: what was seen before says nothing of the offset now.
            self.slots.clear();
        }
        match self.slots.last_mut() {
            Some((last, interval)) if *last == slot => *interval = interval.meet(seen),
            _ => self.slots.push((slot, seen)),
        }
    }

    /// Never empty: `observe` keeps only what meets.
    fn agreed(&self) -> Option<Interval> {
        self.slots.iter().map(|(_, interval)| *interval).reduce(Interval::meet)
    }

    fn estimate(&self) -> i64 {
        match self.agreed() {
            None => 0,
            Some(Interval { low, high }) if low <= 0 && 0 <= high => 0,
            Some(Interval { low, .. }) => low,
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// One exchange at local time `at` with a server `offset` ahead: it takes `there` and `back` ms.
    fn exchange(at: i64, offset: i64, there: i64, back: i64) -> Interval {
        let server = at + there + offset;
        Interval::of(server.div_euclid(1000) * 1000, at, at + there + back)
    }

    fn exchanges() -> impl Strategy<Value = Vec<(i64, i64, i64)>> {
        prop::collection::vec((0_i64..2_000, 0_i64..3_000, 0_i64..3_000), 1..200)
    }

    proptest! {
        #[test]
        fn the_true_offset_stays_possible(offset in -100_000_i64..100_000, exchanges in exchanges()) {
            let mut offsets = Offsets::default();
            let mut at = 1_700_000_000_000;
            for (pause, there, back) in exchanges {
                at += pause;
                offsets.observe(at.unsigned_abs() / 60_000, exchange(at, offset, there, back));
                let agreed = offsets.agreed().expect("something was seen");
                prop_assert!(agreed.low <= offset && offset <= agreed.high, "{agreed:?}");
                prop_assert!(offsets.estimate() == 0 || offsets.estimate() <= offset, "ahead of the server");
                prop_assert!(agreed.high - agreed.low <= 1000 + there + back);
                prop_assert!(offsets.slots.len() <= 10, "memory grows");
            }
        }

        #[test]
        fn a_step_is_followed_by_the_next_answer(
            before in -50_000_i64..50_000, step in 10_000_i64..1_000_000, exchanges in exchanges(),
        ) {
            let mut offsets = Offsets::default();
            for (_, there, back) in exchanges {
                offsets.observe(0, exchange(1_000, before, there, back));
            }
            let after = before + step;
            offsets.observe(0, exchange(1_000, after, 10, 10));
            let estimate = offsets.estimate();
            prop_assert!(estimate <= after && after - estimate <= 1_020 || estimate == 0, "{estimate} for {after}");
        }
    }

    #[test]
    fn many_answers_narrow_the_interval() {
        let mut offsets = Offsets::default();
        for n in 0..50 {
            offsets.observe(0, exchange(1_700_000_000_000 + n * 1_037, 7_300, 5, 5));
        }
        let agreed = offsets.agreed().expect("seen");
        assert!(agreed.high - agreed.low < 60, "{agreed:?}");
        assert!(agreed.low <= 7_300 && 7_300 <= agreed.high);
    }

    #[test]
    fn old_answers_expire() {
        let mut offsets = Offsets::default();
        offsets.observe(0, Interval { low: 100, high: 110 });
        offsets.observe(5, Interval { low: 0, high: 2_000 });
        assert_eq!(offsets.estimate(), 100);
        offsets.observe(10, Interval { low: 50, high: 2_000 });
        assert_eq!(offsets.estimate(), 50, "the first answer is ten minutes old");
    }

    #[test]
    fn nothing_from_before_a_step_counts_after_it() {
        let mut offsets = Offsets::default();
        offsets.observe(0, Interval { low: 100, high: 110 });
        offsets.observe(5, Interval { low: 105, high: 115 });
        // Contradicts what both agreed on, though not the second alone.
        offsets.observe(6, Interval { low: 112, high: 120 });
        offsets.observe(10, Interval { low: 0, high: 1_000 });
        assert_eq!(offsets.agreed(), Some(Interval { low: 112, high: 120 }));
    }
}
