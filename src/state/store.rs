//! A lane's state as keys and values of a checkpoint.
//!
//! | key | value |
//! | --- | --- |
//! | `c` lane | the cursor, as JSON |
//! | `d` lane bucket commit | what that commit delivered of that bucket of event time: fingerprints and counts |
//! | `u` lane fingerprint | how often a record was delivered that has no usable time, and the end of the last window that listed it |
//!
//! A commit writes only what is new; the multiset of a bucket is the sum of its deltas.

use std::collections::BTreeMap;
use std::ops::Range;

use super::admit::{Delivered, Memory, New};
use super::cursor::Cursor;
use super::known::Known;
use super::schedule::Schedule;
use crate::event::{Fingerprint, Millis};
use crate::reading::Found;
use crate::window::{Window, floor_to};

/// The length of a bucket of event time. Short, so that a window loads little more than its own fingerprints.
const BUCKET: Millis = 10_000;

/// How long after it has left every pass's reach a record without a usable time is still remembered: longer than any
/// rounding of the API's bounds.
const UNPLACED_KEPT: Millis = 600_000;

/// How far the end of the last window that listed it may move before that is written down.
const UNPLACED_MOVED: Millis = UNPLACED_KEPT / 2;

/// The name of a lane's keys.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LaneKey {
    name: Vec<u8>,
}

/// What one commit changes. Applied in the order of the fields, so that a key that is put stands whatever
/// was deleted around it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Changes {
    /// Every key in these half-open ranges goes.
    pub delete_ranges: Vec<Range<Vec<u8>>>,
    /// These keys go; one that is not there is no error.
    pub deletes: Vec<Vec<u8>>,
    /// These keys get these values; of two puts to one key the later counts.
    pub puts: Vec<(Vec<u8>, Vec<u8>)>,
}

impl Changes {
    /// Whether a commit would change nothing.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.delete_ranges.is_empty() && self.deletes.is_empty() && self.puts.is_empty()
    }
}

/// What can be wrong with a stored value.
#[derive(Debug, thiserror::Error)]
pub enum StoredError {
    /// The cursor is no cursor.
    #[error("the stored cursor cannot be read: {0}")]
    Cursor(#[from] serde_json::Error),
    /// A delta is not made of fingerprints and counts.
    #[error("the stored state is damaged: a value of {0} bytes where entries of {ENTRY} were expected")]
    Delta(usize),
}

/// A fingerprint and a 16-bit count.
const ENTRY: usize = 18;

impl LaneKey {
    /// Of the lane that carries `stream` to `sink`. Neither name holds a NUL.
    #[must_use]
    pub fn new(stream: &str, sink: &str) -> Self {
        Self { name: [stream.as_bytes(), b"\0", sink.as_bytes(), b"\0"].concat() }
    }

    /// Where the cursor is.
    #[must_use]
    pub fn cursor(&self) -> Vec<u8> {
        [b"c", self.name.as_slice()].concat()
    }

    /// Where every cursor is.
    #[must_use]
    pub fn all_cursors() -> Range<Vec<u8>> {
        b"c".to_vec()..b"d".to_vec()
    }

    /// Stream and sink, out of a cursor's key.
    #[must_use]
    pub fn names(cursor_key: &[u8]) -> Option<(String, String)> {
        let mut names = cursor_key.strip_prefix(b"c")?.split(|&byte| byte == 0);
        let mut name = || String::from_utf8(names.next()?.to_vec()).ok();
        Some((name()?, name()?))
    }

    /// The stream, out of any of its keys.
    #[must_use]
    pub fn stream_of(key: &[u8]) -> Option<String> {
        let name = key.get(1..)?.split(|&byte| byte == 0).next()?;
        String::from_utf8(name.to_vec()).ok()
    }

    /// All that the lane keeps, but its cursor.
    #[must_use]
    pub fn remembered(&self) -> [Range<Vec<u8>>; 2] {
        [self.buckets(Millis::MIN / BUCKET, Millis::MAX / BUCKET), self.unplaced_all()]
    }

