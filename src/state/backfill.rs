//! History that the live pass has gone past.

use serde::{Deserialize, Serialize};

use crate::event::Millis;
use crate::window::Window;

/// History that the live pass has gone past, so that what is new does not wait for it. It is read once: all of it is older by
/// then than the sweeps have to wait for, but for its end.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Backfill {
    /// Where it began; no other of the lane began there.
    pub since: Millis,
    /// The mark: what lies between `since` and here has been read.
    pub from: Millis,
    /// Where it ends. Nothing was younger when it began.
    pub to: Millis,
}

impl Backfill {
    /// What it has still to read.
    #[must_use]
    pub const fn rest(self) -> Window {
        Window { from: self.from, to: self.to }
    }

    /// Whether it will be of use to a sweep of this age at `mark`, once that has come to where it began.
    #[must_use]
    pub(super) const fn is_ahead_of(self, age: Millis, mark: Millis) -> bool {
        mark < self.since && self.since < self.to - age
    }
}
