//! What an API shows of a history at one moment: which records are readable, in which order, page by page.
//!
//! A page is a snapshot: what it lists and the total it names belong to one moment. Between two pages the
//! simulated clock runs, so records arrive, and late ones appear among those that were listed already.

use std::collections::BTreeSet;
use std::ops::Range;

use crate::event::Millis;

use super::hash::mix;
use super::history::{History, Slot, Walk};
use super::options::Order;

/// The records that have happened and are not readable yet, kept up as time goes on: what makes a total cost
/// its edges and not its range. As large as what `late_max` of history holds of late records.
#[derive(Debug, Default)]
pub struct Pending {
    /// Every record before this index has been looked at.
    seen: Option<u64>,
    /// In order of index.
    late: Vec<Slot>,
    /// No earlier than this does one of them become readable.
    due: Millis,
    walk: Walk,
}

impl Pending {
    /// Brings it up to `now`, and gives the index of the first record that has not happened yet.
    pub fn advance(&mut self, history: &History, now: Millis) -> u64 {
        let happened = history.first_at(now + 1, &mut self.walk);
        let from = match self.seen {
            Some(seen) => seen,
            None => history.first_at(now - history.late_max(), &mut self.walk),
        };
        for index in from..happened {
            if history.lateness(index) > 0 {
                let slot = history.slot(index, &mut self.walk);
                self.due = self.due.min(slot.readable_at);
                self.late.push(slot);
            }
        }
        self.seen = Some(happened.max(from));
        // Most requests find nothing due, and then look at none of them.
        if self.due <= now {
            self.late.retain(|slot| slot.readable_at > now);
            self.due = self.late.iter().map(|slot| slot.readable_at).min().unwrap_or(Millis::MAX);
        }
        happened
    }

    /// The indices in `range` that are not readable.
    fn within(&self, range: &Range<u64>) -> Vec<u64> {
        let from = self.late.partition_point(|slot| slot.index < range.start);
        let to = self.late.partition_point(|slot| slot.index < range.end);
        self.late[from..to.max(from)].iter().map(|slot| slot.index).collect()
    }
}

/// The records without a time that have happened, kept up as time goes on.
#[derive(Debug, Default)]
pub struct Timeless {
    /// The first index that has not been looked at.
    next: u64,
    found: Vec<Slot>,
    walk: Walk,
}

impl Timeless {
    /// Brings it up to `now`. The first time it looks at all of a history.
    pub fn advance(&mut self, history: &History, now: Millis, has_none: impl Fn(&Slot) -> bool) {
        let first = self.next.max(history.first_at(0, &mut self.walk));
        let happened = history.first_at(now + 1, &mut self.walk);
        for index in first..happened {
            let slot = history.slot(index, &mut self.walk);
            if has_none(&slot) {
                self.found.push(slot);
            }
        }
        self.next = self.next.max(happened);
    }

    /// The indices of those that are readable.
    pub fn readable(&self, now: Millis) -> impl Iterator<Item = u64> {
        self.found.iter().filter(move |slot| slot.readable_at <= now).map(|slot| slot.index)
    }
}

/// The readable records that a request is about, in order of index.
#[derive(Debug)]
pub enum Rows {
    /// All of a range but a few.
    Range {
        /// First to last, the hidden ones too.
        range: Range<u64>,
        /// The indices that are not readable, ascending.
        hidden: Vec<u64>,
    },
    /// These, ascending.
    Chosen(Vec<u64>),
}

impl Rows {
    /// What is readable at `now` of the times in `bounds`: both ends belong to it, unless `exclusive`.
    pub fn readable(
        history: &History,
        pending: &mut Pending,
        now: Millis,
        bounds: (Option<Millis>, Option<Millis>),
        exclusive: bool,
    ) -> Self {
        let happened = pending.advance(history, now);
        let (from, to) = bounds;
        let from = from.unwrap_or(0).saturating_add(Millis::from(exclusive));
        let to = to.unwrap_or(Millis::MAX).saturating_add(Millis::from(!exclusive));
        let end = history.first_with_time(to, &mut pending.walk).min(happened);
        let start = history.first_with_time(from, &mut pending.walk).min(end);
        let hidden = pending.within(&(start..end));
        Self::Range { range: start..end, hidden }
    }

