//! Reading beyond what is surely over, while clocks contradict each other.

use super::cursor::Cursor;
use super::schedule::{Job, Pass, Schedule};
use crate::event::Millis;
use crate::page::Priority;
use crate::window::{Now, Window, floor_to};

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
