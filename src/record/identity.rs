//! The bytes that a fingerprint is taken of.
//!
//! A frozen format: every event id ever delivered depends on it. What changes here changes [`VERSION`], and makes
//! every event within the reach of the sweeps new once more. Once it was changed for a few records alone: those with an empty
//! text, or with a time and no flag, are what the same records are that leave the text out, or say `false`.

use super::field::{Field, Value, parse};
use super::genauth::UserAction;
use super::scloud::{Operation, Resource};
use crate::event::{Fingerprint, Millis, Source};

/// Comes first, so that no other version's bytes can be equal.
const VERSION: &[u8] = b"trailcast/record/1\0";

/// What a part of the canonical form is; the byte before it.
#[derive(Clone, Copy)]
enum Tag {
    /// Nothing follows: missing, `null` or an empty text.
    Absent = 0,
    /// A string, decoded.
    Text = 1,
    /// Any other JSON value's text, without insignificant white space.
    Json = 2,
    /// An instant: milliseconds, big-endian.
    Instant = 3,
    /// A list: its elements' canonical forms, sorted.
    List = 4,
    /// A text that is not a record: all of it.
    Opaque = 5,
}

/// A record's identity fields in one fixed order, each tagged and delimited, so that different records never have
/// equal bytes.
struct Canonical(Vec<u8>);

impl Canonical {
    /// Room for all that a usual record's identity fields hold.
    const USUAL: usize = 768;

    fn new(source: Source) -> Self {
        let mut bytes = Vec::with_capacity(Self::USUAL);
        bytes.extend_from_slice(VERSION);
        bytes.extend_from_slice(source.name().as_bytes());
        bytes.push(0);
        Self(bytes)
    }

    fn fingerprint(&self) -> Fingerprint {
        let mut fingerprint = [0; 16];
        fingerprint.copy_from_slice(&blake3::hash(&self.0).as_bytes()[..16]);
        Fingerprint(fingerprint)
    }

    fn opaque(&mut self, text: &str) {
        part(&mut self.0, Tag::Opaque, text.as_bytes());
    }

    fn user_action(&mut self, record: &UserAction<'_>, time: Option<Millis>) {
        self.field(record.user_id);
        self.field(record.app_id);
        self.field(record.client_ip);
        self.field(record.event_type);
        self.field(record.event_detail);
        self.flag(record.success, time);
        self.field(record.user_agent);
        self.time(record.timestamp, time);
        self.field(record.request_id);
    }

    fn operation(&mut self, record: &Operation<'_>, time: Option<Millis>) {
        self.field(record.region);
        self.field(record.api);
        self.flag(record.is_success, time);
        self.time(record.operate_time, time);
        self.field(record.user_name);
        self.field(record.user_email);
        self.resources(record.related_resource);
        self.field(record.remote_ip);
        self.field(record.access_key_id);
    }

    fn field(&mut self, field: Field<'_>) {
        push(&mut self.0, field);
    }

    /// A server that leaves out what is empty leaves out `false`: where a record is one, as its time shows, a flag that is
    /// missing is not set.
    fn flag(&mut self, field: Field<'_>, time: Option<Millis>) {
        if time.is_some() && is_empty(field) {
            part(&mut self.0, Tag::Json, b"false");
        } else {
            self.field(field);
        }
    }

    /// The instant, however it was written; the field itself where it is none.
    fn time(&mut self, field: Field<'_>, time: Option<Millis>) {
        match time {
            Some(time) => part(&mut self.0, Tag::Instant, &time.to_be_bytes()),
            None => self.field(field),
        }
    }

    /// The resources' ids in no order: nothing says that the API lists them in one. A list of none is absent, as
    /// it may be for the API.
    fn resources(&mut self, field: Field<'_>) {
        let Some(elements) = field.array() else { return self.field(field) };
        let mut parts: Vec<Vec<u8>> = elements
            .into_iter()
            .map(|element| {
                let mut bytes = Vec::new();
                push(&mut bytes, element.object().map_or(element, |resource: Resource<'_>| resource.id));
                bytes
            })
            .collect();
        if parts.is_empty() {
            return self.field(Field::default());
        }
        parts.sort_unstable();
        part(&mut self.0, Tag::List, &parts.concat());
    }
}

/// Missing, `null`, or an empty text: servers that leave out what is empty (Go's `omitempty`), and those that write it, may
/// stand behind one address.
fn is_empty(field: Field<'_>) -> bool {
    match field.value() {
        Value::Absent => true,
        Value::Text(text) => text.is_empty(),
        Value::Json(_) => false,
    }
}

fn push(out: &mut Vec<u8>, field: Field<'_>) {
    match field.value() {
        Value::Absent => out.push(Tag::Absent as u8),
        Value::Text(text) if text.is_empty() => out.push(Tag::Absent as u8),
        Value::Text(text) => part(out, Tag::Text, text.as_bytes()),
        Value::Json(json) => part(out, Tag::Json, &compact(json)),
    }
}

fn part(out: &mut Vec<u8>, tag: Tag, bytes: &[u8]) {
    out.push(tag as u8);
    out.extend_from_slice(&(bytes.len() as u64).to_be_bytes());
    out.extend_from_slice(bytes);
}

/// Valid JSON without the white space between its tokens.
fn compact(json: &str) -> Vec<u8> {
    let mut compacted = Vec::with_capacity(json.len());
    let (mut in_string, mut escaped) = (false, false);
    for &byte in json.as_bytes() {
        if in_string {
            in_string = escaped || byte != b'"';
            escaped = !escaped && byte == b'\\';
        } else if matches!(byte, b' ' | b'\t' | b'\n' | b'\r') {
            continue;
        } else {
            in_string = byte == b'"';
        }
        compacted.push(byte);
    }
    compacted
}

/// See [`super::identify`].
pub(super) fn identify(source: Source, raw: &str) -> super::Identity {
    let (canonical, time) = read(source, raw);
    super::Identity { fingerprint: canonical.fingerprint(), time }
}

/// The canonical form, alone.
#[cfg(any(test, fuzzing))]
pub(super) fn canonical(source: Source, raw: &str) -> Vec<u8> {
    read(source, raw).0.0
}

fn read(source: Source, raw: &str) -> (Canonical, Option<Millis>) {
    let mut canonical = Canonical::new(source);
    let time = match source {
        Source::Genauth => parse(raw).map(|record: UserAction<'_>| {
            let time = record.time().map(|stamp| stamp.instant);
            canonical.user_action(&record, time);
            time
        }),
        Source::Scloud => parse(raw).map(|record: Operation<'_>| {
            let time = record.time();
            canonical.operation(&record, time);
            time
        }),
    };
    if time.is_none() {
        canonical.opaque(raw);
    }
    (canonical, time.flatten())
}
