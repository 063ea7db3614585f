//! When to say again what goes on: after a minute, then after twice as long each time, up to an hour.
//!
//! Pure: it is told the time.

use std::time::{Duration, Instant};

/// Until the first reminder.
const FIRST: Duration = Duration::from_secs(60);
/// The longest between two.
const LONGEST: Duration = Duration::from_secs(3600);

/// Of one thing that goes on.
#[derive(Debug, Clone, Copy)]
pub struct Reminder {
    told: Instant,
    wait: Duration,
}

impl Reminder {
    /// It was said for the first time at `now`.
    #[must_use]
    pub const fn new(now: Instant) -> Self {
        Self { told: now, wait: FIRST }
    }

    /// How long ago it was last said.
    #[must_use]
    pub fn passed(&self, now: Instant) -> Duration {
        now.saturating_duration_since(self.told)
    }

    /// Something else was said of it.
    pub const fn told(&mut self, now: Instant) {
        self.told = now;
    }

    /// Whether to say it again; it is taken to be said then.
    pub fn is_due(&mut self, now: Instant) -> bool {
        let is_due = self.passed(now) >= self.wait;
        if is_due {
            (self.told, self.wait) = (now, (self.wait * 2).min(LONGEST));
        }
        is_due
    }

    /// Whether it has not been said for so long that it is news again.
    #[must_use]
    pub fn is_forgotten(&self, now: Instant) -> bool {
        self.passed(now) > LONGEST * 2
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn after_one_two_four_minutes_and_each_hour_in_the_end() {
        let begun = Instant::now();
        let mut reminder = Reminder::new(begun);
        let due: Vec<u64> =
            (1..5 * 60).filter(|minute| reminder.is_due(begun + Duration::from_secs(60 * minute))).collect();
        assert_eq!(due, [1, 3, 7, 15, 31, 63, 123, 183, 243]);
    }
}
