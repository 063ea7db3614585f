//! Whether a lane moves on schedule: one definition, which `/status`, the metric `trailcast_lane_state` and the log share.
//!
//! "The last request was answered" is not health: a lane can be answered for ever and get nowhere. A lane is well while it
//! is no further behind the server's now than its schedule allows; whatever keeps it from that, it says so, and what it
//! waits for.
//!
//! Pure: no I/O, and time is a parameter.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use crate::event::Millis;
use crate::words::counted;

/// A lane's state: the closed set of values of the label `state` of `trailcast_lane_state`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum LaneState {
    /// It does not know yet where it stands: the checkpoint, or the group of replicas, has not answered.
    Starting,
    /// It moves on schedule.
    Ok,
    /// It is behind, and gains on time.
    CatchingUp,
    /// It is behind, moves, and does not gain on time.
    Behind,
    /// It is behind and does not move.
    Stalled,
    /// What it tries fails: the reason is known.
    Failing,
    /// Another replica runs it, or none does.
    Elsewhere,
    /// It has come to its end here, while others go on.
    Ended,
}

impl LaneState {
    /// Every value.
    pub const ALL: [Self; 8] = [
        Self::Starting,
        Self::Ok,
        Self::CatchingUp,
        Self::Behind,
        Self::Stalled,
        Self::Failing,
        Self::Elsewhere,
        Self::Ended,
    ];

    /// The label's value.
    #[must_use]
    pub const fn label(self) -> &'static str {
        match self {
            Self::Starting => "starting",
            Self::Ok => "ok",
            Self::CatchingUp => "catching_up",
            Self::Behind => "behind",
            Self::Stalled => "stalled",
            Self::Failing => "failing",
            Self::Elsewhere => "elsewhere",
            Self::Ended => "ended",
        }
    }

    /// Whether somebody should be told of it.
    #[must_use]
    pub const fn is_trouble(self) -> bool {
        matches!(self, Self::Behind | Self::Stalled | Self::Failing)
    }
}

/// What a lane waits for at the moment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum WaitsFor {
    /// Its stored cursor, or a commit.
    Checkpoint,
    /// A window, read completely.
    Source,
    /// The sink's acknowledgement.
    Sink,
    /// The next poll.
    Poll,
}

impl WaitsFor {
    /// As a message says it, behind "waits for".
    #[must_use]
    pub const fn text(self) -> &'static str {
        match self {
            Self::Checkpoint => "the checkpoint",
            Self::Source => "the API",
            Self::Sink => "the sink",
            Self::Poll => "the next poll",
        }
    }
}

/// What a stream's counts stood at.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Counts {
    /// Requests that were sent.
    pub requests: u64,
    /// How long requests waited for their turn, all together.
    pub waited: Duration,
    /// And for memory.
    pub waited_for_memory: Duration,
}

/// How a stream reads: its counts of the last while.
#[derive(Debug, Clone, Default)]
pub struct Pace(VecDeque<(Instant, Counts)>);

/// So far back a pace looks …
const PACE: Duration = Duration::from_secs(30);
/// … and at least so far before it says anything.
const PACE_LEAST: Duration = Duration::from_secs(3);

impl Pace {
    /// The counts stand so at `at`.
    pub fn see(&mut self, at: Instant, counts: Counts) {
        while self.0.front().is_some_and(|(seen, _)| at.saturating_duration_since(*seen) > PACE) {
            self.0.pop_front();
        }
        self.0.push_back((at, counts));
    }

