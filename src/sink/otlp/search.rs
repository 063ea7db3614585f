//! Which records of a part are delivered and which are refused, found out by sending: the search, one request at a time.
//!
//! Pure: it says what to send next and takes the answer. What is refused together is sent again in halves, down to one
//! record; only what is refused alone, or is said to be refused altogether, is refused. Halves whose first is good are
//! not sent whole a second time: then the bad one is in the second.
//!
//! A bad record among N costs at most 1 + 2·log2(N) requests, n bad ones at most 1 + 2n·(1 + log2(N ÷ n)), and whatever is
//! bad, at most 2N − 1. Good ones may be sent again on the way, with the same bytes; a receiver that keeps both has two
//! with one id.
//!
//! What is throttled is tried again, and halved in case it is more than is ever taken at once. A record that is throttled
//! even when it is alone lets all others pass, and is refused for good only when that is proven: it is throttled
//! [`ALONE_TRIES`] times in a row, while its lane sends nothing else, and one that was delivered before, the witness, passes
//! right after that. Where there is none, nothing tells it from a receiver that takes nothing at all, and it waits for much
//! longer.

use std::ops::Range;

use super::answer::{Answer, OtlpError};
use super::plan::{Group, Record};
use super::request::size;
use crate::dead_letter::{DeadLetterReason, Refused};
use crate::metrics::SinkReason;

/// So often a request is tried before it is suspected of being more at once than the receiver will ever take.
const THROTTLED_TRIES: u32 = 3;
/// So often a record that is alone is tried before it is suspected of the same: with a lane's waits, over half a minute
/// on average, in which the receiver's allowance fills up.
const ALONE_TRIES: u32 = 8;
/// So often if no other record of the part has ever passed: an hour.
const UNPROVEN_TRIES: u32 = 240;

/// Some records of a group, to be sent in one request.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Item {
    group: usize,
    range: Range<usize>,
    /// What comes next is its other half, and one of them is bad.
    first_half: bool,
    /// One of its records is bad, so there is no use in sending it whole.
    bad: bool,
    /// How often it was asked to wait for.
    throttled: u32,
    /// It was delivered before, and is sent once more to see whether anything passes.
    witness: bool,
}

/// See the module.
#[derive(Debug)]
pub(super) struct Search {
    groups: Vec<Group>,
    /// The last is next.
    work: Vec<Item>,
    refused: Vec<Refused>,
    /// Refused by the live stream because it has moved on.
    behind: Vec<Record>,
    largest: usize,
    most: usize,
    throttled: bool,
    /// A small record that was delivered.
    witness: Option<Item>,
    /// What was said of the record that a witness is sent for.
    said: String,
}

impl Search {
    /// Requests have at most `largest` bytes, unless one record has more, and `most` records.
    pub(super) fn new(groups: Vec<Group>, refused: Vec<Refused>, largest: usize, most: usize) -> Self {
        let mut search = Self {
            groups: Vec::new(),
            work: Vec::new(),
            refused,
            behind: Vec::new(),
            largest,
            most,
            throttled: false,
            witness: None,
            said: String::new(),
        };
        search.add(groups);
        search
    }

    /// More to send, after all else.
    pub(super) fn add(&mut self, groups: Vec<Group>) {
        let mut items = Vec::new();
        for group in groups {
            let mut start = 0;
            let mut bytes = group.frame.overhead();
            for (n, record) in group.records.iter().enumerate() {
                let more = size(record.bytes.len());
                if n > start && (bytes + more > self.largest || n - start == self.most) {
                    items.push(self.item(start..n));
                    (start, bytes) = (n, group.frame.overhead());
                }
                bytes += more;
            }
            items.push(self.item(start..group.records.len()));
            self.groups.push(group);
        }
        items.reverse();
        items.append(&mut self.work);
        self.work = items;
    }

    fn item(&self, range: Range<usize>) -> Item {
        Item { group: self.groups.len(), range, first_half: false, bad: false, throttled: 0, witness: false }
    }

    /// The next request, or nothing if all is known.
    pub(super) fn next(&mut self) -> Option<bytes::Bytes> {
        loop {
            let item = self.work.last()?;
            if item.range.len() == 1 || !item.bad && self.bytes(item) <= self.largest {
                break;
            }
            let item = self.work.pop()?;
            self.split(&item, item.bad);
        }
        let Item { group, range, .. } = self.work.last()?;
        let group = &self.groups[*group];
        Some(group.frame.request(group.records[range.clone()].iter().map(|record| record.bytes.as_slice())))
    }

    /// The bytes of its request, or a few more.
    fn bytes(&self, item: &Item) -> usize {
        let group = &self.groups[item.group];
        let records = &group.records[item.range.clone()];
        group.frame.overhead() + records.iter().map(|record| size(record.bytes.len())).sum::<usize>()
    }

    /// What requests may have, if that was found to be less than was said: they were throttled until they were smaller.
    pub(super) fn found_largest(&self) -> Option<usize> {
        self.throttled.then_some(self.largest)
    }

