//! Reads a window until it counts: run by run, and until what it lists is believed.

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use super::ask::{Asked, Asks};
use super::trouble::Kind;
use super::{Feed, Learnt, Overflow, RECORD_BYTES, SURPRISE, Wanted, WindowRead, lock};
use crate::event::{Millis, timestamp};
use crate::page::Priority;
use crate::reading::{Breach, End, Found, Gap, GapReason, Listed, Outcome, Reading, Rules, Shard, Suspicion};
use crate::retry::Waits;
use crate::source::FetchReason;
use crate::spans;
use crate::window::Window;

/// A page size that had to be halved is doubled after so many windows; and so many are asked for that fit a page where
/// later pages could not be had.
const LIMIT_KEPT: u32 = 16;
/// A window that reaches further than this beyond what is surely over tells nothing of how dense the log is.
const AHEAD: Millis = 5000;
/// The records of a reading that bear witness to what time it is: enough that a few whose time is absurd do not count.
const CLOCK_WITNESSES: usize = 16;
/// A clock unit that is too large to be held is read in so many parts, and in so many times more if they are, too. Few: what
/// the tries before the last cost is less than the last, and each part is all of the unit's pages once more.
const SHARDS: u32 = 2;
const MOST_SHARDS: u32 = 512;
/// So many records of a window mostly show whether it is answered up to its ends.
const TELLING: f64 = 24.0;
/// Parts that contradict each other so often are not had.
const PARTS_TRIES: u32 = 3;
/// Gaps that are not told again.
const TOLD: usize = 256;

/// A window, read but not yet believed.
pub(super) struct Read {
    pub window: WindowRead,
    /// Rows in all.
    pub rows: u64,
    /// Of these, what no other window lists.
    pub own: u64,
    /// The most that a query listed of them, and the limit that was known, and looked for more beyond.
    pub most: u64,
    pub cap: Option<u64>,
    /// Clock units that list as many as a limit may let through: gaps, if there is one.
    pub full: Vec<Gap>,
    pub bare: bool,
    /// It contradicted itself on the way.
    pub contrary: bool,
    /// What lies just outside of it need not have been listed.
    pub left_out_beside: bool,
    pub outcome: Outcome,
}

impl Read {
    /// What another reading listed beyond it, or more often.
    pub(super) fn add(&mut self, other: Self) {
        let mut found: BTreeMap<_, _> =
            std::mem::take(&mut self.window.found).into_iter().map(|found| (found.fingerprint, found)).collect();
        for other in other.window.found {
            let times = |found: &Found| found.raw.len();
            match found.entry(other.fingerprint) {
                Entry::Occupied(known) if times(known.get()) >= times(&other) => {}
                Entry::Occupied(mut known) => _ = known.insert(other),
                Entry::Vacant(place) => _ = place.insert(other),
            }
        }
        self.window.found = found.into_values().collect();
        self.window.found.sort_unstable_by_key(|found| (found.time, found.fingerprint));
        self.window.held.add(other.window.held);
        self.rows = self.window.found.iter().map(|found| found.raw.len() as u64).sum();
    }
}

impl Feed {
    pub(super) async fn read_alone(&self, wanted: &Wanted, priority: Priority) -> Result<Arc<WindowRead>, Overflow> {
        let Wanted { window, awaited, .. } = wanted;
        let (window, asks) = (*window, Asks { awaited, ..self.asks(priority) });
        // Where much is expected, what comes shows how far it reaches.
        let tells = lock(&self.learnt).neighbourhood.expected(window).is_some_and(|rows| rows >= TELLING);
        if !tells {
            self.believe_length(window).await?;
        }
        let mut read = self.read_believed(window, asks).await?;
        if let Some(lied) = self.question_bounds(&mut read, asks).await {
            read = self.read_believed(window, asks).await?;
            read.window.gaps.extend(lied);
        }
        // That a long interval is answered at one end alone is found out by its length.
        if !lock(&self.learnt).lengths.may_be_shown(window, &read.window.found) {
            self.believe_length(window).await?;
        }
        // Before it shows how long a window may be: whoever hides records amid it may list those at its ends.
        read = self.audit(read).await?;
        self.learn_length(&read)?;
        self.believe_length(window).await?;
        // That bounds do not count is a state, not one line for each window.
        let gaps = read.window.gaps.iter().filter(|gap| gap.reason != GapReason::Bounds);
        gaps.for_each(|gap| self.tell_gap(gap));
        if read.window.gaps.is_empty() {
            self.worked(Kind::Runs);
        }
        lock(&self.learnt).neighbourhood.saw(window, read.own);
        self.metrics.window(read.outcome);
        spans::read(read.outcome, read.rows);
        tracing::debug!(stream = self.stream.name, ?window, outcome = ?read.outcome, rows = read.rows, "window read");
        Ok(Arc::new(read.window))
    }

