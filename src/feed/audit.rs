//! Whether the parts of a window list what the window lists.
//!
//! Pure: no I/O, no clock. Whatever hides records of a query, be it a limit, a length or something that nobody has thought of,
//! mostly hides others of shorter ones. So now and then a window is read in parts, too. Where they list other records than the
//! whole, nothing that was read since they last agreed is believed: it is a gap. The window is asked for in shorter ones, and all
//! windows are read in parts, too, until they have agreed for a while.

use std::collections::btree_map::Entry;
use std::collections::{BTreeMap, VecDeque};

use super::lengths::SHORT;
use crate::event::Millis;
use crate::reading::{CUTS, Found, Gap, GapReason};
use crate::window::{Window, floor_to};

/// One window of so many is audited: of those that list as many records as tell something, and of others.
const EVERY: u32 = 64;
pub(super) const TELLING: u64 = 10;
/// Of those that tell something the first, too, until so many have agreed.
const FIRST: u32 = 4;
/// A window that is longer than what any API answers, and lists anything, counts as so many.
const LONG: u32 = 8;
/// And where one does not come at once, one of so many.
const LATER: u32 = 8;
/// Audits cost no more than one of so many records, beside so many that cost nothing.
const SHARE: u64 = 32;
const FREE: u64 = 10_000;
/// After so many that did not come, the next is asked for until it comes.
const PATIENT: u32 = 4;
/// So much longer than any that agreed a window is audited, too, if it lists anything.
const GROWTH: Millis = 2;
/// What was given up before so many others is known to all lanes; and of windows that are as long as each other no more are
/// remembered that do not touch.
const MOST_GAPS: usize = 256;
/// So many windows in a row must agree until all is believed again.
const STRICT: u32 = 64;

/// See the module.
#[derive(Debug)]
pub(super) struct Audit {
    /// Windows that are all read in parts.
    strict: u32,
    /// The same of those that tell something.
    first: u32,
    /// Given up. Each lane takes note of it.
    gaps: Vec<Gap>,
    /// The longest window that agreed, of those that any API may refuse.
    longest: Millis,
    /// Records that windows listed, and those of audited ones.
    seen: u64,
    spent: u64,
    full: Group,
    sparse: Group,
}

/// Windows that tell as much as each other.
#[derive(Debug, Default)]
struct Group {
    /// Until the next audit.
    left: u32,
    /// Audits since the last one that came.
    late: u32,
    /// What was believed before the last one began, if it has not agreed, and since.
    before: Believed,
    believed: Believed,
}

/// Windows that were believed, by the logarithm of how long they are: what is hidden of long ones shorter ones do not show.
#[derive(Debug, Default)]
struct Believed(BTreeMap<u32, Alike>);

/// Windows that are about as long as each other, one where they touch, and the one that listed the most.
#[derive(Debug)]
struct Alike {
    windows: VecDeque<Window>,
    fullest: (u64, Window),
}

impl Default for Audit {
    fn default() -> Self {
        Self {
            strict: 0,
            first: FIRST,
            gaps: Vec::new(),
            longest: SHORT,
            seen: 0,
            spent: 0,
            full: Group::default(),
            sparse: Group::default(),
        }
    }
}

impl Audit {
    /// The next window is audited.
    pub(super) const fn doubt(&mut self) {
        (self.full.left, self.sparse.left, self.spent) = (0, 0, 0);
    }

    /// Whether `window`, which lists as many `rows`, is to be read in parts, too.
    pub(super) fn is_due(&mut self, window: Window, rows: u64) -> bool {
        let is_new = rows >= TELLING && self.first > 0 || rows > 0 && window.len() > GROWTH * self.longest;
        let is_strict = self.is_strict() || is_new;
        self.seen += rows;
        let is_affordable = self.spent + rows <= FREE + self.seen / SHARE;
        let group = self.group(rows);
        group.left = group.left.saturating_sub(if window.len() > SHORT && rows > 0 { LONG } else { 1 });
        let is_due = group.left == 0 && (is_affordable || group.late > 0);
        if is_due {
            // Those that are read at the same time are none, and it tells nothing of them.
            group.left = EVERY;
            group.before.append(&mut group.believed);
        } else if !is_strict {
            group.believed.add(window, rows);
        }
        self.spent += if is_due { rows } else { 0 };
        is_due || is_strict
    }

