//! Admission: the difference between what a reading found and what was delivered.
//!
//! What a proven window lists is delivered, whatever time the record shows: nothing documents by which time an API goes,
//! so no other window need list it. That it is delivered once is the state's work: a record is looked up by its own
//! time, wherever that lies, and one without a usable time by its fingerprint alone.

use super::cursor::Cursor;
use crate::event::{Admitted, EventId, Fingerprint, FingerprintMap, Millis};
use crate::reading::Found;
use crate::window::Window;

/// How far before the bounds that list it a record's own time may lie for it to be remembered by that time. One that
/// lies further back is remembered by its fingerprint alone.
pub const MOST_SKEW: Millis = 3_600_000;

/// What an API may round its bounds by.
const ROUNDING: Millis = 1000;

/// How often each fingerprint was delivered.
#[derive(Debug, Clone, Default)]
pub struct Delivered {
    placed: FingerprintMap<u32>,
    /// With the end of the last window that is known to have listed it.
    unplaced: FingerprintMap<(u32, Millis)>,
}

impl Delivered {
    /// In all.
    #[must_use]
    pub fn count(&self, fingerprint: Fingerprint) -> u32 {
        // What is remembered by fingerprint counts all that were delivered, also those that are remembered by time.
        let unplaced = self.unplaced.get(&fingerprint).map_or(0, |(count, _)| *count);
        self.placed.get(&fingerprint).map_or(unplaced, |count| unplaced.max(*count))
    }

    /// So many more, remembered by their time.
    pub fn add_placed(&mut self, fingerprint: Fingerprint, more: u32) {
        *self.placed.entry(fingerprint).or_default() += more;
    }

    /// So many in all, remembered by their fingerprint alone.
    pub fn set_unplaced(&mut self, fingerprint: Fingerprint, count: u32, until: Millis) {
        self.unplaced.insert(fingerprint, (count, until));
    }

    /// How many are remembered by their fingerprint alone, and until when.
    #[must_use]
    pub fn unplaced(&self, fingerprint: Fingerprint) -> Option<(u32, Millis)> {
        self.unplaced.get(&fingerprint).copied()
    }

    /// Whether it is to be remembered by its time: once its like is remembered by fingerprint, all are.
    #[must_use]
    pub fn is_placed(&self, new: &New) -> bool {
        new.placed && !self.unplaced.contains_key(&new.fingerprint)
    }

    /// Takes note that `part` of `window` is delivered.
    pub fn add(&mut self, part: &[New], window: Window) {
        for new in part {
            if self.is_placed(new) {
                self.add_placed(new.fingerprint, 1);
            } else {
                let until = self.unplaced(new.fingerprint).map_or(window.to, |(_, until)| until.max(window.to));
                self.set_unplaced(new.fingerprint, self.count(new.fingerprint) + 1, until);
            }
        }
    }

    /// How many fingerprints it holds.
    #[must_use]
    pub fn len(&self) -> usize {
        self.placed.len() + self.unplaced.len()
    }

    /// Whether nothing was delivered.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

/// A record that is new, and what must be remembered once it is delivered.
#[derive(Debug, Clone)]
pub struct New {
    /// The record, with its id.
    pub admitted: Admitted,
    /// What it is counted under.
    pub fingerprint: Fingerprint,
    /// Whether it is counted by its time; otherwise by its fingerprint alone.
    pub placed: bool,
}

/// How far from the end of `window` on which they are filed records may lie by their own time that it lists, 0 where none
/// shows a time outside; and how many lie outside by more than rounding.
///
/// A record that shows a time before what was asked for is filed somewhere in the window, at its end at the latest; one
/// that shows a later time at its start at the earliest. So far back is remembered, or it would come again with the next
/// window, which lists that end once more.
#[must_use]
pub fn skew(window: Window, unit: Millis, found: &[Found]) -> (Millis, u64) {
    let (from, to) = (window.from - unit, window.to);
    let (mut most, mut outside) = (0, 0);
    for Found { time, raw, .. } in found {
        let Some(time) = *time else { continue };
        if time < from || time > to {
            most = most.max((to - time).max(time - from).min(MOST_SKEW));
        }
        if is_outside(window, unit, time) {
            outside += raw.len() as u64;
        }
    }
    (most, outside)
}

/// How a lane remembers what it has delivered.
#[derive(Debug, Clone, Copy)]
pub struct Memory {
    /// What a reading was asked for.
    pub window: Window,
    /// The source's clock unit.
    pub unit: Millis,
    /// How far back is remembered: see [`Known::reach`](super::known::Known::reach).
    pub skew: Millis,
}

impl Memory {
    /// Whether records may lie further back than is remembered by time.
    const fn is_capped(self) -> bool {
        self.skew >= MOST_SKEW
    }

    /// Whether a record of this time is remembered by its fingerprint alone.
    #[must_use]
    pub fn is_alone(self, time: Option<Millis>) -> bool {
        let Window { from, to } = self.window;
        let bound = if self.is_capped() { to } else { from };
        time.is_none_or(|time| time < bound - self.unit - MOST_SKEW)
    }

    /// Whether it may be remembered so from another window.
    #[must_use]
    pub fn may_be_alone(self, time: Option<Millis>) -> bool {
        self.is_capped() || self.is_alone(time) || self.is_before(time)
    }

    /// Whether a record of this time lies before what was asked for, by more than rounding.
    pub(super) fn is_before(self, time: Option<Millis>) -> bool {
        time.is_some_and(|time| time < self.window.from - self.unit - ROUNDING)
    }
}

/// Whether a record of this time lies outside what is asked for `window`, by more than rounding.
#[must_use]
pub const fn is_outside(window: Window, unit: Millis, time: Millis) -> bool {
    time < window.from - unit - ROUNDING || time > window.to + ROUNDING
}

/// For a fingerprint that was delivered `a` times and is now found `b` times, the ordinals `a..b`. A record is
/// late if its place had already been read completely, as `cursor` says: the place where the API files it, which is in
/// `window` where the record shows another. What the first window lists of the clock unit before the lane began was asked
/// for by nobody: windows are asked for with a unit more.
#[must_use]
pub fn admit(cursor: &Cursor, window: Window, found: &[Found], delivered: &Delivered, skew: Millis) -> Vec<New> {
    let stream = &cursor.stream;
    let unit = stream.source.clock_unit();
    let unasked = cursor.begun.filter(|begun| window.from == *begun).map(|begun| begun - unit..begun);
    let memory = Memory { window, unit, skew };
    let mut new = Vec::new();
    for &Found { fingerprint, time, ref raw } in found {
        if unasked.as_ref().zip(time).is_some_and(|(unasked, time)| unasked.contains(&time)) {
            continue;
        }
        let before = delivered.count(fingerprint);
        let inside = time.filter(|time| window.from - unit <= *time && *time <= window.to);
        let late = cursor.has_read(inside.unwrap_or(window.to - 1));
        let placed = !memory.is_alone(time);
        for (ordinal, raw) in (0u32..).zip(raw).skip(before as usize) {
            let id = EventId::new(stream, fingerprint, ordinal);
            let admitted = Admitted { id, ordinal, late, time: time.unwrap_or(window.from), raw: raw.clone() };
            new.push(New { admitted, fingerprint, placed });
        }
    }
    new
}
