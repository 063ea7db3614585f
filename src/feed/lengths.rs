//! Whether the API answers an interval to its ends, however long it is.
//!
//! Pure: no I/O, no clock. An API may answer the first hours of a long interval, or the last, and call that all: list and
//! count agree then, and nothing else shows it. So a window counts only where an interval as long is known to be answered:
//! records of a longer one lay so far from both of its ends, or a *control question* showed it, for an interval somewhat
//! longer, with a record that is known close to one end, and then to the other. An API that leaves it out, or refuses to
//! answer, is asked for shorter windows.

use std::collections::VecDeque;

use crate::event::{Fingerprint, Millis};
use crate::reading::Found;
use crate::window::{Now, Window, floor_to};

/// So long an interval is answered whole by every API that can be read at all; what is longer may be refused for that.
pub(super) const SHORT: Millis = 300_000;
/// How much longer than the longest that is known to be answered the next one may be; from half of that on it is worth the
/// question.
const GROWTH: Millis = 4;
/// The last window of a job is that much longer than others, at most: in quarters.
const LAST: Millis = 7;
/// The record of a control question lies in the outermost of so many parts.
const PARTS: Millis = 16;
/// Known records that are remembered.
const ANCHORS: usize = 16;
/// After a control question that was not answered as it should be, so many windows are asked for that need none; then twice
/// as many, up to the most.
const REST: (u32, u32) = (64, 4096);

/// A record that is known, and the time that it shows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Anchor {
    pub record: Fingerprint,
    pub time: Millis,
}

/// An end of an interval.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Edge {
    First,
    Last,
}

/// A short interval around a time.
pub(super) const fn around(time: Millis) -> Window {
    Window { from: time - SHORT / 2, to: time + SHORT / 2 }
}

/// See the module.
#[derive(Debug)]
pub(super) struct Lengths {
    /// Intervals as long as this are answered up to both ends.
    shown: Millis,
    /// And as long as this are refused, as far as is known.
    refused: Millis,
    /// It has listed something, be it to a run before this one.
    heard: bool,
    anchors: VecDeque<Anchor>,
    resting: u32,
    rest: u32,
}

impl Default for Lengths {
    fn default() -> Self {
        Self { shown: SHORT, refused: Millis::MAX, heard: false, anchors: VecDeque::new(), resting: 0, rest: REST.0 }
    }
}

impl Lengths {
    /// How long a window is to be that may be as long as `comfortable`. Of an API that has never listed anything, whatever it
    /// calls empty is read again once it does: any length.
    pub(super) fn fit(&self, comfortable: Millis) -> Millis {
        let plain = self.shown * 4 / LAST;
        if !self.heard {
            comfortable.min(self.refused / 2)
        } else if comfortable <= plain {
            comfortable
        } else if self.resting == 0 && comfortable >= self.shown.saturating_mul(GROWTH / 2) {
            comfortable.min(self.shown.saturating_mul(GROWTH))
        } else {
            plain
        }
    }

    /// What it calls empty is not read again, though no record is known yet.
    pub(super) const fn hear(&mut self) {
        self.heard = true;
    }

    /// Whether it has ever listed anything.
    pub(super) const fn has_heard(&self) -> bool {
        self.heard
    }

    /// How much of this length to ask for at once.
    pub(super) fn allow(&self, length: Millis) -> Millis {
        if self.doubt(length) { self.fit(length) } else { length }
    }

    /// Whether a window as long as this is too long to be believed.
    pub(super) fn doubt(&self, length: Millis) -> bool {
        self.heard && length > self.shown
    }

    /// Whether a window that is too long was worth it: the next ones are longer than the ones before.
    pub(super) fn has_grown(&self, window: Window) -> bool {
        self.shown > window.len() / 2
    }

    /// Whether a window is not too long, or what it lists shows that the next ones may be longer.
    pub(super) fn may_be_shown(&self, window: Window, found: &[Found]) -> bool {
        let reaches = |(first, last)| reach(window, first, last) > window.len() / 2;
        !self.doubt(window.len()) || ends(window, found).is_some_and(reaches)
    }

    /// Takes note of what a window listed, `whole` if as one interval.
    pub(super) fn saw(&mut self, window: Window, found: &[Found], whole: bool) {
        self.resting = self.resting.saturating_sub(1);
        if self.resting == 0 {
            self.refused = Millis::MAX;
        }
        let Some((first, last)) = ends(window, found) else { return };
        if whole {
            self.shown = self.shown.max(reach(window, first, last));
        }
        self.heard = true;
        for anchor in [first, last] {
            self.anchors.retain(|known| *known != anchor);
            self.anchors.push_back(anchor);
        }
        while self.anchors.len() > ANCHORS {
            self.anchors.pop_front();
        }
    }

