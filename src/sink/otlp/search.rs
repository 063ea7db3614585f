//! Which records of a part are delivered and which are refused, found out by sending: the search, one request at a time.
//!
//! Pure: it says what to send next and takes the answer, and is told the time. What is refused together is sent again in
//! halves, down to one record. Halves whose first is good are not sent whole a second time: then the bad one is in the
//! second. What fails for any other reason is tried again, and after some tries it is less at once ([`pace`](super::pace)). What fails
//! alone lets all others pass; when it is given up is decided in [`verdict`](super::verdict).
//!
//! Where a few have failed alone and nothing has passed since, it may be that nothing does. Then nothing is given up and
//! little is sent, a few requests a try at most: the witness and, in turn, one event from here and there, since the bad
//! ones may stand together, and a receiver may refuse what it has already.
//!
//! Good records may be sent again on the way, with the same bytes; a receiver that keeps both has two with one id.

use std::ops::Range;
use std::time::Duration;

use bytes::Bytes;

use super::answer::{Answer, OtlpError};
use super::known::{Known, Own};
use super::plan::{Group, Record};
use super::request::size;
use super::verdict::{Case, Failure, GOLDEN, SPREAD};
use super::work::{Item, Work};
use crate::dead_letter::{DeadLetterReason, Refused};
use crate::event::Millis;
use crate::metrics::SinkReason;

/// So often a request is tried before it is suspected of being too much at once.
const TRIES: u32 = 3;
/// So many records that fail alone, one after the other, and it is suspected that nothing passes.
const FEW: u32 = 3;
/// So many failures after something has passed, and it may be that nothing does any more: the next waits are longer.
const MANY: u32 = 16;

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

/// What was sent and is to be answered.
#[derive(Debug)]
enum Asked {
    Item(Item),
    /// One of what is still to be sent, where nothing passed.
    Probe {
        group: usize,
        place: usize,
    },
    /// A case, once more in a row or not.
    Case {
        at: usize,
        again: bool,
    },
    /// For all cases that have failed since the last, if any; the case whose group it is of.
    Witness(Option<usize>),
}

/// See the module.
#[derive(Debug)]
pub(super) struct Search {
    rules: Rules,
    /// Of the receiver.
    pub(super) known: Known,
    /// Of the stream.
    pub(super) own: Own,
    groups: Vec<Group>,
    /// Of each group, a small record that was taken.
    witnesses: Vec<Option<usize>>,
    work: Work,
    cases: Vec<Case>,
    /// A case that is asked about before all else: once more in a row.
    again: Option<usize>,
    asked: Option<Asked>,
    asked_at: Duration,
    /// Records that failed alone since anything passed.
    alone: u32,
    /// Failures without a verdict since anything passed; none while nothing has.
    failures: Option<u32>,
    /// How often it was looked whether anything passes, since anything did.
    probes: usize,
    /// Something has become known since the last error.
    progressed: bool,
    refused: Vec<Refused>,
    /// Refused by the live stream because it has moved on.
    behind: Vec<Record>,
}

impl Search {
    pub(super) fn new(groups: Vec<Group>, refused: Vec<Refused>, rules: Rules, known: Known, own: Own) -> Self {
        let mut search = Self {
            rules,
            known,
            own,
            groups: Vec::new(),
            witnesses: Vec::new(),
            work: Work::default(),
            cases: Vec::new(),
            again: None,
            asked: None,
            asked_at: Duration::ZERO,
            alone: 0,
            failures: None,
            probes: 0,
            progressed: false,
            refused,
            behind: Vec::new(),
        };
        search.add(groups);
        search
    }

    /// More to send, after all else.
    pub(super) fn add(&mut self, groups: Vec<Group>) {
        for group in groups {
            self.work.add(self.groups.len(), group.records.len());
            self.groups.push(group);
            self.witnesses.push(None);
        }
    }

