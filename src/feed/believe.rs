//! What a window lists is believed once there is evidence for it: see `docs/trust.md`.

use std::time::Duration;

use super::ask::Asks;
use super::bounds::Question;
use super::doubt::{PATIENCE, Witness, Worth};
use super::lengths::{self, Edge, Lengths};
use super::places::{self, Place};
use super::read::Read;
use super::trouble::Kind;
use super::{Feed, Overflow, SURPRISE, WindowRead, lock};
use crate::event::Millis;
use crate::page::{PageRequest, Position, Priority};
use crate::reading::{Found, Gap, Outcome, Paging, Rules, Shard, Suspicion};
use crate::retry::Waits;
use crate::source::FetchReason;
use crate::window::{Window, floor_to};

/// An interval three times as long must list so large a part more.
const MORE: u64 = 4;

impl Feed {
    /// Looks for more than the most that any query has listed: see [`super::caps`].
    pub(super) async fn believe_count(&self, read: Read) -> Result<Read, Overflow> {
        let (window, most) = (read.window.window, read.most);
        let suspects = || {
            let learnt = lock(&self.learnt);
            read.cap != Some(most)
                && window.len() > self.rules.unit
                && learnt.caps.suspects(most, learnt.everywhere.listed().rows)
        };
        lock(&self.learnt).caps.window(window, most);
        // Who goes by no bounds lists no less of less.
        let may_be_cut = suspects() && lock(&self.bounds).are_believed();
        let turn = if may_be_cut { Some(self.controls.lock().await) } else { None };
        if turn.is_none() || !suspects() {
            lock(&self.learnt).caps.believe(window, most);
            return Ok(read);
        }
        // Whoever has its turn waits for nobody: a reading that a lane waits for may be next.
        let asks = self.asks(Priority::Live);
        // So many are not asked for once more to see whether there are more: shorter windows list less each. A comfortable
        // window, with what it lists beyond its ends, is.
        if most > 2 * self.rules.max_rows / SURPRISE {
            lock(&self.learnt).density.overflowed(window, most);
            return Err(Overflow);
        }
        if self.lists_more(window, most, asks).await {
            lock(&self.learnt).caps.is_no_limit(most);
            return Ok(read);
        }
        let rules = Rules { suspicion: Suspicion::Limit(most), ..self.rules };
        let Some(mut parts) = self.read_with(rules, window, asks).await? else { return Ok(read) };
        let mut learnt = lock(&self.learnt);
        if parts.rows <= read.rows {
            // Nothing shorter can be asked for.
            parts.full.iter().for_each(|unit| learnt.caps.believe(Window { from: unit.from, to: unit.to }, most));
            learnt.caps.cut_in_vain(most);
            return Ok(read);
        }
        parts.window.gaps.append(&mut parts.full);
        // It may be another one for each of them.
        learnt.audit.doubt();
        if let Some(given_up) = learnt.caps.cut(most) {
            parts.window.gaps.extend(given_up);
            self.learn_cap(&mut learnt);
        }
        Ok(parts)
    }

    /// Whether an interval around `window` lists, or counts, more than `listed` records.
    async fn lists_more(&self, window: Window, listed: u64, asks: Asks<'_>) -> bool {
        let now = self.now();
        let kept = self.oldest_readable(now).unwrap_or(Millis::MIN);
        let (from, to) = (window.from - window.len(), window.to + window.len());
        let to = to.min(floor_to(now.sure, self.rules.unit)).max(window.to);
        // Who counts need not list.
        let limit = if self.rules.paging == Paging::Numbered { 1 } else { self.rules.page_limit };
        let mut request = PageRequest { from: from.max(kept).min(window.from), to, limit, position: Position::First };
        let mut rows = 0;
        for _ in 0..=listed / u64::from(limit) + 1 {
            let Ok(page) = self.ask_once(&request, asks).await else { return false };
            rows = page.total.unwrap_or(rows + page.records.len() as u64);
            // A little more may be another limit.
            if rows > listed + listed / MORE {
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
    pub(super) async fn believe_place(&self, mut read: Read, asks: Asks<'_>) -> Result<Read, Overflow> {
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
    pub(super) async fn believe(&self, mut read: Read, asks: Asks<'_>) -> Result<Read, Overflow> {
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
    pub(super) fn is_first_heard(&self, window: Window) -> bool {
        let is_over = window.to <= self.now().sure;
        let lengths = &mut lock(&self.learnt).lengths;
        let is_first = is_over && !lengths.has_heard() && window.len() > lengths::SHORT;
        if is_first {
            lengths.hear();
        }
        is_first
    }

    /// What a window shows of how long one may be.
    pub(super) fn learn_length(&self, read: &Read) -> Result<(), Overflow> {
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
    pub(super) async fn believe_length(&self, window: Window) -> Result<(), Overflow> {
        let doubts = || self.doubts_length(&lock(&self.learnt).lengths, window);
        if !doubts() {
            return Ok(());
        }
        let _turn = self.controls.lock().await;
        if !doubts() {
            return Ok(());
        }
        // Whoever has its turn waits for nobody: a reading that a lane waits for may be next.
        let asks = self.asks(Priority::Live);
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
    pub(super) async fn question_bounds(&self, read: &mut Read, asks: Asks<'_>) -> Option<Vec<Gap>> {
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
        // A long one may be answered in part by now.
        let near = lock(&self.learnt).lengths.near_a_record();
        if let Some(Window { from, to }) = near.filter(|near| near.to <= self.now().sure)
            && self.lists(from, to, asks).await
        {
            lock(&self.learnt).neighbourhood.add_witness(Window { from, to });
            return Witness::True;
        }
        // They may be gone for good; what is new tells as well.
        let since = lock(&self.learnt).silent.map_or(window.from, |silent| silent.min(window.from));
        let (from, to) = (since - self.rules.unit, floor_to(self.now().latest, self.rules.unit) + self.rules.unit);
        if from < to
            && let Some(time) = self.one_of(from, to, asks).await
        {
            let neighbourhood = &mut lock(&self.learnt).neighbourhood;
            neighbourhood.add_witness(Window { from: since, to });
            let near = time.map(lengths::around).filter(|near| since <= near.from && near.to <= to);
            near.into_iter().for_each(|near| neighbourhood.add_witness(near));
            return Witness::True;
        }
        if witnesses.is_empty() { Witness::Unknown } else { Witness::False }
    }
}