    /// Where the deltas are that a window may need.
    #[must_use]
    pub fn deltas(&self, window: Window) -> Range<Vec<u8>> {
        let (from, to) = buckets_of(window);
        self.buckets(from, to)
    }

    /// Where the deltas are that what `window` lists may need: the window's own, and those of the times that its records
    /// show. `found` is in order of time.
    #[must_use]
    pub fn deltas_of(&self, window: Window, found: &[Found]) -> Vec<Range<Vec<u8>>> {
        let (from, to) = buckets_of(window);
        let mut buckets = vec![(from, to)];
        for time in found.iter().filter_map(|found| found.time) {
            let bucket = time.div_euclid(BUCKET);
            let known = (from..to).contains(&bucket) || buckets.last().is_some_and(|(_, end)| bucket + 1 == *end);
            match buckets.last_mut() {
                _ if known => {}
                Some((_, end)) if bucket == *end => *end += 1,
                _ => buckets.push((bucket, bucket + 1)),
            }
        }
        buckets.sort_unstable();
        buckets.dedup();
        buckets.into_iter().map(|(from, to)| self.buckets(from, to)).collect()
    }

    /// Where a record without a usable time is counted.
    #[must_use]
    pub fn unplaced(&self, fingerprint: Fingerprint) -> Vec<u8> {
        [b"u", self.name.as_slice(), &fingerprint.0].concat()
    }

    fn unplaced_all(&self) -> Range<Vec<u8>> {
        let from = [b"u", self.name.as_slice()].concat();
        let mut to = from.clone();
        to.extend_from_slice(&[0xff; 17]);
        from..to
    }

    /// The interval of event time of a delta, out of its key.
    #[must_use]
    pub fn interval(delta: &[u8]) -> Option<Window> {
        let (_, numbers) = delta.split_last_chunk::<16>()?;
        let bucket = i64::from_be_bytes(*numbers.first_chunk()?) ^ i64::MIN;
        let from = bucket.checked_mul(BUCKET)?;
        Some(Window { from, to: from.checked_add(BUCKET)? })
    }

    /// The part of `window` whose deltas are of nothing else; empty if there is none.
    #[must_use]
    pub fn whole_intervals(window: Window) -> Window {
        let from = (window.from + BUCKET - 1).div_euclid(BUCKET) * BUCKET;
        Window { from, to: floor_to(window.to, BUCKET) }
    }

    fn buckets(&self, from: i64, to: i64) -> Range<Vec<u8>> {
        self.delta(from, None)..self.delta(to, None)
    }

