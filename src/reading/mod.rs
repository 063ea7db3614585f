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
//! - the API counts (`total`), no total was smaller than one before, the run listed as many rows as the last one says, and
//!   the bounds of all that was listed add up to it: none of them can be too large, so none is too small; or
//! - the API does not count: the run ended with a page that was not full, and the bounds add up to as many as it listed
//!   rows (as they do when no fingerprint stood on two pages).
//!
//! However pages shift, each lists what lies at its place of as many as there are then: so a run that lists more or fewer
//! rows than are counted, or fewer than an earlier one has shown to be there, *contradicts itself* ([`Breach`]) and is read
//! again at another time. An interval whose pages cannot be had is asked for differently: fewer records on a page, shorter
//! intervals, intervals that fit a page. What one clock unit does not give in any way is a [`Gap`]. Tries, pages and bytes
//! are bounded in all of this, and no number from outside sizes anything.
//!
//! Where a record belongs is what the API makes of it, not the time that it shows: all that is listed is found.
//!
//! What is not proven is narrowed. A fingerprint on two pages means a page shift, an order of equal times that
//! changed between pages (which hides one record of that time for each that it repeats), or twins cut by a page
//! boundary. All three are settled by reading its clock unit alone. Where too many units are in doubt, or the
//! total does not add up, the interval is read again with another page size (boundaries move, cut twins come
//! together), then halved. A total that grew during the run while a fingerprint stood on two pages says that a record
//! came in before the present page and was not seen: the interval is cut into pieces of about a page, since on one page
//! nothing shifts. A clock unit that holds more than a page is read with
//! other page sizes until several readings in a row show nothing new; it then counts as *unstable*, and the
//! sweeps raise it. Under-counts heal. Over-counts cannot come of reading in pages and again; of a page that lists a record
//! more often than it exists they can, and nothing contradicts it.
//!
//! A limit that nobody tells cuts list and count alike, so that they agree: see `cap`.

mod cap;
mod everywhere;
mod gap;
mod run;
#[cfg(test)]
mod script_tests;
mod tally;
#[cfg(test)]
pub(crate) mod tests;

use crate::event::{Fingerprint, Millis};
use crate::memory::Hold;
use crate::page::{Page, PageRequest};
use crate::window::Window;

pub use cap::{CUTS, Suspicion};
pub use everywhere::{Everywhere, Listed};
pub use gap::{Breach, Gap, GapReason};
pub use run::Paging;
use run::{Ended, Run};
use tally::Tally;
pub use tally::{Found, Shard};

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
    /// What of one clock unit may be held; more is read in parts ([`End::Outgrown`]).
    pub max_unit_bytes: u64,
    /// No more rows than this are counted of one clock unit: what counts them is held, too.
    pub max_unit_rows: u64,
    /// What every window lists, in whatever pieces it is read: see [`Everywhere`].
    pub everywhere: Listed,
    /// Which part of its records is kept.
    pub shard: Shard,
    /// No page is asked for that would reach past this many rows: the API refuses deeper paging.
    pub deepest: u64,
    /// The most records that a query lists and counts, where that is known not to be all.
    pub cap: Option<u64>,
    /// What else may hide some.
    pub suspicion: Suspicion,
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
    /// It is one clock unit and holds more bytes than that: ask for it in parts.
    Outgrown,
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
    /// A clock unit with more than a page never proved complete, or is a [`Gap`]: left to the sweeps.
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
/// And never more readings of one unit than this; what such a unit lacks then is a [`Gap`].
const MOST_READINGS: u32 = 24;
/// Readings whose pages contradict each other before several units are cut, and before one unit is given up.
const CONTRARY_READINGS: (u32, u32) = (3, 12);
/// Readings that list less than one before them, before that counts here; whoever asked has doubts then.
const FORGETFUL_READINGS: u32 = 4;
/// The same for runs that do not end.
const ENDLESS_READINGS: u32 = 3;
/// What other page sizes take away from the largest: every boundary moves, and pages stay large, since only a page that
/// shows all twins of a kind counts them all.
const SMALLER_BY: [u32; 7] = [0, 1, 2, 3, 5, 7, 11];
/// How full a page should be that a piece is cut for: some pieces hold more than the average.
const PIECE_FILL: f64 = 0.6;
/// The most pieces made at once, however many the API's count asks for.
const MOST_PIECES: Millis = 64;
/// A page that is too large is asked for with half as many records, down to these; then the interval is cut.
const SMALL_PAGE: u32 = 12;
/// More pages are not read for one window of several units.
const MOST_PAGES: u32 = 10_000;