    /// What to ask for to see whether an interval of this length is answered up to `edge`, and what it must list: nothing of
    /// what is not over, or no longer kept.
    pub(super) fn control(
        &self,
        length: Millis,
        edge: Edge,
        unit: Millis,
        now: Now,
        kept: Option<Millis>,
    ) -> Option<(Window, Anchor)> {
        // An API may go by another time than the record shows, a little earlier or later.
        let near = floor_to(length / PARTS, unit) + unit;
        let longer = floor_to(length, unit) + 2 * near;
        let around = |anchor: &Anchor| {
            let time = floor_to(anchor.time, unit);
            let from = match edge {
                Edge::First => time - near,
                Edge::Last => time + near - longer,
            };
            (Window { from, to: from + longer }, *anchor)
        };
        let readable =
            |(window, _): &(Window, Anchor)| window.to <= now.sure && kept.is_none_or(|kept| window.from > kept);
        self.anchors.iter().rev().map(around).find(readable)
    }

    /// Intervals as long as this are answered up to both ends.
    pub(super) fn shows(&mut self, length: Millis) {
        self.shown = self.shown.max(length);
        self.rest = REST.0;
    }

    /// Where a record is known that any API lists which can be read at all.
    pub(super) fn near_a_record(&self) -> Option<Window> {
        self.anchors.back().map(|anchor| around(anchor.time))
    }

    /// Something hides records: what was shown may no longer be so.
    pub(super) fn distrust(&mut self) {
        (self.shown, self.resting) = (SHORT, 0);
    }

    /// An interval as long as this, which is not [`SHORT`], is refused, and a part of it is not.
    pub(super) fn are_refused(&mut self, length: Millis) {
        self.shown = self.shown.min(length / 2).max(SHORT);
        self.refused = self.refused.min(length);
        self.shows_not();
    }

    /// It is not known that they are, or known that they are not.
    pub(super) fn shows_not(&mut self) {
        (self.resting, self.rest) = (self.rest, (self.rest * 2).min(REST.1));
    }
}

/// The first and the last record of a window.
fn ends(window: Window, found: &[Found]) -> Option<(Anchor, Anchor)> {
    let known = |found: &Found| Some(Anchor { record: found.fingerprint, time: found.time? });
    let inside = |anchor: &Anchor| window.contains(anchor.time);
    Some((found.iter().filter_map(known).find(inside)?, found.iter().rev().filter_map(known).find(inside)?))
}

