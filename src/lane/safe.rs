//! What a lane knows for certain: what its state is, and that it is stored. Each is tried until it is so or shutdown is
//! requested.

use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::sync::Semaphore;

use super::{Lane, LaneError};
use crate::admin::End;
use crate::blocking::blocking;
use crate::checkpoint::{CheckpointError, MemoryStore, Store};
use crate::clock;
use crate::config::Start;
use crate::event::{Millis, StreamIdentity, timestamp};
use crate::feed::WindowRead;
use crate::health::WaitsFor;
use crate::metrics::SinkReason;
use crate::reading::{Found, Gap, GapReason};
use crate::retry::Waits;
use crate::shutdown::Shutdown;
use crate::state::admit::{Delivered, Memory};
use crate::state::cursor::Cursor;
use crate::state::store::{self, Changes, LaneKey};
use crate::window::{Now, floor_to};
use crate::words::chain;

/// How long a cursor that was put back shows as failing, at least: someone is to see it.
const SHOWN: Duration = Duration::from_secs(60);

/// Threads that wait for the checkpoint, of all lanes: what waits for one disk goes no faster by more, and commits that wait
/// share an fsync.
static PLACES: Semaphore = Semaphore::const_new(16);

/// Whether a stored cursor is one of what `stream` reads now.
///
/// # Errors
/// It is of another log than the one that is configured, or of another filter.
pub fn belongs(cursor: &Cursor, stream: &str, reads: &StreamIdentity, question: &str) -> Result<(), LaneError> {
    if cursor.stream == *reads {
        // One of before the question was kept is taken for one of this question.
        let other = cursor.known.question.as_deref().is_some_and(|known| known != question);
        return if other { Err(LaneError::OtherQuestion { stream: stream.to_owned() }) } else { Ok(()) };
    }
    let log = |stream: &StreamIdentity| format!("{} {}", stream.source, stream.tenant);
    Err(LaneError::OtherLog { stream: stream.to_owned(), configured: log(reads), stored: log(&cursor.stream) })
}

impl Lane {
    /// The stored cursor, if there is one.
    ///
    /// # Errors
    /// It cannot be read, or is of another log than the one that is configured, or of another filter.
    pub async fn stored(&self) -> Result<Option<Cursor>, LaneError> {
        let key = self.key().cursor();
        let Some(value) = self.blocking(move |store| Ok(store.get(&key)?)).await? else { return Ok(None) };
        let cursor = store::parse_cursor(&value)?;
        let stream = &self.feed.stream;
        belongs(&cursor, &stream.name, &stream.identity, self.feed.question())?;
        Ok(Some(cursor))
    }

    /// Where the lane goes on, and the server's time once it has been heard. Where it begins is settled and stored before
    /// anything is waited for, or an API that is down, a clock that is wrong, or a restart would move it. `None` if
    /// shutdown comes first.
    pub(super) async fn begin(&self, shutdown: &Shutdown) -> Result<Option<(Cursor, Now)>, LaneError> {
        let feed = &self.feed;
        let stored = self.stored().await?;
        let mut cursor = match stored {
            Some(cursor) => cursor,
            None => {
                // Only a machine that has never been told what time it is waits for a server that has.
                if !feed.is_founded() && shutdown.unless(Box::pin(feed.begun())).await.is_none() {
                    return Ok(None);
                }
                let now = feed.founded();
                let start = self.start(now, false);
                if feed.oldest_readable(now) == Some(start) {
                    // Nobody has read what lies before, nor was it promised: no gap.
                    let (stream, sink, from) = (&feed.stream.name, &self.sink_name, timestamp(start));
                    tracing::info!(stream, sink, %from, "start lies as far back as the API keeps records, or further: begins there");
                }
                let mut cursor = Cursor::new(feed.stream.identity.clone(), &feed.schedule, start);
                cursor.known.question = Some(feed.question().to_owned());
                self.keep(&cursor, shutdown).await?;
                cursor
            }
        };
        cursor.adopt(&feed.schedule);
        // Version 0.1.0 has forgotten what lies before, so none of it is asked for again.
        cursor.begun = cursor.begun.or(Some(cursor.floor()));
        cursor.known.question = Some(feed.question().to_owned());
        // A lane whose API never answers shows how far behind it is all the same.
        self.show(&cursor);
        self.board.waits_for(WaitsFor::Source);
        let Some(begun) = shutdown.unless(Box::pin(feed.begun())).await else { return Ok(None) };
        let start = floor_to(self.start(begun, true), feed.schedule.unit);
        if cursor.commits == 0 && start < cursor.live {
            // Nothing has been read yet, and this machine's clock was ahead when it was settled.
            cursor.set_to(start);
            self.keep(&cursor, shutdown).await?;
            self.show_back(&cursor);
        }
        let now = feed.now();
        self.tell_old_gaps(&cursor);
        // A lane that has just begun at the oldest lies a little before it by now, and can read all of it.
        if let (Some(kept), Some(oldest)) = (feed.oldest_kept(now), feed.oldest_readable(now))
            && cursor.floor() < kept
        {
            let (stream, sink) = (&feed.stream.name, &self.sink_name);
            let (from, to) = (timestamp(cursor.floor()), timestamp(oldest));
            tracing::error!(stream, sink, %from, %to, "the API no longer gives what lies between: skipped, a gap");
            let gap = Gap { from: cursor.floor(), to: oldest, reason: GapReason::Expired };
            self.note_gaps(&mut cursor.known, std::iter::once(gap));
            cursor.skip_to(oldest);
        }
        match (cursor.known.witness, cursor.known.silent) {
            (Some(witness), _) => feed.add_witness(witness),
            (None, Some(silent)) => feed.add_silence(silent),
            (None, None) => {}
        }
        tracing::info!(stream = feed.stream.name, sink = self.sink_name, from = %timestamp(cursor.live), "lane runs");
        self.show(&cursor);
        Ok(Some((cursor, begun)))
    }

