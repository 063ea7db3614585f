//! When the next request may be sent. Pure.

use std::time::{Duration, Instant};

use crate::retry::LONGEST_RETRY_AFTER;

/// How far a throttling server can slow us down, as a part of the configured rate.
pub(super) const SLOWEST: f64 = 1.0 / 16.0;
/// What each success gives back, as a part of the configured rate.
const RECOVERY: f64 = 1.0 / 20.0;
/// A request that takes so long may be one of many that hang: what is old can do so while what is new is answered.
pub(super) const SLOW: Duration = Duration::from_secs(5);
/// Since then, for so many times as long as it took, one place in flight is kept for the live pass.
pub(super) const KEPT: u32 = 4;

/// When the next request may be sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Ready {
    Now,
    At(Instant),
    /// As soon as one in flight comes back.
    WhenReturned,
}

/// The rules, without waiting: a token bucket of about one second's worth, a bound in flight, and a rate that
/// halves when throttled and grows by equal steps after.
#[derive(Debug)]
pub(super) struct Pace {
    configured: f64,
    pub(super) rate: f64,
    /// Requests that may be sent at `counted`.
    pub(super) tokens: f64,
    counted: Instant,
    paused_until: Option<Instant>,
    slowed: Option<Instant>,
    pub(super) in_flight: u32,
    most_in_flight: u32,
    /// Until when one place in flight is the live pass's alone.
    kept_until: Option<Instant>,
}

impl Pace {
    pub(super) fn new(rate: f64, in_flight: u32, now: Instant) -> Self {
        // Slower makes waits that no clock can count.
        let rate = rate.max(0.001);
        Self {
            configured: rate,
            rate,
            tokens: rate.max(1.0),
            counted: now,
            paused_until: None,
            slowed: None,
            in_flight: 0,
            most_in_flight: in_flight.max(1),
            kept_until: None,
        }
    }

    pub(super) fn ready(&mut self, now: Instant, is_live: bool) -> Ready {
        self.refill(now);
        let kept = u32::from(!is_live && self.keeps_a_place(now));
        if self.in_flight >= self.most_in_flight - kept {
            return Ready::WhenReturned;
        }
        let from = self.paused_until.map_or(now, |until| until.max(now));
        let missing = 1.0 - self.tokens;
        match (missing > 0.0, from > now) {
            (false, false) => Ready::Now,
            (false, true) => Ready::At(from),
            // A nanosecond more than computed: rounding must not end the wait just too early.
            (true, _) => Ready::At(from + Duration::from_secs_f64(missing / self.rate) + Duration::from_nanos(1)),
        }
    }

    /// Whether one place in flight is the live pass's alone.
    pub(super) fn keeps_a_place(&self, now: Instant) -> bool {
        self.most_in_flight > 1 && self.kept_until.is_some_and(|until| now < until)
    }

    /// To be called when [`Ready::Now`].
    pub(super) fn take(&mut self, now: Instant) {
        self.refill(now);
        self.tokens -= 1.0;
        self.in_flight += 1;
    }

    pub(super) fn give_back(&mut self, now: Instant, sent: Instant) {
        self.in_flight -= 1;
        let took = now.saturating_duration_since(sent);
        if took >= SLOW {
            self.kept_until = self.kept_until.max(Some(now + took.min(LONGEST_RETRY_AFTER) * KEPT));
        }
    }

    pub(super) fn succeeded(&mut self, now: Instant) {
        self.refill(now);
        self.rate = (self.rate + self.configured * RECOVERY).min(self.configured);
    }

    pub(super) fn throttled(&mut self, now: Instant, sent: Instant, retry_after: Option<Duration>) {
        self.refill(now);
        // The requests in flight together are told together: that is one refusal, not many.
        if self.slowed.is_none_or(|slowed| sent > slowed) {
            self.rate = (self.rate / 2.0).max(self.configured * SLOWEST);
            self.slowed = Some(now);
        }
        self.tokens = 0.0;
        if let Some(asked) = retry_after {
            let until = now + asked.min(LONGEST_RETRY_AFTER);
            self.paused_until = Some(self.paused_until.map_or(until, |old| old.max(until)));
            // One may go as soon as the pause ends, to see; all others come at the new rate.
            self.tokens = 1.0;
        }
    }

    fn refill(&mut self, now: Instant) {
        // Nothing is saved up during a pause: everyone would come back at once.
        let from = self.paused_until.map_or(self.counted, |until| self.counted.max(until));
        let passed = now.saturating_duration_since(from).as_secs_f64();
        self.tokens = (self.tokens + passed * self.rate).min(self.rate.max(1.0));
        self.counted = self.counted.max(now);
    }
}