    /// Takes the answer to what [`Search::next`] gave.
    ///
    /// # Errors
    /// It is to be sent again, later.
    pub(super) fn answered(&mut self, answer: Answer) -> Result<(), OtlpError> {
        let Some(item) = self.work.pop() else { return Ok(()) };
        if item.witness {
            return self.witnessed(item, answer);
        }
        let count = item.range.len();
        match answer {
            Answer::Delivered => {
                self.call_witness(&item);
                if let Some(other) = self.work.last_mut().filter(|_| item.first_half) {
                    other.bad = true;
                }
                self.work.iter_mut().for_each(|item| item.throttled = 0);
            }
            Answer::Partial { rejected, message } if rejected >= count as u64 => {
                self.refuse(&item, DeadLetterReason::Rejected, &message);
            }
            Answer::Refused { .. } | Answer::Partial { .. } if count > 1 => self.split(&item, true),
            Answer::Refused { reason, behind: true, .. }
                if reason == DeadLetterReason::TooOld && self.groups[item.group].live =>
            {
                self.behind.extend_from_slice(&self.groups[item.group].records[item.range]);
            }
            Answer::Refused { reason, message, .. } => self.refuse(&item, reason, &message),
            Answer::Partial { message, .. } => self.refuse(&item, DeadLetterReason::Rejected, &message),
            Answer::TooLarge { .. } if count > 1 => self.split(&item, false),
            Answer::TooLarge { message } => self.refuse(&item, DeadLetterReason::TooLarge, &message),
            Answer::Dropped { message } => self.refuse(&item, DeadLetterReason::Dropped, &message),
            Answer::Later(error) => {
                let throttled = item.throttled + u32::from(error.reason == SinkReason::Throttled);
                let item = Item { throttled, ..item };
                self.throttled |= throttled > 0;
                if throttled >= THROTTLED_TRIES && count > 1 {
                    // A half is suspected at once, and so are all others of its size: what is asked to wait for the
                    // rate's sake alone passes sooner or later.
                    self.largest =
                        self.largest.min(self.bytes(&item).div_ceil(2) + self.groups[item.group].frame.overhead());
                    self.split(&item, false);
                } else if throttled >= THROTTLED_TRIES && error.reason == SinkReason::Throttled {
                    return if self.throttled_alone(item, &error.message) { Ok(()) } else { Err(error) };
                } else {
                    self.work.push(item);
                }
                return Err(error);
            }
        }
        Ok(())
    }

    /// Takes a record that is throttled even when it is alone; whether to go on at once.
    fn throttled_alone(&mut self, item: Item, message: &str) -> bool {
        match &self.witness {
            // Not after a wait, in which the load may pass.
            Some(witness) if item.throttled >= ALONE_TRIES => {
                message.clone_into(&mut self.said);
                let witness = witness.clone();
                self.work.extend([item, witness]);
                return true;
            }
            None if item.throttled >= UNPROVEN_TRIES => {
                self.refuse(&item, DeadLetterReason::TooLarge, message);
                return true;
            }
            // All others go first, so it is no longer what stands before its other half.
            _ if item.throttled.is_multiple_of(THROTTLED_TRIES) => {
                self.work.insert(0, Item { first_half: false, ..item });
            }
            _ => self.work.push(item),
        }
        false
    }

    /// Of what was delivered, the smallest there is will do.
    fn call_witness(&mut self, delivered: &Item) {
        let start = delivered.range.start;
        let one = Item { range: start..start + 1, witness: true, first_half: false, bad: false, ..*delivered };
        if self.witness.as_ref().is_none_or(|witness| self.bytes(&one) < self.bytes(witness)) {
            self.witness = Some(one);
        }
    }

    /// Takes the answer to a witness: what it is for is next.
    fn witnessed(&mut self, witness: Item, answer: Answer) -> Result<(), OtlpError> {
        let Some(mut suspect) = self.work.pop() else { return Ok(()) };
        match answer {
            Answer::Delivered => {
                let said = std::mem::take(&mut self.said);
                self.refuse(&suspect, DeadLetterReason::TooLarge, &said);
                return Ok(());
            }
            // Nothing passes now: it may be the load.
            Answer::Later(error) if error.reason == SinkReason::Throttled => {
                suspect.throttled = 0;
                self.work.push(suspect);
                return Err(error);
            }
            Answer::Later(error) => {
                self.work.extend([suspect, witness]);
                return Err(error);
            }
            // It passes no longer for a reason of its own, and says nothing of others.
            _ => self.witness = None,
        }
        self.work.push(suspect);
        Ok(())
    }

    /// What the live stream refused as too far behind its newest, each record once.
    pub(super) fn take_behind(&mut self) -> Vec<Record> {
        std::mem::take(&mut self.behind)
    }

    /// What is refused for good, once there is nothing left to send.
    pub(super) fn into_refused(mut self) -> Vec<Refused> {
        self.refused.sort_by_key(|refused| refused.index);
        self.refused
    }

    /// In two halves, the earlier first. `bad`: at least one of the records is.
    fn split(&mut self, item: &Item, bad: bool) {
        let middle = item.range.start + item.range.len() / 2;
        let throttled = item.throttled.min(THROTTLED_TRIES - 1);
        let half =
            |range, first_half| Item { group: item.group, range, first_half, bad: false, throttled, witness: false };
        self.work.push(half(middle..item.range.end, false));
        self.work.push(half(item.range.start..middle, bad));
    }

    fn refuse(&mut self, item: &Item, reason: DeadLetterReason, message: &str) {
        let records = &self.groups[item.group].records[item.range.clone()];
        let refused = |record: &Record| Refused { index: record.index, reason, message: message.to_owned() };
        self.refused.extend(records.iter().map(refused));
    }
}

#[cfg(test)]
#[path = "search_tests.rs"]
mod tests;
