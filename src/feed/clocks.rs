//! What the log says of a server's clock: once when it falls into doubt, with reminders at growing intervals while it
//! stays there, and once when it is over.

use std::time::{Duration, Instant};

use crate::source::Doubt;

/// Until the first reminder; each later one takes [`GROWTH`] times as long, [`RARELY`] at most.
const FIRST: Duration = Duration::from_secs(600);
const GROWTH: u32 = 4;
const RARELY: Duration = Duration::from_secs(24 * 3600);

/// See the module.
#[derive(Debug, Default)]
pub(super) struct Doubts(Option<Told>);

#[derive(Debug)]
struct Told {
    since: Instant,
    last: Instant,
    again: Duration,
}

impl Doubts {
    /// Takes in whether the clock is in doubt `now`.
    pub fn see(&mut self, stream: &str, doubt: Option<&Doubt>, now: Instant) {
        let seconds = |since: Instant| now.saturating_duration_since(since).as_secs();
        match (&mut self.0, doubt) {
            (None, None) => {}
            (None, Some(Doubt { message, .. })) => {
                tracing::warn!(stream, reason = "clock", "the clock is in doubt: {message}");
                self.0 = Some(Told { since: now, last: now, again: FIRST });
            }
            (Some(told), Some(Doubt { message, .. })) => {
                if now.saturating_duration_since(told.last) >= told.again {
                    let seconds = seconds(told.since);
                    tracing::warn!(stream, reason = "clock", seconds, "the clock is still in doubt: {message}");
                    (told.last, told.again) = (now, (told.again * GROWTH).min(RARELY));
                }
            }
            (Some(told), None) => {
                let seconds = seconds(told.since);
                tracing::info!(stream, seconds, "the clock is no longer in doubt");
                self.0 = None;
            }
        }
    }
}
