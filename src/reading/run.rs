//! One run of pages: the parameters are frozen, only the position moves.

use std::cmp::Ordering;
use std::collections::{BTreeMap, HashSet};

use super::tally::{Seen, Tally};
use crate::event::{Fingerprint, Listed, Millis};
use crate::page::{Page, PageRequest, Position};
use crate::window::{Window, floor_to};

/// How a source names the next page.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Paging {
    /// By number, with a total (GenAuth).
    Numbered,
    /// By a token from the page before, with no total (SCloud).
    Tokens,
}

/// Pages in a row that list nothing new to their run before a run counts as one that does not end. More than a few are honest where
/// the API filters what it has cut into pages.
const MOST_IDLE: u32 = 100;

#[derive(Debug, PartialEq, Eq)]
pub(super) enum Ended {
    NotYet,
    Yes,
    /// A token came twice: the run goes in a circle.
    Void,
    /// Page after page, and nothing new on any.
    Endless,
}

#[derive(Debug)]
pub(super) struct Run {
    paging: Paging,
    bounds: (Millis, Millis),
    limit: u32,
    unit: Millis,
    number: u32,
    position: Position,
    pages: u32,
    rows: u64,
    /// Rows that cannot be had, whatever is asked.
    holes: u64,
    /// The bounds of all that this run listed.
    bounded: u64,
    raised: bool,
    total: Option<u64>,
    grew: bool,
    shrank: bool,
    /// The last page that listed anything was a full one.
    full: bool,
    idle: u32,
    /// Hashes, so that their length costs nothing.
    tokens: HashSet<[u8; 16]>,
    /// Clock units with a fingerprint on two pages, and one such fingerprint of each.
    doubted: BTreeMap<Millis, Fingerprint>,
    /// A fingerprint whose own time lies in no unit that was asked for stood on two pages: no unit to read alone.
    doubted_nowhere: bool,
}

impl Run {
    pub(super) fn new(paging: Paging, bounds: (Millis, Millis), limit: u32, unit: Millis, number: u32) -> Self {
        Self {
            paging,
            bounds,
            limit,
            unit,
            number,
            position: Position::First,
            pages: 0,
            rows: 0,
            holes: 0,
            bounded: 0,
            raised: false,
            total: None,
            grew: false,
            shrank: false,
            full: false,
            idle: 0,
            tokens: HashSet::new(),
            doubted: BTreeMap::new(),
            doubted_nowhere: false,
        }
    }

    pub(super) fn request(&self) -> PageRequest {
        let (from, to) = self.bounds;
        PageRequest { from, to, limit: self.limit, position: self.position.clone() }
    }

    pub(super) fn take(&mut self, page: Page, tally: &mut Tally) -> Ended {
        let Page { records, total, next_token, held, bare: _ } = page;
        let listed = records.len() as u64;
        self.pages += 1;
        self.rows += listed;
        if let Some(total) = total {
            let before = *self.total.get_or_insert(total);
            self.grew |= total > before;
            self.shrank |= total < before;
            self.total = Some(total);
        }
        tally.begin_page();
        let (rows_before, bounded_before) = (tally.rows(), self.bounded);
        for place in 0..records.len() {
            self.see(&records, place, tally);
        }
        if tally.rows() > rows_before {
            tally.keep(held);
        }
        self.idle = if self.bounded > bounded_before { 0 } else { self.idle + 1 };
        if listed > 0 {
            self.full = listed >= u64::from(self.limit);
        }
        match (self.paging, next_token) {
            (Paging::Numbered, _) => {
                let to_come = self.total.map(|total| total.cmp(&(self.rows + self.holes)));
                match to_come {
                    _ if listed == 0 => return Ended::Yes,
                    // A full page that is said to be the last is believed when the next one is empty: some count a page.
                    Some(Ordering::Equal) if !self.full => return Ended::Yes,
                    Some(Ordering::Less) => return Ended::Yes,
                    _ => {}
                }
                self.position = Position::Number(self.pages + 1);
            }
            (Paging::Tokens, None) => return Ended::Yes,
            (Paging::Tokens, Some(token)) => {
                let mut hash = [0; 16];
                hash.copy_from_slice(&blake3::hash(token.as_bytes()).as_bytes()[..16]);
                if !self.tokens.insert(hash) {
                    return Ended::Void;
                }
                self.position = Position::Token(token);
            }
        }
        if self.idle >= MOST_IDLE { Ended::Endless } else { Ended::NotYet }
    }

