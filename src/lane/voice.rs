//! When a lane says that it fails, that it works again, and that events became dead letters: few lines, whatever it does.
//!
//! The first failure is said at once, and so is the recovery from it. What fails again soon after flaps: then a recovery is
//! said only once it has held for a while, longer each time, and until then it counts as failing. What goes on failing is
//! said again at growing intervals, and at once where the reason is another. Dead letters are summed up in the same way.
//!
//! Pure: it is told the time.

use std::time::{Duration, Instant};

use crate::dead_letter::DeadLetterReason;
use crate::metrics::SinkReason;
use crate::reminder::Reminder;

/// A failure within this after the last recovery belongs to what was before.
const SOON: Duration = Duration::from_secs(600);
/// How long a recovery must hold after the first relapse.
const FIRST_HOLD: Duration = Duration::from_secs(15);
/// And at most.
const LONGEST_HOLD: Duration = Duration::from_secs(300);

/// What to say of a failure.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Say {
    /// That it fails.
    First,
    /// That it goes on to, so often since it was first said.
    Still { times: u64, since: Duration },
}

/// See the module.
#[derive(Debug, Default)]
pub struct Voice {
    failing: Option<Failing>,
    /// When it was last said that it works again, and how long it has to hold next time.
    recovered: Option<(Instant, Duration)>,
    letters: Vec<Letters>,
}

/// Dead letters of one kind.
#[derive(Debug)]
struct Letters {
    reason: DeadLetterReason,
    sent: bool,
    /// All, and those that were not said yet.
    total: u64,
    unsaid: u64,
    reminder: Reminder,
}

/// How many dead letters to say: those since it was last said, and all since it was first.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Count {
    pub(super) new: u64,
    pub(super) total: u64,
}

#[derive(Debug)]
struct Failing {
    since: Instant,
    times: u64,
    reasons: Vec<SinkReason>,
    /// When it began to work again, if it has not failed since.
    works_since: Option<Instant>,
    /// How long that must hold before it is said.
    hold: Duration,
    reminder: Reminder,
}

impl Voice {
    /// It failed.
    pub(crate) fn failed(&mut self, reason: SinkReason, now: Instant) -> Option<Say> {
        let Some(failing) = &mut self.failing else {
            let relapse = self.recovered.filter(|(at, _)| now.saturating_duration_since(*at) < SOON);
            let hold = relapse.map_or(Duration::ZERO, |(_, hold)| (hold * 2).clamp(FIRST_HOLD, LONGEST_HOLD));
            self.failing = Some(Failing {
                since: now,
                times: 1,
                reasons: vec![reason],
                works_since: None,
                hold,
                reminder: Reminder::new(now),
            });
            return Some(Say::First);
        };
        failing.times += 1;
        if failing.works_since.take().is_some() {
            failing.hold = (failing.hold * 2).clamp(FIRST_HOLD, LONGEST_HOLD);
        }
        if !failing.reasons.contains(&reason) {
            failing.reasons.push(reason);
            return Some(Say::First);
        }
        if !failing.reminder.is_due(now) {
            return None;
        }
        Some(Say::Still { times: failing.times, since: now.saturating_duration_since(failing.since) })
    }

    /// It worked; whether to say that it does again.
    pub(crate) fn worked(&mut self, now: Instant) -> bool {
        let Some(failing) = &mut self.failing else { return false };
        let since = *failing.works_since.get_or_insert(now);
        if now.saturating_duration_since(since) < failing.hold {
            return false;
        }
        self.recovered = Some((now, failing.hold));
        self.failing = None;
        true
    }

    /// So many more events became dead letters.
    pub(super) fn refused(&mut self, reason: DeadLetterReason, sent: bool, new: u64, now: Instant) -> Option<Count> {
        let place = self.letters.iter().position(|letters| letters.reason == reason && letters.sent == sent);
        let letters = match place {
            Some(place) => &mut self.letters[place],
            None => {
                self.letters.push(Letters { reason, sent, total: new, unsaid: 0, reminder: Reminder::new(now) });
                return Some(Count { new, total: new });
            }
        };
        letters.total += new;
        letters.unsaid += new;
        if letters.reminder.is_forgotten(now) {
            letters.reminder = Reminder::new(now);
        } else if !letters.reminder.is_due(now) {
            return None;
        }
        Some(Count { new: std::mem::take(&mut letters.unsaid), total: letters.total })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    #[test]
    fn an_outage_is_two_lines_and_a_long_one_some_reminders() {
        let (mut voice, begun) = (Voice::default(), Instant::now());
        assert!(!voice.worked(begun), "nothing to say");
        assert_eq!(voice.failed(SinkReason::Connect, begun), Some(Say::First));
        let lines =
            (1..86_400).filter(|second| voice.failed(SinkReason::Connect, begun + SECOND * *second).is_some()).count();
        assert!((20..30).contains(&lines), "{lines} reminders in a day");
        assert_eq!(voice.failed(SinkReason::Credentials, begun + SECOND * 86_400), Some(Say::First), "another reason");
        assert!(voice.worked(begun + SECOND * 86_401), "at once");
        assert_eq!(
            voice.failed(SinkReason::Connect, begun + SECOND * 90_001),
            Some(Say::First),
            "an outage of its own"
        );
        assert!(voice.worked(begun + SECOND * 90_002));
    }

    /// A backfill of old events has some in each batch.
    #[test]
    fn dead_letters_are_summed_up() {
        use DeadLetterReason::{TooLarge, TooOld};
        let (mut voice, begun) = (Voice::default(), Instant::now());
        assert_eq!(voice.refused(TooOld, false, 7, begun), Some(Count { new: 7, total: 7 }));
        assert_eq!(voice.refused(TooOld, true, 2, begun), Some(Count { new: 2, total: 2 }), "what was sent is another");
        assert_eq!(voice.refused(TooLarge, true, 1, begun), Some(Count { new: 1, total: 1 }));
        let said: Vec<_> =
            (1..3600).filter_map(|second| voice.refused(TooOld, false, 1, begun + SECOND * second)).collect();
        assert_eq!(said.len(), 5, "{said:?}");
        assert_eq!(said[..2], [Count { new: 60, total: 67 }, Count { new: 120, total: 187 }]);
        // None is left out of what is said next, though that begins anew.
        let (new, total) = (3600 - said.iter().map(|said| said.new).sum::<u64>(), 3607);
        assert_eq!(voice.refused(TooOld, false, 1, begun + SECOND * 36_000), Some(Count { new, total }));
        assert_eq!(voice.refused(TooOld, false, 1, begun + SECOND * 36_059), None);
        assert!(voice.refused(TooOld, false, 1, begun + SECOND * 36_060).is_some());
    }

    /// 0.1.0 said two lines a delivery.
    #[test]
    fn what_flaps_for_hours_says_little_and_counts_as_failing() {
        let (mut voice, begun) = (Voice::default(), Instant::now());
        let (mut lines, mut recoveries) = (0, 0);
        for second in 0..4 * 3600 {
            let now = begun + SECOND * second;
            lines += usize::from(voice.failed(SinkReason::Unavailable, now).is_some());
            recoveries += usize::from(voice.worked(now + SECOND / 2));
        }
        assert!((2..14).contains(&lines) && recoveries == 1, "{lines} lines, {recoveries} recoveries");
        assert!(voice.failing.is_some());
        // It is well once that has held.
        let now = begun + SECOND * (4 * 3600);
        let well = (0..7200).find(|second| voice.worked(now + SECOND * *second));
        assert!(well.is_some_and(|second| (299..302).contains(&second)), "{well:?}");
    }
}
