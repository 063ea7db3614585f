//! Loki's OTLP endpoint as it was measured: a double, in this process. Loki itself is under the AGPL, and nothing under it
//! is fetched or run here (tests/deny/sources); who uses Loki decides that alone, and trailcast speaks OTLP to it.
//!
//! Version 0.1.0 of trailcast ran its tests in front of Loki 3.7.6, one process with a filesystem store. What that Loki was
//! seen to do there, and what its source says (grafana/loki, tag v3.7.6), are the rules here, one function or branch each,
//! named `Rule:`, with the fact that it rests on: *seen* by those tests, or *source*, the file of Loki's that says so. Each
//! rule is asserted in `loki_rules.rs`; that trailcast lives with them, in `loki.rs`, `letters.rs` and `through_kafka.rs`.
//! Limits are those of config/receivers/loki.yaml, and what a test puts over them; a key of that file that the double does not know
//! is an error, so that the file does not outgrow it.
//!
//! What it does not prove. Nothing of a Loki of another version, or of one with several processes, replicas or an object
//! store: there entries can be shown late, and rates are shared. Nothing of what becomes of entries behind the endpoint: no
//! disk, no chunks, no retention, no kill. Stopped and started again it has what it took, as Loki had that was ended by
//! SIGTERM. Nothing of limits that it does not know: how many labels and streams there may be, how long a label. Nothing of a
//! resource without `service.name`, which Loki names itself, or of a record with flags, a trace or a span, of which Loki
//! makes metadata: trailcast sends neither. It does not evaluate LogQL: `logql.rs` reads a query by the published grammar, and
//! applies what it says to what is stored here. Of its messages only the words count that the tests of 0.1.0 asserted, or that
//! trailcast tells reasons by.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::io::Read as _;
use std::net::Ipv4Addr;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Instant;

use axum::Router;
use axum::body::Bytes;
use axum::extract::{DefaultBodyLimit, State};
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::post;
use opentelemetry_proto::tonic::collector::logs::v1::ExportLogsServiceRequest;
use opentelemetry_proto::tonic::common::v1::any_value::Value;
use opentelemetry_proto::tonic::common::v1::{AnyValue, InstrumentationScope, KeyValue};
use opentelemetry_proto::tonic::logs::v1::{LogRecord, ResourceLogs};
use prost::Message;
use tokio::sync::oneshot;
use tokio::task::JoinHandle;
use trailcast::clock::now;
use trailcast::event::Millis;

use crate::ledger::Event;
use crate::loki_limits::Limits;
use crate::receiver::{Arrived, free_port, source};

/// Whose everything is without `auth_enabled`. Seen: overrides for this name counted.
pub const EVERYONE: &str = "fake";
/// The most bytes of a request. Source: pkg/distributor/distributor.go, `max_recv_msg_size`.
const LARGEST_REQUEST: usize = 100 << 20;
/// Labels when the default ones are not ignored. Source: pkg/loghttp/push/otlp_config.go.
const DEFAULT_LABELS: [&str; 18] = [
    "service.name",
    "service.namespace",
    "service.instance.id",
    "deployment.environment",
    "deployment.environment.name",
    "cloud.region",
    "cloud.availability_zone",
    "k8s.cluster.name",
    "k8s.namespace.name",
    "k8s.pod.name",
    "k8s.container.name",
    "container.name",
    "k8s.replicaset.name",
    "k8s.deployment.name",
    "k8s.statefulset.name",
    "k8s.daemonset.name",
    "k8s.cronjob.name",
    "k8s.job.name",
];

type Names = BTreeMap<String, String>;

/// The double: serves until it is stopped or dropped.
pub struct Loki {
    port: u16,
    tenants: Arc<Mutex<Tenants>>,
    server: Option<(oneshot::Sender<()>, JoinHandle<()>)>,
}

/// All that is kept, and what is allowed.
struct Tenants {
    /// `auth_enabled`
    auth: bool,
    limits: Limits,
    by_name: BTreeMap<String, Tenant>,
}

