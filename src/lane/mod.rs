//! A lane: one stream to one sink, with a cursor of its own. A straight line: plan, read, admit, deliver, commit.
//!
//! `Lane::step` does one window and returns; [`Lane::run`] around it alone waits and reads ahead. A failure is
//! retried here, for as long as it lasts, and stops no other lane.
//!
//! Where events and cursor go into Kafka in one transaction, parts are staged: submitted before those before them
//! are committed, and built on the state as it will be then. They become true in their order, or not at all.

mod deliver;
mod safe;
mod staged;
mod supervise;
mod trace;
mod view;
mod voice;

use std::collections::{HashMap, VecDeque};
use std::iter::Peekable;
use std::pin::pin;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::task::JoinHandle;
use tracing::Instrument;

use crate::admin::LaneBoard;
use crate::checkpoint::kafka::Partition;
use crate::checkpoint::{CheckpointError, Store};
use crate::config::Start;
use crate::dead_letter::LetterFiles;
use crate::event::Millis;
use crate::feed::{Feed, Overflow, Wanted, WindowRead};
use crate::health::WaitsFor;
use crate::metrics::{LaneMetrics, SinkMetrics};
use crate::reading::Shard;
use crate::shutdown::Shutdown;
use crate::sink::{Sink, SinkError};
use crate::spans::{self, WindowOutcome};
use crate::state::admit::{New, admit};
use crate::state::cursor::{Cursor, Fore, Job, Pass, Schedule, Turns};
use crate::state::store::{self, LaneKey, ReadAt, StoredError};
use crate::window::Window;
pub use safe::belongs;
use staged::{Of, Parts};
pub use supervise::{LaneMaker, report_panics, run, supervise};
use trace::Reason;
pub use view::cursor_set;
pub(crate) use voice::Say;
pub use voice::Voice;

/// The most events delivered and committed at once.
const PART_EVENTS: usize = 1000;
/// And about the most bytes of records.
const PART_BYTES: usize = 4 << 20;
/// A `Date` tells no more than the second, and was written some time before it came.
const UNSURE: Millis = 1_500;

/// One stream to one sink.
pub struct Lane {
    /// The sink's name.
    pub sink_name: String,
    /// Read from.
    pub feed: Arc<Feed>,
    /// Delivered to.
    pub sink: Arc<Sink>,
    /// Where it begins if it has no cursor.
    pub start: Start,
    /// Where the cursor is kept.
    pub kept: Kept,
    /// Where what the sink refuses for good is kept; if in no files, then in a topic beside the state.
    pub letters: Option<Arc<LetterFiles>>,
    /// Counts.
    pub metrics: LaneMetrics,
    /// Times the sink.
    pub sink_metrics: SinkMetrics,
    /// Where it shows how it is.
    pub board: LaneBoard,
    /// What it has said of how it is.
    pub voice: Mutex<Voice>,
}

/// Where a lane's cursor is kept.
#[derive(Clone)]
pub enum Kept {
    /// In a store that holds nothing but state.
    Store(Arc<dyn Store>),
    /// In Kafka: what is committed there can hold events and dead letters, too.
    Partition(Arc<Partition>),
}

impl Kept {
    fn store(&self) -> Arc<dyn Store> {
        match self {
            Self::Store(store) => Arc::clone(store),
            Self::Partition(partition) => Arc::clone(partition) as Arc<dyn Store>,
        }
    }
}

/// How long a lane runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Until {
    /// Until shutdown.
    Shutdown,
    /// Until all that was readable when it began is delivered and every sweep due by then is done.
    CaughtUp,
}

