//! `trailcast dead-letters`: what brokers refused is shown, tried again, and gone once it is accepted.

use std::collections::HashSet;

use serde_json::Value;
use trailcast::event::Millis;
use trailcast::simulate::Simulator;

use crate::broker::{Broker, Options};
use crate::ledger::Difference;
use crate::pipeline::{TOPIC, arrived, differences, in_kafka, into_kafka};
use crate::program::{Config, history, simulate};

/// The letters that `list` shows with `more`.
async fn listed(config: &Config, more: &[&str]) -> Vec<Value> {
    let answer = config.command(&["dead-letters", "list"], &[&["--json"], more].concat()).await;
    assert_eq!(answer.code, Some(0), "{answer:?}");
    answer.stdout.lines().filter(|line| !line.is_empty()).map(|line| serde_json::from_str(line).unwrap()).collect()
}

async fn lists_and_retries(simulator: &Simulator, config: &Config, broker: &Broker) {
    let java = broker.java();
    let refused = listed(config, &[]).await;
    let ids: HashSet<&str> = refused.iter().map(|letter| letter["id"].as_str().unwrap()).collect();
    assert!(ids.len() > 5 && ids.len() == refused.len(), "{} letters", refused.len());
    // SCloud's records are the smaller ones.
    let of_users = listed(config, &["--stream", "users", "--sink", "events", "--reason", "too_large"]).await;
    assert_eq!(of_users, refused);
    assert_eq!(listed(config, &["--stream", "cloud"]).await, Vec::<Value>::new());
    assert_eq!(listed(config, &["--reason", "invalid"]).await, Vec::<Value>::new());
    let text = config.command(&["dead-letters", "list"], &[]).await.stdout;
    assert_eq!(text.lines().count(), refused.len());
    assert!(ids.iter().all(|id| text.contains(id)) && text.contains("users to events: too_large"), "{text}");

    // The topic takes no more than before.
    let again = config.command(&["dead-letters", "retry"], &[]).await;
    assert_eq!(again.code, Some(1), "{again:?}");
    assert!(
        again.stdout.contains(&format!("users to events: 0 accepted, {} refused again", of_users.len())),
        "{again:?}"
    );
    assert_eq!(listed(config, &[]).await.len(), refused.len());

    java.configure(TOPIC, &["max.message.bytes=1048588"]).await;
    let one = config.command(&["dead-letters", "retry"], &["--stream", "users"]).await;
    assert_eq!(one.code, Some(0), "{one:?}");
    assert!(one.stdout.contains(&format!("users to events: {} accepted, 0 refused again", of_users.len())), "{one:?}");
    assert_eq!(listed(config, &[]).await, Vec::<Value>::new());
    let none = config.command(&["dead-letters", "retry"], &[]).await;
    assert_eq!((none.code, none.stdout.trim()), (Some(0), "no such dead letter"), "{none:?}");
    let events = arrived(&java).await;
    assert!(ids.iter().all(|id| events.iter().any(|event| event.id == *id)));
    differences(simulator, Millis::MAX, &events).iter().for_each(Difference::assert_none);
}

/// A topic that takes most events, but not the largest.
async fn broker() -> Broker {
    let broker = Broker::start(Options::default()).await;
    broker.java().create(TOPIC, 3, 1, &["max.message.bytes=1600"]).await;
    broker
}

#[tokio::test(flavor = "multi_thread")]
async fn in_a_topic() {
    let (simulator, broker) = (simulate(history(500)).await, broker().await);
    let config = into_kafka(Config::of(&simulator), &broker.bootstrap(), "");
    let config = in_kafka(config, &broker.bootstrap(), "session_timeout: 10s");
    config.catch_up().await;
    lists_and_retries(&simulator, &config, &broker).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn in_files() {
    let (simulator, broker) = (simulate(history(500)).await, broker().await);
    let config = into_kafka(Config::of(&simulator), &broker.bootstrap(), "");
    config.catch_up().await;
    lists_and_retries(&simulator, &config, &broker).await;
    let left = std::fs::read_dir(config.checkpoint.join("dead-letters")).unwrap();
    let left: Vec<_> = left.map(|entry| entry.unwrap().file_name()).collect();
    assert_eq!(left, ["dead-letters.lock"], "files with nothing in them are gone");
}
