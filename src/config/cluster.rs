//! What a config says of Kafka: clusters, topics, and the checkpoint that is one.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::Secret;
use crate::encode::Format;

/// A Kafka topic, one record an event.
#[derive(Debug, Clone)]
pub struct KafkaConfig {
    /// The cluster, and how to get in.
    pub cluster: ClusterConfig,
    /// The topic.
    pub topic: String,
    /// How an event is written. Default OCSF.
    pub format: Format,
    /// Whether the record's own text is inside the event. Default true.
    pub raw: bool,
    /// What a record's key is. Default: the actor.
    pub key: Key,
    /// Whether events and cursors go in one transaction. Default: whether the checkpoint is on the same cluster.
    pub exactly_once: bool,
    /// How to create the topic if it is missing. Default: not at all.
    pub create: Option<CreateTopicConfig>,
}

/// A Kafka cluster, and how to get in.
#[derive(Debug, Clone)]
pub struct ClusterConfig {
    /// Some brokers, `HOST:PORT`; at least one.
    pub brokers: Vec<String>,
    /// Encrypted, if so configured.
    pub tls: Option<KafkaTlsConfig>,
    /// How connections prove themselves.
    pub sasl: Option<SaslConfig>,
    /// More properties of librdkafka, none of which trailcast must own.
    pub properties: BTreeMap<String, String>,
}

/// TLS to brokers.
#[derive(Debug, Clone)]
pub struct KafkaTlsConfig {
    /// Trusted instead of the system's authorities.
    pub ca_file: Option<PathBuf>,
    /// What this client shows (mTLS).
    pub certificate_file: Option<PathBuf>,
    /// Its private key.
    pub key_file: Option<PathBuf>,
    /// The private key's password.
    pub key_password: Option<Secret>,
}

/// SASL to brokers.
#[derive(Debug, Clone)]
pub enum SaslConfig {
    /// PLAIN or SCRAM: what Kafka calls the mechanism, and a user.
    Password {
        /// Which of them.
        mechanism: SaslMechanism,
        /// Who.
        username: String,
        /// The password.
        password: Secret,
    },
    /// OAUTHBEARER with this token.
    Token(Secret),
}

/// The ways in that librdkafka has without more system libraries.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum SaslMechanism {
    /// The password itself: only with `tls`.
    #[serde(rename = "PLAIN")]
    Plain,
    /// A challenge; the password does not cross the network.
    #[serde(rename = "SCRAM-SHA-256")]
    ScramSha256,
    /// The same with a longer hash.
    #[serde(rename = "SCRAM-SHA-512")]
    ScramSha512,
    /// A bearer token.
    #[serde(rename = "OAUTHBEARER")]
    Oauthbearer,
}

/// What the key of a Kafka record is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Key {
    /// Who acted: the user's id, else name, else e-mail address; none where the record names nobody.
    #[default]
    Actor,
    /// The event's id.
    Id,
    /// The stream's name.
    Stream,
    /// No key: spread over all partitions.
    None,
}

/// How a topic is created.
#[derive(Debug, Clone)]
pub struct CreateTopicConfig {
    /// Its partitions.
    pub partitions: u32,
    /// Its replicas. Default: the cluster's.
    pub replication: Option<u16>,
    /// Its settings by Kafka's names.
    pub config: BTreeMap<String, String>,
}

/// Cursors in a compacted Kafka topic.
#[derive(Debug, Clone)]
pub struct KafkaCheckpointConfig {
    /// The cluster, and how to get in.
    pub cluster: ClusterConfig,
    /// The state topic. Default `trailcast-state`.
    pub topic: String,
    /// The consumer group of the replicas. Default `trailcast`.
    pub group: String,
    /// This replica's name in the group. Default: the host's name.
    pub instance_id: Option<String>,
    /// After which silence a replica has lost its streams. Default 45 s.
    pub session_timeout: Duration,
    /// How long brokers keep an open transaction of a replica that is not heard of. Default 60 s.
    pub transaction_timeout: Duration,
    /// The partitions of a topic that is created. Default 8.
    pub partitions: u32,
    /// The replicas of a topic that is created. Default: the cluster's.
    pub replication: Option<u16>,
}

impl KafkaCheckpointConfig {
    /// What a producer of transactions is to be told beside the cluster's own properties.
    #[must_use]
    pub fn transaction_properties(&self) -> Vec<(String, String)> {
        let timeout = self.transaction_timeout.as_millis();
        let mut properties = vec![("transaction.timeout.ms", timeout)];
        // librdkafka wants neither a message nor a request to outlive the transaction.
        for (name, usual) in [("message.timeout.ms", 20_000), ("socket.timeout.ms", 30_000)] {
            if timeout < usual {
                properties.push((name, timeout));
            }
        }
        properties.into_iter().map(|(name, millis)| (name.to_owned(), millis.to_string())).collect()
    }
}