#[derive(Default)]
struct Tenant {
    /// Entries that came in, refused ones among them, as Loki's `loki_distributor_lines_received_total` counts.
    received: usize,
    rate: Bucket,
    streams: BTreeMap<Names, Stream>,
}

#[derive(Default)]
struct Stream {
    rate: Bucket,
    newest: Option<i128>,
    entries: Vec<Entry>,
}

/// Ordered as a query shows them.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
struct Entry {
    nanos: i128,
    line: String,
    metadata: Names,
}

impl Entry {
    /// What counts for rates, and with `limits.max_structured_metadata_size` the part of it that is metadata.
    fn size(&self) -> usize {
        self.line.len() + self.metadata_size()
    }

    fn metadata_size(&self) -> usize {
        self.metadata.iter().map(|(name, value)| name.len() + value.len()).sum()
    }
}

/// A token bucket, as Go's `rate.Limiter`: full at first, and what is larger than it never passes.
#[derive(Default)]
struct Bucket {
    /// What is taken out, and when that was so.
    taken: Option<(f64, Instant)>,
}

impl Bucket {
    fn takes(&mut self, bytes: usize, per_second: f64, burst: f64) -> bool {
        #[expect(clippy::cast_precision_loss, reason = "some megabytes")]
        let bytes = bytes as f64;
        let now = Instant::now();
        let taken = self.taken.map_or(0.0, |(taken, then)| taken - (now - then).as_secs_f64() * per_second).max(0.0);
        let takes = taken + bytes <= burst;
        self.taken = Some((if takes { taken + bytes } else { taken }, now));
        takes
    }
}

impl Loki {
    /// `overrides` are limits as Loki writes them: `max_line_size: 1KB`.
    pub async fn start(overrides: &str) -> Self {
        Self::start_with(overrides, false).await
    }

    /// With `auth_enabled`: each request is of the tenant that it names.
    pub async fn of_tenants() -> Self {
        Self::start_with("", true).await
    }

    async fn start_with(overrides: &str, auth: bool) -> Self {
        let tenants = Tenants { auth, limits: Limits::shipped_with(overrides), by_name: BTreeMap::new() };
        let mut loki = Self { port: free_port(), tenants: Arc::new(Mutex::new(tenants)), server: None };
        loki.restart().await;
        loki
    }

    /// Other `overrides` than before.
    pub fn limit(&self, overrides: &str) {
        self.tenants().limits = Limits::shipped_with(overrides);
    }

    /// Serves again, at the same port, with what it had.
    pub async fn restart(&mut self) {
        let listener = tokio::net::TcpListener::bind((Ipv4Addr::LOCALHOST, self.port)).await.unwrap();
        let router = Router::new()
            .route("/otlp/v1/logs", post(push))
            .layer(DefaultBodyLimit::max(LARGEST_REQUEST))
            .with_state(Arc::clone(&self.tenants));
        let (stop, stopped) = oneshot::channel::<()>();
        let serve = axum::serve(listener, router).with_graceful_shutdown(async { drop(stopped.await) });
        self.server = Some((stop, tokio::spawn(async { serve.await.unwrap() })));
    }

    /// Nobody can connect from now on.
    pub async fn stop(&mut self) {
        let (stop, serves) = self.server.take().unwrap();
        stop.send(()).unwrap();
        serves.await.unwrap();
    }

    pub fn url(&self, path: &str) -> String {
        format!("http://127.0.0.1:{}{path}", self.port)
    }

    /// The sink that leads here.
    pub fn sink(&self, more: &str) -> String {
        format!("{{ out: {{ otlp: {{ endpoint: \"{}\"{more} }} }} }}", self.url("/otlp"))
    }

    /// Every entry, as a query of all streams shows it.
    pub fn entries(&self) -> Vec<Arrived> {
        self.entries_of(EVERYONE)
    }