    /// Those of them that `wanted` is true for. Looks at each: the API's filters cost what the range holds.
    #[must_use]
    pub fn filter(self, history: &History, wanted: impl Fn(&Slot) -> bool) -> Self {
        let mut walk = Walk::default();
        let chosen =
            (0..self.len()).map(|rank| self.nth(rank)).filter(|index| wanted(&history.slot(*index, &mut walk)));
        Self::Chosen(chosen.collect())
    }

    /// These and `more`.
    #[must_use]
    pub fn and(self, more: impl Iterator<Item = u64>) -> Self {
        let all: BTreeSet<u64> = (0..self.len()).map(|rank| self.nth(rank)).chain(more).collect();
        Self::Chosen(all.into_iter().collect())
    }

    /// The newest `count` of them.
    #[must_use]
    pub fn newest(self, count: u64) -> Self {
        let total = self.len();
        Self::Chosen((total.saturating_sub(count)..total).map(|rank| self.nth(rank)).collect())
    }

    /// The oldest `count` of them.
    #[must_use]
    pub fn oldest(self, count: u64) -> Self {
        Self::Chosen((0..self.len().min(count)).map(|rank| self.nth(rank)).collect())
    }

    /// How many.
    #[must_use]
    pub fn len(&self) -> u64 {
        match self {
            Self::Range { range, hidden } => range.end - range.start - hidden.len() as u64,
            Self::Chosen(indices) => indices.len() as u64,
        }
    }

    /// The index of the `rank`-th, counted from 0 at the oldest; `rank` is less than [`Rows::len`].
    fn nth(&self, rank: u64) -> u64 {
        match self {
            Self::Range { range, hidden } => {
                // The k-th hidden record lies before the wanted one as long as fewer than `rank` + 1 readable
                // ones lie before it.
                let (mut low, mut high) = (0, hidden.len());
                while low < high {
                    let middle = usize::midpoint(low, high);
                    if hidden[middle] - range.start - middle as u64 > rank {
                        high = middle;
                    } else {
                        low = middle + 1;
                    }
                }
                range.start + rank + low as u64
            }
            Self::Chosen(indices) => indices[usize::try_from(rank).unwrap_or(usize::MAX)],
        }
    }

    /// The index at `offset` in the API's order, before equal times are shuffled.
    #[must_use]
    pub fn at(&self, offset: u64, order: Order) -> Option<u64> {
        let total = self.len();
        (offset < total).then(|| match order {
            Order::Oldest => self.nth(offset),
            Order::Newest => self.nth(total - 1 - offset),
        })
    }

