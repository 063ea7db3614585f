//! A limit that nobody tells: the API lists, and counts, so many records of a query and no more.
//!
//! Count and list agree then, so nothing within one interval shows it: `feed` does, by longer ones and by parts. An interval
//! that lists as many is cut until its parts list fewer.

use std::iter;

use super::{Gap, GapReason, Piece, Reading, note};
use crate::event::Millis;
use crate::window::Window;

/// Into how many pieces an interval is cut of which something may hide a part.
const PIECES: i64 = 4;
/// So many cuts in a row that show nothing new are enough, of an interval that only may be cut short: from a day to a
/// millisecond it takes as many.
const MOST_IN_VAIN: u32 = 16;
/// Where a window is cut into parts.
pub const CUTS: usize = 4;

/// What may hide records, so that they are looked for in parts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Suspicion {
    /// Nothing.
    Nothing,
    /// A limit: of each interval that lists as many there may be more.
    Limit(u64),
    /// Whatever it is: the parts of the window between these times, which rise, may list other records than the window, which is
    /// not asked for as a whole.
    Parts([Millis; CUTS]),
}

impl Suspicion {
    /// What is asked for first of `window`.
    pub(super) fn begin(self, window: Window) -> Vec<Window> {
        let Self::Parts(cuts) = self else { return vec![window] };
        let from = iter::once(window.from).chain(cuts);
        let parts = from.zip(cuts.into_iter().chain([window.to])).map(|(from, to)| Window { from, to });
        parts.filter(|part| !part.is_empty()).collect()
    }
}

impl Reading {
    /// The most records that a run listed.
    #[must_use]
    pub const fn most_listed(&self) -> u64 {
        self.most
    }

    /// Clock units that list as many records as a limit may let through: gaps, if there is one, since nothing shorter can be
    /// asked for.
    #[must_use]
    pub fn full_units(&self) -> &[Gap] {
        &self.full
    }

    /// A run that proves `piece` listed `rows`: that may not be all.
    pub(super) fn look_for_more(&mut self, piece: Piece, rows: u64) {
        let is_limit = self.rules.cap == Some(rows);
        let may_be_limit = self.rules.suspicion == Suspicion::Limit(rows);
        if piece.unit {
            if is_limit {
                self.give_up(piece, GapReason::TooDeep);
            } else if may_be_limit {
                note(&mut self.full, Gap::of(piece.window, GapReason::TooDeep));
            }
            return;
        }
        if is_limit || may_be_limit && self.is_worth_a_cut() {
            self.cut(piece, PIECES);
        }
    }

    fn is_worth_a_cut(&mut self) -> bool {
        let known = self.tally.rows();
        self.in_vain = if known > self.known { 0 } else { self.in_vain + 1 };
        self.known = known;
        self.in_vain <= MOST_IN_VAIN
    }
}
