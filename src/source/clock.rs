//! What time it is at the server: an estimate with evidence. One answer never moves it.
//!
//! Elapsed time is this machine's [`steady`](clock::steady) time. All that is kept here are differences: the server's
//! clock minus steady time, in milliseconds. What the estimate is made of, and how far each is believed:
//!
//! | evidence | believed |
//! | --- | --- |
//! | this machine's wall clock at the start | until answers and a witness say otherwise; one that is not of our century never |
//! | the `Date` of an answer that the API itself gave | to a second and the request's duration. Behind what is established: at once, as the lowest time that counts. Ahead: when all answers say so for `AGREED_FOR` and a witness bears it out |
//! | no `Date` that can be read, from all answers | that the wall clock at the start is all there is, and may be behind by a day: told once `ANSWERS_COUNT` answers had none |
//! | the wall clock as it is later | as a witness alone: a machine that slept finds both clocks ahead |
//! | records | as a witness alone: none is from the future. The estimate rises to the time of the `WITNESSES`th newest, no further, and falls to what all answers say if they come up to that and not beyond; and a `Date` far behind them, where they bear out the estimate, is no evidence |
//!
//! So one wrong clock changes nothing, whichever it is and however long it is wrong: marks go by the lowest time that
//! is credible ([`Now::sure`]), and what may be readable beyond it is read all the same ([`Now::latest`]).

mod estimate;
#[cfg(test)]
mod lane_tests;

