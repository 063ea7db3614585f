//! What is wrong with a stream, told seldom: once when it begins, at growing intervals while it lasts, and that it is over
//! once that has held.

use std::time::{Duration, Instant};

use crate::reminder::Reminder;
use crate::source::FetchReason;

/// Failures in a row before a stream counts as failing: one torn answer is nobody's business.
const FAILING_AFTER: u32 = 3;
/// What fails again so soon after it was said to be well is flapping.
const FLAPPING: Duration = Duration::from_secs(60);
/// How long a flapping stream must be well before that is said, at first; twice as long each time.
const HOLD: Duration = Duration::from_secs(10);
const LONGEST_HOLD: Duration = Duration::from_secs(600);

/// What can be wrong, each on its own: that the one works shows nothing of the others.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    /// Requests get no page.
    Requests,
    /// Later pages of a run cannot be had.
    Pages,
    /// Runs of pages contradict themselves, or do not end.
    Runs,
    /// What is said cannot be believed.
    Answers,
    /// The bounds that are asked for do not count.
    Bounds,
    /// Records lie far from what is asked for.
    Places,
    /// The parts of what is asked for list other records than the whole.
    Parts,
}

/// What is to be said.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Say {
    /// It begins to fail, or for another reason.
    Failing,
    /// It has been failing for so long.
    Still(Duration),
    /// It is well again, after so long; and what is still wrong for another reason.
    Well(Duration, Option<(FetchReason, String)>),
}

#[derive(Debug, Default)]
pub(super) struct Trouble {
    /// In the order of [`Kind`].
    kinds: [State; 7],
    well: Option<Instant>,
    hold: Duration,
}

#[derive(Debug, Default)]
struct State {
    in_a_row: u32,
    failing: Option<Failing>,
}

#[derive(Debug)]
struct Failing {
    reason: FetchReason,
    message: String,
    /// Those that have been told.
    reasons: Vec<FetchReason>,
    since: Instant,
    works_since: Option<Instant>,
    reminder: Reminder,
}

impl Trouble {
    /// It failed at `now`; `at_once` if that is no matter of patience.
    pub(super) fn failed(
        &mut self,
        kind: Kind,
        reason: FetchReason,
        message: &str,
        at_once: bool,
        now: Instant,
    ) -> Option<Say> {
        let state = &mut self.kinds[kind as usize];
        state.in_a_row += 1;
        if let Some(failing) = &mut state.failing {
            failing.works_since = None;
            (failing.reason, failing.message) = (reason, message.to_owned());
            // A reason that alternates with others is news once.
            if !failing.reasons.contains(&reason) && failing.reminder.passed(now) >= HOLD {
                failing.reasons.push(reason);
                failing.reminder.told(now);
                return Some(Say::Failing);
            }
            if !failing.reminder.is_due(now) {
                return None;
            }
            return Some(Say::Still(now.saturating_duration_since(failing.since)));
        }
        if !at_once && state.in_a_row < FAILING_AFTER {
            return None;
        }
        let failing = Failing {
            reason,
            message: message.to_owned(),
            reasons: vec![reason],
            since: now,
            works_since: None,
            reminder: Reminder::new(now),
        };
        state.failing = Some(failing);
        self.hold = match self.well {
            Some(well) if now.saturating_duration_since(well) < FLAPPING + self.hold => {
                (self.hold * 2).clamp(HOLD, LONGEST_HOLD)
            }
            _ => Duration::ZERO,
        };
        Some(Say::Failing)
    }

    /// It worked at `now`.
    pub(super) fn worked(&mut self, kind: Kind, now: Instant) -> Option<Say> {
        let state = &mut self.kinds[kind as usize];
        state.in_a_row = 0;
        let failing = state.failing.as_mut()?;
        let works_since = *failing.works_since.get_or_insert(now);
        if now.saturating_duration_since(works_since) < self.hold {
            return None;
        }
        let after = now.saturating_duration_since(failing.since);
        state.failing = None;
        self.well = Some(now);
        let other = self.kinds.iter().find_map(|state| state.failing.as_ref());
        Some(Say::Well(after, other.map(|other| (other.reason, other.message.clone()))))
    }

    /// Whether anything is wrong.
    #[cfg(test)]
    pub(super) fn is_failing(&self) -> bool {
        self.kinds.iter().any(|state| state.failing.is_some())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    /// And whatever reasons it has in turn.
    #[test]
    fn what_flaps_is_told_seldom_and_is_not_well() {
        let (mut trouble, mut now, mut lines) = (Trouble::default(), Instant::now(), 0);
        let mut well = Duration::ZERO;
        for second in 0..3600 {
            let reason = [FetchReason::Refused, FetchReason::Credentials, FetchReason::Api][second % 3];
            lines += u32::from(trouble.failed(Kind::Requests, reason, "no", true, now).is_some());
            now += SECOND / 2;
            lines += u32::from(trouble.worked(Kind::Requests, now).is_some());
            well += if trouble.is_failing() { Duration::ZERO } else { SECOND / 2 };
            now += SECOND / 2;
        }
        assert!((3..=12).contains(&lines), "{lines} lines in an hour");
        assert!(well <= SECOND, "{well:?} well");
        for _ in 0..12 {
            now += SECOND;
            trouble.worked(Kind::Requests, now);
        }
        assert!(!trouble.is_failing(), "it is well once that holds");
    }

    #[test]
    fn one_kind_does_not_hide_another() {
        let (mut trouble, now) = (Trouble::default(), Instant::now());
        for _ in 0..2 {
            assert_eq!(trouble.failed(Kind::Runs, FetchReason::Refused, "no token", false, now), None);
            assert_eq!(trouble.worked(Kind::Requests, now), None);
        }
        assert_eq!(trouble.failed(Kind::Runs, FetchReason::Refused, "no token", false, now), Some(Say::Failing));
        assert_eq!(trouble.failed(Kind::Requests, FetchReason::Connect, "gone", true, now), Some(Say::Failing));
        let still = Some((FetchReason::Refused, "no token".to_owned()));
        assert_eq!(trouble.worked(Kind::Requests, now), Some(Say::Well(Duration::ZERO, still)));
        assert_eq!(trouble.worked(Kind::Runs, now), Some(Say::Well(Duration::ZERO, None)));
    }
}