/// Why a lane ended though nobody asked it to.
#[derive(Debug, thiserror::Error)]
pub enum LaneError {
    /// The sink is gone for good.
    #[error(transparent)]
    Sink(#[from] SinkError),
    /// The stored state makes no sense, so going on might lose or repeat events.
    #[error(transparent)]
    Stored(#[from] StoredError),
    /// The cursor is of another log.
    #[error(
        "streams.{stream} reads {configured}, but its cursor is of {stored}: rename the stream, or give up that cursor \
         with `trailcast cursor delete --stream {stream}`"
    )]
    OtherLog {
        /// The stream.
        stream: String,
        /// What the config says.
        configured: String,
        /// What the checkpoint says.
        stored: String,
    },
    /// The cursor was made with another filter.
    #[error(
        "streams.{stream} asks with another filter than its cursor was made with, and what that one hid would never come: \
         rename the stream to read it from its `start`, or say where it goes on with `trailcast cursor set --stream \
         {stream} --to TIME`"
    )]
    OtherQuestion {
        /// The stream.
        stream: String,
    },
    /// The store cannot be read.
    #[error(transparent)]
    Checkpoint(#[from] CheckpointError),
    /// Asked to end while what it had to deliver or commit failed.
    #[error("ended while it could not go on: its last events come again with the next run")]
    NotDrained,
    /// This replica no longer has the stream's partition, or must take it again.
    #[error("this replica must take the stream's partition again")]
    Lost,
}

/// A job, as it is done.
#[derive(Debug, Clone, Copy)]
struct Task {
    job: Job,
    /// The time that it was planned at: the same for all lanes of the stream.
    as_of: Millis,
    until: Until,
}

/// A job that is under way.
struct Going {
    task: Task,
    /// Its windows that are read ahead, in order, and where the next one begins.
    ahead: VecDeque<Ahead>,
    next: Millis,
    /// The longest window.
    longest: Millis,
}

