//! Reads a window in parts as well, now and then, and compares: see [`super::audit`].

use std::collections::BTreeSet;
use std::sync::atomic::Ordering;
use std::time::Duration;

use super::ask::Asks;
use super::doubt::PATIENCE;
use super::read::Read;
use super::trouble::Kind;
use super::{Feed, Overflow, audit, lock};
use crate::event::{Fingerprint, Millis};
use crate::page::Priority;
use crate::reading::{Found, Gap, GapReason, Rules, Shard, Suspicion};
use crate::retry::Waits;
use crate::source::FetchReason;
use crate::state::admit::is_outside;

/// So often parts that do not come are asked for before a run ends.
const LAST_TRIES: u32 = 3;

impl Feed {
    /// Compares a window with its parts, if it is its turn.
    pub(super) async fn audit(&self, mut read: Read) -> Result<Read, Overflow> {
        // What was called empty before anything was listed is read again.
        let counts = read.rows > 0 || lock(&self.learnt).lengths.has_heard();
        let is_due = || lock(&self.learnt).audit.is_due(read.window.window, read.rows);
        if !counts || !self.can_be_compared(&read) || !is_due() {
            return Ok(read);
        }
        let _turn = self.controls.lock().await;
        let rows = read.rows;
        match self.compare(&mut read).await? {
            Verdict::Agree => self.agreed(&read),
            Verdict::Later => lock(&self.learnt).audit.later(rows),
            Verdict::Hides { whole } => {
                let may_agree = self.disagreed(&read);
                if may_agree && whole {
                    lock(&self.learnt).density.overflowed(read.window.window, read.rows);
                    return Err(Overflow);
                }
                read.window.gaps.push(Gap::of(read.window.window, GapReason::Contradiction));
            }
        }
        Ok(read)
    }

    /// Before a run ends: compares the windows that tell the most of those that no audit has shown.
    pub async fn audit_last(&self) {
        let _turn = self.controls.lock().await;
        let (mut waits, mut tries) = (Waits::new(), LAST_TRIES);
        let mut fullest = lock(&self.learnt).audit.fullest();
        while let Some(window) = fullest.pop() {
            let asks = Asks { once: true, ..self.asks(Priority::Live) };
            let agrees = match self.read_with(self.rules, window, asks).await {
                Ok(Some(read)) if !self.can_be_compared(&read) => return,
                Ok(Some(mut read)) => match self.compare(&mut read).await {
                    Ok(Verdict::Agree) => true,
                    Ok(Verdict::Hides { .. }) => {
                        self.disagreed(&read);
                        return;
                    }
                    Ok(Verdict::Later) | Err(Overflow) => false,
                },
                Ok(None) | Err(Overflow) => false,
            };
            if agrees {
                continue;
            }
            tries -= 1;
            if tries == 0 {
                tracing::warn!(
                    stream = self.stream.name,
                    "the API did not answer for parts of an interval: whether it hides some of the last records is not known"
                );
                return;
            }
            fullest.push(window);
            tokio::time::sleep(waits.next_wait()).await;
        }
        lock(&self.learnt).audit.all_agreed();
    }

    fn can_be_compared(&self, read: &Read) -> bool {
        let window = read.window.window;
        // Where records are filed by another time than they show, parts contradict each other.
        let stray = |found: &Found| found.time.is_some_and(|time| is_outside(window, self.rules.unit, time));
        window.len() > self.rules.unit
            && read.window.shard == Shard::WHOLE
            && window.to <= self.now().sure
            && !self.told_outside.load(Ordering::Relaxed)
            && !read.window.found.iter().any(stray)
            && lock(&self.bounds).are_believed()
    }

    /// Reads the parts of a window. Whoever calls it has the turn at control questions.
    async fn compare(&self, read: &mut Read) -> Result<Verdict, Overflow> {
        let (window, unit, rows) = (read.window.window, self.rules.unit, read.rows);
        let (is_strict, is_patient) = {
            let audit = &mut lock(&self.learnt).audit;
            (audit.is_strict(), audit.is_patient(rows))
        };
        // The next window is as good, while nothing is known to be hidden.
        let asks = Asks { once: !is_patient, ..self.asks(Priority::Live) };
        // What is not known to hide any may have been deleted in between. What comes in is no sign: whatever the parts list, the
        // whole lists after them, and what it lists before and after them they list.
        let waits: &[Duration] = if is_strict { &[Duration::ZERO] } else { &[Duration::ZERO, PATIENCE[0]] };
        let mut verdict = Verdict::Agree;
        let mut cuts = audit::cuts(window, &read.window.found, unit);
        let mut before = Shown::of(read, unit);
        for wait in waits {
            tokio::time::sleep(*wait).await;
            let cap = lock(&self.learnt).caps.suspected();
            let rules = Rules { cap, suspicion: Suspicion::Parts(cuts), ..self.rules };
            let Some(parts) = self.read_with(rules, window, asks).await? else {
                // What cannot be shown to be all is not believed.
                return Ok(if is_patient { Verdict::Hides { whole: true } } else { Verdict::Later });
            };
            let in_parts = Shown::of(&parts, unit);
            if in_parts.hides_none_of([&before, &before]) && before.hides_none_of([&in_parts, &in_parts]) {
                return Ok(Verdict::Agree);
            }
            let rules = Rules { cap, ..self.rules };
            let Some(again) = self.read_with(rules, window, asks).await? else { return Ok(Verdict::Later) };
            cuts = audit::cuts(window, &again.window.found, unit);
            let after = Shown::of(&again, unit);
            let whole = !after.hides_none_of([&in_parts, &in_parts]);
            let parts_hide = !in_parts.hides_none_of([&before, &after]);
            read.add(parts);
            read.add(again);
            if !whole && !parts_hide {
                return Ok(Verdict::Agree);
            }
            verdict = Verdict::Hides { whole };
            // Not all that was ever listed: what parts list that the whole does not is no evidence for it.
            before = after;
        }
        Ok(verdict)
    }

