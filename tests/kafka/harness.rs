//! The harness itself: what the other tests rely on is so.

use std::ops::Range;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::producer::{BaseRecord, DeliveryResult, Producer, ProducerContext, ThreadedProducer};
use rdkafka::{ClientConfig, ClientContext};
use tokio::task::block_in_place;

use crate::broker::{Broker, Cluster, Counts, Isolation, Java, Options};
use crate::program::until;

const TIMEOUT: Duration = Duration::from_secs(30);

/// Counts what was refused: flushing says nothing of it.
#[derive(Default)]
struct Refused(AtomicU32);

impl ClientContext for Refused {}

impl ProducerContext for Refused {
    type DeliveryOpaque = ();

    fn delivery(&self, result: &DeliveryResult<'_>, (): ()) {
        self.0.fetch_add(u32::from(result.is_err()), Ordering::SeqCst);
    }
}

type Sender = ThreadedProducer<Refused>;

fn sender(config: &ClientConfig) -> Sender {
    config.create_with_context(Refused::default()).unwrap()
}

fn transactional(broker: &Broker, id: &str) -> Sender {
    let sender = sender(broker.client().set("transactional.id", id));
    block_in_place(|| sender.init_transactions(TIMEOUT)).unwrap();
    sender
}

/// Sends records of these numbers; whether all were acknowledged.
fn send(sender: &Sender, topic: &str, numbers: Range<u32>) -> bool {
    let before = sender.context().0.load(Ordering::SeqCst);
    for number in numbers {
        let (key, value) = (format!("key {}", number % 7), format!("{{\"n\":{number}}}"));
        sender.send(BaseRecord::to(topic).key(&key).payload(&value)).map_err(|(error, _)| error).unwrap();
    }
    block_in_place(|| sender.flush(TIMEOUT)).unwrap();
    sender.context().0.load(Ordering::SeqCst) == before
}

#[tokio::test(flavor = "multi_thread")]
async fn a_broker_that_was_killed_keeps_its_records() {
    let mut broker = Broker::start(Options::default()).await;
    let java = broker.java();
    java.create("kept", 3, 1, &["retention.ms=3600000"]).await;
    assert_eq!(java.describe("kept").await["configs"]["retention.ms"], "3600000");
    let sender = sender(broker.client().set("partitioner", "murmur2_random"));
    assert!(send(&sender, "kept", 0..100));
    let before = java.consume("kept", Isolation::Committed).await;
    broker.kill();
    broker.restart().await;
    assert_eq!(java.consume("kept", Isolation::Committed).await, before);
    assert_eq!(before.len(), 100);
    assert!(before.iter().all(|record| record.java_partition == Some(record.partition)));
    // The client has found it again, too.
    assert!(send(&sender, "kept", 100..101));
    java.configure("kept", &["retention.ms="]).await;
    broker.shut_down().await;
    broker.restart().await;
    assert_ne!(java.describe("kept").await["configs"]["retention.ms"], "3600000");
    assert_eq!(java.counts("kept").await, Counts { committed: 101, all: 101 });
}

#[tokio::test(flavor = "multi_thread")]
async fn a_broker_that_hangs_answers_later_and_its_group_is_seen() {
    let broker = Broker::start(Options::default().with("group.min.session.timeout.ms", "1000")).await;
    let java = broker.java();
    java.create("shared", 3, 1, &[]).await;
    assert_eq!(java.group("readers").await["members"], serde_json::json!([]));
    let consumer: BaseConsumer =
        broker.client().set("group.id", "readers").set("group.instance.id", "first").create().unwrap();
    consumer.subscribe(&["shared"]).unwrap();
    let assigned = || consumer.assignment().map(|all| all.count());
    until(
        "three partitions",
        || broker.log(),
        async || {
            block_in_place(|| consumer.poll(Duration::from_millis(20)));
            (assigned() == Ok(3)).then_some(())
        },
    )
    .await;
    let group = java.group("readers").await;
    assert_eq!(group["members"][0]["instance"], "first", "{group}");
    assert_eq!(group["members"][0]["assigned"].as_array().unwrap().len(), 3, "{group}");

    broker.signal("STOP");
    let sender = sender(&broker.client());
    sender.send(BaseRecord::<(), _>::to("shared").payload("it")).map_err(|(error, _)| error).unwrap();
    assert!(block_in_place(|| sender.flush(Duration::from_millis(500))).is_err(), "it answers");
    broker.signal("CONT");
    block_in_place(|| sender.flush(TIMEOUT)).unwrap();
    assert_eq!(java.counts("shared").await, Counts { committed: 1, all: 1 });
}

