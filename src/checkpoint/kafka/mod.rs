//! The checkpoint in Kafka: a compacted topic, shared by the replicas of a group.
//!
//! A stream belongs to one partition of the state topic, by its name. Whoever has the partition holds its state in
//! memory and is the only one who writes it: see [`Partition`]. Each entry of the key-value map is a record with the
//! same key and value; a deletion is a tombstone. Beside the entries each partition holds:
//!
//! | key | value |
//! | --- | --- |
//! | `format` | the format's number and the count of partitions, which decide where a stream's state is |
//! | `owner` | who took the partition last, and when |

mod partition;
mod store;

use std::collections::BTreeMap;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

pub use partition::{After, Answer, Partition, TransactError, Work};
pub use store::KafkaStore;

use super::{CheckpointError, MemoryStore};
use crate::clock;
use crate::config::{CreateTopicConfig, KafkaCheckpointConfig};
use crate::kafka::{Cluster, Failure, Message, Producer, Read, Topic, TopicError};

/// The newest format of the state that this version reads, and the one that it writes.
const FORMAT: u64 = 1;
/// Keys of the map begin with another letter.
const FORMAT_KEY: &[u8] = b"format";
const OWNER_KEY: &[u8] = b"owner";

/// The state topic, there and set as it must be.
#[derive(Debug, Clone)]
pub struct StateTopic {
    config: KafkaCheckpointConfig,
    partitions: u32,
    letters: LetterTopic,
}

/// The topic of dead letters on the same cluster.
#[derive(Debug, Clone)]
pub struct LetterTopic {
    /// Its name; empty where dead letters are kept in files.
    pub name: Arc<str>,
    /// The largest value that fits for sure, in bytes.
    pub largest: usize,
}

#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Format {
    format: u64,
    partitions: u32,
}

/// Who took a partition, and when.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Owner {
    /// The replica's name in the group.
    pub instance: String,
    /// Milliseconds since the epoch, by its own clock.
    pub taken_at: i64,
    /// Tells this taking from any other.
    pub nonce: u64,
}

/// A record of the state topic.
pub enum Entry<'a> {
    /// Of the map.
    Map,
    /// Who took the partition.
    Owner(Option<Owner>),
    /// Which format it has, or what it says instead.
    Format(&'a [u8]),
}

impl<'a> Entry<'a> {
    /// Sorts a record by its key.
    #[must_use]
    pub fn of(read: &Read<'a>) -> Self {
        match read.key {
            OWNER_KEY => Self::Owner(read.value.and_then(|value| serde_json::from_slice(value).ok())),
            FORMAT_KEY => Self::Format(read.value.unwrap_or_default()),
            _ => Self::Map,
        }
    }
}

impl StateTopic {
    /// Looks the topic up, and that of dead letters if they go to one, and makes what is missing. Blocks.
    ///
    /// # Errors
    /// One cannot be looked up or made, or is set so that it would lose state.
    pub fn open(config: &KafkaCheckpointConfig, letters: Option<&str>) -> Result<Self, CheckpointError> {
        let cluster = Cluster::new(&config.cluster)?;
        let topic = match cluster.topic_or_create(&config.topic, &creation(config)) {
            Ok(topic) => topic,
            Err(TopicError::Failed(failure)) => return Err(failure.into()),
            Err(TopicError::Missing(_)) => return Err(CheckpointError::NoStateTopic(config.topic.clone())),
        };
        check(&topic)?;
        let letters = match letters {
            Some(name) => open_letters(&cluster, name, config)?,
            None => LetterTopic { name: "".into(), largest: 0 },
        };
        Ok(Self { config: config.clone(), partitions: topic.partitions, letters })
    }

    /// Its config.
    #[must_use]
    pub const fn config(&self) -> &KafkaCheckpointConfig {
        &self.config
    }

    /// How many partitions it has.
    #[must_use]
    pub const fn partitions(&self) -> u32 {
        self.partitions
    }

    /// Where a stream's state is.
    #[must_use]
    pub fn partition_of(&self, stream: &str) -> i32 {
        let mut hash = [0; 8];
        hash.copy_from_slice(&blake3::hash(stream.as_bytes()).as_bytes()[..8]);
        let partition = u64::from_be_bytes(hash) % u64::from(self.partitions.max(1));
        i32::try_from(partition).expect("Kafka numbers partitions in 31 bits")
    }

