//! Reading one window completely from an API that documents neither order, nor whether bounds include, nor
//! whether a run of pages sees one snapshot.
//!
//! Does no I/O: a [`Reading`] says which page to ask for next, is given the answer, and says when the window
//! counts. Who asks, waits and retries is `feed`.
//!
//! ## The rules
//! *A page is a snapshot: what it lists k times exists k times.* So the most times that any one page has shown
//! a fingerprint is a bound that never counts too much, whatever shifts or reorders between pages. Further
//! readings only raise it. A run of pages **proves** its interval when
//! - it is one page; or
//! - the API counts (`total`), no total was smaller than one before, and the bounds of all that was listed add up to
//!   the last one: none of them can be too large, so none is too small; or
//! - the API does not count: the run ended, and the bounds add up to as many as it listed rows (as they do when no
//!   fingerprint stood on two pages).
//!
//! What is not proven is narrowed. A fingerprint on two pages means a page shift, an order of equal times that
//! changed between pages (which hides one record of that time for each that it repeats), or twins cut by a page
//! boundary. All three are settled by reading its clock unit alone. Where too many units are in doubt, or the
//! total does not add up, the interval is read again with another page size (boundaries move, cut twins come
//! together), then halved. A total that grew during the run while a fingerprint stood on two pages says that a record
//! came in before the present page and was not seen: the interval is cut into pieces of about a page, since one page
//! proves itself. A clock unit that holds more than a page is read with
//! other page sizes until several readings in a row show nothing new; it then counts as *unstable*, and the
//! sweeps raise it. Under-counts heal; over-counts cannot happen.

mod run;
mod tally;
#[cfg(test)]
pub(crate) mod tests;

use std::collections::BTreeSet;

use crate::event::Millis;
use crate::source::{Page, PageRequest};
use crate::window::Window;

pub use run::Paging;
use run::{Ended, Run};
pub use tally::Found;
use tally::Tally;

/// What a reading must know of its source.
#[derive(Debug, Clone, Copy)]
pub struct Rules {
    /// The source's clock unit.
    pub unit: Millis,
    /// How the source names the next page.
    pub paging: Paging,
    /// The most records that the API puts on one page.
    pub page_limit: u32,
    /// More rows than this are not read as one window ([`End::Overflow`]): what memory may hold.
    pub max_rows: u64,
    /// Nor more bytes of records than this.
    pub max_bytes: u64,
    /// No page is asked for that would reach past this many rows: the API refuses deeper paging.
    pub deepest: u64,
}

/// Whether asking for `[t, t]` lists the records of `t`: unknown until tried, then remembered for the stream.
pub type Inclusive = Option<bool>;

/// How a reading ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum End {
    /// The window counts.
    Complete(Outcome),
    /// It holds more rows than may be read at once: ask for a shorter one.
    Overflow {
        /// Rows in it, as far as known.
        rows: u64,
    },
}

/// What it took: the closed set of values of the label `outcome` of `trailcast_fetch_windows_total`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Outcome {
    /// Each record was read once.
    Complete,
    /// Some of it was read again.
    Reread,
    /// It had to be cut.
    Split,
    /// A clock unit with more than a page never proved complete: left to the sweeps.
    Unstable,
}

impl Outcome {
    /// Every value.
    pub const ALL: [Self; 4] = [Self::Complete, Self::Reread, Self::Split, Self::Unstable];

    /// The label's value.
    #[must_use]
    pub const fn label(self) -> &'static str {
        match self {
            Self::Complete => "complete",
            Self::Reread => "reread",
            Self::Split => "split",
            Self::Unstable => "unstable",
        }
    }
}

/// Readings in a row that must show nothing new before a clock unit of more than a page counts without proof.
const QUIET_READINGS: u32 = 6;
/// And never more readings of one unit than this.
const MOST_READINGS: u32 = 24;
/// What other page sizes take away from the largest: every boundary moves, and pages stay large, since only a page that
/// shows all twins of a kind counts them all.
const SMALLER_BY: [u32; 7] = [0, 1, 2, 3, 5, 7, 11];
/// How full a page should be that a piece is cut for: some pieces hold more than the average.
const PIECE_FILL: f64 = 0.6;

