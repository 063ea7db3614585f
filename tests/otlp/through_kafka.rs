//! Through Kafka into stores: exactly once into a real broker as `format: otlp`, each record's value unchanged into a real
//! Collector that runs what is shipped for it, and from there into a real VictoriaLogs and the double of Loki. The docs'
//! queries in LogsQL, asked of the store, and those in LogQL, applied to what the double has, give the numbers of the
//! simulator's ledger.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::error::KafkaError;
use rdkafka::{Message, Offset, TopicPartitionList};
use serde_json::Value;
use tokio::task::block_in_place;
use trailcast::clock::now;
use trailcast::event::{Millis, Source};
use trailcast::simulate::{Content, Options, Simulator};

use crate::broker::{Broker, Options as BrokerOptions};
use crate::ledger::{assert_all_arrived, compare};
use crate::logql::{self, Query};
use crate::loki::{copies_differ, events};
use crate::loki_double::Loki;
use crate::pipeline::{Ends, TOPIC, in_kafka};
use crate::program::{BOUND, Config, history, simulate};
use crate::receiver::{Arrived, Collector, VictoriaLogs};

const PAGE: &str = include_str!("../../docs/otlp-loki.md");
const PARTITIONS: i32 = 3;
/// Runs that are killed until one was killed in the middle of a transaction: most are.
const KILLS: usize = 60;
const MINUTE: Millis = 60_000;

/// Exactly once, one request of OTLP a record. A run that follows a killed one need not wait until that is missed.
fn into_kafka(mut config: Config, broker: &Broker) -> Config {
    let at = broker.bootstrap();
    config.sinks = format!(
        "{{ events: {{ kafka: {{ brokers: [\"{at}\"], topic: {TOPIC}, format: otlp, \
         create: {{ partitions: {PARTITIONS} }} }} }} }}"
    );
    in_kafka(config, &at, "session_timeout: 10s, instance_id: one")
}

/// The values of all records that are there, partition by partition, as a consumer of this isolation level reads them.
fn values(broker: &Broker, isolation: &str) -> Vec<Vec<Vec<u8>>> {
    let mut client = broker.client();
    client.set("group.id", "to-stores").set("enable.partition.eof", "true").set("isolation.level", isolation);
    let consumer: BaseConsumer = client.create().unwrap();
    let mut all = TopicPartitionList::new();
    for partition in 0..PARTITIONS {
        all.add_partition_offset(TOPIC, partition, Offset::Beginning).unwrap();
    }
    consumer.assign(&all).unwrap();
    let mut values = vec![Vec::new(); PARTITIONS.unsigned_abs() as usize];
    let mut ended = BTreeSet::new();
    while ended.len() < values.len() {
        match block_in_place(|| consumer.poll(Duration::from_secs(30))).expect("there is more") {
            Ok(record) => {
                values[record.partition().unsigned_abs() as usize].push(record.payload().unwrap().to_vec());
            }
            Err(KafkaError::PartitionEOF(partition)) => drop(ended.insert(partition)),
            Err(error) => panic!("{error}"),
        }
    }
    values
}

/// As the Collector's receiver hands them on: all partitions at a time, one record of each.
async fn post(collector: &Collector, values: Vec<Vec<Vec<u8>>>) {
    let partition = async |values: Vec<Vec<u8>>| {
        for value in values {
            collector.post(value).await;
        }
    };
    futures_util::future::join_all(values.into_iter().map(partition)).await;
}

fn count(values: &[Vec<Vec<u8>>]) -> usize {
    values.iter().map(Vec::len).sum()
}

/// What happened, by the ledger.
struct Happened {
    source: Source,
    time: Millis,
    /// As the ledger lists what identifies it.
    fields: Vec<Value>,
}

impl Happened {
    fn all(simulator: &Simulator) -> Vec<Self> {
        let of = |source| {
            simulator.truth(source, 0, Millis::MAX).map(move |truth| {
                let Content::Identity(identity) = truth.content else { panic!("{truth:?}") };
                Self { source, time: truth.time.unwrap(), fields: serde_json::from_str(&identity).unwrap() }
            })
        };
        [Source::Genauth, Source::Scloud].into_iter().flat_map(of).collect()
    }

    fn is(&self, source: Source) -> bool {
        self.source == source
    }

    fn user(&self) -> &str {
        self.text(if self.is(Source::Genauth) { 0 } else { 4 })
    }

    /// GenAuth's `eventType`, SCloud's `Api`.
    fn act(&self) -> &str {
        self.text(if self.is(Source::Genauth) { 3 } else { 1 })
    }

    fn failed(&self) -> bool {
        self.fields[if self.is(Source::Genauth) { 5 } else { 2 }] == false
    }