    /// Where a lane without a cursor begins, if the server's time is `now`: not before what the API keeps, nor, once it has
    /// been `heard`, ahead of any time that it claims.
    fn start(&self, now: Now, heard: bool) -> Millis {
        let start = match self.start {
            Start::Now => now.sure,
            Start::Age(age) => now.sure - clock::millis(age),
            Start::At(time) if heard => time.min(now.claimed),
            Start::At(time) => time,
        };
        start.max(self.feed.oldest_readable(now).unwrap_or(Millis::MIN))
    }

    /// Stores a cursor under which nothing has been delivered.
    async fn keep(&self, cursor: &Cursor, shutdown: &Shutdown) -> Result<(), LaneError> {
        let puts = vec![(self.key().cursor(), store::write_cursor(cursor))];
        let changes = Changes { puts, ..Changes::default() };
        self.until_stored(shutdown, move |store| Ok(store.commit(&changes)?)).await?;
        self.metrics.committed(clock::now());
        Ok(())
    }

    /// Before a run ends that is to be complete: whether what was read last was all, and what is a gap if it was not.
    pub(super) async fn look_back(&self, cursor: &mut Cursor, shutdown: &Shutdown) -> Result<(), LaneError> {
        shutdown.unless(self.feed.audit_last()).await;
        if self.add_gaps(&mut cursor.known, self.feed.hidden().into_iter()) {
            self.keep(cursor, shutdown).await?;
            self.show(cursor);
        }
        if !shutdown.is_requested() {
            self.board.ended(End::CaughtUp);
        }
        Ok(())
    }

    /// Puts a cursor that is ahead of the server's time back to what was read, and says so for as long as it takes to
    /// read what it had passed over. `since` is when it did so last.
    pub(super) async fn put_back(
        &self,
        cursor: &mut Cursor,
        since: &mut Option<Instant>,
        shutdown: &Shutdown,
    ) -> Result<(), LaneError> {
        let (schedule, now) = (&self.feed.schedule, self.feed.now());
        if !cursor.is_ahead_of(now.claimed) {
            let is_read = now.sure - schedule.settle - cursor.live < 3 * schedule.poll.max(schedule.unit);
            if is_read && since.is_some_and(|since| since.elapsed() > SHOWN) {
                *since = None;
                self.board.ok();
            }
            return Ok(());
        }
        let (stream, sink) = (&self.feed.stream.name, &self.sink_name);
        let was = timestamp(cursor.live);
        cursor.put_back(schedule, now);
        let (to, by) = (timestamp(cursor.live), timestamp(now.claimed));
        let message = format!(
            "the cursor stood at {was}, but by the server's clock it is {by}: put back to {to}; what comes again has the              same ids, and if anything before that was not read, `trailcast cursor set` reads it"
        );
        tracing::error!(stream, sink, "{message}");
        self.board.failing(SinkReason::Checkpoint, message);
        *since = Some(Instant::now());
        self.keep(cursor, shutdown).await?;
        self.show_back(cursor);
        Ok(())
    }