/// What gave way to what is new, by pass: it goes on where it was.
type GaveWay = HashMap<Pass, Going>;

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
    fn key(&self) -> LaneKey {
        LaneKey::new(&self.feed.stream.name, &self.sink_name)
    }

    /// Runs until it is told to stop or, with [`Until::CaughtUp`], has caught up.
    ///
    /// # Errors
    /// What no retry mends: see [`LaneError`].
    pub async fn run(self, until: Until, shutdown: Shutdown) -> Result<(), LaneError> {
        self.board.waits_for(WaitsFor::Checkpoint);
        let Some((mut cursor, begun)) = self.begin(&shutdown).await? else { return Ok(()) };
        shutdown.unless(self.warn_of_deletion(&cursor)).await;
        let Schedule { unit, poll, settle, .. } = self.feed.schedule;
        let all = until == Until::CaughtUp;
        // The unit of the source's clock that is under way may hold records already: it is waited for, as is what the
        // live pass leaves to settle, and what the server's clock may be ahead of the lowest time that its answers allow.
        let goal = all.then(|| ((begun.sure + UNSURE) / unit + 1) * unit + settle);
        if let Some(goal) = goal {
            // No longer than that takes: a clock in doubt is one that reading may clear up.
            let bound = Duration::from_millis((goal - begun.sure).unsigned_abs());
            shutdown.unless(tokio::time::timeout(bound, self.wait_until(goal))).await;
        }
        let mut fore = Fore::default();
        let mut back = None;
        let (mut turns, mut gave_way) = (Turns::default(), GaveWay::default());
        let mut done = Vec::new();
        while !shutdown.is_requested() {
            self.put_back(&mut cursor, &mut back, &shutdown).await?;
            let now = self.feed.now();
            // The same for all lanes of the stream, so that they ask for the same windows.
            let tick = self.feed.schedule.tick(now.sure);
            let at = goal.unwrap_or(tick);
            let schedule = &self.feed.schedule;
            if !all && let Some(history) = cursor.go_past(schedule, at) {
                self.tell_history(&cursor, history);
                // It shows first what the log looks like.
                turns.took(Pass::Live);
            }
            let live_is_due = cursor.plan_live(schedule, at).is_some();
            // Neither the live pass nor sweeps wait for what lies beyond, however long that takes.
            let last = turns.last();
            let has_turn = last == Some(Pass::Live) || !live_is_due && (all || last != Some(Pass::Fore));
            let beyond = || fore.plan(&cursor, schedule, now, all).filter(|_| has_turn);
            let planned = beyond().or_else(|| cursor.plan(schedule, at, self.feed.comfortable(), all, turns));
            let Some(job) = planned else {
                if all {
                    return self.look_back(&mut cursor, &shutdown).await;
                }
                turns.waited();
                self.board.waits_for(WaitsFor::Poll);
                shutdown.unless(self.wait_for(tick + poll)).await;
                continue;
            };
            if all && now.sure < at && done.contains(&job.pass) {
                // It was read to its end, so what was readable is delivered; its mark waits for the clock, and the next run
                // goes on from there.
                tracing::info!(stream = self.feed.stream.name, "caught up, but for what time the server says it is");
                return self.look_back(&mut cursor, &shutdown).await;
            }
            turns.took(job.pass);
            let (before, mark) = (cursor.marks(), cursor.mark_of(job.pass));
            let began = std::time::Instant::now();
            // Lanes of one stream read history in the same windows, whenever they come to it.
            let as_of = if job.pass == Pass::Backfill { job.range.to } else { at };
            let listed = self.work(&mut cursor, Task { job, as_of, until }, &mut gave_way, &shutdown).await?;
            // Put back to what was called empty, it is not.
            if all && job.pass != Pass::Fore && cursor.mark_of(job.pass) >= mark {
                done.push(job.pass);
            }
            if job.pass == Pass::Fore
                && listed.is_empty()
                && began.elapsed() >= Duration::from_millis(poll.unsigned_abs())
                && !all
            {
                fore.was_too_much(&self.feed.schedule, now);
            } else if job.pass == Pass::Fore {
                fore.read(&self.feed.schedule, job.range, now, listed);
            } else if cursor.marks() == before && !self.live_is_due(&cursor) {
                // Whatever holds it back, asking at once would not help.
                self.board.waits_for(WaitsFor::Poll);
                shutdown.unless(self.wait_for(tick + poll)).await;
            }
        }
        Ok(())
    }

    /// Sleeps until `time` by the server's clock, looking again at least once a poll: clocks may turn out to be wrong.
    async fn wait_until(&self, time: Millis) {
        while self.feed.now().sure < time {
            self.wait_for(time).await;
        }
    }

    /// Sleeps until `time` by the server's clock as it is known now, but no longer than a poll.
    async fn wait_for(&self, time: Millis) {
        let wait = (time - self.feed.now().sure).clamp(1, self.feed.schedule.poll);
        tokio::time::sleep(Duration::from_millis(wait.unsigned_abs())).await;
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

    fn live_is_due(&self, cursor: &Cursor) -> bool {
        let schedule = &self.feed.schedule;
        cursor.plan_live(schedule, schedule.tick(self.feed.now().sure)).is_some()
    }

    /// Does a job; what of it was begun is true afterwards. The answer says what it listed beyond what is surely over.
    async fn work(
        &self,
        cursor: &mut Cursor,
        task: Task,
        gave_way: &mut GaveWay,
        shutdown: &Shutdown,
    ) -> Result<Vec<Millis>, LaneError> {
        let mut parts = Parts::default();
        let listed = self.read(cursor, &mut parts, task, gave_way, shutdown).await?;
        self.settle_all(cursor, &mut parts, shutdown).await?;
        Ok(listed)
    }

    /// Reads a job's windows ahead, bounded, and takes them in order, until it gives way.
    async fn read(
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
                    () = parts.answered(), if !parts.is_empty() => self.settle_first(cursor, parts, shutdown).await?,
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
                    let stepped = self.step(cursor, parts, read, &first.trace, shutdown);
                    let stepped = stepped.instrument(first.trace.span()).await;
                    stepped.inspect_err(|error| first.trace.failed(error.reason()))?;
                    let now = parts.cursor(cursor);
                    if let Some(commits) = silent.filter(|_| now.known.silent.is_none()) {
                        if commits > 0 && now.history().is_some() {
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

    /// One window, in as many parts as it was read in: what could not be held at once is read part by part, and only the
    /// last moves the marks.
    async fn step(
        &self,
        cursor: &mut Cursor,
        parts: &mut Parts,
        mut read: Arc<WindowRead>,
        trace: &Arc<spans::Window>,
        shutdown: &Shutdown,
    ) -> Result<(), LaneError> {
        loop {
            let (window, read_at, next) = (read.window, read.read_at, read.shard.next());
            self.take(cursor, parts, read, trace, shutdown).await?;
            let Some(shard) = next.filter(|_| !shutdown.is_requested()) else { return Ok(()) };
            // What waits for the sink is held, too.
            self.settle_all(cursor, parts, shutdown).await?;
            let part = self.feed.read_part(window, shard, read_at);
            let Some(part) = shutdown.unless(part).await else { return Ok(()) };
            read = part;
        }
    }

    /// One reading: admits what is new, delivers it part by part and commits each. Ends early, between two parts, when
    /// shutdown is requested; the parts that are committed are safe, and the marks stay where they were.
    async fn take(
        &self,
        cursor: &mut Cursor,
        parts: &mut Parts,
        read: Arc<WindowRead>,
        trace: &Arc<spans::Window>,
        shutdown: &Shutdown,
    ) -> Result<(), LaneError> {
        trace.read_in(&read.place);
        let window = read.window;
        if window.from <= parts.cursor(cursor).live {
            self.feed.metrics.set_read_through(window.to.min(read.read_at));
        }
        let before = Arc::clone(&read);
        let mut known = self.learn(&parts.cursor(cursor).known, &read);
        let (mut delivered, remembered) = self.delivered(&read, known.reach(), parts.changes(), shutdown).await?;
        let whole = read.shard == Shard::WHOLE && known.skew == 0;
        let read = if whole { self.look_again(read, remembered, shutdown).await } else { read };
        if !Arc::ptr_eq(&before, &read) {
            known = self.learn(&known, &read);
            (delivered, _) = self.delivered(&read, known.reach(), parts.changes(), shutdown).await?;
        }
        let new = admit(parts.cursor(cursor), window, &read.found, &delivered, known.reach());
        spans::admitted(new.len());
        let mut new = new.into_iter().peekable();
        loop {
            let part = next_part(&mut new);
            let ended = new.peek().is_none();
            let last = ended && read.shard.next().is_none();
            let read_at = ReadAt {
                window,
                read_at: read.read_at,
                schedule: &self.feed.schedule,
                found: &read.found,
                known: &known,
            };
            let before = parts.cursor(cursor);
            let mut commit = store::commit(&self.key(), before, read_at, &part, last, &delivered);
            let (commits, floor_before, floor) = (before.commits, before.floor(), commit.cursor.floor());
            commit.changes.deletes = self.forgotten(floor_before, floor, parts.changes(), shutdown).await?;
            delivered.add(&part, window);
            let of = Of { read: Arc::clone(&read), last, trace: Arc::clone(trace) };
            parts.push(self.stage(part, commits, commit, of, shutdown).await?);
            while parts.is_full() {
                self.settle_first(cursor, parts, shutdown).await?;
            }
            if ended || shutdown.is_requested() {
                return Ok(());
            }
        }
    }

    async fn settle_all(&self, cursor: &mut Cursor, parts: &mut Parts, shutdown: &Shutdown) -> Result<(), LaneError> {
        while !parts.is_empty() {
            self.settle_first(cursor, parts, shutdown).await?;
        }
        Ok(())
    }

    /// Makes the first of `parts` true, if there is one.
    async fn settle_first(&self, cursor: &mut Cursor, parts: &mut Parts, shutdown: &Shutdown) -> Result<(), LaneError> {
        parts.answered().await;
        let Some(mut staged) = parts.pop() else { return Ok(()) };
        let trace = Arc::clone(&staged.of.trace);
        let settled = self.settle(&mut staged, shutdown).instrument(trace.span()).await;
        let refused = settled.inspect_err(|error| trace.failed(error.reason()))?;
        if staged.of.last {
            trace.ended(WindowOutcome::Committed);
        }
        self.count(&staged.part, &refused, &staged.of.read);
        *cursor = staged.cursor;
        self.show(cursor);
        Ok(())
    }
}

/// The next events that are delivered and committed at once; none when there are none.
fn next_part(new: &mut Peekable<impl Iterator<Item = New>>) -> Vec<New> {
    let mut bytes = 0;
    let mut part = Vec::new();
    while part.len() < PART_EVENTS
        && let Some(next) = new.next_if(|next| part.is_empty() || bytes + next.admitted.raw.len() <= PART_BYTES)
    {
        bytes += next.admitted.raw.len();
        part.push(next);
    }
    part
}