    /// `genauth.user.` and the act in snake case, written anew.
    fn name(&self) -> String {
        if self.is(Source::Scloud) {
            return "scloud.api_call".to_owned();
        }
        let words = self.act().replace("MFA", "Mfa");
        let snake = |c: char| if c.is_uppercase() { format!("_{}", c.to_lowercase()) } else { c.to_string() };
        format!("genauth.user.{}", words.chars().map(snake).collect::<String>())
    }

    fn text(&self, field: usize) -> &str {
        self.fields[field].as_str().unwrap()
    }
}

/// What a query is to give, by the ledger.
enum Expected<'a> {
    /// An entry or more of each of these.
    Entries(&'a dyn Fn(&Happened) -> bool),
    /// One entry.
    One,
    /// How many happened within so long, by label.
    Numbers(Millis, &'a dyn Fn(&Happened) -> Option<String>),
    /// The ten largest of them.
    Largest(Millis, &'a dyn Fn(&Happened) -> Option<String>),
}

/// The page's queries in a language in order, with a user and an event that there are.
fn queries(language: &str, user: &str, id: &str) -> Vec<String> {
    let (_, block) = PAGE.split_once(&format!("```{language}\n")).unwrap();
    let (block, _) = block.split_once("```").unwrap();
    let real =
        |line: &str| line.replace("65f0c0ffee00000000000001", user).replace("00112233445566778899aabbccddeeff", id);
    block.lines().filter(|line| !line.starts_with('#')).map(real).collect()
}

/// A query, and whom to ask it.
enum Asked<'a> {
    Double(&'a Query, &'a [Arrived]),
    Store(&'a str, &'a VictoriaLogs),
}

impl Asked<'_> {
    /// How many events it gives, each once.
    async fn events(&self) -> usize {
        let ids: BTreeSet<String> = match self {
            Self::Double(query, stored) => {
                query.entries(stored).into_iter().map(|entry| entry.event.id.clone()).collect()
            }
            Self::Store(query, store) => {
                store.rows(query, None).await.into_iter().map(|mut row| row.remove("log.record.uid").unwrap()).collect()
            }
        };
        ids.len()
    }

    async fn numbers(&self, at: Millis) -> BTreeMap<String, u64> {
        match self {
            Self::Double(query, stored) => query.numbers(stored, at),
            Self::Store(query, store) => store.numbers(query, at).await,
        }
    }

    fn shown(&self) -> String {
        match self {
            Self::Double(query, _) => format!("{query:?}"),
            Self::Store(query, _) => (*query).to_owned(),
        }
    }
}

/// How many of what happened after `from` and until `to` have each label.
fn counted(
    happened: &[Happened],
    (from, to): (Millis, Millis),
    label: impl Fn(&Happened) -> Option<String>,
) -> BTreeMap<String, u64> {
    let within = happened.iter().filter(|one| from < one.time && one.time <= to);
    within.filter_map(label).fold(BTreeMap::new(), |mut counts, label| {
        *counts.entry(label).or_default() += 1;
        counts
    })
}

async fn assert_query(asked: &Asked<'_>, expected: &Expected<'_>, happened: &[Happened]) {
    let query = asked.shown();
    let (first, last) = (happened.iter().map(|one| one.time).min(), happened.iter().map(|one| one.time).max());
    let (first, last) = (first.unwrap(), last.unwrap());
    let (range, label) = match expected {
        Expected::Entries(is) => {
            let expected = happened.iter().filter(|one| is(one)).count();
            assert!(expected > 0, "nothing that shows anything: {query}");
            assert_eq!(asked.events().await, expected, "{query}");
            return;
        }
        Expected::One => return assert_eq!(asked.events().await, 1, "{query}"),
        Expected::Numbers(range, label) | Expected::Largest(range, label) => (*range, label),
    };
    // So that each event is in one of them.
    let mut from = first - 1;
    while from < last {
        let to = from + range;
        let mut numbers = asked.numbers(to).await;
        let mut counts = counted(happened, (from, to), label);
        if let Expected::Largest(..) = expected {
            // Which of equals are among the ten is up to the store.
            assert!(numbers.iter().all(|(label, number)| counts.get(label) == Some(number)), "{query}: {numbers:?}");
            let largest = |counts: BTreeMap<String, u64>| {
                let mut sorted: Vec<u64> = counts.into_values().collect();
                sorted.sort_unstable_by(|a, b| b.cmp(a));
                sorted.into_iter().take(10).zip(0..).map(|(number, place)| (place.to_string(), number)).collect()
            };
            (numbers, counts) = (largest(numbers), largest(counts));
        }
        assert!(!counts.is_empty());
        assert_eq!(numbers, counts, "{query} from {from} to {to}");
        from = to;
    }
}

/// The Collector sends the header that is shipped.
fn assert_streams(stored: &[Arrived]) {
    let names: BTreeSet<&str> = stored.iter().flat_map(|one| one.labels.keys().map(String::as_str)).collect();
    assert_eq!(names, BTreeSet::from(["service.name", "service.namespace"]));
}

