//! Which records of a part are delivered and which are refused, found out by sending: the search, one request at a time.
//!
//! Pure: it says what to send next and takes the answer, and is told the time. What is refused together is sent again in
//! halves, down to one record. Halves whose first is good are not sent whole a second time: then the bad one is in the
//! second. What fails for any other reason is tried again, and after some tries it is less at once ([`Pace`]). What fails
//! alone lets all others pass; when it is given up is decided in [`verdict`](super::verdict).
//!
//! Where nothing passes, nothing is given up and little is sent: one request a try, the witness if there is one, else one
//! event, from both ends.
//!
//! Good records may be sent again on the way, with the same bytes; a receiver that keeps both has two with one id.

use std::ops::Range;
use std::time::Duration;

use bytes::Bytes;

use super::answer::{Answer, OtlpError};
use super::pace::Pace;
use super::plan::{Group, Record};
use super::request::size;
use super::verdict::{Case, Failure, SPREAD};
use crate::dead_letter::{DeadLetterReason, Refused};
use crate::event::Millis;
use crate::metrics::SinkReason;

/// So often a request is tried before it is suspected of being too much at once.
const TRIES: u32 = 3;
/// So many records that fail alone, one after the other, and it is suspected that nothing passes.
const FEW: u32 = 3;
/// A receiver that has contradicted itself is doubted for so long.
const DOUBT: Duration = Duration::from_secs(3600);

/// What a search keeps to.
#[derive(Debug, Clone, Copy)]
pub(super) struct Rules {
    /// Requests have at most so many bytes, unless one record has more.
    pub(super) largest: usize,
    /// And so many records.
    pub(super) most: usize,
    pub(super) request_timeout: Duration,
    pub(super) give_up_after: Duration,
    /// An event from before this is old: whoever says so needs no witness.
    pub(super) old: Millis,
}

/// What is known of a receiver, from this part and others.
#[derive(Debug, Clone)]
pub(super) struct Known {
    pub(super) pace: Pace,
    /// It has contradicted itself; since the time that `now` counts from.
    doubted_until: Duration,
    /// A request with one record that it took.
    witness: Option<Bytes>,
}

impl Known {
    pub(super) const fn new(most: usize) -> Self {
        Self { pace: Pace::new(most), doubted_until: Duration::ZERO, witness: None }
    }

    /// What another part has found out since.
    pub(super) fn learn(&mut self, other: &Self) {
        let doubted_until = self.doubted_until.max(other.doubted_until);
        let witness = other.witness.clone().or(self.witness.take());
        *self = Self { pace: other.pace.clone(), doubted_until, witness };
    }
}

/// What to do next.
#[derive(Debug, PartialEq)]
pub(super) enum Turn {
    /// To send this, and take the answer.
    Send(Bytes),
    /// To wait, for as long as it says.
    Wait(OtlpError),
    /// Nothing: all is known.
    Done,
}

/// Some records of a group, to be sent in one request.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Item {
    group: usize,
    range: Range<usize>,
    /// What comes next is its other half, and one of them is bad.
    first_half: bool,
    /// One of its records is bad, so there is no use in sending it whole.
    bad: bool,
    /// How often it failed without a verdict.
    tries: u32,
}

/// What was sent and is to be answered.
#[derive(Debug)]
enum Asked {
    Item(Item),
    Case(usize),
    /// For all cases that have failed since the last; `probe`: for none, but to see whether anything passes.
    Witness {
        of: Option<usize>,
        probe: bool,
    },
}

/// See the module.
#[derive(Debug)]
pub(super) struct Search {
    rules: Rules,
    pub(super) known: Known,
    groups: Vec<Group>,
    /// Of each group, a small record that was taken.
    witnesses: Vec<Option<usize>>,
    /// The last is next.
    work: Vec<Item>,
    cases: Vec<Case>,
    asked: Option<Asked>,
    asked_at: Duration,
    /// Records that failed alone since anything passed.
    alone: u32,
    refused: Vec<Refused>,
    /// Refused by the live stream because it has moved on.
    behind: Vec<Record>,
}

