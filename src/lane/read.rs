//! A job's windows, read ahead.

use std::collections::{HashMap, VecDeque};
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use tokio::task::JoinHandle;
use tracing::Instrument;

use super::staged::Parts;
use super::trace::Reason;
use super::{Lane, LaneError, Until};
use crate::event::Millis;
use crate::feed::{Overflow, Wanted, WindowRead};
use crate::health::WaitsFor;
use crate::shutdown::Shutdown;
use crate::spans::{self, WindowOutcome};
use crate::state::cursor::Cursor;
use crate::state::schedule::{Job, Pass, Schedule};
use crate::window::Window;

/// A job, as it is done.
#[derive(Debug, Clone, Copy)]
pub(super) struct Task {
    pub(super) job: Job,
    /// The time that it was planned at: the same for all lanes of the stream.
    pub(super) as_of: Millis,
    pub(super) until: Until,
}

/// A job that is under way.
pub(super) struct Going {
    task: Task,
    /// Its windows that are read ahead, in order, and where the next one begins.
    ahead: VecDeque<Ahead>,
    next: Millis,
    /// The longest window.
    longest: Millis,
}

/// What gave way to what is new, by pass: it goes on where it was.
pub(super) type GaveWay = HashMap<Pass, Going>;

/// A reading in the background, given up when dropped.
struct Ahead {
    wanted: Wanted,
    trace: Arc<spans::Window>,
    task: JoinHandle<Result<Arc<WindowRead>, Overflow>>,
}

impl Drop for Ahead {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Lane {
    /// Reads a job's windows ahead, bounded, and takes them in order, until it gives way.
    pub(super) async fn read(
        &self,
        cursor: &mut Cursor,
        parts: &mut Parts,
        task: Task,
        gave_way: &mut GaveWay,
        shutdown: &Shutdown,
    ) -> Result<Vec<Millis>, LaneError> {
        let Task { job, until, .. } = task;
        let is_fore = job.pass == Pass::Fore;
        let is_live = job.pass == Pass::Live;
        let goes_on = until == Until::Shutdown;
        gave_way.retain(|pass, _| cursor.has(*pass));
        let mut going = self.go_on(task, gave_way.remove(&job.pass));
        // What lies ahead is mostly empty, so it is asked for at once.
        let mut at_once = is_fore;
        let mut listed = Vec::new();
        // Nothing waits for it longer than a poll.
        let bound = Duration::from_millis(self.feed.schedule.poll.unsigned_abs());
        let mut enough = pin!(tokio::time::sleep(bound));
        loop {
            self.fill(&mut going, at_once);
            let Some(mut first) = going.ahead.pop_front() else { return Ok(listed) };
            first.wanted.is_awaited();
            let read = loop {
                self.board.waits_for(WaitsFor::Source);
                tokio::select! {
                    biased;
                    read = &mut first.task => break read,
                    () = shutdown.requested() => return Ok(listed),
                    // While the API is what is waited for, what is on its way comes through and shows.
                    () = parts.answered(), if !parts.is_empty() => Box::pin(self.settle_first(cursor, parts, shutdown)).await?,
                    () = self.until_poll(|schedule, tick| cursor.plan_live(schedule, tick).is_some()),
                        if goes_on && job.pass.gives_way() =>
                    {
                        going.ahead.push_front(first);
                        gave_way.insert(job.pass, going);
                        return Ok(listed);
                    }
                    // It has fallen far behind meanwhile.
                    () = self.until_poll(|schedule, tick| cursor.is_far_behind(schedule, tick)), if goes_on && is_live => {
                        return Ok(listed);
                    }
                    () = &mut enough, if is_fore => {
                        // Until caught up it takes as long as it takes, if it still seems that anything may lie there.
                        let now = self.feed.now();
                        if goes_on || now.latest.max(now.claimed) <= now.sure {
                            return Ok(listed);
                        }
                        enough.as_mut().reset(tokio::time::Instant::now() + bound);
                    }
                }
            };
            match read {
                Ok(Ok(read)) => {
                    if is_fore {
                        listed.extend(read.found.iter().filter_map(|found| found.time));
                        // The records that were too many lie before it.
                        at_once |= read.found.is_empty();
                    }
                    let before = parts.cursor(cursor);
                    let silent = before.known.silent.map(|_| before.commits);
                    // Boxed, as whoever waits for the API does not need what it takes.
                    let stepped = Box::pin(self.step(cursor, parts, read, &first.trace, shutdown));
                    let stepped = stepped.instrument(first.trace.span()).await;
                    stepped.inspect_err(|error| first.trace.failed(error.reason()))?;
                    let now = parts.cursor(cursor);
                    if let Some(commits) = silent.filter(|_| now.known.silent.is_none()) {
                        if commits > 0 && now.history().next().is_some() {
                            self.tell_heard(now);
                        }
                        // What is read ahead was read of an API that had not shown anything, too.
                        gave_way.clear();
                        self.feed.forget_ahead();
                        return Ok(listed);
                    }
                }
                // Shorter windows from here on; what was read ahead began at other places.
                Ok(Err(Overflow)) => {
                    first.trace.ended(WindowOutcome::TooFull);
                    going.next = first.wanted.window().from;
                    going.ahead.clear();
                    at_once = false;
                }
                Err(ended) => std::panic::resume_unwind(ended.into_panic()),
            }
            if shutdown.is_requested() {
                return Ok(listed);
            }
            if goes_on && !is_live && self.live_is_due(cursor) {
                if job.pass.gives_way() {
                    gave_way.insert(job.pass, going);
                }
                return Ok(listed);
            }
        }
    }

    /// A job where it was when it gave way, if it still begins there; else as it begins.
    fn go_on(&self, task: Task, gave_way: Option<Going>) -> Going {
        let Window { from, .. } = task.job.range;
        let begins = |going: &Going| going.ahead.front().map_or(going.next, |first| first.wanted.window().from) == from;
        match gave_way.filter(begins) {
            Some(going) => Going { task, ..going },
            None => Going { task, ahead: VecDeque::new(), next: from, longest: self.feed.longest(&task.job) },
        }
    }

    /// Reads further ahead.
    fn fill(&self, going: &mut Going, at_once: bool) {
        let Task { job, as_of, .. } = going.task;
        let to = job.range.to;
        while going.ahead.len() < self.feed.depth() && going.next < to {
            let window = if at_once {
                Window { from: going.next, to }
            } else {
                self.feed.window(going.next, to, as_of, going.longest)
            };
            going.next = window.to;
            going.ahead.push_back(self.read_ahead(window, job, as_of));
        }
    }

    fn read_ahead(&self, window: Window, job: Job, as_of: Millis) -> Ahead {
        let (feed, trace) = (Arc::clone(&self.feed), Arc::new(self.trace(window, job.pass)));
        let wanted = feed.want(window, as_of);
        let this = wanted.clone();
        let read = async move { feed.read(&this, job.priority).await };
        let task = tokio::spawn(read.instrument(trace.span()));
        Ahead { wanted, trace, task }
    }

    /// Waits, poll by poll, until something is so at one.
    async fn until_poll(&self, is_so: impl Fn(&Schedule, Millis) -> bool) {
        let schedule = &self.feed.schedule;
        loop {
            let tick = schedule.tick(self.feed.now().sure);
            if is_so(schedule, tick) {
                return;
            }
            self.wait_for(tick + schedule.poll).await;
        }
    }
}
