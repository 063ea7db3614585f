//! What a log record holds: for given records exactly, and always the same.

use bytes::Bytes;
use opentelemetry_proto::tonic::collector::logs::v1::ExportLogsServiceRequest;
use opentelemetry_proto::tonic::common::v1::any_value::Value as Any;
use opentelemetry_proto::tonic::common::v1::{AnyValue, KeyValue};
use opentelemetry_proto::tonic::logs::v1::LogRecord;
use proptest::prelude::*;
use prost::Message;
use serde_json::{Map, Value, json};

use super::{GENAUTH_ID, SCLOUD_ID, operation, stream, user_action};
use crate::encode::otel::record;
use crate::encode::{Format, encode};
use crate::event::{Admitted, EventId, Fingerprint, Source};
use crate::normalize::normalize;

fn admitted(source: Source, raw: &[u8]) -> Admitted {
    Admitted {
        id: EventId::new(&stream(source).identity, Fingerprint([7; 16]), 2),
        ordinal: 2,
        late: true,
        time: 1_663_635_300_188,
        raw: Bytes::copy_from_slice(raw),
    }
}

fn request(with_raw: bool, source: Source, raw: &[u8]) -> Vec<u8> {
    let mut out = Vec::new();
    encode(Format::Otlp, with_raw, &normalize(&stream(source), &admitted(source, raw)), &mut out);
    out
}

/// Resource and record of a request that has one of each.
fn decoded(bytes: &[u8]) -> (Map<String, Value>, LogRecord) {
    let mut request = ExportLogsServiceRequest::decode(bytes).unwrap();
    assert_eq!(request.resource_logs.len(), 1);
    let mut logs = request.resource_logs.remove(0);
    assert_eq!((logs.scope_logs.len(), logs.scope_logs[0].log_records.len()), (1, 1));
    let scope = logs.scope_logs[0].scope.clone().unwrap();
    assert_eq!((scope.name.as_str(), scope.version.as_str()), ("trailcast", ""));
    (map(&logs.resource.unwrap().attributes), logs.scope_logs.remove(0).log_records.remove(0))
}

fn map(attributes: &[KeyValue]) -> Map<String, Value> {
    let map: Map<String, Value> =
        attributes.iter().map(|one| (one.key.clone(), json_of(one.value.as_ref().unwrap()))).collect();
    assert_eq!(map.len(), attributes.len(), "a name stands twice");
    map
}

fn json_of(value: &AnyValue) -> Value {
    match value.value.as_ref().unwrap() {
        Any::StringValue(text) => json!(text),
        Any::BoolValue(truth) => json!(truth),
        Any::IntValue(number) => json!(number),
        Any::DoubleValue(number) => json!(number),
        Any::ArrayValue(list) => list.values.iter().map(json_of).collect(),
        other => panic!("{other:?}"),
    }
}

fn body(record: &LogRecord) -> String {
    json_of(record.body.as_ref().unwrap()).as_str().unwrap().to_owned()
}

#[test]
fn a_user_action() {
    let (resource, record) = decoded(&request(false, Source::Genauth, user_action().to_string().as_bytes()));
    assert_eq!(Value::from(resource), json!({ "service.name": "genauth", "service.namespace": "t1" }));
    assert_eq!((record.time_unix_nano, record.observed_time_unix_nano), (1_663_635_300_188_000_000, 0));
    assert_eq!((record.severity_number, record.severity_text.as_str()), (13, "WARN"));
    assert_eq!(record.event_name, "genauth.user.login");
    assert_eq!(body(&record), "login failed: u1 from 203.0.113.7: bad password");
    let golden = json!({
        "log.record.uid": GENAUTH_ID, "trailcast.type": "genauth.user.login", "error.type": "_OTHER",
        "user.id": "u1", "user.full_name": "张三", "client.address": "203.0.113.7",
        "user_agent.original": "Mozilla/5.0", "user_agent.name": "Chrome", "user_agent.os.name": "Windows",
        "geo.location.lat": 39.9, "geo.location.lon": 116.4, "geo.continent.code": "AS", "geo.country.iso_code": "CN",
        "geo.locality.name": "Beijing", "geo.region.iso_code": "CN-BJ",
        "genauth.event_type": "login", "genauth.event_detail": "bad password", "genauth.success": false,
        "genauth.request_id": "r1", "genauth.app.id": "a1", "genauth.app.name": "Console",
        "genauth.user.logins_count": 17, "genauth.device": "Desktop", "genauth.geo.country_name": "China",
        "genauth.geo.country_code3": "CHN", "genauth.geo.region_name": "Beijing",
        "genauth.geo.timezone": "Asia/Shanghai"
    });
    assert_eq!(Value::from(map(&record.attributes)), golden);
}

