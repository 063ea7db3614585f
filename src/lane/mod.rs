//! A lane: one stream to one sink, with a cursor of its own. A straight line: plan, read, admit, deliver, commit.
//!
//! [`Lane::run`] says which job is next and waits; `read.rs` reads its windows ahead; `Lane::step` does one window and
//! returns. A failure is retried here, for as long as it lasts, and stops no other lane.
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
use std::sync::{Arc, Mutex};
use std::time::Duration;

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
use crate::spans::{self, WindowOutcome};
use crate::state::admit::{New, admit};
use crate::state::cursor::Cursor;
use crate::state::fore::Fore;
use crate::state::schedule::{Pass, Schedule, Turns};
use crate::state::store::{self, LaneKey, ReadAt, StoredError};
use read::{GaveWay, Task};
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
        let Some((mut cursor, begun)) = Box::pin(self.begin(&shutdown)).await? else { return Ok(()) };
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
            Box::pin(self.put_back(&mut cursor, &mut back, &shutdown)).await?;
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
            let planned = beyond().or_else(|| cursor.plan(schedule, at, self.feed.comfortable(), all, &turns));
            let Some(job) = planned else {
                if all {
                    return Box::pin(self.look_back(&mut cursor, &shutdown)).await;
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
                return Box::pin(self.look_back(&mut cursor, &shutdown)).await;
            }
            turns.took(job.pass);
            let (before, mark) = (cursor.marks(), cursor.mark_of(job.pass));
            let began = std::time::Instant::now();
            // Lanes of one stream read history in the same windows, whenever they come to it.
            let as_of = if matches!(job.pass, Pass::Backfill(_)) { job.range.to } else { at };
            let work = self.work(&mut cursor, Task { job, as_of, until }, &mut gave_way, &shutdown);
            let listed = Box::pin(work).await?;
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

#[cfg(test)]
mod tests {
    use super::*;

    fn size<F>(_: impl FnOnce(Lane, Until, Shutdown) -> F) -> usize {
        size_of::<F>()
    }

    /// There may be thousands: what a lane does between two polls is boxed.
    #[test]
    fn a_lane_that_waits_is_small() {
        let bytes = size(Lane::run);
        assert!(bytes < 4096, "{bytes}");
    }
}
