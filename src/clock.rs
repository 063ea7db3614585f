//! This machine's clock. Times of records are in the server's clock instead: see `clock_offset_seconds`.
//!
//! Two readings of it: [`now`] is the wall's, which someone may set at any time and which is for showing alone; what is
//! measured, waited for or decided goes by [`steady`], which only ever goes on.

use std::sync::OnceLock;
use std::time::{Instant, SystemTime, UNIX_EPOCH};

use crate::event::Millis;

/// Milliseconds since the epoch, by this machine's wall clock.
#[must_use]
pub fn now() -> Millis {
    let since = wall().duration_since(UNIX_EPOCH).unwrap_or_default();
    Millis::try_from(since.as_millis()).unwrap_or(Millis::MAX)
}

/// The same, as the standard library has it.
#[must_use]
#[expect(clippy::disallowed_methods, reason = "the one place that asks")]
pub fn wall() -> SystemTime {
    SystemTime::now()
}

/// Milliseconds since the epoch as the wall clock showed them when this was first asked, and gone on since by elapsed
/// time, whatever becomes of the wall clock.
#[must_use]
pub fn steady() -> Millis {
    static ANCHOR: OnceLock<(Instant, Millis)> = OnceLock::new();
    let (instant, wall) = ANCHOR.get_or_init(|| (Instant::now(), now()));
    wall.saturating_add(millis(instant.elapsed()))
}

/// A duration in milliseconds; one of centuries is cut.
#[must_use]
pub fn millis(duration: std::time::Duration) -> Millis {
    Millis::try_from(duration.as_millis()).unwrap_or(Millis::MAX / 4)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_readings_are_of_our_time_and_steady_time_goes_on() {
        const RELEASE: Millis = 1_735_689_600_000;
        let (first, wall) = (steady(), now());
        assert!(first > RELEASE && wall > RELEASE);
        while steady() <= first {}
        assert_eq!(millis(std::time::Duration::from_micros(2_500)), 2);
        assert_eq!(millis(std::time::Duration::MAX), Millis::MAX / 4);
    }
}