    /// Goes on behind a page of one record that cannot be had; `false` if there is no way past it, or none of so many in a
    /// row could be had.
    pub(super) fn skip(&mut self) -> bool {
        self.idle += 1;
        if self.paging == Paging::Tokens || self.idle >= MOST_IDLE {
            return false;
        }
        self.pages += 1;
        self.holes += 1;
        self.position = Position::Number(self.pages + 1);
        true
    }

    fn see(&mut self, records: &[Listed], place: usize, tally: &mut Tally) {
        let Listed { time, fingerprint, .. } = records[place];
        match tally.see(self.number, records, place) {
            Seen::First { bound, new } => {
                self.bounded += bound;
                self.raised |= new;
            }
            Seen::Again { raised } => {
                self.bounded += u64::from(raised);
                self.raised |= raised;
            }
            Seen::OnTwoPages => match time {
                Some(time) if self.bounds.0 <= time && time <= self.bounds.1 => {
                    self.doubted.insert(floor_to(time, self.unit), fingerprint);
                }
                _ => self.doubted_nowhere = true,
            },
        }
    }

    /// Whether a run that ended listed more or fewer rows than the API itself counts. However pages shift, each lists
    /// what lies at its place of as many as there are then; so no honest run does.
    pub(super) fn contradicts_itself(&self) -> bool {
        self.total.is_some_and(|total| self.rows + self.holes != total)
    }

    /// Whether it lists fewer rows than earlier runs have shown to be there: of the same bounds, or nothing where they have
    /// listed something of that time. An order that changes hides a record for each that it repeats, so rows are as many.
    pub(super) fn forgets(&self, tally: &Tally, window: Window) -> bool {
        let rows = self.bounded.max(self.rows + self.holes);
        tally.rows_within(self.number, self.bounds) > rows || self.rows == 0 && tally.holds(window)
    }

    /// Whether the bounds add up to all there is: the total that the API gave, or as many rows as the run listed. A
    /// run that ended has listed at least as many as there were when it began, however they were shuffled or shifted.
    pub(super) fn proves(&self, tally: &Tally) -> bool {
        match self.total {
            Some(total) => {
                !self.contradicts_itself() && !self.shrank && self.lacks(total.saturating_sub(self.holes), tally) == 0
            }
            // Where nothing counts, only a page that is not full shows that it is the last.
            None => !self.full && self.lacks(self.rows, tally) == 0,
        }
    }

    fn lacks(&self, total: u64, tally: &Tally) -> u64 {
        // What earlier runs found counts too, and is looked up only if this run's own is not enough.
        if self.bounded >= total {
            return 0;
        }
        total.saturating_sub(tally.rows_within(self.number, self.bounds))
    }

    /// Whether reading the doubted units alone can prove the rest: whatever is hidden is hidden in one of them.
    pub(super) fn settles_by_units(&self) -> bool {
        let ended = self.total.is_some() || !self.full;
        ended && !self.doubted_nowhere && !self.grew && !self.shrank && !self.contradicts_itself()
    }

    pub(super) const fn doubted(&self) -> &BTreeMap<Millis, Fingerprint> {
        &self.doubted
    }

    /// Whether it asked for `[t, t]`.
    pub(super) const fn is_narrow(&self) -> bool {
        self.bounds.0 == self.bounds.1
    }

    pub(super) const fn raised(&self) -> bool {
        self.raised
    }

    /// Whether a record came in at a place that the run had passed.
    pub(super) fn has_shifted(&self) -> bool {
        self.grew && (self.doubted_nowhere || !self.doubted.is_empty())
    }

    pub(super) const fn number(&self) -> u32 {
        self.number
    }

    pub(super) const fn bounds(&self) -> (Millis, Millis) {
        self.bounds
    }

    pub(super) const fn total(&self) -> Option<u64> {
        self.total
    }

    pub(super) const fn pages(&self) -> u32 {
        self.pages
    }

    /// How many rows the next page would reach. An empty page counts as a row: an API that always has one more
    /// must not be followed for ever.
    pub(super) fn next_reaches(&self) -> u64 {
        match self.paging {
            Paging::Numbered => u64::from(self.pages + 1) * u64::from(self.limit),
            Paging::Tokens => (self.rows + u64::from(self.limit)).max(u64::from(self.pages)),
        }
    }

    /// Rows that it listed.
    pub(super) const fn rows(&self) -> u64 {
        self.rows
    }

    /// Rows in all, as far as known: the total, or what was listed so far.
    pub(super) fn rows_known(&self) -> u64 {
        self.total.unwrap_or(0).max(self.rows)
    }
}
