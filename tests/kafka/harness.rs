//! The harness itself: what the other tests rely on is so.

use std::time::Duration;

use rdkafka::producer::{FutureProducer, FutureRecord, Producer};

use crate::broker::{Broker, Cluster, Counts, Isolation, Options};

const TIMEOUT: Duration = Duration::from_secs(30);

/// Sends records `from..to`, each acknowledged.
async fn send(producer: &FutureProducer, topic: &str, numbers: std::ops::Range<u32>) {
    for number in numbers {
        let (key, value) = (format!("key {}", number % 7), format!("{{\"n\":{number}}}"));
        producer.send(FutureRecord::to(topic).key(&key).payload(&value), TIMEOUT).await.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_broker_that_was_killed_keeps_its_records() {
    let mut broker = Broker::start(Options::default()).await;
    let java = broker.java();
    java.create("kept", 3, 1, &["retention.ms=3600000"]).await;
    assert_eq!(java.describe("kept").await["configs"]["retention.ms"], "3600000");
    let producer: FutureProducer = broker.client().set("partitioner", "murmur2_random").create().unwrap();
    send(&producer, "kept", 0..100).await;
    let before = java.consume("kept", Isolation::Committed).await;
    broker.kill();
    broker.restart().await;
    assert_eq!(java.consume("kept", Isolation::Committed).await, before);
    assert_eq!(before.len(), 100);
    assert!(before.iter().all(|record| record.java_partition == Some(record.partition)));
    // The client has found it again, too.
    send(&producer, "kept", 100..101).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn aborted_records_are_seen_by_those_only_who_ask_for_all() {
    let broker = Broker::start(Options::default()).await;
    let java = broker.java();
    java.create("half", 1, 1, &[]).await;
    let producer: FutureProducer = broker.client().set("transactional.id", "half").create().unwrap();
    tokio::task::block_in_place(|| producer.init_transactions(TIMEOUT)).unwrap();
    producer.begin_transaction().unwrap();
    send(&producer, "half", 0..10).await;
    tokio::task::block_in_place(|| producer.abort_transaction(TIMEOUT)).unwrap();
    producer.begin_transaction().unwrap();
    send(&producer, "half", 10..15).await;
    tokio::task::block_in_place(|| producer.commit_transaction(TIMEOUT)).unwrap();
    producer.begin_transaction().unwrap();
    send(&producer, "half", 15..18).await;
    assert_eq!(java.counts("half").await, Counts { committed: 5, all: 18 });
    let committed = java.consume("half", Isolation::Committed).await;
    let values: Vec<_> = committed.iter().map(|record| record.value.as_deref().unwrap()).collect();
    assert_eq!(values, ["{\"n\":10}", "{\"n\":11}", "{\"n\":12}", "{\"n\":13}", "{\"n\":14}"]);
    let transactions = java.transactions("half").await;
    let own = transactions["transactions"].as_array().unwrap().iter().find(|one| one["id"] == "half").unwrap();
    assert_eq!(own["state"], "Ongoing");
    assert!(transactions["producers"][0]["open_from"].is_i64());
    // Whoever takes the id over ends what was open, and the one before is fenced.
    let second: FutureProducer = broker.client().set("transactional.id", "half").create().unwrap();
    tokio::task::block_in_place(|| second.init_transactions(TIMEOUT)).unwrap();
    assert!(tokio::task::block_in_place(|| producer.commit_transaction(TIMEOUT)).is_err());
    assert_eq!(java.counts("half").await, Counts { committed: 5, all: 18 });
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cluster_outlives_the_leader() {
    let mut cluster = Cluster::start(3).await;
    let java = cluster.java();
    java.create("led", 1, 3, &[]).await;
    let producer: FutureProducer = cluster.client().create().unwrap();
    send(&producer, "led", 0..10).await;
    let first = cluster.leader("led", 0).await.id;
    cluster.leader("led", 0).await.kill();
    send(&producer, "led", 10..20).await;
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
        config.set("message.timeout.ms", "3000").create::<FutureProducer>().unwrap()
    };
    let sends = async |producer: FutureProducer| {
        producer.send(FutureRecord::<(), _>::to("secured").payload("it"), TIMEOUT).await.is_ok()
    };
    assert!(!sends(client("ca.pem", Some("client"), "PLAIN", "wonderland")).await, "it has no right");
    inside.allow("User:alice", "Topic", "sec*", &["Write", "Describe"]).await;
    for mechanism in ["PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512"] {
        assert!(sends(client("ca.pem", Some("client"), mechanism, "wonderland")).await, "{mechanism}");
        assert!(!sends(client("ca.pem", Some("client"), mechanism, "looking-glass")).await, "{mechanism}");
    }
    assert!(!sends(client("ca.pem", None, "PLAIN", "wonderland")).await, "it has no certificate");
    assert!(!sends(client("ca.pem", Some("other"), "PLAIN", "wonderland")).await, "its certificate is of another CA");
    assert!(!sends(client("other-ca.pem", Some("client"), "PLAIN", "wonderland")).await, "it trusts another CA");
    assert_eq!(inside.counts("secured").await, Counts { committed: 3, all: 3 });
    inside.forbid("User:alice", "Topic", "sec*", &["Write"]).await;
    assert!(!sends(client("ca.pem", Some("client"), "PLAIN", "wonderland")).await, "its right was taken back");

    // Java's client, by the same listener.
    let jaas = "org.apache.kafka.common.security.scram.ScramLoginModule required username=\"alice\" \
                password=\"wonderland\";";
    let (ca, own) = (certificates.join("ca.pem"), certificates.join("client-keystore.pem"));
    let java = crate::broker::Java::at(&broker.bootstrap()).with(
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
