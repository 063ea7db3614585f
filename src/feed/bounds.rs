//! Whether the API goes by the bounds that it is asked for at all.
//!
//! Pure: no I/O, no clock. Records that lie outside prove nothing: an API may go by another time than they show, or round its
//! bounds generously, and lists all that lies inside then, too. One that is listed for windows that lie apart is a reason
//! to ask a *control question*: for an interval so far away that no way of counting time files the record there. An API
//! that lists it there as well lists the same whatever is asked, and what it does not list is never listed: until it answers a
//! control question as it should, each window that it lists anything for is a gap.

use std::collections::VecDeque;

use crate::event::{Fingerprint, Millis};
use crate::reading::{Found, Gap, GapReason};
use crate::state::admit::{MOST_SKEW, is_outside};
use crate::window::Window;

/// Readings that are remembered, and how much of each: enough that two that list the same have some in common.
const REMEMBERED: usize = 16;
const SKETCH: usize = 64;
/// So far from its time nothing files a record.
const AWAY: Millis = 2 * 86_400_000;
/// So many windows are not questioned after an honest answer to a control question.
const TRUSTED: u32 = 64;

/// What is to be asked: whether the interval that ends at `away` lists `record`, or anything else of the window.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Question {
    /// A record that the window lists, and the time that it shows.
    pub record: Fingerprint,
    pub time: Option<Millis>,
    /// The end of the interval.
    pub away: Millis,
}

/// See the module.
#[derive(Debug, Default)]
pub(super) struct Bounds {
    /// Windows, and the smallest fingerprints that each lists: of the same list always the same.
    recent: VecDeque<(Window, Vec<Fingerprint>)>,
    /// The last control question was not answered as it should be.
    ignored: bool,
    trusted: u32,
}

impl Bounds {
    /// Takes note of what `window` lists; what is to be asked of that, if anything.
    pub(super) fn saw(&mut self, window: Window, unit: Millis, found: &[Found]) -> Option<Question> {
        let stray = |found: &&Found| found.time.is_some_and(|time| is_outside(window, unit, time));
        let apart = |other: &Window| other.to + 2 * unit < window.from || window.to + 2 * unit < other.from;
        let mut sketch: Vec<_> = found.iter().map(|found| found.fingerprint).collect();
        if sketch.len() > SKETCH {
            sketch.select_nth_unstable(SKETCH);
            sketch.truncate(SKETCH);
        }
        // One that is listed beside different others is pinned: bounds count for the others.
        let is_pinned = |record: &Found| {
            let with = |list: &&[Fingerprint]| list.contains(&record.fingerprint);
            let others = self.recent.iter().map(|(_, other)| other.as_slice()).filter(with);
            let lists: Vec<&[Fingerprint]> = others.chain([sketch.as_slice()]).collect();
            lists.iter().enumerate().any(|(at, one)| lists[at + 1..].iter().any(|other| are_different(one, other)))
        };
        let listed = |record: &&Found| {
            let mut others = self.recent.iter().filter(|(other, _)| apart(other));
            others.any(|(_, other)| other.contains(&record.fingerprint)) && !is_pinned(record)
        };
        self.trusted = self.trusted.saturating_sub(1);
        let suspect = match self.ignored {
            true => found.iter().find(|record| !is_pinned(record)),
            false if self.trusted == 0 => found.iter().filter(stray).find(listed),
            false => None,
        };
        // Who always lists the same lists it here, too.
        self.ignored &= suspect.is_some();
        let question = suspect.map(|Found { fingerprint, time, .. }| {
            let away = window.from - AWAY;
            let near = time.is_some_and(|time| (away - AWAY / 2..away + AWAY / 2).contains(&time));
            Question { record: *fingerprint, time: *time, away: if near { away - 2 * AWAY } else { away } }
        });
        sketch.extend(question.map(|question| question.record));
        if self.recent.len() == REMEMBERED {
            self.recent.pop_front();
        }
        self.recent.push_back((window, sketch));
        question
    }

    /// Whether bounds count, as far as is known.
    pub(super) const fn are_believed(&self) -> bool {
        !self.ignored
    }

    /// The control question was answered as it should be: what is given up of what was asked for before, since `record`, of
    /// this time, was the answer to another question there.
    pub(super) fn count(&mut self, window: Window, record: Fingerprint, time: Option<Millis>) -> Vec<Gap> {
        (self.ignored, self.trusted) = (false, TRUSTED);
        let far = |of: &Window| time.is_some_and(|time| time < of.from - MOST_SKEW || of.to + MOST_SKEW < time);
        let lied = |(of, sketch): &&(Window, Vec<Fingerprint>)| *of != window && far(of) && sketch.contains(&record);
        self.recent.iter().filter(lied).map(gap).collect()
    }

    /// `record` is listed whatever is asked: what is given up of what was asked for lately.
    pub(super) fn count_not(&mut self, record: Fingerprint) -> Vec<Gap> {
        self.ignored = true;
        self.recent.iter().filter(|(_, sketch)| sketch.contains(&record)).map(gap).collect()
    }
}

