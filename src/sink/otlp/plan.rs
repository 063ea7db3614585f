//! A part's events as groups of encoded records: one resource each, in time order.
//!
//! Pure: how old an event is depends on a time that is given. That time is chosen when a part is first sent and kept
//! while it is tried, so an event is sent with the same resource and the same bytes until it has arrived. After a crash a
//! part is sent anew: an event that has meanwhile become older than `backfill.older_than` is then sent to the stream of
//! old ones, since the live stream may have moved on and would refuse it, and if its first copy did arrive, both are shown.

use std::collections::BTreeMap;

use prost::Message;

use super::request::Frame;
use crate::clock::millis;
use crate::config::{BackfillConfig, MaxEventAgePolicy, OtlpConfig, Split, units};
use crate::dead_letter::{DeadLetterReason, Refused};
use crate::encode::otel;
use crate::event::{Millis, StreamContext, StreamIdentity};
use crate::normalize::normalize;
use crate::record::time::Rfc3339;
use crate::state::admit::New;

const HOUR: Millis = 3_600_000;

/// Records that have one resource.
#[derive(Debug)]
pub(super) struct Group {
    pub(super) frame: Frame,
    /// In time order.
    pub(super) records: Vec<Record>,
    /// Whether they are of the stream of new events.
    pub(super) live: bool,
}

/// An encoded log record.
#[derive(Debug, Clone)]
pub(super) struct Record {
    /// The event's place in the part.
    pub(super) index: usize,
    /// As it is sent.
    pub(super) time: Millis,
    pub(super) bytes: Vec<u8>,
}

/// What there is to send of a part, old events first, and what is not even sent.
pub(super) fn plan(
    config: &OtlpConfig,
    stream: &StreamContext,
    part: &[New],
    as_of: Millis,
) -> (Vec<Group>, Vec<Refused>) {
    let oldest = config.max_event_age.map(|age| as_of.saturating_sub(millis(age)));
    let age = config.max_event_age.map(units::duration_text).unwrap_or_default();
    let mut refused = Vec::new();
    // By instance: none, which is the live stream, comes last.
    let mut groups: BTreeMap<(bool, Option<String>), Vec<Record>> = BTreeMap::new();
    for (index, new) in part.iter().enumerate() {
        let event = normalize(stream, &new.admitted);
        let too_old = oldest.filter(|oldest| event.time < *oldest);
        let clamped = match (too_old, config.max_event_age_policy) {
            (None, _) | (Some(_), MaxEventAgePolicy::Send) => None,
            (Some(_), MaxEventAgePolicy::DeadLetter) => {
                let message = format!("older than `max_event_age`, {age}, when it was to be sent");
                refused.push(Refused { index, reason: DeadLetterReason::TooOld, sent: false, message });
                continue;
            }
            // The next full hour: what is sent again within the hour is equal.
            (Some(oldest), MaxEventAgePolicy::Clamp) => Some(oldest.div_euclid(HOUR) * HOUR + HOUR),
        };
        let time = clamped.unwrap_or(event.time);
        let instance = instance(&config.backfill, time, as_of);
        let record = otel::record(&event, config.raw, clamped);
        let record = Record { index, time, bytes: record.encode_to_vec() };
        groups.entry((instance.is_none(), instance)).or_default().push(record);
    }
    let group = |((live, instance), mut records): ((bool, Option<String>), Vec<Record>)| {
        records.sort_by_key(|record| record.time);
        Group { frame: frame(config, &stream.identity, instance.as_deref()), records, live }
    };
    (groups.into_iter().map(group).collect(), refused)
}

/// Records of the live stream that it refused because it has moved on, as backfill.
pub(super) fn as_backfill(config: &OtlpConfig, stream: &StreamContext, records: Vec<Record>) -> Vec<Group> {
    let mut groups: BTreeMap<String, Vec<Record>> = BTreeMap::new();
    for record in records {
        groups.entry(backfill_instance(&config.backfill, record.time)).or_default().push(record);
    }
    let group = |(instance, mut records): (String, Vec<Record>)| {
        records.sort_by_key(|record| record.time);
        Group { frame: frame(config, &stream.identity, Some(&instance)), records, live: false }
    };
    groups.into_iter().map(group).collect()
}

/// The stream of old events that one belongs to, if it is old.
fn instance(backfill: &BackfillConfig, time: Millis, as_of: Millis) -> Option<String> {
    let old = as_of.saturating_sub(time) > millis(backfill.older_than);
    old.then(|| backfill_instance(backfill, time))
}

fn backfill_instance(backfill: &BackfillConfig, time: Millis) -> String {
    // 2026-01-31T07:…
    let time = Rfc3339(time).to_string();
    let end = match backfill.split {
        Split::None => return backfill.instance_id.clone(),
        Split::Day => 10,
        Split::Hour => 13,
    };
    format!("{}-{}", backfill.instance_id, time.get(..end).unwrap_or(&time))
}

fn frame(config: &OtlpConfig, stream: &StreamIdentity, instance: Option<&str>) -> Frame {
    let own = instance.map(|instance| ("service.instance.id", instance));
    let more = config.resource.iter().map(|(name, value)| (name.as_str(), value.as_str()));
    Frame::new(&otel::resource(stream, own.into_iter().chain(more)), &otel::scope())
}
