//! The rules of the double of Loki, each by itself: see `loki_double.rs` for what each rests on.

use std::collections::BTreeMap;

use opentelemetry_proto::tonic::collector::logs::v1::ExportLogsServiceRequest;
use opentelemetry_proto::tonic::common::v1::any_value::Value;
use opentelemetry_proto::tonic::common::v1::{AnyValue, ArrayValue, InstrumentationScope, KeyValue, KeyValueList};
use opentelemetry_proto::tonic::logs::v1::{LogRecord, ResourceLogs, ScopeLogs};
use opentelemetry_proto::tonic::resource::v1::Resource;
use prost::Message;
use trailcast::clock::now;
use trailcast::event::Millis;

use crate::loki_double::Loki;
use crate::loki_limits::Limits;

const MINUTE: Millis = 60_000;

fn key(name: &str, value: Value) -> KeyValue {
    KeyValue { key: name.to_owned(), value: Some(AnyValue { value: Some(value) }), ..KeyValue::default() }
}

pub fn text(name: &str, value: &str) -> KeyValue {
    key(name, Value::StringValue(value.to_owned()))
}

/// A record of an event, with its id and more attributes.
pub fn record(id: &str, time: Millis, line: &str, more: Vec<KeyValue>) -> LogRecord {
    let own = [text("log.record.uid", id), text("log.record.original", "{}")];
    LogRecord {
        time_unix_nano: u64::try_from(time).unwrap() * 1_000_000,
        body: Some(AnyValue { value: Some(Value::StringValue(line.to_owned())) }),
        attributes: own.into_iter().chain(more).collect(),
        ..LogRecord::default()
    }
}

pub fn resource(attributes: Vec<KeyValue>, log_records: Vec<LogRecord>) -> ResourceLogs {
    let scope = Some(InstrumentationScope { name: "trailcast".to_owned(), ..InstrumentationScope::default() });
    let scope_logs = vec![ScopeLogs { scope, log_records, ..ScopeLogs::default() }];
    ResourceLogs {
        resource: Some(Resource { attributes, ..Resource::default() }),
        scope_logs,
        ..ResourceLogs::default()
    }
}

pub fn request(resource_logs: Vec<ResourceLogs>) -> Vec<u8> {
    ExportLogsServiceRequest { resource_logs }.encode_to_vec()
}

fn of_genauth(records: Vec<LogRecord>) -> Vec<u8> {
    request(vec![resource(vec![text("service.name", "genauth")], records)])
}

/// Posts it, with more headers; the status and what the body says.
async fn post(loki: &Loki, body: Vec<u8>, headers: &[(&str, &str)]) -> (u16, String) {
    let client = reqwest::Client::builder().no_proxy().build().unwrap();
    let mut post = client.post(loki.url("/otlp/v1/logs")).body(body);
    if headers.iter().all(|(name, _)| *name != "content-type") {
        post = post.header("content-type", "application/x-protobuf");
    }
    for (name, value) in headers {
        post = post.header(*name, *value);
    }
    let answer = post.send().await.unwrap();
    let status = answer.status().as_u16();
    (status, String::from_utf8_lossy(&answer.bytes().await.unwrap()).into_owned())
}

/// Posts records of GenAuth; the status, what the body says, and the ids that are shown then.
async fn sent(loki: &Loki, records: Vec<LogRecord>) -> (u16, String, Vec<String>) {
    trailcast::source::install_tls_provider();
    let (status, said) = post(loki, of_genauth(records), &[]).await;
    (status, said, ids(loki))
}

fn ids(loki: &Loki) -> Vec<String> {
    loki.entries().into_iter().map(|one| one.event.id).collect()
}