    /// What to do next. What was sent and never answered is sent again.
    pub(super) fn next(&mut self, now: Duration) -> Turn {
        if let Some(Asked::Item(item)) = self.asked.take() {
            self.work.again(item);
        }
        if let Some(at) = self.again.take() {
            return self.ask(Asked::Case { at, again: true }, now);
        }
        if self.alone >= FEW {
            return self.probe(now);
        }
        // What is surely bad is asked about between others: that those pass says more than a witness that passed before.
        let doubted = self.is_doubted(now);
        if let Some(at) = self.due(now, |case| case.is_quick(doubted)) {
            return self.ask(Asked::Case { at, again: false }, now);
        }
        if let Some(item) = self.work.next() {
            // What is surely bad needs a few that pass after it: the last are sent one by one for its sake.
            let one = self.work.len() == 0 && self.cases.iter().any(|case| case.is_quick(doubted));
            let fits = if one { 1 } else { self.fits(&item) };
            let item = if fits < item.range.len() { self.work.cut(item, fits) } else { item };
            return self.ask(Asked::Item(item), now);
        }
        self.next_case(now)
    }

    fn next_case(&mut self, now: Duration) -> Turn {
        if let Some(at) = self.due(now, |_| true) {
            return self.ask(Asked::Case { at, again: false }, now);
        }
        if let Some(of) = self.pending() {
            if self.witness(Some(of)).is_some() {
                return self.ask(Asked::Witness(Some(of)), now);
            }
            self.ask_anew(now);
            return self.ask(Asked::Case { at: of, again: false }, now);
        }
        let Some(next) = self.cases.iter().min_by_key(|case| case.due) else { return Turn::Done };
        let message = format!(
            "{} of its events fail alone while others pass, and are tried until it is sure that it is they: {}",
            self.cases.len(),
            next.message
        );
        let retry_after = next.due.map(|due| due.saturating_sub(now));
        // It waits as long as this says, and no longer.
        Turn::Wait(OtlpError { retry_after, progressed: true, asks_on: true, ..OtlpError::new(next.error, message) })
    }

    /// Where nothing passed: whether anything does now.
    fn probe(&mut self, now: Duration) -> Turn {
        let (turn, pending, left) = (self.probes, self.pending(), self.work.len());
        self.probes += 1;
        let has_witness = self.witness(pending).is_some();
        // In turn with what is new, which who refuses what it has already takes.
        let turn_of_witness = has_witness && (left == 0 || !turn.is_multiple_of(2));
        if pending.is_some() && turn_of_witness {
            return self.ask(Asked::Witness(pending), now);
        }
        if pending.is_none() || left == 0 {
            self.ask_anew(now);
        }
        let mut due: Vec<usize> = (0..self.cases.len()).filter(|at| self.cases[*at].is_due(now)).collect();
        if has_witness && pending.is_none() && (turn_of_witness || due.len() + left == 0) {
            return self.ask(Asked::Witness(None), now);
        }
        if due.len() + left == 0 {
            due = (0..self.cases.len()).collect();
        }
        // Rather what was not asked about yet; the newest first: an older one may be too old for it.
        let of_cases = left == 0 || !due.is_empty() && turn % 4 == 2;
        let count = if of_cases { due.len() } else { left };
        let at = count.saturating_sub(1) - spread(turn, count);
        if of_cases {
            return due.get(at).map_or(Turn::Done, |at| self.ask(Asked::Case { at: *at, again: false }, now));
        }
        self.work.place(at).map_or(Turn::Done, |(group, place)| self.ask(Asked::Probe { group, place }, now))
    }

    fn ask(&mut self, asked: Asked, now: Duration) -> Turn {
        let request = match &asked {
            Asked::Item(Item { group, range, .. }) => self.request(*group, range.clone()),
            Asked::Probe { group, place } => self.request(*group, *place..*place + 1),
            Asked::Case { at, .. } => {
                self.request(self.cases[*at].group, self.cases[*at].place..self.cases[*at].place + 1)
            }
            Asked::Witness(of) => self.witness(*of).unwrap_or_default(),
        };
        (self.asked, self.asked_at) = (Some(asked), now);
        Turn::Send(request)
    }

    fn request(&self, group: usize, range: Range<usize>) -> Bytes {
        let group = &self.groups[group];
        group.frame.request(group.records[range].iter().map(|record| record.bytes.as_slice()))
    }

    /// The case of this kind that is due first.
    fn due(&self, now: Duration, is_wanted: impl Fn(&Case) -> bool) -> Option<usize> {
        let due = |at: &usize| self.cases[*at].is_due(now) && is_wanted(&self.cases[*at]);
        (0..self.cases.len()).filter(due).min_by_key(|at| self.cases[*at].due)
    }