    fn delta(&self, bucket: i64, commit: Option<u64>) -> Vec<u8> {
        let mut key = [b"d", self.name.as_slice()].concat();
        // The sign bit turned, so that bytes sort as the numbers do.
        key.extend_from_slice(&(bucket ^ i64::MIN).to_be_bytes());
        key.extend(commit.into_iter().flat_map(u64::to_be_bytes));
        key
    }
}

/// Adds a stored delta to what was delivered; how many events it is of.
///
/// # Errors
/// If the value is damaged.
pub fn add_delta(delivered: &mut Delivered, value: &[u8]) -> Result<u64, StoredError> {
    let entries = value.chunks_exact(ENTRY);
    if !entries.remainder().is_empty() {
        return Err(StoredError::Delta(value.len()));
    }
    let mut events = 0;
    for entry in entries {
        let (mut fingerprint, mut count) = ([0; 16], [0; 2]);
        fingerprint.copy_from_slice(&entry[..16]);
        count.copy_from_slice(&entry[16..]);
        let count = u16::from_be_bytes(count);
        delivered.add_placed(Fingerprint(fingerprint), u32::from(count));
        events += u64::from(count);
    }
    Ok(events)
}

/// Adds the stored count of a record without a usable time.
///
/// # Errors
/// If the value is damaged.
pub fn add_unplaced(delivered: &mut Delivered, fingerprint: Fingerprint, value: &[u8]) -> Result<(), StoredError> {
    let (count, until) = parse_unplaced(value)?;
    delivered.set_unplaced(fingerprint, count, until);
    Ok(())
}

fn parse_unplaced(value: &[u8]) -> Result<(u32, Millis), StoredError> {
    let (mut count, mut until) = ([0; 4], [0; 8]);
    if value.len() != 12 {
        return Err(StoredError::Delta(value.len()));
    }
    count.copy_from_slice(&value[..4]);
    until.copy_from_slice(&value[4..]);
    Ok((u32::from_be_bytes(count), Millis::from_be_bytes(until)))
}

/// Reads a stored cursor.
///
/// # Errors
/// If it is none.
pub fn parse_cursor(value: &[u8]) -> Result<Cursor, StoredError> {
    Ok(serde_json::from_slice(value)?)
}

/// A cursor as stored.
#[must_use]
pub fn write_cursor(cursor: &Cursor) -> Vec<u8> {
    serde_json::to_vec(cursor).expect("a cursor is numbers and names, which are always JSON")
}

/// The state change that becomes true once `part` is delivered: what to remember of it, the cursor, and, with the last
/// part of `window`, the marks that its reading at `read_at` moves and what need not be remembered any longer.
pub struct Commit {
    /// For the checkpoint.
    pub changes: Changes,
    /// The cursor once they are stored.
    pub cursor: Cursor,
}

/// A window's reading, as a commit needs it.
#[derive(Debug, Clone, Copy)]
pub struct ReadAt<'a> {
    /// What was read.
    pub window: Window,
    /// When, by the server's clock.
    pub read_at: Millis,
    /// The stream's schedule.
    pub schedule: &'a Schedule,
    /// What it found.
    pub found: &'a [Found],
    /// What is known of the API now.
    pub known: &'a Known,
}

/// See [`Commit`]. `delivered` is what was delivered before this part.
#[must_use]
pub fn commit(
    lane: &LaneKey,
    cursor: &Cursor,
    read: ReadAt<'_>,
    part: &[New],
    last: bool,
    delivered: &Delivered,
) -> Commit {
    let mut next = cursor.clone();
    next.commits += 1;
    next.known.clone_from(read.known);
    if last {
        next.advance(read.schedule, read.window, read.read_at);
    }
    if !read.found.is_empty() || next.known.witness.is_some() {
        next.hear(read.schedule, read.window);
    }
    let unit = read.schedule.unit;
    let (forgot, forgets) = (forgotten(cursor, unit), forgotten(&next, unit));
    let keep_from = next.floor() - margin(&next, unit);
    // A record that shows a time of which nothing is remembered any longer, and is listed all the same, may be listed again.
    let memory = Memory { window: read.window, unit, skew: next.known.reach() };
    let is_astray = |time: Option<Millis>| memory.is_before(time) && time.is_some_and(|time| time < keep_from);
    let is_over = |time: Millis| forgets.iter().any(|over| over.contains(time));
    let mut changes = Changes::default();
    let mut buckets: BTreeMap<i64, Vec<Fingerprint>> = BTreeMap::new();
    let mut unplaced: BTreeMap<Fingerprint, u32> = BTreeMap::new();
    for new in part {
        if !delivered.is_placed(new) || is_astray(Some(new.admitted.time)) {
            *unplaced.entry(new.fingerprint).or_default() += 1;
        } else if !is_over(new.admitted.time) {
            buckets.entry(new.admitted.time.div_euclid(BUCKET)).or_default().push(new.fingerprint);
        }
    }
    for (bucket, mut fingerprints) in buckets {
        fingerprints.sort_unstable();
        changes.puts.push((lane.delta(bucket, Some(next.commits)), write_delta(&fingerprints)));
    }
    for (fingerprint, more) in unplaced {
        let until = delivered.unplaced(fingerprint).map_or(read.window.to, |(_, until)| until.max(read.window.to));
        changes.puts.push((lane.unplaced(fingerprint), write_unplaced(delivered.count(fingerprint) + more, until)));
    }
    if last {
        // What is listed again is remembered for longer.
        for found in read.found.iter().filter(|found| memory.may_be_alone(found.time)) {
            let count = delivered.count(found.fingerprint);
            // So is what was remembered by its time, if that is about to be forgotten.
            let is_due = match delivered.unplaced(found.fingerprint) {
                Some((_, until)) => until + UNPLACED_MOVED < read.window.to,
                None => count > 0 && (memory.is_alone(found.time) || is_astray(found.time)),
            };
            if is_due && part.iter().all(|new| new.fingerprint != found.fingerprint) {
                changes.puts.push((lane.unplaced(found.fingerprint), write_unplaced(count, read.window.to)));
            }
        }
    }
    for Window { from, to } in without(forgets, &forgot) {
        let (from, to) = (from.div_euclid(BUCKET), to.div_euclid(BUCKET));
        if to > from {
            changes.delete_ranges.push(lane.buckets(from, to));
        }
    }
    changes.puts.push((lane.cursor(), write_cursor(&next)));
    Commit { changes, cursor: next }
}