    /// Rule: of entries of one stream that are equal in time, line and metadata, a query shows one; one that differs in any
    /// of them is shown beside it. Seen: of 19,193 entries sent through 20 kills, 1,839 equal ones were shown once, 1,237
    /// that differed were shown twice. Source: pkg/iter/entry_iterator.go.
    pub fn entries_of(&self, tenant: &str) -> Vec<Arrived> {
        let tenants = self.tenants();
        let Some(tenant) = tenants.by_name.get(tenant) else { return Vec::new() };
        let shown = |(labels, stream): (&Names, &Stream)| {
            let entries: BTreeSet<&Entry> = stream.entries.iter().collect();
            entries.into_iter().map(|entry| arrived(labels, entry)).collect::<Vec<_>>()
        };
        tenant.streams.iter().flat_map(shown).collect()
    }

    /// Entries that came in, refused ones among them.
    pub fn received(&self) -> usize {
        self.tenants().by_name.values().map(|tenant| tenant.received).sum()
    }

    fn tenants(&self) -> MutexGuard<'_, Tenants> {
        self.tenants.lock().unwrap()
    }
}

fn arrived(labels: &Names, entry: &Entry) -> Arrived {
    let of = |name: &str| entry.metadata.get(name).cloned().unwrap_or_default();
    let event = Event {
        id: of("log_record_uid"),
        source: source(&labels["service_name"]),
        time: i64::try_from(entry.nanos / 1_000_000).unwrap(),
        record: of("log_record_original"),
    };
    Arrived { event, line: entry.line.clone(), labels: labels.clone(), attributes: entry.metadata.clone() }
}

/// What is wrong with a request, or with some of it.
struct Refusal(u16, String);

/// As google.rpc.Status, whose message alone is set. Source: pkg/loghttp/push/push.go, `OTLPError`.
impl IntoResponse for Refusal {
    fn into_response(self) -> Response {
        #[derive(Clone, PartialEq, Message)]
        struct Status {
            #[prost(string, tag = "2")]
            message: String,
        }
        let body = Status { message: self.1 }.encode_to_vec();
        (StatusCode::from_u16(self.0).unwrap(), body).into_response()
    }
}

/// Rule: what is all taken is answered with 204 and no body. Source: pkg/distributor/http.go; 0.1.0 took it for delivered, and
/// what was answered so was there.
async fn push(State(tenants): State<Arc<Mutex<Tenants>>>, headers: HeaderMap, body: Bytes) -> Response {
    match tenants.lock().unwrap().push(&headers, &body) {
        Ok(()) => StatusCode::NO_CONTENT.into_response(),
        Err(refusal) => refusal.into_response(),
    }
}

impl Tenants {
    fn push(&mut self, headers: &HeaderMap, body: &[u8]) -> Result<(), Refusal> {
        let name = self.tenant(headers)?;
        let request = decoded(headers, body)?;
        let limits = &self.limits;
        let tenant = self.by_name.entry(name.clone()).or_default();
        // Whether one of its entries was refused for what it is.
        let mut wrong: Option<String> = None;
        let mut good: Vec<(Names, Vec<Entry>)> = Vec::new();
        for resource in &request.resource_logs {
            let (labels, shared) = labels(resource, limits);
            let entries = entries(resource, &shared);
            tenant.received += entries.len();
            // Rule: each entry is looked at alone; the good ones of a request go on, and the answer is 400 all the same.
            // Seen: halves of refused requests were stored already; source: pkg/distributor/distributor.go.
            let (fit, unfit): (Vec<_>, Vec<_>) = entries
                .into_iter()
                .map(|entry| (limits.refuses(&entry, &shown(&labels)), entry))
                .partition(|(why, _)| why.is_none());
            if let Some((Some(why), _)) = unfit.into_iter().next() {
                wrong.get_or_insert(why);
            }
            good.push((labels, fit.into_iter().map(|(_, entry)| entry).collect()));
        }
        // Rule: a request without an entry is refused. Source: pkg/distributor/distributor.go (422). `trailcast check`
        // sends one.
        if request.resource_logs.is_empty() {
            return Err(Refusal(422, "at least one valid stream is required for ingestion".to_owned()));
        }
        // Rule: what a blocked tenant sends is answered with 260 and thrown away. Seen.
        if let Some(until) = &limits.block_ingestion_until {
            return Err(Refusal(
                260,
                format!("ingestion blocked for user {name} until '{until}' with status code '260'"),
            ));
        }
        // Rule: above the tenant's rate, or its burst, the whole request is refused, also what would fit; above the burst
        // it is refused however often it comes. Seen: "HTTP 429: ingestion rate limit exceeded".
        let size = good.iter().flat_map(|(_, entries)| entries).map(Entry::size).sum();
        if !tenant.rate.takes(size, limits.ingestion_rate, limits.ingestion_burst) {
            let rate = limits.ingestion_rate;
            return Err(Refusal(
                429,
                format!("ingestion rate limit exceeded for user {name} (limit: {rate} bytes/sec)"),
            ));
        }
        // Rule: of several streams in one request the last one's answer is the request's, and what the others refused is
        // lost without an error. Found with Loki 3.7.6 before 0.1.0 (src/sink/otlp/mod.rs has it, no test asserted it): it is
        // why neither trailcast nor config/receivers/collector.yaml mixes them.
        let mut last = Ok(());
        for (labels, entries) in good {
            let stream = tenant.streams.entry(labels.clone()).or_default();
            last = stream.take(entries, limits, &shown(&labels));
        }
        last?;
        wrong.map_or(Ok(()), |why| Err(Refusal(400, why)))
    }

