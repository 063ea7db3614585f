//! The simulated servers' clock: the wall's, moved by a fixed offset.

use std::time::{Duration, Instant, UNIX_EPOCH};

use crate::clock;
use crate::event::Millis;

/// Never goes back, whatever happens to the wall clock after the start.
#[derive(Debug)]
pub struct Clock {
    started: Instant,
    started_at: Millis,
}

impl Clock {
    /// Starts now, `offset` ahead of the wall clock.
    #[must_use]
    pub fn start(offset: Millis) -> Self {
        Self { started: Instant::now(), started_at: clock::now() + offset }
    }

    /// What the servers' clock showed at the start.
    #[must_use]
    pub const fn started_at(&self) -> Millis {
        self.started_at
    }

    /// What the servers' clock shows.
    #[must_use]
    pub fn now(&self) -> Millis {
        self.started_at + millis(self.started.elapsed())
    }
}

/// A duration in milliseconds.
#[must_use]
pub fn millis(duration: Duration) -> Millis {
    Millis::try_from(duration.as_millis()).unwrap_or(Millis::MAX)
}

/// A time as a `Date` header has it.
#[must_use]
pub fn http_date(time: Millis) -> String {
    httpdate::fmt_http_date(UNIX_EPOCH + Duration::from_millis(time.unsigned_abs()))
}
