//! When an event is given up. A receiver that says no to one event alone may mean the event, or itself; what tells them
//! apart is the *witness*: an event of the same stream that it takes right after, one that it has not had yet or one that it
//! took before. Where nothing of the stream was ever taken, another stream's will do for one event, after the longer time:
//! it may be the stream that is refused.
//!
//! | what it says of the event alone | given up once |
//! | --- | --- |
//! | that it is wrong or too large, and it has never contradicted itself lately | it has said so [`QUICK`] times, and the witness passed after each |
//! | anything else: load, an error, no answer; or it has contradicted itself | the same, a [`SPREAD`]th of `give_up_after` apart, at least [`SPREAD`] times, and so often that chance does not explain it |
//! | that its time is too old, which it is | at once: that needs no witness |
//!
//! Receivers behind a balancer may answer in turn. So that an event does not always meet the one that refuses, and its witness
//! another, it is asked about several times in a row, another number of times each round.
//!
//! Chance: a receiver that fails the witness `m` times of `n` fails an event `k` times in a row with a chance of about
//! `(m / n)^k`; an event is given up only where that is below [`CHANCE`]. Where no witness passes, none is given up, for
//! however long.
//!
//! Pure.

use std::time::Duration;

use crate::dead_letter::DeadLetterReason;
use crate::metrics::SinkReason;

/// Rounds where the receiver names a fault of the event's and is consistent.
pub(super) const QUICK: u32 = 5;
/// Rounds otherwise, at least.
pub(super) const SPREAD: u32 = 8;
/// That a good event is given up by chance.
const CHANCE: f64 = 1e-7;

/// How often an event is asked about in a row, round after round, of a receiver that has never contradicted itself.
const IN_A_ROW: [u32; 8] = [1, 2, 1, 3, 5, 4, 1, 1];
/// And of another, at most.
const LONGEST_ROW: u32 = 5;

/// The golden ratio of 32 bits: its multiples fall everywhere, evenly.
pub(super) const GOLDEN: u32 = 0x9E37_79B9;

/// An event that fails alone.
#[derive(Debug, Clone)]
pub(super) struct Case {
    /// Its group and its place there.
    pub(super) group: usize,
    pub(super) place: usize,
    /// What it would be kept as.
    pub(super) reason: DeadLetterReason,
    /// What was said last.
    pub(super) error: SinkReason,
    pub(super) message: String,
    /// Whether all that was ever said names a fault of the event's.
    pub(super) named: bool,
    /// When it is tried again; none while its witness is waited for.
    pub(super) due: Option<Duration>,
    /// Rounds in which it failed and the witness passed, and those in which both failed.
    passed: u32,
    missed: u32,
    /// How often it has failed in this round.
    failed: u32,
}

impl Case {
    /// It has failed for the first time.
    pub(super) fn new(group: usize, place: usize, failure: Failure, due: Option<Duration>) -> Self {
        let Failure { reason, error, message, named } = failure;
        Self { group, place, reason, error, message, named, due, passed: 0, missed: 0, failed: 1 }
    }

    /// Whether it is to be tried again.
    pub(super) fn is_due(&self, now: Duration) -> bool {
        self.due.is_some_and(|due| due <= now)
    }

    /// It has failed again.
    pub(super) fn failed(&mut self, failure: Failure) {
        self.failed += 1;
        self.named &= failure.named;
        (self.reason, self.error, self.message) = (failure.reason, failure.error, failure.message);
    }

    /// Whether it is asked about once more before its witness.
    pub(super) fn is_asked_again(&self, doubted: bool) -> bool {
        // What is not answered costs the more time.
        let most = if self.error == SinkReason::Timeout { 2 } else { LONGEST_ROW };
        self.failed < self.in_a_row(doubted).min(most)
    }

    #[expect(clippy::cast_possible_truncation, reason = "as good as any number")]
    fn in_a_row(&self, doubted: bool) -> u32 {
        let round = self.passed + self.missed;
        if self.missed == 0 && !doubted {
            return IN_A_ROW[round as usize % IN_A_ROW.len()];
        }
        // Another number for each event and each round, or nodes that take turns could keep step.
        ((self.place as u32).wrapping_add(round).wrapping_mul(GOLDEN) >> 16).rem_euclid(LONGEST_ROW) + 1
    }

    /// What its witness said.
    pub(super) const fn witnessed(&mut self, passed: bool) {
        self.failed = 0;
        if passed { self.passed += 1 } else { self.missed += 1 }
    }

    /// Whether it is given up. `doubted`: the receiver has contradicted itself lately.
    pub(super) fn is_proven(&self, doubted: bool) -> bool {
        if self.is_quick(doubted) {
            return self.passed >= QUICK;
        }
        let fails = f64::from(self.missed + 1) / f64::from(self.passed + self.missed + 2);
        self.passed >= SPREAD && fails.powi(i32::try_from(self.passed).unwrap_or(i32::MAX)) < CHANCE
    }

    /// Whether its rounds follow each other at once.
    pub(super) const fn is_quick(&self, doubted: bool) -> bool {
        self.named && !doubted && self.missed == 0
    }
}

/// What was said of one event alone.
#[derive(Debug, Clone)]
pub(super) struct Failure {
    pub(super) reason: DeadLetterReason,
    pub(super) error: SinkReason,
    pub(super) message: String,
    /// It names a fault of the event's, and not of its moment.
    pub(super) named: bool,
}
