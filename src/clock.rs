//! This machine's clock. Times of records are in the server's clock instead: see `clock_offset_seconds`.

use std::time::{SystemTime, UNIX_EPOCH};

use crate::event::Millis;

/// Milliseconds since the epoch, by this machine.
#[must_use]
pub fn now() -> Millis {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    Millis::try_from(since.as_millis()).unwrap_or(Millis::MAX)
}
