//! How long to wait after a failure: the only module that knows the crate `backoff`, which is unmaintained
//! (RUSTSEC-2025-0012, no vulnerability) and lends its exponential curve only.
//!
//! Pure but for the random number: it computes waits and never sleeps.

use std::time::{Duration, Instant, SystemTime};

use backoff::backoff::Backoff as _;
use backoff::{ExponentialBackoff, ExponentialBackoffBuilder};
use rand::RngExt;

/// The longest that a server's `Retry-After` is obeyed: a stray date a year ahead must not stop a stream.
pub const LONGEST_RETRY_AFTER: Duration = Duration::from_secs(5 * 60);

/// What a header `Retry-After` asks for, in either form (RFC 9110, 10.2.3). A date counts from the server's own `now`, so
/// that no clocks need to agree; one that has passed asks for nothing.
#[must_use]
pub fn retry_after(asked: &str, now: SystemTime) -> Option<Duration> {
    let asked = asked.trim();
    match asked.parse() {
        Ok(seconds) => Some(Duration::from_secs(seconds)),
        Err(_) => Some(httpdate::parse_http_date(asked).ok()?.duration_since(now).unwrap_or_default()),
    }
}

/// Failures that pass by themselves.
const BRIEF: (Duration, Duration) = (Duration::from_millis(200), Duration::from_secs(30));
/// Failures that wait for a person: asking more often helps nobody and may lock the key out.
const SLOW: (Duration, Duration) = (Duration::from_secs(5), Duration::from_secs(5 * 60));

/// How long a run that is to catch up tries what only a person can mend: at least four times, by the waits for that.
pub const PATIENCE: Duration = Duration::from_secs(60);

/// The patience of one retried thing.
#[derive(Debug, Default)]
pub struct Patience(Option<Instant>);

impl Patience {
    /// It failed at `now`. Whether it has, without a failure of another kind in between, failed long enough for a reason that
    /// only a person can mend.
    pub fn is_over(&mut self, needs_operator: bool, now: Instant) -> bool {
        if !needs_operator {
            self.0 = None;
            return false;
        }
        now.saturating_duration_since(*self.0.get_or_insert(now)) >= PATIENCE
    }

    /// No more of `wait` than is left of it at `now`: the last try comes when it is over.
    #[must_use]
    pub fn at_most(&self, wait: Duration, now: Instant) -> Duration {
        self.0.map_or(wait, |since| wait.min(PATIENCE.saturating_sub(now.saturating_duration_since(since))))
    }
}

/// The waits of one retried thing: exponential with full jitter (uniform from 0 to the curve's value) and a
/// cap, so that clients that failed together do not come back together.
#[derive(Debug)]
pub struct Backoff {
    brief: ExponentialBackoff,
    slow: ExponentialBackoff,
}

impl Backoff {
    /// At the start of its curves.
    #[must_use]
    pub fn new() -> Self {
        Self { brief: curve(BRIEF), slow: curve(SLOW) }
    }

    /// How long to wait after a failure that passes by itself, or one that waits for a person. `asked` is the server's
    /// own wish: it counts where it is longer, up to [`LONGEST_RETRY_AFTER`].
    pub fn wait(&mut self, needs_operator: bool, asked: Option<Duration>) -> Duration {
        let own = step(if needs_operator { &mut self.slow } else { &mut self.brief });
        asked.map_or(own, |asked| own.max(asked.min(LONGEST_RETRY_AFTER)))
    }

    /// Back to the start of its curves: to be called after a success.
    pub fn reset(&mut self) {
        self.brief.reset();
        self.slow.reset();
    }
}

impl Default for Backoff {
    fn default() -> Self {
        Self::new()
    }
}

/// The waits of a checkpoint that fails, or of a run of pages that breaks off: the brief curve, whatever the reason.
#[derive(Debug)]
pub struct Waits(ExponentialBackoff);

impl Waits {
    /// At the start of the curve.
    #[must_use]
    pub fn new() -> Self {
        Self(curve(BRIEF))
    }

    /// The next wait.
    pub fn next_wait(&mut self) -> Duration {
        step(&mut self.0)
    }
}

impl Default for Waits {
    fn default() -> Self {
        Self::new()
    }
}

fn curve((first, cap): (Duration, Duration)) -> ExponentialBackoff {
    ExponentialBackoffBuilder::new()
        .with_initial_interval(first)
        .with_multiplier(2.0)
        .with_max_interval(cap)
        // The crate's jitter is a band around the curve; full jitter is applied in `step`.
        .with_randomization_factor(0.0)
        .with_max_elapsed_time(None)
        .build()
}

fn step(curve: &mut ExponentialBackoff) -> Duration {
    // It ends only at a maximum elapsed time, and there is none.
    let ceiling = curve.next_backoff().unwrap_or(curve.max_interval);
    // (0, 1]: never a wait of nothing.
    ceiling.mul_f64(1.0 - rand::rng().random::<f64>()).max(Duration::from_nanos(1))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn patience_is_for_what_a_person_must_mend_and_for_that_alone() {
        let (mut patience, begun) = (Patience::default(), Instant::now());
        let at = |seconds| begun + Duration::from_secs(seconds);
        assert!(!patience.is_over(true, at(0)) && !patience.is_over(true, at(59)));
        let day = Duration::from_secs(86_400);
        assert_eq!(
            (patience.at_most(day, at(59)), patience.at_most(day, at(70))),
            (Duration::from_secs(1), Duration::ZERO)
        );
        assert!(patience.is_over(true, at(60)));
        assert!(!patience.is_over(false, at(61)) && !patience.is_over(false, at(600)), "that may pass");
        assert!(!patience.is_over(true, at(601)) && patience.is_over(true, at(661)), "it begins anew");
    }

    proptest! {
        #[test]
        fn a_wait_lies_between_nothing_and_the_curve(needs_operator: bool, failures in 1_u32..40) {
            let mut backoff = Backoff::new();
            let (first, cap) = if needs_operator { SLOW } else { BRIEF };
            for n in 0..failures {
                let ceiling = first.saturating_mul(1_u32 << n.min(20)).min(cap);
                let wait = backoff.wait(needs_operator, None);
                prop_assert!(wait > Duration::ZERO, "a wait of nothing");
                // The crate counts in floating point.
                prop_assert!(wait <= ceiling + Duration::from_micros(1), "{wait:?} after {n} failures");
            }
            backoff.reset();
            prop_assert!(backoff.wait(needs_operator, None) <= first + Duration::from_micros(1));
        }

        #[test]
        fn a_server_waits_as_it_asked_but_not_for_ever(needs_operator: bool, asked in 0_u64..100_000, failures in 1..20) {
            let asked = Duration::from_secs(asked);
            let mut backoff = Backoff::new();
            for _ in 0..failures {
                let wait = backoff.wait(needs_operator, Some(asked));
                prop_assert!(wait >= asked.min(LONGEST_RETRY_AFTER));
                prop_assert!(wait <= LONGEST_RETRY_AFTER);
            }
        }
    }

    #[test]
    fn jitter_fills_the_whole_range() {
        let waits: Vec<_> = (0..400).map(|_| Backoff::new().wait(false, None)).collect();
        let quarter = BRIEF.0 / 4;
        for part in 0..4 {
            let hits = waits.iter().filter(|wait| **wait > quarter * part && **wait <= quarter * (part + 1)).count();
            // 100 are expected; fewer than 50 has a chance of less than 1 in 10^8.
            assert!(hits > 50, "{hits} of 400 waits in quarter {part}");
        }
    }
}
