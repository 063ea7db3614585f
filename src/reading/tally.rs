//! The bounds: for each fingerprint the most times that any one page has shown it.

use bytes::Bytes;

use crate::event::{Fingerprint, FingerprintMap, Listed, Millis};
use crate::memory::Hold;
use crate::window::Window;

/// A fingerprint that a reading found, with one raw record for each time that it counts.
#[derive(Debug, Clone)]
pub struct Found {
    /// Over the identity fields.
    pub fingerprint: Fingerprint,
    /// The records' own time; `None` when it cannot be read. It need not lie in the window: see [`super`].
    pub time: Option<Millis>,
    /// The records: all equal in their identity fields.
    pub raw: Vec<Bytes>,
}

/// Which of a window's records a reading keeps: all, or those whose fingerprints fall into one of several parts, where all
/// together are more than memory may hold. All are counted in any case.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Shard {
    /// From 0.
    pub index: u32,
    /// How many parts there are.
    pub of: u32,
}

impl Shard {
    /// The only part of one.
    pub const WHOLE: Self = Self { index: 0, of: 1 };

    /// The part after this one.
    #[must_use]
    pub fn next(self) -> Option<Self> {
        (self.index + 1 < self.of).then_some(Self { index: self.index + 1, ..self })
    }

    fn keeps(self, fingerprint: Fingerprint) -> bool {
        // Bytes that the map's own hash does not use.
        let [.., high, low, _, _, _, _, _, _, _, _] = fingerprint.0;
        u32::from(u16::from_be_bytes([high, low])) % self.of == self.index
    }
}

#[derive(Debug)]
struct Entry {
    time: Option<Millis>,
    /// Whether its records are kept; otherwise they are empty.
    kept: bool,
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

    /// Of the records that `page` lists with this fingerprint, one whose text is not kept yet as often as it stands
    /// there. The page lists more of them than are kept, so there is one.
    fn not_kept(&self, fingerprint: Fingerprint, page: &[Listed]) -> Option<Bytes> {
        let mut kept: Vec<&Bytes> = std::iter::once(&self.first).chain(&self.twins).collect();
        let mut same = page.iter().filter(|listed| listed.fingerprint == fingerprint);
        let new = same.find(|listed| match kept.iter().position(|kept| **kept == listed.raw) {
            Some(place) => {
                kept.swap_remove(place);
                false
            }
            None => true,
        });
        new.map(|listed| listed.raw.clone())
    }
}

#[derive(Debug, Default)]
pub(super) struct Tally {
    entries: FingerprintMap<Entry>,
    pages: u32,
    /// What each run asked for, lower and upper bound.
    runs: Vec<(Millis, Millis)>,
    rows: u64,
    /// What was copied out of the present page, where only a part is kept.
    copied: u64,
    held: Hold,
    shard: Option<Shard>,
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
    pub(super) fn new(shard: Shard) -> Self {
        Self { shard: (shard.of > 1).then_some(shard), ..Self::default() }
    }

    pub(super) fn begin_run(&mut self, bounds: (Millis, Millis)) -> u32 {
        self.runs.push(bounds);
        u32::try_from(self.runs.len()).unwrap_or(u32::MAX)
    }

    pub(super) const fn begin_page(&mut self) {
        self.pages += 1;
    }

    /// Takes the record at `place` of the present page of run `run`.
    pub(super) fn see(&mut self, run: u32, records: &[Listed], place: usize) -> Seen {
        use std::collections::hash_map::Entry::{Occupied, Vacant};
        let page = self.pages;
        let Listed { fingerprint, time, ref raw } = records[place];
        let entry = match self.entries.entry(fingerprint) {
            Vacant(vacant) => {
                self.rows += 1;
                let kept = self.shard.is_none_or(|shard| shard.keeps(fingerprint));
                let first = match self.shard {
                    None => raw.clone(),
                    // One that is kept must not keep its page.
                    Some(_) if kept => Bytes::copy_from_slice(raw),
                    Some(_) => Bytes::new(),
                };
                self.copied += if self.shard.is_some() { first.len() as u64 } else { 0 };
                vacant.insert(Entry { time, kept, first, twins: Vec::new(), page, on_page: 1, run });
                return Seen::First { bound: 1, new: true };
            }
            Occupied(entry) => entry.into_mut(),
        };
        let seen = if entry.page == page {
            entry.on_page += 1;
            let raised = u64::from(entry.on_page) > entry.bound();
            if raised {
                self.rows += 1;
                let new = if entry.kept { entry.not_kept(fingerprint, &records[..=place]) } else { Some(Bytes::new()) };
                let new = new.unwrap_or_else(|| raw.clone());
                if self.shard.is_some() {
                    self.copied += new.len() as u64;
                    entry.twins.push(Bytes::copy_from_slice(&new));
                } else {
                    entry.twins.push(new);
                }
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

    /// Something of the present page is kept, and so is all that its records hold; of a part, what was copied.
    pub(super) fn keep(&mut self, mut held: Hold) {
        let copied = std::mem::take(&mut self.copied);
        if self.shard.is_some() {
            held.resize(copied);
        }
        self.held.add(held);
    }

    /// How many bytes are kept.
    pub(super) const fn bytes(&self) -> u64 {
        self.held.bytes()
    }

    /// What is kept, to go with what was found.
    pub(super) fn take_held(&mut self) -> Hold {
        std::mem::take(&mut self.held)
    }

    /// The sum of all bounds.
    pub(super) const fn rows(&self) -> u64 {
        self.rows
    }

    /// The bounds of all that was listed by run `run`, or last by a run that asked for nothing beyond `bounds`. Not what
    /// lies there by its own time: the API may go by another.
    pub(super) fn rows_within(&self, run: u32, bounds: (Millis, Millis)) -> u64 {
        let inside = |entry: &&Entry| {
            entry.run == run || {
                let (from, to) = self.runs[entry.run as usize - 1];
                bounds.0 <= from && to <= bounds.1
            }
        };
        self.entries.values().filter(inside).map(Entry::bound).sum()
    }

    /// Whether run `run` listed a record of `time`.
    pub(super) fn listed_at(&self, run: u32, time: Millis) -> bool {
        self.entries.values().any(|entry| entry.run == run && entry.time == Some(time))
    }

    /// Whether a later run than `run` listed the record.
    pub(super) fn listed_since(&self, run: u32, fingerprint: Fingerprint) -> bool {
        self.entries.get(&fingerprint).is_some_and(|entry| entry.run > run)
    }

    /// Whether any run listed a record of a time in `window`.
    pub(super) fn holds(&self, window: Window) -> bool {
        self.entries.values().any(|entry| entry.time.is_some_and(|time| window.contains(time)))
    }

    /// Whether any run listed a record of `time`.
    pub(super) fn knows(&self, time: Millis) -> bool {
        self.entries.values().any(|entry| entry.time == Some(time))
    }

    pub(super) fn into_found(self) -> Vec<Found> {
        let mut found: Vec<Found> = self
            .entries
            .into_iter()
            .filter(|(_, entry)| entry.kept)
            .map(|(fingerprint, Entry { time, first, twins, .. })| {
                let mut raw = Vec::with_capacity(1 + twins.len());
                raw.push(first);
                raw.extend(twins);
                Found { fingerprint, time, raw }
            })
            .collect();
        found.sort_unstable_by_key(|found| (found.time, found.fingerprint));
        found
    }
}