impl Search {
    pub(super) fn new(groups: Vec<Group>, refused: Vec<Refused>, rules: Rules, known: Known) -> Self {
        let mut search = Self {
            rules,
            known,
            groups: Vec::new(),
            witnesses: Vec::new(),
            work: Vec::new(),
            cases: Vec::new(),
            asked: None,
            asked_at: Duration::ZERO,
            alone: 0,
            refused,
            behind: Vec::new(),
        };
        search.add(groups);
        search
    }

    /// More to send, after all else.
    pub(super) fn add(&mut self, groups: Vec<Group>) {
        for group in groups {
            let range = 0..group.records.len();
            let item = Item { group: self.groups.len(), range, first_half: false, bad: false, tries: 0 };
            self.work.insert(0, item);
            self.groups.push(group);
            self.witnesses.push(None);
        }
    }

    /// What to do next. What was sent and never answered is sent again.
    pub(super) fn next(&mut self, now: Duration) -> Turn {
        if let Some(Asked::Item(item)) = self.asked.take() {
            self.work.push(item);
        }
        if self.alone >= FEW {
            return self.probe(now);
        }
        while let Some(item) = self.work.pop() {
            if item.range.is_empty() {
                continue;
            }
            if item.bad && item.range.len() > 1 {
                self.split(&item, true);
                continue;
            }
            let fits = self.fits(&item);
            if fits == item.range.len() {
                return self.ask(Asked::Item(item), now);
            }
            // What is cut for its size's sake says nothing of halves any more.
            let middle = item.range.start + fits;
            let cut = |range| Item { range, first_half: false, ..item.clone() };
            let (first, rest) = (cut(item.range.start..middle), cut(middle..item.range.end));
            self.work.push(rest);
            return self.ask(Asked::Item(first), now);
        }
        self.next_case(now)
    }

    fn next_case(&mut self, now: Duration) -> Turn {
        let due = |case: &Case| case.due.is_some_and(|due| due <= now);
        if let Some(first) =
            (0..self.cases.len()).filter(|at| due(&self.cases[*at])).min_by_key(|at| self.cases[*at].due)
        {
            return self.ask(Asked::Case(first), now);
        }
        if let Some(of) = self.cases.iter().position(|case| case.due.is_none()) {
            return match self.witness(Some(of)) {
                Some(_) => self.ask(Asked::Witness { of: Some(of), probe: false }, now),
                None => {
                    self.cases.iter_mut().filter(|case| case.due.is_none()).for_each(|case| case.due = Some(now));
                    self.ask(Asked::Case(of), now)
                }
            };
        }
        let Some(next) = self.cases.iter().min_by_key(|case| case.due) else { return Turn::Done };
        let message = format!(
            "{} of its events fail alone while others pass, and are tried until it is sure that it is they: {}",
            self.cases.len(),
            next.message
        );
        let retry_after = next.due.map(|due| due.saturating_sub(now));
        // It waits as long as this says, and no longer.
        Turn::Wait(OtlpError { retry_after, progressed: true, ..OtlpError::new(next.error, message) })
    }

    /// Where nothing passed: whether anything does now.
    fn probe(&mut self, now: Duration) -> Turn {
        if self.witness(None).is_some() {
            return self.ask(Asked::Witness { of: None, probe: true }, now);
        }
        let Some(last) = self.work.iter().position(|item| !item.range.is_empty()) else { return self.next_case(now) };
        self.work.iter_mut().for_each(|item| item.first_half = false);
        let item = &mut self.work[last];
        // The newest: an older one may be too old for it.
        item.range.end -= 1;
        item.bad = false;
        let range = item.range.end..item.range.end + 1;
        let one = Item { range, ..item.clone() };
        self.ask(Asked::Item(one), now)
    }

    fn ask(&mut self, asked: Asked, now: Duration) -> Turn {
        let request = match &asked {
            Asked::Item(Item { group, range, .. }) => self.request(*group, range.clone()),
            Asked::Case(at) => self.request(self.cases[*at].group, self.cases[*at].place..self.cases[*at].place + 1),
            Asked::Witness { of, .. } => self.witness(*of).unwrap_or_default(),
        };
        (self.asked, self.asked_at) = (Some(asked), now);
        Turn::Send(request)
    }