/// A part of the window that is still to be proven.
#[derive(Debug, Clone, Copy)]
struct Piece {
    window: Window,
    /// Whether it is one clock unit, to be settled alone.
    unit: bool,
    /// Readings begun before this one.
    attempt: u32,
    /// Of these: readings that did not come to their end, and so say nothing of what they left out.
    void: u32,
    /// Readings in a row that showed nothing new.
    quiet: u32,
}

#[derive(Debug)]
enum Todo {
    Read(Piece),
    /// Once the units in doubt are read alone: they must make up what the run's total missed.
    Check {
        piece: Piece,
        units: BTreeSet<Millis>,
        rows_before: u64,
        missing: u64,
    },
}

/// One window being read. Ask [`Reading::next`], give [`Reading::give`], until `next` has nothing to ask.
#[derive(Debug)]
pub struct Reading {
    rules: Rules,
    window: Window,
    tally: Tally,
    /// The last is next.
    todo: Vec<Todo>,
    run: Option<(Piece, Run)>,
    inclusive: Inclusive,
    outcome: Outcome,
    end: Option<End>,
}

impl Reading {
    /// Begins to read `window`, which is not empty.
    #[must_use]
    pub fn new(rules: Rules, window: Window, inclusive: Inclusive) -> Self {
        let unit = window.len() <= rules.unit;
        let whole = Piece { window, unit, attempt: 0, void: 0, quiet: 0 };
        let mut reading = Self {
            rules,
            window,
            tally: Tally::default(),
            todo: vec![Todo::Read(whole)],
            run: None,
            inclusive,
            outcome: Outcome::Complete,
            end: None,
        };
        reading.turn();
        reading
    }

    /// The page to ask for next; `None` once the reading has ended.
    #[must_use]
    pub fn next(&self) -> Option<PageRequest> {
        self.run.as_ref().map(|(_, run)| run.request())
    }

    /// Takes the answer to [`Reading::next`].
    pub fn give(&mut self, page: Page) {
        let Some((piece, mut run)) = self.run.take() else { return };
        let ended = run.take(page, &mut self.tally);
        let whole = !piece.unit && piece.window == self.window;
        let too_many = run.rows_known() > self.rules.max_rows.min(self.rules.deepest);
        if whole && (too_many || self.tally.bytes() > self.rules.max_bytes) {
            self.todo.clear();
            self.end = Some(End::Overflow { rows: run.rows_known() });
            return;
        }
        match ended {
            Ended::NotYet if run.has_shifted() && !piece.unit => self.cut_to_pages(piece, run.rows_known()),
            Ended::NotYet if run.next_reaches() > self.rules.deepest => self.too_deep(piece),
            Ended::NotYet => {
                self.run = Some((piece, run));
                return;
            }
            Ended::Void => self.read_void_again(piece, &run),
            Ended::Yes => self.judge(piece, run),
        }
        self.turn();
    }

    /// Gives up the present run: its next page cannot be had (a token that is refused). It is read again or cut.
    pub fn void(&mut self) {
        if let Some((piece, run)) = self.run.take() {
            self.read_void_again(piece, &run);
            self.turn();
        }
    }

    /// How it ended; `None` while there is something to ask.
    #[must_use]
    pub const fn end(&self) -> Option<End> {
        self.end
    }

    /// Whether bounds include, as far as this reading could tell.
    #[must_use]
    pub const fn inclusive(&self) -> Inclusive {
        self.inclusive
    }

    /// All that was found whose own time lies in the window, or that has no time, oldest first.
    #[must_use]
    pub fn into_found(self) -> Vec<Found> {
        self.tally.into_found(self.window)
    }

    /// Starts the next run, or ends.
    fn turn(&mut self) {
        while let Some(todo) = self.todo.pop() {
            match todo {
                Todo::Read(piece) => {
                    self.run = Some((piece, self.begin(piece)));
                    return;
                }
                Todo::Check { piece, units, rows_before, missing } => {
                    if self.tally.rows_in(&units, self.rules.unit) < rows_before + missing {
                        self.narrow(piece);
                    }
                }
            }
        }
        self.end = Some(End::Complete(self.outcome));
    }

