//! A lane's state as keys and values of a checkpoint.
//!
//! | key | value |
//! | --- | --- |
//! | `c` lane | the cursor, as JSON |
//! | `d` lane bucket commit | what that commit delivered of that bucket of event time: fingerprints and counts |
//! | `u` lane fingerprint | how often a record without a usable time was delivered, and the end of the last window that listed it |
//!
//! A commit writes only what is new; the multiset of a bucket is the sum of its deltas.

use std::collections::BTreeMap;
use std::ops::Range;

use super::admit::{Delivered, New};
use super::cursor::{Cursor, Schedule};
use crate::checkpoint::Changes;
use crate::event::{Fingerprint, Millis};
use crate::window::{Window, floor_to};

/// The length of a bucket of event time. Short, so that a window loads little more than its own fingerprints.
const BUCKET: Millis = 10_000;

/// How long after it has left every pass's reach a record without a usable time is still remembered: longer than any
/// rounding of the API's bounds.
const UNPLACED_KEPT: Millis = 600_000;

/// The name of a lane's keys.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LaneKey {
    name: Vec<u8>,
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
        self.buckets(window.from.div_euclid(BUCKET), (window.to - 1).div_euclid(BUCKET) + 1)
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

/// Adds a stored delta to what was delivered.
///
/// # Errors
/// If the value is damaged.
pub fn add_delta(delivered: &mut Delivered, value: &[u8]) -> Result<(), StoredError> {
    let entries = value.chunks_exact(ENTRY);
    if !entries.remainder().is_empty() {
        return Err(StoredError::Delta(value.len()));
    }
    for entry in entries {
        let (mut fingerprint, mut count) = ([0; 16], [0; 2]);
        fingerprint.copy_from_slice(&entry[..16]);
        count.copy_from_slice(&entry[16..]);
        *delivered.entry(Fingerprint(fingerprint)).or_default() += u32::from(u16::from_be_bytes(count));
    }
    Ok(())
}

/// Adds the stored count of a record without a usable time.
///
/// # Errors
/// If the value is damaged.
pub fn add_unplaced(delivered: &mut Delivered, fingerprint: Fingerprint, value: &[u8]) -> Result<(), StoredError> {
    let (count, _) = parse_unplaced(value)?;
    delivered.insert(fingerprint, count);
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
    if last {
        next.advance(read.schedule, read.window, read.read_at);
    }
    let floor = next.floor();
    let mut changes = Changes::default();
    let mut buckets: BTreeMap<i64, Vec<Fingerprint>> = BTreeMap::new();
    let mut unplaced: BTreeMap<Fingerprint, u32> = BTreeMap::new();
    for new in part {
        if !new.placed {
            *unplaced.entry(new.fingerprint).or_default() += 1;
        } else if new.admitted.time >= floor {
            buckets.entry(new.admitted.time.div_euclid(BUCKET)).or_default().push(new.fingerprint);
        }
    }
    for (bucket, mut fingerprints) in buckets {
        fingerprints.sort_unstable();
        changes.puts.push((lane.delta(bucket, Some(next.commits)), write_delta(&fingerprints)));
    }
    for (fingerprint, more) in unplaced {
        let count = delivered.get(&fingerprint).copied().unwrap_or(0) + more;
        let value = [&count.to_be_bytes()[..], &read.window.to.to_be_bytes()].concat();
        changes.puts.push((lane.unplaced(fingerprint), value));
    }
    let (kept_from, keep_from) = (cursor.floor().div_euclid(BUCKET), floor.div_euclid(BUCKET));
    if keep_from > kept_from {
        changes.delete_ranges.push(lane.buckets(kept_from, keep_from));
    }
    changes.puts.push((lane.cursor(), write_cursor(&next)));
    Commit { changes, cursor: next }
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
