//! An answer that lists nothing is a claim like any other: when it is doubted, and what makes it believed.
//!
//! Pure: no I/O, no clock. A window that holds nothing is believed at once only where its neighbourhood makes that
//! likely, and where it will be read again later. Whoever asks then asks the window again, at other times, and a
//! *witness* just before and after it: a window that is known to hold records. If the witness is empty as well, the API
//! does not tell the truth, and nothing that it says of that time counts.

use std::collections::VecDeque;
use std::time::Duration;

use crate::event::Millis;
use crate::window::Window;

/// The fewest expected rows at which an empty window is doubted: by chance it would be empty once in 20 times.
const DOUBTED: f64 = 3.0;
/// The same for an answer without any list, as a page of maintenance has none either.
const DOUBTED_BARE: f64 = 0.5;
/// A window with rows is doubted where so many were expected …
const SPARSE: f64 = 100.0;
/// … and fewer than this part came; more cautiously where no pass reads it again.
const SPARSE_SHARE: f64 = 1.0 / 16.0;
const LAST_SHARE: f64 = 1.0 / 2.0;
/// Readings remembered.
const REMEMBERED: usize = 16;
/// Witnesses remembered.
const WITNESSES: usize = 4;

/// How long to wait before each of the times that something is asked again, where nothing else tells: all must agree.
pub(super) const PATIENCE: &[Duration] = &[Duration::from_secs(1), Duration::from_secs(2), Duration::from_secs(4)];

/// What a window's reading is worth.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Worth {
    /// It is believed.
    Plain,
    /// It is believed if a witness tells the truth at the same time.
    WithWitness,
    /// It is asked again.
    Doubted,
}

/// What a witness said.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Witness {
    /// It lists records, as it must.
    True,
    /// It lists nothing where there were records.
    False,
    /// None is known: this API has not listed anything yet.
    Unknown,
}

/// What was read lately, and how often silence was true.
#[derive(Debug, Default)]
pub(super) struct Neighbourhood {
    recent: VecDeque<(Window, u64)>,
    witnesses: VecDeque<Window>,
    honest: u32,
    /// An API that has never listed anything was asked for long enough.
    empty: bool,
}

impl Neighbourhood {
    /// Takes note of a reading that is believed.
    pub(super) fn saw(&mut self, window: Window, rows: u64) {
        if self.recent.len() == REMEMBERED {
            self.recent.pop_front();
        }
        self.recent.push_back((window, rows));
        if rows > 0 {
            self.add_witness(window);
        }
    }

    /// A window that is known to hold records.
    pub(super) fn add_witness(&mut self, window: Window) {
        self.witnesses.retain(|known| *known != window);
        self.witnesses.push_front(window);
        self.witnesses.truncate(WITNESSES);
    }

    /// Windows that are known to hold records, the latest first.
    pub(super) fn witnesses(&self) -> Vec<Window> {
        self.witnesses.iter().copied().take(2).collect()
    }

    /// Rows to be expected, from the two nearest readings; `None` where nothing is known.
    pub(super) fn expected(&self, window: Window) -> Option<f64> {
        let distance = |other: Window| (other.from - window.to).max(window.from - other.to).max(0);
        let mut near: Vec<_> = self.recent.iter().filter(|(other, _)| *other != window).collect();
        near.sort_by_key(|(other, _)| distance(*other));
        near.truncate(2);
        let (length, rows) = near.iter().fold((0.0, 0.0), |(length, rows), (window, more)| {
            #[expect(clippy::cast_precision_loss, reason = "an estimate")]
            let sum = (length + window.len() as f64, rows + *more as f64);
            sum
        });
        #[expect(clippy::cast_precision_loss, reason = "an estimate")]
        let expected = rows / f64::max(length, 1.0) * window.len() as f64;
        (!near.is_empty()).then_some(expected)
    }

    /// What `rows` of `window` are worth. `bare`: an answer had no list at all; `last`: no pass reads it again.
    pub(super) fn worth(&self, window: Window, rows: u64, bare: bool, last: bool) -> Worth {
        let expected = self.expected(window).unwrap_or(0.0);
        #[expect(clippy::cast_precision_loss, reason = "an estimate")]
        let sparse = expected >= SPARSE && (rows as f64) < expected * if last { LAST_SHARE } else { SPARSE_SHARE };
        match rows {
            0 if expected >= if bare { DOUBTED_BARE } else { DOUBTED } => Worth::Doubted,
            0 if last || bare => Worth::WithWitness,
            _ if sparse => Worth::Doubted,
            _ => Worth::Plain,
        }
    }

