//! A limit that nobody tells: the API lists, and counts, so many records of a query and no more.
//!
//! Count and list agree then, so nothing else shows it. Such limits are round numbers; of an interval that lists as many the
//! halves are read, too. What that costs is as much once more, for one interval in fifty of a busy stream and none of a quiet
//! one. A limit that is not round is not found out.

use super::{GapReason, Piece, Reading, Todo};

/// Fewer records than this are no limit: a page holds more.
const LEAST: u64 = 50;
/// Into how many pieces an interval is cut of which a limit hid a part.
const PIECES: i64 = 4;

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

    /// A run that proves `piece` listed `rows`: if that may be all that a limit let through, its halves are read.
    pub(super) fn question_cap(&mut self, piece: Piece, rows: u64) {
        let is_known = self.rules.cap == Some(rows);
        let everywhere = self.rules.everywhere.rows;
        // What every window lists every half does.
        let may_be = is_round(rows, self.rules.page_limit) && rows >= everywhere + 10;
        if !is_known && !may_be {
            return;
        }
        if let Some(whole) = piece.half_of.filter(|_| !is_known) {
            if whole == rows {
                self.full.push(Piece { half_of: None, ..piece });
            }
            return;
        }
        if is_known {
            self.capped = Some(rows);
        }
        match (piece.unit, is_known) {
            (true, true) => self.give_up(piece, GapReason::TooDeep),
            (true, false) => {}
            (false, true) => self.cut(piece, PIECES),
            (false, false) => {
                self.todo.push(Todo::Compare { piece, listed: rows, known: self.tally.rows() });
                for window in piece.window.split(2, self.rules.unit) {
                    let half = Piece::new(window, self.rules.unit, piece.limit);
                    self.todo.push(Todo::Read(Piece { half_of: Some(rows), ..half }));
                }
            }
        }
    }

    /// The halves of `piece` are read, of which `listed` records were listed.
    pub(super) fn compare(&mut self, piece: Piece, listed: u64, known: u64) {
        let full = std::mem::take(&mut self.full);
        if let ([one], true) = (&full[..], self.tally.rows() == known) {
            // All of it lies there, and there may be more. Where both list it, each window does.
            self.question_cap(*one, listed);
        } else if self.tally.rows() > known {
            self.capped = Some(listed);
            self.cut(piece, PIECES);
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
