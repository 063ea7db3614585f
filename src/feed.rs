//! A stream's reader: whole windows for its lanes, read once where several lanes ask for the same.
//!
//! A [`Feed`] never fails, it takes as long as the API needs to recover, and is given up by dropping the future. What a
//! window needs to count is decided in [`crate::reading`]. `ask` asks for a page until it comes, `read` for a window, and
//! `believe` decides whether what it lists is believed, by `doubt`, `places`, `bounds`, `caps`, `lengths` and `audit`.

mod ask;
mod audit;
mod believe;
mod bounds;
mod caps;
mod clocks;
mod compare;
mod doubt;
mod lengths;
mod places;
mod read;
mod trouble;

use std::collections::VecDeque;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::Instant;

use tokio::sync::OnceCell;

use crate::admin::StreamBoard;
use crate::event::{Millis, Source, StreamContext};
use crate::memory::{Awaited, Hold, Share};
use crate::metrics::StreamMetrics;
use crate::page::{PageRequest, Position, Priority};
use crate::reading::{Everywhere, Found, Gap, Inclusive, Listed, Paging, Rules, Shard, Suspicion};
use crate::retry::Waits;
use crate::source::Client;
use crate::spans::Place;
use crate::state::schedule::{Job, Schedule};
use crate::window::{Density, Now, Window, floor_to};
use audit::Audit;
use bounds::Bounds;
use caps::Caps;
use clocks::Doubts;
use doubt::Neighbourhood;
use lengths::Lengths;
use places::Places;
use trouble::Trouble;

/// The rows of a comfortable window, all windows that are read ahead together: what memory should hold.
const ROWS_AHEAD: u64 = 16_000;
/// The rows of one comfortable window. Fewer would waste calls on last pages that are nearly empty.
const ROWS_MOST: u64 = 1000;
/// How many times a comfortable window's rows may be read as one.
const SURPRISE: u64 = 4;
/// The most of a stream's share of memory that a single clock unit holds; one with more is read in parts.
const UNIT: u64 = 4;
/// The same of a window, which is cut shorter.
const WINDOW: u64 = 8;
/// The bytes of the share for each row that is counted of a clock unit, all parts together.
const COUNTED_ROW: u64 = 512;
/// What a record is reckoned at, in bytes: a window of large records holds fewer.
const RECORD_BYTES: u64 = 1024;
/// A week.
const PAST: Millis = 7 * 86_400_000;

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
    /// Whose turn it is to wait for runs to end.
    endless: tokio::sync::Mutex<()>,
    /// And to ask control questions.
    controls: tokio::sync::Mutex<()>,
    /// Of whatever a lane waits for from its beginning.
    awaited: Awaited,
    shared: Mutex<VecDeque<Shared>>,
    trouble: Mutex<Trouble>,
    doubts: Mutex<Doubts>,
    told_outside: AtomicBool,
    told_less: AtomicBool,
    bounds: Mutex<Bounds>,
    begun: OnceCell<Now>,
    founded: OnceLock<Now>,
}

/// A window, read completely.
#[derive(Debug)]
pub struct WindowRead {
    /// What was read.
    pub window: Window,
    /// When the reading began, by the server's clock: the lowest time that was credible then and when it ended.
    pub read_at: Millis,
    /// All that was listed for it, oldest first, whatever time it shows.
    pub found: Vec<Found>,
    /// What all that holds in memory.
    pub held: Hold,
    /// What of it could not be read.
    pub gaps: Vec<Gap>,
    /// Which part of its records it is, where all are more than may be held.
    pub shard: Shard,
    /// A window, from and to, that was seen to hold records.
    pub witness: Option<(Millis, Millis)>,
    /// Where in our traces.
    pub place: Place,
}

/// The window holds more than may be read at once: ask for what [`Feed::window`] says now.
#[derive(Debug, Clone, Copy)]
pub struct Overflow;

struct Learnt {
    density: Density,
    inclusive: Inclusive,
    neighbourhood: Neighbourhood,
    everywhere: Everywhere,
    places: Places,
    lengths: Lengths,
    caps: Caps,
    audit: Audit,
    /// Records asked for on a page, and for how many windows: fewer than it may be while pages are too large.
    page_limit: u32,
    limit_for: u32,
    /// For how many windows they are to fit a page, because later pages cannot be had.
    short_for: u32,
    /// Of runs that do not end, whatever the window.
    endless_waits: Waits,
    /// Since where nothing was ever listed, while that is so.
    silent: Option<Millis>,
    /// The last gaps that were told.
    told: VecDeque<Gap>,
}

