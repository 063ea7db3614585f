//! OpenTelemetry logs: an event as a `LogRecord`, after semantic conventions 1.44 where they have a word for it.
//!
//! What a log database makes streams of (Loki: labels) is the resource, so that holds only what is stable; all else is
//! a flat attribute of the record. Names that no convention has stand under `genauth`, `scloud` and `trailcast`.
//!
//! A log database collapses what comes twice only if it is equal to the last byte. So a record is made of the event's
//! id, its time and the record's own text alone: nothing in it says when, how late or by which stream it was read.
//! `ObservedTimestamp` is left at 0, "unknown", for the same reason: it would be another at each reading, and a receiver
//! takes `Timestamp` where there is one.

use opentelemetry_proto::tonic::collector::logs::v1::ExportLogsServiceRequest;
use opentelemetry_proto::tonic::common::v1::any_value::Value;
use opentelemetry_proto::tonic::common::v1::{AnyValue, ArrayValue, InstrumentationScope, KeyValue};
use opentelemetry_proto::tonic::logs::v1::{LogRecord, ResourceLogs, ScopeLogs, SeverityNumber};
use opentelemetry_proto::tonic::resource::v1::Resource;
use prost::Message;

use super::event_name;
use crate::event::{Millis, Source, StreamIdentity};
use crate::normalize::{Event, Geo, Text};
use crate::record::time::Rfc3339;

/// The content type of a request in protobuf.
pub const CONTENT_TYPE: &str = "application/x-protobuf";

/// The longest body, in bytes: a line that people read. The whole sentence is an attribute.
const LONGEST_BODY: usize = 1024;

/// A record's attribute for its true time, where it is sent with another one.
const TRUE_TIME: &str = "trailcast.time";

/// What log records belong to: `service.name` is the source, `service.namespace` the tenant. `more` are attributes by name
/// and value.
#[must_use]
pub fn resource<'a>(stream: &StreamIdentity, more: impl IntoIterator<Item = (&'a str, &'a str)>) -> Resource {
    let mut attributes = Attributes::default();
    attributes.put("service.name", stream.source.name());
    attributes.put("service.namespace", stream.tenant.as_str());
    for (name, value) in more {
        attributes.put(name, value);
    }
    Resource { attributes: attributes.0, ..Resource::default() }
}

/// Who says so. Without a version: a copy that another version sends must be equal.
#[must_use]
pub fn scope() -> InstrumentationScope {
    InstrumentationScope { name: "trailcast".to_owned(), ..InstrumentationScope::default() }
}

/// One event alone, as the request that a receiver of OTLP decodes.
pub(super) fn request(event: &Event<'_>, with_raw: bool, out: &mut Vec<u8>) {
    let scope_logs =
        ScopeLogs { scope: Some(scope()), log_records: vec![record(event, with_raw, None)], ..ScopeLogs::default() };
    let resource = Some(resource(&event.stream.identity, []));
    let resource_logs = vec![ResourceLogs { resource, scope_logs: vec![scope_logs], ..ResourceLogs::default() }];
    out.extend_from_slice(&ExportLogsServiceRequest { resource_logs }.encode_to_vec());
}

/// The event as a log record. `clamped` is the time to send it with if that is not its own; its own is an attribute then.
#[must_use]
pub fn record(event: &Event<'_>, with_raw: bool, clamped: Option<Millis>) -> LogRecord {
    let (number, text) = severity(event);
    LogRecord {
        time_unix_nano: nanos(clamped.unwrap_or(event.time)),
        severity_number: number.into(),
        severity_text: text.to_owned(),
        body: Some(text_value(body(event))),
        attributes: attributes(event, with_raw, clamped.is_some()),
        event_name: event_name(event).into_owned(),
        ..LogRecord::default()
    }
}

/// A time before the epoch becomes the epoch; the record's own text still says what it said.
fn nanos(time: Millis) -> u64 {
    u64::try_from(time).unwrap_or(0).saturating_mul(1_000_000)
}

/// By impact: an act that failed, or that could not be read, is worth a look.
fn severity(event: &Event<'_>) -> (SeverityNumber, &'static str) {
    if event.success == Some(false) || event.problem.is_some() {
        (SeverityNumber::Warn, "WARN")
    } else {
        (SeverityNumber::Info, "INFO")
    }
}

/// One line for people: `login failed: u1 from 203.0.113.7: bad password`. Of what identifies the record alone, not of
/// names that the API looks up afresh at each read.
fn body(event: &Event<'_>) -> String {
    let mut line = match (&event.action, event.problem) {
        (Some(action), _) => action.to_string(),
        (None, Some(problem)) => problem.message().to_owned(),
        (None, None) => "unknown act".to_owned(),
    };
    line += match event.success {
        Some(true) => " succeeded",
        Some(false) => " failed",
        None => "",
    };
    if let Some(handle) = event.user.handle() {
        line = line + ": " + handle;
    }
    if let Some(address) = &event.client.address {
        line = line + " from " + address;
    }
    for (n, resource) in event.resources.iter().filter_map(|resource| resource.id.as_ref()).enumerate() {
        line = line + if n == 0 { " on " } else { ", " } + resource;
    }
    if let Some(detail) = &event.detail {
        line = line + ": " + detail;
    }
    if line.contains(char::is_control) {
        line = line.replace(char::is_control, " ");
    }
    if line.len() > LONGEST_BODY {
        line.truncate((0..=LONGEST_BODY).rev().find(|at| line.is_char_boundary(*at)).unwrap_or(0));
        line.push('…');
    }
    line
}