    fn agreed(&self, read: &Read) {
        let mut learnt = lock(&self.learnt);
        if read.rows >= audit::TELLING {
            learnt.lengths.shows(read.window.window.len());
        }
        let is_believed = learnt.audit.agreed(read.window.window, read.rows);
        drop(learnt);
        if is_believed {
            self.worked(Kind::Parts);
        }
    }

    /// Gives up what was believed. Whether windows of fewer records may agree.
    fn disagreed(&self, read: &Read) -> bool {
        self.metrics.doubted();
        self.metrics.error(FetchReason::Doubtful);
        let message = "the API lists other records for parts of an interval than for all of it: it hides some. What was read \
                       since both last agreed is a gap, and each interval is read in parts, too";
        self.failed(Kind::Parts, FetchReason::Doubtful, message, true);
        let (may_agree, gaps) = {
            let mut learnt = lock(&self.learnt);
            learnt.lengths.distrust();
            learnt.caps.distrust();
            let (may_agree, gaps) = learnt.audit.disagreed(read.rows);
            (may_agree, gaps.to_vec())
        };
        gaps.iter().for_each(|gap| self.tell_gap(gap));
        may_agree
    }
}

/// What the parts of a window show of it.
enum Verdict {
    Agree,
    /// They do not come now.
    Later,
    /// It is hidden whether they list the same, or they list other records: some that the `whole` hides, or fewer.
    Hides {
        whole: bool,
    },
}

/// The records that a reading of a window listed.
struct Shown {
    within: BTreeSet<Fingerprint>,
    /// Those that need not lie within it by their own time. `None` where it is so short, or was cut so often, that a clock unit at
    /// its end may have been asked for alone, which lists none of them.
    beside: Option<BTreeSet<Fingerprint>>,
}

impl Shown {
    fn of(read: &Read, unit: Millis) -> Self {
        let window = read.window.window;
        let is_within = |found: &&Found| found.time.is_some_and(|time| window.contains(time));
        let fingerprints = |found: Vec<&Found>| found.into_iter().map(|found| found.fingerprint).collect();
        let (within, beside) = read.window.found.iter().partition(is_within);
        let tells = audit::has_edges(window, unit) && !read.left_out_beside;
        Self { within: fingerprints(within), beside: tells.then(|| fingerprints(beside)) }
    }

    /// Whether it lists all that both list.
    fn hides_none_of(&self, [one, other]: [&Self; 2]) -> bool {
        let are_all_in = |one: &BTreeSet<_>, other: &BTreeSet<_>, here: &BTreeSet<_>| {
            one.intersection(other).all(|record| here.contains(record))
        };
        let are_beside = |((one, other), here)| are_all_in(one, other, here);
        are_all_in(&one.within, &other.within, &self.within)
            && one.beside.as_ref().zip(other.beside.as_ref()).zip(self.beside.as_ref()).is_none_or(are_beside)
    }
}

#[cfg(test)]
mod tests {
    use super::super::WindowRead;
    use super::*;
    use crate::memory::Hold;
    use crate::reading::Outcome;
    use crate::spans;
    use crate::window::Window;

    const UNIT: Millis = 1000;

    /// Of the window from second 10 to `to`; each record's number is its second.
    fn shown(to: u8, seconds: &[u8], left_out_beside: bool) -> Shown {
        let second = |second: u8| Millis::from(second) * UNIT;
        let found = |&number| Found {
            fingerprint: Fingerprint([number; 16]),
            time: Some(second(number)),
            raw: vec![bytes::Bytes::new()],
        };
        let window = WindowRead {
            window: Window { from: second(10), to: second(to) },
            read_at: 0,
            found: seconds.iter().map(found).collect(),
            held: Hold::uncounted(100),
            gaps: Vec::new(),
            shard: Shard::WHOLE,
            witness: None,
            place: spans::Place::here(),
        };
        let (rows, full, outcome) = (seconds.len() as u64, Vec::new(), Outcome::Complete);
        let (bare, contrary) = (false, false);
        let read =
            Read { window, rows, own: rows, most: rows, cap: None, full, bare, contrary, left_out_beside, outcome };
        Shown::of(&read, UNIT)
    }

    #[test]
    fn what_lies_beside_a_window_is_compared_where_both_readings_list_it() {
        let all = shown(20, &[9, 10, 15, 20], false);
        for left_out in [false, true] {
            let less = shown(20, &[10, 15], left_out);
            assert_eq!(less.hides_none_of([&all, &all]), left_out);
            assert!(all.hides_none_of([&less, &all]));
        }
        let within = shown(20, &[9, 10, 20], true);
        assert!(!within.hides_none_of([&all, &all]), "that of second 15 lies within");
        assert!(within.hides_none_of([&all, &shown(20, &[9, 10, 20], false)]), "one of them lists it");
        let (short, less) = (shown(13, &[9, 10, 13], false), shown(13, &[10], false));
        assert!(less.hides_none_of([&short, &short]), "parts of a short window are units");
    }
}