#[tokio::test]
async fn what_is_taken_is_answered_with_204_and_shown_with_labels_of_the_resource_alone() {
    let loki = Loki::start("").await;
    let own = vec![
        text("trailcast.type", "genauth.user.login"),
        key("genauth.success", Value::BoolValue(true)),
        key("geo.location.lat", Value::DoubleValue(1.5)),
        key("n", Value::IntValue(7)),
        key("list", Value::ArrayValue(ArrayValue { values: vec![AnyValue { value: Some(Value::IntValue(1)) }] })),
    ];
    let map = key("map", Value::KvlistValue(KeyValueList { values: vec![text("k", "v")] }));
    let mut one = record("a", now(), "a line", own.into_iter().chain([map]).collect());
    (one.severity_number, one.severity_text, one.event_name) = (13, "WARN".to_owned(), "an.event".to_owned());
    let named = ["service.name", "service.namespace", "service.instance.id", "k8s.pod.name"];
    let attributes = named.map(|name| text(name, if name == "service.name" { "genauth" } else { "x" })).to_vec();
    trailcast::source::install_tls_provider();
    assert_eq!(post(&loki, request(vec![resource(attributes, vec![one])]), &[]).await, (204, String::new()));
    let shown = loki.entries();
    assert_eq!(shown[0].line, "a line");
    let pairs = |map: &BTreeMap<String, String>| {
        map.iter().map(|(name, value)| format!("{name}={value}")).collect::<Vec<_>>().join(" ")
    };
    assert_eq!(pairs(&shown[0].labels), "service_instance_id=x service_name=genauth service_namespace=x");
    assert_eq!(
        pairs(&shown[0].attributes),
        "detected_level=warn genauth_success=true geo_location_lat=1.5 k8s_pod_name=x list=[1] log_record_original={} \
         log_record_uid=a map_k=v n=7 scope_name=trailcast severity_number=13 severity_text=WARN trailcast_type=genauth.user.login"
    );
}

/// With what is shipped, and without: it is config/receivers/loki.yaml that makes the double as it is.
#[test]
fn the_limits_are_those_that_are_shipped() {
    let (own, shipped) = (Limits::of_loki(), Limits::shipped_with(""));
    assert!(!own.ignore_default_labels && shipped.ignore_default_labels);
    assert_eq!(shipped.index_labels, ["service.name", "service.namespace", "service.instance.id"]);
    assert_eq!(own.reject_old_samples_max_age, 7 * 24 * 60 * MINUTE);
    assert_eq!(shipped.reject_old_samples_max_age, 366 * 24 * 60 * MINUTE);
    assert_eq!((own.max_chunk_age, shipped.max_chunk_age), (120 * MINUTE, 14 * 60 * MINUTE));
    assert_eq!((own.max_line_size, shipped.max_line_size), (256 << 10, 1 << 20));
    assert_eq!((own.max_structured_metadata_size, shipped.max_structured_metadata_size), (64 << 10, 1 << 20));
    let mb = f64::from(1 << 20);
    assert_eq!([shipped.ingestion_rate, shipped.ingestion_burst].map(|bytes| bytes / mb), [16.0, 32.0]);
    assert_eq!([shipped.per_stream_rate, shipped.per_stream_burst].map(|bytes| bytes / mb), [16.0, 32.0]);
}

#[test]
#[should_panic(expected = "the double of Loki knows no limits_config.max_query_length")]
fn a_limit_that_the_double_does_not_keep_is_an_error() {
    Limits::shipped_with("max_query_length: 1h");
}

/// 400, and the others of the request are stored.
#[tokio::test]
async fn what_is_wrong_by_itself_is_refused_and_the_rest_of_the_request_is_kept() {
    let long = |size: usize| "x".repeat(size);
    let many = || (0..129).map(|n| text(&format!("a{n}"), "x")).collect::<Vec<_>>();
    for (overrides, bad, said) in [
        ("reject_old_samples_max_age: 1h", record("bad", now() - 61 * MINUTE, "", vec![]), "too old"),
        ("", record("bad", now() - 367 * 24 * 60 * MINUTE, "", vec![]), "too old"),
        ("", record("bad", now() + 11 * MINUTE, "", vec![]), "too new"),
        ("max_line_size: 70", record("bad", now(), &long(71), vec![]), "max entry size '70' bytes exceeded"),
        ("", record("bad", now(), &long((1 << 20) + 1), vec![]), "max entry size"),
        ("", record("bad", now(), "", vec![text("a", &long(1 << 20))]), "structured metadata too large"),
        ("", record("bad", now(), "", many()), "too many structured metadata labels"),
    ] {
        let loki = Loki::start(overrides).await;
        // One before it and one after it.
        let fine = |id| record(id, now(), "fine", vec![]);
        let (status, words, shown) = sent(&loki, vec![fine("a"), bad, fine("b")]).await;
        assert_eq!((status, shown), (400, vec!["a".to_owned(), "b".to_owned()]), "{said}");
        assert!(words.contains(said), "{said}: {words}");
    }
    let loki = Loki::start("allow_structured_metadata: false").await;
    let (status, words, shown) = sent(&loki, vec![record("a", now(), "", vec![])]).await;
    assert!(status == 400 && shown.is_empty() && words.contains("structured metadata"), "{words}");
}