    /// Rule: with `auth_enabled` a request is of the tenant in X-Scope-OrgID, and one without is refused with 401; without
    /// it all is of one tenant. Source: the authentication of grafana/dskit; overrides for "fake" were seen to count.
    fn tenant(&self, headers: &HeaderMap) -> Result<String, Refusal> {
        if !self.auth {
            return Ok(EVERYONE.to_owned());
        }
        let named = headers.get("x-scope-orgid").and_then(|name| name.to_str().ok()).filter(|name| !name.is_empty());
        named.map(str::to_owned).ok_or_else(|| Refusal(401, "no org id".to_owned()))
    }
}

/// Rule: protobuf (or JSON, which the double does not read), plain or compressed by gzip or zstd (or lz4, which the double does
/// not read); all else is 400. Seen with gzip; source: pkg/loghttp/push/otlp.go, `extractLogs`.
fn decoded(headers: &HeaderMap, body: &[u8]) -> Result<ExportLogsServiceRequest, Refusal> {
    let said = |name| headers.get(name).and_then(|value| value.to_str().ok()).unwrap_or("");
    let bad = |what: String| Refusal(400, what);
    if said(header::CONTENT_TYPE) != "application/x-protobuf" {
        return Err(bad(format!("content type: {} is not supported", said(header::CONTENT_TYPE))));
    }
    let mut plain = Vec::new();
    match said(header::CONTENT_ENCODING) {
        "" => plain.extend_from_slice(body),
        "gzip" => {
            let read = flate2::read::GzDecoder::new(body).read_to_end(&mut plain);
            read.map_err(|error| bad(error.to_string()))?;
        }
        "zstd" => plain = zstd::decode_all(body).map_err(|error| bad(error.to_string()))?,
        other => return Err(bad(format!("{other} is not supported"))),
    }
    ExportLogsServiceRequest::decode(plain.as_slice()).map_err(|error| bad(error.to_string()))
}