/// A part of the window that is still to be proven.
#[derive(Debug, Clone, Copy)]
struct Piece {
    window: Window,
    /// Whether it is one clock unit, to be settled alone.
    unit: bool,
    /// The most records asked for on one page.
    limit: u32,
    /// Readings begun before this one.
    attempt: u32,
    /// Of these: readings that did not come to their end, or contradicted themselves, and so say nothing of what they
    /// left out.
    void: u32,
    /// Readings in a row that showed nothing new.
    quiet: u32,
    /// Not to be asked for as `[t, t]`: that listed nothing.
    wide: bool,
}

impl Piece {
    fn new(window: Window, unit: Millis, limit: u32) -> Self {
        Self { window, unit: window.len() <= unit, limit, attempt: 0, void: 0, quiet: 0, wide: false }
    }
}

#[derive(Debug)]
enum Todo {
    Read(Piece),
    /// Once the units in doubt are read alone: they must list the doubted records once more, and with them all that the
    /// run's total counts.
    Check {
        piece: Piece,
        run: u32,
        bounds: (Millis, Millis),
        total: Option<u64>,
        doubted: Vec<Fingerprint>,
        /// What the run listed.
        rows: u64,
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
    gaps: Vec<Gap>,
    pages: u32,
    limit: u32,
    /// Runs that came to a good end, and runs that broke off.
    proven: u32,
    broken: u32,
    contrary: bool,
    /// The most rows that a run listed.
    most: u64,
    /// Rows known when an interval was last cut to look for more, and cuts since that showed none.
    known: u64,
    in_vain: u32,
    full: Vec<Gap>,
    /// A clock unit at an end of the window was asked for alone.
    narrow_end: bool,
    end: Option<End>,
}

impl Reading {
    /// Begins to read `window`, which is not empty.
    #[must_use]
    pub fn new(rules: Rules, window: Window, inclusive: Inclusive) -> Self {
        let mut reading = Self {
            rules,
            window,
            tally: Tally::new(rules.shard),
            todo: Vec::new(),
            run: None,
            inclusive,
            outcome: Outcome::Complete,
            gaps: Vec::new(),
            pages: 0,
            limit: rules.page_limit,
            proven: 0,
            broken: 0,
            contrary: false,
            most: 0,
            known: 0,
            in_vain: 0,
            full: Vec::new(),
            narrow_end: false,
            end: None,
        };
        reading.push(rules.suspicion.begin(window), rules.page_limit);
        reading.turn();
        reading
    }

    /// The page to ask for next; `None` once the reading has ended.
    #[must_use]
    pub fn next(&self) -> Option<PageRequest> {
        self.run.as_ref().map(|(_, run)| run.request())
    }

    /// Takes the answer to [`Reading::next`]. What it says of a run that came to no good end: the next should wait.
    pub fn give(&mut self, page: Page) -> Option<Breach> {
        let (piece, mut run) = self.run.take()?;
        self.pages += 1;
        let ended = run.take(page, &mut self.tally);
        if self.window.len() > self.rules.unit && self.is_too_much(&run) {
            self.todo.clear();
            self.end = Some(End::Overflow { rows: run.rows_known() });
            return None;
        }
        let whole = self.window.len() <= self.rules.unit || self.is_mostly_everywhere();
        if whole && self.tally.bytes() > self.rules.max_unit_bytes {
            self.todo.clear();
            self.end = Some(End::Outgrown);
            return None;
        }
        let breach = match ended {
            Ended::NotYet if run.has_shifted() && !piece.unit => {
                self.cut_to_pages(piece, &run);
                None
            }
            Ended::NotYet if self.is_too_deep(piece, &run) => {
                self.too_deep(piece);
                None
            }
            Ended::NotYet => {
                self.run = Some((piece, run));
                return None;
            }
            Ended::Void => {
                self.read_void_again(piece, &run);
                Some(Breach::Circle)
            }
            Ended::Endless => {
                self.read_endless_again(piece);
                Some(Breach::Endless)
            }
            Ended::Yes => self.judge(piece, run),
        };
        self.turn();
        breach
    }

