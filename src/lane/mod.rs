//! A lane: one stream to one sink, with a cursor of its own. A straight line: plan, read, admit, deliver, commit.
//!
//! `Lane::step` does one window and returns; [`Lane::run`] around it alone waits, and each pass reads ahead for itself: one
//! that waits for the API makes room for the others, and goes on where it was. A failure is retried here, for as long as it
//! lasts, and stops no other lane.
//!
//! Where events and cursor go into Kafka in one transaction, parts are staged: submitted before those before them
//! are committed, and built on the state as it will be then. They become true in their order, or not at all.

mod deliver;
mod read;
mod safe;
mod staged;
mod supervise;
mod trace;
mod view;
mod voice;

use std::iter::Peekable;
use std::pin::pin;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use tracing::Instrument;

use crate::admin::LaneBoard;
use crate::checkpoint::kafka::Partition;
use crate::checkpoint::{CheckpointError, Store};
use crate::config::Start;
use crate::dead_letter::LetterFiles;
use crate::event::Millis;
use crate::feed::{Feed, WindowRead};
use crate::health::WaitsFor;
use crate::metrics::{LaneMetrics, SinkMetrics};
use crate::reading::Shard;
use crate::shutdown::Shutdown;
use crate::sink::{Sink, SinkError};
use crate::state::admit::{New, admit};
use crate::state::cursor::{Cursor, Pass, Schedule};
use crate::state::store::{self, LaneKey, ReadAt, StoredError};
use crate::telemetry::spans::{self, WindowOutcome};
use crate::window::floor_to;
use read::{Fresh, Reader, Readers};
pub use safe::belongs;
use staged::{Of, Parts};
pub use supervise::{LaneMaker, report_panics, run, supervise};
use trace::Reason;
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
        let mut fresh = Fresh::new();
        let mut readers = Readers::default();
        let mut back = None;
        let mut after = None;
        let mut done = Vec::new();
        while !shutdown.is_requested() {
            self.put_back(&mut cursor, &mut back, &shutdown).await?;
            let now = self.feed.now();
            // Polls fall on multiples of the interval, so that lanes of one stream ask for the same windows.
            let tick = floor_to(now.sure, poll);
            let at = goal.unwrap_or(tick);
            let schedule = &self.feed.schedule;
            let live_is_due = cursor.plan_live(schedule, at).is_some();
            // Neither the live pass nor sweeps wait for what lies ahead, however long that takes.
            let has_turn = after == Some(Pass::Live) || !live_is_due && (all || after != Some(Pass::Fore));
            let ahead = || fresh.plan(&cursor, schedule, now, all).filter(|_| has_turn);
            let plan = |stuck: &[Pass]| cursor.plan(schedule, at, self.feed.comfortable(), all, after, stuck);
            let planned = ahead().or_else(|| plan(&readers.stuck())).or_else(|| plan(&[]));
            let Some(job) = planned else {
                if all {
                    return Ok(());
                }
                after = None;
                self.board.waits_for(WaitsFor::Poll);
                shutdown.unless(self.wait_for(tick + poll)).await;
                continue;
            };
            if all && now.sure < at && done.contains(&job.pass) {
                // It was read to its end, so what was readable is delivered; its mark waits for the clock, and the next run
                // goes on from there.
                tracing::info!(stream = self.feed.stream.name, "caught up, but for what time the server says it is");
                return Ok(());
            }
            after = Some(job.pass);
            if all && job.pass != Pass::Fore {
                done.push(job.pass);
            }
            let before = cursor.marks();
            let began = Instant::now();
            let mut reader = readers.take(job, at, until);
            let is_over = self.work(&mut cursor, &mut reader, &fresh, &shutdown).await?;
            if job.pass == Pass::Fore {
                fresh.read(&self.feed.schedule, job, now, reader.into_listed(), began.elapsed(), all);
            } else if !is_over {
                readers.keep(reader);
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

    fn live_is_due(&self, cursor: &Cursor) -> bool {
        let tick = floor_to(self.feed.now().sure, self.feed.schedule.poll);
        cursor.plan_live(&self.feed.schedule, tick).is_some()
    }

    /// Whether a job that has been read for a while is to make room for another pass.
    fn gives_way(&self, cursor: &Cursor, pass: Pass, fresh: &Fresh) -> bool {
        let (schedule, now) = (&self.feed.schedule, self.feed.now());
        let fresh_is_due = || fresh.plan(cursor, schedule, now, false).is_some();
        match pass {
            Pass::Live => fresh_is_due(),
            Pass::Fore => false,
            Pass::Sweep(_) => self.live_is_due(cursor) || fresh_is_due(),
        }
    }

    /// Whether a pass whose window does not come is to make room for others.
    fn is_stuck(&self, cursor: &Cursor, pass: Pass, fresh: &Fresh) -> bool {
        let tick = floor_to(self.feed.now().sure, self.feed.schedule.poll);
        let others = || cursor.plan(&self.feed.schedule, tick, self.feed.comfortable(), false, None, &[pass]);
        self.gives_way(cursor, pass, fresh) || others().is_some()
    }

    /// Does a job; what of it was begun is true afterwards. `false` if it is not over, and may go on later.
    async fn work(
        &self,
        cursor: &mut Cursor,
        reader: &mut Reader,
        fresh: &Fresh,
        shutdown: &Shutdown,
    ) -> Result<bool, LaneError> {
        let mut parts = Parts::default();
        let is_over = self.read(cursor, &mut parts, reader, fresh, shutdown).await?;
        self.settle_all(cursor, &mut parts, shutdown).await?;
        Ok(is_over)
    }

    /// Reads a job's windows ahead, bounded, and takes them in order; `false` where it makes room for another pass.
    async fn read(
        &self,
        cursor: &mut Cursor,
        parts: &mut Parts,
        reader: &mut Reader,
        fresh: &Fresh,
        shutdown: &Shutdown,
    ) -> Result<bool, LaneError> {
        let pass = reader.pass();
        let is_fore = pass == Pass::Fore;
        // Nothing waits for it longer than a poll.
        let bound = Duration::from_millis(self.feed.schedule.poll.unsigned_abs());
        let mut enough = pin!(tokio::time::sleep(bound));
        loop {
            let Some(mut first) = self.next_ahead(reader) else { return Ok(true) };
            first.is_awaited();
            let read = loop {
                self.board.waits_for(WaitsFor::Source);
                tokio::select! {
                    biased;
                    read = first.read() => break read,
                    () = shutdown.requested() => return Ok(true),
                    // While the API is what is waited for, what is on its way comes through and shows.
                    () = parts.answered(), if !parts.is_empty() => self.settle_first(cursor, parts, shutdown).await?,
                    () = &mut enough => {
                        // Until caught up it takes as long as it takes; of what lies ahead, if it still seems that anything may.
                        let now = self.feed.now();
                        let lies_ahead = now.latest.max(now.claimed) > now.sure;
                        if is_fore && (reader.until == Until::Shutdown || !lies_ahead) {
                            return Ok(true);
                        }
                        if reader.until == Until::Shutdown && self.is_stuck(parts.cursor(cursor), pass, fresh) {
                            reader.give_back(first);
                            return Ok(false);
                        }
                        enough.as_mut().reset(tokio::time::Instant::now() + bound);
                    }
                }
            };
            if let Some(read) = reader.take(&first, read) {
                let mark = parts.cursor(cursor).mark_of(pass);
                let stepped = self.step(cursor, parts, read, &first.trace, shutdown);
                let stepped = stepped.instrument(first.trace.span()).await;
                stepped.inspect_err(|error| first.trace.failed(error.reason()))?;
                // Put back to what was called empty: the rest of the job would count for nothing.
                if parts.cursor(cursor).mark_of(pass) < mark {
                    return Ok(true);
                }
                enough.as_mut().reset(tokio::time::Instant::now() + bound);
            }
            if shutdown.is_requested() {
                return Ok(true);
            }
            if reader.until == Until::Shutdown && self.gives_way(parts.cursor(cursor), pass, fresh) {
                return Ok(false);
            }
        }
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
        let (live, begun) = (parts.cursor(cursor).live, parts.cursor(cursor).begun);
        if window.from <= live {
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
        let new = admit(&self.feed.stream.identity, window, &read.found, &delivered, live, known.reach(), begun);
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
            if floor < floor_before {
                self.tell_heard(&commit.cursor);
            }
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
