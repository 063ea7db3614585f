//! Whether the API lists and counts only so many records of a query: see [`crate::reading::Reading::capped`].
//!
//! Until that is known, what a limit may have cut is read by halves; once it is, windows are asked for that hold less.

use crate::reading::Trusted;

/// Readings in a row that a limit cut, always the same one, before it is known: what comes in while a window is read looks
/// like it once.
const SEEN: u32 = 3;
/// Fewer records than this are no limit.
const LEAST: u64 = 10;
/// Once halves have listed no more than the whole so often, that many records are no limit: that may come about by chance
/// where they are one.
const TRIED: u32 = 4;
/// So many readings that list as many are not questioned then.
const TRUSTED: u32 = 64;

/// What readings have shown of it.
#[derive(Debug, Default)]
pub(super) struct Caps {
    suspected: Option<(u64, u32)>,
    /// The most that any reading has listed.
    most: u64,
    /// The last numbers of records that were no limit.
    trusted: [NoLimit; 4],
}

/// So many records were no limit, so often; as many readings may list as many.
#[derive(Debug, Clone, Copy, Default)]
struct NoLimit {
    rows: u64,
    tried: u32,
    left: u32,
}

impl Caps {
    /// The most records that a query lists.
    pub(super) fn known(&self) -> Option<u64> {
        self.suspected.filter(|(_, seen)| *seen >= SEEN).map(|(cap, _)| cap)
    }

    /// What may be a limit: as much as has ever been listed, or more.
    pub(super) fn suspect(&self) -> u64 {
        self.most.max(LEAST)
    }

    /// What is none.
    pub(super) fn trusted(&self) -> Trusted {
        self.trusted.map(|known| if known.left > 0 { known.rows } else { 0 })
    }

    /// A reading listed at most `most` records a run, and `capped` where a limit cut one, or `uncapped` where none did.
    /// Whether what is known has changed.
    pub(super) fn saw(&mut self, most: u64, capped: Option<u64>, uncapped: Option<u64>) -> bool {
        let before = self.known();
        self.most = self.most.max(most);
        self.trust(most, capped, uncapped);
        if self.suspected.is_some_and(|(cap, _)| most > cap) {
            self.suspected = None;
        }
        if let Some(cap) = capped.filter(|cap| *cap >= most) {
            let seen = self.suspected.filter(|(suspected, _)| *suspected == cap).map_or(0, |(_, seen)| seen);
            self.suspected = Some((cap, seen.saturating_add(1)));
        }
        before != self.known()
    }

    fn trust(&mut self, most: u64, capped: Option<u64>, uncapped: Option<u64>) {
        for known in &mut self.trusted {
            known.left = known.left.saturating_sub(u32::from(known.rows == most));
        }
        // Some part of a log that a limit cuts holds just as many.
        let is_limit = |rows: u64| capped == Some(rows) || self.suspected.is_some_and(|(cap, _)| cap == rows);
        if let Some(rows) = uncapped.filter(|rows| !is_limit(*rows)) {
            let place = self.trusted.iter().position(|known| known.rows == rows).unwrap_or(3);
            self.trusted[..=place].rotate_right(1);
            let tried = if self.trusted[0].rows == rows { self.trusted[0].tried + 1 } else { 1 };
            self.trusted[0] = NoLimit { rows, tried, left: if tried >= TRIED { TRUSTED } else { 0 } };
        }
        if let Some(known) = self.trusted.iter_mut().find(|known| Some(known.rows) == capped) {
            *known = NoLimit::default();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_limit_is_known_once_it_has_cut_often_enough_and_until_more_is_listed() {
        let mut caps = Caps::default();
        let mut saw = |most, capped| (caps.saw(most, capped, None), caps.known());
        assert_eq!([saw(100, Some(100)), saw(100, Some(100))], [(false, None); 2]);
        assert_eq!(saw(80, None), (false, None));
        assert_eq!([saw(100, Some(100)), saw(100, Some(100))], [(true, Some(100)), (false, Some(100))]);
        assert_eq!(saw(101, None), (true, None));
        // Each time another one, or one of which there was more: what came in while it was read.
        let others = [saw(100, Some(100)), saw(200, Some(200)), saw(200, Some(200)), saw(300, Some(200))];
        assert_eq!(others, [(false, None); 4]);
        assert_eq!(saw(200, Some(200)), (false, None));
    }

    #[test]
    fn the_most_that_was_listed_is_suspected_until_halves_list_no_more() {
        let mut caps = Caps::default();
        let saw = |caps: &mut Caps, most, uncapped| {
            caps.saw(most, None, uncapped);
            (caps.suspect(), caps.trusted()[0])
        };
        assert_eq!(saw(&mut caps, 9, None), (LEAST, 0), "fewer are no limit");
        assert_eq!([saw(&mut caps, 23, None), saw(&mut caps, 17, None)], [(23, 0); 2]);
        (1..TRIED).for_each(|_| assert_eq!(saw(&mut caps, 23, Some(23)), (23, 0), "by chance"));
        assert_eq!(saw(&mut caps, 23, Some(23)), (23, 23), "it is none");
        (0..TRUSTED).for_each(|_| assert_eq!(saw(&mut caps, 22, None), (23, 23)));
        (1..TRUSTED).for_each(|_| assert_eq!(saw(&mut caps, 23, None), (23, 23)));
        assert_eq!(saw(&mut caps, 23, None), (23, 0), "it may be one by now");
        assert_eq!(saw(&mut caps, 24, None), (24, 0));
        (0..TRIED).for_each(|_| _ = saw(&mut caps, 50, Some(50)));
        assert_eq!(saw(&mut caps, 23, Some(23)), (50, 23), "it is still known");
        assert_eq!(caps.trusted(), [23, 50, 0, 0]);
        caps.saw(50, Some(50), Some(50));
        caps.saw(50, None, Some(50));
        assert_eq!(caps.trusted(), [23, 0, 0, 0], "where there are more, some part holds just as many");
    }
}