    /// Up to `limit` records from `offset` on. With `shuffle`, records of equal time stand in an order that it
    /// decides.
    #[must_use]
    pub fn page(&self, history: &History, offset: u64, limit: u64, order: Order, shuffle: Option<u64>) -> Vec<Slot> {
        let total = self.len();
        let (first, past) = (offset.min(total), offset.saturating_add(limit).min(total));
        let ranks = match order {
            Order::Oldest => first..past,
            Order::Newest => total - past..total - first,
        };
        let mut walk = Walk::default();
        let mut slot = |rank| history.slot(self.nth(rank), &mut walk);
        let mut slots: Vec<Slot> = ranks.clone().map(&mut slot).collect();
        if let (Some(by), Some(oldest), Some(newest)) = (shuffle, slots.first().copied(), slots.last().copied()) {
            // Whoever has the time of the first or last record might be on this page in its place.
            let before: Vec<Slot> =
                (0..ranks.start).rev().map(&mut slot).take_while(|slot| slot.time == oldest.time).collect();
            let after = (ranks.end..total).map(&mut slot).take_while(|slot| slot.time == newest.time);
            slots.extend(after);
            slots.splice(0..0, before.iter().rev().copied());
            slots.sort_unstable_by_key(|slot| (slot.time, mix(by, slot.index)));
            let skip = before.len();
            slots = slots.drain(skip..skip + usize::try_from(ranks.end - ranks.start).unwrap_or(0)).collect();
        }
        if order == Order::Newest {
            slots.reverse();
        }
        slots
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::simulate::options::Options;

    const START: Millis = 1_700_000_000_000;

    fn history(unit: Millis) -> History {
        let options = Options { rate: 100.0, twin_share: 0.1, late_share: 0.2, burst: 90, ..Options::default() };
        History::new(&options, 1, unit, START)
    }

    /// The readable records between the bounds, found by looking at each one.
    fn walked(history: &History, now: Millis, from: Millis, to: Millis) -> Vec<u64> {
        let mut walk = Walk::default();
        let first = history.first_at(START - 3_600_000, &mut walk);
        let all = (first..first + 400_000).map(|index| history.slot(index, &mut walk));
        all.take_while(|slot| slot.at <= now)
            .filter(|slot| slot.readable_at <= now && (from..=to).contains(&slot.time))
            .map(|slot| slot.index)
            .collect()
    }

    #[test]
    fn totals_and_pages_equal_what_a_walk_finds_as_time_goes_on() {
        for unit in [1, 1000] {
            let history = history(unit);
            let mut pending = Pending::default();
            for now in [START, START + 7, START + 4_321, START + 60_000] {
                for (from, to) in [(now - 90_000, now), (now - 20_000, now - 3_000), (now, now), (now + 5, now + 9)] {
                    let rows = Rows::readable(&history, &mut pending, now, (Some(from), Some(to)), false);
                    let expected = walked(&history, now, from, to);
                    assert_eq!(rows.len(), expected.len() as u64, "unit {unit} {}", now - START);
                    let mut listed = Vec::new();
                    for offset in (0..rows.len()).step_by(50) {
                        listed
                            .extend(rows.page(&history, offset, 50, Order::Oldest, None).iter().map(|slot| slot.index));
                    }
                    assert_eq!(listed, expected);
                }
            }
        }
    }

    #[test]
    fn newest_first_is_the_same_backwards() {
        let history = history(1);
        let mut pending = Pending::default();
        let rows = Rows::readable(&history, &mut pending, START, (Some(START - 10_000), None), false);
        let mut newest = rows.page(&history, 0, 2_000, Order::Newest, None);
        newest.reverse();
        assert_eq!(newest, rows.page(&history, 0, 2_000, Order::Oldest, None));
        assert_eq!(rows.at(0, Order::Newest), newest.last().map(|slot| slot.index));
    }

    #[test]
    fn shuffling_moves_only_records_of_equal_time() {
        let history = history(1000);
        let mut pending = Pending::default();
        let rows = Rows::readable(&history, &mut pending, START, (Some(START - 10_000), None), false);
        for order in [Order::Oldest, Order::Newest] {
            let plain = rows.page(&history, 120, 50, order, None);
            let (one, other) =
                (rows.page(&history, 120, 50, order, Some(1)), rows.page(&history, 120, 50, order, Some(2)));
            assert!(one != other && one != plain);
            let times = |page: &[Slot]| page.iter().map(|slot| slot.time).collect::<Vec<_>>();
            assert_eq!(times(&one), times(&plain));
        }
        // One shuffle is one order: its pages list each record once.
        let mut all: Vec<u64> = (0..rows.len())
            .step_by(50)
            .flat_map(|offset| rows.page(&history, offset, 50, Order::Newest, Some(7)))
            .map(|slot| slot.index)
            .collect();
        all.sort_unstable();
        assert_eq!(all, (0..rows.len()).map(|rank| rows.nth(rank)).collect::<Vec<_>>());
    }

    #[test]
    fn exclusive_bounds_leave_out_what_equals_them() {
        let history = history(1000);
        let mut pending = Pending::default();
        let second = START - 60_000;
        let mut count = |from, to, exclusive| {
            Rows::readable(&history, &mut pending, START, (Some(from), Some(to)), exclusive).len()
        };
        assert_eq!(count(second, second, true), 0);
        assert!(count(second, second, false) > 50);
        assert_eq!(count(second - 1000, second + 1000, true), count(second, second, false));
    }

    #[test]
    fn a_filter_keeps_the_order() {
        let history = history(1);
        let mut pending = Pending::default();
        let rows = Rows::readable(&history, &mut pending, START, (Some(START - 10_000), None), false);
        let even = rows.filter(&history, |slot| slot.index % 2 == 0);
        let page = even.page(&history, 3, 10, Order::Oldest, None);
        assert!(page.iter().all(|slot| slot.index % 2 == 0) && page.is_sorted_by_key(|slot| slot.index));
    }
}