/// A reading that other lanes may want, too.
struct Shared {
    as_of: Millis,
    wanted: Wanted,
}

/// A window that is to be read, by the first lane that gets to it.
#[derive(Debug, Clone)]
pub struct Wanted {
    window: Window,
    /// A lane waits for it.
    awaited: Awaited,
    read: Arc<OnceCell<Result<Arc<WindowRead>, Overflow>>>,
}

impl Wanted {
    /// Which window.
    #[must_use]
    pub const fn window(&self) -> Window {
        self.window
    }

    /// A lane can do nothing else before this is read.
    pub fn is_awaited(&self) {
        self.awaited.come();
    }
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
        let share = client.memory().size();
        let most = (share / WINDOW / RECORD_BYTES / SURPRISE).min(ROWS_AHEAD / depth);
        let pages = most.clamp(page, ROWS_MOST) / page;
        // A little less than whole pages: a few records more than expected, or those of the clock units on either
        // side, would cost each window a page of their own.
        let rows = pages * page - page / 5;
        metrics.set_memory(Arc::clone(client.memory()));
        let paging = match client.source() {
            Source::Genauth => Paging::Numbered,
            Source::Scloud => Paging::Tokens,
        };
        let rules = Rules {
            unit: schedule.unit,
            paging,
            page_limit: client.page_limit(),
            max_rows: SURPRISE * rows,
            max_bytes: (SURPRISE * rows * RECORD_BYTES).min(share / WINDOW),
            max_unit_bytes: share / UNIT,
            max_unit_rows: (share / COUNTED_ROW).max(client.max_rows()),
            everywhere: Listed::default(),
            shard: Shard::WHOLE,
            deepest: client.max_rows(),
            cap: None,
            suspicion: Suspicion::Nothing,
        };
        Self {
            learnt: Mutex::new(Learnt {
                density: Density::new(schedule.unit, rows),
                inclusive: None,
                neighbourhood: Neighbourhood::default(),
                everywhere: Everywhere::default(),
                places: Places::default(),
                lengths: Lengths::default(),
                caps: Caps::default(),
                audit: Audit::default(),
                page_limit: client.page_limit(),
                limit_for: 0,
                short_for: 0,
                endless_waits: Waits::new(),
                silent: None,
                told: VecDeque::new(),
            }),
            endless: tokio::sync::Mutex::default(),
            controls: tokio::sync::Mutex::default(),
            awaited: Awaited::now(),
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
            told_outside: AtomicBool::new(false),
            told_less: AtomicBool::new(false),
            bounds: Mutex::default(),
            begun: OnceCell::new(),
            founded: OnceLock::new(),
        }
    }

    /// Whether it was said before that records lie outside the bounds that list them.
    pub fn tell_outside(&self) -> bool {
        self.told_outside.swap(true, Ordering::Relaxed)
    }

    /// A window that is known to hold records, from what a lane has kept.
    pub fn add_witness(&self, (from, to): (Millis, Millis)) {
        let mut learnt = lock(&self.learnt);
        learnt.neighbourhood.add_witness(Window { from, to });
        learnt.lengths.hear();
    }

    /// Where a lane began that has never been listed anything.
    pub fn add_silence(&self, since: Millis) {
        lock(&self.learnt).keep_silence(since);
    }

    /// What is given up of what was believed before it showed that the API hides records.
    #[must_use]
    pub fn hidden(&self) -> Vec<Gap> {
        lock(&self.learnt).audit.gaps().to_vec()
    }

    /// What it asks for, tenant and filter, as a hash.
    #[must_use]
    pub fn question(&self) -> &str {
        self.client.question()
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

    /// The server's time when the first lane asked for it here, the same for all that come after: lanes that begin a
    /// moment apart ask for the same windows. It is asked for once [`Feed::is_founded`].
    #[must_use]
    pub fn founded(&self) -> Now {
        *self.founded.get_or_init(|| self.now())
    }

    /// The server's time when this feed first heard from it: asks once, so that the first plan goes by what the server
    /// says, too. The same for all lanes.
    pub async fn begun(&self) -> Now {
        let ask = async {
            // Of a time that has surely been: what has not may be refused, and this machine's clock may be ahead.
            let then = floor_to(self.now().sure - PAST, self.rules.unit);
            let request = PageRequest { from: then - self.rules.unit, to: then, limit: 1, position: Position::First };
            // A first page is asked for until it comes.
            self.first_heard(&request).await;
            self.now()
        };
        *self.begun.get_or_init(|| ask).await
    }

    /// The present length of a comfortable window.
    #[must_use]
    pub fn comfortable(&self) -> Millis {
        let learnt = lock(&self.learnt);
        let comfortable = learnt.lengths.fit(learnt.density.comfortable());
        if learnt.short_for == 0 {
            return comfortable;
        }
        // What fits a page, and some room.
        let pages = (self.rules.max_rows / SURPRISE).div_ceil(u64::from(self.rules.page_limit)).max(1).cast_signed();
        floor_to(comfortable / (2 * pages), self.rules.unit).max(self.rules.unit)
    }

    /// How long the windows of `job` may be. Near now all requests that may be in flight share it, so that its last
    /// events do not wait for page after page; but what fits two pages is asked for at once, since the last page of each
    /// window is partly empty.
    #[must_use]
    pub fn longest(&self, job: &Job) -> Millis {
        let expected = lock(&self.learnt).neighbourhood.expected(job.range);
        if job.priority != Priority::Live || expected.is_none_or(|rows| rows <= f64::from(2 * self.rules.page_limit)) {
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
        let same = |shared: &&Shared| {
            shared.as_of == as_of && shared.wanted.window.from == from && shared.wanted.window.to <= to
        };
        if let Some(shared) = lock(&self.shared).iter().find(same) {
            return shared.wanted.window;
        }
        let comfortable = self.comfortable().min(longest);
        // What is left is cut evenly, so that the last window is not a sliver that costs a page of its own.
        let left = (to - from + comfortable / 4) / comfortable;
        let length = if left <= 1 { to - from } else { comfortable };
        let length = lock(&self.learnt).lengths.allow(length.min(to - from));
        Window { from, to: from + floor_to(length, self.rules.unit).max(self.rules.unit) }
    }

    /// What counts what it holds.
    #[must_use]
    pub fn memory(&self) -> &Arc<Share> {
        self.client.memory()
    }

    /// What was read for lanes is not served again.
    pub fn forget_ahead(&self) {
        lock(&self.shared).clear();
    }

    /// `window`, for a job planned at `as_of`, to be read with [`Feed::read`]: the same for other lanes that want it.
    pub fn want(&self, window: Window, as_of: Millis) -> Wanted {
        let wanted = Wanted { window, awaited: Awaited::ahead(), read: Arc::new(OnceCell::new()) };
        if self.lanes < 2 {
            return wanted;
        }
        let mut shared = lock(&self.shared);
        if let Some(found) = shared.iter().find(|shared| shared.wanted.window == window && shared.as_of == as_of) {
            return found.wanted.clone();
        }
        // A lane that lags further behind than this reads for itself; all that do where memory is short.
        while shared.len() >= 2 * self.depth || !shared.is_empty() && self.memory().is_crowded() {
            shared.pop_front();
        }
        shared.push_back(Shared { as_of, wanted: wanted.clone() });
        wanted
    }

    /// Reads a window; waits for another lane's reading of the same if there is one.
    ///
    /// # Errors
    /// [`Overflow`]: the window holds too much, and the next [`Feed::window`] is shorter.
    pub async fn read(&self, wanted: &Wanted, priority: Priority) -> Result<Arc<WindowRead>, Overflow> {
        let alone = || async {
            let read = self.read_alone(wanted, priority).await;
            if read.is_err() {
                // Nobody is to ask for this window again, nor for what was cut off behind it: shorter ones begin in its place.
                lock(&self.shared).retain(|shared| shared.wanted.window.from < wanted.window.from);
            }
            read
        };
        wanted.read.get_or_init(alone).await.clone()
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
}

/// Nothing under these locks panics half-way, so a poisoned one is as good as any.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
