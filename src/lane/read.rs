//! What a pass reads ahead: its windows in order, in the background, whatever the lane does meanwhile.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::task::JoinHandle;
use tracing::Instrument;

use super::{Lane, Until};
use crate::event::Millis;
use crate::feed::{Overflow, Wanted, WindowRead};
use crate::source::Now;
use crate::state::cursor::{Cursor, Fore, Job, Pass, Schedule};
use crate::telemetry::spans::{self, WindowOutcome};
use crate::window::Window;

/// The fewest windows of a pass that are read ahead.
const LEAST_DEPTH: usize = 2;

/// A reading in the background, given up when dropped.
pub(super) struct Ahead {
    wanted: Wanted,
    pub trace: Arc<spans::Window>,
    task: JoinHandle<Result<Arc<WindowRead>, Overflow>>,
}

impl Ahead {
    /// The lane can do nothing else before it is read.
    pub fn is_awaited(&self) {
        self.wanted.is_awaited();
    }

    /// Until it is read.
    pub async fn read(&mut self) -> Result<Arc<WindowRead>, Overflow> {
        match (&mut self.task).await {
            Ok(read) => read,
            Err(ended) => std::panic::resume_unwind(ended.into_panic()),
        }
    }
}

impl Drop for Ahead {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// A job, as it is read.
pub(super) struct Reader {
    job: Job,
    /// The time that it was planned at: the same for all lanes of the stream.
    as_of: Millis,
    pub until: Until,
    ahead: VecDeque<Ahead>,
    /// Where the next window begins.
    next: Millis,
    /// What is left is asked for as one window.
    at_once: bool,
    /// What was listed ahead of the live pass.
    listed: Vec<Millis>,
}

impl Reader {
    fn new(job: Job, as_of: Millis, until: Until) -> Self {
        // What lies ahead is mostly empty, so it is asked for at once.
        let at_once = job.pass == Pass::Fore;
        Self { job, as_of, until, ahead: VecDeque::new(), next: job.range.from, at_once, listed: Vec::new() }
    }

    pub const fn pass(&self) -> Pass {
        self.job.pass
    }

    pub fn into_listed(self) -> Vec<Millis> {
        self.listed
    }

    /// Takes what was read; nothing where that was too much.
    pub fn take(&mut self, first: &Ahead, read: Result<Arc<WindowRead>, Overflow>) -> Option<Arc<WindowRead>> {
        match read {
            Ok(read) => {
                if self.job.pass == Pass::Fore {
                    self.listed.extend(read.found.iter().filter_map(|found| found.time));
                    // The records that were too many lie before it.
                    self.at_once |= read.found.is_empty();
                }
                Some(read)
            }
            // Shorter windows from here on; what was read ahead began at other places.
            Err(Overflow) => {
                first.trace.ended(WindowOutcome::TooFull);
                self.next = first.wanted.window().from;
                self.ahead.clear();
                self.at_once = false;
                None
            }
        }
    }

    /// The window is not read yet, and waited for later.
    pub fn give_back(&mut self, first: Ahead) {
        self.ahead.push_front(first);
    }

    /// Where it goes on.
    fn from(&self) -> Millis {
        self.ahead.front().map_or(self.next, |ahead| ahead.wanted.window().from)
    }
}

/// What is new, ahead of the live pass.
pub(super) struct Fresh {
    fore: Fore,
    /// Not read before this.
    rests: Instant,
}

impl Fresh {
    pub fn new() -> Self {
        Self { fore: Fore::default(), rests: Instant::now() }
    }

    /// See [`Fore::plan`].
    pub fn plan(&self, cursor: &Cursor, schedule: &Schedule, now: Now, all: bool) -> Option<Job> {
        // History has half of the time.
        let rests = cursor.is_far_behind(schedule, now.sure) && Instant::now() < self.rests;
        self.fore.plan(cursor, schedule, now, all).filter(|_| !rests)
    }

    /// Takes note of what `job`, planned at `now`, listed, and of how long that took.
    pub fn read(&mut self, schedule: &Schedule, job: Job, now: Now, listed: Vec<Millis>, took: Duration, all: bool) {
        self.rests = Instant::now() + took;
        if listed.is_empty() && took >= Duration::from_millis(schedule.poll.unsigned_abs()) && !all {
            self.fore.was_too_much(schedule, now);
        } else {
            self.fore.read(schedule, job.range, now, listed);
        }
    }
}

/// Jobs that made room for others.
#[derive(Default)]
pub(super) struct Readers(Vec<Reader>);

impl Readers {
    /// A reader of `job`: the one that goes on there, if there is one.
    pub fn take(&mut self, job: Job, as_of: Millis, until: Until) -> Reader {
        let known = self.0.iter().position(|reader| reader.job.pass == job.pass).map(|at| self.0.swap_remove(at));
        match known.filter(|reader| reader.from() == job.range.from && reader.next <= job.range.to) {
            Some(reader) => Reader { job, as_of, until, ..reader },
            None => Reader::new(job, as_of, until),
        }
    }

    pub fn keep(&mut self, reader: Reader) {
        self.0.push(reader);
    }

    /// The passes whose next window is not read yet.
    pub fn stuck(&self) -> Vec<Pass> {
        let waits = |reader: &&Reader| reader.ahead.front().is_some_and(|ahead| !ahead.task.is_finished());
        self.0.iter().filter(waits).map(Reader::pass).collect()
    }
}

impl Lane {
    /// The next window of a job, others read ahead behind it; `None` at its end.
    pub(super) fn next_ahead(&self, reader: &mut Reader) -> Option<Ahead> {
        let depth = self.feed.depth();
        // Other passes have their turn while these are read.
        let depth = if reader.job.pass == Pass::Live { depth } else { (depth / 2).max(LEAST_DEPTH) };
        let (job, as_of, longest) = (reader.job, reader.as_of, self.feed.longest(&reader.job));
        while reader.ahead.len() < depth && reader.next < job.range.to {
            let window = if reader.at_once {
                Window { from: reader.next, to: job.range.to }
            } else {
                self.feed.window(reader.next, job.range.to, as_of, longest)
            };
            reader.next = window.to;
            reader.ahead.push_back(self.read_ahead(window, job, as_of));
        }
        reader.ahead.pop_front()
    }

    fn read_ahead(&self, window: Window, job: Job, as_of: Millis) -> Ahead {
        let (feed, trace) = (Arc::clone(&self.feed), Arc::new(self.trace(window, job.pass)));
        let wanted = feed.want(window, as_of);
        let this = wanted.clone();
        let read = async move { feed.read(&this, job.priority).await };
        let task = tokio::spawn(read.instrument(trace.span()));
        Ahead { wanted, trace, task }
    }
}
