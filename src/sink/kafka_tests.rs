//! What a record in Kafka says, and what is known of a topic before anything is sent.

use std::collections::BTreeMap;

use bytes::Bytes;

use super::*;
use crate::config::{self, SinkConfig};
use crate::event::{Admitted, EventId, Fingerprint, Source, StreamIdentity};

fn sink(more: &str) -> KafkaSink {
    let text = format!(
        "streams: {{ s: {{ scloud: {{ public_key: k, private_key: {{ env: E }} }} }} }}\n\
         sinks: {{ k: {{ kafka: {{ brokers: [\"b:1\"], topic: t{more} }} }} }}\ncheckpoint: {{ memory: {{}} }}\n"
    );
    let config = config::parse(std::path::Path::new("t.yaml"), &text).unwrap().config;
    let SinkConfig::Kafka(kafka) = &config.sinks["k"] else { panic!("{config:?}") };
    KafkaSink::new((**kafka).clone())
}

fn stream(source: Source) -> StreamContext {
    let identity = StreamIdentity { source, tenant: "a tenant/\u{e9}".to_owned() };
    StreamContext { identity, name: "users".to_owned() }
}

fn new(stream: &StreamContext, record: &str) -> New {
    let fingerprint = Fingerprint([7; 16]);
    let id = EventId::new(&stream.identity, fingerprint, 0);
    let raw = Bytes::copy_from_slice(record.as_bytes());
    New { admitted: Admitted { id, ordinal: 0, late: true, time: 1_663_635_300_188, raw }, fingerprint, placed: true }
}

#[test]
fn a_record_is_a_cloud_event_in_binary_mode() {
    let stream = stream(Source::Genauth);
    let record = r#"{"userId":"u1","eventType":"unbindMFA","timestamp":"2022-09-20T08:55:00.188+0800"}"#;
    let new = new(&stream, record);
    let messages = sink(", format: native").messages(&stream, std::slice::from_ref(&new));
    let [message] = messages.as_slice() else { panic!("{messages:?}") };
    let expected = [
        ("ce_specversion", "1.0"),
        ("ce_id", &new.admitted.id.to_string()),
        ("ce_source", "/genauth/a%20tenant%2F%C3%A9"),
        ("ce_type", "genauth.user.unbind_mfa"),
        ("ce_time", "2022-09-20T00:55:00.188Z"),
        ("content-type", "application/json"),
        ("trailcast_stream", "users"),
        ("trailcast_late", "true"),
    ];
    let headers: Vec<_> = message.headers.iter().map(|(name, value)| (*name, value.as_str())).collect();
    assert_eq!(headers, expected);
    assert_eq!((&*message.topic, message.partition, message.timestamp), ("t", None, Some(1_663_635_300_188)));
    let value: serde_json::Value = serde_json::from_slice(message.value.as_ref().unwrap()).unwrap();
    assert_eq!((value["id"].as_str(), value["record"]["userId"].as_str()), (Some(expected[1].1), Some("u1")));
}

#[test]
fn keys_are_what_they_are_set_to() {
    let scloud = stream(Source::Scloud);
    let key = |more: &str, record: &str| {
        let new = new(&scloud, record);
        let key = sink(more).messages(&scloud, std::slice::from_ref(&new)).remove(0).key;
        key.map(|key| String::from_utf8(key).unwrap())
    };
    let record = r#"{"Api":"A","UserName":"n","UserEmail":"e@x.y"}"#;
    assert_eq!(key("", record).as_deref(), Some("n"), "the actor unless set");
    assert_eq!(key("", r#"{"UserEmail":"e@x.y"}"#).as_deref(), Some("e@x.y"));
    assert_eq!(key("", "{}"), None);
    assert_eq!(key("", "no record"), None);
    assert_eq!(key(", key: stream", record).as_deref(), Some("users"));
    assert_eq!(key(", key: id", record).unwrap().len(), 32);
    assert_eq!(key(", key: none", record), None);
    let new = new(&scloud, record);
    let headers = sink("").messages(&scloud, std::slice::from_ref(&new)).remove(0).headers;
    assert!(headers.contains(&("ce_type", "scloud.api_call".to_owned())), "{headers:?}");
}

fn topic(settings: &[(&str, &str)]) -> Topic {
    let settings: BTreeMap<_, _> =
        settings.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
    Topic { name: "t".to_owned(), partitions: 1, replicas: 1, settings: Some(settings) }
}

#[tokio::test]
async fn too_large_is_known_before_sending_where_nothing_compresses() {
    let stream = stream(Source::Genauth);
    let events: Vec<New> = [10, 4000].map(|length| new(&stream, &"x".repeat(length))).into();
    for (more, expected) in [("", vec![1]), (", properties: { compression.type: zstd }", vec![])] {
        let sink = sink(more);
        let messages = sink.messages(&stream, &events);
        let topic = Ok(Arc::new(topic(&[("max.message.bytes", "4000")])));
        *lock(&sink.found) = Some(Found { at: Instant::now(), topic });
        let refused = sink.surely_too_large(&messages).await.unwrap();
        assert_eq!(refused.iter().map(|refused| refused.index).collect::<Vec<_>>(), expected);
        assert!(refused.iter().all(|refused| refused.message.contains("max.message.bytes is 4000")), "{refused:?}");
    }
}

#[test]
fn a_topic_that_would_not_keep_old_events_is_told() {
    const DAY: Millis = 86_400_000;
    let week = ("retention.ms", "604800000");
    let delete = ("cleanup.policy", "delete");
    let doubt = deleted_at_once(&topic(&[delete, week]), 30 * DAY).unwrap();
    assert!(
        doubt.contains("deletes events older than 7d") && doubt.contains("--add-config retention.ms=-1"),
        "{doubt}"
    );
    let before = deleted_at_once(&topic(&[delete, week, ("message.timestamp.before.max.ms", "3600000")]), DAY).unwrap();
    assert!(before.contains("refuses records older than 1h"), "{before}");
    for (settings, age) in [
        (&[delete, week][..], 6 * DAY),
        (&[delete, week, ("message.timestamp.type", "LogAppendTime")], 30 * DAY),
        (&[("cleanup.policy", "compact"), week], 30 * DAY),
        (&[delete, ("retention.ms", "-1")], 30 * DAY),
        (&[], 30 * DAY),
    ] {
        assert_eq!(deleted_at_once(&topic(settings), age), None, "{settings:?}");
    }
    assert_eq!(deleted_at_once(&Topic::default(), DAY), None, "settings that cannot be seen");
}