impl Limits {
    /// Why an entry is never taken.
    fn refuses(&self, entry: &Entry, stream: &str) -> Option<String> {
        let age = i128::from(now()) - entry.nanos / 1_000_000;
        // Rule: older than reject_old_samples_max_age is too old for ever. Seen.
        if self.reject_old_samples && age > i128::from(self.reject_old_samples_max_age) {
            return Some(format!("entry for stream '{stream}' has timestamp too old: {}", entry.nanos));
        }
        // Rule: further ahead than creation_grace_period (10m) is too new. Source: pkg/validation/limits.go.
        if -age > i128::from(self.creation_grace_period) {
            return Some(format!("entry for stream '{stream}' has timestamp too new: {}", entry.nanos));
        }
        // Rule: a longer line is refused, and not cut. Seen, with max_line_size_truncate false as it is shipped.
        if entry.line.len() > self.max_line_size {
            let (most, length) = (self.max_line_size, entry.line.len());
            return Some(format!(
                "max entry size '{most}' bytes exceeded for stream '{stream}' while adding an entry with length '{length}' bytes"
            ));
        }
        // Rule: metadata where there may be none, too much of it, too many. Source: pkg/validation/limits.go.
        if !self.allow_structured_metadata && !entry.metadata.is_empty() {
            return Some(format!("stream '{stream}' includes structured metadata, but this feature is disallowed"));
        }
        if entry.metadata_size() > self.max_structured_metadata_size {
            let (most, size) = (self.max_structured_metadata_size, entry.metadata_size());
            return Some(format!(
                "stream '{stream}' has structured metadata too large: '{size}' bytes, limit: '{most}' bytes"
            ));
        }
        if entry.metadata.len() > self.max_structured_metadata_entries_count {
            let (most, count) = (self.max_structured_metadata_entries_count, entry.metadata.len());
            return Some(format!(
                "stream '{stream}' has too many structured metadata labels: '{count}', limit: '{most}'"
            ));
        }
        None
    }
}

impl Stream {
    /// Takes what it can, one entry after the other.
    fn take(&mut self, entries: Vec<Entry>, limits: &Limits, name: &str) -> Result<(), Refusal> {
        let mut answer = Ok(());
        // Rule: above a stream's own rate or burst it is refused, and the rest of the request is kept: 429.
        // Source: pkg/ingester/stream.go.
        let size = entries.iter().map(Entry::size).sum();
        if !self.rate.takes(size, limits.per_stream_rate, limits.per_stream_burst) {
            return Err(Refusal(
                429,
                format!("Per stream rate limit exceeded while attempting to ingest for stream '{name}'"),
            ));
        }
        for entry in entries {
            // Rule: older than the stream's newest by more than half of max_chunk_age is too far behind: 400, and the
            // others are kept. Source: pkg/ingester/stream.go, `validateEntries`; no test of 0.1.0 asserted it, all of them
            // lived within what is shipped.
            let oldest = self.newest.map(|newest| newest - i128::from(limits.max_chunk_age / 2) * 1_000_000);
            if let Some(oldest) = oldest.filter(|oldest| entry.nanos < *oldest) {
                let nanos = entry.nanos;
                let why = format!(
                    "entry too far behind, entry timestamp is: {nanos}, oldest acceptable timestamp is: {oldest}"
                );
                answer = Err(Refusal(400, why));
                continue;
            }
            self.newest = self.newest.max(Some(entry.nanos));
            self.entries.push(entry);
        }
        answer
    }
}

/// Rule: labels are made of the resource's attributes that `otlp_config` names, and by default of 18 more; its other
/// attributes, the scope and all of the record are metadata of each entry. Seen: with config/receivers/loki.yaml the labels were
/// service_name, service_namespace and service_instance_id, and no other; the 18 are in Loki's source.
fn labels(resource: &ResourceLogs, limits: &Limits) -> (Names, Names) {
    let mut labels = Names::new();
    let mut shared = Names::new();
    for KeyValue { key, value, .. } in resource.resource.iter().flat_map(|resource| &resource.attributes) {
        let defaults = !limits.ignore_default_labels && DEFAULT_LABELS.contains(&key.as_str());
        let to = if defaults || limits.index_labels.contains(key) { &mut labels } else { &mut shared };
        put(to, key, value.as_ref());
    }
    (labels, shared)
}

