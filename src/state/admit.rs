//! Admission: the difference between what a reading found and what was delivered.

use crate::event::{Admitted, EventId, Fingerprint, FingerprintMap, Millis, StreamIdentity};
use crate::reading::Found;
use crate::window::Window;

/// How often each fingerprint was delivered.
pub type Delivered = FingerprintMap<u32>;

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

/// For a fingerprint that was delivered `a` times and is now found `b` times, the ordinals `a..b`. A record is
/// late if the live pass (at `live`) had already read its place completely.
#[must_use]
pub fn admit(
    stream: &StreamIdentity,
    window: Window,
    found: &[Found],
    delivered: &Delivered,
    live: Millis,
) -> Vec<New> {
    let mut new = Vec::new();
    for &Found { fingerprint, time, placed, ref raw } in found {
        let before = delivered.get(&fingerprint).copied().unwrap_or(0);
        let late = if placed { time.is_some_and(|time| time < live) } else { window.to <= live };
        for (ordinal, raw) in (0u32..).zip(raw).skip(before as usize) {
            let id = EventId::new(stream, fingerprint, ordinal);
            let admitted = Admitted { id, ordinal, late, time: time.unwrap_or(window.from), raw: raw.clone() };
            new.push(New { admitted, fingerprint, placed });
        }
    }
    new
}