const fn gap((window, _): &(Window, Vec<Fingerprint>)) -> Gap {
    Gap::of(*window, GapReason::Bounds)
}

/// Whether each of two lists, of which the smallest fingerprints are known, has what the other has not: not the same list,
/// before and after something was added.
fn are_different(one: &[Fingerprint], other: &[Fingerprint]) -> bool {
    let lacks = |from: &[Fingerprint], other: &[Fingerprint]| {
        // What a list has beyond its sketch is not known.
        let is_known = |record| other.len() < SKETCH || Some(record) <= other.iter().max();
        from.iter().any(|record| is_known(record) && !other.contains(record))
    };
    lacks(one, other) && lacks(other, one)
}

#[cfg(test)]
mod tests {
    use super::*;

    const UNIT: Millis = 1000;
    const START: Millis = 1_767_225_600_000;

    fn record(number: u8, time: Millis) -> Found {
        Found { fingerprint: Fingerprint([number; 16]), time: Some(START + time), raw: vec![bytes::Bytes::new()] }
    }

    fn window(from: Millis) -> Window {
        Window { from: START + from, to: START + from + 10_000 }
    }

    #[test]
    fn one_record_for_windows_apart_is_questioned_and_then_all_that_list_it_are_gaps() {
        let mut bounds = Bounds::default();
        let newest = [record(1, 905_000)];
        assert_eq!(bounds.saw(window(900_000), UNIT, &newest), None, "there it belongs");
        assert_eq!(bounds.saw(window(890_000), UNIT, &newest), None, "or at the edge");
        let Question { record, away, .. } = bounds.saw(window(200_000), UNIT, &newest).unwrap();
        assert_eq!((record, away), (newest[0].fingerprint, START + 200_000 - AWAY));
        let gaps = |bounds: &mut Bounds, record| -> Vec<Millis> {
            bounds.count_not(record).iter().map(|gap| gap.from - START).collect()
        };
        assert_eq!(gaps(&mut bounds, record), [900_000, 890_000, 200_000]);
        // From now on all that it lists is questioned, also what may belong there.
        let later = [self::record(2, 915_000)];
        let Question { record, .. } = bounds.saw(window(910_000), UNIT, &later).unwrap();
        assert_eq!(gaps(&mut bounds, record), [910_000]);
        assert!(!bounds.are_believed());
        assert_eq!(bounds.saw(window(920_000), UNIT, &[]), None);
        assert!(bounds.are_believed(), "it lists nothing there");
        assert_eq!(bounds.saw(window(910_000), UNIT, &later), None, "it is over");
    }

    #[test]
    fn an_api_that_answers_honestly_is_asked_seldom() {
        let mut bounds = Bounds::default();
        let generous = [record(1, 500_000)];
        let mut asked = 0;
        for n in 0..200 {
            if let Some(Question { record, time, .. }) = bounds.saw(window(n % 2 * 100_000), UNIT, &generous) {
                asked += 1;
                assert_eq!(bounds.count(window(n % 2 * 100_000), record, time), [], "it is generous");
            }
        }
        assert!((2..=4).contains(&asked), "{asked} questions");
    }

    #[test]
    fn a_record_that_is_pinned_beside_others_is_no_reason_to_ask() {
        let mut bounds = Bounds::default();
        let with = |number| [record(1, 5_000_000), record(number, i64::from(number) * 100_000)];
        assert_eq!(bounds.saw(window(200_000), UNIT, &with(2)), None);
        assert_eq!(bounds.saw(window(300_000), UNIT, &with(3)), None);
        assert_eq!(bounds.saw(window(400_000), UNIT, &with(3)[..1]), None);
        // What grows is the same list.
        let mut bounds = Bounds::default();
        assert_eq!(bounds.saw(window(200_000), UNIT, &with(2)[..1]), None);
        assert!(bounds.saw(window(300_000), UNIT, &with(3)).is_some());
    }

    #[test]
    fn what_was_the_answer_to_another_question_is_given_up_where_it_counted() {
        let mut bounds = Bounds::default();
        let cached = [record(1, 500_000)];
        let (far, here) = (window(9_000_000), window(0));
        assert_eq!(bounds.saw(far, UNIT, &cached), None);
        let Question { record, time, .. } = bounds.saw(here, UNIT, &cached).unwrap();
        let lied = bounds.count(here, record, time);
        assert_eq!(lied, [Gap { from: far.from, to: far.to, reason: GapReason::Bounds }]);
    }

    #[test]
    fn no_question_is_asked_where_the_record_may_be_filed() {
        let mut bounds = Bounds::default();
        let old = [record(1, -AWAY)];
        bounds.saw(window(0), UNIT, &old);
        let Question { away, .. } = bounds.saw(window(100_000), UNIT, &old).unwrap();
        assert!((START - AWAY - away).abs() > AWAY, "{away}");
    }
}