    /// Reads a window once more, whatever is believed of it: for whoever remembers more of it than was listed.
    pub async fn read_again(&self, before: &WindowRead) -> Option<Arc<WindowRead>> {
        let asks = self.asks(Priority::Sweep);
        let read = self.read_once(before.window, asks).await.ok()?;
        Some(Arc::new(WindowRead { read_at: before.read_at, ..read.window }))
    }

    /// How long to wait before each time that a window is read again which lists less than is remembered of it.
    pub fn patience_with_less(&self) -> &'static [Duration] {
        lock(&self.learnt).neighbourhood.patience(true)
    }

    /// It listed all at last.
    pub fn less_was_a_lie(&self) {
        lock(&self.learnt).neighbourhood.lied();
        self.worked(Kind::Answers);
    }

    /// It lists less, whenever it is asked.
    pub fn less_is_true(&self, fewer: u64) {
        lock(&self.learnt).neighbourhood.was_honest();
        if !self.told_less.swap(true, Ordering::Relaxed) {
            tracing::warn!(
                stream = self.stream.name,
                fewer,
                "the API no longer lists all that it listed before, as when records are deleted: not waited for"
            );
        }
    }

    /// Reads a window, and again until what it lists is believed; a part of one is.
    async fn read_believed(&self, window: Window, asks: Asks<'_>) -> Result<Read, Overflow> {
        let read = self.read_once(window, asks).await?;
        if read.window.shard != Shard::WHOLE {
            return Ok(read);
        }
        let read = self.believe_count(read).await?;
        let read = self.believe_place(read, asks).await?;
        self.believe(read, asks).await
    }

    /// Another part of a clock unit that is too large to be held at once, of which the first was read at `read_at`.
    pub async fn read_part(&self, window: Window, shard: Shard, read_at: Millis) -> Arc<WindowRead> {
        let asks = self.asks(Priority::CatchUp);
        loop {
            // All parts are about as large, so none is made smaller: the parts before it would not fit any longer.
            let rules = Rules { shard, max_unit_bytes: u64::MAX, ..self.rules };
            if let Ok(Some(read)) = self.read_with(rules, window, asks).await {
                return Arc::new(WindowRead { read_at, ..read.window });
            }
        }
    }

    pub(super) async fn read_once(&self, window: Window, asks: Asks<'_>) -> Result<Read, Overflow> {
        let mut shard = Shard::WHOLE;
        loop {
            let last = shard.of >= MOST_SHARDS;
            let max_unit_bytes = if last { u64::MAX } else { self.rules.max_unit_bytes };
            if let Some(read) = self.read_with(Rules { shard, max_unit_bytes, ..self.rules }, window, asks).await? {
                return Ok(read);
            }
            shard.of *= SHARDS;
            tracing::debug!(stream = self.stream.name, ?window, parts = shard.of, "too large to be held at once");
        }
    }

    /// `None` if it holds more than the rules allow at once, or cannot be had at once where that is asked for.
    pub(super) async fn read_with(
        &self,
        rules: Rules,
        window: Window,
        asks: Asks<'_>,
    ) -> Result<Option<Read>, Overflow> {
        let clock = self.client.clock();
        let began = clock.begin();
        let (inclusive, mut broken, rules) = {
            let learnt = lock(&self.learnt);
            let Learnt { inclusive, page_limit, everywhere, caps, .. } = &*learnt;
            let cap = rules.cap.or(caps.known());
            let rules = Rules { page_limit: *page_limit, everywhere: everywhere.listed(), cap, ..rules };
            (*inclusive, learnt.short_for > 0, rules)
        };
        let mut reading = Reading::new(rules, window, inclusive);
        let mut waits = Waits::new();
        let (mut bare, mut contrary) = (false, 0);
        while let Some(request) = reading.next() {
            let proven = reading.proven();
            match self.fetch(&request, asks, broken).await {
                Asked::Page(page) => {
                    bare |= page.bare;
                    if !page.records.is_empty() && self.is_first_heard(window) {
                        return Err(Overflow);
                    }
                    if let Some(breach) = reading.give(page) {
                        if matches!(rules.suspicion, Suspicion::Parts(_)) {
                            contrary += 1;
                            if asks.once || contrary == PARTS_TRIES {
                                return Ok(None);
                            }
                            tokio::time::sleep(waits.next_wait()).await;
                            continue;
                        }
                        self.metrics.error(FetchReason::Malformed);
                        self.failed(Kind::Runs, FetchReason::Malformed, breach.words(), false);
                        if breach == Breach::Endless {
                            self.wait_for_an_end().await;
                        } else {
                            tokio::time::sleep(waits.next_wait()).await;
                        }
                    }
                    if reading.proven() > proven {
                        waits = Waits::new();
                        lock(&self.learnt).endless_waits = Waits::new();
                    }
                }
                Asked::Broken => {
                    reading.void();
                    broken = true;
                    // A page that lies too deep does so at once; what else may be the cause is asked for later.
                    tokio::time::sleep(waits.next_wait()).await;
                }
                Asked::TooLarge => reading.too_large(),
                Asked::Refused => reading.refused(),
                Asked::NotNow => return Ok(None),
            }
        }
        let mut learnt = lock(&self.learnt);
        learnt.inclusive = reading.inclusive().or(learnt.inclusive);
        learnt.keep_limit(reading.limit(), self.rules.page_limit);
        let most = reading.most_listed();
        if learnt.caps.saw(most) {
            self.learn_cap(&mut learnt);
        }
        // Once is a token that has run out.
        learnt.short_for = if reading.broken() > 1 { LIMIT_KEPT } else { learnt.short_for.saturating_sub(1) };
        let outcome = match reading.end() {
            Some(End::Overflow { rows }) => {
                learnt.density.overflowed(window, rows.saturating_sub(rules.everywhere.rows).max(self.rules.max_rows));
                return Err(Overflow);
            }
            Some(End::Outgrown) => return Ok(None),
            Some(End::Complete(outcome)) => outcome,
            None => unreachable!("a reading that asks for no page has ended"),
        };
        let (gaps, contrary) = (reading.gaps().to_vec(), reading.was_contrary());
        let full = reading.full_units().to_vec();
        let (held, left_out_beside) = (reading.take_held(), reading.left_out_beside());
        let found = reading.into_found();
        let rows: u64 = found.iter().map(|found| found.raw.len() as u64).sum();
        // A part of a clock unit tells nothing of windows.
        let own = if rules.shard == Shard::WHOLE { learnt.everywhere.saw(&found) } else { Listed { rows, bytes: 0 } };
        let read_at = clock.read_at(began);
        // What lies ahead is empty because it has not happened.
        if window.to <= read_at + AHEAD {
            learnt.density.saw(window, own.rows.max(own.bytes / RECORD_BYTES));
        }
        drop(learnt);
        let newest = found.iter().rev().filter(|found| found.time.is_some()).take(CLOCK_WITNESSES);
        clock.listed(newest.filter_map(|found| Some((found.fingerprint, found.time?))));
        let witness = lock(&self.learnt).neighbourhood.best_witness();
        let window =
            WindowRead { window, read_at, found, held, gaps, shard: rules.shard, witness, place: spans::Place::here() };
        let own = own.rows;
        Ok(Some(Read { window, rows, own, most, cap: rules.cap, full, bare, contrary, left_out_beside, outcome }))
    }

    /// How much is asked for at a time, by what is known of a limit.
    pub(super) fn learn_cap(&self, learnt: &mut Learnt) {
        let (stream, rows) = (&self.stream.name, self.rules.max_rows / SURPRISE);
        let cap = learnt.caps.known();
        // Half of it, so that a surprise fits.
        learnt.density.aim(cap.map_or(rows, |cap| rows.min(cap / 2)));
        match cap {
            Some(cap) => tracing::warn!(
                stream,
                cap,
                "the API lists and counts so many records of a query and no more, though there are more: asked for less at a \
                 time"
            ),
            None => tracing::info!(stream, "the API lists more records of a query than it did"),
        }
    }

    /// A run that does not end costs many requests, so all windows wait for that in one line.
    async fn wait_for_an_end(&self) {
        let _turn = self.endless.lock().await;
        let wait = lock(&self.learnt).endless_waits.next_wait();
        tokio::time::sleep(wait).await;
    }

    /// Once, however often it is read.
    pub(super) fn tell_gap(&self, gap: &Gap) {
        if !lock(&self.learnt).is_new(*gap) {
            return;
        }
        tracing::error!(
            stream = self.stream.name, from = %timestamp(gap.from), to = %timestamp(gap.to), reason = gap.reason.label(),
            "given up: not all that lies between could be read"
        );
    }
}

