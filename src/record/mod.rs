//! Raw records as the APIs write them: typed, borrowed, tolerant of every field; and what identifies them.
//!
//! Pure: no I/O, no clock.

use crate::event::{Fingerprint, Millis, Source};

pub mod field;
pub mod genauth;
mod identity;
pub mod scloud;
pub mod time;

/// What a record's text says of itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Identity {
    /// Over the identity fields.
    pub fingerprint: Fingerprint,
    /// The record's own time, if it has one that can be read.
    pub time: Option<Millis>,
}

/// Reads what identifies the record in `raw`, one JSON value as the API wrote it. Never fails: text that is no
/// JSON object is identified by all of its bytes.
///
/// # Which fields
/// Those that the API documents and that describe the act itself:
///
/// | source | identity fields |
/// | --- | --- |
/// | GenAuth | `userId` `appId` `clientIp` `eventType` `eventDetail` `success` `userAgent` `timestamp` `requestId` |
/// | SCloud | `Region` `Api` `IsSuccess` `OperateTime` `UserName` `UserEmail` `RelatedResource[].ResourceId` `RemoteIP` `AccessKeyID` |
///
/// A list of what counts, not of what does not: the rest is looked up afresh at each read (names, pictures, counts,
/// places), or is a field that the vendor adds one day, and neither may make a known event look new. The price is
/// nil: records that differ only there are twins, and twins are counted, so that none is lost.
///
/// # What makes them equal
/// Members in any order, white space, the spelling of escapes, and another offset for the same instant make no difference.
/// Nor does it whether a server writes what is empty or leaves it out: a missing field, `null`, `""`, an empty list of
/// resources, and, in a record with a time, `false` for `success` and `IsSuccess`. The type makes one: `"1"` is not `1`. A
/// value of an undocumented type counts as its JSON text without the white space. Of a repeated member the last counts.
#[must_use]
pub fn identify(source: Source, raw: &str) -> Identity {
    identity::identify(source, raw)
}

/// What the fingerprint of a record is taken of.
#[cfg(any(test, fuzzing))]
pub(crate) fn canonical(source: Source, raw: &str) -> Vec<u8> {
    identity::canonical(source, raw)
}

#[cfg(test)]
mod tests;
