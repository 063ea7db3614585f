//! `trailcast dead-letters`: what brokers refused is shown, tried again, and gone once it is accepted; those that fit pass
//! though others do not, and of two tries at once none delivers an event twice.

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
    assert_eq!((none.code, none.stdout.trim()), (Some(0), "no dead letters"), "{none:?}");
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
    let left: Vec<_> = left.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    assert!(left.iter().all(|name| name.ends_with(".lock")), "files with nothing in them are gone: {left:?}");
}

/// Some of the letters fit by now, some still do not; and two try at once.
#[tokio::test(flavor = "multi_thread")]
async fn those_that_fit_pass_though_others_do_not_and_two_tries_double_nothing() {
    let (simulator, broker) = (simulate(history(300)).await, Broker::start(Options::default()).await);
    let java = broker.java();
    java.create(TOPIC, 3, 1, &["max.message.bytes=700"]).await;
    let config = into_kafka(Config::of(&simulator), &broker.bootstrap(), "");
    let config = in_kafka(config, &broker.bootstrap(), "session_timeout: 10s");
    config.catch_up().await;
    let refused = listed(&config, &[]).await.len();
    assert!(refused > 50, "{refused}");
    java.configure(TOPIC, &["max.message.bytes=1500"]).await;
    let retry = || config.command(&["dead-letters", "retry"], &[]);
    let both = tokio::join!(retry(), retry());
    let left = listed(&config, &[]).await.len();
    assert!(left > 0 && left < refused, "{left} of {refused} are left: {both:?}");
    assert!(both.0.code == Some(1) || both.1.code == Some(1), "some are left: {both:?}");
    let again = retry().await;
    assert_eq!(again.code, Some(1), "{again:?}");
    assert!(again.stdout.contains(" 0 accepted, ") && again.stdout.contains(" refused again"), "{again:?}");
    java.configure(TOPIC, &["max.message.bytes=1048588"]).await;
    let last = retry().await;
    assert_eq!(last.code, Some(0), "{last:?}");
    assert_eq!(listed(&config, &[]).await, Vec::<Value>::new());
    differences(&simulator, Millis::MAX, &arrived(&java).await).iter().for_each(Difference::assert_none);
}

/// A sink that has another name now.
#[tokio::test(flavor = "multi_thread")]
async fn letters_of_a_sink_that_is_gone_go_to_another_or_are_dropped() {
    let (simulator, broker) = (simulate(history(500)).await, broker().await);
    let mut config = into_kafka(Config::of(&simulator), &broker.bootstrap(), "");
    config.catch_up().await;
    let refused = listed(&config, &[]).await.len();
    assert!(refused > 5);
    config.sinks = config.sinks.replace("events:", "renamed:");
    let lost = config.command(&["dead-letters", "retry"], &[]).await;
    assert!(lost.code == Some(1) && lost.stdout.contains("no such sink in the config"), "{lost:?}");
    assert!(lost.stdout.contains(&format!("{refused} left")), "{lost:?}");
    let wrong = config.command(&["dead-letters", "retry"], &["--to", "events"]).await;
    assert!(wrong.code == Some(2) && wrong.stderr.contains("it has renamed"), "{wrong:?}");
    broker.java().configure(TOPIC, &["max.message.bytes=1048588"]).await;
    let moved = config.command(&["dead-letters", "retry"], &["--sink", "events", "--to", "renamed"]).await;
    assert_eq!(moved.code, Some(0), "{moved:?}");
    differences(&simulator, Millis::MAX, &arrived(&broker.java()).await).iter().for_each(Difference::assert_none);
}