#[tokio::test(flavor = "multi_thread")]
async fn the_readmes_queries_give_the_ledgers_numbers() {
    let simulator = simulate(Options { twin_share: 0.1, ..history(3_000) }).await;
    let broker = Broker::start(BrokerOptions::default()).await;
    let config = into_kafka(Config::of(&simulator), &broker);
    let aborted = async || {
        let counts = broker.java().counts(TOPIC).await;
        counts.all - counts.committed
    };
    let ends = Ends::of(&broker.client(), TOPIC);
    let mut kills = 0;
    while kills == 0 || aborted().await == 0 {
        assert!(kills < KILLS, "no kill hit an open transaction");
        kills += 1;
        let mut program = config.run();
        let (before, began) = (ends.sum(), Instant::now());
        while ends.sum() == before {
            assert!(program.runs() && began.elapsed() < BOUND, "{}", program.log());
            tokio::task::yield_now().await;
        }
        // What is being sent stays uncommitted.
        broker.signal("STOP");
        program.signal("KILL");
        program.ended().await;
        broker.signal("CONT");
    }
    let begun = now();
    config.catch_up().await;

    let (loki, store) = (Loki::start("").await, VictoriaLogs::start(&[]).await);
    let collector = Collector::into_stores(&loki, &store).await;
    let committed = values(&broker, "read_committed");
    let sent = count(&committed);
    post(&collector, committed).await;
    assert_eq!(collector.arrived().len(), sent);
    let arrived = loki.entries();
    for arrived in [&arrived, &store.entries().await] {
        assert_all_arrived(&simulator, begun, &events(arrived));
        assert_eq!(arrived.len(), sent, "one event a message");
    }
    assert_streams(&store.entries().await);

    let happened = Happened::all(&simulator);
    let logins = counted(&happened, (0, Millis::MAX), |one| (one.act() == "login").then(|| one.user().to_owned()));
    let (user, _) = logins.iter().max_by_key(|(_, logins)| **logins).unwrap();
    let id = &arrived[sent / 2].event.id;
    let of = |source: Source| move |one: &Happened| one.source == source;
    let (genauth, scloud) = (of(Source::Genauth), of(Source::Scloud));
    let expected = [
        Expected::Entries(&scloud),
        Expected::Entries(&|_| true),
        Expected::Entries(&|one| one.act() == "unbindMFA"),
        Expected::Entries(&|one| scloud(one) && one.act().starts_with("Create") && one.failed()),
        Expected::Entries(&Happened::failed),
        Expected::Entries(&|one| one.act() == "login" && one.user() == user),
        Expected::Entries(&|one| one.user() == "auditor" && one.failed()),
        Expected::One,
        Expected::Numbers(60 * MINUTE, &|one| Some(one.source.name().to_owned())),
        Expected::Numbers(MINUTE, &|one| Some(one.name())),
        Expected::Largest(60 * MINUTE, &|one| (genauth(one) && one.failed()).then(|| one.user().to_owned())),
    ];
    let (logql, logsql) = (queries("logql", user, id), queries("logsql", user, id));
    let read = logql::read(&logql);
    for all in [logql.len(), logsql.len()] {
        assert_eq!(all, expected.len(), "a query of the page's that nobody checks: {logql:#?} {logsql:#?}");
    }
    for ((read, query), expected) in read.iter().zip(&logsql).zip(&expected) {
        read.assert_names(&arrived);
        assert_query(&Asked::Double(read, &arrived), expected, &happened).await;
        assert_query(&Asked::Store(query, &store), expected, &happened).await;
    }

    // All once more, and what was aborted with it, as a receiver does that reads uncommitted records and begins anew.
    let all = values(&broker, "read_uncommitted");
    let count_again = count(&all);
    assert!(count_again > sent);
    post(&collector, all).await;
    let (shown, stored) = (loki.entries(), store.entries().await);
    for events in [events(&shown), events(&stored)] {
        for source in [Source::Genauth, Source::Scloud] {
            let difference = compare(&simulator, source, (0, Millis::MAX), begun, &events);
            let lost = difference.missing.len() + difference.invented.len() + difference.altered.len();
            assert_eq!(lost, 0, "{difference}");
        }
    }
    // Loki shows equal copies once; others are of records that the API answered otherwise when they were read again.
    let differ = copies_differ(&shown);
    // VictoriaLogs shows all of them, and the page's queries give the same numbers all the same.
    assert_eq!(stored.len(), sent + count_again);
    for (query, expected) in logsql.iter().zip(&expected) {
        assert_query(&Asked::Store(query, &store), expected, &happened).await;
    }
    println!(
        "{kills} kills, {sent} events, {count_again} sent again: Loki's double shows {}, which differ in {differ:?}; VictoriaLogs \
         has {}",
        shown.len(),
        stored.len()
    );
    simulator.shutdown().await;
}
