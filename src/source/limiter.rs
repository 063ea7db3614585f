//! One limiter per credential: requests a second and requests in flight, shared by all streams that use the
//! credential; slower after the server says so.
//!
//! No background task: whoever is first in line waits for its own turn and wakes the next.

mod line;
mod pace;

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use tokio::sync::Notify;

use crate::page::Priority;
use line::{Line, Place};
use pace::{Pace, Ready};

/// A cheap handle of one stream: clones are the same stream's, and all share one limit.
#[derive(Debug, Clone)]
pub struct Limiter {
    state: Arc<Mutex<State>>,
    stream: u64,
}

#[derive(Debug)]
struct State {
    pace: Pace,
    line: Line<Arc<Notify>>,
    arrivals: u64,
    streams: u64,
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
        let state = State { pace, line: Line::default(), arrivals: 0, streams: 1 };
        Self { state: Arc::new(Mutex::new(state)), stream: 1 }
    }

    /// The same limit for one stream more.
    #[must_use]
    pub fn for_another(&self) -> Self {
        let mut state = self.state();
        state.streams += 1;
        Self { state: Arc::clone(&self.state), stream: state.streams }
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

    /// Waits for a turn: live reads before sweeps before catch-up, stream after stream, but each of these has a share; first
    /// come first served within a stream. Dropping the future leaves the line.
    pub async fn acquire(&self, rank: Rank) -> Permit {
        let waiting = self.queue(rank);
        loop {
            let wait = {
                let mut state = self.state();
                let now = now();
                if state.first(now).is_some_and(|(first, _)| *first == waiting.place) {
                    match state.pace.ready(now, rank.is_live()) {
                        Ready::Now => {
                            state.pace.take(now);
                            state.line.served(&waiting.place);
                            drop(state);
                            // Leaving the line wakes the next.
                            return Permit { limiter: self.clone(), sent: now };
                        }
                        Ready::At(instant) => Some(instant),
                        Ready::WhenReturned => None,
                    }
                } else {
                    // It may have been first, and slept for all.
                    state.wake_first(now);
                    None
                }
            };
            match wait {
                Some(instant) => tokio::select! {
                    () = tokio::time::sleep_until(instant.into()) => {}
                    () = waiting.turn.notified() => {}
                },
                None => waiting.turn.notified().await,
            }
        }
    }

    fn queue(&self, rank: Rank) -> Waiting<'_> {
        let mut state = self.state();
        state.arrivals += 1;
        let Rank { priority, arrival } = rank;
        let place = Place { priority, stream: self.stream, arrival, number: state.arrivals };
        let turn = Arc::new(Notify::new());
        state.line.insert(place, Arc::clone(&turn));
        Waiting { limiter: self, place, turn }
    }

    /// Nothing in here panics half-way, so a poisoned lock is as good as any.
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn first(&self, now: Instant) -> Option<(&Place, &Arc<Notify>)> {
        // While requests may hang, what is left is the live pass's.
        self.line.first(self.pace.keeps_a_place(now))
    }

    fn wake_first(&self, now: Instant) {
        if let Some((_, turn)) = self.first(now) {
            turn.notify_one();
        }
    }
}

/// Who stands in line, until dropped.
struct Waiting<'a> {
    limiter: &'a Limiter,
    place: Place,
    turn: Arc<Notify>,
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        let mut state = self.limiter.state();
        state.line.remove(&self.place);
        state.wake_first(now());
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
    /// [`LONGEST_RETRY_AFTER`](crate::retry::LONGEST_RETRY_AFTER)).
    pub fn throttled(self, retry_after: Option<Duration>) {
        self.limiter.state().pace.throttled(now(), self.sent, retry_after);
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        let mut state = self.limiter.state();
        let now = now();
        state.pace.give_back(now, self.sent);
        state.wake_first(now);
    }
}

/// The runtime's clock, which tests can stop.
fn now() -> Instant {
    tokio::time::Instant::now().into_std()
}

#[cfg(test)]
#[path = "limiter_tests.rs"]
mod tests;
