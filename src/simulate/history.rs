//! A source's history as a pure function of seed and time.
//!
//! Time since the Unix epoch is cut into slots of `1 / rate`, and slot `n` holds record `n`, somewhere inside
//! the slot. So index and time convert into each other in constant time, a range of ten million records is
//! counted from its two edges, and nothing is remembered. Slots belong to blocks of [`BLOCK`]; what makes
//! neighbours alike (twins, bursts) stays within one block, so that one block is all that must be looked at.
//!
//! Does no I/O and reads no clock. The same seed and rate give the same records at the same times in every
//! process, wherever its history begins: a simulator that is started again goes on where it was.

use std::ops::Range;

use crate::event::Millis;

use super::hash::{happens, mix};
use super::options::{Options, Times};

/// Records in a block.
pub const BLOCK: u64 = 1024;

/// What a hash is about, so that no two decisions of one record hang together.
mod about {
    pub const JITTER: u64 = 1;
    pub const TWIN: u64 = 2;
    pub const BURST: u64 = 3;
    pub const LATE: u64 = 4;
    pub const LATENESS: u64 = 5;
    pub const ODD: u64 = 6;
    pub const LARGE: u64 = 7;
}

/// The places of a source's records in time.
#[derive(Debug, Clone)]
pub struct History {
    seed: u64,
    /// The length of a slot.
    slot_us: u64,
    /// The source's clock unit: a record's time is a multiple.
    unit: Millis,
    burst: u64,
    twin_share: f64,
    late_share: f64,
    late_max: Millis,
    odd_share: f64,
    large_share: f64,
    times: Times,
    /// The indices that exist.
    span: Range<u64>,
}

/// One record's place.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Slot {
    /// Records are numbered in order of time.
    pub index: u64,
    /// The index that decides the record's contents: its own, or that of the first of its twins.
    pub root: u64,
    /// When it happened.
    pub at: Millis,
    /// When it happened on the source's clock: what the API sorts and selects by, and what the record says.
    pub time: Millis,
    /// When the API first shows it.
    pub readable_at: Millis,
}

impl History {
    /// The history of one source whose clock counts in `unit`; `salt` sets sources apart that share a seed.
    #[must_use]
    pub fn new(options: &Options, salt: u64, unit: Millis, started: Millis) -> Self {
        let slot_us = options.slot_us();
        let mut history = Self {
            seed: mix(options.seed, salt),
            slot_us,
            unit,
            burst: options.burst.min(BLOCK),
            twin_share: options.twin_share,
            late_share: options.late_share,
            late_max: options.late_max_ms().max(1),
            odd_share: options.odd_share,
            large_share: options.large_share,
            times: options.times,
            span: 0..u64::MAX / slot_us / 2,
        };
        let first = history.first_at(options.history_start(started), &mut Walk::default());
        history.span.start = first;
        if let Some(events) = options.events {
            history.span.end = first.saturating_add(events);
        }
        history
    }

    /// The hash that everything else about this source's records is drawn from.
    #[must_use]
    pub const fn seed(&self) -> u64 {
        self.seed
    }

    /// How its records write their times.
    #[must_use]
    pub const fn times(&self) -> Times {
        self.times
    }

    /// The longest that a record may be late.
    #[must_use]
    pub const fn late_max(&self) -> Millis {
        self.late_max
    }

    /// The index of the first record that happened at `at` or later.
    #[must_use]
    pub fn first_at(&self, at: Millis, walk: &mut Walk) -> u64 {
        let us = u64::try_from(at).unwrap_or(0).saturating_mul(1000);
        let block = (us / (BLOCK * self.slot_us)).min(self.span.end / BLOCK);
        let places = walk.block(self, block);
        let within = places.at.partition_point(|place| *place < at) as u64;
        (block * BLOCK + within).clamp(self.span.start, self.span.end)
    }

    /// The index of the first record whose time is `time` or later.
    #[must_use]
    pub fn first_with_time(&self, time: Millis, walk: &mut Walk) -> u64 {
        // A time on the source's clock is `at` rounded down, so it reaches a bound when `at` reaches the bound
        // rounded up.
        let up = time.saturating_add(self.unit - 1).div_euclid(self.unit).saturating_mul(self.unit);
        self.first_at(up, walk)
    }

    /// The place of record `index`.
    #[must_use]
    pub fn slot(&self, index: u64, walk: &mut Walk) -> Slot {
        let places = walk.block(self, index / BLOCK);
        let within = usize::try_from(index % BLOCK).unwrap_or(0);
        let (at, root) = (places.at[within], index - u64::from(places.twin[within]));
        let readable_at = at.saturating_add(self.lateness(index));
        Slot { index, root, at, time: at.div_euclid(self.unit) * self.unit, readable_at }
    }

    /// How long after it happened the API shows record `index`: 0 for those that are not late.
    #[must_use]
    pub fn lateness(&self, index: u64) -> Millis {
        if !happens(self.hash(about::LATE, index), self.late_share) {
            return 0;
        }
        let span = self.late_max.unsigned_abs();
        1 + (self.hash(about::LATENESS, index) % span).cast_signed()
    }

    /// For a record that the API writes wrongly: a hash that says how.
    #[must_use]
    pub fn odd(&self, root: u64) -> Option<u64> {
        let hash = self.hash(about::ODD, root);
        happens(hash, self.odd_share).then(|| mix(hash, root))
    }

    /// Whether a record is far larger than others; none is that is odd as well.
    #[must_use]
    pub fn large(&self, root: u64) -> bool {
        happens(self.hash(about::LARGE, root), self.large_share) && self.odd(root).is_none()
    }

