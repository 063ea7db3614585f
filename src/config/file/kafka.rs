//! The Kafka sections of the config file as they are written.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

use schemars::JsonSchema;
use serde::Deserialize;

use super::{SecretEntry, seconds, yes};
use crate::config::syntax::{Broker, Property, TopicName, Written};
use crate::config::{Key, SaslMechanism};
use crate::encode::Format;

/// A Kafka topic, one record an event.
#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(in crate::config) struct Kafka {
    /// Some of the cluster's brokers, as `HOST:PORT`; the others are learnt from them.
    #[schemars(length(min = 1))]
    pub brokers: Vec<Written<Broker>>,
    /// The topic.
    pub topic: Written<TopicName>,
    /// How an event is written.
    #[serde(default)]
    pub format: Format,
    /// Whether the record's own text is inside the event.
    #[serde(default = "yes")]
    pub raw: bool,
    /// What a record's key is. Records with the same key go to the same partition, in order; the partition is
    /// the one that Java's client would choose.
    #[serde(default)]
    pub key: Key,
    /// Whether events and cursors are committed in one transaction, so that consumers of committed records see
    /// each event once. Needs `checkpoint.kafka` on the same cluster. Default: true where that is so.
    pub exactly_once: Option<bool>,
    /// Creates the topic if it is missing. Default: a missing topic is an error.
    pub create: Option<CreateTopic>,
    /// Encrypts connections; `tls: {}` trusts the system's certificate authorities. Default: plain text.
    pub tls: Option<KafkaTls>,
    /// How connections prove themselves. Default: not at all.
    pub sasl: Option<Sasl>,
    /// More properties of librdkafka, by their own names. The few that delivery depends on are refused.
    #[serde(default)]
    pub properties: BTreeMap<String, Written<Property>>,
}

/// How a missing topic is created.
#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(in crate::config) struct CreateTopic {
    /// Its partitions.
    #[schemars(range(min = 1, max = 10_000))]
    pub partitions: u32,
    /// Its replicas. Default: the cluster's own default.
    #[schemars(range(min = 1, max = 100))]
    pub replication: Option<u16>,
    /// Its settings, by Kafka's names, such as `retention.ms`.
    #[serde(default)]
    pub config: BTreeMap<String, Written<Property>>,
}

/// TLS to the brokers.
#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(in crate::config) struct KafkaTls {
    /// A PEM file of certificate authorities to trust instead of the system's.
    #[schemars(length(min = 1))]
    pub ca_file: Option<PathBuf>,
    /// A PEM file with the certificate that this client shows (mTLS), and those that vouch for it.
    #[schemars(length(min = 1))]
    pub certificate_file: Option<PathBuf>,
    /// The PEM file with its private key.
    #[schemars(length(min = 1))]
    pub key_file: Option<PathBuf>,
    /// The password of the private key. Default: it has none.
    pub key_password: Option<SecretEntry>,
}

/// SASL to the brokers.
#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(in crate::config) struct Sasl {
    /// The SASL mechanism.
    pub mechanism: SaslMechanism,
    /// The user. Not for OAUTHBEARER.
    #[schemars(length(min = 1))]
    pub username: Option<String>,
    /// The user's password. Not for OAUTHBEARER.
    pub password: Option<SecretEntry>,
    /// The token, for OAUTHBEARER alone: a JWT, such as a projected Kubernetes service account token. A file is read
    /// again before the token expires.
    pub token: Option<SecretEntry>,
}

/// Cursors in a compacted Kafka topic.
#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(in crate::config) struct KafkaCheckpoint {
    /// Some of the cluster's brokers, as `HOST:PORT`; the others are learnt from them.
    #[schemars(length(min = 1))]
    pub brokers: Vec<Written<Broker>>,
    /// The state topic; created if missing.
    #[serde(default = "state_topic")]
    pub topic: Written<TopicName>,
    /// The consumer group of the replicas that share the streams, and what their transactional ids begin with.
    #[serde(default = "group")]
    #[schemars(length(min = 1))]
    pub group: String,
    /// This replica's name within the group: a replica that comes back under the same name within `session_timeout` finds
    /// its streams where it left them. Each replica needs its own. Default: the host's name.
    #[schemars(length(min = 1))]
    pub instance_id: Option<String>,
    /// A replica that gives no sign of life for so long loses its streams to the others. Brokers accept 6 s to 30 min
    /// unless set otherwise.
    #[serde(default = "seconds::<45>")]
    pub session_timeout: Written<Duration>,
    /// How long brokers keep the transaction of a replica open that gives no sign of life. Until then consumers of
    /// committed records do not see what came after it. At most the brokers' `transaction.max.timeout.ms`, which is 15 min unless set.
    #[serde(default = "seconds::<60>")]
    pub transaction_timeout: Written<Duration>,
    /// The partitions of a state topic that is created: the most replicas among which streams can be shared.
    /// Cannot be changed later.
    #[serde(default = "state_partitions")]
    #[schemars(range(min = 1, max = 1000))]
    pub partitions: u32,
    /// The replicas of a state topic that is created. Default: the cluster's own default.
    #[schemars(range(min = 1, max = 100))]
    pub replication: Option<u16>,
    /// Encrypts connections; `tls: {}` trusts the system's certificate authorities. Default: plain text.
    pub tls: Option<KafkaTls>,
    /// How connections prove themselves. Default: not at all.
    pub sasl: Option<Sasl>,
    /// More properties of librdkafka, by their own names. The few that delivery depends on are refused.
    #[serde(default)]
    pub properties: BTreeMap<String, Written<Property>>,
}

fn state_topic() -> Written<TopicName> {
    Written(TopicName("trailcast-state".to_owned()))
}

fn group() -> String {
    "trailcast".to_owned()
}

const fn state_partitions() -> u32 {
    8
}