use std::sync::atomic::{AtomicI64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

use crate::clock;
use crate::event::{Fingerprint, Millis};
use crate::window::Now;

pub use estimate::Doubt;
use estimate::{Estimate, Interval};

/// No other difference is chosen for signing.
const AS_ESTIMATED: i64 = i64::MIN;

/// The server's clock, as far as its answers tell. Shared by all that ask the same server.
#[derive(Debug)]
pub struct ServerClock {
    estimate: Mutex<Estimate>,
    /// The server's clock minus steady time for dates of signatures, where it does not believe the estimate.
    signing: AtomicI64,
}

/// The `Date` of one answer, and when its request was sent and answered by steady time.
#[derive(Debug, Clone, Copy)]
pub(super) struct Dated {
    pub(super) date: Millis,
    pub(super) sent: Millis,
    pub(super) received: Millis,
}

/// When a reading began.
#[derive(Debug, Clone, Copy)]
pub struct Began {
    at: Millis,
    sure: i64,
}

impl ServerClock {
    /// Believes the local clock until answers contradict it.
    #[must_use]
    pub fn new() -> Self {
        Self {
            estimate: Mutex::new(Estimate::new(clock::now().saturating_sub(clock::steady()), clock::steady())),
            signing: AtomicI64::new(AS_ESTIMATED),
        }
    }

    /// The server's now.
    #[must_use]
    pub fn now(&self) -> Now {
        let steady = clock::steady();
        self.lock().now(steady)
    }

    /// Whether there is anything to go by yet: a wall clock that may be right, or an answer.
    #[must_use]
    pub fn is_founded(&self) -> bool {
        self.lock().is_founded()
    }

    /// The last answer's clock minus this machine's wall clock, in milliseconds: 0 where they agree as closely as an
    /// answer tells. `None` before the first answer.
    #[must_use]
    pub fn offset(&self) -> Option<i64> {
        let wall = clock::now().saturating_sub(clock::steady());
        self.lock().offset(wall)
    }

    /// The established clock minus steady time, in milliseconds: what lags are reckoned by.
    #[must_use]
    pub fn ahead_of_steady(&self) -> i64 {
        self.lock().established()
    }

    /// Whether clocks contradict each other, and how.
    #[must_use]
    pub fn doubt(&self) -> Option<Doubt> {
        let steady = clock::steady();
        self.lock().doubt(steady)
    }

    /// To be called before the first request of a reading.
    #[must_use]
    pub fn begin(&self) -> Began {
        let at = clock::steady();
        Began { at, sure: self.lock().now(at).sure.saturating_sub(at) }
    }

    /// The server's time when a reading began: the lowest that was credible then, and that the answers since allow.
    #[must_use]
    pub fn read_at(&self, began: Began) -> Millis {
        let now = clock::steady();
        let sure = self.lock().now(now).sure.saturating_sub(now);
        began.at.saturating_add(sure.min(began.sure))
    }

    /// Takes in records that were just listed: their times.
    pub fn listed(&self, records: impl Iterator<Item = (Fingerprint, Millis)>) {
        let steady = clock::steady();
        let mut estimate = self.lock();
        for (fingerprint, time) in records {
            estimate.witness(fingerprint, time.saturating_sub(steady));
        }
    }

    /// Takes in an answer that the API itself gave.
    pub(super) fn observe(&self, dated: Dated) {
        let wall = clock::now().saturating_sub(clock::steady());
        self.lock().observe(dated, wall);
    }

    /// Takes in one that has no `Date`, or none that can be read.
    pub(super) fn observe_undated(&self) {
        self.lock().observe_undated(clock::steady());
    }

    /// A request for what lies before `to` was refused.
    pub(super) fn observe_refusal(&self, to: Millis) {
        self.lock().observe_refusal(to, clock::steady());
    }

    /// The server's now for the date of a signature.
    pub(super) fn signing(&self) -> Millis {
        match self.signing.load(Ordering::Relaxed) {
            AS_ESTIMATED => clock::steady().saturating_add(self.ahead_of_steady()),
            ahead => clock::steady().saturating_add(ahead),
        }
    }

    /// The server refused a signature for its date, and answered with this one: the next are signed by it.
    pub(super) fn sign_as(&self, dated: Dated) {
        if estimate::is_sane(dated.date) {
            self.signing.store(Interval::of(dated).middle(), Ordering::Relaxed);
        }
    }

    /// Nothing under this lock panics half-way, so a poisoned one is as good as any.
    fn lock(&self) -> MutexGuard<'_, Estimate> {
        self.estimate.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Default for ServerClock {
    fn default() -> Self {
        Self::new()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HOUR: Millis = 3_600_000;

    fn dated(off: i64) -> Dated {
        let now = clock::steady();
        Dated { date: now + off, sent: now, received: now }
    }

    /// To a few seconds: a second that a `Date` leaves open, and what the test takes.
    fn is_about(a: i64, b: i64) -> bool {
        (a - b).abs() < 10_000
    }

    fn record(number: u8) -> (Fingerprint, Millis) {
        (Fingerprint([number; 16]), clock::steady())
    }

    #[test]
    fn it_begins_with_this_machines_clock() {
        let clock = ServerClock::new();
        assert!(clock.is_founded());
        assert_eq!((clock.offset(), clock.doubt()), (None, None));
        assert!(is_about(clock.now().sure, clock::now()) && is_about(clock.signing(), clock::now()));
        // It may be ahead by a second, and steady time began with it.
        assert!((-1_500..=-500).contains(&clock.ahead_of_steady()), "{}", clock.ahead_of_steady());
        let never_set = Mutex::new(Estimate::new(-clock::steady(), clock::steady()));
        assert!(!ServerClock { estimate: never_set, ..ServerClock::new() }.is_founded());
    }

    #[test]
    fn what_was_read_counts_up_to_the_lowest_time_that_was_said_since() {
        let clock = ServerClock::new();
        let began = clock.begin();
        assert!(is_about(clock.read_at(began), began.at));
        clock.observe(dated(-HOUR));
        assert!(is_about(clock.read_at(began), began.at - HOUR));
        assert!(is_about(clock.now().sure, clock::steady() - HOUR));
        assert!(clock.offset().is_some_and(|offset| is_about(offset, -HOUR)) && clock.doubt().is_some());
    }

    #[test]
    fn what_it_lists_bears_it_out() {
        let clock = ServerClock::new();
        clock.listed((0..6).map(record));
        clock.observe(dated(-HOUR));
        assert!(is_about(clock.now().sure, clock::steady()), "records are not from the future");
    }

    #[test]
    fn without_a_date_what_lies_beyond_is_read_until_it_is_refused() {
        let clock = ServerClock::new();
        let is_read_beyond = || clock.now().latest > clock.now().sure + HOUR;
        (0..8).for_each(|_| clock.observe_undated());
        assert!(is_read_beyond() && clock.doubt().is_some_and(|doubt| doubt.lasts));
        for _ in 0..3 {
            clock.observe_refusal(clock::steady() + HOUR);
            clock.observe_undated();
        }
        assert!(!is_read_beyond());
    }

    #[test]
    fn signatures_go_by_the_date_of_whoever_refused_one() {
        let clock = ServerClock::new();
        clock.sign_as(Dated { date: 0, ..dated(0) });
        assert!(is_about(clock.signing(), clock::steady()), "no clock shows that");
        clock.sign_as(dated(-HOUR));
        assert!(is_about(clock.signing(), clock::steady() - HOUR));
        let wide =
            Dated { date: clock::steady() + 4 * HOUR, sent: clock::steady() - 2 * HOUR, received: clock::steady() };
        clock.sign_as(wide);
        assert!(is_about(clock.signing(), clock::steady() + 5 * HOUR), "the middle of what is possible");
    }
}
