//! A lane's marks, and the window that it should read next.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::known::Known;
use crate::event::{Millis, StreamIdentity};
use crate::source::{Now, Priority};
use crate::window::{Window, floor_to};

/// When which part of the log is read: a stream's config in milliseconds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Schedule {
    /// The source's clock unit.
    pub unit: Millis,
    /// Between two live polls.
    pub poll: Millis,
    /// The live pass stops this far behind the server's clock.
    pub settle: Millis,
    /// Every live poll reads this much again.
    pub overlap: Millis,
    /// The ages of the sweeps, ascending.
    pub sweeps: Vec<Millis>,
}

/// A pass: a schedule on which a lane reads windows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Pass {
    /// Near now.
    Live,
    /// Beyond what is surely over, while clocks contradict each other: moves no mark further than what is.
    Fore,
    /// Everything once more at this age.
    Sweep(Millis),
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

/// Where a lane stands. Each mark says: everything before it has been read completely *at this age or older*,
/// and what that showed has been delivered.
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

/// A sweep waits until a part of its age has gathered, so that a quiet stream costs few calls: this part.
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
            commits: 0,
            read_at: None,
            begun: Some(start),
            known: Known { silent: Some(start), ..Known::default() },
        }
    }

    /// Takes on the ages that are configured now. A new sweep starts where everything is still remembered, an
    /// old one's mark is dropped.
    pub fn adopt(&mut self, schedule: &Schedule) {
        let floor = self.floor();
        self.sweeps = schedule.sweeps.iter().map(|&age| (age, *self.sweeps.get(&age).unwrap_or(&floor))).collect();
    }

    /// Puts every mark to `time`, rounded down to the clock unit. What is remembered of it must go, too, or what lies
    /// behind `time` would not be delivered again.
    pub fn set_to(&mut self, time: Millis) {
        let time = self.rounded(time);
        for mark in [&mut self.live, &mut self.overlap].into_iter().chain(self.sweeps.values_mut()) {
            *mark = time;
        }
        self.begun = Some(time);
        self.known.silent = Some(time);
    }

    /// The first records of all are listed, for `window`, read at the server's time `read_at`, or elsewhere. That there were
    /// none before was the word of an API that had not shown anything yet: all that it called empty is read once more. Nothing
    /// of it was delivered, so nothing comes again. Sweeps do it, so that what is new does not wait; but where no sweep reads
    /// `window` again, the live pass has read nothing else yet, and goes on from there.
    pub fn hear(&mut self, window: Window, read_at: Millis) {
        let Some(silent) = self.known.silent.take().filter(|silent| *silent < window.from) else { return };
        let oldest = self.sweeps.keys().next_back().copied().unwrap_or_default();
        if window.to <= read_at.saturating_sub(oldest) {
            (self.live, self.overlap) = (silent.min(self.live), silent.min(self.overlap));
        }
        self.sweeps.values_mut().for_each(|mark| *mark = silent.min(*mark));
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
        self.read_at = Some(read);
    }

    /// Gives up what lies before `time`: nothing goes back there, either.
    pub fn skip_to(&mut self, time: Millis) {
        self.known.silent = self.known.silent.map(|silent| silent.max(time));
        for mark in [&mut self.live, &mut self.overlap].into_iter().chain(self.sweeps.values_mut()) {
            *mark = time.max(*mark);
        }
    }

    /// Everything before it has been read by every pass: it is never read again, and what was delivered from it
    /// need not be remembered. This is `verified through`.
    #[must_use]
    pub fn floor(&self) -> Millis {
        self.sweeps.values().copied().fold(self.live.min(self.overlap), Millis::min)
    }

    /// What to read next at the server's time `now`, if anything is due. `comfortable` is the length of a window
    /// that holds one batch; `all` asks for every sweep that has anything to read, however little. `after` is the
    /// pass of the job before: sweeps have their turn after each live job, or an API that answers more slowly than it
    /// is polled would starve them.
    #[must_use]
    pub fn plan(
        &self,
        schedule: &Schedule,
        now: Millis,
        comfortable: Millis,
        all: bool,
        after: Option<Pass>,
    ) -> Option<Job> {
        let live = self.plan_live(schedule, now);
        let sweep = || self.plan_sweep(schedule, now, comfortable, all);
        if matches!(after, Some(Pass::Live | Pass::Fore)) { sweep().or(live) } else { live.or_else(sweep) }
    }

    /// The live job, if the live pass is behind `now`.
    #[must_use]
    pub fn plan_live(&self, schedule: &Schedule, now: Millis) -> Option<Job> {
        let to = floor_to(now - schedule.settle, schedule.unit);
        let far = (3 * schedule.poll).max(60_000);
        let priority = if to - self.live > far { Priority::CatchUp } else { Priority::Live };
        let range = Window { from: self.live.min(self.overlap), to };
        (self.live < to).then_some(Job { pass: Pass::Live, priority, range })
    }

    /// The sweep that is most overdue, measured by how much each lets gather.
    fn plan_sweep(&self, schedule: &Schedule, now: Millis, comfortable: Millis, all: bool) -> Option<Job> {
        let due = self.sweeps.iter().filter_map(|(&age, &from)| {
            let range = Window { from, to: floor_to(now - age, schedule.unit) };
            let gather = comfortable.min(age / SWEEP_EVERY).max(schedule.unit);
            let enough = if all { 1 } else { gather };
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
        if counts {
            self.read_at = self.read_at.max(Some(read_at));
        }
    }

    /// The mark that a pass goes on from.
    #[must_use]
    pub fn mark_of(&self, pass: Pass) -> Millis {
        match pass {
            Pass::Live | Pass::Fore => self.live,
            Pass::Sweep(age) => *self.sweeps.get(&age).unwrap_or(&self.live),
        }
    }

    /// Its marks: what a job that was of use has moved.
    #[must_use]
    pub fn marks(&self) -> Vec<Millis> {
        [self.live, self.overlap].into_iter().chain(self.sweeps.values().copied()).collect()
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
        let is_polled = if all { once } else { self.polled == floor_to(now.sure, schedule.poll) };
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
        (self.polled, self.ended) = (floor_to(now.sure, schedule.poll), false);
        self.reach = (self.reach / 2).max(schedule.poll).max(schedule.overlap.saturating_add(schedule.unit));
    }

    /// Takes note that `range` was read at `now`, and of the times that were `listed` there. How far it goes on is known
    /// by records alone, but for the newest few, whose times may be absurd: an empty future is not read.
    pub fn read(&mut self, schedule: &Schedule, range: Window, now: Now, mut listed: Vec<Millis>) {
        self.polled = floor_to(now.sure, schedule.poll);
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