    fn request(&self, group: usize, range: Range<usize>) -> Bytes {
        let group = &self.groups[group];
        group.frame.request(group.records[range].iter().map(|record| record.bytes.as_slice()))
    }

    /// A request that was taken before: of the case's own group, if there is one.
    fn witness(&self, case: Option<usize>) -> Option<Bytes> {
        let own = case.map(|at| self.cases[at].group).filter(|group| self.witnesses[*group].is_some());
        let group = own.or_else(|| (0..self.groups.len()).rev().find(|group| self.witnesses[*group].is_some()));
        match group {
            Some(group) => self.witnesses[group].map(|place| self.request(group, place..place + 1)),
            None => self.known.witness.clone(),
        }
    }

    /// How many of an item's records, from its first, go into one request.
    fn fits(&self, item: &Item) -> usize {
        let group = &self.groups[item.group];
        let most = self.known.pace.limit().min(self.rules.most).min(item.range.len());
        let mut bytes = group.frame.overhead();
        let fits = |record: &&Record| {
            bytes += size(record.bytes.len());
            bytes <= self.rules.largest
        };
        group.records[item.range.clone()][..most].iter().take_while(fits).count().max(1)
    }

    /// Takes the answer to what [`Search::next`] gave.
    ///
    /// # Errors
    /// To go on later.
    pub(super) fn answered(&mut self, answer: Answer, now: Duration) -> Result<(), OtlpError> {
        let slowly = now.saturating_sub(self.asked_at) > self.rules.request_timeout;
        match self.asked.take() {
            None => Ok(()),
            Some(Asked::Witness { of, probe }) => self.witnessed(of, probe, answer, now),
            Some(Asked::Case(at)) => self.case_answered(at, answer, now, slowly),
            Some(Asked::Item(item)) if item.range.len() == 1 => self.one_answered(item, answer, now, slowly),
            Some(Asked::Item(item)) => self.many_answered(item, answer, now, slowly),
        }
    }

    fn many_answered(&mut self, mut item: Item, answer: Answer, now: Duration, slowly: bool) -> Result<(), OtlpError> {
        let count = item.range.len();
        match sort(answer, count) {
            Sorted::Delivered => {
                self.passed(item.group, item.range, slowly);
                if let Some(other) = self.work.last_mut().filter(|_| item.first_half) {
                    other.bad = true;
                }
            }
            Sorted::Dropped(message) => self.refuse(item.group, item.range, DeadLetterReason::Dropped, &message),
            Sorted::No { contradicts, .. } => {
                self.known.pace.refused(count);
                if contradicts {
                    self.doubt(now);
                }
                self.split(&item, true);
            }
            Sorted::TooLarge(_) => self.split(&item, false),
            Sorted::Later(error) => {
                let unanswered = error.reason == SinkReason::Timeout;
                item.tries += 1;
                let shrinks = unanswered || item.tries >= TRIES || self.known.pace.is_attempt(count);
                if shrinks {
                    self.known.pace.shrink(count, unanswered);
                    item.tries = TRIES - 1;
                }
                self.work.push(item);
                return Err(OtlpError { progressed: shrinks, ..error });
            }
        }
        Ok(())
    }

