//! The rules of the server's clock, pure: each call says what time it is.

use super::Dated;
use crate::event::{Fingerprint, Millis};
use crate::window::Now;

/// Clocks that show another time are not believed, whoever's they are: 2000 to 2200.
const SANE: std::ops::Range<Millis> = 946_684_800_000..7_258_118_400_000;
/// A wall clock before this release was never set: 2025.
const SET: Millis = 1_735_689_600_000;
/// For how long all answers must agree on another time before it can become the established one.
pub(super) const AGREED_FOR: Millis = 30_000;
/// And how many, at least.
const AGREED_BY: u32 = 3;
/// The newest records but this many less one may say what they like.
pub(super) const WITNESSES: usize = 5;
/// Clocks this close agree well enough to bear each other out.
const NEAR: i64 = 2_000;
/// Clocks further apart than this are told of, and read beyond.
pub(super) const APART: i64 = 5_000;
/// How far behind the established clock records may be and bear it out, and how far behind them a `Date` must be to be
/// no evidence. More than the API's own times and those of its records are likely to differ.
const RECORDS_APART: i64 = 60_000;
/// How long a `Date` counts that is ahead of the established clock, and one that is behind: until the node that is
/// behind has surely answered again. Both count for some answers in any case, or a stream that is polled rarely would
/// forget between two.
const AHEAD_COUNTS: Millis = 60_000;
const BEHIND_COUNTS: Millis = 300_000;
const ANSWERS_COUNT: u64 = 8;
/// How far this machine's clock may be behind where nothing else says what time it is: zones are less than that apart.
const UNDATED_BEHIND: i64 = 86_400_000;
/// After so many refusals of what lies beyond, each amid answers, it is not asked for any more.
const REFUSALS: u32 = 3;
/// The most times that are kept beside the established one.
const CLAIMS: usize = 64;
/// What two clocks that are both right may drift apart, as a part of the time that passes.
const DRIFT: i64 = 1_000;

/// Clocks that contradict each other.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Doubt {
    /// More than one answer says so.
    pub lasts: bool,
    /// One line.
    pub message: String,
}

/// Differences between the server's clock and steady time that are possible, both ends included.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Interval {
    low: i64,
    high: i64,
}

impl Interval {
    /// The server wrote `date` somewhere in the second that it names, and between `sent` and `received`.
    pub(super) fn of(Dated { date, sent, received }: Dated) -> Self {
        Self { low: date.saturating_sub(received), high: date.saturating_add(1000).saturating_sub(sent) }
    }

    const fn point(at: i64) -> Self {
        Self { low: at, high: at }
    }

    /// What a wall clock that shows `at` may mean: it may be ahead by a second, as good ones are.
    const fn of_wall(at: i64) -> Self {
        Self { low: at.saturating_sub(1000), high: at }
    }

    fn meet(self, other: Self) -> Option<Self> {
        let both = Self { low: self.low.max(other.low), high: self.high.min(other.high) };
        (both.low <= both.high).then_some(both)
    }

    /// How far `other` is ahead of this (above 0) or behind (below); 0 where they meet.
    fn to(self, other: Self) -> i64 {
        if other.low > self.high {
            other.low.saturating_sub(self.high)
        } else if other.high < self.low {
            other.high.saturating_sub(self.low)
        } else {
            0
        }
    }

    fn is_near(self, other: Self) -> bool {
        self.to(other).saturating_abs() <= NEAR
    }

    pub(super) const fn middle(self) -> i64 {
        i64::midpoint(self.low, self.high)
    }
}

pub(super) fn is_sane(time: Millis) -> bool {
    SANE.contains(&time)
}

/// A time that answers claim and that contradicts the established one.
#[derive(Debug, Clone, Copy)]
struct Claim {
    interval: Interval,
    /// When the last answer said so, and how many have.
    last: Millis,
    answers: u32,
    /// Which of all answers was the last of them.
    number: u64,
}

/// Answers in a row without a `Date` that could be one.
#[derive(Debug, Clone, Copy)]
struct Undated {
    first: Millis,
    answers: u64,
}

