//! The Kafka sections of the file as written → their configs, and what only they can get wrong.

use std::collections::BTreeMap;
use std::time::Duration;

use rdkafka::error::KafkaError;
use rdkafka::types::RDKafkaConfRes;

use super::check::Path;
use super::convert::Converter;
use super::file::{CreateTopic, Kafka, KafkaCheckpoint, KafkaTls, Sasl};
use super::syntax::{Broker, Property, Written};
use super::{
    CheckpointConfig, ClusterConfig, CreateTopicConfig, KafkaCheckpointConfig, KafkaConfig, KafkaTlsConfig, SaslConfig,
    SaslMechanism, SinkConfig,
};

/// Properties of librdkafka that are not the user's to set, by the beginnings of their names, and why.
const OWNED: [(&[&str], &str); 6] = [
    (&["bootstrap.servers", "metadata.broker.list"], "the key `brokers` says which cluster it is"),
    (
        &["security.protocol", "ssl.ca.", "ssl.certificate.", "ssl.key.", "ssl.keystore.", "ssl_", "enable.ssl."],
        "the key `tls` says how connections are encrypted",
    ),
    (&["sasl.", "enable.sasl."], "the key `sasl` says how connections prove themselves, and keeps secrets out of here"),
    (
        &[
            "acks",
            "request.required.acks",
            "enable.idempotence",
            "enable.gapless.guarantee",
            "max.in.flight",
            "retries",
            "message.send.max.retries",
            "message.timeout.ms",
            "delivery.timeout.ms",
            "message.max.bytes",
            "partitioner",
            "transactional.id",
            "transaction.timeout.ms",
            "delivery.report.only.error",
            "dr_",
            "allow.auto.create.topics",
        ],
        "delivering each event, once and to the right partition, depends on it",
    ),
    (
        &[
            "group.",
            "session.timeout.ms",
            "heartbeat.interval.ms",
            "max.poll.interval.ms",
            "partition.assignment.strategy",
            "enable.auto.",
            "enable.partition.eof",
            "auto.",
            "isolation.level",
        ],
        "how replicas share the streams depends on it",
    ),
    (&["plugin.library.paths", "builtin.features", "opaque", "interceptors"], "nothing here can serve it"),
];