    /// What most likely keeps a lane from going on that waits for the API.
    #[must_use]
    pub fn text(&self) -> Option<String> {
        let ((began, first), (at, last)) = self.0.front().zip(self.0.back())?;
        let over = at.saturating_duration_since(*began);
        if over < PACE_LEAST {
            return None;
        }
        // One request that waits all the time is a share of 1.
        let most = |waited: Duration, before: Duration| waited.saturating_sub(before) >= over / 2;
        let why = match last.requests.saturating_sub(first.requests) {
            0 => return Some(format!("no request was sent in {} s", over.as_secs())),
            _ if most(last.waited_for_memory, first.waited_for_memory) => {
                "requests wait for memory: a sink is slow, or memory.stream small"
            }
            _ if most(last.waited, first.waited) => {
                "requests wait for their turn: rate_limit or concurrency is reached"
            }
            _ => "it reads page after page",
        };
        let requests = last.requests.saturating_sub(first.requests);
        Some(format!("{} in {} s, {why}", counted(requests, "request"), over.as_secs()))
    }
}

/// How far behind the server's now a lane may be while all is well: some polls, and time to read and deliver what they
/// found.
#[must_use]
pub fn allowed(settle: Duration, poll: Duration) -> Duration {
    settle + (poll * 3).max(Duration::from_secs(30))
}

/// How a lane moves: fed with where it stands whenever that is stored.
#[derive(Debug, Clone)]
pub struct Movement {
    /// See [`allowed`]; also how long it may stand still, and over which time it must gain.
    allowed: Duration,
    /// When it began here, or last stored something.
    last: Option<Instant>,
    /// Where it stood: now, when the present span of time began, and when the one before did.
    now: Option<Millis>,
    span: Option<(Instant, Millis)>,
    before: Option<(Instant, Millis)>,
}

impl Movement {
    /// A lane that has not begun, and may be so far behind.
    #[must_use]
    pub const fn new(allowed: Duration) -> Self {
        Self { allowed, last: None, now: None, span: None, before: None }
    }

    /// At `at` the lane began here.
    pub fn begun(&mut self, at: Instant) {
        *self = Self { last: Some(at), ..Self::new(self.allowed) };
    }

    /// At `at` the lane stored that it stands at `mark`; parts of a window count, though the mark stays.
    pub fn committed(&mut self, at: Instant, mark: Millis) {
        self.last = Some(at);
        match self.span {
            // A mark that was set back says nothing of how fast it moves.
            Some((_, from)) if mark < from => (self.span, self.before) = (Some((at, mark)), None),
            Some((since, _)) if at.saturating_duration_since(since) < self.allowed => {}
            _ => (self.before, self.span) = (self.span, Some((at, mark))),
        }
        self.now = Some(mark);
    }

    /// Whether it gained on time since the span before the present one began; not known before a span has passed.
    fn gains(&self, at: Instant) -> bool {
        if self.before.is_none()
            && self.span.is_none_or(|(since, _)| at.saturating_duration_since(since) < self.allowed)
        {
            return true;
        }
        let Some(((since, from), now)) = self.before.or(self.span).zip(self.now) else { return true };
        now.saturating_sub(from) > millis(at.saturating_duration_since(since))
    }

    /// How long it has stored nothing, at `at`.
    #[must_use]
    pub fn still(&self, at: Instant) -> Duration {
        self.last.map_or(Duration::ZERO, |last| at.saturating_duration_since(last))
    }

    /// Its state at `at`, being `lag` behind the server's now (below zero: ahead of it).
    #[must_use]
    pub fn state(&self, at: Instant, lag: Option<Millis>, running: bool, failing: bool) -> LaneState {
        let allowed = millis(self.allowed);
        match lag {
            _ if failing => LaneState::Failing,
            _ if !running => LaneState::Elsewhere,
            None if self.still(at) <= self.allowed => LaneState::Starting,
            None => LaneState::Stalled,
            // A mark far ahead of now waits for time to pass it, and nothing is read meanwhile.
            Some(lag) if lag.saturating_abs() <= allowed => LaneState::Ok,
            Some(lag) if lag < 0 || self.still(at) > self.allowed => LaneState::Stalled,
            Some(_) if self.gains(at) => LaneState::CatchingUp,
            Some(_) => LaneState::Behind,
        }
    }
}