    /// What was delivered of what the window lists, once `ahead` is committed: the deltas of the buckets that its records
    /// belong to, and the counts of those that have no place in any. And how many events are remembered of the part of the
    /// window that [`LaneKey::whole_intervals`] names.
    pub(super) async fn delivered(
        &self,
        read: &WindowRead,
        skew: Millis,
        ahead: Vec<Arc<Changes>>,
        shutdown: &Shutdown,
    ) -> Result<(Delivered, u64), LaneError> {
        let whole = LaneKey::whole_intervals(read.window);
        let deltas = self.key().deltas_of(read.window, &read.found);
        let memory = Memory { window: read.window, unit: self.feed.schedule.unit, skew };
        let found = read.found.iter().filter(|found| memory.may_be_alone(found.time));
        let unplaced: Vec<_> = found.map(|found| (found.fingerprint, self.key().unplaced(found.fingerprint))).collect();
        self.until_stored(shutdown, move |store| {
            let only = |key: &Vec<u8>| key.clone()..[key, &[0][..]].concat();
            let ranges: Vec<_> = deltas.iter().cloned().chain(unplaced.iter().map(|(_, key)| only(key))).collect();
            let foreseen = MemoryStore::foreseen(store, &ranges, &ahead)?;
            let mut delivered = Delivered::default();
            let mut damaged = Ok(());
            let mut remembered = 0;
            for deltas in &deltas {
                foreseen.scan(&deltas.start..&deltas.end, &mut |key, value| {
                    let inside = LaneKey::interval(key).is_some_and(|of| whole.from <= of.from && of.to <= whole.to);
                    match store::add_delta(&mut delivered, value) {
                        Ok(events) => remembered += if inside { events } else { 0 },
                        Err(error) => damaged = Err(error),
                    }
                })?;
            }
            damaged?;
            for (fingerprint, key) in &unplaced {
                if let Some(value) = foreseen.get(key)? {
                    store::add_unplaced(&mut delivered, *fingerprint, &value)?;
                }
            }
            Ok((delivered, remembered))
        })
        .await
    }

    /// A reading that lists fewer records than are remembered of the same place contradicts what the API said before: it
    /// is read again, at other times. What was deleted since stays away; that is said once.
    pub(super) async fn look_again(
        &self,
        read: Arc<WindowRead>,
        remembered: u64,
        shutdown: &Shutdown,
    ) -> Arc<WindowRead> {
        let whole = LaneKey::whole_intervals(read.window);
        let listed = |read: &WindowRead| -> u64 {
            let inside = |found: &&Found| found.time.is_some_and(|time| whole.contains(time));
            read.found.iter().filter(inside).map(|found| found.raw.len() as u64).sum()
        };
        if listed(&read) >= remembered {
            return read;
        }
        let mut best = read;
        for wait in self.feed.patience_with_less() {
            if shutdown.unless(tokio::time::sleep(*wait)).await.is_none() {
                return best;
            }
            let Some(again) = self.feed.read_again(&best).await else { continue };
            if listed(&again) > listed(&best) {
                best = again;
            }
            if listed(&best) >= remembered {
                self.feed.less_was_a_lie();
                return best;
            }
        }
        self.feed.less_is_true(remembered - listed(&best));
        best
    }

    /// The keys of records without a usable time that no pass will see again once `ahead` is committed and the floor
    /// has moved so.
    pub(super) async fn forgotten(
        &self,
        floor_before: Millis,
        floor: Millis,
        ahead: Vec<Arc<Changes>>,
        shutdown: &Shutdown,
    ) -> Result<Vec<Vec<u8>>, LaneError> {
        let Some(range) = store::unplaced_to_forget(&self.key(), floor_before, floor) else { return Ok(Vec::new()) };
        self.until_stored(shutdown, move |store| {
            let foreseen = MemoryStore::foreseen(store, std::slice::from_ref(&range), &ahead)?;
            let mut forgotten = Vec::new();
            let mut damaged = Ok(());
            foreseen.scan(&range.start..&range.end, &mut |key, value| match store::is_forgotten(value, floor) {
                Ok(true) => forgotten.push(key.to_vec()),
                Ok(false) => {}
                Err(error) => damaged = Err(error),
            })?;
            damaged?;
            Ok(forgotten)
        })
        .await
    }

    /// Does `work` on the checkpoint, again and again until that can be read and written.
    pub(super) async fn until_stored<T: Send + 'static>(
        &self,
        shutdown: &Shutdown,
        work: impl Fn(&dyn Store) -> Result<T, LaneError> + Send + Sync + 'static,
    ) -> Result<T, LaneError> {
        self.board.waits_for(WaitsFor::Checkpoint);
        let work = Arc::new(work);
        let mut waits = Waits::new();
        loop {
            let work = Arc::clone(&work);
            match self.blocking(move |store| work(store)).await {
                Ok(done) => {
                    self.recovered();
                    return Ok(done);
                }
                Err(LaneError::Checkpoint(CheckpointError::Lost)) => return Err(LaneError::Lost),
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

    /// Runs a store's blocking operation off the runtime's workers, with few threads for all lanes.
    pub(super) async fn blocking<T: Send + 'static>(
        &self,
        work: impl FnOnce(&dyn Store) -> Result<T, LaneError> + Send + 'static,
    ) -> Result<T, LaneError> {
        let store = self.kept.store();
        let _place = PLACES.acquire().await;
        blocking(move || work(&*store)).await
    }
}