/// Answers in a row that say about the same.
#[derive(Debug, Clone, Copy)]
struct Agreement {
    around: Interval,
    first: Millis,
    answers: u32,
}

/// See the module above. Times are steady times, differences are to them.
#[derive(Debug)]
pub(super) struct Estimate {
    established: Interval,
    /// When it became so.
    since: Millis,
    /// Whether it rests on anything.
    founded: bool,
    /// Whether an answer has ever agreed with it.
    is_answered: bool,
    /// What the last answers all say instead, if they do.
    agreement: Option<Agreement>,
    claims: Vec<Claim>,
    /// What the last answer said.
    last: Option<Interval>,
    /// The newest records' times, newest first, each with its record: one that is listed again is one witness.
    witnesses: Vec<(i64, Fingerprint)>,
    /// Answers whose `Date` no clock shows, and when the last of them came.
    insane: Option<(u32, Millis)>,
    /// What the last answers say nothing by, if they do.
    undated: Option<Undated>,
    /// How often an API that answers otherwise has refused what lies beyond, and whether it has answered since.
    refused_beyond: (u32, bool),
    /// All answers so far with a `Date`.
    answers: u64,
}

impl Estimate {
    /// Begins with the wall clock, `wall` ahead of steady time, at `now`.
    pub fn new(wall: i64, now: Millis) -> Self {
        let shown = now.saturating_add(wall);
        Self {
            established: Interval::of_wall(wall),
            since: now,
            founded: shown >= SET && is_sane(shown),
            is_answered: false,
            agreement: None,
            claims: Vec::new(),
            last: None,
            witnesses: Vec::new(),
            insane: None,
            undated: None,
            refused_beyond: (0, false),
            answers: 0,
        }
    }

    pub fn is_founded(&self) -> bool {
        self.founded
    }

    pub fn established(&self) -> i64 {
        self.established.low
    }

    pub fn now(&self, now: Millis) -> Now {
        let at = |ahead: i64| now.saturating_add(ahead);
        let mut sure = self.established.low;
        let (mut latest, mut claimed) = (sure, sure);
        let mut answers_ahead = 0;
        for claim in self.counting(now) {
            let Interval { low, high } = claim.interval;
            if high < self.established.low && !self.is_refuted(claim) {
                // What a few answers tell to a second only is left to later ones, where that is all that is at stake.
                let is_little = self.is_answered && self.established.is_near(claim.interval);
                sure = sure.min(if is_little { high } else { low });
            }
            if claim.interval.low > self.established.high {
                answers_ahead += claim.answers;
                claimed = claimed.max(claim.interval.low);
            }
        }
        if answers_ahead > 1 {
            latest = claimed;
        }
        let is_beyond_read = self.last.is_none() && self.refused_beyond.0 < REFUSALS;
        if let Some(undated) = self.undated.filter(|_| is_beyond_read) {
            // The wall clock alone says what time it is, and may be behind: what lies beyond is read all the same, as where
            // clocks contradict each other. It moves no mark.
            claimed = claimed.max(sure.saturating_add(UNDATED_BEHIND));
            latest = if undated.answers < ANSWERS_COUNT { latest } else { claimed };
        }
        Now { sure: at(sure), latest: at(latest), claimed: at(claimed) }
    }

    pub fn offset(&self, wall: i64) -> Option<i64> {
        Some(Interval::point(wall).to(self.last?))
    }