    /// A case whose witness is waited for.
    fn pending(&self) -> Option<usize> {
        self.cases.iter().position(|case| case.due.is_none())
    }

    /// Where a witness would say nothing of them any more.
    fn ask_anew(&mut self, now: Duration) {
        self.cases.iter_mut().filter(|case| case.due.is_none()).for_each(|case| case.due = Some(now));
    }

    /// A request that was taken before: of the case's own group, if there is one, or else of its stream. Where none ever
    /// was, another stream's, once: it may be the stream that is refused.
    fn witness(&self, case: Option<usize>) -> Option<Bytes> {
        if let Some(group) = self.group_with_witness(case) {
            return self.witnesses[group].map(|place| self.request(group, place..place + 1));
        }
        let is_all = self.cases.len() == 1 && self.work.len() == 0;
        let borrowed = || self.known.witness.clone().filter(|_| is_all && !self.own.has_borrowed);
        self.own.witness.clone().or_else(borrowed)
    }

    /// The case's own, or else the last that has any.
    fn group_with_witness(&self, case: Option<usize>) -> Option<usize> {
        let own = case.map(|at| self.cases[at].group);
        own.into_iter().chain((0..self.groups.len()).rev()).find(|group| self.witnesses[*group].is_some())
    }

    /// Nothing of the stream has ever passed.
    fn borrows(&self) -> bool {
        self.own.witness.is_none() && self.group_with_witness(None).is_none()
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
        let result = match self.asked.take() {
            None => Ok(()),
            Some(Asked::Witness(of)) => self.witnessed(of, answer, now),
            Some(Asked::Probe { group, place }) => self.probe_answered(group, place, answer, now, slowly),
            Some(Asked::Case { at, again }) => self.case_answered(at, again, answer, now, slowly),
            Some(Asked::Item(item)) if item.range.len() == 1 => self.one_answered(item, answer, now, slowly),
            Some(Asked::Item(item)) => self.many_answered(item, answer, now, slowly),
        };
        result.map_err(|error| {
            // A witness after a wait says nothing of what failed before it.
            self.ask_anew(now);
            let progressed = std::mem::take(&mut self.progressed);
            let asks_on = error.asks_on || self.takes_some(&error);
            self.failures = self.failures.map(|failures| failures.saturating_add(1));
            OtlpError { progressed, asks_on: asks_on && self.work.len() > 0, ..error }
        })
    }

    /// Whether it is about some events rather than about the receiver: it has taken others a moment ago.
    fn takes_some(&self, error: &OtlpError) -> bool {
        error.reason != SinkReason::Throttled && self.failures.is_some_and(|failures| failures < MANY)
    }

