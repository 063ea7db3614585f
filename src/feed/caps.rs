//! Whether the API lists and counts only so many records of a query, and does not say so.
//!
//! Pure: no I/O. A limit cannot be as many as a query has listed fewer than; so the most that any lists is suspected. An
//! interval three times as long is asked for then: where that holds no more, the window is read again in parts. Once a limit
//! is known, windows are asked for that hold less.

/// Fewer records than this are no limit.
const LEAST: u64 = 10;
/// From so many on it is a round number: many hundreds of records just happen to be the most, and to ask is dear.
const DEAR: u64 = 200;
/// Windows that a limit cut, always the same one, before it is known: what comes in while one is read looks like it once.
const SEEN: u32 = 3;
/// Once parts have listed no more than the whole so often, as many are no limit: once, that may come about by chance where they
/// are one.
const TRIED: u32 = 4;
/// For so many readings it counts how many records a query has listed: a limit may be new.
const SHOWN: u32 = 64;

/// What readings have shown of it.
#[derive(Debug, Default)]
pub(super) struct Caps {
    suspected: Option<(u64, u32)>,
    /// A query has listed, or counted, as many, and for how many readings that counts.
    shown: u64,
    left: u32,
    /// As many records were suspected last, in vain, and how often.
    in_vain: (u64, u32),
}

impl Caps {
    /// The most records that a query lists.
    pub(super) fn known(&self) -> Option<u64> {
        self.suspected.filter(|(_, seen)| *seen >= SEEN).map(|(cap, _)| cap)
    }

    /// Whether a limit may be as many as a query listed, beside the `everywhere` that all list.
    pub(super) fn suspects(&self, listed: u64, everywhere: u64) -> bool {
        let may_be = listed < DEAR || listed.is_multiple_of(100) || listed.is_power_of_two();
        may_be && listed >= everywhere + LEAST && listed >= self.shown
    }

    /// A query listed, or counted, as many.
    pub(super) fn shows(&mut self, listed: u64) {
        if listed > self.shown {
            (self.shown, self.left) = (listed, SHOWN);
        }
    }

    /// The parts of an interval that lists as many list no more.
    pub(super) fn cut_in_vain(&mut self, listed: u64) {
        let tried = if self.in_vain.0 == listed { self.in_vain.1 + 1 } else { 1 };
        self.in_vain = (listed, tried);
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

    /// A limit cut a window. Whether what is known has changed.
    pub(super) fn cut(&mut self, cap: u64) -> bool {
        let before = self.known();
        let seen = self.suspected.filter(|(suspected, _)| *suspected == cap).map_or(0, |(_, seen)| seen);
        self.suspected = Some((cap, seen.saturating_add(1)));
        before != self.known()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_limit_is_known_once_it_has_cut_often_enough_and_until_more_is_listed() {
        let mut caps = Caps::default();
        assert_eq!([caps.cut(100), caps.cut(100)], [false; 2]);
        assert_eq!((caps.saw(80), caps.known()), (false, None));
        assert_eq!((caps.cut(100), caps.known()), (true, Some(100)));
        assert_eq!((caps.saw(100), caps.known()), (false, Some(100)));
        assert_eq!((caps.saw(101), caps.known()), (true, None));
        // Each time another one, or one of which there was more: what came in while it was read.
        assert_eq!([caps.cut(100), caps.cut(200), caps.cut(200), caps.cut(300), caps.cut(200)], [false; 5]);
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
