//! What of a part is still to be sent: runs of records, the next one last.
//!
//! Pure.

use std::ops::Range;

/// Some records of a group, to be sent in one request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Item {
    pub(super) group: usize,
    pub(super) range: Range<usize>,
    /// What comes next is its other half, and one of them is bad.
    first_half: bool,
    /// One of its records is bad, so there is no use in sending it whole.
    pub(super) bad: bool,
    /// How often it failed without a verdict.
    pub(super) tries: u32,
}

/// See the module.
#[derive(Debug, Default)]
pub(super) struct Work {
    items: Vec<Item>,
}

impl Work {
    /// A group of so many records, after all else.
    pub(super) fn add(&mut self, group: usize, count: usize) {
        self.items.insert(0, Item { group, range: 0..count, first_half: false, bad: false, tries: 0 });
    }

    /// What is next, taken out.
    pub(super) fn next(&mut self) -> Option<Item> {
        while let Some(item) = self.items.pop() {
            match item.range.len() {
                0 => {}
                1 => return Some(item),
                _ if item.bad => self.split(&item, true),
                _ => return Some(item),
            }
        }
        None
    }

    /// To be sent again, before all else.
    pub(super) fn again(&mut self, item: Item) {
        self.items.push(item);
    }

    /// The first `count` of an item, its rest being next. What is cut for its size's sake says nothing of halves any more.
    pub(super) fn cut(&mut self, item: Item, count: usize) -> Item {
        let middle = item.range.start + count;
        let rest = Item { range: middle..item.range.end, first_half: false, ..item };
        let first = Item { range: item.range.start..middle, ..rest.clone() };
        self.items.push(rest);
        first
    }

    /// In two halves, the earlier first. `bad`: at least one of the records is.
    pub(super) fn split(&mut self, item: &Item, bad: bool) {
        let middle = item.range.start + item.range.len() / 2;
        let half = |range, first_half| Item { group: item.group, range, first_half, bad: false, tries: item.tries };
        self.items.push(half(middle..item.range.end, false));
        self.items.push(half(item.range.start..middle, bad));
    }

    /// An item has passed: if it was the first half of what is bad, the other is.
    pub(super) fn passed(&mut self, item: &Item) {
        if let Some(other) = self.items.last_mut().filter(|_| item.first_half) {
            other.bad = true;
        }
    }

    /// Something has passed: what failed without a verdict is as if it had not.
    pub(super) fn forget_tries(&mut self) {
        self.items.iter_mut().for_each(|item| item.tries = 0);
    }

    /// How many records there are.
    pub(super) fn len(&self) -> usize {
        self.items.iter().map(|item| item.range.len()).sum()
    }

    /// The group and place of the record that is sent after `at` others.
    pub(super) fn place(&self, mut at: usize) -> Option<(usize, usize)> {
        for item in self.items.iter().rev() {
            match item.range.len() {
                count if at < count => return Some((item.group, item.range.start + at)),
                count => at -= count,
            }
        }
        None
    }

    /// Takes one record out, wherever it is. Nothing is known of halves after that.
    pub(super) fn take(&mut self, group: usize, place: usize) {
        self.items.iter_mut().for_each(|item| item.first_half = false);
        let Some(at) = self.items.iter().position(|item| item.group == group && item.range.contains(&place)) else {
            return;
        };
        let item = &self.items[at];
        let part = |range| Item { range, bad: false, ..item.clone() };
        let parts = [part(place + 1..item.range.end), part(item.range.start..place)];
        self.items.splice(at..=at, parts.into_iter().filter(|part| !part.range.is_empty()));
    }
}
