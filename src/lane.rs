//! A lane: one stream to one sink, with a cursor of its own. A straight line: plan, read, admit, deliver, commit.
//!
//! `Lane::step` does one window and returns; [`Lane::run`] around it alone waits and reads ahead. A failure is
//! retried here, for as long as it lasts, and stops no other lane.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use tokio::task::JoinHandle;

use crate::admin::LaneBoard;
use crate::checkpoint::{Changes, CheckpointError, Store};
use crate::clock;
use crate::config::{Start, units};
use crate::event::{Millis, StreamIdentity};
use crate::feed::{Feed, Overflow, WindowRead};
use crate::metrics::{LaneMetrics, SinkMetrics, SinkReason};
use crate::retry;
use crate::shutdown::Shutdown;
use crate::sink::{Sink, SinkError};
use crate::source::Priority;
use crate::state::admit::{Delivered, New, admit};
use crate::state::cursor::{Cursor, Job, Pass};
use crate::state::store::{self, LaneKey, ReadAt, StoredError};
use crate::window::Window;

/// The most events delivered and committed at once.
const PART_EVENTS: usize = 1000;
/// And about the most bytes of records.
const PART_BYTES: usize = 4 << 20;
/// Windows of a sweep read ahead: few, since the live pass interrupts it.
const SWEEP_DEPTH: usize = 2;

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
    pub store: Arc<dyn Store>,
    /// Counts.
    pub metrics: LaneMetrics,
    /// Times the sink.
    pub sink_metrics: SinkMetrics,
    /// Where it shows how it is.
    pub board: LaneBoard,
    /// Whether it has said that it cannot go on.
    pub failing: AtomicBool,
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
    /// The store cannot be read.
    #[error(transparent)]
    Checkpoint(#[from] CheckpointError),
    /// Asked to end while what it had to deliver or commit failed.
    #[error("ended while it could not go on: its last events come again with the next run")]
    NotDrained,
}