    /// Gives up the present run: its next page cannot be had (a token that is refused). It is read again or cut.
    pub fn void(&mut self) {
        let Some((piece, run)) = self.run.take() else { return };
        self.broken += 1;
        if piece.unit || self.broken == 1 {
            self.read_void_again(piece, &run);
        } else {
            // It was no token that had run out: pages that are the first of their intervals can be had.
            self.cut_to_pages_of(piece, run.rows_known().max(4 * u64::from(piece.limit)));
        }
        self.turn();
    }

    /// Runs that came to a good end so far.
    #[must_use]
    pub const fn proven(&self) -> u32 {
        self.proven
    }

    /// Runs that broke off so far.
    #[must_use]
    pub const fn broken(&self) -> u32 {
        self.broken
    }

    /// Whether a run listed less than one before it, or less than was counted: what it left out may be more.
    #[must_use]
    pub const fn was_contrary(&self) -> bool {
        self.contrary
    }

    /// The page asked for is larger than may be held: asks for fewer records, then for shorter intervals, and leaves out
    /// a record that is too large alone.
    pub fn too_large(&mut self) {
        let Some((mut piece, mut run)) = self.run.take() else { return };
        let limit = run.request().limit;
        if limit > SMALL_PAGE || piece.unit && limit > 1 {
            piece.limit = (limit / 2).max(1);
            self.limit = self.limit.min(piece.limit);
            self.settle(Outcome::Reread);
            self.todo.push(Todo::Read(piece));
        } else if !piece.unit {
            self.cut(piece, 2);
        } else {
            self.give_up(piece, GapReason::TooLarge);
            if run.skip() {
                self.run = Some((piece, run));
                return;
            }
        }
        self.turn();
    }

    /// The first page of the present run is refused, while others of this API are given: asks for shorter intervals, and
    /// leaves out a clock unit that cannot be had alone.
    pub fn refused(&mut self) {
        let Some((piece, _)) = self.run.take() else { return };
        if !piece.unit {
            self.cut(piece, 2);
        } else if piece.void + 1 < CONTRARY_READINGS.0 {
            self.settle(Outcome::Reread);
            let limit = (piece.limit / 2).max(1);
            self.todo.push(Todo::Read(Piece { limit, attempt: piece.attempt + 1, void: piece.void + 1, ..piece }));
        } else {
            self.give_up(piece, GapReason::Unreadable);
        }
        self.turn();
    }

