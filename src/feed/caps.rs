//! Whether the API lists and counts only so many records of a query, and does not say so.
//!
//! Pure: no I/O. A limit cannot be as many as a query has listed fewer than; so the most that any lists is suspected, and what
//! several windows list since the last that listed more. An interval three times as long is asked for then: where that holds
//! no more, the window is read again in parts. Once a limit is known, windows are asked for that hold less, and what was
//! believed of those that just listed as many is given up.

use std::collections::VecDeque;

use crate::reading::{Gap, GapReason};
use crate::window::Window;

/// Fewer records than this are no limit.
const LEAST: u64 = 10;
/// From so many on it is a round number: many hundreds of records just happen to be the most, and to ask is dear.
const DEAR: u64 = 200;
/// Windows that a limit cut, always the same one, before it is known: what comes in while one is read looks like it once.
const SEEN: u32 = 3;
/// Once parts have listed no more than the whole so often, as many are no limit: once, that may come about by chance where they
/// are one.
const TRIED: u32 = 4;
/// So many windows that list as many, and none more in between, are no chance.
const TIED: usize = 3;
/// Where as many are no limit, nor are, for a while, as many more or less: one of so many.
const NEAR: u64 = 16;
/// For so many readings it counts how many records a query has listed: a limit may be new.
const SHOWN: u32 = 64;
/// Windows that are remembered.
const REMEMBERED: usize = 64;

/// What readings have shown of it.
#[derive(Debug, Default)]
pub(super) struct Caps {
    suspected: Option<(u64, u32)>,
    /// A query has listed, or counted, as many, and for how many readings that counts.
    shown: u64,
    left: u32,
    /// As many records were suspected last, in vain, and how often.
    in_vain: (u64, u32),
    /// The last windows since which none has listed more, and how many records they listed.
    ties: VecDeque<(Window, u64)>,
    /// Lists of so many records, or of so many more or less, were looked into, and for how many windows that counts.
    no_limit: (u64, u64, u32),
    /// Windows that were believed as they were, and how many records they listed.
    believed: VecDeque<(Window, u64)>,
}

impl Caps {
    /// The most records that a query lists.
    pub(super) fn known(&self) -> Option<u64> {
        self.suspected.filter(|(_, seen)| *seen >= SEEN).map(|(cap, _)| cap)
    }

    /// As many may be.
    pub(super) fn suspected(&self) -> Option<u64> {
        self.suspected.map(|(cap, _)| cap)
    }

    /// A window listed at most `most` records a query.
    pub(super) fn window(&mut self, window: Window, most: u64) {
        self.no_limit.2 = self.no_limit.2.saturating_sub(1);
        self.ties.retain(|(_, listed)| *listed >= most);
        remember(&mut self.ties, window, most);
    }

    /// Whether a limit may be as many as a query listed, beside the `everywhere` that all list.
    pub(super) fn suspects(&self, listed: u64, everywhere: u64) -> bool {
        let may_be = listed < DEAR || listed.is_multiple_of(100) || listed.is_power_of_two();
        let is_tied = self.ties.iter().filter(|(_, most)| *most == listed).count() >= TIED;
        let (no_limit, near, left) = self.no_limit;
        let is_new = listed.abs_diff(no_limit) > near || left == 0;
        listed >= everywhere + LEAST && (may_be && listed >= self.shown || is_tied && is_new)
    }

    /// What a window listed is believed as it is.
    pub(super) fn believe(&mut self, window: Window, most: u64) {
        if most < LEAST {
            return;
        }
        remember(&mut self.believed, window, most);
    }

    /// A query listed, or counted, as many.
    pub(super) fn shows(&mut self, listed: u64) {
        if listed > self.shown {
            (self.shown, self.left) = (listed, SHOWN);
        }
    }

    /// A window listed as many, and a longer interval more. Where windows hold about as many each, others list as many by chance.
    pub(super) fn is_no_limit(&mut self, listed: u64) {
        self.no_limit = (listed, listed / NEAR, SHOWN);
    }

    /// The parts of an interval that lists as many list no more.
    pub(super) fn cut_in_vain(&mut self, listed: u64) {
        let tried = if self.in_vain.0 == listed { self.in_vain.1 + 1 } else { 1 };
        self.in_vain = (listed, tried);
        self.no_limit = (listed, 0, SHOWN);
        if tried >= TRIED {
            self.shows(listed + 1);
        }
    }

    /// A reading listed at most `most` records a query. Whether what is known has changed.
    pub(super) fn saw(&mut self, most: u64) -> bool {
        self.left = self.left.saturating_sub(1);
        if self.left == 0 {
            self.shown = 0;
        }
        self.shows(most);
        let before = self.known();
        if self.suspected.is_some_and(|(cap, _)| most > cap) {
            self.suspected = None;
        }
        before != self.known()
    }

