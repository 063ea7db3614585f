//! A lane's marks, and the window that it should read next.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::known::Known;
use crate::event::{Millis, StreamIdentity};
use crate::page::Priority;
use crate::window::{Now, Window, floor_to};

/// When which part of the log is read: a stream's config in milliseconds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Schedule {
    /// The source's clock unit.
    pub unit: Millis,
    /// Between two live polls.
    pub poll: Millis,
    /// How far behind a multiple of that they fall: the same for all lanes of a stream, which ask for the same windows, and
    /// another for each stream, so that they do not all ask at once.
    pub phase: Millis,
    /// The live pass stops this far behind the server's clock.
    pub settle: Millis,
    /// Every live poll reads this much again.
    pub overlap: Millis,
    /// The ages of the sweeps, ascending.
    pub sweeps: Vec<Millis>,
}

/// A pass: a schedule on which a lane reads windows.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Pass {
    /// Near now.
    Live,
    /// Beyond what is surely over, while clocks contradict each other: moves no mark further than what is.
    Fore,
    /// Everything once more at this age.
    Sweep(Millis),
    /// What the live pass has gone past.
    Backfill,
}

impl Pass {
    /// Whether it gives way to what is new, and goes on afterwards.
    #[must_use]
    pub const fn gives_way(self) -> bool {
        matches!(self, Self::Sweep(_) | Self::Backfill)
    }
}

/// What to read next: a range, to be cut into windows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Job {
    /// For which pass.
    pub pass: Pass,
    /// Before whose requests.
    pub priority: Priority,
    /// The range.
    pub range: Window,
}

/// History that the live pass has gone past, so that what is new does not wait for it. It is read once: all of it is older by
/// then than the sweeps have to wait for, but for its end.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Backfill {
    /// Where it began.
    pub since: Millis,
    /// The mark: what lies between `since` and here has been read.
    pub from: Millis,
    /// Where it ends. Nothing was younger when it began.
    pub to: Millis,
}

/// Where a lane stands. Each mark says: everything before it has been read completely *at this age or older*,
/// and what that showed has been delivered; or it lies in the backfill.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Cursor {
    /// Whose log it is; a cursor is of no use for another.
    #[serde(flatten)]
    pub stream: StreamIdentity,
    /// The live pass.
    pub live: Millis,
    /// Read once more since it was `overlap` old. Behind `live` while a record may be a little late.
    pub overlap: Millis,
    /// The sweeps, by age.
    pub sweeps: BTreeMap<Millis, Millis>,
    /// History that is read beside them. Kept when it is read until every sweep has come to where it began: what it has read
    /// they need not read.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub backfill: Option<Backfill>,
    /// Commits so far: names the next delta.
    pub commits: u64,
    /// The latest time, by the server's clock, at which anything was read that counts: no mark is honest that lies
    /// beyond it. Cursors of version 0.1.0 have none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub read_at: Option<Millis>,
    /// Where it began, or was last set to: what lies before that nobody has asked for. Version 0.1.0 has none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub begun: Option<Millis>,
    /// What was learnt of the API.
    #[serde(default)]
    pub known: Known,
}

/// What marks and clocks that are right may differ by.
const ROUNDING: Millis = 1_000;

/// A sweep waits until a part of its age has gathered, and more than a poll brings, so that a quiet stream costs few calls:
/// this part.
const SWEEP_EVERY: Millis = 8;

impl Cursor {
    /// Begins at `start`, rounded down to the clock unit.
    #[must_use]
    pub fn new(stream: StreamIdentity, schedule: &Schedule, start: Millis) -> Self {
        let start = floor_to(start, schedule.unit);
        let sweeps = schedule.sweeps.iter().map(|&age| (age, start)).collect();
        Self {
            stream,
            live: start,
            overlap: start,
            sweeps,
            backfill: None,
            commits: 0,
            read_at: None,
            begun: Some(start),
            known: Known { silent: Some(start), ..Known::default() },
        }
    }