    /// The name under which a partition's transactions are made.
    #[must_use]
    pub fn transactional_id(&self, partition: i32) -> String {
        format!("{}-{partition}", self.config.group)
    }

    /// Reads a partition's state without taking it: as it was at some moment of the call. Blocks.
    ///
    /// # Errors
    /// It cannot be read, or is of another format.
    pub fn read(&self, partition: i32) -> Result<MemoryStore, CheckpointError> {
        self.load(partition, None)
    }

    /// Takes a partition: fences whoever has it, ends the transaction that was open there, then reads the state up to
    /// what this very taking has committed. `properties` go to its producer beside the cluster's own; `largest` is the
    /// smallest limit of the topics it will write to. Blocks.
    ///
    /// # Errors
    /// The cluster does not answer, or refuses; or the state is of another format.
    pub fn take(
        &self,
        partition: i32,
        instance: &str,
        properties: &BTreeMap<String, String>,
        largest: Option<u64>,
    ) -> Result<Partition, CheckpointError> {
        let properties: Vec<_> = properties.iter().map(|(name, value)| (name.clone(), value.clone())).collect();
        let id = self.transactional_id(partition);
        let producer = Producer::new(&self.config.cluster, &properties, largest, Some(&id))?;
        let failed = |error| Failure::new(&format!("take partition {partition}"), &error, producer.context());
        producer.begin_anew().map_err(failed)?;
        // Read up to this mark, the state is all that was ever committed, whatever a broker that has just become the
        // leader believes the end to be.
        let owner = Owner { instance: instance.to_owned(), taken_at: clock::now(), nonce: rand::random() };
        producer.begin().map_err(failed)?;
        let mark = self.message(partition, OWNER_KEY.to_vec(), serde_json::to_vec(&owner).ok());
        let report = producer.send(&[mark], |_| true).map_err(failed)?;
        if let Some(refused) = report.refused(&producer)?.first() {
            return Err(CheckpointError::Refused(refused.message.clone()));
        }
        producer.commit().map_err(failed)?;
        let state = self.load(partition, Some(&owner))?;
        Ok(Partition::start(self.clone(), partition, producer, state))
    }

    /// Until `mark`, or else to the end as it is.
    fn load(&self, partition: i32, mark: Option<&Owner>) -> Result<MemoryStore, CheckpointError> {
        let state = MemoryStore::default();
        let mut format = Ok(());
        let visit = &mut |read: Read<'_>| {
            match Entry::of(&read) {
                Entry::Owner(owner) => return mark.is_some() && owner.as_ref() == mark,
                Entry::Format(value) => format = self.check_format(value),
                Entry::Map => state.put(read.key, read.value),
            }
            false
        };
        let KafkaCheckpointConfig { cluster, group, topic, .. } = &self.config;
        Cluster::new(cluster)?.read_partition(group, (topic, partition), mark.is_some(), visit)?;
        format?;
        Ok(state)
    }

    fn check_format(&self, value: &[u8]) -> Result<(), CheckpointError> {
        let topic = || self.config.topic.clone();
        match serde_json::from_slice(value) {
            Ok(Format { format: FORMAT, partitions }) if partitions == self.partitions => Ok(()),
            Ok(Format { format: FORMAT, partitions }) => {
                Err(CheckpointError::Partitions { topic: topic(), was: partitions, is: self.partitions })
            }
            Ok(Format { format, .. }) => {
                Err(CheckpointError::NewerState { topic: topic(), found: format, known: FORMAT })
            }
            Err(_) => Err(CheckpointError::NewerState { topic: topic(), found: 0, known: FORMAT }),
        }
    }

    fn format_message(&self, partition: i32) -> Message {
        let format = Format { format: FORMAT, partitions: self.partitions };
        self.message(partition, FORMAT_KEY.to_vec(), serde_json::to_vec(&format).ok())
    }

    fn message(&self, partition: i32, key: Vec<u8>, value: Option<Vec<u8>>) -> Message {
        let topic = self.config.topic.as_str().into();
        Message { topic, partition: Some(partition), key: Some(key), value, ..Message::default() }
    }
}

