//! The data that flows: fingerprints, listed records, stream identities, admitted records and their ids.
//!
//! Pure: no I/O, no clock. Everything an id is made of is here, and an id never changes between versions
//! (`tests` hold golden values).

use std::collections::HashMap;
use std::fmt;
use std::hash::{BuildHasherDefault, Hasher};

use bytes::Bytes;
use serde::{Deserialize, Serialize};

/// Milliseconds since the Unix epoch: the one time unit inside trailcast. A source whose clock has whole
/// seconds has multiples of 1000.
pub type Millis = i64;

/// A time as a calendar has it; one beyond what a calendar holds becomes the epoch.
#[must_use]
pub fn timestamp(time: Millis) -> jiff::Timestamp {
    jiff::Timestamp::from_millisecond(time).unwrap_or_default()
}

/// An API that trailcast can read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Source {
    /// GenAuth (Authing) user action logs.
    Genauth,
    /// SCloud (UCloud family) user operation events.
    Scloud,
}

impl Source {
    /// The name used in config, metrics, ids and events.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Genauth => "genauth",
            Self::Scloud => "scloud",
        }
    }

    /// One unit of the source's clock, in milliseconds: the finest difference between two record times and
    /// the finest bound that the API takes.
    #[must_use]
    pub const fn clock_unit(self) -> Millis {
        match self {
            Self::Genauth => 1,
            Self::Scloud => 1000,
        }
    }
}

impl fmt::Display for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// What a stream reads, wherever and under whatever local name: part of every event id (invariant 3).
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct StreamIdentity {
    /// The API.
    pub source: Source,
    /// Whose log: the user pool (GenAuth) or the project (SCloud).
    pub tenant: String,
}

/// A stream as its events name it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StreamContext {
    /// What it reads.
    pub identity: StreamIdentity,
    /// Its name in the config: a label, no part of any id.
    pub name: String,
}

/// 128 bits of a BLAKE3 hash over a record's identity fields: equal for equal acts, whatever the API looked
/// up afresh for this read.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Fingerprint(pub [u8; 16]);

impl fmt::Debug for Fingerprint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Fingerprint({})", Hex(&self.0))
    }
}

/// A map by fingerprint. A fingerprint is a hash already, so part of it serves as its hash.
///
/// Whoever writes records can look for some whose parts are equal; a map holds no more than a window's records, so
/// all they would gain is milliseconds.
pub type FingerprintMap<V> = HashMap<Fingerprint, V, BuildHasherDefault<FingerprintHasher>>;

/// See [`FingerprintMap`].
#[derive(Debug, Default)]
pub struct FingerprintHasher(u64);

impl Hasher for FingerprintHasher {
    fn write(&mut self, bytes: &[u8]) {
        // The fingerprint comes last, after its length.
        if let Some(part) = bytes.last_chunk() {
            self.0 = u64::from_le_bytes(*part);
        }
    }

    fn finish(&self) -> u64 {
        self.0
    }
}

/// An event's id: 32 lower-case hex characters when shown. The same record has the same id in every lane,
/// run, machine and version.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct EventId(pub [u8; 16]);

impl EventId {
    /// The id of the `ordinal`-th (from 0) of the records with this fingerprint in this stream.
    #[must_use]
    pub fn new(stream: &StreamIdentity, fingerprint: Fingerprint, ordinal: u32) -> Self {
        let mut hasher = blake3::Hasher::new();
        // Each part is delimited, so that no two different triples hash the same bytes.
        hasher.update(b"trailcast/event/1\0");
        hasher.update(stream.source.name().as_bytes());
        hasher.update(b"\0");
        hasher.update(&(stream.tenant.len() as u64).to_be_bytes());
        hasher.update(stream.tenant.as_bytes());
        hasher.update(&fingerprint.0);
        hasher.update(&ordinal.to_be_bytes());
        let mut id = [0; 16];
        id.copy_from_slice(&hasher.finalize().as_bytes()[..16]);
        Self(id)
    }
}

impl fmt::Display for EventId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        Hex(&self.0).fmt(f)
    }
}

impl Serialize for EventId {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for EventId {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        let mut id = [0; 16];
        let is_hex = text.len() == 32 && text.bytes().all(|byte| byte.is_ascii_hexdigit());
        for (byte, pair) in id.iter_mut().zip(text.as_bytes().chunks(2)).take(if is_hex { 16 } else { 0 }) {
            *byte = std::str::from_utf8(pair)
                .ok()
                .and_then(|pair| u8::from_str_radix(pair, 16).ok())
                .ok_or_else(|| serde::de::Error::custom("not hexadecimal"))?;
        }
        if is_hex { Ok(Self(id)) } else { Err(serde::de::Error::custom("an event's id has 32 hexadecimal digits")) }
    }
}

impl fmt::Debug for EventId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "EventId({self})")
    }
}

struct Hex<'a>(&'a [u8; 16]);

