//! This machine's clock. Times of records are in the server's clock instead: see `clock_offset_seconds`.

use std::time::{SystemTime, UNIX_EPOCH};

use crate::event::Millis;

/// Milliseconds since the epoch, by this machine.
#[must_use]
pub fn now() -> Millis {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    Millis::try_from(since.as_millis()).unwrap_or(Millis::MAX)
}

/// A duration in milliseconds; one of centuries is cut.
#[must_use]
pub fn millis(duration: std::time::Duration) -> Millis {
    Millis::try_from(duration.as_millis()).unwrap_or(Millis::MAX / 4)
}
