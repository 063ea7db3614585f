//! trailcast between a simulator and Kafka, as these tests set it up, and what Java's client says arrived.

use std::time::Duration;

use rdkafka::ClientConfig;
use rdkafka::consumer::{BaseConsumer, Consumer};
use trailcast::event::{Millis, Source};
use trailcast::simulate::Simulator;

use crate::broker::{Isolation, Java, Record};
use crate::ledger::{Difference, Event, compare};
use crate::program::{Config, Program};

pub const TOPIC: &str = "audit-events";
pub const STATE: &str = "trailcast-state";
pub const LETTERS: &str = "trailcast-state-dead-letters";
pub const STREAMS: [&str; 2] = ["users", "cloud"];
/// Partitions of [`TOPIC`] where trailcast makes it.
const PARTITIONS: i32 = 3;

/// The sink `events`: Kafka at `brokers`, with more `keys` of YAML. A config has one checkpoint in a file unless
/// [`in_kafka`] says otherwise.
pub fn into_kafka(mut config: Config, brokers: &str, keys: &str) -> Config {
    config.sinks = format!(
        "{{ events: {{ kafka: {{ brokers: [{}], topic: {TOPIC}, format: native, {keys} }} }} }}",
        quoted(brokers)
    );
    config
}

/// The checkpoint in Kafka at `brokers`, with more `keys` of YAML.
pub fn in_kafka(mut config: Config, brokers: &str, keys: &str) -> Config {
    config.store =
        Some(format!("{{ kafka: {{ brokers: [{}], topic: {STATE}, partitions: 2, {keys} }} }}", quoted(brokers)));
    config
}

/// Events and state in one transaction; trailcast makes what topics are missing.
pub fn exactly_once(config: Config, brokers: &str) -> Config {
    in_kafka(
        into_kafka(config, brokers, &format!("create: {{ partitions: {PARTITIONS} }}")),
        brokers,
        "session_timeout: 10s",
    )
}

fn quoted(brokers: &str) -> String {
    brokers.split(',').map(|broker| format!("\"{broker}\"")).collect::<Vec<_>>().join(", ")
}

/// The partition of the state topic that a stream belongs to, calculated anew.
pub fn partition_of(stream: &str, partitions: u64) -> u64 {
    let hash = blake3::hash(stream.as_bytes());
    u64::from_be_bytes(hash.as_bytes()[..8].try_into().expect("8 of 32 bytes")) % partitions
}

/// Whole seconds of the clock: where histories begin.
pub fn seconds_ago(seconds: i64) -> Millis {
    trailcast::clock::now() / 1000 * 1000 - seconds * 1000
}

/// The events of [`TOPIC`] that are committed, each record of the shape that it must have.
pub async fn arrived(java: &Java) -> Vec<Event> {
    let records = java.consume(TOPIC, Isolation::Committed).await;
    records.iter().map(event).collect()
}

fn event(record: &Record) -> Event {
    let event = Event::parse(record.value.as_deref().expect("an event has a value"));
    assert_eq!(record.headers["ce_id"], event.id, "{record:?}");
    assert_eq!(record.timestamp, event.time, "{record:?}");
    assert!(record.java_partition.is_none_or(|partition| partition == record.partition), "{record:?}");
    event
}

/// Both sources' events against all that was readable at `readable_by`.
pub fn differences(simulator: &Simulator, readable_by: Millis, events: &[Event]) -> [Difference; 2] {
    [Source::Genauth, Source::Scloud].map(|source| {
        let difference = compare(simulator, source, (0, Millis::MAX), readable_by, events);
        assert!(difference.expected > 0, "{source}: nothing happened, so nothing was shown");
        difference
    })
}

/// Waits until both lanes were swept at the oldest age through all that is readable now, and drains; what arrived, and in
/// what that differs from what happened.
pub async fn finish<const N: usize>(
    replicas: [Program; N],
    simulator: &Simulator,
    java: &Java,
) -> (Vec<Event>, [Difference; 2]) {
    let now = simulator.now();
    // Whichever runs them: each shows what all do.
    for program in &replicas {
        program.verified(&STREAMS, "events", now).await;
    }
    for program in replicas {
        program.drain().await;
    }
    let events = arrived(java).await;
    let differences = differences(simulator, now, &events);
    (events, differences)
}

/// As [`finish`]; what arrived.
///
/// # Panics
/// Unless all that happened did, each event once.
pub async fn finish_exactly_once<const N: usize>(
    replicas: [Program; N],
    simulator: &Simulator,
    java: &Java,
) -> Vec<Event> {
    let (events, differences) = finish(replicas, simulator, java).await;
    differences.iter().for_each(Difference::assert_none);
    events
}

/// What both lanes of a run have delivered and committed.
pub async fn delivered(program: &Program) -> f64 {
    program.delivered("users", "events").await + program.delivered("cloud", "events").await
}

/// Waits until a run has delivered so many more.
pub async fn delivers_more(program: &Program, more: f64) -> f64 {
    let before = delivered(program).await;
    let look = async || Some(delivered(program).await).filter(|now| *now >= before + more);
    program.shows(&format!("{more} more events"), look).await
}

/// Looks at how far a topic's partitions reach, records of open transactions included.
pub struct Ends {
    consumer: BaseConsumer,
    topic: &'static str,
}

impl Ends {
    pub fn of(client: &ClientConfig, topic: &'static str) -> Self {
        Self { consumer: client.create().expect("a client"), topic }
    }

    /// The sum of all partitions' ends; 0 while there is no such topic. Blocks for a moment.
    pub fn sum(&self) -> i64 {
        const WITHIN: Duration = Duration::from_secs(2);
        tokio::task::block_in_place(|| {
            let end =
                |partition| self.consumer.fetch_watermarks(self.topic, partition, WITHIN).map_or(0, |(_, end)| end);
            (0..PARTITIONS).map(end).sum()
        })
    }
}

/// A dead letter, as far as tests look at it.
#[derive(Debug, Clone, serde::Deserialize)]
pub struct Letter {
    pub id: String,
    pub reason: String,
    pub message: String,
    pub sink: String,
    pub stream: String,
    pub record: String,
    pub record_bytes: usize,
}

impl Letter {
    pub fn parse(line: &str) -> Self {
        serde_json::from_str(line).unwrap_or_else(|error| panic!("not a dead letter: {error}: {line:?}"))
    }
}
