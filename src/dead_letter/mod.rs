//! Events that a sink refuses for good, kept with the reason, so that nothing vanishes (invariant 6).
//!
//! A dead letter is stored before, or in the same transaction as, the cursor that moves past its event. It holds all
//! that is needed to deliver the event again under the same id.

mod files;
#[cfg(test)]
mod tests;

use bytes::Bytes;
use serde::{Deserialize, Serialize};

pub use files::{At, DEFAULT_MAX_SIZE, Dealing, FilesError, LetterFiles};

use crate::event::{Admitted, EventId, Fingerprint, Millis, Source, StreamContext, StreamIdentity, timestamp};
use crate::state::admit::New;

/// Why a sink refuses an event for good: the closed set of values of the label `reason` of
/// `trailcast_dead_letters_total`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum DeadLetterReason {
    /// It is larger than the destination takes.
    TooLarge,
    /// The destination takes none such: its time lies too far away, or its content breaks a rule there.
    Invalid,
    /// The destination refuses it when it is alone, whatever the reason.
    Rejected,
    /// Its time lies too far back for the destination, or farther than `max_event_age`.
    TooOld,
    /// The destination says that it took it and threw it away.
    Dropped,
}

impl DeadLetterReason {
    /// Every value.
    pub const ALL: [Self; 5] = [Self::TooLarge, Self::Invalid, Self::Rejected, Self::TooOld, Self::Dropped];

    /// The label's value.
    #[must_use]
    pub const fn label(self) -> &'static str {
        match self {
            Self::TooLarge => "too_large",
            Self::Invalid => "invalid",
            Self::Rejected => "rejected",
            Self::TooOld => "too_old",
            Self::Dropped => "dropped",
        }
    }
}

/// A sink's answer for one event of a part: never, and why.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refused {
    /// The event's place in the part.
    pub index: usize,
    /// The class.
    pub reason: DeadLetterReason,
    /// Whether it was sent to the destination, or is known to be in vain.
    pub sent: bool,
    /// The destination's own words, or why it was not sent.
    pub message: String,
}

/// A dead letter, as it is stored: one JSON object.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DeadLetter {
    /// The event's id.
    pub id: EventId,
    /// Why.
    pub reason: DeadLetterReason,
    /// The destination's own words, or why it was not sent.
    pub message: String,
    /// Which sink refused it.
    pub sink: String,
    /// Which stream it came from.
    pub stream: String,
    /// Of which API.
    pub source: Source,
    /// Whose log.
    pub tenant: String,
    /// The event's time.
    pub time: jiff::Timestamp,
    /// Whether it was late.
    pub late: bool,
    /// Which of its twins it is.
    pub ordinal: u32,
    /// When it was refused, by this machine's clock.
    pub refused_at: jiff::Timestamp,
    /// The record's own text, or as much of its beginning as there was room for.
    pub record: String,
    /// The whole record's length in bytes; more than `record` has if it was cut.
    pub record_bytes: usize,
}

impl DeadLetter {
    /// Of an event that `sink` refused at `now`. Where its time is beyond what a calendar holds, the record's text still says
    /// what it said.
    #[must_use]
    pub fn new(stream: &StreamContext, sink: &str, new: &New, refused: &Refused, now: Millis) -> Self {
        let admitted = &new.admitted;
        Self {
            id: admitted.id,
            reason: refused.reason,
            message: refused.message.clone(),
            sink: sink.to_owned(),
            stream: stream.name.clone(),
            source: stream.identity.source,
            tenant: stream.identity.tenant.clone(),
            time: timestamp(admitted.time),
            late: admitted.late,
            ordinal: admitted.ordinal,
            refused_at: timestamp(now),
            record: String::from_utf8_lossy(&admitted.raw).into_owned(),
            record_bytes: admitted.raw.len(),
        }
    }

    /// What tells it from other dead letters in a topic: the same event refused once more is the same letter.
    #[must_use]
    pub fn key(&self) -> Vec<u8> {
        format!("{}/{}/{}", self.stream, self.sink, self.id).into_bytes()
    }

    /// Whether the record is whole, so that the event can be delivered again.
    #[must_use]
    pub const fn is_whole(&self) -> bool {
        self.record.len() == self.record_bytes
    }

    /// The event, to be delivered again under the same id.
    #[must_use]
    pub fn event(&self) -> (StreamContext, New) {
        let identity = StreamIdentity { source: self.source, tenant: self.tenant.clone() };
        let raw = Bytes::copy_from_slice(self.record.as_bytes());
        let time = self.time.as_millisecond();
        let admitted = Admitted { id: self.id, ordinal: self.ordinal, late: self.late, time, raw };
        // Nothing is remembered of it anew, so it needs no fingerprint.
        let new = New { admitted, fingerprint: Fingerprint([0; 16]), placed: true };
        (StreamContext { identity, name: self.stream.clone() }, new)
    }

    /// As one line of JSON, without its end.
    #[must_use]
    pub fn to_json(&self) -> Vec<u8> {
        serde_json::to_vec(self).expect("text, numbers and times are always JSON")
    }

    /// The same with the record cut so that the whole has at most `most` bytes, if that is possible at all.
    #[must_use]
    pub fn to_json_within(&self, most: usize) -> Vec<u8> {
        let mut json = self.to_json();
        let mut letter = self.clone();
        while json.len() > most && !letter.record.is_empty() {
            // A character may take up to six bytes in JSON, so what is cut is estimated and looked at again.
            let excess = (json.len() - most).div_ceil(6).max(letter.record.len() / 16);
            let keep = letter.record.len().saturating_sub(excess);
            let keep = (0..=keep).rev().find(|end| letter.record.is_char_boundary(*end)).unwrap_or(0);
            letter.record.truncate(keep);
            json = letter.to_json();
        }
        json
    }
}