/// When a lane's trouble is told: when it begins, again at growing intervals while it lasts, and when it is over.
#[derive(Debug, Clone, Default)]
pub struct Told {
    trouble: Option<Trouble>,
}

#[derive(Debug, Clone)]
struct Trouble {
    state: LaneState,
    since: Instant,
    next: Instant,
    wait: Duration,
    /// Since when it is over, if it is.
    well: Option<Instant>,
}

/// What is to be said of a lane.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Say {
    /// It is in trouble, for so long.
    Trouble(Duration),
    /// It moves on schedule again, after so long.
    Over(Duration),
}

/// The first reminder comes after this, each further one after twice the time before.
const REMIND: Duration = Duration::from_secs(60);
/// At most.
const REMIND_MOST: Duration = Duration::from_secs(3600);
/// Trouble is over when it has not come back for so long: what comes and goes is told once.
const OVER_AFTER: Duration = Duration::from_secs(30);

impl Told {
    /// Takes note that the lane is in `state` at `at`; what is to be said of that, if anything. To be asked about once a
    /// second.
    pub fn review(&mut self, at: Instant, state: LaneState) -> Option<Say> {
        // Whoever fails says so, and when that is over.
        if state == LaneState::Failing {
            return None;
        }
        match (&mut self.trouble, state.is_trouble()) {
            (None, false) => None,
            (None, true) => {
                self.trouble = Some(Trouble { state, since: at, next: at + REMIND, wait: REMIND, well: None });
                Some(Say::Trouble(Duration::ZERO))
            }
            (Some(trouble), true) => {
                trouble.well = None;
                let worse = trouble.state != LaneState::Stalled && state == LaneState::Stalled;
                trouble.state = state;
                if at < trouble.next && !worse {
                    return None;
                }
                trouble.wait = (trouble.wait * 2).min(REMIND_MOST);
                trouble.next = at + trouble.wait;
                Some(Say::Trouble(at.saturating_duration_since(trouble.since)))
            }
            (Some(trouble), false) => {
                let well = *trouble.well.get_or_insert(at);
                let lasted = well.saturating_duration_since(trouble.since);
                let over = at.saturating_duration_since(well) >= OVER_AFTER;
                over.then(|| {
                    self.trouble = None;
                    Say::Over(lasted)
                })
            }
        }
    }
}