/// By half of max_chunk_age, 14h as shipped, within its stream alone.
#[tokio::test]
async fn what_is_too_far_behind_its_stream_is_refused_and_another_stream_takes_it() {
    let loki = Loki::start("").await;
    let at = |id, minutes| record(id, now() - minutes * MINUTE, "", vec![]);
    let (status, words, shown) = sent(&loki, vec![at("new", 0), at("within", 419), at("behind", 421)]).await;
    assert_eq!((status, shown), (400, vec!["within".to_owned(), "new".to_owned()]), "{words}");
    assert!(words.contains("entry too far behind"), "{words}");
    let backfill = vec![text("service.name", "genauth"), text("service.instance.id", "backfill")];
    let answer = post(&loki, request(vec![resource(backfill, vec![at("behind", 421)])]), &[]).await;
    assert_eq!((answer.0, ids(&loki).len()), (204, 3));
}

/// Of two streams in one request the first one's refusal is not told.
#[tokio::test]
async fn of_several_streams_in_a_request_the_last_one_answers() {
    trailcast::source::install_tls_provider();
    let loki = Loki::start("").await;
    let at = |id, minutes| record(id, now() - minutes * MINUTE, "", vec![]);
    let of = |source, records| resource(vec![text("service.name", source)], records);
    let both = vec![of("genauth", vec![at("new", 0), at("behind", 421)]), of("scloud", vec![at("other", 0)])];
    assert_eq!(post(&loki, request(both), &[]).await.0, 204);
    assert_eq!(ids(&loki), ["new", "other"], "lost without an error");
}

#[tokio::test]
async fn above_the_burst_a_request_is_refused_whole_and_for_ever() {
    let loki = Loki::start("ingestion_rate_mb: 1, ingestion_burst_size_mb: 0.01").await;
    let large = |id| record(id, now(), &"x".repeat(6_000), vec![]);
    for _ in 0..3 {
        let (status, words, shown) = sent(&loki, vec![large("a"), large("b")]).await;
        assert_eq!((status, shown), (429, vec![]), "{words}");
        assert!(words.contains("ingestion rate limit exceeded"), "{words}");
    }
    assert_eq!(sent(&loki, vec![large("a")]).await.0, 204);
    // It passes when it is its turn: what is used up comes back.
    let mut refused = 0;
    while sent(&loki, vec![large("b")]).await.0 == 429 {
        refused += 1;
        assert!(refused < 10_000);
    }
    assert_eq!(ids(&loki).len(), 2);
}

#[tokio::test]
async fn above_a_streams_burst_it_is_refused_and_the_others_are_kept() {
    trailcast::source::install_tls_provider();
    let loki = Loki::start("per_stream_rate_limit: 1KB, per_stream_rate_limit_burst: 10KB").await;
    let of = |source, size| {
        resource(vec![text("service.name", source)], vec![record(source, now(), &"x".repeat(size), vec![])])
    };
    let (status, words) = post(&loki, request(vec![of("genauth", 10), of("scloud", 11_000)]), &[]).await;
    assert!(status == 429 && words.contains("Per stream rate limit exceeded"), "{status} {words}");
    assert_eq!(ids(&loki), ["genauth"]);
}