    const fn group(&mut self, rows: u64) -> &mut Group {
        if rows >= TELLING { &mut self.full } else { &mut self.sparse }
    }

    /// The parts of one that lists as many `rows` do not come now.
    pub(super) const fn later(&mut self, rows: u64) {
        let group = self.group(rows);
        (group.left, group.late) = (LATER, group.late.saturating_add(1));
    }

    /// Whether the parts of one that lists as many `rows` are asked for until they come.
    pub(super) const fn is_patient(&mut self, rows: u64) -> bool {
        self.is_strict() || self.group(rows).late >= PATIENT
    }

    /// The windows that tell the most of those that no audit has shown: the fullest of each length.
    pub(super) fn fullest(&mut self) -> Vec<Window> {
        let Group { before, believed, .. } = &mut self.full;
        before.append(believed);
        before.0.values().map(|alike| alike.fullest.1).collect()
    }

    /// They all agree.
    pub(super) fn all_agreed(&mut self) {
        self.full.before = Believed::default();
    }

    /// One that lists as many `rows` lists the same in parts. Whether all is believed again.
    pub(super) fn agreed(&mut self, window: Window, rows: u64) -> bool {
        if rows > 0 {
            self.longest = self.longest.max(window.len());
        }
        let group = self.group(rows);
        (group.left, group.late) = (EVERY, 0);
        group.before.are_shown_by(window);
        if rows >= TELLING {
            self.first = self.first.saturating_sub(1);
        }
        self.strict = self.strict.saturating_sub(1);
        self.strict == 0
    }

    /// Whether all windows are audited.
    pub(super) const fn is_strict(&self) -> bool {
        self.strict > 0
    }

    /// It does not, and its parts list as many: what was believed is given up. Whether shorter windows are to be asked for (of
    /// fewer records they tell no more), and what is given up.
    pub(super) fn disagreed(&mut self, parts: u64) -> (bool, &[Gap]) {
        (self.strict, self.longest) = (STRICT, SHORT);
        let Self { full, sparse, gaps, .. } = self;
        // Lanes took note of the older ones long ago.
        gaps.drain(..gaps.len().saturating_sub(MOST_GAPS));
        let known = gaps.len();
        for group in [full, sparse] {
            group.late = 0;
            group.before.append(&mut group.believed);
            let believed = std::mem::take(&mut group.before);
            gaps.extend(believed.windows().map(|window| Gap::of(window, GapReason::Contradiction)));
        }
        (parts >= TELLING, &self.gaps[known..])
    }

    /// What was given up.
    pub(super) fn gaps(&self) -> &[Gap] {
        &self.gaps
    }
}

/// Where to cut a window: at the first record that it lists, amid them, so soon after that what hides some of all that is long hides
/// none there, and at the last. Whatever hides some of the whole then hides others of the parts, or none. Not within a clock unit of an end: a unit alone is asked for without its neighbours, which
/// the whole lists as well.
pub(super) fn cuts(window: Window, found: &[Found], unit: Millis) -> [Millis; CUTS] {
    let Window { from, to } = window;
    let times: Vec<_> = found.iter().filter_map(|found| found.time).filter(|time| window.contains(*time)).collect();
    let cut = |at: Option<&Millis>| {
        let at = at.copied().unwrap_or_else(|| Millis::midpoint(from, to));
        let edge = if has_edges(window, unit) { 2 * unit } else { unit };
        (from + floor_to(at - from, unit)).clamp(from + edge, (to - edge).max(from + edge))
    };
    let (amid, last) = (cut(times.get(times.len() / 2)), cut(times.last()));
    [cut(times.first()), amid, last.min(amid + SHORT - unit), last]
}

/// Whether a window's parts list what lies just outside of it as the whole does.
pub(super) const fn has_edges(window: Window, unit: Millis) -> bool {
    window.len() >= 4 * unit
}

impl Believed {
    fn add(&mut self, window: Window, rows: u64) {
        let new = || Alike { windows: VecDeque::new(), fullest: (rows, window) };
        self.0.entry(class(window)).or_insert_with(new).add(window, (rows, window));
    }

