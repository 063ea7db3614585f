//! What a state belongs to: a state topic that was deleted, made again, cut, put back from a copy or given more partitions
//! is refused and told, not begun anew; and replicas that differ do not run side by side.

use std::time::Duration;

use rdkafka::admin::{AdminClient, AdminOptions, NewPartitions};
use rdkafka::client::DefaultClientContext;
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::producer::{BaseProducer, BaseRecord, Producer};
use rdkafka::{Message, Offset, TopicPartitionList};
use trailcast::event::Millis;
use trailcast::simulate::Simulator;

use crate::broker::{Broker, Options};
use crate::pipeline::{
    STATE, STREAMS, TOPIC, delivered, differences, exactly_once, in_kafka, into_kafka, partition_of,
};
use crate::program::{Config, Program, history, simulate, until};

const WITHIN: Duration = Duration::from_secs(10);

/// A broker, two APIs with some history, and a config whose run has delivered it all.
async fn caught_up() -> (Broker, Simulator, Config) {
    let broker = Broker::start(Options::default().with("group.min.session.timeout.ms", "1000")).await;
    let simulator = simulate(history(300)).await;
    let mut config = exactly_once(Config::of(&simulator), &broker.bootstrap());
    config.streams.iter_mut().for_each(|stream| stream.keys.push(("sweeps", "[1h]".to_owned())));
    config.catch_up().await;
    (broker, simulator, config)
}

fn admin(broker: &Broker) -> AdminClient<DefaultClientContext> {
    broker.client().create().unwrap()
}

/// Deletes the state topic, and waits until it is gone.
async fn delete_state(broker: &Broker) {
    admin(broker).delete_topics(&[STATE], &AdminOptions::new()).await.unwrap()[0].as_ref().unwrap();
    let consumer: BaseConsumer = broker.client().create().unwrap();
    let gone = async || {
        let metadata = tokio::task::block_in_place(|| consumer.fetch_metadata(Some(STATE), WITHIN)).ok()?;
        metadata.topics()[0].error().is_some().then_some(())
    };
    until("the state topic's end", || broker.log(), gone).await;
}

/// A run that refuses a state: it says so, is not ready, and delivers nothing.
async fn is_refused(config: &Config, said: &str, before: usize, java: &crate::broker::Java) -> Program {
    let program = config.run();
    let line = program.says(said).await;
    assert!(line.contains("\"ERROR\"") && line.contains("trailcast cursor accept"), "{line}");
    let unready = async || (program.get("/readyz").await == "waiting for: checkpoint\n").then_some(());
    program.shows("that it is not ready", unready).await;
    for words in [&["check"][..], &["cursor", "show"]] {
        let answer = config.command(words, &[]).await;
        assert_ne!(answer.code, Some(0), "{answer:?}");
        let told = answer.stdout + &answer.stderr;
        assert!(told.contains(said) && told.contains("trailcast cursor accept"), "{words:?}: {told}");
    }
    assert_eq!(java.counts(TOPIC).await.committed, before as u64, "events were repeated");
    program
}