    /// Whether what is asked for is one clock unit, which cannot be made shorter.
    #[must_use]
    pub fn is_at_a_unit(&self) -> bool {
        self.run.as_ref().is_some_and(|(piece, _)| piece.unit)
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

    /// Whether what lies just outside of the window was left out at one of its ends, so that it need not have been listed.
    #[must_use]
    pub const fn left_out_beside(&self) -> bool {
        self.narrow_end
    }

    /// The fewest records that a page had to be asked for with, so that it was not too large.
    #[must_use]
    pub const fn limit(&self) -> u32 {
        self.limit
    }

    /// What could not be read and is given up.
    #[must_use]
    pub fn gaps(&self) -> &[Gap] {
        &self.gaps
    }

    /// What counts the bytes of all that was found: to be kept for as long as that is.
    pub fn take_held(&mut self) -> Hold {
        self.tally.take_held()
    }

    /// All that was found, oldest first: whatever time a record shows, it was listed for this window. Those that lie
    /// outside by their own time may be listed for another window, too.
    #[must_use]
    pub fn into_found(self) -> Vec<Found> {
        self.tally.into_found()
    }

    /// Starts the next run, or ends.
    fn turn(&mut self) {
        while let Some(todo) = self.todo.pop() {
            match todo {
                Todo::Read(piece) => {
                    self.run = Some((piece, self.begin(piece)));
                    return;
                }
                Todo::Check { piece, run, bounds, total, doubted, rows } => {
                    let listed_again = doubted.iter().all(|&doubted| self.tally.listed_since(run, doubted));
                    let made_up = total.is_none_or(|total| self.tally.rows_within(run, bounds) >= total);
                    if listed_again && made_up {
                        self.look_for_more(piece, rows);
                    } else {
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
        let narrow = piece.unit && !piece.wide && self.inclusive.unwrap_or_else(|| self.tally.knows(from));
        let bounds = if narrow { (from, from) } else { (from - self.rules.unit, to) };
        let smaller = SMALLER_BY[piece.attempt as usize % SMALLER_BY.len()];
        let limit = piece.limit.saturating_sub(smaller).max(1);
        Run::new(self.rules.paging, bounds, limit, self.rules.unit, self.tally.begin_run(bounds))
    }

    fn judge(&mut self, piece: Piece, run: Run) -> Option<Breach> {
        if run.is_narrow() {
            if !self.tally.listed_at(run.number(), piece.window.from) {
                // That shows only that it is not asked for like this: the bounds may exclude, or go by another time.
                self.inclusive = self.inclusive.or(Some(false));
                self.todo.push(Todo::Read(Piece { wide: true, ..piece }));
                return None;
            }
            self.inclusive = Some(true);
            self.narrow_end |= piece.window.from == self.window.from || piece.window.to == self.window.to;
        }
        self.most = self.most.max(run.rows());
        let forgets = run.forgets(&self.tally, piece.window);
        if !forgets && run.proves(&self.tally) {
            self.proven += 1;
            self.look_for_more(piece, run.rows());
            return None;
        }
        if forgets || run.contradicts_itself() {
            self.contrary = true;
            // Where a unit has lost what it held, nothing more is to be had by asking for it alone.
            if forgets && !run.contradicts_itself() && piece.void >= FORGETFUL_READINGS {
                self.settle(Outcome::Reread);
                return None;
            }
            self.read_contrary_again(piece);
            return Some(Breach::Contradiction);
        }
        if piece.unit {
            self.read_unit_again(piece, run.raised());
            return None;
        }
        if run.has_shifted() {
            self.cut_to_pages(piece, &run);
            return None;
        }
        let units = run.doubted();
        let few = units.len() as u64 <= 2.max(u64::from(run.pages()) / 2);
        if run.settles_by_units() && few && !units.is_empty() {
            self.settle(Outcome::Reread);
            let doubted = units.values().copied().collect();
            let (number, bounds, total, rows) = (run.number(), run.bounds(), run.total(), run.rows());
            self.todo.push(Todo::Check { piece, run: number, bounds, total, doubted, rows });
            for &unit in units.keys().rev() {
                let window = Window { from: unit, to: unit + self.rules.unit };
                self.todo.push(Todo::Read(Piece::new(window, self.rules.unit, piece.limit)));
            }
        } else if self.fills_pages() {
            // Shorter pieces are as long a list.
            self.read_unit_again(piece, run.raised());
        } else {
            self.narrow(piece);
        }
        None
    }

    /// What every window lists, a page and more of it: no piece of the window fits a page.
    fn fills_pages(&self) -> bool {
        self.rules.everywhere.rows >= u64::from(self.limit)
    }

    /// What every window lists is more than a window may hold: no shorter one would hold less.
    fn is_mostly_everywhere(&self) -> bool {
        2 * self.rules.everywhere.bytes > self.rules.max_bytes
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

    /// What every window lists counts in none of this, since a shorter window would list as much.
    fn is_too_much(&self, run: &Run) -> bool {
        let Rules { everywhere, max_rows, max_bytes, deepest, .. } = self.rules;
        let too_deep = run.rows_known() > deepest && everywhere.rows < deepest;
        too_deep
            || run.rows_known() > max_rows + everywhere.rows
            || self.tally.rows() > max_rows + everywhere.rows
            || self.tally.bytes() > max_bytes + everywhere.bytes && !self.is_mostly_everywhere()
            || self.pages > MOST_PAGES
    }

    /// No depth of tokens is documented, so a unit is followed as long as its pages list something new and that can be
    /// counted.
    fn is_too_deep(&self, piece: Piece, run: &Run) -> bool {
        let bounded = !piece.unit || self.rules.paging == Paging::Numbered;
        bounded && run.next_reaches() > self.rules.deepest || self.tally.rows() > self.rules.max_unit_rows
    }

    fn too_deep(&mut self, piece: Piece) {
        if piece.unit || self.rules.everywhere.rows >= self.rules.deepest {
            self.give_up(piece, GapReason::TooDeep);
        } else {
            self.cut(piece, 2);
        }
    }

    /// A unit is read with other page sizes until a run comes to its end: pages that nobody has seen are not quiet. One
    /// that never does is given up at last.
    fn read_void_again(&mut self, piece: Piece, run: &Run) {
        if !piece.unit {
            return self.narrow(piece);
        }
        if piece.void + 1 >= MOST_READINGS {
            return self.give_up(piece, GapReason::Unreadable);
        }
        self.settle(Outcome::Reread);
        let quiet = if run.raised() { 0 } else { piece.quiet };
        self.todo.push(Todo::Read(Piece { attempt: piece.attempt + 1, void: piece.void + 1, quiet, ..piece }));
    }

    /// Another interval may end; another page size hardly makes one end.
    fn read_endless_again(&mut self, piece: Piece) {
        if !piece.unit {
            return self.cut(piece, 2);
        }
        self.again_or_give_up(piece, ENDLESS_READINGS, GapReason::Endless);
    }

    /// The API counts more than it lists, or less: at another time it may not, and of another interval.
    fn read_contrary_again(&mut self, piece: Piece) {
        let (several, one) = CONTRARY_READINGS;
        if !piece.unit && piece.void + 1 >= several {
            return self.cut(piece, 2);
        }
        self.again_or_give_up(piece, if piece.unit { one } else { several }, GapReason::Contradiction);
    }

    fn again_or_give_up(&mut self, piece: Piece, most: u32, reason: GapReason) {
        if piece.void + 1 >= most {
            return self.give_up(piece, reason);
        }
        self.settle(Outcome::Reread);
        self.todo.push(Todo::Read(Piece { attempt: piece.attempt + 1, void: piece.void + 1, ..piece }));
    }

    /// What was listed of it is kept; what was not is a gap.
    fn give_up(&mut self, piece: Piece, reason: GapReason) {
        self.settle(Outcome::Unstable);
        note(&mut self.gaps, Gap::of(piece.window, reason));
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

    /// Into pieces that fit a page, on which nothing shifts. Where what every window lists fills pages, none does: it is
    /// read again instead, when nothing may come in meanwhile.
    fn cut_to_pages(&mut self, piece: Piece, run: &Run) {
        if self.fills_pages() {
            self.read_unit_again(piece, run.raised());
        } else {
            self.cut_to_pages_of(piece, run.rows_known());
        }
    }

    fn cut_to_pages_of(&mut self, piece: Piece, rows: u64) {
        let everywhere = self.rules.everywhere.rows;
        let room = f64::from(piece.limit).mul_add(PIECE_FILL, -(everywhere as f64)).max(1.0);
        let parts = rows.saturating_sub(everywhere) as f64 / room;
        self.cut(piece, parts.ceil() as Millis);
    }

    fn cut(&mut self, piece: Piece, parts: Millis) {
        self.settle(Outcome::Split);
        self.push(piece.window.split(parts.clamp(2, MOST_PIECES), self.rules.unit), piece.limit);
    }

    fn push(&mut self, windows: impl IntoIterator<Item = Window, IntoIter: DoubleEndedIterator>, limit: u32) {
        for window in windows.into_iter().rev() {
            self.todo.push(Todo::Read(Piece::new(window, self.rules.unit, limit)));
        }
    }

    fn settle(&mut self, outcome: Outcome) {
        self.outcome = self.outcome.max(outcome);
    }
}

/// The units on either side of a record may list it, too: that is one gap.
fn note(gaps: &mut Vec<Gap>, gap: Gap) {
    match gaps.last_mut() {
        Some(last) if last.reason == gap.reason && (last.from..=last.to).contains(&gap.from) => {
            last.to = last.to.max(gap.to);
        }
        _ => gaps.push(gap),
    }
}