    fn many_answered(&mut self, mut item: Item, answer: Answer, now: Duration, slowly: bool) -> Result<(), OtlpError> {
        let count = item.range.len();
        match sort(answer, count) {
            Sorted::Delivered => {
                self.work.passed(&item);
                self.passed(item.group, item.range, now, slowly);
            }
            Sorted::Dropped(message) => self.refuse(item.group, item.range, DeadLetterReason::Dropped, &message),
            Sorted::No { contradicts, .. } => {
                self.known.pace.refused(count);
                if contradicts {
                    self.known.doubt(now);
                }
                self.progressed = true;
                self.work.split(&item, true);
            }
            Sorted::TooLarge(_) => {
                self.progressed = true;
                self.work.split(&item, false);
            }
            Sorted::Later(error) => {
                let unanswered = error.reason == SinkReason::Timeout;
                item.tries += 1;
                let shrinks = unanswered || item.tries >= TRIES || self.known.pace.is_attempt(count);
                if shrinks {
                    self.known.pace.shrink(count, unanswered);
                    item.tries = TRIES - 1;
                    self.progressed = true;
                }
                self.work.again(item);
                return Err(error);
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
                    self.known.doubt(now);
                }
                self.work.passed(&item);
                self.passed(group, item.range, now, slowly);
                Ok(())
            }
            Sorted::Later(error) => {
                let unanswered = error.reason == SinkReason::Timeout;
                item.tries += 1;
                if !unanswered && item.tries < TRIES && !self.takes_some(&error) {
                    self.work.again(item);
                    return Err(error);
                }
                self.known.pace.shrink(1, unanswered);
                self.set_aside(group, place, later(&error), Some(now));
                Err(error)
            }
            sorted => self.failed_alone(group, place, sorted, now),
        }
    }

    /// One record that fails alone. All others go first, whether or not anything has passed: what is next must not be the
    /// same event. With no time at which it is `due` again, its witness is asked right after.
    fn set_aside(&mut self, group: usize, place: usize, failure: Failure, due: Option<Duration>) {
        self.cases.push(Case::new(group, place, failure, due));
        self.alone += 1;
    }

    /// Where nothing passed, one of what is still to be sent. Without a verdict it stays there, unless others have passed.
    fn probe_answered(
        &mut self,
        group: usize,
        place: usize,
        answer: Answer,
        now: Duration,
        slowly: bool,
    ) -> Result<(), OtlpError> {
        match sort(answer, 1) {
            Sorted::Later(error) if self.takes_some(&error) => {
                self.work.take(group, place);
                self.set_aside(group, place, later(&error), Some(now));
                Err(error)
            }
            Sorted::Later(error) => Err(error),
            Sorted::Delivered => {
                self.work.take(group, place);
                self.passed(group, place..place + 1, now, slowly);
                Ok(())
            }
            sorted => {
                self.work.take(group, place);
                self.failed_alone(group, place, sorted, now)
            }
        }
    }

    /// A verdict on one record that was not asked about alone before.
    fn failed_alone(&mut self, group: usize, place: usize, sorted: Sorted, now: Duration) -> Result<(), OtlpError> {
        let Some(failure) = self.named(group, place, sorted, now) else { return Ok(()) };
        let message = failure.message.clone();
        self.set_aside(group, place, failure, None);
        // Without any witness, a few are asked about in a row.
        if self.alone.is_multiple_of(FEW) && self.witness(self.pending()).is_none() {
            return Err(OtlpError { asks_on: true, ..nothing_passes(&message) });
        }
        Ok(())
    }

    /// A verdict on one record, unless it is believed at once.
    fn named(&mut self, group: usize, place: usize, sorted: Sorted, now: Duration) -> Option<Failure> {
        let (reason, message) = match sorted {
            Sorted::No { reason, message, behind, contradicts } => {
                if behind && self.groups[group].live {
                    self.behind.push(self.groups[group].records[place].clone());
                    self.progressed = true;
                    return None;
                }
                if contradicts {
                    self.known.doubt(now);
                }
                (reason, message)
            }
            Sorted::TooLarge(message) => (DeadLetterReason::TooLarge, message),
            Sorted::Dropped(message) => {
                self.refuse(group, place..place + 1, DeadLetterReason::Dropped, &message);
                return None;
            }
            Sorted::Delivered | Sorted::Later(_) => return None,
        };
        if reason == DeadLetterReason::TooOld && self.groups[group].records[place].time < self.rules.old {
            self.refuse(group, place..place + 1, reason, &message);
            return None;
        }
        Some(Failure { reason, error: SinkReason::Refused, message, named: true })
    }

    /// An event that failed alone before was sent alone again.
    fn case_answered(
        &mut self,
        at: usize,
        again: bool,
        answer: Answer,
        now: Duration,
        slowly: bool,
    ) -> Result<(), OtlpError> {
        let (group, place) = (self.cases[at].group, self.cases[at].place);
        let was_suspended = self.alone >= FEW && !again;
        let (failure, error) = match sort(answer, 1) {
            Sorted::Delivered => {
                if self.cases.remove(at).named {
                    self.known.doubt(now);
                }
                self.passed(group, place..place + 1, now, slowly);
                return Ok(());
            }
            Sorted::Later(error) => (later(&error), Some(error)),
            sorted => match self.named(group, place, sorted, now) {
                Some(failure) => (failure, None),
                None => {
                    self.cases.remove(at);
                    return Ok(());
                }
            },
        };
        let named = OtlpError { asks_on: true, ..nothing_passes(&failure.message) };
        self.cases[at].failed(failure);
        self.alone += u32::from(!again);
        if self.witness(Some(at)).is_none() {
            self.cases[at].due = Some(now);
            self.alone = self.alone.max(FEW);
            return Err(error.unwrap_or(named));
        }
        if let Some(error) = error.filter(|_| was_suspended) {
            self.cases[at].due = Some(now);
            return Err(error);
        }
        let doubted = self.is_doubted(now);
        if self.cases[at].is_asked_again(doubted) {
            self.again = Some(at);
            return Ok(());
        }
        // Its witness comes right after, not after a wait, in which a load may pass.
        self.cases[at].due = None;
        Ok(())
    }

    /// Takes the answer to a witness: what it says of the cases that have failed before it.
    fn witnessed(&mut self, of: Option<usize>, answer: Answer, now: Duration) -> Result<(), OtlpError> {
        let error = match sort(answer, 1) {
            Sorted::Delivered => {
                (self.alone, self.failures, self.probes) = (0, Some(0), 0);
                self.vouch(now);
                return Ok(());
            }
            // It passes no longer for a reason of its own, and says nothing of others.
            Sorted::No { reason: DeadLetterReason::TooOld, .. } => {
                self.forget_witness(of);
                self.ask_anew(now);
                return Ok(());
            }
            Sorted::Later(error) => error,
            Sorted::No { message, .. } | Sorted::TooLarge(message) | Sorted::Dropped(message) => {
                // What it took before it refuses now.
                self.known.doubt(now);
                nothing_passes(&message)
            }
        };
        // They are asked about once more as soon as anything passes: nothing was said of them.
        self.cases.iter_mut().filter(|case| case.due.is_none()).for_each(|case| case.witnessed(false));
        self.alone = self.alone.max(FEW);
        Err(error)
    }

    /// Something has passed right after these failed.
    fn vouch(&mut self, now: Duration) {
        let pause = self.rules.give_up_after / SPREAD;
        let doubted = self.is_doubted(now);
        for case in self.cases.iter_mut().filter(|case| case.due.is_none()) {
            case.witnessed(true);
            case.due = Some(if case.is_quick(doubted) { now } else { now + pause });
        }
        let borrows = self.borrows();
        let proven: Vec<Case> = self.cases.extract_if(.., |case| case.is_proven(doubted)).collect();
        for Case { group, place, reason, message, .. } in proven {
            self.own.has_borrowed |= borrows;
            self.refuse(group, place..place + 1, reason, &message);
        }
    }

    fn forget_witness(&mut self, case: Option<usize>) {
        match self.group_with_witness(case) {
            Some(group) => self.witnesses[group] = None,
            None if self.own.witness.is_some() => self.own.witness = None,
            None => self.known.witness = None,
        }
    }

    /// These were taken. Of them, the smallest will do as a witness.
    fn passed(&mut self, group: usize, range: Range<usize>, now: Duration, slowly: bool) {
        (self.alone, self.failures, self.probes, self.progressed) = (0, Some(0), 0, true);
        self.known.pace.passed(range.len(), slowly);
        self.work.forget_tries();
        let records = &self.groups[group].records;
        if let Some(smallest) = range.min_by_key(|place| records[*place].bytes.len()) {
            self.witnesses[group] = Some(smallest);
            let witness = Some(self.request(group, smallest..smallest + 1));
            self.own = Own { witness: witness.clone(), has_borrowed: false };
            self.known.witness = witness;
        }
        self.vouch(now);
    }

    /// Whether it needs more evidence than a few rounds.
    fn is_doubted(&self, now: Duration) -> bool {
        self.known.is_doubted(now) || self.borrows()
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

    fn refuse(&mut self, group: usize, range: Range<usize>, reason: DeadLetterReason, message: &str) {
        self.progressed = true;
        let refused =
            |record: &Record| Refused { index: record.index, reason, sent: true, message: message.to_owned() };
        self.refused.extend(self.groups[group].records[range].iter().map(refused));
    }
}

/// The place of the `n`th probe among `count`: each falls into the largest part that none has fallen into, by the golden
/// ratio.
fn spread(n: usize, count: usize) -> usize {
    #[expect(clippy::cast_possible_truncation, reason = "the part that counts")]
    let part = (n as u32).wrapping_mul(GOLDEN);
    ((u64::from(part) * count as u64) >> 32) as usize
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
