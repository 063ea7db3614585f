//! One run of pages: the parameters are frozen, only the position moves.

use std::collections::{BTreeSet, HashSet};

use super::tally::{Seen, Tally};
use crate::event::{Listed, Millis};
use crate::source::{Page, PageRequest, Position};
use crate::window::floor_to;

/// How a source names the next page.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Paging {
    /// By number, with a total (GenAuth).
    Numbered,
    /// By a token from the page before, with no total (SCloud).
    Tokens,
}

/// A record whose own time lies further than this outside the bounds that were asked for is not merely
/// rounded: the API goes by another time than the record shows, and no other window will list it.
const ROUNDING: Millis = 60_000;

#[derive(Debug, PartialEq, Eq)]
pub(super) enum Ended {
    NotYet,
    Yes,
    /// A token came twice: the run goes in a circle.
    Void,
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
    /// The bounds of all that this run listed.
    bounded: u64,
    raised: bool,
    total: Option<u64>,
    grew: bool,
    shrank: bool,
    tokens: HashSet<String>,
    /// Clock units with a fingerprint on two pages.
    doubted: BTreeSet<Millis>,
    /// A fingerprint with no place in time stood on two pages: no unit to read alone.
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
            bounded: 0,
            raised: false,
            total: None,
            grew: false,
            shrank: false,
            tokens: HashSet::new(),
            doubted: BTreeSet::new(),
            doubted_nowhere: false,
        }
    }

    pub(super) fn request(&self) -> PageRequest {
        let (from, to) = self.bounds;
        PageRequest { from, to, limit: self.limit, position: self.position.clone() }
    }

    pub(super) fn take(&mut self, page: Page, tally: &mut Tally) -> Ended {
        let listed = page.records.len();
        self.pages += 1;
        self.rows += listed as u64;
        if let Some(total) = page.total {
            let before = *self.total.get_or_insert(total);
            self.grew |= total > before;
            self.shrank |= total < before;
            self.total = Some(total);
        }
        tally.begin_page();
        for record in page.records {
            self.see(record, tally);
        }
        match (self.paging, page.next_token) {
            (Paging::Numbered, _) => {
                if listed == 0 || self.total.is_some_and(|total| self.rows >= total) {
                    return Ended::Yes;
                }
                self.position = Position::Number(self.pages + 1);
            }
            (Paging::Tokens, None) => return Ended::Yes,
            (Paging::Tokens, Some(token)) => {
                if !self.tokens.insert(token.clone()) {
                    return Ended::Void;
                }
                self.position = Position::Token(token);
            }
        }
        Ended::NotYet
    }

    fn see(&mut self, listed: Listed, tally: &mut Tally) {
        let time = listed.time;
        let near = self.bounds.0 - ROUNDING..=self.bounds.1 + ROUNDING;
        let placed = time.is_some_and(|time| near.contains(&time));
        match tally.see(self.number, listed, placed) {
            Seen::First { bound, new } => {
                self.bounded += bound;
                self.raised |= new;
            }
            Seen::Again { raised } => {
                self.bounded += u64::from(raised);
                self.raised |= raised;
            }
            Seen::OnTwoPages => match time {
                Some(time) if placed => {
                    self.doubted.insert(floor_to(time, self.unit));
                }
                _ => self.doubted_nowhere = true,
            },
        }
    }

    /// Whether the bounds add up to all there is: the total that the API gave, or as many rows as the run listed. A
    /// run that ended has listed at least as many as there were when it began, however they were shuffled or shifted.
    pub(super) fn proves(&self, tally: &Tally) -> bool {
        self.pages == 1 || !self.shrank && self.lacks(self.total.unwrap_or(self.rows), tally) == 0
    }

    /// How many records the API's total says there are beyond the bounds; 0 where it gives none, because the rows of a
    /// run that shifted are more than the records.
    pub(super) fn missing(&self, tally: &Tally) -> u64 {
        self.total.map_or(0, |total| self.lacks(total, tally))
    }

    fn lacks(&self, total: u64, tally: &Tally) -> u64 {
        // What earlier runs found counts too, and is looked up only if this run's own is not enough.
        if self.bounded >= total {
            return 0;
        }
        total.saturating_sub(tally.rows_between(self.number, self.bounds))
    }

    /// Whether reading the doubted units alone can prove the rest: whatever is hidden is hidden in one of them.
    pub(super) const fn settles_by_units(&self) -> bool {
        !self.doubted_nowhere && !self.grew && !self.shrank
    }

    pub(super) const fn doubted(&self) -> &BTreeSet<Millis> {
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

    /// Rows in all, as far as known: the total, or what was listed so far.
    pub(super) fn rows_known(&self) -> u64 {
        self.total.unwrap_or(0).max(self.rows)
    }
}
