//! A stream's reader: whole windows for its lanes, read once where several lanes ask for the same.
//!
//! Here alone requests are repeated: a [`Feed`] never fails, it takes as long as the API needs to recover, and
//! is given up by dropping the future. What a window needs to count is decided in [`crate::reading`].

mod doubt;

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use tokio::sync::OnceCell;

use crate::admin::StreamBoard;
use crate::clock::millis;
use crate::event::{Millis, Source, StreamContext};
use crate::metrics::StreamMetrics;
use crate::reading::{End, Found, Inclusive, Paging, Reading, Rules};
use crate::retry::{Backoff, Waits};
use crate::source::{Client, FailureClass, FetchError, FetchReason, Now, Page, PageRequest, Position, Priority, Rank};
use crate::state::cursor::{Job, Schedule};
use crate::telemetry::spans::{self, Place};
use crate::window::{Density, Window, floor_to};
use doubt::Doubts;

/// The rows of a comfortable window, all windows that are read ahead together: what memory should hold.
const ROWS_AHEAD: u64 = 16_000;
/// The rows of one comfortable window. Fewer would waste calls on last pages that are nearly empty.
const ROWS_MOST: u64 = 1000;
/// How many times a comfortable window's rows may be read as one.
const SURPRISE: u64 = 4;
/// What a record is reckoned at, in bytes: a window of large records holds fewer.
const RECORD_BYTES: u64 = 1024;
/// Failures in a row before a stream counts as failing: one torn answer is nobody's business.
const FAILING_AFTER: u32 = 3;
/// A week.
const PAST: Millis = 7 * 86_400_000;
/// A window that reaches further than this beyond what is surely over tells nothing of how dense the log is.
const AHEAD: Millis = 5000;
/// The records of a reading that bear witness to what time it is: enough that a few whose time is absurd do not count.
const WITNESSES: usize = 16;
/// After so many failures a token is taken to be the cause, and its run begun anew.
const TOKEN_TRIES: u32 = 5;

/// Reads one stream.
pub struct Feed {
    /// What it reads.
    pub stream: Arc<StreamContext>,
    /// What it counts with.
    pub metrics: StreamMetrics,
    /// Where it shows how it is.
    pub board: StreamBoard,
    /// When which part is read.
    pub schedule: Schedule,
    client: Client,
    rules: Rules,
    concurrency: u64,
    depth: usize,
    lanes: usize,
    learnt: Mutex<Learnt>,
    shared: Mutex<VecDeque<Shared>>,
    trouble: Mutex<Trouble>,
    doubts: Mutex<Doubts>,
    begun: OnceCell<Now>,
}

/// A window, read completely.
#[derive(Debug)]
pub struct WindowRead {
    /// What was read.
    pub window: Window,
    /// When the reading began, by the server's clock: the lowest time that was credible then and when it ended.
    pub read_at: Millis,
    /// All that it holds, oldest first.
    pub found: Vec<Found>,
    /// Where in our traces.
    pub place: Place,
}

/// The window holds more than may be read at once: ask for what [`Feed::window`] says now.
#[derive(Debug, Clone, Copy)]
pub struct Overflow;

struct Learnt {
    density: Density,
    inclusive: Inclusive,
}

/// A reading that other lanes may want, too.
struct Shared {
    window: Window,
    as_of: Millis,
    read: Arc<OnceCell<Result<Arc<WindowRead>, Overflow>>>,
}

#[derive(Debug, Default)]
struct Trouble {
    in_a_row: u32,
    /// What is known to be wrong, and since when something is.
    failing: Option<(FetchReason, Instant)>,
}

impl Feed {
    /// A feed for `lanes` lanes that keeps up to `concurrency` requests in flight.
    #[must_use]
    pub fn new(
        stream: Arc<StreamContext>,
        client: Client,
        metrics: StreamMetrics,
        board: StreamBoard,
        schedule: Schedule,
        concurrency: u32,
        lanes: usize,
    ) -> Self {
        // More windows than requests in flight: while the first are finished and delivered, none is idle.
        let concurrency = u64::from(concurrency.max(1));
        let depth = concurrency + concurrency / 2 + 2;
        let page = u64::from(client.page_limit());
        let pages = (ROWS_AHEAD / depth).clamp(page, ROWS_MOST) / page;
        // A little less than whole pages: a few records more than expected, or those of the clock units on either
        // side, would cost each window a page of their own.
        let rows = pages * page - page / 5;
        let paging = match client.source() {
            Source::Genauth => Paging::Numbered,
            Source::Scloud => Paging::Tokens,
        };
        let rules = Rules {
            unit: schedule.unit,
            paging,
            page_limit: client.page_limit(),
            max_rows: SURPRISE * rows,
            max_bytes: SURPRISE * rows * RECORD_BYTES,
            deepest: client.max_rows(),
        };
        Self {
            learnt: Mutex::new(Learnt { density: Density::new(schedule.unit, rows), inclusive: None }),
            stream,
            metrics,
            board,
            schedule,
            client,
            rules,
            concurrency,
            depth: usize::try_from(depth).unwrap_or(usize::MAX),
            lanes,
            shared: Mutex::default(),
            trouble: Mutex::default(),
            doubts: Mutex::default(),
            begun: OnceCell::new(),
        }
    }