fn attributes(event: &Event<'_>, with_raw: bool, clamped: bool) -> Vec<KeyValue> {
    let mut to = Attributes(Vec::with_capacity(40));
    to.put("log.record.uid", event.id.to_string());
    // EventName again: not every receiver keeps that, and Loki 3.7 does not.
    to.put("trailcast.type", event_name(event).into_owned());
    if clamped {
        to.put(TRUE_TIME, Rfc3339(event.time).to_string());
    }
    match (event.problem, event.success) {
        (Some(problem), _) => to.put("error.type", problem.name()),
        // The convention's word for an error that has no type.
        (None, Some(false)) => to.put("error.type", "_OTHER"),
        (None, _) => {}
    }
    let user = &event.user;
    to.some("user.id", user.id.as_ref());
    to.some("user.name", user.name.as_ref());
    to.some("user.full_name", user.display_name.as_ref());
    to.some("user.email", user.email.as_ref());
    let client = &event.client;
    to.some("client.address", client.address.as_ref());
    to.some("user_agent.original", client.user_agent.as_ref());
    to.some("user_agent.name", client.browser.as_ref());
    to.some("user_agent.os.name", client.os.as_ref());
    geo(&client.geo, &mut to);
    match event.stream.identity.source {
        Source::Genauth => genauth(event, &mut to),
        Source::Scloud => scloud(event, &mut to),
    }
    if with_raw || event.problem.is_some() {
        to.put("log.record.original", event.raw.as_ref());
    }
    to.0
}

fn geo(geo: &Geo<'_>, to: &mut Attributes) {
    if let Some(point) = geo.coordinates {
        to.value("geo.location.lat", Value::DoubleValue(point.lat));
        to.value("geo.location.lon", Value::DoubleValue(point.lon));
    }
    to.some("geo.continent.code", geo.continent_code.as_ref());
    to.some("geo.country.iso_code", geo.country_code.as_ref());
    to.some("geo.locality.name", geo.city.as_ref());
    if let (Some(country), Some(region)) = (&geo.country_code, &geo.region_code) {
        // ISO 3166-2.
        to.put("geo.region.iso_code", format!("{country}-{region}"));
    }
}

fn genauth(event: &Event<'_>, to: &mut Attributes) {
    to.some("genauth.event_type", event.action.as_ref());
    to.some("genauth.event_detail", event.detail.as_ref());
    to.truth("genauth.success", event.success);
    to.some("genauth.request_id", event.request_id.as_ref());
    to.some("genauth.app.id", event.app.id.as_ref());
    to.some("genauth.app.name", event.app.name.as_ref());
    if let Some(count) = event.user.logins_count {
        to.value("genauth.user.logins_count", Value::IntValue(count));
    }
    to.some("genauth.device", event.client.device.as_ref());
    let geo = &event.client.geo;
    to.some("genauth.geo.country_name", geo.country_name.as_ref());
    to.some("genauth.geo.country_code3", geo.country_code3.as_ref());
    to.some("genauth.geo.region_name", geo.region_name.as_ref());
    to.some("genauth.geo.timezone", geo.timezone.as_ref());
}

fn scloud(event: &Event<'_>, to: &mut Attributes) {
    to.some("scloud.api", event.action.as_ref());
    to.truth("scloud.success", event.success);
    to.some("scloud.access_key_id", event.access_key.as_ref());
    // None of the convention's own values; it allows others.
    to.put("cloud.provider", "ucloud");
    to.put("cloud.account.id", event.stream.identity.tenant.as_str());
    // Not of the resource, where a log database would make a stream of each region.
    to.some("cloud.region", event.region.as_ref());
    if let [only] = event.resources.as_slice() {
        to.some("cloud.resource_id", only.id.as_ref());
    }
    // Parallel lists: a list of objects would be one JSON text to Loki.
    to.list("scloud.resource.ids", event.resources.iter().map(|resource| resource.id.as_ref()));
    to.list("scloud.resource.names", event.resources.iter().map(|resource| resource.name.as_ref()));
}

/// Attributes in the order in which they were put: always the same.
#[derive(Default)]
struct Attributes(Vec<KeyValue>);

impl Attributes {
    fn put(&mut self, name: &str, value: impl Into<String>) {
        self.value(name, Value::StringValue(value.into()));
    }

    fn some(&mut self, name: &str, value: Option<&Text<'_>>) {
        if let Some(value) = value {
            self.put(name, value.as_ref());
        }
    }

    fn truth(&mut self, name: &str, value: Option<bool>) {
        if let Some(value) = value {
            self.value(name, Value::BoolValue(value));
        }
    }

    /// An empty text stands for what is missing, so that places in parallel lists agree; a list of them alone is none.
    fn list<'a>(&mut self, name: &str, values: impl Iterator<Item = Option<&'a Text<'a>>> + Clone) {
        if values.clone().flatten().next().is_none() {
            return;
        }
        let values = values.map(|value| text_value(value.map_or_else(String::new, ToString::to_string))).collect();
        self.value(name, Value::ArrayValue(ArrayValue { values }));
    }

    fn value(&mut self, name: &str, value: Value) {
        self.0.push(KeyValue {
            key: name.to_owned(),
            value: Some(AnyValue { value: Some(value) }),
            ..KeyValue::default()
        });
    }
}

fn text_value(text: String) -> AnyValue {
    AnyValue { value: Some(Value::StringValue(text)) }
}
