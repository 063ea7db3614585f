//! Whether the API lists and counts only so many records of a query: see [`crate::reading::Reading::capped`].
//!
//! Until that is known, what a limit may have cut is read by halves; once it is, windows are asked for that hold less.

/// Readings in a row that a limit cut, always the same one, before it is known: what comes in while a window is read looks
/// like it once.
const SEEN: u32 = 3;

/// What readings have shown of it.
#[derive(Debug, Default)]
pub(super) struct Caps {
    suspected: Option<(u64, u32)>,
}

impl Caps {
    /// The most records that a query lists.
    pub(super) fn known(&self) -> Option<u64> {
        self.suspected.filter(|(_, seen)| *seen >= SEEN).map(|(cap, _)| cap)
    }

    /// A reading listed at most `most` records a run, and `capped` where a limit cut one. Whether what is known has changed.
    pub(super) fn saw(&mut self, most: u64, capped: Option<u64>) -> bool {
        let before = self.known();
        if self.suspected.is_some_and(|(cap, _)| most > cap) {
            self.suspected = None;
        }
        if let Some(cap) = capped.filter(|cap| *cap >= most) {
            let seen = self.suspected.filter(|(suspected, _)| *suspected == cap).map_or(0, |(_, seen)| seen);
            self.suspected = Some((cap, seen.saturating_add(1)));
        }
        before != self.known()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_limit_is_known_once_it_has_cut_often_enough_and_until_more_is_listed() {
        let mut caps = Caps::default();
        let mut saw = |most, capped| (caps.saw(most, capped), caps.known());
        assert_eq!([saw(100, Some(100)), saw(100, Some(100))], [(false, None); 2]);
        assert_eq!(saw(80, None), (false, None));
        assert_eq!([saw(100, Some(100)), saw(100, Some(100))], [(true, Some(100)), (false, Some(100))]);
        assert_eq!(saw(101, None), (true, None));
        // Each time another one, or one of which there was more: what came in while it was read.
        let others = [saw(100, Some(100)), saw(200, Some(200)), saw(200, Some(200)), saw(300, Some(200))];
        assert_eq!(others, [(false, None); 4]);
        assert_eq!(saw(200, Some(200)), (false, None));
    }
}