    /// How many windows a lane should read ahead.
    #[must_use]
    pub const fn depth(&self) -> usize {
        self.depth
    }

    /// The server's now.
    #[must_use]
    pub fn now(&self) -> Now {
        self.client.clock().now()
    }

    /// Whether there is anything yet to tell the server's now by.
    #[must_use]
    pub fn is_founded(&self) -> bool {
        self.client.clock().is_founded()
    }

    /// The server's time when this feed first heard from it: asks once, so that the first plan goes by what the server
    /// says, too. The same for all lanes.
    pub async fn begun(&self) -> Now {
        let ask = async {
            // Of a time that has surely been: what has not may be refused, and this machine's clock may be ahead.
            let then = floor_to(self.now().sure - PAST, self.rules.unit);
            let request = PageRequest { from: then - self.rules.unit, to: then, limit: 1, position: Position::First };
            // A first page is asked for until it comes.
            let _ = self.fetch(&request, self.client.rank(Priority::Live)).await;
            self.now()
        };
        *self.begun.get_or_init(|| ask).await
    }

    /// The present length of a comfortable window.
    #[must_use]
    pub fn comfortable(&self) -> Millis {
        lock(&self.learnt).density.comfortable()
    }

    /// How long the windows of `job` may be. Near now all requests that may be in flight share it, so that its last
    /// events do not wait for page after page; but no window has less than two pages, since the last one is partly
    /// empty.
    #[must_use]
    pub fn longest(&self, job: &Job) -> Millis {
        if job.priority != Priority::Live {
            return Millis::MAX;
        }
        let share = job.range.len() / self.concurrency.cast_signed();
        let two_pages = self.comfortable() * Millis::from(2 * self.rules.page_limit)
            / (self.rules.max_rows / SURPRISE).cast_signed();
        floor_to(share.max(two_pages), self.rules.unit) + self.rules.unit
    }

    /// The next window of a job that goes from `from` to `to` and was planned at `as_of`: what another lane of
    /// this stream has just asked for, or one of comfortable length, at most `longest`.
    #[must_use]
    pub fn window(&self, from: Millis, to: Millis, as_of: Millis, longest: Millis) -> Window {
        let same = |shared: &&Shared| shared.as_of == as_of && shared.window.from == from && shared.window.to <= to;
        if let Some(shared) = lock(&self.shared).iter().find(same) {
            return shared.window;
        }
        let comfortable = self.comfortable().min(longest);
        // What is left is cut evenly, so that the last window is not a sliver that costs a page of its own.
        let left = (to - from + comfortable / 4) / comfortable;
        let length = if left <= 1 { to - from } else { comfortable };
        Window { from, to: from + length.min(to - from) }
    }

    /// Reads `window`, for a job planned at `as_of`; waits for another lane's reading of the same if there is one.
    ///
    /// # Errors
    /// [`Overflow`]: the window holds too much, and the next [`Feed::window`] is shorter.
    pub async fn read(&self, window: Window, priority: Priority, as_of: Millis) -> Result<Arc<WindowRead>, Overflow> {
        if self.lanes < 2 {
            return self.read_alone(window, priority).await;
        }
        let cell = self.share(window, as_of);
        let read = cell.get_or_init(|| self.read_alone(window, priority)).await.clone();
        if read.is_err() {
            // Nobody is to ask for this window again: a shorter one begins in its place.
            lock(&self.shared).retain(|shared| !Arc::ptr_eq(&shared.read, &cell));
        }
        read
    }

    fn share(&self, window: Window, as_of: Millis) -> Arc<OnceCell<Result<Arc<WindowRead>, Overflow>>> {
        let mut shared = lock(&self.shared);
        if let Some(found) = shared.iter().find(|shared| shared.window == window && shared.as_of == as_of) {
            return Arc::clone(&found.read);
        }
        // A lane that lags further behind than this reads for itself.
        while shared.len() >= self.depth {
            shared.pop_front();
        }
        let read = Arc::new(OnceCell::new());
        shared.push_back(Shared { window, as_of, read: Arc::clone(&read) });
        read
    }