    pub fn doubt(&self, now: Millis) -> Option<Doubt> {
        // One node of several may have said so: it is not over because others answer.
        let until = |last: Millis, counts: Millis| {
            let (ago, counts) = (now.saturating_sub(last) / 1000, counts / 1000);
            format!("last said {ago} s ago, in doubt until all answers of {counts} s, and the last few, say otherwise")
        };
        if let Some((answers, last)) = self.insane.filter(|(_, last)| now - last <= AHEAD_COUNTS) {
            let until = until(last, AHEAD_COUNTS);
            let message = format!("the server's Date is of no year that a clock shows: not believed; {until}");
            return Some(Doubt { lasts: answers > 1, message });
        }
        let mut answers = 0;
        let mut furthest = 0_i64;
        let mut last = Millis::MIN;
        for claim in self.counting(now) {
            let apart = self.established.to(claim.interval);
            if apart.saturating_abs() > APART {
                answers += claim.answers;
                last = last.max(claim.last);
                furthest = if apart.saturating_abs() > furthest.saturating_abs() { apart } else { furthest };
            }
        }
        let (side, counts) = if furthest > 0 { ("ahead of", AHEAD_COUNTS) } else { ("behind", BEHIND_COUNTS) };
        let seconds = furthest.saturating_abs() / 1000;
        let until = until(last, counts);
        let message = format!(
            "the server's Date is {seconds} s {side} its clock as it was established and went on: \
             not believed without a witness, and nothing counts as read beyond the lower of the two; {until}"
        );
        if answers > 0 {
            return Some(Doubt { lasts: answers > 1, message });
        }
        self.silence(now)
    }

    /// Where no answer says what time it is, for so long that it is no accident.
    fn silence(&self, now: Millis) -> Option<Doubt> {
        let undated = self.undated.filter(|undated| undated.answers >= ANSWERS_COUNT)?;
        let seconds = now.saturating_sub(undated.first) / 1000;
        let message = if self.last.is_some() {
            // What was established goes on for a while without: it drifts by little.
            if now - undated.first < BEHIND_COUNTS {
                return None;
            }
            format!(
                "the server's answers have had no Date that can be read for {seconds} s: its clock goes on from what they said \
                 before by this machine's elapsed time alone"
            )
        } else {
            let behind = match self.borne_out().map(|newest| newest.saturating_sub(self.established.high)) {
                Some(newer) if newer > NEAR => format!(" (it is: records are {} s newer)", newer / 1000),
                _ => String::new(),
            };
            format!(
                "the server's answers have no Date that can be read: this machine's clock alone says what time it is. Where it \
                 is behind{behind}, what lies up to a day beyond is read all the same; where it is ahead, events come late, by \
                 a sweep, and what the oldest sweep does not reach is lost: set it right, and look whether a proxy takes the \
                 Date away"
            )
        };
        Some(Doubt { lasts: true, message: format!("{message}; in doubt until an answer has one") })
    }

    /// A record was listed whose time is `ahead` of steady time.
    pub fn witness(&mut self, record: Fingerprint, ahead: i64) {
        match self.witnesses.iter_mut().find(|(_, known)| *known == record) {
            Some((best, _)) => *best = ahead.max(*best),
            None => self.witnesses.push((ahead, record)),
        }
        self.witnesses.sort_unstable_by(|a, b| b.cmp(a));
        self.witnesses.truncate(WITNESSES);
    }

    /// An answer came without a `Date` that can be read.
    pub fn observe_undated(&mut self, now: Millis) {
        let undated = self.undated.get_or_insert(Undated { first: now, answers: 0 });
        undated.answers += 1;
        self.refused_beyond.1 = true;
    }

    /// A request for what lies before `to` was refused, as some APIs refuse all that has not been yet.
    pub fn observe_refusal(&mut self, to: Millis, now: Millis) {
        let (refusals, answered) = &mut self.refused_beyond;
        if *answered && to.saturating_sub(now.saturating_add(self.established.low)) > APART {
            (*refusals, *answered) = (refusals.saturating_add(1), false);
        }
    }

    /// An answer came, while the wall clock was `wall` ahead of steady time.
    pub fn observe(&mut self, dated: Dated, wall: i64) {
        let now = dated.received;
        self.answers += 1;
        let answers = self.answers;
        self.claims.retain(|claim| now - claim.last <= BEHIND_COUNTS || answers - claim.number <= ANSWERS_COUNT);
        if !is_sane(dated.date) {
            let answers = self.insane.filter(|(_, last)| now - last <= AHEAD_COUNTS).map_or(0, |(answers, _)| answers);
            self.insane = Some((answers.saturating_add(1), now));
            self.observe_undated(now);
            return;
        }
        let said = Interval::of(dated);
        (self.last, self.undated) = (Some(said), None);
        if !self.founded {
            (self.founded, self.established, self.since) = (true, said, now);
        }
        if let Some(both) = self.established.meet(said) {
            // From the first answer on the lower end is what answers say: a wall clock may be ahead of them by less than one
            // of them tells.
            self.established = if self.is_answered { both } else { Interval { low: said.low, ..both } };
            self.is_answered = true;
            self.agreement = None;
            return;
        }
        let claim = self.claim(said, now);
        self.settle(claim, wall, now);
    }

