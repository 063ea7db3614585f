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
use crate::reading::{Found, Gap, GapReason, Rules, Shard, Suspicion};
use crate::source::{FetchReason, Priority};
use crate::state::admit::is_outside;

/// So often parts are asked for before a run ends.
const LAST_TRIES: u32 = 3;

impl Feed {
    /// Compares a window with its parts, if it is its turn.
    pub(super) async fn audit(&self, read: Read) -> Result<Read, Overflow> {
        // What was called empty before anything was listed is read again.
        let counts = read.rows > 0 || lock(&self.learnt).lengths.has_heard();
        if counts && self.can_be_compared(&read) && lock(&self.learnt).audit.is_due(read.window.window, read.rows) {
            let _turn = self.controls.lock().await;
            return self.compare_with_parts(read).await;
        }
        Ok(read)
    }

    /// Before a run ends: compares the window that tells the most of those that no audit has shown.
    pub async fn audit_last(&self) {
        let _turn = self.controls.lock().await;
        for _ in 0..LAST_TRIES {
            let Some(window) = lock(&self.learnt).audit.last() else { return };
            let asks = Asks { once: true, ..self.asks(Priority::Live) };
            let Ok(Some(read)) = self.read_with(self.rules, window, asks).await else { continue };
            if !self.can_be_compared(&read) {
                return;
            }
            // Whatever it shows is known then.
            _ = self.compare_with_parts(read).await;
        }
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

    /// Whoever calls it has the turn at control questions.
    async fn compare_with_parts(&self, mut read: Read) -> Result<Read, Overflow> {
        let (window, unit, rows) = (read.window.window, self.rules.unit, read.rows);
        let (is_strict, is_patient) = {
            let audit = &mut lock(&self.learnt).audit;
            (audit.is_strict(), audit.is_patient(rows))
        };
        // The next window is as good, while nothing is known to be hidden.
        let asks = Asks { once: !is_patient, ..self.asks(Priority::Live) };
        let later = || lock(&self.learnt).audit.later(rows);
        // What is not known to hide any may have been deleted in between. What comes in is no sign: whatever the parts list, the
        // whole lists after them, and what it lists before and after them they list.
        let waits: &[Duration] = if is_strict { &[Duration::ZERO] } else { &[Duration::ZERO, PATIENCE[0]] };
        let mut whole_hides = false;
        for wait in waits {
            tokio::time::sleep(*wait).await;
            let before = listed(&read, unit);
            let cap = lock(&self.learnt).caps.suspected();
            let suspicion = Suspicion::Parts(audit::cuts(window, &read.window.found, unit));
            let rules = Rules { cap, suspicion, ..self.rules };
            let Some(parts) = self.read_with(rules, window, asks).await? else {
                if is_patient {
                    // What cannot be shown to be all is not believed.
                    whole_hides = true;
                    break;
                }
                later();
                return Ok(read);
            };
            let in_parts = listed(&parts, unit);
            if in_parts == before {
                return Ok(self.agreed(read));
            }
            let rules = Rules { cap, ..self.rules };
            let Some(again) = self.read_with(rules, window, asks).await? else {
                later();
                return Ok(read);
            };
            let after = listed(&again, unit);
            whole_hides = !in_parts.is_subset(&after);
            let parts_hide = before.intersection(&after).any(|record| !in_parts.contains(record));
            read.add(parts);
            read.add(again);
            if !whole_hides && !parts_hide {
                return Ok(self.agreed(read));
            }
        }
        self.metrics.doubted();
        self.metrics.error(FetchReason::Doubtful);
        let message = "the API lists other records for parts of an interval than for all of it: it hides some. What was read \
                       since both last agreed is a gap, and each interval is read in parts, too";
        self.failed(Kind::Parts, FetchReason::Doubtful, message, true);
        let (is_shorter, gaps) = {
            let mut learnt = lock(&self.learnt);
            learnt.lengths.distrust();
            learnt.caps.distrust();
            let (may_agree, gaps) = learnt.audit.disagreed(read.rows);
            (may_agree && whole_hides, gaps.to_vec())
        };
        gaps.iter().for_each(|gap| self.tell_gap(gap));
        if is_shorter {
            lock(&self.learnt).density.overflowed(window, read.rows);
            return Err(Overflow);
        }
        read.window.gaps.push(Gap::of(window, GapReason::Contradiction));
        Ok(read)
    }

    fn agreed(&self, read: Read) -> Read {
        if lock(&self.learnt).audit.agreed(read.window.window, read.rows) {
            self.worked(Kind::Parts);
        }
        read
    }
}

/// The records that a reading listed, but for those at the ends of a window that is so short that its parts need not.
fn listed(read: &Read, unit: Millis) -> BTreeSet<Fingerprint> {
    let window = read.window.window;
    let is_compared =
        |found: &&Found| audit::has_edges(window, unit) || found.time.is_some_and(|time| window.contains(time));
    read.window.found.iter().filter(is_compared).map(|found| found.fingerprint).collect()
}