impl Learnt {
    /// Whether a gap was not told lately.
    fn is_new(&mut self, gap: Gap) -> bool {
        if self.told.contains(&gap) {
            return false;
        }
        if self.told.len() == TOLD {
            self.told.pop_front();
        }
        self.told.push_back(gap);
        true
    }

    /// Nothing was ever listed since then.
    pub(super) fn keep_silence(&mut self, since: Millis) {
        if self.neighbourhood.best_witness().is_none() {
            self.silent = Some(self.silent.map_or(since, |silent| silent.min(since)));
        }
    }

    /// The page size for the windows to come: what this reading had to come down to, and back up after a while.
    fn keep_limit(&mut self, used: u32, most: u32) {
        if used < self.page_limit {
            (self.page_limit, self.limit_for) = (used, 0);
        } else if self.page_limit < most {
            self.limit_for += 1;
            if self.limit_for >= LIMIT_KEPT {
                (self.page_limit, self.limit_for) = ((self.page_limit * 2).min(most), 0);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::event::Fingerprint;
    use crate::memory::Hold;

    fn read(found: &[(u8, Millis, usize)]) -> Read {
        let found: Vec<_> = found
            .iter()
            .map(|&(number, time, times)| Found {
                fingerprint: Fingerprint([number; 16]),
                time: Some(time),
                raw: vec![bytes::Bytes::new(); times],
            })
            .collect();
        let rows = found.iter().map(|found| found.raw.len() as u64).sum();
        let window = WindowRead {
            window: Window { from: 0, to: 10 },
            read_at: 10,
            found,
            held: Hold::uncounted(100),
            gaps: Vec::new(),
            shard: Shard::WHOLE,
            witness: None,
            place: spans::Place::here(),
        };
        let outcome = Outcome::Complete;
        let (bare, contrary, left_out_beside) = (false, false, false);
        let full = Vec::new();
        Read { window, rows, own: rows, most: rows, cap: None, full, bare, contrary, left_out_beside, outcome }
    }

    #[test]
    fn nothing_is_taken_from_a_reading_by_another() {
        let mut one = read(&[(1, 1, 1), (3, 3, 2), (4, 4, 1)]);
        one.add(read(&[(2, 2, 1), (3, 3, 1), (4, 4, 3)]));
        let listed: Vec<_> = one.window.found.iter().map(|found| (found.time.unwrap(), found.raw.len())).collect();
        assert_eq!((listed, one.rows), (vec![(1, 1), (2, 1), (3, 2), (4, 3)], 7));
        assert_eq!(one.window.held.bytes(), 200);
    }
}
