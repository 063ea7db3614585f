//! What an operator has yet to do: a topic, a right. Said loudly, tried slowly, and nothing is lost.

use serde_json::Value;

use crate::broker::{Broker, Options};
use crate::hostile::{config, hostile};
use crate::pipeline::{
    LETTERS, STATE, TOPIC, delivered, delivers_more, finish_exactly_once, in_kafka, into_kafka, seconds_ago,
};
use crate::program::{Config, history, simulate};

#[tokio::test(flavor = "multi_thread")]
async fn a_topic_that_is_missing_until_someone_makes_it() {
    let simulator = simulate(history(500)).await;
    let broker = Broker::start(Options::default()).await;
    let at = broker.bootstrap();
    let config = in_kafka(into_kafka(Config::of(&simulator), &at, ""), &at, "session_timeout: 10s");
    let program = config.run();
    let line = program.says("could not deliver all, trying again").await;
    let line: Value = serde_json::from_str(&line).unwrap();
    assert_eq!((line["level"].as_str(), line["reason"].as_str()), (Some("ERROR"), Some("refused")));
    let message = line["message"].as_str().unwrap();
    for part in ["the topic `audit-events` does not exist", "kafka-topics.sh", "--create", "create: { partitions"] {
        assert!(message.contains(part), "{message}");
    }
    assert_eq!(delivered(&program).await, 0.0);
    let java = broker.java();
    java.create(TOPIC, 3, 1, &[]).await;
    finish_exactly_once([program], &simulator, &java).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_right_that_is_taken_and_given_back() {
    let start = seconds_ago(20);
    let simulator = simulate(hostile(start, 600)).await;
    let broker = Broker::start(Options::default().user("alice", "wonderland").acls()).await;
    let java = broker.java();
    java.create(TOPIC, 3, 1, &[]).await;
    java.create(STATE, 2, 1, &["cleanup.policy=compact"]).await;
    java.create(LETTERS, 1, 1, &[]).await;
    let alice = "User:alice";
    for (kind, name, rights) in [
        ("Topic", TOPIC, &["Describe", "Write"][..]),
        ("Topic", "trailcast-state*", &["Describe", "Describe_Configs", "Read", "Write"]),
        ("Group", "trailcast*", &["Read"]),
        ("Transactional_Id", "trailcast*", &["Describe", "Write"]),
    ] {
        java.allow(alice, kind, name, rights).await;
    }
    let sasl = "sasl: { mechanism: SCRAM-SHA-256, username: alice, password: wonderland }";
    let at = broker.bootstrap();
    let config = into_kafka(config(&simulator, start), &at, sasl);
    let config = in_kafka(config, &at, &format!("session_timeout: 10s, {sasl}"));
    let program = config.run();
    delivers_more(&program, 50.0).await;

    java.forbid(alice, "Topic", TOPIC, &["Write"]).await;
    let refused = async || {
        let lines = program.logged("\"ERROR\"");
        lines.into_iter().find(|line| line.contains("\"refused\"") && line.contains("Write on the topic"))
    };
    program.shows("that a right is missing", refused).await;
    let status = program.status().await;
    let lanes = status["lanes"].as_array().unwrap();
    assert!(lanes.iter().any(|lane| lane["state"] == "failing" && lane["reason"] == "refused"), "{status}");
    // Tried again, and again nothing: a right that is taken back counts at once.
    let errors = "trailcast_sink_errors_total{reason=\"refused\",sink=\"events\",stream=\"users\"}";
    program.shows("another try", async || program.metric(errors).await.filter(|count| *count >= 2.0)).await;
    let stuck = java.counts(TOPIC).await.committed;
    let tries = program.metric(errors).await.unwrap();
    assert!(tries < 20.0, "{tries} tries: an operator is not waited for by asking all the time");
    assert_eq!(java.counts(TOPIC).await.committed, stuck);
    let loud = program.logged("\"ERROR\"").len();
    assert!((1..12).contains(&loud), "{}", program.log());

    java.allow(alice, "Topic", TOPIC, &["Write"]).await;
    delivers_more(&program, 1.0).await;
    finish_exactly_once([program], &simulator, &java).await;
}