    /// How long to wait before each of the times that a doubted window is asked again: all must agree. An API whose
    /// silences have turned out to be true again and again is asked less; a window that is read again later, too.
    pub(super) fn patience(&self, last: bool) -> &'static [Duration] {
        const SHORT: &[Duration] = &[Duration::from_millis(500), Duration::from_secs(1)];
        const NONE: &[Duration] = &[Duration::ZERO];
        match self.honest {
            0..3 if last => PATIENCE,
            0..10 => SHORT,
            _ => NONE,
        }
    }

    /// The same for an API that has never listed anything.
    pub(super) fn patience_with_nothing(&self) -> &'static [Duration] {
        if self.empty { &[] } else { PATIENCE }
    }

    /// A doubted silence was true.
    pub(super) fn was_honest(&mut self) {
        self.honest += 1;
    }

    /// One was not.
    pub(super) fn lied(&mut self) {
        self.honest = 0;
    }

    /// It seems that there is nothing at all; whether that is new.
    pub(super) const fn is_empty(&mut self) -> bool {
        !std::mem::replace(&mut self.empty, true)
    }

    /// For a lane to keep.
    pub(super) fn best_witness(&self) -> Option<(Millis, Millis)> {
        self.witnesses.front().map(|window| (window.from, window.to))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn window(from: i64, length: i64) -> Window {
        Window { from: from * 1000, to: (from + length) * 1000 }
    }

    proptest! {
        /// An empty window amid dense ones is never believed just so; and a true silence is doubted a few times only.
        #[test]
        fn silence_amid_plenty_is_doubted_and_then_believed(rows in 40u64..2000, length in 1i64..100, windows in 3i64..12) {
            let mut known = Neighbourhood::default();
            for n in 0..windows {
                prop_assert_ne!(known.worth(window(n * length, length), rows, false, true), Worth::Doubted);
                known.saw(window(n * length, length), rows);
            }
            let mut doubted = 0;
            for n in windows..windows + 50 {
                let silent = window(n * length, length);
                match known.worth(silent, 0, false, true) {
                    Worth::Doubted => doubted += 1,
                    worth => prop_assert_eq!(worth, Worth::WithWitness, "nobody reads it again"),
                }
                known.saw(silent, 0);
            }
            prop_assert!((1..=3).contains(&doubted), "{} of 50", doubted);
        }
    }

    #[test]
    fn patience_shrinks_with_true_silences_and_comes_back_with_a_lie() {
        let mut known = Neighbourhood::default();
        let sum = |known: &Neighbourhood| known.patience(true).iter().sum::<Duration>();
        assert_eq!(sum(&known), Duration::from_secs(7));
        (0..3).for_each(|_| known.was_honest());
        assert_eq!(sum(&known), Duration::from_millis(1500));
        (0..7).for_each(|_| known.was_honest());
        assert_eq!(sum(&known), Duration::ZERO);
        known.lied();
        assert_eq!(sum(&known), Duration::from_secs(7));
    }

    #[test]
    fn a_few_of_many_are_doubted() {
        let mut known = Neighbourhood::default();
        known.saw(window(0, 10), 800);
        assert_eq!(known.worth(window(10, 10), 20, false, true), Worth::Doubted);
        assert_eq!(known.worth(window(10, 10), 390, false, true), Worth::Doubted, "nobody reads it again");
        assert_eq!(known.worth(window(10, 10), 410, false, true), Worth::Plain);
        assert_eq!(known.worth(window(10, 10), 40, false, false), Worth::Doubted);
        assert_eq!(known.worth(window(10, 10), 60, false, false), Worth::Plain);
        assert_eq!(known.worth(window(10, 10), 0, false, false), Worth::Doubted);
        let quiet = Neighbourhood::default();
        assert_eq!(quiet.worth(window(0, 10), 0, false, false), Worth::Plain);
        assert_eq!(quiet.worth(window(0, 10), 0, true, false), Worth::WithWitness);
    }
}