    /// Takes on the ages that are configured now. A new sweep starts where everything is still remembered, an
    /// old one's mark is dropped.
    pub fn adopt(&mut self, schedule: &Schedule) {
        let floor = self.passes_floor();
        self.sweeps = schedule.sweeps.iter().map(|&age| (age, *self.sweeps.get(&age).unwrap_or(&floor))).collect();
        self.leave_to_backfill(schedule);
    }

    /// Puts every mark to `time`, rounded down to the clock unit. What is remembered of it must go, too, or what lies
    /// behind `time` would not be delivered again.
    pub fn set_to(&mut self, time: Millis) {
        let time = self.rounded(time);
        for mark in [&mut self.live, &mut self.overlap].into_iter().chain(self.sweeps.values_mut()) {
            *mark = time;
        }
        self.backfill = None;
        self.begun = Some(time);
        self.known.silent = Some(time);
    }

    /// Whether the live pass is to go past what it has not read.
    #[must_use]
    pub fn is_far_behind(&self, schedule: &Schedule, now: Millis) -> bool {
        self.history().is_none() && schedule.live_end(now) - self.live > schedule.far()
    }

    /// Where the live pass is far behind the server's `now`, it goes on from there, and what lies between is left to the
    /// backfill, if that has nothing else to read. What that is.
    pub fn go_past(&mut self, schedule: &Schedule, now: Millis) -> Option<Window> {
        if !self.is_far_behind(schedule, now) {
            return None;
        }
        let to = schedule.live_end(now);
        let since = self.live.min(self.overlap);
        self.backfill = Some(Backfill { since, from: since, to });
        (self.live, self.overlap) = (to, floor_to(to - schedule.overlap, schedule.unit).max(self.overlap));
        self.leave_to_backfill(schedule);
        self.history()
    }

    /// Sweeps that have come to where the backfill began leave to it what it reads late enough for them.
    fn leave_to_backfill(&mut self, schedule: &Schedule) {
        let Some(Backfill { since, from, to }) = self.backfill else { return };
        for (&age, mark) in &mut self.sweeps {
            if since <= *mark {
                *mark = floor_to(to - age, schedule.unit).max(*mark);
            }
        }
        let serves = |(&age, &mark): (&Millis, &Millis)| mark < since && since < to - age;
        if from >= to && !self.sweeps.iter().any(serves) {
            self.backfill = None;
        }
    }

    /// What the backfill has still to read.
    #[must_use]
    pub fn history(&self) -> Option<Window> {
        self.backfill.map(|Backfill { from, to, .. }| Window { from, to }).filter(|rest| !rest.is_empty())
    }

    /// Whether everything of this time has been read once.
    #[must_use]
    pub fn has_read(&self, time: Millis) -> bool {
        time < self.live && !self.history().is_some_and(|rest| rest.contains(time))
    }

    /// Everything before it has been read once, and delivered.
    #[must_use]
    pub fn delivered_through(&self) -> Millis {
        self.history().map_or(self.live, |rest| rest.from)
    }

    /// The first records of all are listed, for `window` or elsewhere. That there were none before was the word of an API that
    /// had not shown anything yet: all that it called empty is read once more. Nothing of it was delivered, so nothing comes
    /// again. The backfill does it, so that what is new does not wait.
    pub fn hear(&mut self, schedule: &Schedule, window: Window) {
        let Some(silent) = self.known.silent.take() else { return };
        // Behind `window`, too, the live pass may have been told so.
        let to = if window.to < self.live { self.live } else { window.from.min(self.live) };
        if silent >= to {
            return;
        }
        let rest = self.history().unwrap_or(Window { from: silent, to });
        let from = silent.min(rest.from);
        self.backfill = Some(Backfill { since: from, from, to: to.max(rest.to) });
        self.leave_to_backfill(schedule);
    }

    /// A time as marks know it: rounded down to the source's clock unit.
    #[must_use]
    pub fn rounded(&self, time: Millis) -> Millis {
        floor_to(time, self.stream.source.clock_unit())
    }