    /// One clock unit more on either side, whatever the API's bounds mean; a unit alone as `[t, t]` where that
    /// lists its records, or will tell whether it does.
    fn begin(&mut self, piece: Piece) -> Run {
        let Window { from, to } = piece.window;
        let narrow = piece.unit && self.inclusive.unwrap_or_else(|| self.tally.knows(from));
        let bounds = if narrow { (from, from) } else { (from - self.rules.unit, to) };
        let smaller = SMALLER_BY[piece.attempt as usize % SMALLER_BY.len()];
        let limit = self.rules.page_limit.saturating_sub(smaller).max(1);
        Run::new(self.rules.paging, bounds, limit, self.rules.unit, self.tally.begin_run())
    }

    fn judge(&mut self, piece: Piece, run: Run) {
        if run.is_narrow() {
            let listed = self.tally.listed_at(run.number(), piece.window.from);
            if self.inclusive.is_none() && !listed {
                self.inclusive = Some(false);
                self.todo.push(Todo::Read(piece));
                return;
            }
            self.inclusive = Some(true);
        }
        if run.proves(&self.tally) {
            return;
        }
        if piece.unit {
            return self.read_unit_again(piece, run.raised());
        }
        if run.has_shifted() {
            return self.cut_to_pages(piece, run.rows_known());
        }
        let units = run.doubted();
        let few = units.len() as u64 <= 2.max(u64::from(run.pages()) / 2);
        if run.settles_by_units() && few && !units.is_empty() {
            self.settle(Outcome::Reread);
            let rows_before = self.tally.rows_in(units, self.rules.unit);
            let missing = run.missing(&self.tally);
            self.todo.push(Todo::Check { piece, units: units.clone(), rows_before, missing });
            for &unit in units.iter().rev() {
                let window = Window { from: unit, to: unit + self.rules.unit };
                self.todo.push(Todo::Read(Piece { window, unit: true, attempt: 0, void: 0, quiet: 0 }));
            }
        } else {
            self.narrow(piece);
        }
    }

    fn read_unit_again(&mut self, piece: Piece, raised: bool) {
        let quiet = if raised { 0 } else { piece.quiet + 1 };
        if quiet >= QUIET_READINGS || piece.attempt - piece.void + 1 >= MOST_READINGS {
            self.settle(Outcome::Unstable);
        } else {
            self.settle(Outcome::Reread);
            self.todo.push(Todo::Read(Piece { attempt: piece.attempt + 1, quiet, ..piece }));
        }
    }

    fn too_deep(&mut self, piece: Piece) {
        if piece.unit {
            self.settle(Outcome::Unstable);
        } else {
            self.cut(piece, 2);
        }
    }

    /// A unit is read with other page sizes until a run comes to its end: pages that nobody has seen are not quiet. That
    /// takes as long as tokens break off; a numbered page that is refused again and again lies too deep.
    fn read_void_again(&mut self, piece: Piece, run: &Run) {
        if !piece.unit {
            return self.narrow(piece);
        }
        if self.rules.paging == Paging::Numbered && piece.void + 1 >= MOST_READINGS {
            return self.settle(Outcome::Unstable);
        }
        self.settle(Outcome::Reread);
        let quiet = if run.raised() { 0 } else { piece.quiet };
        self.todo.push(Todo::Read(Piece { attempt: piece.attempt + 1, void: piece.void + 1, quiet, ..piece }));
    }

    /// Reads a piece of several units again with another page size; the second time, halves it.
    fn narrow(&mut self, piece: Piece) {
        if piece.attempt == 0 {
            self.settle(Outcome::Reread);
            self.todo.push(Todo::Read(Piece { attempt: 1, ..piece }));
        } else {
            self.cut(piece, 2);
        }
    }

    fn cut_to_pages(&mut self, piece: Piece, rows: u64) {
        let parts = rows as f64 / (f64::from(self.rules.page_limit) * PIECE_FILL);
        self.cut(piece, (parts.ceil() as Millis).max(2));
    }

    fn cut(&mut self, piece: Piece, parts: Millis) {
        self.settle(Outcome::Split);
        for window in piece.window.split(parts, self.rules.unit).into_iter().rev() {
            let unit = window.len() <= self.rules.unit;
            self.todo.push(Todo::Read(Piece { window, unit, attempt: 0, void: 0, quiet: 0 }));
        }
    }

    fn settle(&mut self, outcome: Outcome) {
        self.outcome = self.outcome.max(outcome);
    }
}
