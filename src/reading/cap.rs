//! A limit that nobody tells: the API lists, and counts, so many records of a query and no more.
//!
//! Count and list agree then, so nothing else shows it. Such a limit is a round number, or at least the most that anything
//! has listed; of an interval that lists as many the halves are read, too. What that costs is as much once more, for one
//! interval in fifty of a busy stream and hardly any of a quiet one. A limit of 200 or more that is not round is not found
//! out.

use super::{GapReason, Piece, Reading, Todo};

/// Fewer records than this are no limit: a page holds more.
const LEAST: u64 = 50;
/// So many are, where nothing else than that it is the most makes them suspect.
const MOST: u64 = 200;
/// Nor is one questioned where a window lists fewer beside what every window lists.
const FEW: u64 = 10;
/// Into how many pieces an interval is cut of which a limit hid a part.
const PIECES: i64 = 4;

/// Numbers of records that are no limit.
pub type Trusted = [u64; 4];

/// Whether a limit may be so many records, with pages of `page`.
fn is_round(rows: u64, page: u32) -> bool {
    let page = u64::from(page).max(LEAST);
    rows >= LEAST && (rows == LEAST || rows.is_multiple_of(100) || rows.is_power_of_two() || rows.is_multiple_of(page))
}

impl Reading {
    /// The most records that a run listed.
    #[must_use]
    pub const fn most_listed(&self) -> u64 {
        self.most
    }

    /// As many records as an interval listed, and counted, though its halves listed more.
    #[must_use]
    pub const fn capped(&self) -> Option<u64> {
        self.capped
    }

    /// As many records as an interval listed of which the halves listed no more.
    #[must_use]
    pub const fn uncapped(&self) -> Option<u64> {
        self.uncapped
    }

    /// A run that proves `piece` listed `rows`: if that may be all that a limit let through, its halves are read.
    pub(super) fn question_cap(&mut self, piece: Piece, rows: u64) {
        if self.rules.cap == Some(rows) || self.capped == Some(rows) {
            self.capped = Some(rows);
            return if piece.unit { self.give_up(piece, GapReason::TooDeep) } else { self.cut(piece, PIECES) };
        }
        if let Some(whole) = piece.half_of {
            if whole == rows {
                self.full.push(Piece { half_of: None, ..piece });
            }
            return;
        }
        // What every window lists every half does.
        let may_be = is_round(rows, self.rules.page_limit) || (self.rules.suspect..MOST).contains(&rows);
        let may_be = may_be && !self.rules.trusted.contains(&rows);
        if may_be && rows >= self.rules.everywhere.rows + FEW && !piece.unit {
            self.todo.push(Todo::Compare { piece, listed: rows, known: self.tally.rows() });
            for window in piece.window.split(2, self.rules.unit) {
                let half = Piece::new(window, self.rules.unit, piece.limit);
                self.todo.push(Todo::Read(Piece { half_of: Some(rows), ..half }));
            }
        }
    }

    /// The halves of `piece` are read, of which `listed` records were listed, when `known` were known in all.
    pub(super) fn compare(&mut self, piece: Piece, listed: u64, known: u64) {
        let full = std::mem::take(&mut self.full);
        if self.tally.rows() > known {
            self.capped = Some(listed);
            self.cut(piece, PIECES);
        } else if let [one] = full[..] {
            // All of it lies there, and there may be more. Where both list it, each window does.
            self.question_cap(one, listed);
        } else {
            self.uncapped = Some(listed);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn limits_are_round_numbers() {
        let round: Vec<u64> = (0..=260).filter(|rows| is_round(*rows, 70)).collect();
        assert_eq!(round, [50, 64, 70, 100, 128, 140, 200, 210, 256]);
        assert!(!is_round(55, 5), "one in five would be read twice");
    }
}