    /// A limit cut a window. Once it is known: what is given up of what was believed.
    pub(super) fn cut(&mut self, cap: u64) -> Option<Vec<Gap>> {
        let before = self.known();
        let seen = self.suspected.filter(|(suspected, _)| *suspected == cap).map_or(0, |(_, seen)| seen);
        self.suspected = Some((cap, seen.saturating_add(1)));
        if before == self.known() {
            return None;
        }
        let gap = |(window, _)| Gap::of(window, GapReason::TooDeep);
        Some(self.believed.drain(..).filter(|(_, most)| *most == cap).map(gap).collect())
    }

    /// Something hides records: what was shown may no longer be so.
    pub(super) fn distrust(&mut self) {
        (self.shown, self.left, self.in_vain, self.no_limit) = Default::default();
    }
}

/// Each window once, as it was last.
fn remember(windows: &mut VecDeque<(Window, u64)>, window: Window, most: u64) {
    windows.retain(|(of, _)| *of != window);
    if windows.len() == REMEMBERED {
        windows.pop_front();
    }
    windows.push_back((window, most));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_limit_is_known_once_it_has_cut_often_enough_and_until_more_is_listed() {
        let mut caps = Caps::default();
        assert_eq!([caps.cut(100), caps.cut(100)], [None, None]);
        assert_eq!((caps.saw(80), caps.known()), (false, None));
        assert_eq!((caps.cut(100), caps.known()), (Some(vec![]), Some(100)));
        assert_eq!((caps.saw(100), caps.known()), (false, Some(100)));
        assert_eq!((caps.saw(101), caps.known()), (true, None));
        // Each time another one, or one of which there was more: what came in while it was read.
        for cap in [100, 200, 200, 300, 200] {
            assert_eq!(caps.cut(cap), None);
        }
    }

    #[test]
    fn what_listed_just_as_many_as_the_limit_before_it_was_known_is_a_gap() {
        let window = |from| Window { from, to: from + 10 };
        let mut caps = Caps::default();
        for (from, most) in [(0, 99), (10, 100), (20, 9), (30, 100), (30, 100), (40, 101)] {
            caps.believe(window(from), most);
        }
        assert_eq!([caps.cut(100), caps.cut(100)], [None, None]);
        let gap = |from| Gap { from, to: from + 10, reason: GapReason::TooDeep };
        assert_eq!(caps.cut(100), Some(vec![gap(10), gap(30)]));
        assert_eq!(caps.cut(100), None);
    }

    #[test]
    fn what_several_windows_list_and_none_more_is_suspected_whatever_was_shown_before() {
        let window = |from| Window { from, to: from + 10 };
        let mut caps = Caps::default();
        caps.shows(500);
        for (from, most) in [(0, 47), (10, 47), (20, 48), (30, 47), (40, 46), (50, 47), (50, 47)] {
            caps.window(window(from), most);
            assert!(!caps.suspects(47, 0), "one window, read twice, is no other, and one listed more");
        }
        caps.window(window(60), 47);
        assert!(caps.suspects(47, 0) && !caps.suspects(47, 40) && !caps.suspects(46, 0));
        caps.is_no_limit(47);
        for from in 7..6 + SHOWN {
            caps.window(window(i64::from(from) * 10), 47);
            assert!(!caps.suspects(47, 0), "it was looked into");
        }
        caps.window(window(9000), 46);
        assert!(caps.suspects(47, 0));
        caps.window(window(9010), 48);
        assert!(!caps.suspects(47, 0));
        caps.distrust();
        assert!(caps.suspects(47, 0));
    }

    #[test]
    fn where_as_many_are_no_limit_about_as_many_are_none_either() {
        let mut caps = Caps::default();
        caps.shows(500);
        caps.is_no_limit(47);
        for (from, listed) in (0..).zip([49, 49, 49, 45, 45, 45, 44, 44, 44]) {
            caps.window(Window { from, to: from + 1 }, listed);
        }
        assert_eq!([49, 45, 44].map(|listed| caps.suspects(listed, 0)), [false, false, true]);
        caps.cut_in_vain(49);
        assert_eq!([49, 45].map(|listed| caps.suspects(listed, 0)), [false, true], "of that nothing shows more");
    }

    #[test]
    fn the_most_that_is_listed_is_suspected_until_more_is_shown() {
        let mut caps = Caps::default();
        assert!(!caps.suspects(237, 0) && caps.suspects(300, 0) && caps.suspects(1024, 0));
        assert!(!caps.suspects(LEAST - 1, 0) && caps.suspects(LEAST, 0) && !caps.suspects(LEAST + 4, 5));
        caps.saw(23);
        assert!(caps.suspects(23, 0) && !caps.suspects(22, 0));
        caps.shows(69);
        assert!(!caps.suspects(68, 0) && caps.suspects(69, 0));
        (1..SHOWN).for_each(|_| _ = caps.saw(23));
        assert!(!caps.suspects(23, 0));
        caps.saw(23);
        assert!(caps.suspects(23, 0), "that was long ago");
        (1..TRIED).for_each(|_| caps.cut_in_vain(23));
        assert!(caps.suspects(23, 0), "by chance");
        caps.cut_in_vain(23);
        assert!(!caps.suspects(23, 0) && caps.suspects(24, 0));
    }
}