    /// Whether a mark lies further ahead than it can at the server's time `now`.
    #[must_use]
    pub fn is_ahead_of(&self, now: Millis) -> bool {
        let now = now.saturating_add(ROUNDING + self.stream.source.clock_unit());
        let sweeps = self.sweeps.iter().any(|(&age, &mark)| mark > now.saturating_sub(age) && mark > self.floor());
        self.live.max(self.overlap) > now || self.floor() > now || sweeps
    }

    /// Puts every mark that is ahead of the server's `now` back to what was read when the last thing was that counts.
    /// Where that is not known, to where the oldest sweep is: the most that can be said to come again or to be missing.
    pub fn put_back(&mut self, schedule: &Schedule, now: Now) {
        let oldest = schedule.sweeps.last().copied().unwrap_or(schedule.overlap);
        let read = self.read_at.filter(|read| *read <= now.claimed).unwrap_or(now.sure.saturating_sub(oldest));
        let begun = self.begun.filter(|begun| *begun <= read).unwrap_or(Millis::MIN);
        let back = |mark: &mut Millis, age: Millis| {
            *mark = floor_to(read.saturating_sub(age), schedule.unit).max(begun).min(*mark);
        };
        back(&mut self.live, schedule.settle);
        back(&mut self.overlap, schedule.settle + schedule.overlap);
        for (&age, mark) in &mut self.sweeps {
            back(mark, age);
        }
        let live = self.live;
        self.backfill = self.backfill.map(|backfill| Backfill { to: backfill.to.min(live), ..backfill });
        self.read_at = Some(read);
    }

    /// Gives up what lies before `time`: nothing goes back there, either.
    pub fn skip_to(&mut self, time: Millis) {
        self.known.silent = self.known.silent.map(|silent| silent.max(time));
        for mark in [&mut self.live, &mut self.overlap].into_iter().chain(self.sweeps.values_mut()) {
            *mark = time.max(*mark);
        }
        let skip = |Backfill { since, from, to }| Backfill { since: time.max(since), from: time.max(from), to };
        self.backfill = self.backfill.map(skip).filter(|backfill| backfill.from < backfill.to);
    }

    /// Everything before it has been read by every pass: it is never read again, and what was delivered from it
    /// need not be remembered. This is `verified through`.
    #[must_use]
    pub fn floor(&self) -> Millis {
        let passes = self.passes_floor();
        self.history().map_or(passes, |rest| passes.min(rest.from))
    }

    /// The same without the backfill.
    #[must_use]
    pub fn passes_floor(&self) -> Millis {
        self.sweeps.values().copied().fold(self.live.min(self.overlap), Millis::min)
    }

    /// What to read next at the server's time `now`, if anything is due. `comfortable` is the length of a window
    /// that holds one batch; `all` asks for every sweep that has anything to read, however little. Others have their `turns`
    /// after each live job, or an API that answers more slowly than it is polled would starve them; and they in turn.
    #[must_use]
    pub fn plan(&self, schedule: &Schedule, now: Millis, comfortable: Millis, all: bool, turns: Turns) -> Option<Job> {
        let live = self.plan_live(schedule, now);
        let beside = || {
            let (sweep, backfill) =
                (self.plan_sweep(schedule, now, comfortable, all), self.plan_backfill(schedule, now));
            if turns.beside == Some(Pass::Backfill) { sweep.or(backfill) } else { backfill.or(sweep) }
        };
        if matches!(turns.last, Some(Pass::Live | Pass::Fore)) { beside().or(live) } else { live.or_else(beside) }
    }

    /// The live job, if the live pass is behind `now`.
    #[must_use]
    pub fn plan_live(&self, schedule: &Schedule, now: Millis) -> Option<Job> {
        let to = schedule.live_end(now);
        let priority = if to - self.live > schedule.far() { Priority::CatchUp } else { Priority::Live };
        let range = Window { from: self.live.min(self.overlap), to };
        (self.live < to).then_some(Job { pass: Pass::Live, priority, range })
    }