    async fn read_alone(&self, window: Window, priority: Priority) -> Result<Arc<WindowRead>, Overflow> {
        let clock = self.client.clock();
        let began = clock.begin();
        let inclusive = lock(&self.learnt).inclusive;
        let mut reading = Reading::new(self.rules, window, inclusive);
        let rank = self.client.rank(priority);
        let mut waits = Waits::new();
        while let Some(request) = reading.next() {
            match self.fetch(&request, rank).await {
                Some(page) => {
                    if request.position != Position::First {
                        waits = Waits::new();
                    }
                    reading.give(page);
                }
                None => {
                    reading.void();
                    // A page that lies too deep does so at once; a token may work the next time.
                    if matches!(request.position, Position::Token(_)) {
                        tokio::time::sleep(waits.next_wait()).await;
                    }
                }
            }
        }
        let mut learnt = lock(&self.learnt);
        learnt.inclusive = reading.inclusive().or(learnt.inclusive);
        let outcome = match reading.end() {
            Some(End::Overflow { rows }) => {
                learnt.density.overflowed(window, rows.max(self.rules.max_rows));
                return Err(Overflow);
            }
            Some(End::Complete(outcome)) => outcome,
            None => unreachable!("a reading that asks for no page has ended"),
        };
        let found = reading.into_found();
        let rows: u64 = found.iter().map(|found| found.raw.len() as u64).sum();
        let bytes: u64 = found.iter().flat_map(|found| &found.raw).map(|raw| raw.len() as u64).sum();
        let read_at = clock.read_at(began);
        // What lies ahead is empty because it has not happened.
        if window.to <= read_at + AHEAD {
            learnt.density.saw(window, rows.max(bytes / RECORD_BYTES));
        }
        drop(learnt);
        let newest = found.iter().rev().filter(|found| found.placed).take(WITNESSES);
        clock.listed(newest.filter_map(|found| Some((found.fingerprint, found.time?))));
        self.metrics.window(outcome);
        spans::read(outcome, rows);
        tracing::debug!(stream = self.stream.name, ?window, ?outcome, rows, "window read");
        Ok(Arc::new(WindowRead { window, read_at, found, place: Place::here() }))
    }

    /// Asks until the page comes; `None` if it is a later page of a run and refused: its token no longer works, or it
    /// lies deeper than this API pages.
    async fn fetch(&self, request: &PageRequest, rank: Rank) -> Option<Page> {
        let mut backoff = Backoff::new();
        let mut tries = 0;
        loop {
            self.metrics.request_started();
            match self.client.fetch(request, rank).await {
                Ok(fetched) => {
                    self.metrics.request_finished(fetched.timing.requests);
                    self.metrics.rate_limit_waited(fetched.timing.waited);
                    self.metrics.records(fetched.page.records.len() as u64);
                    self.show_clock();
                    self.recovered();
                    return Some(fetched.page);
                }
                Err(error) => {
                    tries += 1;
                    let is_token = matches!(request.position, Position::Token(_));
                    let is_refused = request.position != Position::First && error.class == FailureClass::Refused;
                    if is_refused || is_token && tries >= TOKEN_TRIES {
                        // If there is more to it than a token's age or a page too deep, the new run's first page tells.
                        self.metrics.error(error.reason);
                        let (stream, reason) = (&self.stream.name, error.reason.label());
                        tracing::debug!(stream, reason, "a run of pages broke off, reading it again: {error}");
                        return None;
                    }
                    self.failed(&error);
                    tokio::time::sleep(backoff.next(&error)).await;
                }
            }
        }
    }

    fn show_clock(&self) {
        let clock = self.client.clock();
        if let Some(offset) = clock.offset() {
            self.metrics.set_clock_offset(offset);
            self.board.set_clock_offset(offset);
        }
        let (ahead, doubt) = (clock.ahead_of_steady(), clock.doubt());
        lock(&self.doubts).see(&self.stream.name, doubt.as_ref(), Instant::now());
        let lasting = doubt.filter(|doubt| doubt.lasts);
        self.metrics.set_clock(ahead, lasting.is_some());
        self.board.set_clock(ahead, lasting.map(|doubt| doubt.message));
    }

    /// The oldest time that can still be read, with an hour to spare: the bound moves while a window is read.
    #[must_use]
    pub fn oldest_readable(&self) -> Option<Millis> {
        self.client.history().map(|history| floor_to(self.now().sure - millis(history) + 3_600_000, self.rules.unit))
    }

    fn failed(&self, error: &FetchError) {
        self.metrics.error(error.reason);
        let stream = &self.stream.name;
        tracing::debug!(stream, reason = error.reason.label(), "request failed: {error}");
        let needs_operator = matches!(error.class, FailureClass::Credentials | FailureClass::Refused);
        let mut trouble = lock(&self.trouble);
        trouble.in_a_row += 1;
        let known = trouble.failing.is_some_and(|(reason, _)| reason == error.reason);
        if known || !needs_operator && trouble.in_a_row < FAILING_AFTER {
            return;
        }
        let since = trouble.failing.map_or_else(Instant::now, |(_, since)| since);
        trouble.failing = Some((error.reason, since));
        drop(trouble);
        self.board.failing(error.reason, error.to_string());
        if needs_operator {
            tracing::error!(stream, reason = error.reason.label(), "cannot read, trying again: {error}");
        } else {
            tracing::warn!(stream, reason = error.reason.label(), "cannot read, trying again: {error}");
        }
    }

    fn recovered(&self) {
        let mut trouble = lock(&self.trouble);
        trouble.in_a_row = 0;
        let failing = trouble.failing.take();
        drop(trouble);
        if let Some((_, since)) = failing {
            self.board.ok();
            let after = Duration::from_secs(since.elapsed().as_secs());
            tracing::info!(stream = self.stream.name, ?after, "reads again");
        }
    }
}

/// Nothing under these locks panics half-way, so a poisoned one is as good as any.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