#[tokio::test(flavor = "multi_thread")]
async fn aborted_records_are_seen_by_those_only_who_ask_for_all() {
    let broker = Broker::start(Options::default()).await;
    let java = broker.java();
    java.create("half", 1, 1, &[]).await;
    let sender = transactional(&broker, "half");
    sender.begin_transaction().unwrap();
    assert!(send(&sender, "half", 0..10));
    block_in_place(|| sender.abort_transaction(TIMEOUT)).unwrap();
    sender.begin_transaction().unwrap();
    assert!(send(&sender, "half", 10..15));
    block_in_place(|| sender.commit_transaction(TIMEOUT)).unwrap();
    sender.begin_transaction().unwrap();
    assert!(send(&sender, "half", 15..18));
    assert_eq!(java.counts("half").await, Counts { committed: 5, all: 18 });
    let committed = java.consume("half", Isolation::Committed).await;
    let values: Vec<_> = committed.iter().map(|record| record.value.as_deref().unwrap()).collect();
    assert_eq!(values, ["{\"n\":10}", "{\"n\":11}", "{\"n\":12}", "{\"n\":13}", "{\"n\":14}"]);
    let transactions = java.transactions("half").await;
    let own = transactions["transactions"].as_array().unwrap().iter().find(|one| one["id"] == "half").unwrap();
    assert_eq!(own["state"], "Ongoing");
    assert!(transactions["producers"][0]["open_from"].is_i64());
    // Whoever takes the id over ends what was open, and the one before is fenced.
    let _second = transactional(&broker, "half");
    assert!(block_in_place(|| sender.commit_transaction(TIMEOUT)).is_err());
    assert_eq!(java.counts("half").await, Counts { committed: 5, all: 18 });
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cluster_outlives_the_leader() {
    let mut cluster = Cluster::start(3).await;
    let java = cluster.java();
    java.create("led", 1, 3, &[]).await;
    let sender = sender(cluster.client().set("bootstrap.servers", cluster.bootstrap()));
    assert!(send(&sender, "led", 0..10));
    let first = cluster.leader("led", 0).await.id;
    cluster.leader("led", 0).await.kill();
    assert!(send(&sender, "led", 10..20));
    let second = cluster.leader("led", 0).await.id;
    assert_ne!(first, second);
    cluster.brokers.iter_mut().find(|broker| broker.id == first).unwrap().restart().await;
    cluster.in_sync("led", 3).await;
    assert_eq!(java.counts("led").await, Counts { committed: 20, all: 20 });
}

#[tokio::test(flavor = "multi_thread")]
async fn a_secured_broker_asks_for_a_certificate_a_password_and_a_right() {
    let broker = Broker::start(Options::default().mutual_tls().user("alice", "wonderland").acls()).await;
    let inside = broker.java();
    inside.create("secured", 1, 1, &[]).await;
    let certificates = broker.certificates();
    let client = |ca: &str, own: Option<&str>, mechanism: &str, password: &str| {
        let mut config = broker.client();
        config.set("bootstrap.servers", broker.bootstrap()).set("security.protocol", "SASL_SSL");
        config.set("ssl.ca.location", certificates.join(ca).display().to_string());
        if let Some(own) = own {
            config.set("ssl.certificate.location", certificates.join(own).with_extension("pem").display().to_string());
            config.set("ssl.key.location", certificates.join(own).with_extension("key").display().to_string());
        }
        config.set("sasl.mechanism", mechanism).set("sasl.username", "alice").set("sasl.password", password);
        sender(config.set("message.timeout.ms", "3000"))
    };
    let sends = |sender: Sender| send(&sender, "secured", 0..1);
    assert!(!sends(client("ca.pem", Some("client"), "PLAIN", "wonderland")), "it has no right");
    inside.allow("User:alice", "Topic", "sec*", &["Write", "Describe"]).await;
    for mechanism in ["PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512"] {
        assert!(sends(client("ca.pem", Some("client"), mechanism, "wonderland")), "{mechanism}");
        assert!(!sends(client("ca.pem", Some("client"), mechanism, "looking-glass")), "{mechanism}");
    }
    assert!(!sends(client("ca.pem", None, "PLAIN", "wonderland")), "it has no certificate");
    assert!(!sends(client("ca.pem", Some("other"), "PLAIN", "wonderland")), "its certificate is of another CA");
    assert!(!sends(client("other-ca.pem", Some("client"), "PLAIN", "wonderland")), "it trusts another CA");
    assert_eq!(inside.counts("secured").await, Counts { committed: 3, all: 3 });
    inside.forbid("User:alice", "Topic", "sec*", &["Write"]).await;
    assert!(!sends(client("ca.pem", Some("client"), "PLAIN", "wonderland")), "its right was taken back");

    // Java's client, by the same listener.
    let jaas = "org.apache.kafka.common.security.scram.ScramLoginModule required username=\"alice\" \
                password=\"wonderland\";";
    let (ca, own) = (certificates.join("ca.pem"), certificates.join("client-keystore.pem"));
    let java = Java::at(&broker.bootstrap()).with(
        certificates.join("java.properties"),
        &[
            ("security.protocol", "SASL_SSL"),
            ("sasl.mechanism", "SCRAM-SHA-512"),
            ("sasl.jaas.config", jaas),
            ("ssl.truststore.type", "PEM"),
            ("ssl.truststore.location", &ca.display().to_string()),
            ("ssl.keystore.type", "PEM"),
            ("ssl.keystore.location", &own.display().to_string()),
        ],
    );
    let answer = java.tries("counts", &["secured"]).await;
    assert!(answer.code == Some(1) && answer.stderr.contains("Authorization"), "{answer:?}");
    inside.allow("User:alice", "Topic", "secured", &["Read"]).await;
    assert_eq!(java.counts("secured").await, Counts { committed: 3, all: 3 });
}