#[tokio::test(flavor = "multi_thread")]
async fn a_state_topic_that_is_deleted_between_runs_is_not_begun_anew() {
    let (broker, simulator, config) = caught_up().await;
    let java = broker.java();
    let before = crate::pipeline::arrived(&java).await.len();
    delete_state(&broker).await;
    let answer = config.command(&["check"], &[]).await;
    assert!(answer.code == Some(1) && answer.stdout.contains("is gone, though state was kept"), "{answer:?}");
    let program = is_refused(&config, "is gone, though state was kept there before", before, &java).await;

    // Accepted, it goes on by itself, and repeats: that is what was asked for.
    let accepted = config.command(&["cursor", "accept"], &["--yes"]).await;
    assert_eq!(accepted.code, Some(0), "{accepted:?}");
    let ready = async || (program.get("/readyz").await == "ready\n").then_some(());
    program.shows("that it is ready", ready).await;
    let twice = async || (delivered(&program).await >= before as f64).then_some(());
    program.shows("all of it again", twice).await;
    program.drain().await;
    assert_eq!(crate::pipeline::arrived(&java).await.len(), 2 * before);
    drop(simulator);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_state_topic_that_is_deleted_and_made_again_while_it_runs_is_noticed() {
    let broker = Broker::start(Options::default().with("group.min.session.timeout.ms", "1000")).await;
    let start = crate::pipeline::seconds_ago(10);
    let begin = Some(trailcast::simulate::Start::At(start));
    let simulator = simulate(trailcast::simulate::Options { rate: 20.0, start: begin, ..Default::default() }).await;
    let config = exactly_once(Config::of(&simulator).starting_at(start), &broker.bootstrap());
    let program = config.run();
    crate::pipeline::delivers_more(&program, 100.0).await;
    delete_state(&broker).await;
    broker.java().create(STATE, 2, 1, &["cleanup.policy=compact"]).await;
    program.says("is gone, though state was kept there before").await;
    let unready = async || (program.get("/readyz").await == "waiting for: checkpoint\n").then_some(());
    program.shows("that it is not ready", unready).await;
    drop(program);
    let events = crate::pipeline::arrived(&broker.java()).await;
    let mut ids: Vec<_> = events.iter().map(|event| &event.id).collect();
    ids.sort_unstable();
    ids.dedup();
    assert_eq!(ids.len(), events.len(), "events were repeated");
}

#[tokio::test(flavor = "multi_thread")]
async fn records_that_were_deleted_from_the_state_are_missed() {
    let (broker, simulator, config) = caught_up().await;
    let java = broker.java();
    let before = crate::pipeline::arrived(&java).await.len();
    // All but the last two records of each partition, which say how far it is, and the mark of their transaction.
    let consumer: BaseConsumer = broker.client().create().unwrap();
    let mut offsets = TopicPartitionList::new();
    for partition in 0..2 {
        let (_, end) = tokio::task::block_in_place(|| consumer.fetch_watermarks(STATE, partition, WITHIN)).unwrap();
        offsets.add_partition_offset(STATE, partition, Offset::Offset(end - 3)).unwrap();
    }
    // Brokers refuse that of a topic that is only compacted: whoever does it has changed it for a while.
    java.configure(STATE, &["cleanup.policy=compact,delete"]).await;
    let deleted = admin(&broker).delete_records(&offsets, &AdminOptions::new()).await.unwrap();
    assert!(deleted.elements().iter().all(|element| element.error().is_ok()), "{deleted:?}");
    java.configure(STATE, &["cleanup.policy=compact"]).await;
    drop(is_refused(&config, "does not add up to what was committed last", before, &java).await);
    drop(simulator);
}

/// Every committed record of the state topic, by partition.
async fn copied(broker: &Broker) -> Vec<(i32, Vec<u8>, Option<Vec<u8>>)> {
    tokio::task::block_in_place(|| {
        let mut settings = broker.client();
        settings.set("group.id", "copy").set("enable.partition.eof", "true").set("auto.offset.reset", "earliest");
        let consumer: BaseConsumer = settings.create().unwrap();
        let mut all = TopicPartitionList::new();
        (0..2).for_each(|partition| all.add_partition_offset(STATE, partition, Offset::Beginning).unwrap());
        consumer.assign(&all).unwrap();
        let (mut records, mut ends) = (Vec::new(), 0);
        while ends < 2 {
            match consumer.poll(WITHIN).expect("records, then the end") {
                Ok(record) => records.push((
                    record.partition(),
                    record.key().unwrap().to_vec(),
                    record.payload().map(<[u8]>::to_vec),
                )),
                Err(rdkafka::error::KafkaError::PartitionEOF(_)) => ends += 1,
                Err(error) => panic!("{error}"),
            }
        }
        records
    })
}

async fn put_back(broker: &Broker, records: &[(i32, Vec<u8>, Option<Vec<u8>>)]) {
    let producer: BaseProducer = broker.client().create().unwrap();
    for (partition, key, value) in records {
        let mut record = BaseRecord::to(STATE).partition(*partition).key(key);
        record.payload = value.as_ref();
        producer.send(record).map_err(|(error, _)| error).unwrap();
    }
    tokio::task::block_in_place(|| producer.flush(WITHIN)).unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn an_older_copy_that_is_put_back_is_refused() {
    let (broker, simulator, config) = caught_up().await;
    let java = broker.java();
    let copy = copied(&broker).await;
    config.catch_up().await;
    let before = crate::pipeline::arrived(&java).await.len();
    delete_state(&broker).await;
    java.create(STATE, 2, 1, &["cleanup.policy=compact"]).await;
    put_back(&broker, &copy).await;
    drop(is_refused(&config, "is older than what was kept there before", before, &java).await);
    drop(simulator);
}

#[tokio::test(flavor = "multi_thread")]
async fn partitions_that_are_added_are_refused_and_the_state_can_be_moved() {
    let (broker, simulator, config) = caught_up().await;
    admin(&broker).create_partitions(&[NewPartitions::new(STATE, 5)], &AdminOptions::new()).await.unwrap()[0]
        .as_ref()
        .unwrap();
    // Else the streams would be where they were.
    assert!(STREAMS.iter().any(|stream| partition_of(stream, 5) != partition_of(stream, 2)));
    let mut program = config.run();
    assert_eq!(program.ended().await.code(), Some(1), "{}", program.log());
    let said = "had 2 partitions when its state was written and now has 5";
    assert_eq!(program.logged(said).len(), 1, "{}", program.log());
    for words in [&["check"][..], &["cursor", "show"]] {
        let answer = config.command(words, &[]).await;
        assert!(answer.code != Some(0) && (answer.stdout.clone() + &answer.stderr).contains(said), "{answer:?}");
    }
    // As the message says.
    let exported = config.command(&["cursor", "export"], &[]).await;
    assert_eq!(exported.code, Some(0), "{exported:?}");
    let file = config.folder.path().join("cursors.ndjson");
    std::fs::write(&file, &exported.stdout).unwrap();
    let mut moved = exactly_once(Config::of(&simulator), &broker.bootstrap());
    moved.streams.clone_from(&config.streams);
    moved.store = moved.store.map(|store| store.replace(STATE, "moved-state"));
    let imported = moved.command(&["cursor", "import"], &["--from", &file.display().to_string(), "--yes"]).await;
    assert_eq!(imported.code, Some(0), "{imported:?}");
    moved.catch_up().await;
    let events = crate::pipeline::arrived(&broker.java()).await;
    differences(&simulator, Millis::MAX, &events).iter().for_each(crate::ledger::Difference::assert_none);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_an_earlier_version_kept_is_taken_over() {
    let (broker, simulator, config) = caught_up().await;
    let before = crate::pipeline::arrived(&broker.java()).await.len();
    // Without a position and a group, as 0.1.0 wrote it, and with a group that knows of nothing.
    let format = br#"{"format":1,"partitions":2}"#.to_vec();
    for partition in 0..2 {
        let records = [(partition, b"position".to_vec(), None), (partition, b"format".to_vec(), Some(format.clone()))];
        put_back(&broker, &records).await;
    }
    let at = broker.bootstrap();
    let mut earlier =
        in_kafka(into_kafka(Config::of(&simulator), &at, ""), &at, "group: earlier, session_timeout: 10s");
    earlier.streams.clone_from(&config.streams);
    earlier.catch_up().await;
    assert_eq!(crate::pipeline::arrived(&broker.java()).await.len(), before);
    // From then on it is this group's.
    let mut refused = config.start(&["--until-caught-up"], config.append());
    assert_eq!(refused.ended().await.code(), Some(1), "{}", refused.log());
    assert!(refused.log().contains("is kept by the group `earlier`"), "{}", refused.log());
}

#[tokio::test(flavor = "multi_thread")]
async fn replicas_that_differ_do_not_run_side_by_side() {
    let broker = Broker::start(Options::default().with("group.min.session.timeout.ms", "1000")).await;
    let start = crate::pipeline::seconds_ago(10);
    let begin = Some(trailcast::simulate::Start::At(start));
    let simulator = simulate(trailcast::simulate::Options { rate: 20.0, start: begin, ..Default::default() }).await;
    let at = broker.bootstrap();
    let replica = |name: &str, sink: &str, more: &str| {
        let config = into_kafka(Config::of(&simulator).starting_at(start), &at, "create: { partitions: 3 }");
        let mut config = in_kafka(config, &at, &format!("instance_id: {name}, session_timeout: 3s, {more}"));
        config.sinks = config.sinks.replace("events:", &format!("{sink}:"));
        config
    };
    let first_config = replica("first", "events", "");
    let first = first_config.run();
    // Of either stream: a partition is a group's from its first commit on, and before that any group's.
    for stream in STREAMS {
        let some = async || (first.delivered(stream, "events").await >= 25.0).then_some(());
        first.shows(&format!("events of {stream}"), some).await;
    }

    // The same streams into the same topic by another name: it has been given a partition, and runs nothing.
    let second_config = replica("second", "renamed", "");
    let second = second_config.run();
    let line = second.says("run another config").await;
    assert!(line.contains("\"ERROR\"") && line.contains("first"), "{line}");
    let failing = async || {
        let lanes = second.status().await["lanes"].as_array()?.clone();
        lanes.iter().any(|lane| lane["state"] == "failing" && lane["reason"] == "checkpoint").then_some(())
    };
    second.shows("a lane that stands still", failing).await;
    drop(second);
    crate::pipeline::delivers_more(&first, 50.0).await;

    // Another group would deliver all of it, too.
    let third_config = replica("third", "events", "group: another");
    let third = third_config.run();
    third.says("is kept by the group `trailcast`, and this one is `another`").await;
    let unready = async || (third.get("/readyz").await == "waiting for: checkpoint\n").then_some(());
    third.shows("that it is not ready", unready).await;
    drop(third);
    let now = simulator.now();
    first.verified(&STREAMS, "events", now).await;
    first.drain().await;
    let events = crate::pipeline::arrived(&broker.java()).await;
    differences(&simulator, now, &events).iter().for_each(crate::ledger::Difference::assert_none);
}

/// A topic of events that keeps one record of a key, and brokers that allow short transactions only.
#[tokio::test(flavor = "multi_thread")]
async fn what_a_broker_does_not_allow_is_said_with_the_key_to_change() {
    let broker = Broker::start(Options::default().with("transaction.max.timeout.ms", "15000")).await;
    let simulator = simulate(history(100)).await;
    let at = broker.bootstrap();
    let java = broker.java();
    java.create(TOPIC, 3, 1, &["cleanup.policy=compact"]).await;
    let config = |keys: &str| in_kafka(into_kafka(Config::of(&simulator), &at, ""), &at, keys);
    let long = config("session_timeout: 10s");
    let said = "the brokers' transaction.max.timeout.ms is below `checkpoint.kafka.transaction_timeout`";
    let answer = long.command(&["check"], &[]).await;
    assert!(answer.code == Some(1) && answer.stdout.contains(said), "{answer:?}");
    assert!(answer.stdout.contains("cleanup.policy=compact"), "{answer:?}");
    // A run that is to catch up does not wait for a person: neither where its partition cannot be taken, nor, asked to end,
    // does it say that it has.
    let mut program = long.start(&["--until-caught-up"], long.append());
    program.says(said).await;
    assert_eq!(program.ended().await.code(), Some(1), "{}", program.log());
    assert!(program.logged("\"caught up\"").is_empty() && program.logged(said).len() >= 2, "{}", program.log());
    let mut program = long.start(&["--until-caught-up"], long.append());
    program.says(said).await;
    program.signal("TERM");
    assert_eq!(program.ended().await.code(), Some(1), "{}", program.log());
    assert_eq!(program.logged("asked to end before it had caught up").len(), 1, "{}", program.log());

    let short = config("session_timeout: 10s, transaction_timeout: 15s");
    let program = short.run();
    let line = program.says("so Kafka keeps one event of each key").await;
    assert!(line.contains("\"ERROR\"") && line.contains("\"refused\""), "{line}");
    assert_eq!(java.counts(TOPIC).await.all, 0);
    // Mended while it runs.
    java.configure(TOPIC, &["cleanup.policy=compact,delete", "retention.bytes=1000000000"]).await;
    program.says("is kept for long").await;
    program.says("(retention.bytes)").await;
    // Of each stream: a lane that has not tried again yet ends without a drain.
    program.verified(&STREAMS, "events", simulator.now()).await;
    program.drain().await;
    java.configure(TOPIC, &["cleanup.policy=delete"]).await;
    short.catch_up().await;
    let events = crate::pipeline::arrived(&java).await;
    differences(&simulator, Millis::MAX, &events).iter().for_each(crate::ledger::Difference::assert_none);
}
