//! What a lane knows for certain: what its state is, and that it is stored. Each is tried until it is so or shutdown is
//! requested.

use std::sync::Arc;

use super::{Lane, LaneError};
use crate::blocking::blocking;
use crate::checkpoint::{Changes, CheckpointError, MemoryStore, Store};
use crate::clock;
use crate::config::Start;
use crate::event::{Millis, StreamIdentity};
use crate::feed::WindowRead;
use crate::metrics::SinkReason;
use crate::reading::Found;
use crate::retry::Waits;
use crate::shutdown::Shutdown;
use crate::state::admit::{Delivered, Memory};
use crate::state::cursor::Cursor;
use crate::state::store::{self, LaneKey};
use crate::telemetry::chain;

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
        if cursor.stream == stream.identity {
            // One of before the question was kept is taken for one of this question.
            let other = cursor.known.question.as_deref().is_some_and(|question| question != self.feed.question());
            return if other {
                Err(LaneError::OtherQuestion { stream: stream.name.clone() })
            } else {
                Ok(Some(cursor))
            };
        }
        let log = |stream: &StreamIdentity| format!("{} {}", stream.source, stream.tenant);
        Err(LaneError::OtherLog {
            stream: stream.name.clone(),
            configured: log(&stream.identity),
            stored: log(&cursor.stream),
        })
    }

    /// The stored cursor, or a new one.
    pub(super) async fn open(&self, now: Millis) -> Result<Cursor, LaneError> {
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
        cursor.known.question = Some(feed.question().to_owned());
        Ok(cursor)
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
        let work = Arc::new(work);
        let mut waits = Waits::new();
        loop {
            let work = Arc::clone(&work);
            match self.blocking(move |store| work(store)).await {
                Ok(done) => {
                    self.recovered("commits again");
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

    /// Runs a store's blocking operation off the runtime's workers.
    pub(super) async fn blocking<T: Send + 'static>(
        &self,
        work: impl FnOnce(&dyn Store) -> Result<T, LaneError> + Send + 'static,
    ) -> Result<T, LaneError> {
        let store = self.kept.store();
        blocking(move || work(&*store)).await
    }
}
