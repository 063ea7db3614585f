//! Windows of event time, how long the next one should be, and what time it is where they are read.
//!
//! Pure: no I/O, no clock.

use crate::event::Millis;

/// The half-open interval `[from, to)` of event time; both are multiples of the source's clock unit.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Window {
    /// The first instant inside.
    pub from: Millis,
    /// The first instant after.
    pub to: Millis,
}

impl Window {
    /// How long it is, in milliseconds.
    #[must_use]
    pub const fn len(self) -> Millis {
        self.to - self.from
    }

    /// Whether nothing lies inside.
    #[must_use]
    pub const fn is_empty(self) -> bool {
        self.to <= self.from
    }

    /// Whether `time` lies inside.
    #[must_use]
    pub const fn contains(self, time: Millis) -> bool {
        self.from <= time && time < self.to
    }

    /// The shortest that holds both.
    #[must_use]
    pub fn around(self, other: Self) -> Self {
        Self { from: self.from.min(other.from), to: self.to.max(other.to) }
    }

    /// Cuts into at most `parts` windows of about equal length, oldest first, at multiples of `unit`.
    #[must_use]
    pub fn split(self, parts: Millis, unit: Millis) -> Vec<Self> {
        let units = self.len() / unit;
        let parts = parts.clamp(1, units.max(1));
        (0..parts)
            .map(|part| Self {
                from: self.from + units * part / parts * unit,
                to: if part + 1 == parts { self.to } else { self.from + units * (part + 1) / parts * unit },
            })
            .collect()
    }
}

/// The server's now, as two bounds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Now {
    /// The lowest time that is credible: what was over by then was over when it was read.
    pub sure: Millis,
    /// The latest that is plausible: what there may be to read.
    pub latest: Millis,
    /// The latest that any answer claims, however rarely.
    pub claimed: Millis,
}

/// The largest multiple of `unit` that is not after `time`.
pub(crate) const fn floor_to(time: Millis, unit: Millis) -> Millis {
    time.div_euclid(unit) * unit
}

/// The length of the first window.
const FIRST: Millis = 5000;

/// The longest window ever asked for, so that a quiet stream's first busy hour is met early.
const LONGEST: Millis = 24 * 3_600_000;

/// Less than this part of what a window should hold is little.
const LITTLE: i64 = 8;

/// How much longer than the last one a window may be: density is known only where it was seen.
const GROWTH: Millis = 4;

/// Window length that follows the density seen, so that a window holds one comfortable batch.
#[derive(Debug, Clone)]
pub struct Density {
    unit: Millis,
    target_rows: u64,
    length: Millis,
}

impl Density {
    /// Begins with windows of a few seconds: so that even of a dense log the first events come out soon, and a quiet one
    /// has its long windows after a handful of calls.
    #[must_use]
    pub fn new(unit: Millis, target_rows: u64) -> Self {
        Self { unit, target_rows, length: FIRST.max(unit) }
    }

    /// The length of a window that should hold the target number of rows: a multiple of the clock unit, at least one.
    #[must_use]
    pub const fn comfortable(&self) -> Millis {
        self.length
    }

    /// From here on a window should hold `target_rows`.
    pub fn aim(&mut self, target_rows: u64) {
        let length = i128::from(self.length) * i128::from(target_rows.max(1)) / i128::from(self.target_rows.max(1));
        // The longer one is learnt again.
        let length = i64::try_from(length).unwrap_or(LONGEST).min(self.length);
        self.length = (length / self.unit * self.unit).max(self.unit);
        self.target_rows = target_rows.max(1);
    }

    /// Learns that `window` held `rows` or more, which was too many: the next one is shorter than either was.
    pub fn overflowed(&mut self, window: Window, rows: u64) {
        let before = self.length.min(window.len() / 2);
        self.saw(window, rows);
        self.length = (self.length.min(before) / self.unit * self.unit).max(self.unit);
    }