#[tokio::test]
async fn a_blocked_tenants_entries_are_answered_with_260_and_thrown_away() {
    let loki = Loki::start("block_ingestion_until: \"2100-01-01T00:00:00Z\"").await;
    let (status, words, shown) = sent(&loki, vec![record("a", now(), "", vec![])]).await;
    assert_eq!((status, shown), (260, vec![]), "{words}");
}

#[tokio::test]
async fn what_is_no_request_is_refused() {
    trailcast::source::install_tls_provider();
    let loki = Loki::start("").await;
    let good = || of_genauth(vec![record("a", now(), "", vec![])]);
    assert_eq!(post(&loki, Vec::new(), &[]).await.0, 422);
    assert_eq!(post(&loki, b"\xff\xff".to_vec(), &[]).await.0, 400);
    assert_eq!(post(&loki, good(), &[("content-type", "text/plain")]).await.0, 400);
    assert_eq!(post(&loki, good(), &[("content-encoding", "br")]).await.0, 400);
    assert_eq!(post(&loki, vec![0; (100 << 20) + 1], &[]).await.0, 413);
    assert_eq!(ids(&loki), [""; 0]);
    let zstd = zstd::encode_all(good().as_slice(), 0).unwrap();
    assert_eq!(post(&loki, zstd, &[("content-encoding", "zstd")]).await.0, 204);
    assert_eq!(ids(&loki), ["a"]);
}

#[tokio::test]
async fn each_tenant_has_its_own_and_a_request_of_nobody_is_refused() {
    trailcast::source::install_tls_provider();
    let loki = Loki::of_tenants().await;
    let body = || of_genauth(vec![record("a", now(), "", vec![])]);
    assert_eq!(post(&loki, body(), &[]).await.0, 401);
    assert_eq!(post(&loki, body(), &[("X-Scope-OrgID", "audit")]).await.0, 204);
    let counts = ["audit", "other", crate::loki_double::EVERYONE].map(|tenant| loki.entries_of(tenant).len());
    assert_eq!(counts, [1, 0, 0]);
}

#[tokio::test]
async fn an_entry_has_its_own_time_or_when_it_was_observed_or_now() {
    let loki = Loki::start("").await;
    let (time, observed) = (now() - 2 * MINUTE, now() - MINUTE);
    let mut records = ["own", "observed", "now"].map(|id| record(id, time, "", vec![]));
    for (record, own) in records.iter_mut().zip([true, false, false]) {
        record.time_unix_nano *= u64::from(own);
        record.observed_time_unix_nano = u64::try_from(observed).unwrap() * 1_000_000;
    }
    records[2].observed_time_unix_nano = 0;
    let begun = now();
    assert_eq!(sent(&loki, records.to_vec()).await.2, ["own", "observed", "now"]);
    let entries = loki.entries();
    assert_eq!([0, 1].map(|n| entries[n].event.time), [time, observed]);
    assert!((begun..=now()).contains(&entries[2].event.time));
    let observations = entries.iter().map(|one| one.attributes.contains_key("observed_timestamp"));
    assert_eq!(observations.collect::<Vec<_>>(), [true, false, false]);
}

#[tokio::test]
async fn equal_entries_are_shown_once_and_others_beside_each_other() {
    let loki = Loki::start("").await;
    let time = now();
    let one = |more| record("a", time, "", more);
    sent(&loki, vec![one(vec![]), one(vec![])]).await;
    assert_eq!(sent(&loki, vec![one(vec![])]).await.2, ["a"]);
    assert_eq!(loki.received(), 3);
    assert_eq!(sent(&loki, vec![one(vec![text("more", "x")])]).await.2, ["a", "a"]);
}

#[tokio::test]
async fn what_was_taken_outlives_a_restart() {
    let mut loki = Loki::start("").await;
    sent(&loki, vec![record("a", now(), "", vec![])]).await;
    loki.stop().await;
    assert!(tokio::net::TcpStream::connect(loki.url("").trim_start_matches("http://")).await.is_err());
    loki.restart().await;
    assert_eq!(sent(&loki, vec![record("b", now(), "", vec![])]).await.2, ["a", "b"]);
}