    fn one_answered(&mut self, mut item: Item, answer: Answer, now: Duration, slowly: bool) -> Result<(), OtlpError> {
        let (group, place) = (item.group, item.range.start);
        match sort(answer, 1) {
            Sorted::Delivered => {
                if item.bad {
                    // Refused beside those that passed, and taken alone.
                    self.doubt(now);
                }
                self.passed(group, item.range, slowly);
                if let Some(other) = self.work.last_mut().filter(|_| item.first_half) {
                    other.bad = true;
                }
            }
            Sorted::Dropped(message) => self.refuse(group, item.range, DeadLetterReason::Dropped, &message),
            Sorted::Later(error) => {
                let unanswered = error.reason == SinkReason::Timeout;
                item.tries += 1;
                if !unanswered && item.tries < TRIES {
                    self.work.push(item);
                    return Err(error);
                }
                self.known.pace.shrink(1, unanswered);
                self.alone += 1;
                // All others go first, whether or not anything has passed: what is next must not be the same event.
                let mut case = Case::new(group, place, now);
                case.failed(later(&error));
                self.cases.push(case);
                return Err(error);
            }
            sorted => {
                let Some(failure) = self.named(group, place, sorted, now) else { return Ok(()) };
                let mut case = Case::new(group, place, now);
                let message = failure.message.clone();
                case.failed(failure);
                case.due = None;
                self.cases.push(case);
                self.alone += 1;
                if self.alone >= FEW {
                    return Err(nothing_passes(&message));
                }
            }
        }
        Ok(())
    }

    /// A verdict on one record that is not believed at once.
    fn named(&mut self, group: usize, place: usize, sorted: Sorted, now: Duration) -> Option<Failure> {
        let (reason, message) = match sorted {
            Sorted::No { reason, message, behind, contradicts } => {
                if behind && self.groups[group].live {
                    self.behind.push(self.groups[group].records[place].clone());
                    return None;
                }
                if contradicts {
                    self.doubt(now);
                }
                (reason, message)
            }
            Sorted::TooLarge(message) => (DeadLetterReason::TooLarge, message),
            Sorted::Delivered | Sorted::Dropped(_) | Sorted::Later(_) => return None,
        };
        if reason == DeadLetterReason::TooOld && self.groups[group].records[place].time < self.rules.old {
            self.refuse(group, place..place + 1, reason, &message);
            return None;
        }
        Some(Failure { reason, error: SinkReason::Refused, message, named: true })
    }

    /// An event that failed alone before was sent alone again.
    fn case_answered(&mut self, at: usize, answer: Answer, now: Duration, slowly: bool) -> Result<(), OtlpError> {
        let (group, place) = (self.cases[at].group, self.cases[at].place);
        let failure = match sort(answer, 1) {
            Sorted::Delivered => {
                if self.cases.remove(at).named {
                    self.doubt(now);
                }
                self.passed(group, place..place + 1, slowly);
                return Ok(());
            }
            Sorted::Dropped(message) => {
                self.cases.remove(at);
                self.refuse(group, place..place + 1, DeadLetterReason::Dropped, &message);
                return Ok(());
            }
            Sorted::Later(error) => later(&error),
            sorted => match self.named(group, place, sorted, now) {
                Some(failure) => failure,
                None => {
                    self.cases.remove(at);
                    return Ok(());
                }
            },
        };
        let message = failure.message.clone();
        self.cases[at].failed(failure);
        if self.witness(Some(at)).is_some() {
            // Right after, not after a wait, in which a load may pass.
            self.cases[at].due = None;
            return Ok(());
        }
        self.cases[at].due = Some(now);
        self.alone = self.alone.max(FEW);
        Err(nothing_passes(&message))
    }

    /// Takes the answer to a witness: what it says of the cases that have failed before it.
    fn witnessed(&mut self, of: Option<usize>, probe: bool, answer: Answer, now: Duration) -> Result<(), OtlpError> {
        let pause = self.rules.give_up_after / SPREAD;
        let error = match sort(answer, 1) {
            Sorted::Delivered => {
                self.alone = 0;
                let doubted = self.is_doubted(now);
                for case in self.cases.iter_mut().filter(|case| case.due.is_none()) {
                    if !probe {
                        case.witnessed(true);
                    }
                    case.due = Some(if probe || case.is_quick(doubted) { now } else { now + pause });
                }
                self.judge(doubted);
                return Ok(());
            }
            // It passes no longer for a reason of its own, and says nothing of others.
            Sorted::No { reason: DeadLetterReason::TooOld, .. } => {
                self.forget_witness(of);
                self.cases.iter_mut().filter(|case| case.due.is_none()).for_each(|case| case.due = Some(now));
                return Ok(());
            }
            Sorted::Later(error) => error,
            Sorted::No { message, .. } | Sorted::TooLarge(message) | Sorted::Dropped(message) => {
                // What it took before it refuses now.
                self.doubt(now);
                nothing_passes(&message)
            }
        };
        for case in self.cases.iter_mut().filter(|case| case.due.is_none()) {
            case.witnessed(false);
            case.due = Some(now + pause);
        }
        Err(error)
    }

