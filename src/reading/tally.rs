//! The bounds: for each fingerprint the most times that any one page has shown it.

use std::collections::BTreeSet;

use bytes::Bytes;

use crate::event::{Fingerprint, FingerprintMap, Listed, Millis};
use crate::window::{Window, floor_to};

/// A fingerprint that a reading found, with one raw record for each time that it counts.
#[derive(Debug, Clone)]
pub struct Found {
    /// Over the identity fields.
    pub fingerprint: Fingerprint,
    /// The records' own time; `None` when it cannot be read.
    pub time: Option<Millis>,
    /// Whether that time places it in the window. One that does not (no time, or one that the API disagrees
    /// with) is known by its fingerprint alone, whichever window lists it.
    pub placed: bool,
    /// The records: all equal in their identity fields.
    pub raw: Vec<Bytes>,
}

#[derive(Debug)]
struct Entry {
    time: Option<Millis>,
    placed: bool,
    first: Bytes,
    /// The second and later ones; nearly always empty, which costs nothing.
    twins: Vec<Bytes>,
    /// The page that showed it last, counted over all runs, and how often that page did.
    page: u32,
    on_page: u32,
    /// The run that showed it last.
    run: u32,
}

impl Entry {
    fn bound(&self) -> u64 {
        1 + self.twins.len() as u64
    }
}

#[derive(Debug, Default)]
pub(super) struct Tally {
    entries: FingerprintMap<Entry>,
    pages: u32,
    runs: u32,
    bytes: u64,
}

/// What a record was to the tally.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Seen {
    /// Its first time in this run; `new` if in any.
    First { bound: u64, new: bool },
    /// Once more on the same page; `raised` if that raised the bound.
    Again { raised: bool },
    /// An earlier page of this run showed it.
    OnTwoPages,
}

impl Tally {
    pub(super) const fn begin_run(&mut self) -> u32 {
        self.runs += 1;
        self.runs
    }

    pub(super) const fn begin_page(&mut self) {
        self.pages += 1;
    }

    /// Takes a record off the present page of run `run`. `placed`: whether its own time agrees with the bounds
    /// that were asked for.
    pub(super) fn see(&mut self, run: u32, listed: Listed, placed: bool) -> Seen {
        use std::collections::hash_map::Entry::{Occupied, Vacant};
        let page = self.pages;
        let entry = match self.entries.entry(listed.fingerprint) {
            Vacant(place) => {
                self.bytes += listed.raw.len() as u64;
                let Listed { time, raw, .. } = listed;
                place.insert(Entry { time, placed, first: raw, twins: Vec::new(), page, on_page: 1, run });
                return Seen::First { bound: 1, new: true };
            }
            Occupied(entry) => entry.into_mut(),
        };
        let seen = if entry.page == page {
            entry.on_page += 1;
            let raised = u64::from(entry.on_page) > entry.bound();
            if raised {
                self.bytes += listed.raw.len() as u64;
                entry.twins.push(listed.raw);
            }
            return Seen::Again { raised };
        } else if entry.run == run {
            Seen::OnTwoPages
        } else {
            Seen::First { bound: entry.bound(), new: false }
        };
        entry.page = page;
        entry.on_page = 1;
        entry.run = run;
        seen
    }

    /// How long the records kept are together.
    pub(super) const fn bytes(&self) -> u64 {
        self.bytes
    }

    /// The bounds of all that lies in the clock units that begin at `units`.
    pub(super) fn rows_in(&self, units: &BTreeSet<Millis>, unit: Millis) -> u64 {
        let inside =
            |entry: &&Entry| entry.placed && entry.time.is_some_and(|time| units.contains(&floor_to(time, unit)));
        self.entries.values().filter(inside).map(Entry::bound).sum()
    }

    /// The bounds of all that run `run` listed, and of what earlier runs listed strictly between `bounds`.
    pub(super) fn rows_between(&self, run: u32, bounds: (Millis, Millis)) -> u64 {
        let inside = |entry: &&Entry| {
            entry.run == run
                || entry.placed && entry.time.is_some_and(|time| bounds.0 < time && time < bounds.1)
                || entry.placed && bounds.0 == bounds.1 && entry.time == Some(bounds.0)
        };
        self.entries.values().filter(inside).map(Entry::bound).sum()
    }

    /// Whether run `run` listed a record of `time`.
    pub(super) fn listed_at(&self, run: u32, time: Millis) -> bool {
        self.entries.values().any(|entry| entry.run == run && entry.time == Some(time))
    }

    /// Whether any run listed a record of `time`.
    pub(super) fn knows(&self, time: Millis) -> bool {
        self.entries.values().any(|entry| entry.time == Some(time))
    }

    pub(super) fn into_found(self, window: Window) -> Vec<Found> {
        let mut found: Vec<Found> = self
            .entries
            .into_iter()
            .filter(|(_, entry)| !entry.placed || entry.time.is_some_and(|time| window.contains(time)))
            .map(|(fingerprint, Entry { time, placed, first, twins, .. })| {
                let mut raw = Vec::with_capacity(1 + twins.len());
                raw.push(first);
                raw.extend(twins);
                Found { fingerprint, time, placed, raw }
            })
            .collect();
        found.sort_unstable_by_key(|found| (found.time, found.fingerprint));
        found
    }
}