    /// Learns that `window` held `rows`. A window shorter than the present length that held little says nothing
    /// new, so it never shrinks the next one: the live pass reads such windows beside those of history.
    pub fn saw(&mut self, window: Window, rows: u64) {
        let target = i64::try_from(self.target_rows).unwrap_or(i64::MAX);
        let rows = i64::try_from(rows).unwrap_or(i64::MAX);
        let fitting = match rows {
            0 => window.len().saturating_mul(GROWTH),
            rows => i64::try_from(i128::from(window.len()) * i128::from(target) / i128::from(rows)).unwrap_or(LONGEST),
        };
        if window.len() < self.length && rows < target / LITTLE && fitting < self.length {
            return;
        }
        let longest = window.len().saturating_mul(GROWTH).max(self.length);
        let next = if fitting >= self.length { fitting.min(longest) } else { fitting };
        let next = next.clamp(self.unit, LONGEST);
        // Half-way towards what the last window suggests: a single burst does not make the next ten windows tiny.
        let blended = if next < self.length / 2 { next } else { i64::midpoint(self.length, next) };
        self.length = (blended / self.unit * self.unit).max(self.unit);
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_window_holds_its_beginning_and_not_its_end() {
        let window = Window { from: 10, to: 20 };
        assert_eq!([9, 10, 15, 19, 20].map(|time| window.contains(time)), [false, true, true, true, false]);
        let is_empty = |from, to| Window { from, to }.is_empty();
        assert_eq!((is_empty(10, 20), is_empty(10, 10), is_empty(20, 10)), (false, true, true));
    }

    #[test]
    fn a_split_ends_where_the_window_ends() {
        let cut = Window { from: 0, to: 2500 }.split(2, 1000);
        assert_eq!(cut, [Window { from: 0, to: 1000 }, Window { from: 1000, to: 2500 }]);
    }

    #[test]
    fn the_next_window_goes_by_what_the_last_one_held() {
        let next = |unit, held: u64| {
            let mut density = Density::new(unit, 1000);
            density.saw(Window { from: 0, to: 5000 }, held);
            density.comfortable()
        };
        assert_eq!((next(1, 0), next(1, 1)), (12_500, 12_500), "four times as long at most, half-way");
        let mut density = Density::new(1, 1000);
        (0..30).for_each(|_| density.saw(Window { from: 0, to: density.comfortable() }, 0));
        assert!((86_000_000..=86_400_000).contains(&density.comfortable()), "a day at most");
        assert_eq!((next(1, 1250), next(1000, 1250)), (4500, 4000), "half-way, a multiple of the unit");
        assert_eq!(
            (next(1, 2000), next(1, 2001), next(1, 4000)),
            (3750, 2498, 1250),
            "at once where it is less than half"
        );
    }

    #[test]
    fn windows_that_are_to_hold_less_are_shorter_at_once_and_longer_only_as_it_shows() {
        let mut density = Density::new(1000, 1000);
        density.aim(500);
        assert_eq!((density.comfortable(), density.target_rows), (2000, 500));
        density.aim(1000);
        assert_eq!((density.comfortable(), density.target_rows), (2000, 1000));
        density.aim(0);
        assert_eq!((density.comfortable(), density.target_rows), (1000, 1));
    }

    #[test]
    fn a_window_that_held_too_much_is_asked_for_in_halves() {
        let next = |to, unit| {
            let mut density = Density::new(unit, 1000);
            density.overflowed(Window { from: 0, to }, 1001);
            density.comfortable()
        };
        assert_eq!((next(5000, 1), next(5000, 1000), next(1000, 1000)), (2500, 2000, 1000));
    }

    proptest! {
        #[test]
        fn a_split_covers_the_window_in_order_without_overlap(
            from in -1_000_000i64..1_000_000, units in 1i64..5_000, parts in 1i64..200, unit in prop_oneof![Just(1i64), Just(1000)],
        ) {
            let window = Window { from: from * unit, to: (from + units) * unit };
            let cut = window.split(parts, unit);
            prop_assert_eq!(cut.len(), usize::try_from(parts.min(units)).unwrap());
            prop_assert_eq!(cut[0].from, window.from);
            prop_assert_eq!(cut[cut.len() - 1].to, window.to);
            prop_assert!(cut.windows(2).all(|pair| pair[0].to == pair[1].from));
            prop_assert!(cut.iter().all(|part| !part.is_empty() && part.from % unit == 0 && part.to % unit == 0));
        }

        #[test]
        fn windows_settle_near_the_target_at_any_density(per_second in 0.001f64..20_000.0) {
            let mut density = Density::new(1, 1000);
            let mut from = 0;
            let mut rows = 0;
            for _ in 0..40 {
                let window = Window { from, to: from + density.comfortable() };
                rows = ((window.len() as f64 * per_second / 1000.0) as i64).unsigned_abs();
                density.saw(window, rows);
                from = window.to;
            }
            prop_assert!(density.comfortable() == LONGEST || (500..=2000).contains(&rows), "{rows} rows in {}", density.comfortable());
        }
    }

    #[test]
    fn a_short_quiet_window_does_not_shrink_the_next() {
        let mut density = Density::new(1000, 1000);
        density.saw(Window { from: 0, to: 600_000 }, 1000);
        let before = density.comfortable();
        assert!(before > 200_000, "{before}");
        for rows in [0, 3, 124] {
            density.saw(Window { from: 0, to: 3000 }, rows);
            assert_eq!(density.comfortable(), before, "{rows}");
        }
        density.saw(Window { from: 0, to: 3000 }, 125);
        assert!(density.comfortable() < before);
    }
}