/// A reading in the background, given up when dropped.
struct Ahead {
    window: Window,
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
        // By our clock for now: a lane whose API never answers shows how far behind it is all the same.
        let mut cursor = self.open(self.feed.now()).await?;
        self.show(&cursor);
        let Some(begun) = shutdown.unless(self.feed.begun()).await else { return Ok(()) };
        if cursor.commits == 0 {
            cursor = self.open(begun).await?;
        }
        self.begin(&mut cursor);
        let poll = self.feed.schedule.poll;
        let mut now = begun;
        let mut after = None;
        loop {
            let all = until == Until::CaughtUp;
            match cursor.plan(&self.feed.schedule, now, self.feed.comfortable(), all, after) {
                Some(job) => {
                    after = Some(job.pass);
                    self.work(&mut cursor, job, now, until, &shutdown).await?;
                }
                None if all => return Ok(()),
                None => {
                    let wait = u64::try_from((now / poll + 1) * poll - self.feed.now()).unwrap_or(0);
                    shutdown.unless(tokio::time::sleep(Duration::from_millis(wait))).await;
                }
            }
            if shutdown.is_requested() {
                return Ok(());
            }
            if !all {
                // Polls fall on multiples of the interval, so that lanes of one stream ask for the same windows.
                now = now.max(self.feed.now() / poll * poll);
            }
        }
    }

    /// The stored cursor, if there is one.
    ///
    /// # Errors
    /// It cannot be read, or is of another log than the one that is configured.
    pub async fn stored(&self) -> Result<Option<Cursor>, LaneError> {
        let key = self.key().cursor();
        let Some(value) = self.blocking(move |store| Ok(store.get(&key)?)).await? else { return Ok(None) };
        let cursor = store::parse_cursor(&value)?;
        let stream = &self.feed.stream;
        if cursor.stream == stream.identity {
            return Ok(Some(cursor));
        }
        let log = |stream: &StreamIdentity| format!("{} {}", stream.source, stream.tenant);
        Err(LaneError::OtherLog {
            stream: stream.name.clone(),
            configured: log(&stream.identity),
            stored: log(&cursor.stream),
        })
    }

    /// The stored cursor, or a new one.
    async fn open(&self, now: Millis) -> Result<Cursor, LaneError> {
        let feed = &self.feed;
        let start = match self.start {
            Start::Now => now,
            Start::Age(age) => now - clock::millis(age),
            Start::At(time) => time,
        };
        let oldest = feed.oldest_readable().unwrap_or(Millis::MIN);
        let new = || Cursor::new(feed.stream.identity.clone(), &feed.schedule, start.max(oldest));
        let mut cursor = self.stored().await?.unwrap_or_else(new);
        cursor.adopt(&feed.schedule);
        Ok(cursor)
    }

    /// Says where the lane goes on, and gives up what the API no longer has.
    fn begin(&self, cursor: &mut Cursor) {
        let (stream, sink) = (&self.feed.stream.name, &self.sink_name);
        let oldest = self.feed.oldest_readable().unwrap_or(Millis::MIN);
        if cursor.floor() < oldest {
            let (from, to) = (time(cursor.floor()), time(oldest));
            tracing::error!(stream, sink, %from, %to, "the API no longer gives what lies between: skipped");
            cursor.skip_to(oldest);
        }
        tracing::info!(stream, sink, from = %time(cursor.live), "lane runs");
        self.show(cursor);
    }

    /// Reads a job's windows ahead, bounded, and takes them in order.
    async fn work(
        &self,
        cursor: &mut Cursor,
        job: Job,
        now: Millis,
        until: Until,
        shutdown: &Shutdown,
    ) -> Result<(), LaneError> {
        let depth = if job.pass == Pass::Live { self.feed.depth() } else { SWEEP_DEPTH };
        let mut ahead: VecDeque<Ahead> = VecDeque::new();
        let mut next = job.range.from;
        let longest = self.feed.longest(&job);
        loop {
            while ahead.len() < depth && next < job.range.to {
                let window = self.feed.window(next, job.range.to, now, longest);
                next = window.to;
                ahead.push_back(self.read_ahead(window, job.priority, now));
            }
            let Some(mut first) = ahead.pop_front() else { return Ok(()) };
            let Some(read) = shutdown.unless(&mut first.task).await else { return Ok(()) };
            match read {
                Ok(Ok(read)) => self.step(cursor, &read, shutdown).await?,
                // Shorter windows from here on; what was read ahead began at other places.
                Ok(Err(Overflow)) => {
                    next = first.window.from;
                    ahead.clear();
                }
                Err(ended) => std::panic::resume_unwind(ended.into_panic()),
            }
            let live_is_due = || {
                let tick = self.feed.now() / self.feed.schedule.poll * self.feed.schedule.poll;
                cursor.plan_live(&self.feed.schedule, tick).is_some()
            };
            if shutdown.is_requested() || until == Until::Shutdown && job.pass != Pass::Live && live_is_due() {
                return Ok(());
            }
        }
    }

    fn read_ahead(&self, window: Window, priority: Priority, as_of: Millis) -> Ahead {
        let feed = Arc::clone(&self.feed);
        Ahead { window, task: tokio::spawn(async move { feed.read(window, priority, as_of).await }) }
    }

    /// One window: admits what is new, delivers it part by part and commits each. Ends early, between two parts, when
    /// shutdown is requested; the parts that are committed are safe, and the marks stay where they were.
    async fn step(&self, cursor: &mut Cursor, read: &WindowRead, shutdown: &Shutdown) -> Result<(), LaneError> {
        let window = read.window;
        if window.from <= cursor.live {
            self.feed.metrics.set_read_through(window.to);
        }
        let mut delivered = self.delivered(read, shutdown).await?;
        let new = admit(&self.feed.stream.identity, window, &read.found, &delivered, cursor.live);
        let mut parts = parts(&new).peekable();
        loop {
            let part = parts.next().unwrap_or_default();
            let last = parts.peek().is_none();
            self.deliver(part, shutdown).await?;
            let read_at = ReadAt { window, read_at: read.read_at, schedule: &self.feed.schedule };
            let commit = store::commit(&self.key(), cursor, read_at, part, last, &delivered);
            self.commit(commit.changes, shutdown).await?;
            self.forget(cursor.floor(), commit.cursor.floor(), shutdown).await?;
            *cursor = commit.cursor;
            self.count(part, read);
            self.show(cursor);
            if last || shutdown.is_requested() {
                return Ok(());
            }
            for new in part {
                *delivered.entry(new.fingerprint).or_default() += 1;
            }
        }
    }

    /// What was delivered of the window before: the deltas of its buckets, and the counts of the records that have no
    /// place in them.
    async fn delivered(&self, read: &WindowRead, shutdown: &Shutdown) -> Result<Delivered, LaneError> {
        let range = self.key().deltas(read.window);
        let unplaced: Vec<_> = read.found.iter().filter(|found| !found.placed).map(|found| found.fingerprint).collect();
        let key = self.key();
        self.until_stored(shutdown, move |store| {
            let mut delivered = Delivered::default();
            let mut damaged = Ok(());
            store.scan(&range.start..&range.end, &mut |_, value| {
                if let Err(error) = store::add_delta(&mut delivered, value) {
                    damaged = Err(error);
                }
            })?;
            damaged?;
            for &fingerprint in &unplaced {
                if let Some(value) = store.get(&key.unplaced(fingerprint))? {
                    store::add_unplaced(&mut delivered, fingerprint, &value)?;
                }
            }
            Ok(delivered)
        })
        .await
    }

    /// Until the sink acknowledges.
    async fn deliver(&self, part: &[New], shutdown: &Shutdown) -> Result<(), LaneError> {
        let mut waits = retry::Waits::new();
        loop {
            let began = Instant::now();
            let result = self.sink.deliver(&self.feed.stream, part).await;
            self.sink_metrics.request_finished(began.elapsed());
            match result {
                Ok(()) => {
                    self.recovered("delivers again");
                    return Ok(());
                }
                Err(error) if error.is_final() => {
                    self.metrics.sink_error(error.reason());
                    self.board.failing(error.reason(), error.to_string());
                    return Err(error.into());
                }
                Err(error) => self.failing(error.reason(), &error),
            }
            if shutdown.unless(tokio::time::sleep(waits.next_wait())).await.is_none() {
                return Err(LaneError::NotDrained);
            }
        }
    }

    /// Until it is stored. What was delivered is not delivered again for it.
    async fn commit(&self, changes: Changes, shutdown: &Shutdown) -> Result<(), LaneError> {
        self.until_stored(shutdown, move |store| Ok(store.commit(&changes)?)).await
    }

    /// Does `work` on the checkpoint, again and again until that can be read and written.
    async fn until_stored<T: Send + 'static>(
        &self,
        shutdown: &Shutdown,
        work: impl Fn(&dyn Store) -> Result<T, LaneError> + Send + Sync + 'static,
    ) -> Result<T, LaneError> {
        let work = Arc::new(work);
        let mut waits = retry::Waits::new();
        loop {
            let work = Arc::clone(&work);
            match self.blocking(move |store| work(store)).await {
                Ok(done) => {
                    self.recovered("commits again");
                    return Ok(done);
                }
                Err(error @ LaneError::Checkpoint(_)) => self.failing(SinkReason::Checkpoint, &error),
                Err(error) => {
                    self.board.failing(SinkReason::Checkpoint, chain(&error));
                    return Err(error);
                }
            }
            if shutdown.unless(tokio::time::sleep(waits.next_wait())).await.is_none() {
                return Err(LaneError::NotDrained);
            }
        }
    }

    /// Lets go of records without a usable time that no pass will see again.
    async fn forget(&self, floor_before: Millis, floor: Millis, shutdown: &Shutdown) -> Result<(), LaneError> {
        let Some(range) = store::unplaced_to_forget(&self.key(), floor_before, floor) else { return Ok(()) };
        self.until_stored(shutdown, move |store| {
            let mut changes = Changes::default();
            let mut damaged = Ok(());
            store.scan(&range.start..&range.end, &mut |key, value| match store::is_forgotten(value, floor) {
                Ok(true) => changes.deletes.push(key.to_vec()),
                Ok(false) => {}
                Err(error) => damaged = Err(error),
            })?;
            damaged?;
            if !changes.is_empty() {
                store.commit(&changes)?;
            }
            Ok(())
        })
        .await
    }

    fn count(&self, part: &[New], read: &WindowRead) {
        self.metrics.delivered(part.len() as u64);
        self.board.delivered(part.len() as u64);
        let late = part.iter().filter(|new| new.admitted.late);
        self.metrics.late(late.clone().count() as u64);
        for new in late {
            let lateness = u64::try_from(read.read_at - new.admitted.time).unwrap_or(0);
            self.feed.metrics.late(Duration::from_millis(lateness));
        }
        self.metrics.committed(clock::now());
    }

    fn show(&self, cursor: &Cursor) {
        self.feed.metrics.set_read_through(cursor.live);
        self.feed.board.set_read_through(cursor.live);
        self.metrics.set_delivered_through(cursor.live);
        self.metrics.set_verified_through(cursor.floor());
        self.board.set_delivered_through(cursor.live);
        self.board.set_verified_through(cursor.floor());
        let sweep = |(&age, &mark): (&Millis, &Millis)| {
            (format!("sweep {}", units::duration_text(Duration::from_millis(age.unsigned_abs()))), mark)
        };
        let passes = std::iter::once(("live".to_owned(), cursor.live)).chain(cursor.sweeps.iter().map(sweep));
        self.board.set_passes(passes.collect());
    }

    fn failing(&self, reason: SinkReason, error: &dyn std::error::Error) {
        self.metrics.sink_error(reason);
        if !self.failing.swap(true, Ordering::Relaxed) {
            let (stream, sink, error) = (&self.feed.stream.name, &self.sink_name, chain(error));
            tracing::error!(stream, sink, reason = reason.label(), "cannot go on, trying again: {error}");
            self.board.failing(reason, error);
        }
    }

    fn recovered(&self, how: &'static str) {
        if self.failing.swap(false, Ordering::Relaxed) {
            tracing::info!(stream = self.feed.stream.name, sink = self.sink_name, "{how}");
            self.board.ok();
        }
    }

    /// Runs a store's blocking operation off the runtime's workers.
    async fn blocking<T: Send + 'static>(
        &self,
        work: impl FnOnce(&dyn Store) -> Result<T, LaneError> + Send + 'static,
    ) -> Result<T, LaneError> {
        let store = Arc::clone(&self.store);
        match tokio::task::spawn_blocking(move || work(&*store)).await {
            Ok(result) => result,
            Err(ended) => std::panic::resume_unwind(ended.into_panic()),
        }
    }
}

/// Cuts into parts that are delivered and committed at once.
fn parts(new: &[New]) -> impl Iterator<Item = &[New]> {
    let mut rest = new;
    std::iter::from_fn(move || {
        let mut bytes = 0;
        let fits = |new: &&New| {
            bytes += new.admitted.raw.len();
            bytes <= PART_BYTES
        };
        let count = rest.iter().take(PART_EVENTS).take_while(fits).count().max(1).min(rest.len());
        let (part, after) = rest.split_at(count);
        rest = after;
        (!part.is_empty()).then_some(part)
    })
}

fn time(millis: Millis) -> jiff::Timestamp {
    jiff::Timestamp::from_millisecond(millis).unwrap_or_default()
}

/// An error with all that caused it, in one line.
#[must_use]
pub fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(error) = source {
        text = format!("{text}: {error}");
        source = error.source();
    }
    text
}