fn open_letters(cluster: &Cluster, name: &str, config: &KafkaCheckpointConfig) -> Result<LetterTopic, CheckpointError> {
    /// For a record's head and key.
    const MARGIN: u64 = 256;
    let create = CreateTopicConfig {
        partitions: 1,
        replication: config.replication,
        // They are kept until a tombstone says that one has been dealt with.
        config: [("cleanup.policy".to_owned(), "compact".to_owned())].into(),
    };
    match cluster.topic_or_create(name, &create) {
        Ok(topic) => {
            let largest = topic.largest().unwrap_or(KAFKA_DEFAULT_LARGEST).saturating_sub(MARGIN);
            Ok(LetterTopic { name: name.into(), largest: usize::try_from(largest).unwrap_or(usize::MAX) })
        }
        Err(TopicError::Failed(failure)) => Err(failure.into()),
        Err(TopicError::Missing(name)) => Err(CheckpointError::NoLettersTopic(name)),
    }
}

/// `message.max.bytes` of a broker that was told nothing else.
const KAFKA_DEFAULT_LARGEST: u64 = 1_048_588;

/// How a missing state topic is made.
fn creation(config: &KafkaCheckpointConfig) -> CreateTopicConfig {
    let settings = [
        ("cleanup.policy", "compact"),
        // State is small and changes all the time: compacted early and in small segments, it is read quickly.
        ("segment.bytes", "16777216"),
        ("min.cleanable.dirty.ratio", "0.1"),
    ];
    CreateTopicConfig {
        partitions: config.partitions,
        replication: config.replication,
        config: settings.map(|(name, value)| (name.to_owned(), value.to_owned())).into(),
    }
}

/// Whether a topic that someone else made keeps what it must.
///
/// # Errors
/// It would lose state.
pub fn check(topic: &Topic) -> Result<(), CheckpointError> {
    match topic.setting("cleanup.policy") {
        // Without the right to look, what is documented must be trusted.
        None | Some("compact") => Ok(()),
        Some(policy) => Err(CheckpointError::StatePolicy { topic: topic.name.clone(), policy: policy.to_owned() }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::ClusterConfig;

    pub(super) fn topic(partitions: u32) -> StateTopic {
        let cluster =
            ClusterConfig { brokers: vec!["b:1".to_owned()], tls: None, sasl: None, properties: BTreeMap::default() };
        let config = KafkaCheckpointConfig {
            cluster,
            topic: "state".to_owned(),
            group: "g".to_owned(),
            instance_id: None,
            session_timeout: std::time::Duration::from_secs(45),
            partitions,
            replication: None,
        };
        let letters = LetterTopic { name: "".into(), largest: 0 };
        StateTopic { config, partitions, letters }
    }

    /// A stream that is looked for in another partition begins anew.
    #[test]
    fn golden_partitions_never_change() {
        let partitions = |count| ["users", "cloud", "a", ""].map(|stream| topic(count).partition_of(stream));
        assert_eq!(partitions(8), [3, 4, 3, 6]);
        assert_eq!(partitions(1), [0; 4]);
        assert_eq!(topic(8).transactional_id(3), "g-3");
    }

    #[test]
    fn only_state_that_is_understood_is_loaded() {
        let topic = topic(8);
        let ours = topic.format_message(0).value.unwrap();
        assert_eq!(ours, br#"{"format":1,"partitions":8}"#);
        assert!(topic.check_format(&ours).is_ok());
        let was = topic.check_format(br#"{"format":1,"partitions":6}"#);
        assert!(matches!(was, Err(CheckpointError::Partitions { was: 6, is: 8, .. })), "{was:?}");
        let newer = topic.check_format(br#"{"format":2,"partitions":8,"more":1}"#);
        assert!(matches!(newer, Err(CheckpointError::NewerState { found: 2, known: 1, .. })), "{newer:?}");
        assert!(topic.check_format(b"?").is_err());
    }

    #[test]
    fn a_topic_that_forgets_is_refused() {
        let with = |policy: &str| Topic {
            settings: Some([("cleanup.policy".to_owned(), policy.to_owned())].into()),
            ..Topic::default()
        };
        assert!(check(&with("compact")).is_ok() && check(&Topic::default()).is_ok());
        for policy in ["delete", "compact,delete"] {
            let error = check(&with(policy)).unwrap_err().to_string();
            assert!(error.contains(policy) && error.contains("--add-config cleanup.policy=compact"), "{error}");
        }
    }
}