fn millis(duration: Duration) -> Millis {
    crate::clock::millis(duration)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const ALLOWED: Duration = Duration::from_secs(30);
    const NOW: Millis = 1_767_225_600_000;

    /// A lane whose mark moves as `mark` says, a commit a second for two minutes; its state at the end and after.
    fn after(mark: impl Fn(i64) -> Millis, idle: u64) -> LaneState {
        let begun = Instant::now();
        let mut movement = Movement::new(ALLOWED);
        for second in 0..120 {
            movement.committed(begun + Duration::from_secs(second), mark(i64::try_from(second).unwrap()));
        }
        let at = begun + Duration::from_secs(120 + idle);
        let now = NOW + 1000 * (120 + i64::try_from(idle).unwrap());
        movement.state(at, Some(now - mark(119)), true, false)
    }

    #[test]
    fn a_lane_is_well_while_it_keeps_its_schedule() {
        let on_time = |second: i64| NOW + 1000 * second - 5_000;
        assert_eq!(after(on_time, 0), LaneState::Ok);
        assert_eq!(after(on_time, 20), LaneState::Ok, "a poll that takes long");
        assert_eq!(after(on_time, 60), LaneState::Stalled);
        let backfill = |second: i64| NOW - 86_400_000 + 60_000 * second;
        assert_eq!(after(backfill, 0), LaneState::CatchingUp);
        assert_eq!(after(backfill, 60), LaneState::Stalled);
        let slow = |second: i64| NOW - 86_400_000 + 500 * second;
        assert_eq!(after(slow, 0), LaneState::Behind);
        let ahead = |second: i64| NOW + 86_400_000 + 1000 * second;
        assert_eq!(after(ahead, 0), LaneState::Stalled, "ahead of now nothing is read");
        let parts = |_: i64| NOW - 86_400_000;
        assert_eq!(after(parts, 0), LaneState::Behind, "parts are stored, the mark stays");
    }

    #[test]
    fn what_is_known_goes_before_what_is_reckoned() {
        let at = Instant::now();
        let mut movement = Movement::new(ALLOWED);
        movement.begun(at);
        assert_eq!(movement.state(at, None, false, true), LaneState::Failing, "it may be what keeps it from running");
        assert_eq!(movement.state(at, Some(0), false, false), LaneState::Elsewhere);
        assert_eq!(movement.state(at, Some(0), true, true), LaneState::Failing);
        assert_eq!(movement.state(at, None, true, false), LaneState::Starting);
        assert_eq!(movement.state(at + 2 * ALLOWED, None, true, false), LaneState::Stalled);
    }

    #[test]
    fn trouble_is_told_once_then_at_growing_intervals_and_its_end_when_it_holds() {
        let begun = Instant::now();
        let mut told = Told::default();
        let mut said = Vec::new();
        for second in 0..2_000 {
            // It comes and goes for ten minutes, then it is over.
            let state = if second < 600 && second % 7 != 0 { LaneState::Stalled } else { LaneState::Ok };
            if let Some(say) = told.review(begun + Duration::from_secs(second), state) {
                said.push((second, say));
            }
        }
        let trouble = |seconds| Say::Trouble(Duration::from_secs(seconds));
        assert_eq!(said.len(), 5, "{said:?}");
        assert_eq!(said[0], (1, trouble(0)));
        assert_eq!(said[1], (61, trouble(60)));
        assert_eq!(said[2], (181, trouble(180)));
        assert_eq!(said[3], (421, trouble(420)));
        assert!(matches!(said[4], (600..=640, Say::Over(_))), "{said:?}");
    }

    #[test]
    fn a_pace_says_why_it_is_slow() {
        let begun = Instant::now();
        // A second has so many requests, and they wait so long for their turn and for memory, milliseconds.
        let text = |requests: u64, waited: u64, waited_for_memory: u64| {
            let mut pace = Pace::default();
            for second in 0..60 {
                let counts = Counts {
                    requests: requests * second,
                    waited: Duration::from_millis(waited * second),
                    waited_for_memory: Duration::from_millis(waited_for_memory * second),
                };
                pace.see(begun + Duration::from_secs(second), counts);
                assert_eq!(pace.text().is_none(), second < 3, "{second}");
            }
            pace.text().unwrap()
        };
        assert_eq!(text(0, 0, 0), "no request was sent in 30 s");
        assert_eq!(text(2, 100, 100), "60 requests in 30 s, it reads page after page");
        assert!(text(2, 3_000, 0).ends_with("requests wait for their turn: rate_limit or concurrency is reached"));
        assert!(text(2, 3_000, 1_000).contains("wait for memory"));
    }

    proptest! {
        #[test]
        fn a_lane_that_never_commits_again_is_in_trouble_before_long(
            marks in prop::collection::vec((0_u64..20, -100_000_i64..10_000), 1..50), poll in 1_u64..600,
        ) {
            let allowed = allowed(Duration::ZERO, Duration::from_secs(poll));
            let mut movement = Movement::new(allowed);
            let begun = Instant::now();
            let (mut at, mut mark) = (begun, NOW);
            for (seconds, step) in marks {
                at += Duration::from_secs(seconds);
                mark += step;
                movement.committed(at, mark);
            }
            let later = at + 2 * allowed + Duration::from_secs(11);
            let now = NOW + millis(later - begun);
            let state = movement.state(later, Some(now - mark), true, false);
            // A mark that was far ahead may have become the present; anything else is seen.
            let lag = now - mark;
            prop_assert!(state == LaneState::Stalled || lag.abs() <= millis(allowed), "{state:?} at a lag of {lag}");
        }
    }
}
