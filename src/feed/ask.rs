//! Here alone requests are repeated: until a page comes, a run comes to its end, and what a window lists is believed.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use super::bounds::Question;
use super::doubt::{PATIENCE, Witness, Worth};
use super::lengths::{self, Edge, Lengths};
use super::places::{self, Place};
use super::trouble::{Kind, Say};
use super::{Feed, Learnt, Overflow, RECORD_BYTES, SURPRISE, Wanted, WindowRead, lock};
use crate::clock::millis;
use crate::config::units;
use crate::event::Millis;
use crate::memory::Awaited;
use crate::reading::{Breach, End, Found, Gap, GapReason, Listed, Outcome, Paging, Reading, Rules, Shard};
use crate::retry::{Backoff, Waits};
use crate::source::{FailureClass, FetchError, FetchReason, Now, Page, PageRequest, Position, Priority, Rank};
use crate::telemetry::spans;
use crate::window::{Window, floor_to};

/// After so many failures the place of a later page is taken to be the cause (a token that has run out, a page too deep
/// for the API), and its run is begun anew.
const LATER_TRIES: u32 = 5;
/// The same once a run of this window, or of one shortly before, has broken off.
const FEWER_TRIES: u32 = 2;
/// After so many failures a first page's interval is taken to be the cause, if others are given; fewer where the API says
/// that the request is at fault, since those waits are long.
const FIRST_TRIES: (u32, u32) = (6, 2);
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

/// Such a part of an interval is asked for where all of it is refused.
const PART: Millis = 60_000;
/// So many records of a window mostly show whether it is answered up to its ends.
const TELLING: f64 = 24.0;

/// What the API keeps grows older while the first of it is asked for: so long.
const SPARE: Millis = 60_000;

/// Gaps that are not told again.
const TOLD: usize = 256;

/// What became of a request.
enum Asked {
    Page(Page),
    /// A later page cannot be had.
    Broken,
    /// The answer is larger than may be held.
    TooLarge,
    /// The first page of this interval cannot be had, though others can.
    Refused,
}

/// A window, read but not yet believed.
struct Read {
    window: WindowRead,
    /// Rows in all.
    rows: u64,
    /// Of these, what no other window lists.
    own: u64,
    /// The most that a query listed of them, and the limit that was known, and looked for more beyond.
    most: u64,
    cap: Option<u64>,
    bare: bool,
    /// It contradicted itself on the way.
    contrary: bool,
    outcome: Outcome,
}

/// Who asks: its place in the limiter's line, and whether a lane waits for it.
#[derive(Clone, Copy)]
struct Asks<'a> {
    rank: Rank,
    awaited: &'a Awaited,
}

impl Feed {
    pub(super) async fn read_alone(&self, wanted: &Wanted, priority: Priority) -> Result<Arc<WindowRead>, Overflow> {
        let Wanted { window, awaited, .. } = wanted;
        let (window, asks) = (*window, Asks { rank: self.client.rank(priority), awaited });
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
        let asks = Asks { rank: self.client.rank(Priority::Sweep), awaited: &Awaited::now() };
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
        let asks = Asks { rank: self.client.rank(Priority::CatchUp), awaited: &Awaited::now() };
        loop {
            // All parts are about as large, so none is made smaller: the parts before it would not fit any longer.
            let rules = Rules { shard, max_unit_bytes: u64::MAX, ..self.rules };
            if let Ok(Some(read)) = self.read_with(rules, window, asks).await {
                return Arc::new(WindowRead { read_at, ..read.window });
            }
        }
    }