impl fmt::Display for Hex<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        const DIGITS: &[u8; 16] = b"0123456789abcdef";
        let mut text = [0; 32];
        for (pair, byte) in text.chunks_exact_mut(2).zip(self.0) {
            pair[0] = DIGITS[usize::from(byte >> 4)];
            pair[1] = DIGITS[usize::from(byte & 15)];
        }
        f.write_str(std::str::from_utf8(&text).map_err(|_| fmt::Error)?)
    }
}

/// A record as a page listed it, with what reading and admitting need to know of it.
#[derive(Debug, Clone)]
pub struct Listed {
    /// Over the identity fields.
    pub fingerprint: Fingerprint,
    /// The record's own time; `None` when it has none that can be read.
    pub time: Option<Millis>,
    /// The record's own JSON text, untouched: a slice of its page's body.
    pub raw: Bytes,
}

/// A record that is new to a lane, about to become an event.
#[derive(Debug, Clone)]
pub struct Admitted {
    /// From content: see [`EventId::new`].
    pub id: EventId,
    /// Which of its twins it is, from 0.
    pub ordinal: u32,
    /// Whether its window had already been read completely without it.
    pub late: bool,
    /// The record's own time, or, for one that has none, the start of the window that it came from.
    pub time: Millis,
    /// The record's own JSON text, untouched.
    pub raw: Bytes,
}

#[cfg(test)]
mod tests {
    use super::*;

    fn id(source: Source, tenant: &str, fingerprint: [u8; 16], ordinal: u32) -> String {
        let stream = StreamIdentity { source, tenant: tenant.to_owned() };
        EventId::new(&stream, Fingerprint(fingerprint), ordinal).to_string()
    }

    #[test]
    fn what_no_calendar_holds_is_the_epoch() {
        let shown = |time| timestamp(time).to_string();
        assert_eq!(
            (shown(1_500), shown(Millis::MAX)),
            ("1970-01-01T00:00:01.5Z".into(), "1970-01-01T00:00:00Z".into())
        );
    }

    /// An id that changes is an event delivered twice.
    #[test]
    fn golden_ids_never_change() {
        for (source, tenant, fingerprint, ordinal, golden) in [
            (Source::Genauth, "pool", [0; 16], 0, "1762b0d578c14aa45c3d36d5fb55a711"),
            (Source::Genauth, "pool", [0; 16], 1, "59dfcb8e8be4453e8aa63f30ed5a020a"),
            (Source::Genauth, "", [0xff; 16], u32::MAX, "ac8fcd8394e797b2b843770cb1794663"),
            (Source::Scloud, "pool", [0; 16], 0, "d3f71360f95543502155bb686c949eb4"),
        ] {
            assert_eq!(id(source, tenant, fingerprint, ordinal), golden, "{source} {tenant:?} {ordinal}");
        }
    }

    #[test]
    fn every_part_of_an_id_counts() {
        let mut ids = vec![
            id(Source::Genauth, "a", [1; 16], 0),
            id(Source::Scloud, "a", [1; 16], 0),
            id(Source::Genauth, "b", [1; 16], 0),
            id(Source::Genauth, "a", [2; 16], 0),
            id(Source::Genauth, "a", [1; 16], 1),
            id(Source::Genauth, "a\u{1}", [1; 16], 0),
        ];
        assert!(ids.iter().all(|id| id.len() == 32 && id.bytes().all(|c| matches!(c, b'0'..=b'9' | b'a'..=b'f'))));
        ids.sort();
        ids.dedup();
        assert_eq!(ids.len(), 6);
    }

    #[test]
    fn ids_are_read_as_they_are_written_and_nothing_else_is() {
        let stream = StreamIdentity { source: Source::Scloud, tenant: "t".to_owned() };
        let id = EventId::new(&stream, Fingerprint([7; 16]), 3);
        let text = serde_json::to_string(&id).unwrap();
        assert_eq!(serde_json::from_str::<EventId>(&text).unwrap(), id);
        assert_eq!((format!("{id:?}"), text), (format!("EventId({id})"), format!("\"{id}\"")));
        for wrong in ["\"\"".to_owned(), format!("\"{id}0\""), format!("\"{}\"", &id.to_string()[..31]), "7".to_owned()]
        {
            assert!(serde_json::from_str::<EventId>(&wrong).is_err(), "{wrong}");
        }
        let no_hex = format!("\"{}g\"", &id.to_string()[..31]);
        assert!(serde_json::from_str::<EventId>(&no_hex).is_err());
        assert_eq!(
            (Source::Genauth.to_string(), Source::Scloud.to_string()),
            ("genauth".to_owned(), "scloud".to_owned())
        );
    }

    #[test]
    fn fingerprints_fall_into_different_places() {
        use std::hash::{BuildHasher, BuildHasherDefault};
        let place = |last: u8| {
            let mut fingerprint = [0; 16];
            fingerprint[15] = last;
            BuildHasherDefault::<FingerprintHasher>::default().hash_one(Fingerprint(fingerprint))
        };
        let places: std::collections::BTreeSet<u64> = (0..=255).map(place).collect();
        assert_eq!(places.len(), 256);
        assert!(format!("{:?}", Fingerprint([0xab; 16])).contains("abab"));
    }
}