#[test]
fn an_operation() {
    let raw = operation().to_string();
    let (resource, record) = decoded(&request(true, Source::Scloud, raw.as_bytes()));
    assert_eq!(Value::from(resource), json!({ "service.name": "scloud", "service.namespace": "t1" }));
    assert_eq!((record.severity_number, record.severity_text.as_str()), (9, "INFO"));
    assert_eq!(record.event_name, "scloud.api_call");
    assert_eq!(body(&record), "CreateUHostInstance succeeded: zhang from 203.0.113.7 on uhost-a, uhost-b");
    let golden = json!({
        "log.record.uid": SCLOUD_ID, "trailcast.type": "scloud.api_call", "user.name": "zhang",
        "user.email": "zhang@example.com", "client.address": "203.0.113.7", "scloud.api": "CreateUHostInstance",
        "scloud.success": true, "scloud.access_key_id": "key-1", "cloud.provider": "ucloud", "cloud.account.id": "t1",
        "cloud.region": "cn-bj2", "scloud.resource.ids": ["uhost-a", "uhost-b"], "scloud.resource.names": ["web", ""],
        "log.record.original": raw
    });
    assert_eq!(Value::from(map(&record.attributes)), golden);
}

/// What a copy must be equal to, in every version: a change here shows every event that is sent again twice.
#[test]
fn golden_bytes_never_change() {
    let hash = |source, record: Value| blake3::hash(&request(true, source, record.to_string().as_bytes())).to_string();
    let golden = (GOLDEN_GENAUTH, GOLDEN_SCLOUD);
    let hashes = (hash(Source::Genauth, user_action()), hash(Source::Scloud, operation()));
    assert_eq!((hashes.0.as_str(), hashes.1.as_str()), golden);
}

const GOLDEN_GENAUTH: &str = "a7d58ebe85d2e34f27a1f0414b55525fd67e5731a11ceea17825930587eb986f";
const GOLDEN_SCLOUD: &str = "f2d0919262f13d9eb096d230b5ed8cf990bc884787d64dea9479882aec5a791a";

#[test]
fn what_cannot_be_read_has_its_text_and_the_reason() {
    for raw in ["not\njson", "[1]", r#"{"eventType":"login","success":true}"#] {
        let (_, record) = decoded(&request(false, Source::Genauth, raw.as_bytes()));
        let attributes = map(&record.attributes);
        assert_eq!(attributes["log.record.original"], raw);
        assert!(["not_a_record", "no_time"].contains(&attributes["error.type"].as_str().unwrap()), "{attributes:?}");
        assert_eq!(record.severity_number, 13);
        assert!(!body(&record).is_empty());
    }
}

#[test]
fn a_clamped_time_leaves_the_true_one_in_an_attribute() {
    let (stream, admitted) = (stream(Source::Genauth), admitted(Source::Genauth, b"{}"));
    let event = normalize(&stream, &admitted);
    let record = record(&event, false, Some(2_000_000_000_000));
    assert_eq!(record.time_unix_nano, 2_000_000_000_000_000_000);
    assert_eq!(map(&record.attributes)["trailcast.time"], "2022-09-20T00:55:00.188Z");
}

proptest! {
    /// Nothing of when, how late or by which stream it was read.
    #[test]
    fn the_same_event_has_the_same_bytes(
        detail in ".{0,2000}", late: bool, name in "[a-z]{1,9}", ordinal in 0_u32..5, success: Option<bool>
    ) {
        let mut raw = user_action();
        raw["eventDetail"] = json!(detail);
        raw["success"] = json!(success);
        let raw = raw.to_string();
        let first = request(true, Source::Genauth, raw.as_bytes());
        let mut stream = stream(Source::Genauth);
        stream.name = name;
        let again = Admitted { late, ordinal, ..admitted(Source::Genauth, raw.as_bytes()) };
        let mut second = Vec::new();
        encode(Format::Otlp, true, &normalize(&stream, &again), &mut second);
        prop_assert_eq!(&first, &second);
        let (_, record) = decoded(&first);
        let line = body(&record);
        prop_assert!(line.len() <= 1030 && !line.contains(char::is_control), "{line:?}");
    }
}