    /// What of it is over, if clocks say by now that some of it is not.
    fn plan_backfill(&self, schedule: &Schedule, now: Millis) -> Option<Job> {
        let range = self.history().map(|Window { from, to }| Window { from, to: to.min(schedule.live_end(now)) })?;
        (!range.is_empty()).then_some(Job { pass: Pass::Backfill, priority: Priority::CatchUp, range })
    }

    /// The sweep that is most overdue, measured by how much each lets gather.
    fn plan_sweep(&self, schedule: &Schedule, now: Millis, comfortable: Millis, all: bool) -> Option<Job> {
        let due = self.sweeps.iter().filter_map(|(&age, &from)| {
            let left = self.backfill.filter(|backfill| from < backfill.since && backfill.since < backfill.to - age);
            let end = floor_to(now - age, schedule.unit);
            let range = Window { from, to: left.map_or(end, |backfill| end.min(backfill.since)) };
            let gather = comfortable.min((age / SWEEP_EVERY).max(schedule.poll + schedule.unit)).max(schedule.unit);
            let enough = if all || left.is_some() { 1 } else { gather };
            let job = Job { pass: Pass::Sweep(age), priority: Priority::Sweep, range };
            (range.len() >= enough).then_some((range.len() as f64 / gather as f64, job))
        });
        due.max_by(|(a, _), (b, _)| a.total_cmp(b)).map(|(_, job)| job)
    }

    /// Takes note that `window` was read completely, beginning at the server's time `read_at`, and delivered.
    /// That serves every pass whose mark it reaches: a window that was old enough for all of them when it was
    /// read needs no other reading.
    pub fn advance(&mut self, schedule: &Schedule, window: Window, read_at: Millis) {
        let mut counts = false;
        let mut reach = |mark: &mut Millis, age: Millis| {
            let old_enough = floor_to(read_at - age, schedule.unit).min(window.to);
            if window.from <= *mark && *mark < old_enough {
                *mark = old_enough;
                counts = true;
            }
        };
        reach(&mut self.live, schedule.settle);
        reach(&mut self.overlap, schedule.settle + schedule.overlap);
        for (&age, mark) in &mut self.sweeps {
            reach(mark, age);
        }
        if let Some(backfill) = &mut self.backfill {
            reach(&mut backfill.from, schedule.settle);
        }
        if counts {
            self.read_at = self.read_at.max(Some(read_at));
        }
        self.leave_to_backfill(schedule);
    }

    /// The mark that a pass goes on from.
    #[must_use]
    pub fn mark_of(&self, pass: Pass) -> Millis {
        match pass {
            Pass::Live | Pass::Fore => self.live,
            Pass::Sweep(age) => *self.sweeps.get(&age).unwrap_or(&self.live),
            Pass::Backfill => self.history().map_or(self.live, |rest| rest.from),
        }
    }

    /// Its marks: what a job that was of use has moved.
    #[must_use]
    pub fn marks(&self) -> Vec<Millis> {
        let history = self.backfill.map(|backfill| backfill.from);
        [self.live, self.overlap].into_iter().chain(self.sweeps.values().copied()).chain(history).collect()
    }
}

impl Schedule {
    /// Where in its polls the stream called `name` asks.
    #[must_use]
    pub fn phase_of(name: &str, poll: Millis, unit: Millis) -> Millis {
        let hash = blake3::hash(name.as_bytes());
        let number = hash.as_bytes().iter().take(4).fold(0, |number, byte| number << 8 | Millis::from(*byte));
        floor_to(number % poll, unit)
    }

    /// The poll that the server's time `now` falls into.
    #[must_use]
    pub fn tick(&self, now: Millis) -> Millis {
        floor_to(now - self.phase, self.poll) + self.phase
    }

    /// How far the live pass goes at the server's time `now`.
    fn live_end(&self, now: Millis) -> Millis {
        floor_to(now - self.settle, self.unit)
    }

    /// Further behind is far behind.
    fn far(&self) -> Millis {
        (3 * self.poll).max(60_000)
    }
}