/// No window that is still to be read lists anything older: each asks for one unit before its start, and no record was seen
/// to lie further than the skew before that.
fn margin(cursor: &Cursor, unit: Millis) -> Millis {
    unit + cursor.known.reach()
}

/// The event times of which nothing need be remembered, ascending: what every pass has read, but for what a backfill has still
/// to read. That may take days, and the other passes go on.
fn forgotten(cursor: &Cursor, unit: Millis) -> Vec<Window> {
    let margin = margin(cursor, unit);
    let end = cursor.passes_floor() - margin;
    let mut kept: Vec<Window> = cursor.history().collect();
    kept.sort_unstable_by_key(|rest| rest.from);
    let mut over = Vec::new();
    let mut from = Millis::MIN;
    for rest in kept {
        over.push(Window { from, to: end.min(rest.from - margin) });
        from = from.max(rest.to + margin + BUCKET);
    }
    over.push(Window { from, to: end });
    over.retain(|over| !over.is_empty());
    over
}

/// What of `windows` lies in none of `others`.
fn without(windows: Vec<Window>, others: &[Window]) -> Vec<Window> {
    let take_out = |windows: Vec<Window>, other: &Window| {
        let either = |window: Window| {
            let (before, after) = (window.to.min(other.from), window.from.max(other.to));
            [Window { to: before, ..window }, Window { from: after, ..window }]
        };
        windows.into_iter().flat_map(either).filter(|window| !window.is_empty()).collect()
    };
    others.iter().fold(windows, take_out)
}

fn write_unplaced(count: u32, until: Millis) -> Vec<u8> {
    [&count.to_be_bytes()[..], &until.to_be_bytes()].concat()
}

fn write_delta(sorted: &[Fingerprint]) -> Vec<u8> {
    let mut value = Vec::with_capacity(sorted.len() * ENTRY);
    for equal in sorted.chunk_by(|a, b| a == b) {
        for chunk in equal.chunks(usize::from(u16::MAX)) {
            value.extend_from_slice(&equal[0].0);
            value.extend_from_slice(&u16::try_from(chunk.len()).unwrap_or(u16::MAX).to_be_bytes());
        }
    }
    value
}

fn buckets_of(window: Window) -> (i64, i64) {
    (window.from.div_euclid(BUCKET), (window.to - 1).div_euclid(BUCKET) + 1)
}

/// Whether a stored count of a record without a usable time may be forgotten when the floor is at `floor`.
///
/// # Errors
/// If the value is damaged.
pub fn is_forgotten(value: &[u8], floor: Millis) -> Result<bool, StoredError> {
    Ok(parse_unplaced(value)?.1 + UNPLACED_KEPT < floor)
}

/// Where all counts of records without a usable time are, to look for forgotten ones, and how far the floor must move
/// before it is worth looking again.
#[must_use]
pub fn unplaced_to_forget(lane: &LaneKey, floor_before: Millis, floor: Millis) -> Option<Range<Vec<u8>>> {
    const EVERY: Millis = 3_600_000;
    (floor_to(floor_before, EVERY) < floor_to(floor, EVERY)).then(|| lane.unplaced_all())
}