    fn hash(&self, about: u64, index: u64) -> u64 {
        mix(self.seed ^ (about << 56), index)
    }

    fn place(&self, index: u64) -> Millis {
        let start = index * self.slot_us;
        let hash = self.hash(about::JITTER, index);
        let second = start.next_multiple_of(1_000_000);
        // Some times are whole seconds, because APIs write those in another way.
        let us = if second < start + self.slot_us && hash & 1 == 0 { second } else { start + hash % self.slot_us };
        (us / 1000).cast_signed()
    }

    fn places(&self, block: u64) -> Places {
        let first = block * BLOCK;
        let mut places = Places { block, at: Vec::with_capacity(1024), twin: vec![0; 1024] };
        places.at.extend((first..first + BLOCK).map(|index| self.place(index)));
        self.burst_into(&mut places.at, block);
        self.twins_into(&mut places, first);
        places
    }

    /// One block in two holds more records in one clock unit than a page can.
    fn burst_into(&self, at: &mut [Millis], block: u64) {
        let hash = self.hash(about::BURST, block);
        if self.burst == 0 || hash & 1 == 0 {
            return;
        }
        let start = usize::try_from((hash >> 1) % (BLOCK - self.burst + 1)).unwrap_or(0);
        let end = start + usize::try_from(self.burst).unwrap_or(0);
        let moment = at[start];
        at[start..end].fill(moment);
    }

    /// Two to four neighbours become one act that was recorded so many times.
    fn twins_into(&self, places: &mut Places, first: u64) {
        if self.twin_share <= 0.0 {
            return;
        }
        let mut index = 0;
        while index < places.at.len() {
            let hash = self.hash(about::TWIN, first + index as u64);
            let mut members = 1;
            // A group has three members on average.
            if happens(hash, self.twin_share / 3.0) {
                members = (2 + (hash & 0xff) % 3).min(places.at.len() as u64 - index as u64);
            }
            for twin in 1..u8::try_from(members).unwrap_or(1) {
                let member = index + usize::from(twin);
                places.at[member] = places.at[index];
                places.twin[member] = twin;
            }
            index += usize::try_from(members).unwrap_or(1);
        }
    }
}

/// Where the records of one block are.
#[derive(Debug)]
struct Places {
    block: u64,
    at: Vec<Millis>,
    /// How far back the first of the record's twins is.
    twin: Vec<u8>,
}

/// Remembers the blocks looked at last, so that walking over neighbours costs one computation a block.
#[derive(Debug, Default)]
pub struct Walk {
    // Two, because a page may go back and forth across one border.
    blocks: [Option<Places>; 2],
}

impl Walk {
    fn block(&mut self, history: &History, block: u64) -> &Places {
        let way = usize::from(block % 2 == 1);
        let place = &mut self.blocks[way];
        if place.as_ref().is_none_or(|places| places.block != block) {
            *place = None;
        }
        place.get_or_insert_with(|| history.places(block))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn history(options: &Options) -> History {
        History::new(options, 1, 1, 1_700_000_000_000)
    }

    fn options() -> Options {
        Options { rate: 50.0, twin_share: 0.2, burst: 120, late_share: 0.1, events: Some(20_000), ..Options::default() }
    }

    #[test]
    fn times_never_go_back_and_stay_near_their_slots() {
        let history = history(&options());
        let mut walk = Walk::default();
        let mut last = 0;
        for index in history.span.clone() {
            let slot = history.slot(index, &mut walk);
            assert!(slot.at >= last, "{slot:?} after {last}");
            last = slot.at;
        }
    }

    #[test]
    fn a_count_from_the_edges_equals_a_count_by_walking() {
        for unit in [1, 1000] {
            let history = History::new(&options(), 1, unit, 1_700_000_000_000);
            let mut walk = Walk::default();
            let slots: Vec<Slot> =
                history.span.clone().map(|index| history.slot(index, &mut Walk::default())).take(5000).collect();
            let (first, last) = (slots[0].time, slots[4999].time);
            for step in 0..200 {
                let from = first + (last - first) * step / 211;
                let to = from + step * 20;
                let counted = history.first_with_time(to, &mut walk) - history.first_with_time(from, &mut walk);
                let walked = slots.iter().filter(|slot| (from..to).contains(&slot.time)).count();
                assert_eq!(counted, walked as u64, "unit {unit}, {from}..{to}");
            }
        }
    }

    #[test]
    fn options_put_twins_bursts_and_lateness_into_it() {
        let history = history(&options());
        let mut walk = Walk::default();
        let slots: Vec<Slot> = history.span.clone().map(|index| history.slot(index, &mut walk)).collect();
        let share = |wanted: fn(&Slot) -> bool| slots.iter().filter(|slot| wanted(slot)).count() as f64 / 20_000.0;
        // Of a group of three, two are not the first.
        assert!((0.08..0.18).contains(&share(|slot| slot.root != slot.index)));
        assert!((0.08..0.12).contains(&share(|slot| slot.readable_at > slot.at)));
        assert!((0.005..0.05).contains(&share(|slot| slot.at % 1000 == 0)));
        let most = slots.chunk_by(|a, b| a.time == b.time).map(<[Slot]>::len).max();
        assert!(most >= Some(120), "{most:?}");
    }

    #[test]
    fn it_does_not_depend_on_where_it_begins() {
        let (long, short) = (history(&options()), history(&Options { events: Some(500), ..options() }));
        let mut walk = Walk::default();
        let index = short.span.start + 100;
        assert!(long.span.contains(&index));
        assert_eq!(long.slot(index, &mut walk), short.slot(index, &mut Walk::default()));
    }
}
