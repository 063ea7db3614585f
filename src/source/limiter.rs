//! One limiter per credential: requests a second and requests in flight, shared by all streams that use the
//! credential; slower after the server says so.
//!
//! No background task: whoever is first in line waits for its own turn and wakes the next.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use tokio::sync::Notify;

use crate::page::Priority;
use crate::retry::LONGEST_RETRY_AFTER;

/// How far a throttling server can slow us down, as a part of the configured rate.
const SLOWEST: f64 = 1.0 / 16.0;
/// What each success gives back, as a part of the configured rate.
const RECOVERY: f64 = 1.0 / 20.0;
/// A request that takes so long may be one of many that hang: what is old can do so while what is new is answered.
const SLOW: Duration = Duration::from_secs(5);
/// Since then, for so many times as long as it took, one place in flight is kept for the live pass.
const KEPT: u32 = 4;

/// A cheap handle: clones share one limit.
#[derive(Debug, Clone)]
pub struct Limiter(Arc<Mutex<State>>);

#[derive(Debug)]
struct State {
    pace: Pace,
    /// Who waits, in the order of service. The last number tells apart those that share a place.
    line: BTreeMap<(Priority, u64, u64), Arc<Notify>>,
    arrivals: u64,
}

/// A place in the line, kept for request after request. A window's pages keep the window's place: windows that are
/// read ahead are then finished one after the other and not all at once, and the first event comes soonest.
#[derive(Debug, Clone, Copy)]
pub struct Rank {
    priority: Priority,
    arrival: u64,
}

impl Rank {
    /// Whether it is the live pass's.
    #[must_use]
    pub fn is_live(self) -> bool {
        self.priority == Priority::Live
    }
}

impl Limiter {
    /// `rate` requests a second (above 0), `in_flight` at a time (at least 1).
    #[must_use]
    pub fn new(rate: f64, in_flight: u32) -> Self {
        let pace = Pace::new(rate, in_flight, now());
        Self(Arc::new(Mutex::new(State { pace, line: BTreeMap::new(), arrivals: 0 })))
    }

    /// The present rate, in requests a second: the configured one unless the server throttles.
    #[must_use]
    pub fn rate(&self) -> f64 {
        self.state().pace.rate
    }

    /// The next place in the line among those with `priority`.
    #[must_use]
    pub fn rank(&self, priority: Priority) -> Rank {
        let mut state = self.state();
        state.arrivals += 1;
        Rank { priority, arrival: state.arrivals }
    }

    /// Waits for a turn: live reads before sweeps before catch-up, first come first served within each.
    /// Dropping the future leaves the line.
    pub async fn acquire(&self, rank: Rank) -> Permit {
        let place = self.queue(rank);
        loop {
            let wait = {
                let mut state = self.state();
                if state.line.first_key_value().is_some_and(|(first, _)| *first == place.key) {
                    match state.pace.ready(now(), rank.is_live()) {
                        Ready::Now => {
                            state.pace.take(now());
                            drop(state);
                            // Dropping the place wakes the next in line.
                            return Permit { limiter: self.clone(), sent: now() };
                        }
                        Ready::At(instant) => Some(instant),
                        Ready::WhenReturned => None,
                    }
                } else {
                    None
                }
            };
            match wait {
                Some(instant) => tokio::select! {
                    () = tokio::time::sleep_until(instant.into()) => {}
                    () = place.turn.notified() => {}
                },
                None => place.turn.notified().await,
            }
        }
    }

    fn queue(&self, rank: Rank) -> Place<'_> {
        let mut state = self.state();
        state.arrivals += 1;
        let key = (rank.priority, rank.arrival, state.arrivals);
        let turn = Arc::new(Notify::new());
        state.line.insert(key, Arc::clone(&turn));
        Place { limiter: self, key, turn }
    }

    /// Nothing in here panics half-way, so a poisoned lock is as good as any.
    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn wake_first(&self) {
        if let Some(turn) = self.line.values().next() {
            turn.notify_one();
        }
    }
}

/// A place in the line, given back when dropped.
struct Place<'a> {
    limiter: &'a Limiter,
    key: (Priority, u64, u64),
    turn: Arc<Notify>,
}

impl Drop for Place<'_> {
    fn drop(&mut self) {
        let mut state = self.limiter.state();
        state.line.remove(&self.key);
        state.wake_first();
    }
}

/// Leave for one request; its place in flight is given back when dropped.
#[derive(Debug)]
pub struct Permit {
    limiter: Limiter,
    sent: Instant,
}

impl Permit {
    /// The request was answered well: back towards the configured rate.
    pub fn succeeded(self) {
        self.limiter.state().pace.succeeded(now());
    }

    /// The server asked to slow down: half the rate, and nobody sends until `retry_after` has passed (at most
    /// [`LONGEST_RETRY_AFTER`]).
    pub fn throttled(self, retry_after: Option<Duration>) {
        self.limiter.state().pace.throttled(now(), self.sent, retry_after);
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        let mut state = self.limiter.state();
        state.pace.give_back(now(), self.sent);
        state.wake_first();
    }
}

/// The runtime's clock, which tests can stop.
fn now() -> Instant {
    tokio::time::Instant::now().into_std()
}

/// When the next request may be sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Ready {
    Now,
    At(Instant),
    /// As soon as one in flight comes back.
    WhenReturned,
}

/// The rules, without waiting: a token bucket of about one second's worth, a bound in flight, and a rate that
/// halves when throttled and grows by equal steps after.
#[derive(Debug)]
struct Pace {
    configured: f64,
    rate: f64,
    /// Requests that may be sent at `counted`.
    tokens: f64,
    counted: Instant,
    paused_until: Option<Instant>,
    slowed: Option<Instant>,
    in_flight: u32,
    most_in_flight: u32,
    /// Until when one place in flight is the live pass's alone.
    kept_until: Option<Instant>,
}

impl Pace {
    fn new(rate: f64, in_flight: u32, now: Instant) -> Self {
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

    fn ready(&mut self, now: Instant, is_live: bool) -> Ready {
        self.refill(now);
        let kept = u32::from(!is_live && self.most_in_flight > 1 && self.kept_until.is_some_and(|until| now < until));
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

    /// To be called when [`Ready::Now`].
    fn take(&mut self, now: Instant) {
        self.refill(now);
        self.tokens -= 1.0;
        self.in_flight += 1;
    }

    fn give_back(&mut self, now: Instant, sent: Instant) {
        self.in_flight -= 1;
        let took = now.saturating_duration_since(sent);
        if took >= SLOW {
            self.kept_until = self.kept_until.max(Some(now + took.min(LONGEST_RETRY_AFTER) * KEPT));
        }
    }

    fn succeeded(&mut self, now: Instant) {
        self.refill(now);
        self.rate = (self.rate + self.configured * RECOVERY).min(self.configured);
    }

    fn throttled(&mut self, now: Instant, sent: Instant, retry_after: Option<Duration>) {
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

#[cfg(test)]
#[path = "limiter_tests.rs"]
mod tests;
