//! What is known of a receiver, and of what a stream's events met with there, beyond a part.
//!
//! Pure.

use std::time::Duration;

use bytes::Bytes;

use super::pace::Pace;

/// A receiver that has contradicted itself is doubted for so long.
const DOUBT: Duration = Duration::from_secs(3600);

/// Of a receiver.
#[derive(Debug, Clone)]
pub(super) struct Known {
    pub(super) pace: Pace,
    /// It has contradicted itself; since the time that `now` counts from.
    doubted_until: Duration,
    /// A request with one record that it took, of whatever stream.
    pub(super) witness: Option<Bytes>,
}

/// Of a stream.
#[derive(Debug, Clone, Default)]
pub(super) struct Own {
    /// A request with one record of it that was taken.
    pub(super) witness: Option<Bytes>,
    /// None of its own was ever taken, and one event was given up by another stream's witness. No second one is: it may
    /// be the stream that is refused.
    pub(super) has_borrowed: bool,
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

    /// It has contradicted itself.
    pub(super) fn doubt(&mut self, now: Duration) {
        self.doubted_until = now + DOUBT;
        self.pace.settle();
    }

    pub(super) fn is_doubted(&self, now: Duration) -> bool {
        now < self.doubted_until
    }
}