fn entries(resource: &ResourceLogs, shared: &Names) -> Vec<Entry> {
    let of = |scope: &Option<InstrumentationScope>, record: &LogRecord| {
        let mut metadata = shared.clone();
        if let Some(scope) = scope {
            put_text(&mut metadata, "scope_name", &scope.name);
            put_text(&mut metadata, "scope_version", &scope.version);
            scope.attributes.iter().for_each(|one| put(&mut metadata, &one.key, one.value.as_ref()));
        }
        for KeyValue { key, value, .. } in &record.attributes {
            put(&mut metadata, key, value.as_ref());
        }
        if record.severity_number != 0 {
            put_text(&mut metadata, "severity_number", &record.severity_number.to_string());
            // Rule: a level is found in the severity, and added. Source: pkg/distributor/field_detection.go.
            put_text(&mut metadata, "detected_level", level(record.severity_number));
        }
        put_text(&mut metadata, "severity_text", &record.severity_text);
        if record.observed_time_unix_nano != 0 && record.time_unix_nano != 0 {
            put_text(&mut metadata, "observed_timestamp", &record.observed_time_unix_nano.to_string());
        }
        // Rule: the time is the record's, else when it was observed, else now. EventName is not kept.
        // Source: pkg/loghttp/push/otlp.go.
        let nanos = match (record.time_unix_nano, record.observed_time_unix_nano) {
            (0, 0) => i128::from(now()) * 1_000_000,
            (0, observed) => observed.into(),
            (time, _) => time.into(),
        };
        Entry { nanos, line: record.body.as_ref().map(text).unwrap_or_default(), metadata }
    };
    let scopes = resource.scope_logs.iter();
    scopes.flat_map(|scope| scope.log_records.iter().map(|record| of(&scope.scope, record))).collect()
}

fn level(severity: i32) -> &'static str {
    match severity {
        1..=4 => "trace",
        5..=8 => "debug",
        9..=12 => "info",
        13..=16 => "warn",
        17..=20 => "error",
        _ => "fatal",
    }
}

/// Rule: what is not a letter, a digit or `_` in a name becomes `_`; a mapping's names are joined to their parent's; a list
/// is its JSON. Seen: `log_record_uid`, `genauth_event_type`; source: otlptranslator, `LabelNamer`.
fn put(to: &mut Names, name: &str, value: Option<&AnyValue>) {
    let Some(any) = value else { return };
    match &any.value {
        Some(Value::KvlistValue(list)) => {
            list.values.iter().for_each(|one| put(to, &format!("{name}_{}", one.key), one.value.as_ref()));
        }
        Some(_) => put_text(to, name, &text(any)),
        None => {}
    }
}

fn put_text(to: &mut Names, name: &str, value: &str) {
    if !value.is_empty() {
        let name = name.replace(|c: char| !(c.is_ascii_alphanumeric() || c == '_'), "_");
        to.insert(name, value.to_owned());
    }
}

fn text(any: &AnyValue) -> String {
    match &any.value {
        Some(Value::StringValue(text)) => text.clone(),
        _ => json(any).to_string(),
    }
}

fn json(any: &AnyValue) -> serde_json::Value {
    match &any.value {
        Some(Value::StringValue(text)) => text.as_str().into(),
        Some(Value::BoolValue(truth)) => (*truth).into(),
        Some(Value::IntValue(number)) => (*number).into(),
        Some(Value::DoubleValue(number)) => (*number).into(),
        Some(Value::ArrayValue(list)) => list.values.iter().map(json).collect(),
        Some(Value::KvlistValue(map)) => {
            map.values.iter().map(|one| (one.key.clone(), one.value.as_ref().map(json))).collect()
        }
        _ => serde_json::Value::Null,
    }
}

/// A stream as Loki's messages name it.
fn shown(labels: &Names) -> String {
    let mut all = String::new();
    for (name, value) in labels {
        let _ = write!(all, "{}{name}=\"{value}\"", if all.is_empty() { "" } else { ", " });
    }
    format!("{{{all}}}")
}

/// The milliseconds of such as `366d`, `10m`, `0s`.
pub fn millis(text: &str) -> Millis {
    let split = text.find(|c: char| !c.is_ascii_digit()).unwrap_or_else(|| panic!("no duration: {text}"));
    let unit = match &text[split..] {
        "s" => 1000,
        "m" => 60_000,
        "h" => 3_600_000,
        "d" => 86_400_000,
        other => panic!("no unit: {other}"),
    };
    text[..split].parse::<Millis>().unwrap() * unit
}