    /// Adds what an answer said to the claims.
    fn claim(&mut self, said: Interval, now: Millis) -> Claim {
        let number = self.answers;
        let known = self.claims.iter_mut().find_map(|claim| Some((claim.interval.meet(said)?, claim)));
        if let Some((both, claim)) = known {
            let answers = claim.answers.saturating_add(1);
            *claim = Claim { interval: both, last: now, answers, number };
            return *claim;
        }
        let claim = Claim { interval: said, last: now, answers: 1, number };
        if self.claims.len() >= CLAIMS {
            // The highest is the one that nothing is lost with.
            self.claims.sort_unstable_by_key(|claim| claim.interval.low);
            self.claims.pop();
        }
        self.claims.push(claim);
        claim
    }

    /// Takes on what the last answer claims, as far as all have said so for long enough and it is borne out.
    fn settle(&mut self, claim: Claim, wall: i64, now: Millis) {
        let agreement = match self.agreement.filter(|agreement| agreement.around.is_near(claim.interval)) {
            Some(agreement) => Agreement { answers: agreement.answers.saturating_add(1), ..agreement },
            None => Agreement { around: claim.interval, first: now, answers: 1 },
        };
        self.agreement = Some(agreement);
        if agreement.answers < AGREED_BY || now - agreement.first < AGREED_FOR {
            return;
        }
        let Interval { low, high } = claim.interval;
        let near_wall = |interval: Interval| Interval::point(wall).is_near(interval);
        let apart = self.established.to(claim.interval);
        if near_wall(claim.interval) {
            // Both say so, up to the lower of them.
            let low = low.min(wall);
            self.establish(Interval { low, high: high.min(wall).max(low) }, now);
        } else if apart < 0 && apart >= -NEAR.min((now - self.since) / DRIFT) && !near_wall(self.established) {
            self.establish(claim.interval, now);
        } else if high < self.established.low
            && self.borne_out().is_some_and(|newest| (low - RECORDS_APART..=high + NEAR).contains(&newest))
        {
            // Records come up to what all answers say, and none is beyond: this machine's clock was ahead.
            self.establish(claim.interval, now);
        } else if claim.interval.low > self.established.high
            && let Some(newest) = self.borne_out().filter(|newest| *newest > self.established.high)
        {
            // What records prove, and no more: the rest is still only said.
            self.establish(Interval::point(newest.min(high)), now);
        }
    }

    fn establish(&mut self, interval: Interval, now: Millis) {
        (self.established, self.since, self.agreement) = (interval, now, None);
        self.is_answered = true;
        self.claims.retain(|claim| claim.interval.meet(interval).is_none());
    }

    /// The time that so many records have reached that they are not all mistaken.
    fn borne_out(&self) -> Option<i64> {
        self.witnesses.get(WITNESSES - 1).map(|(ahead, _)| *ahead)
    }

    /// Whether records bear out the established clock and are far ahead of what `claim` says: they were listed, so they
    /// are not from the future.
    fn is_refuted(&self, claim: &Claim) -> bool {
        let Interval { low, high } = self.established;
        self.borne_out().is_some_and(|newest| {
            (low - RECORDS_APART..=high + NEAR).contains(&newest)
                && claim.interval.high.saturating_add(RECORDS_APART) < newest
        })
    }

    /// The claims that still count.
    fn counting(&self, now: Millis) -> impl Iterator<Item = &Claim> {
        self.claims.iter().filter(move |claim| {
            let counts = if claim.interval.low > self.established.high { AHEAD_COUNTS } else { BEHIND_COUNTS };
            now - claim.last <= counts || self.answers - claim.number <= ANSWERS_COUNT
        })
    }
}

#[cfg(test)]
#[path = "estimate_tests.rs"]
pub(super) mod tests;