/// An interval so long is answered up to both ends, if records of a longer one lie there.
fn reach(window: Window, first: Anchor, last: Anchor) -> Millis {
    (last.time - window.from).min(window.to - first.time)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const START: Millis = 1_767_225_600_000;
    const HOUR: Millis = 3_600_000;

    fn record(number: u8, time: Millis) -> Found {
        Found { fingerprint: Fingerprint([number; 16]), time: Some(START + time), raw: vec![bytes::Bytes::new()] }
    }

    fn window(from: Millis, length: Millis) -> Window {
        Window { from: START + from, to: START + from + length }
    }

    fn at(now: Millis) -> Now {
        Now { sure: START + now, claimed: START + now, latest: START + now }
    }

    #[test]
    fn a_window_is_believed_as_far_as_records_lay_from_both_ends() {
        let mut lengths = Lengths::default();
        let hour = window(0, HOUR);
        assert!(!lengths.doubt(HOUR), "nothing was ever listed: all of it is read again");
        let mut begun_anew = Lengths::default();
        begun_anew.hear();
        assert!(begun_anew.doubt(SHORT + 1) && begun_anew.fit(HOUR) > SHORT);
        begun_anew.shows_not();
        assert!(begun_anew.fit(HOUR) < SHORT, "no record is known to ask for");
        lengths.saw(window(0, SHORT), &[record(1, 10_000)], true);
        assert!(lengths.doubt(HOUR) && !lengths.doubt(SHORT));
        // Its first half alone, or its last, shows half of it; the pieces that it was cut into show nothing.
        lengths.saw(hour, &[record(2, 1), record(5, HOUR - 1)], false);
        assert_eq!(lengths.shown, SHORT);
        lengths.saw(hour, &[record(2, 1), record(3, HOUR / 2)], true);
        assert_eq!(lengths.shown, HOUR / 2);
        lengths.saw(hour, &[record(4, HOUR / 2), record(5, HOUR - 1)], true);
        assert_eq!(lengths.shown, HOUR / 2);
        lengths.saw(hour, &[record(2, 60_000), record(5, HOUR - 90_000)], true);
        assert_eq!(lengths.shown, HOUR - 90_000);
        let half = [record(2, 1), record(3, HOUR / 2)];
        let day = window(0, 24 * HOUR);
        assert!(lengths.may_be_shown(window(0, SHORT), &[]) && !lengths.may_be_shown(day, &half));
        assert!(!lengths.may_be_shown(day, &[]) && lengths.may_be_shown(day, &[record(2, HOUR), record(3, 23 * HOUR)]));
        assert!(lengths.doubt(HOUR) && lengths.has_grown(hour) && !lengths.has_grown(window(0, 2 * HOUR)));
    }

    proptest! {
        /// A window that is asked for is not doubted, or at least twice as long as any that is not: no window is doubted, and
        /// asked for once more as long as it was.
        #[test]
        fn a_window_is_asked_for_that_counts_or_is_worth_a_question(
            shown in SHORT..24 * HOUR, comfortable in 1..48 * HOUR, resting in 0..2u32,
        ) {
            let mut lengths = Lengths { shown, resting, ..Lengths::default() };
            lengths.saw(window(0, 1000), &[record(1, 1)], true);
            lengths.resting = resting;
            let fit = lengths.fit(comfortable);
            prop_assert!(fit > 0 && fit <= comfortable);
            let is_plain = !lengths.doubt(fit * LAST / 4);
            prop_assert!(is_plain || resting == 0 && (2 * shown..=GROWTH * shown).contains(&fit));
            let allowed = lengths.allow(comfortable);
            let is_worth_it = resting == 0 && (2 * shown..=GROWTH * shown).contains(&allowed);
            prop_assert!(allowed > 0 && allowed <= comfortable && (!lengths.doubt(allowed) || is_worth_it));
            lengths.shows_not();
            prop_assert!(!lengths.doubt(lengths.allow(comfortable)));
            prop_assert!(!lengths.doubt(lengths.fit(comfortable) * LAST / 4));
        }
    }

    #[test]
    fn a_control_question_is_longer_and_has_a_known_record_near_its_end_and_lies_in_what_can_be_read() {
        let mut lengths = Lengths::default();
        let ask = |lengths: &Lengths, edge, now, kept| lengths.control(HOUR, edge, 1000, at(now), kept);
        assert_eq!(ask(&lengths, Edge::Last, 9 * HOUR, None), None, "nothing is known");
        for (number, hour) in [(1, 0), (2, 1), (3, 2)] {
            lengths.saw(window(hour * HOUR, SHORT), &[record(number, hour * HOUR + 7_500)], true);
        }
        for now in [4 * HOUR, 3 * HOUR - 900_000, 2 * HOUR] {
            let (first, anchor) = ask(&lengths, Edge::First, now, None).unwrap();
            assert!(first.to - anchor.time > HOUR && first.to <= START + now && first.contains(anchor.time));
            assert!(anchor.time - first.from > 60_000, "an API may go by another time");
            let (last, anchor) = ask(&lengths, Edge::Last, now, Some(START - 2 * HOUR)).unwrap();
            assert!(anchor.time - last.from > HOUR && last.to <= START + now && last.from > START - 2 * HOUR);
            assert!(last.to - anchor.time > 60_000 && [first, last].iter().all(|window| window.from % 1000 == 0));
        }
        assert_eq!(ask(&lengths, Edge::First, HOUR / 2, None), None, "it is not over");
        assert_eq!(ask(&lengths, Edge::Last, 9 * HOUR, Some(START + 3 * HOUR)), None, "it is no longer kept");
    }

    #[test]
    fn an_api_that_answers_no_longer_interval_is_asked_for_one_seldom() {
        let mut lengths = Lengths::default();
        let mut asked = 0;
        for _ in 0..2_000 {
            lengths.saw(window(0, SHORT), &[record(1, 10_000)], true);
            if lengths.fit(24 * HOUR) > SHORT {
                asked += 1;
                lengths.shows_not();
            }
        }
        assert_eq!(asked, 6, "at once, then 64, 128, 256, 512 and 1024 windows later");
        lengths.shows(2 * SHORT);
        assert!(!lengths.doubt(2 * SHORT));
    }

    #[test]
    fn an_interval_that_is_refused_is_asked_for_in_shorter_ones_for_a_while() {
        let mut lengths = Lengths::default();
        lengths.are_refused(24 * HOUR);
        assert_eq!(lengths.fit(24 * HOUR), 12 * HOUR);
        lengths.are_refused(12 * HOUR);
        assert_eq!(lengths.fit(24 * HOUR), 6 * HOUR);
        (0..REST.1).for_each(|_| lengths.saw(window(0, HOUR), &[], true));
        assert_eq!(lengths.fit(24 * HOUR), 24 * HOUR);
        lengths.saw(window(0, 8 * HOUR), &[record(1, 0), record(2, 8 * HOUR - 1)], true);
        lengths.are_refused(4 * HOUR);
        assert!(lengths.doubt(2 * HOUR + 1), "whatever it answered once");
    }
}