    /// Gives up what is proven.
    fn judge(&mut self, doubted: bool) {
        let proven: Vec<Case> = self.cases.extract_if(.., |case| case.is_proven(doubted)).collect();
        for Case { group, place, reason, message, .. } in proven {
            self.refuse(group, place..place + 1, reason, &message);
        }
    }

    fn forget_witness(&mut self, case: Option<usize>) {
        let own = case.map(|at| self.cases[at].group).filter(|group| self.witnesses[*group].is_some());
        match own.or_else(|| (0..self.groups.len()).rev().find(|group| self.witnesses[*group].is_some())) {
            Some(group) => self.witnesses[group] = None,
            None => self.known.witness = None,
        }
    }

    /// These were taken. Of them, the smallest will do as a witness.
    fn passed(&mut self, group: usize, range: Range<usize>, slowly: bool) {
        self.alone = 0;
        self.known.pace.passed(range.len(), slowly);
        self.work.iter_mut().for_each(|item| item.tries = 0);
        let records = &self.groups[group].records;
        if let Some(smallest) = range.min_by_key(|place| records[*place].bytes.len()) {
            self.witnesses[group] = Some(smallest);
            self.known.witness = Some(self.request(group, smallest..smallest + 1));
        }
    }

    /// It has contradicted itself.
    fn doubt(&mut self, now: Duration) {
        self.known.doubted_until = now + DOUBT;
        self.known.pace.settle();
    }

    fn is_doubted(&self, now: Duration) -> bool {
        now < self.known.doubted_until
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
        let half = |range, first_half| Item { group: item.group, range, first_half, bad: false, tries: item.tries };
        self.work.push(half(middle..item.range.end, false));
        self.work.push(half(item.range.start..middle, bad));
    }

    fn refuse(&mut self, group: usize, range: Range<usize>, reason: DeadLetterReason, message: &str) {
        let refused = |record: &Record| Refused { index: record.index, reason, message: message.to_owned() };
        self.refused.extend(self.groups[group].records[range].iter().map(refused));
    }
}

/// An answer, by what is done with it.
enum Sorted {
    Delivered,
    Dropped(String),
    No { reason: DeadLetterReason, message: String, behind: bool, contradicts: bool },
    TooLarge(String),
    Later(OtlpError),
}

/// Of a request with `count` records.
fn sort(answer: Answer, count: usize) -> Sorted {
    match answer {
        Answer::Delivered => Sorted::Delivered,
        Answer::Dropped { message } => Sorted::Dropped(message),
        Answer::TooLarge { message } => Sorted::TooLarge(message),
        Answer::Later(error) => Sorted::Later(error),
        Answer::Mute => Sorted::Later(OtlpError::new(SinkReason::Refused, "a success without a word or a type")),
        Answer::Refused { reason, message, behind } => {
            Sorted::No { reason, message, behind: behind && reason == DeadLetterReason::TooOld, contradicts: false }
        }
        Answer::Partial { rejected, message } => {
            let contradicts = rejected > count as u64;
            Sorted::No { reason: DeadLetterReason::Rejected, message, behind: false, contradicts }
        }
    }
}

/// What failed without a verdict, should it be given up after all.
fn later(error: &OtlpError) -> Failure {
    let reason = match error.reason {
        // More than it ever takes at once.
        SinkReason::Throttled => DeadLetterReason::TooLarge,
        _ => DeadLetterReason::Rejected,
    };
    Failure { reason, error: error.reason, message: error.message.clone(), named: false }
}

fn nothing_passes(said: &str) -> OtlpError {
    let message = format!("it takes none of the events, each alone neither, so none is given up: {said}");
    OtlpError::new(SinkReason::Refused, message)
}

#[cfg(test)]
#[path = "search_tests.rs"]
mod tests;