/// Whose turn it was.
#[derive(Debug, Clone, Copy, Default)]
pub struct Turns {
    /// The pass of the job before.
    last: Option<Pass>,
    /// And of the last that gives way to what is new.
    beside: Option<Pass>,
}

impl Turns {
    /// It was `pass`'s turn.
    pub const fn took(&mut self, pass: Pass) {
        self.last = Some(pass);
        if pass.gives_way() {
            self.beside = Some(pass);
        }
    }

    /// It was nobody's.
    pub const fn waited(&mut self) {
        self.last = None;
    }

    /// The pass of the job before.
    #[must_use]
    pub const fn last(self) -> Option<Pass> {
        self.last
    }
}

/// How far beyond what is surely over the server's clock may be before that is read, too.
const APART: Millis = 5_000;
/// How far that is read at once, where nothing says how far it goes.
const REACH: Millis = 3_600_000;
/// The newest records that do not say how far there are any.
const ABSURD: usize = 5;

/// How far a lane has read beyond what is surely over: known to nobody else, and forgotten with the process. What it
/// finds is delivered and remembered; the live pass reads it once more when it surely is over, and finds nothing new.
#[derive(Debug, Clone, Copy)]
pub struct Fore {
    through: Millis,
    reach: Millis,
    polled: Millis,
    /// Whether the last reading went as far as there may be anything.
    ended: bool,
}

impl Default for Fore {
    fn default() -> Self {
        Self { through: Millis::MIN, reach: REACH, polled: Millis::MIN, ended: true }
    }
}

impl Fore {
    /// What to read at `now`, once a poll, if clocks are so far apart that something may wait there; with `all`, until it
    /// has come to the end once.
    #[must_use]
    pub fn plan(&self, cursor: &Cursor, schedule: &Schedule, now: Now, all: bool) -> Option<Job> {
        let once = self.ended && self.polled != Millis::MIN;
        let is_polled = if all { once } else { self.polled == schedule.tick(now.sure) };
        let latest = Self::latest(cursor.live, now);
        if latest - now.sure <= APART || is_polled {
            return None;
        }
        let to = floor_to(latest - schedule.settle, schedule.unit);
        let from = self.through.saturating_sub(schedule.overlap).max(cursor.live);
        let range = Window { from, to: to.min(floor_to(from.saturating_add(self.reach), schedule.unit)) };
        (!range.is_empty()).then_some(Job { pass: Pass::Fore, priority: Priority::Live, range })
    }

    /// Where the live pass has nothing to ask, as it stands beyond what is surely over, one answer is enough to go by: else
    /// there would never be another.
    const fn latest(live: Millis, now: Now) -> Millis {
        if live > now.sure { now.claimed } else { now.latest }
    }

    /// Takes note that what was planned at `now` was more than a poll is long: less is asked for, or it would never be read.
    pub fn was_too_much(&mut self, schedule: &Schedule, now: Now) {
        (self.polled, self.ended) = (schedule.tick(now.sure), false);
        self.reach = (self.reach / 2).max(schedule.poll).max(schedule.overlap.saturating_add(schedule.unit));
    }

    /// Takes note that `range` was read at `now`, and of the times that were `listed` there. How far it goes on is known
    /// by records alone, but for the newest few, whose times may be absurd: an empty future is not read.
    pub fn read(&mut self, schedule: &Schedule, range: Window, now: Now, mut listed: Vec<Millis>) {
        self.polled = schedule.tick(now.sure);
        self.ended = range.to >= floor_to(Self::latest(range.from, now) - schedule.settle, schedule.unit);
        listed.sort_unstable();
        let newest = listed.len().checked_sub(ABSURD).map(|index| listed[index]);
        match newest {
            Some(newest) if newest > self.through => {
                (self.through, self.reach) = (newest.min(range.to), self.reach.saturating_mul(2).min(REACH));
            }
            _ if !self.ended => self.reach = self.reach.saturating_mul(2),
            _ => {}
        }
    }
}