    async fn read_once(&self, window: Window, asks: Asks<'_>) -> Result<Read, Overflow> {
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

    /// `None` if it holds more than the rules allow at once.
    async fn read_with(&self, rules: Rules, window: Window, asks: Asks<'_>) -> Result<Option<Read>, Overflow> {
        let clock = self.client.clock();
        let began = clock.begin();
        let (inclusive, mut broken, rules) = {
            let learnt = lock(&self.learnt);
            let Learnt { inclusive, page_limit, everywhere, caps, .. } = &*learnt;
            let cap = caps.known();
            let rules = Rules { page_limit: *page_limit, everywhere: everywhere.listed(), cap, ..rules };
            (*inclusive, learnt.short_for > 0, rules)
        };
        let mut reading = Reading::new(rules, window, inclusive);
        let mut waits = Waits::new();
        let mut bare = false;
        while let Some(request) = reading.next() {
            let proven = reading.proven();
            match self.fetch(&request, asks, if broken { FEWER_TRIES } else { LATER_TRIES }).await {
                Asked::Page(page) => {
                    bare |= page.bare;
                    if !page.records.is_empty() && self.is_first_heard(window) {
                        return Err(Overflow);
                    }
                    if let Some(breach) = reading.give(page) {
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
        let held = reading.take_held();
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
        Ok(Some(Read { window, rows, own: own.rows, most, cap: rules.cap, bare, contrary, outcome }))
    }

    /// How much is asked for at a time, by what is known of a limit.
    fn learn_cap(&self, learnt: &mut Learnt) {
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

    /// Looks for more than the most that any query has listed: see [`super::caps`].
    async fn believe_count(&self, read: Read) -> Result<Read, Overflow> {
        let (window, most) = (read.window.window, read.most);
        let suspects = || {
            let learnt = lock(&self.learnt);
            read.cap != Some(most)
                && window.len() > self.rules.unit
                && learnt.caps.suspects(most, learnt.everywhere.listed().rows)
        };
        // Who goes by no bounds lists no less of less.
        if !suspects() || !lock(&self.bounds).are_believed() {
            return Ok(read);
        }
        let _turn = self.controls.lock().await;
        if !suspects() {
            return Ok(read);
        }
        // Whoever has its turn waits for nobody: a reading that a lane waits for may be next.
        let asks = Asks { rank: self.client.rank(Priority::Live), awaited: &Awaited::now() };
        // So many are not asked for once more to see whether there are more: shorter windows list less each.
        if most > self.rules.max_rows / SURPRISE {
            lock(&self.learnt).density.overflowed(window, most);
            return Err(Overflow);
        }
        if self.lists_more(window, most, asks).await {
            return Ok(read);
        }
        let parts = self.read_with(Rules { suspect: Some(most), ..self.rules }, window, asks).await?;
        let mut learnt = lock(&self.learnt);
        let Some(parts) = parts.filter(|parts| parts.rows > read.rows) else {
            learnt.caps.cut_in_vain(most);
            return Ok(read);
        };
        if learnt.caps.cut(most) {
            self.learn_cap(&mut learnt);
        }
        Ok(parts)
    }

    /// Whether an interval around `window` lists, or counts, more than `listed` records.
    async fn lists_more(&self, window: Window, listed: u64, asks: Asks<'_>) -> bool {
        let now = self.now();
        let kept = self.oldest_kept(now).map_or(Millis::MIN, |kept| floor_to(kept, self.rules.unit) + self.rules.unit);
        let (from, to) = (window.from - window.len(), window.to + window.len());
        let to = to.min(floor_to(now.sure, self.rules.unit)).max(window.to);
        // Who counts need not list.
        let limit = if self.rules.paging == Paging::Numbered { 1 } else { self.rules.page_limit };
        let mut request = PageRequest { from: from.max(kept).min(window.from), to, limit, position: Position::First };
        let mut rows = 0;
        for _ in 0..=listed / u64::from(limit) + 1 {
            let Ok(page) = self.ask_once(&request, asks).await else { return false };
            rows = page.total.unwrap_or(rows + page.records.len() as u64);
            if rows > listed {
                lock(&self.learnt).caps.shows(rows);
                return true;
            }
            let Some(token) = page.next_token.filter(|_| page.total.is_none()) else { return false };
            request.position = Position::Token(token);
        }
        false
    }

    /// Asks a window again whose records lie elsewhere, though the API has gone by the times that they show: see
    /// [`super::places`].
    async fn believe_place(&self, mut read: Read, asks: Asks<'_>) -> Result<Read, Overflow> {
        let window = read.window.window;
        let place = |read: &Read| Place::of(window, self.rules.unit, &read.window.found);
        if lock(&self.learnt).places.saw(place(&read)) {
            self.metrics.doubted();
            let strays = |read: &Read| places::strays(window, self.rules.unit, &read.window.found);
            let (mut listed, mut agreed, mut waits) = (strays(&read), 0, Waits::new());
            while !listed.is_empty()
                && let Some(patience) = PATIENCE.get(agreed)
            {
                self.metrics.error(FetchReason::Doubtful);
                let message = "the API lists what lies elsewhere than what is asked for: not believed, asking again";
                self.failed(Kind::Answers, FetchReason::Doubtful, message, false);
                let wait = if agreed == 0 { waits.next_wait().max(*patience) } else { *patience };
                tokio::time::sleep(wait).await;
                read = self.read_once(window, asks).await?;
                let again = strays(&read);
                agreed = if listed.is_subset(&again) { agreed + 1 } else { 0 };
                listed = again;
            }
            if !listed.is_empty() {
                lock(&self.learnt).places.stray();
            }
            self.worked(Kind::Answers);
        }
        match place(&read) {
            Place::FarOutside => {
                let message = "what the API lists shows times that lie more than an hour from what is asked for: its bounds or \
                               its records mean another time, and what is new may come late";
                self.failed(Kind::Places, FetchReason::Doubtful, message, false);
            }
            Place::Inside | Place::Outside => self.worked(Kind::Places),
            Place::Unknown => {}
        }
        Ok(read)
    }

    /// Asks a window that seems too empty again, until it is believed: see [`super::doubt`].
    async fn believe(&self, mut read: Read, asks: Asks<'_>) -> Result<Read, Overflow> {
        let window = read.window.window;
        let last = self.is_last(window);
        let worth = |read: &Read| match lock(&self.learnt).neighbourhood.worth(window, read.own, read.bare, last) {
            // What was left out may be more than what was missed.
            _ if read.contrary => Worth::Doubted,
            worth => worth,
        };
        match worth(&read) {
            Worth::Plain => return Ok(read),
            Worth::WithWitness if self.ask_witness(window, asks).await == Witness::True => return Ok(read),
            Worth::WithWitness | Worth::Doubted => {}
        }
        self.metrics.doubted();
        tracing::debug!(
            stream = self.stream.name,
            ?window,
            rows = read.rows,
            "emptier than its neighbours, asking again"
        );
        let (mut agreed, mut waits) = (0, Waits::new());
        loop {
            let before = self.ask_witness(window, asks).await;
            let patience = {
                let neighbourhood = &lock(&self.learnt).neighbourhood;
                match before {
                    Witness::Unknown => neighbourhood.patience_with_nothing(),
                    Witness::True | Witness::False => neighbourhood.patience(last),
                }
            };
            let Some(wait) = patience.get(agreed) else { break };
            tokio::time::sleep(*wait).await;
            let again = self.read_once(window, asks).await?;
            let after = self.ask_witness(window, asks).await;
            if again.rows > read.rows {
                // It lied, or has changed its mind; what it says now is looked at in the same way.
                lock(&self.learnt).neighbourhood.lied();
                agreed = 0;
                let worth = worth(&again);
                read = again;
                if worth == Worth::Plain || worth == Worth::WithWitness && after == Witness::True {
                    self.worked(Kind::Answers);
                    return Ok(read);
                }
                continue;
            }
            // Nothing is taken from a reading by a later one.
            drop(again);
            if before == after && before != Witness::False {
                agreed += 1;
                continue;
            }
            agreed = 0;
            self.metrics.error(FetchReason::Doubtful);
            let message =
                "the API lists nothing, not even where it has listed records before: not believed, asking again";
            self.failed(Kind::Answers, FetchReason::Doubtful, message, false);
            tokio::time::sleep(waits.next_wait()).await;
        }
        self.worked(Kind::Answers);
        let mut learnt = lock(&self.learnt);
        if learnt.neighbourhood.best_witness().is_some() {
            learnt.neighbourhood.was_honest();
            return Ok(read);
        }
        learnt.keep_silence(window.from);
        if learnt.neighbourhood.is_empty() {
            tracing::warn!(
                stream = self.stream.name,
                "the API has not listed a single record yet: as it should be where nothing has happened; else look at \
                 what the config asks for. Once it lists one, all that it called empty is read once more"
            );
        }
        drop(learnt);
        Ok(read)
    }

    /// Whether a window lists the first records of all and is too long to be believed, now that there are some: before all of
    /// its pages are read.
    fn is_first_heard(&self, window: Window) -> bool {
        let is_over = window.to <= self.now().sure;
        let lengths = &mut lock(&self.learnt).lengths;
        let is_first = is_over && !lengths.has_heard() && window.len() > lengths::SHORT;
        if is_first {
            lengths.hear();
        }
        is_first
    }

    /// What a window shows of how long one may be.
    fn learn_length(&self, read: &Read) -> Result<(), Overflow> {
        let (window, lengths) = (read.window.window, &mut lock(&self.learnt).lengths);
        lengths.saw(window, &read.window.found, read.outcome < Outcome::Split);
        if self.doubts_length(lengths, window) && lengths.has_grown(window) { Err(Overflow) } else { Ok(()) }
    }

    /// Whether a window is too long to be believed. What is not over is read again, in shorter ones.
    fn doubts_length(&self, lengths: &Lengths, window: Window) -> bool {
        window.to <= self.now().sure && lengths.doubt(window.len())
    }

    /// Asks a control question where it is not known that an interval as long as `window` is answered up to its ends: see
    /// [`super::lengths`].
    async fn believe_length(&self, window: Window) -> Result<(), Overflow> {
        let doubts = || self.doubts_length(&lock(&self.learnt).lengths, window);
        if !doubts() {
            return Ok(());
        }
        let _turn = self.controls.lock().await;
        if !doubts() {
            return Ok(());
        }
        // Whoever has its turn waits for nobody: a reading that a lane waits for may be next.
        let asks = Asks { rank: self.client.rank(Priority::Live), awaited: &Awaited::now() };
        let (now, kept) = (self.now(), self.oldest_kept(self.now()));
        for edge in [Edge::First, Edge::Last] {
            let control = lock(&self.learnt).lengths.control(window.len(), edge, self.rules.unit, now, kept);
            let is_answered = match control {
                Some((Window { from, to }, anchor)) => {
                    let request = PageRequest { from, to, limit: self.rules.page_limit, position: Position::First };
                    let page = self.ask_once(&request, asks).await;
                    page.is_ok_and(|page| page.records.iter().any(|listed| listed.fingerprint == anchor.record))
                }
                None => false,
            };
            if !is_answered {
                lock(&self.learnt).lengths.shows_not();
                tracing::debug!(stream = self.stream.name, ?window, ?edge, "too long to be believed, asking for less");
                return Err(Overflow);
            }
        }
        lock(&self.learnt).lengths.shows(window.len());
        Ok(())
    }

    /// Asks a control question where it seems that the API does not go by the bounds that it is asked for: see
    /// [`super::bounds`]. What that shows of the windows before, too, is given up with this one. `Some` where the API does, but
    /// what it has listed for this one is worth another look: what it must have lied about before.
    async fn question_bounds(&self, read: &mut Read, asks: Asks<'_>) -> Option<Vec<Gap>> {
        let WindowRead { window, found, gaps, shard: Shard::WHOLE, .. } = &mut read.window else { return None };
        let (window, unit) = (*window, self.rules.unit);
        let question = lock(&self.bounds).saw(window, unit, found);
        let Some(Question { record, time, away }) = question else {
            if lock(&self.bounds).are_believed() {
                self.worked(Kind::Bounds);
            }
            return None;
        };
        let limit = self.rules.page_limit;
        let control = PageRequest { from: away - unit, to: away, limit, position: Position::First };
        // A cache, too, answers the same to everything, for a while.
        let believed = lock(&self.bounds).are_believed();
        let patience = if believed { PATIENCE } else { &[] };
        for wait in [Duration::ZERO].iter().chain(patience) {
            tokio::time::sleep(*wait).await;
            // Whoever does not answer now is asked with the next window.
            let Ok(page) = self.ask_once(&control, asks).await else { return None };
            let listed = |found: &Found| page.records.iter().any(|listed| listed.fingerprint == found.fingerprint);
            if !found.iter().any(listed) {
                let lied = lock(&self.bounds).count(window, record, time);
                self.worked(Kind::Bounds);
                return believed.then_some(lied);
            }
        }
        gaps.extend(lock(&self.bounds).count_not(record));
        self.metrics.error(FetchReason::Doubtful);
        let message = "the API lists the same records whatever bounds are asked for: such a source cannot be read completely, \
                       and what it was asked for is a gap";
        self.failed(Kind::Bounds, FetchReason::Doubtful, message, true);
        None
    }

    /// Whether no pass is to read the window again.
    fn is_last(&self, window: Window) -> bool {
        let schedule = &self.schedule;
        let oldest = schedule.sweeps.last().copied().unwrap_or(schedule.settle + schedule.overlap);
        window.to <= self.now().sure - oldest
    }

    /// Asks for one record of a window that is known to hold some; of an API that has never listed any, for one of all
    /// since `window`.
    async fn ask_witness(&self, window: Window, asks: Asks<'_>) -> Witness {
        let witnesses = lock(&self.learnt).neighbourhood.witnesses();
        for witness in &witnesses {
            if self.lists(witness.from - self.rules.unit, witness.to, asks).await {
                return Witness::True;
            }
        }
        // They may be gone for good; what is new tells as well.
        let since = lock(&self.learnt).silent.map_or(window.from, |silent| silent.min(window.from));
        let (from, to) = (since - self.rules.unit, floor_to(self.now().latest, self.rules.unit) + self.rules.unit);
        if from < to && self.lists(from, to, asks).await {
            lock(&self.learnt).neighbourhood.add_witness(Window { from: since, to });
            return Witness::True;
        }
        if witnesses.is_empty() { Witness::Unknown } else { Witness::False }
    }

    async fn lists(&self, from: Millis, to: Millis, asks: Asks<'_>) -> bool {
        let request = PageRequest { from, to, limit: 1, position: Position::First };
        match self.ask_once(&request, asks).await {
            Ok(page) => !page.records.is_empty() || page.next_token.is_some(),
            // One record that is too large is a record.
            Err(reason) => reason == FetchReason::TooLarge,
        }
    }

    /// Once: an API that fails here is asked again by whoever has doubts.
    async fn ask_once(&self, request: &PageRequest, asks: Asks<'_>) -> Result<Page, FetchReason> {
        self.metrics.request_started();
        match self.client.fetch_for(request, asks.rank, asks.awaited).await {
            Ok(fetched) => {
                self.metrics.request_finished(fetched.timing.requests);
                self.metrics.waited(fetched.timing);
                Ok(fetched.page)
            }
            Err(error) => {
                self.metrics.error(error.reason);
                Err(error.reason)
            }
        }
    }

    /// Asks until the page comes, or it is certain that it is this page that does not.
    async fn fetch(&self, request: &PageRequest, asks: Asks<'_>, later_tries: u32) -> Asked {
        let mut backoff = Backoff::new();
        let mut tries = 0;
        loop {
            self.metrics.request_started();
            match self.client.fetch_for(request, asks.rank, asks.awaited).await {
                Ok(fetched) => {
                    self.metrics.request_finished(fetched.timing.requests);
                    self.metrics.waited(fetched.timing);
                    self.metrics.records(fetched.page.records.len() as u64);
                    self.show_clock();
                    self.worked(Kind::Requests);
                    if request.position != Position::First {
                        self.worked(Kind::Pages);
                    }
                    return Asked::Page(fetched.page);
                }
                Err(error) if error.reason == FetchReason::TooLarge => {
                    self.metrics.error(error.reason);
                    tracing::debug!(stream = self.stream.name, limit = request.limit, "asking for less: {error}");
                    return Asked::TooLarge;
                }
                Err(error) => {
                    tries += 1;
                    let later = request.position != Position::First;
                    if later && is_of_its_place(&error, tries, later_tries) {
                        // If there is more to it than a token's age or a page too deep, the new run's first page tells.
                        self.metrics.error(error.reason);
                        let (stream, reason) = (&self.stream.name, error.reason.label());
                        tracing::debug!(stream, reason, "a run of pages broke off, reading it again: {error}");
                        self.failed(Kind::Pages, error.reason, &format!("later pages cannot be had: {error}"), false);
                        return Asked::Broken;
                    }
                    self.metrics.error(error.reason);
                    let needs_operator = matches!(error.class, FailureClass::Credentials | FailureClass::Refused);
                    tracing::debug!(
                        stream = self.stream.name,
                        reason = error.reason.label(),
                        "request failed: {error}"
                    );
                    if later {
                        self.failed(Kind::Pages, error.reason, &format!("later pages cannot be had: {error}"), false);
                    } else {
                        self.failed(Kind::Requests, error.reason, &error.to_string(), needs_operator);
                    }
                    if !later && error.class == FailureClass::Refused && self.is_too_long(request, asks).await {
                        return Asked::Refused;
                    }
                    if !later && is_of_its_interval(&error, tries) {
                        let witnesses = lock(&self.learnt).neighbourhood.witnesses();
                        for witness in witnesses.iter().filter(|witness| is_elsewhere(**witness, request)) {
                            if self.lists(witness.from - self.rules.unit, witness.to, asks).await {
                                return Asked::Refused;
                            }
                        }
                    }
                    tokio::time::sleep(backoff.next(&error)).await;
                }
            }
        }
    }

    /// Whether an interval that is refused may be so for its length: its last minute is answered.
    async fn is_too_long(&self, request: &PageRequest, asks: Asks<'_>) -> bool {
        let length = request.to - request.from;
        let part = PageRequest { from: request.to - PART, limit: 1, ..request.clone() };
        let is_too_long = length > lengths::SHORT && self.ask_once(&part, asks).await.is_ok();
        if is_too_long {
            lock(&self.learnt).lengths.are_refused(length);
        }
        is_too_long
    }

    /// Asks for the first page of a stream until it comes.
    pub(super) async fn first_heard(&self, request: &PageRequest) {
        let asks = Asks { rank: self.client.rank(Priority::Live), awaited: &Awaited::now() };
        let _ = self.fetch(request, asks, LATER_TRIES).await;
    }

    /// Once, however often it is read.
    fn tell_gap(&self, gap: &Gap) {
        if !lock(&self.learnt).is_new(*gap) {
            return;
        }
        let time = |millis| jiff::Timestamp::from_millisecond(millis).unwrap_or_default();
        tracing::error!(
            stream = self.stream.name, from = %time(gap.from), to = %time(gap.to), reason = gap.reason.label(),
            "given up: not all that lies between could be read"
        );
    }

    pub(super) fn failed(&self, kind: Kind, reason: FetchReason, message: &str, needs_operator: bool) {
        let stream = &self.stream.name;
        let said = lock(&self.trouble).failed(kind, reason, message, needs_operator, Instant::now());
        let Some(said) = said else { return };
        self.board.failing(reason, message.to_owned());
        let loud = needs_operator || reason == FetchReason::Doubtful;
        match said {
            Say::Failing if loud => {
                tracing::error!(stream, reason = reason.label(), "cannot read, trying again: {message}")
            }
            Say::Failing => tracing::warn!(stream, reason = reason.label(), "cannot read, trying again: {message}"),
            Say::Still(since) => {
                let since = told(since);
                tracing::error!(stream, reason = reason.label(), since, "still cannot read: {message}");
            }
            Say::Well(..) => unreachable!("a failure is no recovery"),
        }
    }

    pub(super) fn worked(&self, kind: Kind) {
        if kind == Kind::Requests {
            self.board.heard();
        }
        let Some(Say::Well(after, other)) = lock(&self.trouble).worked(kind, Instant::now()) else { return };
        match other {
            Some((reason, message)) => self.board.failing(reason, message),
            None => {
                self.board.ok();
                let after = told(after);
                tracing::info!(stream = self.stream.name, after, "reads again");
            }
        }
    }

    /// The oldest time that the API still gives at the server's time `now`: the least there can be of what it documents.
    #[must_use]
    pub fn oldest_kept(&self, now: Now) -> Option<Millis> {
        self.client.history().map(|history| now.sure - millis(history))
    }

    /// The oldest time that whoever begins at `now` can read: the bound moves on while the first window is asked for, and the
    /// API may refuse what lies beyond it.
    #[must_use]
    pub fn oldest_readable(&self, now: Now) -> Option<Millis> {
        self.oldest_kept(now).map(|kept| floor_to(kept + SPARE, self.rules.unit))
    }
}

/// A time that passed, as it is told: in whole seconds, but for what is less than one.
fn told(time: Duration) -> String {
    let brief = time < Duration::from_secs(1);
    units::duration_text(if brief { time } else { Duration::from_secs(time.as_secs()) })
}

/// Whether a failure is that of a page's place in its run.
fn is_of_its_place(error: &FetchError, tries: u32, most: u32) -> bool {
    match error.class {
        FailureClass::Refused => true,
        FailureClass::Throttled | FailureClass::Credentials => false,
        FailureClass::Transient | FailureClass::Malformed => tries >= most,
    }
}

/// Whether a failure may be that of what was asked for, and not of whom.
fn is_of_its_interval(error: &FetchError, tries: u32) -> bool {
    match error.class {
        FailureClass::Refused => tries >= FIRST_TRIES.1,
        FailureClass::Throttled | FailureClass::Credentials => false,
        FailureClass::Transient | FailureClass::Malformed => {
            tries >= FIRST_TRIES.0 && error.reason != FetchReason::Connect
        }
    }
}

fn is_elsewhere(witness: Window, request: &PageRequest) -> bool {
    witness.to < request.from || request.to < witness.from
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