impl Converter<'_> {
    /// Whether it is exactly once is decided by [`Converter::exactly_once`], when the checkpoint is known.
    pub(super) fn kafka(&mut self, kafka: Kafka, path: &Path) -> SinkConfig {
        let cluster = self.cluster(kafka.brokers, kafka.tls, kafka.sasl, kafka.properties, path);
        SinkConfig::Kafka(Box::new(KafkaConfig {
            cluster,
            topic: kafka.topic.0.0,
            format: kafka.format,
            raw: kafka.raw,
            key: kafka.key,
            exactly_once: kafka.exactly_once.unwrap_or(false),
            create: kafka.create.map(create),
        }))
    }

    pub(super) fn kafka_checkpoint(&mut self, kafka: KafkaCheckpoint, path: &Path) -> CheckpointConfig {
        let cluster = self.cluster(kafka.brokers, kafka.tls, kafka.sasl, kafka.properties, path);
        let legal = |name: &str| !name.contains(char::is_control) && name.len() <= 200;
        if !legal(&kafka.group) {
            self.mistake(&path.child("group"), "expected at most 200 bytes without control characters");
        }
        if !kafka.instance_id.as_deref().is_none_or(legal) {
            self.mistake(&path.child("instance_id"), "expected at most 200 bytes without control characters");
        }
        let range = Duration::from_secs(1)..=Duration::from_secs(3600);
        if !range.contains(&kafka.session_timeout.0) {
            self.mistake(&path.child("session_timeout"), "must be from `1s` to `1h`");
        }
        let range = Duration::from_secs(5)..=Duration::from_secs(900);
        if !range.contains(&kafka.transaction_timeout.0) {
            self.mistake(&path.child("transaction_timeout"), "must be from `5s` to `15m`");
        }
        CheckpointConfig::Kafka(Box::new(KafkaCheckpointConfig {
            cluster,
            topic: kafka.topic.0.0,
            group: kafka.group,
            instance_id: kafka.instance_id,
            session_timeout: kafka.session_timeout.0,
            transaction_timeout: kafka.transaction_timeout.0,
            partitions: kafka.partitions,
            replication: kafka.replication,
        }))
    }

    fn cluster(
        &mut self,
        brokers: Vec<Written<Broker>>,
        tls: Option<KafkaTls>,
        sasl: Option<Sasl>,
        properties: BTreeMap<String, Written<Property>>,
        path: &Path,
    ) -> ClusterConfig {
        let has_tls = tls.is_some();
        let tls = tls.map(|tls| {
            let path = path.child("tls");
            if tls.certificate_file.is_some() != tls.key_file.is_some() {
                self.mistake(&path, "`certificate_file` and `key_file` go together");
            }
            KafkaTlsConfig {
                ca_file: tls.ca_file,
                certificate_file: tls.certificate_file,
                key_file: tls.key_file,
                key_password: tls.key_password.map(|secret| self.secret(secret, &path.child("key_password"))),
            }
        });
        let sasl = sasl.and_then(|sasl| self.sasl(sasl, has_tls, &path.child("sasl")));
        let properties = properties.into_iter().map(|(name, Written(Property(value)))| (name, value)).collect();
        self.properties(&properties, &path.child("properties"));
        ClusterConfig { brokers: brokers.into_iter().map(|broker| broker.0.0).collect(), tls, sasl, properties }
    }

    /// `None`, with a mistake, where what the mechanism needs is missing.
    fn sasl(&mut self, sasl: Sasl, has_tls: bool, path: &Path) -> Option<SaslConfig> {
        let password = sasl.password.map(|secret| self.secret(secret, &path.child("password")));
        let token = sasl.token.map(|secret| self.secret(secret, &path.child("token")));
        if !has_tls && matches!(sasl.mechanism, SaslMechanism::Plain | SaslMechanism::Oauthbearer) {
            self.warn(path, "without `tls` the secret crosses the network in the clear");
        }
        match (sasl.mechanism, sasl.username, password, token) {
            (SaslMechanism::Oauthbearer, None, None, Some(token)) => Some(SaslConfig::Token(token)),
            (SaslMechanism::Oauthbearer, ..) => {
                self.mistake(path, "OAUTHBEARER needs `token`, and neither `username` nor `password`");
                None
            }
            (mechanism, Some(username), Some(password), None) => {
                Some(SaslConfig::Password { mechanism, username, password })
            }
            (_, username, password, token) => {
                let missing = match (username, password) {
                    _ if token.is_some() => ", and no `token`",
                    (None, None) => "; both are missing",
                    (None, _) => "; `username` is missing",
                    _ => "; `password` is missing",
                };
                self.mistake(path, &format!("this mechanism needs `username` and `password`{missing}"));
                None
            }
        }
    }

    fn properties(&mut self, properties: &BTreeMap<String, String>, path: &Path) {
        for (name, value) in properties {
            let path = path.child(name);
            let owned = OWNED.iter().find(|(names, _)| names.iter().any(|owned| name.starts_with(owned)));
            if let Some((_, why)) = owned {
                self.mistake(&path, &format!("is trailcast's own: {why}"));
                continue;
            }
            match rdkafka::ClientConfig::new().set(name, value).create_native_config() {
                Err(KafkaError::ClientConfig(RDKafkaConfRes::RD_KAFKA_CONF_UNKNOWN, ..)) => {
                    self.mistake(&path, "librdkafka has no such property");
                }
                Err(_) => self.mistake(&path, "librdkafka does not accept this value"),
                Ok(_) => {}
            }
        }
    }

    /// Decides which sinks are exactly once, and says where that is asked for and cannot be.
    pub(super) fn exactly_once(
        &mut self,
        sinks: &mut BTreeMap<String, SinkConfig>,
        asked: &BTreeMap<String, Option<bool>>,
        checkpoint: &CheckpointConfig,
        path: &Path,
    ) {
        let mut properties = match checkpoint {
            CheckpointConfig::Kafka(kafka) => kafka.cluster.properties.clone(),
            _ => BTreeMap::new(),
        };
        for (name, sink) in sinks {
            let SinkConfig::Kafka(kafka) = sink else { continue };
            let path = path.child(name);
            let obstacle = match checkpoint {
                CheckpointConfig::Kafka(state) if same_cluster(&state.cluster, &kafka.cluster) => None,
                CheckpointConfig::Kafka(_) => Some(
                    "needs the cluster of `checkpoint.kafka`: a transaction holds events and cursors and cannot span \
                     clusters; give both the same `brokers`, `tls` and `sasl`",
                ),
                _ => Some(
                    "needs `checkpoint.kafka`: events and cursors are once only if one transaction of Kafka holds both",
                ),
            };
            kafka.exactly_once = asked.get(name).copied().flatten().unwrap_or(obstacle.is_none());
            if !kafka.exactly_once {
                continue;
            }
            if let Some(obstacle) = obstacle {
                self.mistake(&path.child("kafka").child("exactly_once"), obstacle);
            }
            // Its events go through the checkpoint's producers, which have one value for each property.
            for (property, value) in &kafka.cluster.properties {
                if properties.insert(property.clone(), value.clone()).is_some_and(|other| other != *value) {
                    let path = path.child("kafka").child("properties").child(property);
                    self.mistake(
                        &path,
                        "is another value elsewhere: sinks that are exactly once and `checkpoint.kafka` share their \
                         producers",
                    );
                }
            }
        }
    }
}

/// As far as a config can tell. Secrets are not compared: both may read them from places of their own.
fn same_cluster(one: &ClusterConfig, other: &ClusterConfig) -> bool {
    let sorted = |cluster: &ClusterConfig| {
        let mut brokers = cluster.brokers.clone();
        brokers.sort_unstable();
        brokers
    };
    let user = |cluster: &ClusterConfig| match &cluster.sasl {
        Some(SaslConfig::Password { mechanism, username, .. }) => Some((*mechanism, username.clone())),
        Some(SaslConfig::Token(_)) => Some((SaslMechanism::Oauthbearer, String::new())),
        None => None,
    };
    sorted(one) == sorted(other) && one.tls.is_some() == other.tls.is_some() && user(one) == user(other)
}

fn create(create: CreateTopic) -> CreateTopicConfig {
    CreateTopicConfig {
        partitions: create.partitions,
        replication: create.replication,
        config: create.config.into_iter().map(|(name, Written(Property(value)))| (name, value)).collect(),
    }
}
