//! A limit that nobody tells: the API lists, and counts, so many records of a query and no more.
//!
//! Count and list agree then, so nothing within one interval shows it: `feed` does, by longer ones. An interval that lists as
//! many is cut until its parts list fewer.

use super::{GapReason, Piece, Reading};

/// Into how many pieces an interval is cut of which a limit may hide a part.
const PIECES: i64 = 4;
/// So many cuts in a row that show nothing new are enough, of an interval that only may be cut short: from a day to a
/// millisecond it takes as many.
const MOST_IN_VAIN: u32 = 16;

impl Reading {
    /// The most records that a run listed.
    #[must_use]
    pub const fn most_listed(&self) -> u64 {
        self.most
    }

    /// A run that proves `piece` listed `rows`: that may be all that a limit let through.
    pub(super) fn look_for_more(&mut self, piece: Piece, rows: u64) {
        let is_limit = self.rules.cap == Some(rows);
        if piece.unit && is_limit {
            self.give_up(piece, GapReason::TooDeep);
        } else if !piece.unit && (is_limit || self.rules.suspect == Some(rows) && self.is_worth_a_cut()) {
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