    fn append(&mut self, other: &mut Self) {
        for (class, other) in std::mem::take(&mut other.0) {
            match self.0.entry(class) {
                Entry::Occupied(mut alike) => {
                    other.windows.iter().for_each(|window| alike.get_mut().add(*window, other.fullest));
                }
                Entry::Vacant(place) => _ = place.insert(other),
            }
        }
    }

    /// A window agreed: so do those that are no longer.
    fn are_shown_by(&mut self, window: Window) {
        self.0.retain(|longer, _| *longer > class(window));
    }

    fn windows(&self) -> impl Iterator<Item = Window> {
        self.0.values().flat_map(|alike| &alike.windows).copied()
    }
}

impl Alike {
    fn add(&mut self, window: Window, (rows, full): (u64, Window)) {
        match self.windows.back_mut() {
            Some(last) if last.to >= window.from && window.to >= last.from => {
                *last = Window { from: last.from.min(window.from), to: last.to.max(window.to) };
            }
            _ => self.windows.push_back(window),
        }
        if self.windows.len() > MOST_GAPS {
            self.windows.pop_front();
        }
        if rows >= self.fullest.0 {
            self.fullest = (rows, full);
        }
    }
}

fn class(window: Window) -> u32 {
    window.len().max(1).ilog2()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::event::Fingerprint;

    fn due(audit: &mut Audit, number: Millis, length: Millis, rows: u64) -> bool {
        audit.is_due(Window { from: number * length, to: (number + 1) * length }, rows)
    }

    fn begun() -> Audit {
        Audit { first: 0, longest: Millis::MAX / GROWTH, ..Audit::default() }
    }

    #[test]
    fn windows_are_audited_now_and_then_and_long_ones_more_often() {
        for (length, then) in [(1000, 64), (2 * SHORT, 8)] {
            let mut audit = begun();
            let mut is_due = |number: Millis, rows| {
                let is_due = due(&mut audit, number, length, rows);
                if is_due {
                    assert!(audit.agreed(Window { from: 0, to: 1000 }, rows));
                }
                is_due
            };
            assert!(is_due(0, 3) && is_due(1, 30), "the first of each");
            assert_eq!((1..200).find(|number| is_due(*number, 3)), Some(then));
            assert_eq!((1..200).find(|number| is_due(*number, 30)), Some(then));
        }
    }

    #[test]
    fn audits_cost_a_share_of_what_is_read() {
        let mut audit = begun();
        let mut audited = 0;
        for number in 0..1_000 {
            if due(&mut audit, number, 2 * SHORT, 2_000) {
                audited += 1;
                audit.agreed(Window { from: 0, to: 2 * SHORT }, 2_000);
            }
        }
        assert_eq!(audited, 36, "of a record in 32, and 10,000");
        audit.doubt();
        assert!(due(&mut audit, 1_000, 2 * SHORT, 2_000));
    }

    #[test]
    fn the_first_windows_that_tell_something_are_all_audited_until_some_have_agreed() {
        let mut audit = Audit::default();
        for number in 0..8 {
            assert_eq!(due(&mut audit, number, 1000, 30), number < 6, "four agree, after two that did not come");
            if (2..6).contains(&number) {
                audit.agreed(Window { from: 0, to: 1000 }, 30);
            } else {
                audit.later(30);
            }
        }
    }

    #[test]
    fn what_is_believed_while_another_is_audited_is_not_shown_by_that() {
        let mut audit = begun();
        assert!(due(&mut audit, 1, 1000, 30));
        assert!(!due(&mut audit, 2, 1000, 30), "at the same time");
        audit.agreed(Window { from: 0, to: 1000 }, 30);
        let gap = |from, to| Gap { from, to, reason: GapReason::Contradiction };
        audit.later(30);
        let due_again = (4..20).find(|number| due(&mut audit, 2 * *number, 1000, 30));
        assert_eq!(due_again, Some(4 + Millis::from(LATER) - 1));
        audit.later(30);
        audit.disagreed(30);
        let gaps = audit.gaps();
        assert_eq!((gaps.len(), gaps[0]), (LATER as usize, gap(2000, 3000)));
    }

    #[test]
    fn a_window_that_is_far_longer_than_any_that_agreed_is_audited() {
        let mut audit = Audit { longest: SHORT, ..begun() };
        let window = |length| Window { from: 0, to: length };
        assert!(audit.is_due(window(1000), 1) && audit.agreed(window(1000), 1));
        assert!(!audit.is_due(window(2 * SHORT), 1) && !audit.is_due(window(9 * SHORT), 0));
        assert!(audit.is_due(window(2 * SHORT + 1), 1) && audit.agreed(window(2 * SHORT + 1), 1));
        assert!(!audit.is_due(window(4 * SHORT + 2), 1) && audit.is_due(window(4 * SHORT + 3), 1));
    }

    #[test]
    fn parts_that_do_not_come_are_asked_for_until_they_do_and_the_fullest_windows_are_left_for_the_end() {
        let mut audit = begun();
        for number in 0..3 * Millis::from(LATER) {
            assert!(!audit.is_patient(30));
            let length = if number == 18 { 5000 } else { 1000 };
            if due(&mut audit, number, length, 30 + number.unsigned_abs() % 7) {
                audit.later(30);
            }
        }
        assert_eq!(audit.fullest(), [Window { from: 20_000, to: 21_000 }, Window { from: 90_000, to: 95_000 }]);
        assert!(due(&mut audit, 24, 1000, 30));
        audit.later(30);
        assert!(audit.is_patient(30) && !audit.is_patient(3));
        assert!(!due(&mut audit, 25, 1000, 11), "at the same time");
        audit.agreed(Window { from: 0, to: 1000 }, 30);
        assert!(!audit.is_patient(30));
        let longer = Window { from: 90_000, to: 95_000 };
        assert_eq!(audit.fullest(), [Window { from: 25_000, to: 26_000 }, longer], "a short one shows nothing of it");
        audit.all_agreed();
        assert!(audit.fullest().is_empty() && audit.disagreed(0).1.is_empty());
    }

    #[test]
    fn a_window_is_cut_where_its_records_are() {
        let found = |time| Found { fingerprint: Fingerprint([0; 16]), time: Some(time), raw: vec![] };
        let window = Window { from: 10_000, to: 20_000 };
        let cut = |times: &[Millis]| cuts(window, &times.iter().map(|time| found(*time)).collect::<Vec<_>>(), 1000);
        assert_eq!(cut(&[5_000, 12_500, 13_000, 14_100, 17_999, 20_000]), [12_000, 14_000, 17_000, 17_000]);
        assert_eq!(cuts(Window { from: 0, to: 3000 }, &[found(2500)], 1000), [2000; 4]);
        assert_eq!((cut(&[]), cut(&[10_000, 19_999])), ([15_000; 4], [12_000, 18_000, 18_000, 18_000]));
        assert_eq!(cuts(Window { from: 0, to: 2000 }, &[], 1000), [1000; 4]);
    }

    #[test]
    fn what_was_believed_before_parts_disagreed_is_a_gap_and_all_is_audited_then() {
        let mut audit = begun();
        assert!(due(&mut audit, 0, 1000, 30) && audit.agreed(Window { from: 0, to: 1000 }, 30));
        assert!(due(&mut audit, 0, 1000, 0) && audit.agreed(Window { from: 0, to: 1000 }, 0));
        for number in [3, 4, 9] {
            assert!(!due(&mut audit, number, 1000, 30));
        }
        assert!(!due(&mut audit, 5, 1000, 0));
        let gap = |from, to| Gap { from, to, reason: GapReason::Contradiction };
        assert!(audit.disagreed(10).0 && !audit.disagreed(9).0);
        assert_eq!(audit.gaps(), [gap(3000, 5000), gap(9000, 10_000), gap(5000, 6000)]);
        for number in 11..11 + Millis::from(STRICT) {
            assert!(due(&mut audit, number, 1000, 30));
            assert_eq!(audit.agreed(Window { from: 0, to: 1000 }, 30), number == 10 + Millis::from(STRICT));
        }
        assert!(!due(&mut audit, 100, 1000, 30));
        assert!(audit.disagreed(10).0);
        assert_eq!(audit.gaps()[3..], [gap(100_000, 101_000)], "and nothing of before");
    }
}
