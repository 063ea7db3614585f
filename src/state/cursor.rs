//! A lane's marks, and the window that it should read next.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::backfill::Backfill;
use super::known::Known;
use super::schedule::{Job, Pass, Schedule, Turns};
use crate::event::{Millis, StreamIdentity};
use crate::page::Priority;
use crate::window::{Now, Window, floor_to};

/// Where a lane stands. Each mark says: everything before it has been read completely *at this age or older*,
/// and what that showed has been delivered; or it lies in a backfill.
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
    /// History that is read beside them, newest first. Kept when it is read until every sweep has come to where it began: what
    /// it has read they need not read.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub backfills: Vec<Backfill>,
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

/// A lane that has fallen behind so often, and has still to read all that, reads in its turn what comes after.
const MOST_BACKFILLS: usize = 8;

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
            backfills: Vec::new(),
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
        self.leave_to_backfills(schedule);
    }

    /// Puts every mark to `time`, rounded down to the clock unit. What is remembered of it must go, too, or what lies
    /// behind `time` would not be delivered again.
    pub fn set_to(&mut self, time: Millis) {
        let time = self.rounded(time);
        for mark in [&mut self.live, &mut self.overlap].into_iter().chain(self.sweeps.values_mut()) {
            *mark = time;
        }
        self.backfills.clear();
        self.begun = Some(time);
        self.known.silent = Some(time);
    }

    /// Whether the live pass is to go past what it has not read.
    #[must_use]
    pub fn is_far_behind(&self, schedule: &Schedule, now: Millis) -> bool {
        self.backfills.len() < MOST_BACKFILLS && schedule.live_end(now) - self.live > schedule.far()
    }

    /// Where the live pass is far behind the server's `now`, it goes on from there, and what lies between is left to a
    /// backfill. What that is.
    pub fn go_past(&mut self, schedule: &Schedule, now: Millis) -> Option<Window> {
        if !self.is_far_behind(schedule, now) {
            return None;
        }
        let to = schedule.live_end(now);
        let since = self.live.min(self.overlap);
        let backfill = Backfill { since, from: since, to };
        // One that began no earlier is a part of it.
        self.backfills.retain(|other| other.since < since);
        self.backfills.insert(0, backfill);
        (self.live, self.overlap) = (to, floor_to(to - schedule.overlap, schedule.unit).max(self.overlap));
        self.leave_to_backfills(schedule);
        Some(backfill.rest())
    }

    /// Sweeps that have come to where a backfill began leave to it what it reads late enough for them.
    fn leave_to_backfills(&mut self, schedule: &Schedule) {
        for &Backfill { since, to, .. } in &self.backfills {
            for (&age, mark) in &mut self.sweeps {
                if since <= *mark {
                    *mark = floor_to(to - age, schedule.unit).max(*mark);
                }
            }
        }
        let sweeps = &self.sweeps;
        let serves = |backfill: &Backfill| sweeps.iter().any(|(&age, &mark)| backfill.is_ahead_of(age, mark));
        self.backfills.retain(|backfill| !backfill.rest().is_empty() || serves(backfill));
    }

    /// What backfills have still to read, newest first.
    pub fn history(&self) -> impl Iterator<Item = Window> {
        self.backfills.iter().map(|backfill| backfill.rest()).filter(|rest| !rest.is_empty())
    }

    /// The earliest of the marks of `passes` and of backfills.
    fn with_history(&self, passes: Millis) -> Millis {
        self.history().map(|rest| rest.from).fold(passes, Millis::min)
    }

    /// Whether everything of this time has been read once.
    #[must_use]
    pub fn has_read(&self, time: Millis) -> bool {
        time < self.live && !self.history().any(|rest| rest.contains(time))
    }

    /// Everything before it has been read once, and delivered.
    #[must_use]
    pub fn delivered_through(&self) -> Millis {
        self.with_history(self.live)
    }

    /// The first records of all are listed, for `window` or elsewhere. That there were none before was the word of an API that
    /// had not shown anything yet: all that it called empty is read once more. Nothing of it was delivered, so nothing comes
    /// again. A backfill does it, so that what is new does not wait.
    pub fn hear(&mut self, schedule: &Schedule, window: Window) {
        let Some(silent) = self.known.silent.take() else { return };
        // Behind `window`, too, the live pass may have been told so.
        let to = if window.to < self.live { self.live } else { window.from.min(self.live) };
        if silent >= to {
            return;
        }
        let all = self.history().fold(Window { from: silent, to }, Window::around);
        self.backfills = vec![Backfill { since: all.from, from: all.from, to: all.to }];
        self.leave_to_backfills(schedule);
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
        self.backfills.iter_mut().for_each(|backfill| backfill.to = backfill.to.min(live));
        self.read_at = Some(read);
    }

    /// Gives up what lies before `time`: nothing goes back there, either.
    pub fn skip_to(&mut self, time: Millis) {
        self.known.silent = self.known.silent.map(|silent| silent.max(time));
        for mark in [&mut self.live, &mut self.overlap].into_iter().chain(self.sweeps.values_mut()) {
            *mark = time.max(*mark);
        }
        self.backfills.iter_mut().for_each(|backfill| backfill.from = time.max(backfill.from));
        self.backfills.retain(|backfill| !backfill.rest().is_empty());
    }

    /// Everything before it has been read by every pass: it is never read again, and what was delivered from it
    /// need not be remembered. This is `verified through`.
    #[must_use]
    pub fn floor(&self) -> Millis {
        self.with_history(self.passes_floor())
    }

    /// The same without backfills.
    #[must_use]
    pub fn passes_floor(&self) -> Millis {
        self.sweeps.values().copied().fold(self.live.min(self.overlap), Millis::min)
    }

    /// What to read next at the server's time `now`, if anything is due. `comfortable` is the length of a window
    /// that holds one batch; `all` asks for every sweep that has anything to read, however little. Others have their `turns`
    /// after each live job, or an API that answers more slowly than it is polled would starve them; and so has each among
    /// them, or one that cannot read would starve the others.
    #[must_use]
    pub fn plan(&self, schedule: &Schedule, now: Millis, comfortable: Millis, all: bool, turns: &Turns) -> Option<Job> {
        let live = self.plan_live(schedule, now);
        let beside = || {
            let sweeps = self.plan_sweeps(schedule, now, comfortable, all);
            self.plan_backfills(schedule, now).chain(sweeps).min_by_key(|job| turns.place_of(job.pass))
        };
        if matches!(turns.last(), Some(Pass::Live | Pass::Fore)) { beside().or(live) } else { live.or_else(beside) }
    }

    /// The live job, if the live pass is behind `now`.
    #[must_use]
    pub fn plan_live(&self, schedule: &Schedule, now: Millis) -> Option<Job> {
        let to = schedule.live_end(now);
        let priority = if to - self.live > schedule.far() { Priority::CatchUp } else { Priority::Live };
        let range = Window { from: self.live.min(self.overlap), to };
        (self.live < to).then_some(Job { pass: Pass::Live, priority, range })
    }

    /// Backfills whose end is over, which clocks may say by now that it is not; newest first.
    fn plan_backfills(&self, schedule: &Schedule, now: Millis) -> impl Iterator<Item = Job> {
        let end = schedule.live_end(now);
        self.backfills.iter().filter(move |backfill| !backfill.rest().is_empty() && backfill.to <= end).map(
            |backfill| Job {
                pass: Pass::Backfill(backfill.since),
                priority: Priority::CatchUp,
                range: backfill.rest(),
            },
        )
    }

    /// The sweeps that are due, the most overdue first, measured by how much each lets gather; of two the older one, whose
    /// windows serve the younger, too.
    fn plan_sweeps(&self, schedule: &Schedule, now: Millis, comfortable: Millis, all: bool) -> Vec<Job> {
        let due = self.sweeps.iter().rev().filter_map(|(&age, &from)| {
            let ahead = self.backfills.iter().filter(|backfill| backfill.is_ahead_of(age, from));
            let left = ahead.map(|backfill| backfill.since).min();
            let end = floor_to(now - age, schedule.unit);
            let range = Window { from, to: left.map_or(end, |since| end.min(since)) };
            let gather = comfortable.min((age / SWEEP_EVERY).max(schedule.poll + schedule.unit)).max(schedule.unit);
            let enough = if all || left.is_some() { 1 } else { gather };
            let job = Job { pass: Pass::Sweep(age), priority: Priority::Sweep, range };
            (range.len() >= enough).then_some((range.len() as f64 / gather as f64, job))
        });
        let mut due: Vec<(f64, Job)> = due.collect();
        due.sort_by(|(a, _), (b, _)| b.total_cmp(a));
        due.into_iter().map(|(_, job)| job).collect()
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
        // What was read before all of it was over, by another pass, is not what sweeps leave to it.
        for backfill in self.backfills.iter_mut().filter(|backfill| backfill.to <= schedule.live_end(read_at)) {
            reach(&mut backfill.from, schedule.settle);
        }
        if counts {
            self.read_at = self.read_at.max(Some(read_at));
        }
        self.leave_to_backfills(schedule);
    }

    /// The mark that a pass goes on from.
    #[must_use]
    pub fn mark_of(&self, pass: Pass) -> Millis {
        match pass {
            Pass::Live | Pass::Fore => self.live,
            Pass::Sweep(age) => *self.sweeps.get(&age).unwrap_or(&self.live),
            Pass::Backfill(since) => {
                let this = self.backfills.iter().find(|backfill| backfill.since == since);
                this.map_or(self.live, |backfill| backfill.from)
            }
        }
    }

    /// Whether it has such a pass: a backfill may have become a part of another.
    #[must_use]
    pub fn has(&self, pass: Pass) -> bool {
        match pass {
            Pass::Live | Pass::Fore => true,
            Pass::Sweep(age) => self.sweeps.contains_key(&age),
            Pass::Backfill(since) => self.backfills.iter().any(|backfill| backfill.since == since),
        }
    }

    /// Its marks: what a job that was of use has moved.
    #[must_use]
    pub fn marks(&self) -> Vec<Millis> {
        let history = self.backfills.iter().map(|backfill| backfill.from);
        [self.live, self.overlap].into_iter().chain(self.sweeps.values().copied()).chain(history).collect()
    }
}
