//! The checkpoint in Kafka: a compacted topic, shared by the replicas of a group.
//!
//! A stream belongs to one partition of the state topic, by its name. Whoever has the partition holds its state in
//! memory and is the only one who writes it: see [`Partition`]. Each entry of the key-value map is a record with the
//! same key and value; a deletion is a tombstone. Beside the entries each partition holds:
//!
//! | key | value |
//! | --- | --- |
//! | `format` | the format's number, the count of partitions, which decide where a stream's state is, and the group |
//! | `position` | which state it is, how many commits it counts, and what its entries add up to: see `position` |
//! | `owner` | who took the partition last, and when |
//!
//! Which state it is and how far it is known to be is also kept outside: as an offset of the group `<group>-<partition>`
//! on the topic of dead letters, which outlives the state topic. So a state topic that was deleted, even if it was made
//! again, or put back from an older copy, is noticed when a partition is taken or looked at.

mod partition;
mod position;
mod store;

use std::collections::BTreeMap;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

pub use partition::{After, Answer, Partition, TransactError, Work};
pub use position::Standing;
pub use store::KafkaStore;

use super::{CheckpointError, Doubt, MemoryStore};
use crate::clock;
use crate::config::{CreateTopicConfig, KafkaCheckpointConfig};
use crate::kafka::{Bookmark, Cluster, Failure, Message, Producer, Read, Topic, TopicError};
use position::{Position, Sum, judge};

/// The newest format of the state that this version reads, and the one that it writes.
const FORMAT: u64 = 2;
/// The format that knew no position and no group; the only other one that is read.
const WITHOUT_POSITION: u64 = 1;
/// Keys of the map begin with another letter.
const FORMAT_KEY: &[u8] = b"format";
const OWNER_KEY: &[u8] = b"owner";
const POSITION_KEY: &[u8] = b"position";

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
    #[serde(default, skip_serializing_if = "Option::is_none")]
    group: Option<String>,
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
    /// How far the state is, if it says so.
    Position(Option<&'a [u8]>),
}

/// A partition's state as it was read, and which it is.
struct Loaded {
    state: MemoryStore,
    standing: Standing,
}

impl<'a> Entry<'a> {
    /// Sorts a record by its key.
    #[must_use]
    pub fn of(read: &Read<'a>) -> Self {
        match read.key {
            OWNER_KEY => Self::Owner(read.value.and_then(|value| serde_json::from_slice(value).ok())),
            FORMAT_KEY => Self::Format(read.value.unwrap_or_default()),
            POSITION_KEY => Self::Position(read.value),
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
        Self::open_as(config, letters, true)
    }

    /// As it is, to be looked at. A topic that is missing holds nothing in as many partitions as it would be made with.
    fn found(config: &KafkaCheckpointConfig, letters: Option<&str>) -> Result<Self, CheckpointError> {
        let cluster = Cluster::new(&config.cluster)?;
        let letters = letters.filter(|letters| cluster.topic(letters).is_ok()).unwrap_or_default();
        let letters = LetterTopic { name: letters.into(), largest: 0 };
        let found = |partitions| Self { config: config.clone(), partitions, letters };
        match cluster.topic(&config.topic) {
            Ok(topic) => {
                let found = found(topic.partitions);
                found.check_layout(&cluster, true)?;
                Ok(found)
            }
            Err(TopicError::Failed(failure)) => Err(failure.into()),
            Err(_) => {
                let would_be = found(config.partitions);
                for partition in would_be.numbers() {
                    if would_be.bookmark(partition)?.1.is_some() {
                        let place = format!("the topic `{}`", config.topic);
                        return Err(CheckpointError::Doubted {
                            key: "checkpoint.kafka.topic",
                            place,
                            doubt: Doubt::Gone,
                        });
                    }
                }
                Ok(Self { partitions: 0, ..would_be })
            }
        }
    }

    /// As it was before partitions were added, to be read only.
    fn of_before(config: &KafkaCheckpointConfig, partitions: u32) -> Self {
        Self { config: config.clone(), partitions, letters: LetterTopic { name: "".into(), largest: 0 } }
    }

    fn open_as(config: &KafkaCheckpointConfig, letters: Option<&str>, doubts: bool) -> Result<Self, CheckpointError> {
        let cluster = Cluster::new(&config.cluster)?;
        let topic = match cluster.topic_or_create(&config.topic, &creation(config)) {
            Ok(topic) => topic,
            Err(TopicError::Failed(failure)) => return Err(failure.into()),
            Err(TopicError::Missing(_) | TopicError::Compacts(_)) => {
                return Err(CheckpointError::NoStateTopic(config.topic.clone()));
            }
        };
        check(&topic)?;
        let letters = match letters {
            Some(name) => open_letters(&cluster, name, config)?,
            None => LetterTopic { name: "".into(), largest: 0 },
        };
        let opened = Self { config: config.clone(), partitions: topic.partitions, letters };
        opened.check_layout(&cluster, doubts)?;
        Ok(opened)
    }

    /// Whether partitions were added: those hold nothing, and what the others hold was written when they were fewer.
    fn check_layout(&self, cluster: &Cluster, doubts: bool) -> Result<(), CheckpointError> {
        let ends = cluster.ends(&self.config.topic, self.partitions)?;
        if !ends.contains(&0) {
            return Ok(());
        }
        for (partition, _) in (0..).zip(&ends).filter(|(_, end)| **end > 0) {
            let mut found = None;
            let visit = &mut |read: Read<'_>| {
                if let Entry::Format(value) = Entry::of(&read) {
                    found = Some(self.check_format(value, doubts));
                }
                found.is_some()
            };
            cluster.read_partition(&self.config.group, (&self.config.topic, partition), false, visit)?;
            if let Some(found) = found {
                return found;
            }
        }
        Ok(())
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

    /// The numbers of its partitions.
    fn numbers(&self) -> std::ops::Range<i32> {
        0..i32::try_from(self.partitions).expect("Kafka numbers partitions in 31 bits")
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

    /// Reads a partition's state without taking it: as it was at some moment of the call. Blocks. `known` is what is
    /// known of it beside what the group says; without `doubts` it counts whatever it is.
    ///
    /// # Errors
    /// It cannot be read, is of another format or group, or is not what was kept there before.
    pub fn read(&self, partition: i32, doubts: bool) -> Result<MemoryStore, CheckpointError> {
        // Looked at before the state: what the state says may only be further.
        let known = if doubts { self.bookmark(partition)?.1 } else { None };
        Ok(self.load(partition, None, known, doubts)?.state)
    }

    /// What the group says of a partition's state, and the means to say more. Blocks.
    fn bookmark(&self, partition: i32) -> Result<(Option<Bookmark>, Option<Standing>), CheckpointError> {
        let group = self.transactional_id(partition);
        // Without a topic of dead letters all that is left is the state topic itself, which does not outlive itself.
        let (topic, place) = match &*self.letters.name {
            "" => (self.config.topic.as_str(), partition),
            letters => (letters, 0),
        };
        let found = Bookmark::look_up(&self.config.cluster, &group, (topic, place))?;
        let standing = found.as_ref().and_then(|(_, said)| said.as_ref());
        let standing = standing.and_then(|(offset, text)| Standing::of_offset(*offset, text));
        Ok((found.map(|(bookmark, _)| bookmark), standing))
    }

    /// Takes a partition: fences whoever has it, ends the transaction that was open there, then reads the state up to
    /// what this very taking has committed. `properties` go to its producer beside the cluster's own; `largest` is the
    /// smallest limit of the topics it will write to. Blocks. What is found must be what the group and `belief` know.
    ///
    /// # Errors
    /// The cluster does not answer, or refuses; or the state is of another format or group, or is not what was kept there
    /// before.
    pub fn take(
        &self,
        partition: i32,
        instance: &str,
        properties: &BTreeMap<String, String>,
        largest: Option<u64>,
        belief: Belief,
    ) -> Result<Partition, CheckpointError> {
        let mut properties: Vec<_> = properties.iter().map(|(name, value)| (name.clone(), value.clone())).collect();
        properties.extend(self.config.transaction_properties());
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
        // Nobody else can say more of it by now.
        let (bookmark, known) = self.bookmark(partition)?;
        let (doubts, known) = match belief {
            Belief::Accept => (false, None),
            Belief::Known(before) => (true, further(known, before)),
        };
        let Loaded { state, standing } = self.load(partition, Some(&owner), known, doubts)?;
        Ok(Partition::start(self.clone(), partition, producer, state, standing, bookmark))
    }

    /// Until `mark`, or else to the end as it is.
    fn load(
        &self,
        partition: i32,
        mark: Option<&Owner>,
        known: Option<Standing>,
        doubts: bool,
    ) -> Result<Loaded, CheckpointError> {
        let state = MemoryStore::default();
        let mut format = Ok(());
        let mut position: Option<Result<Position, _>> = None;
        let visit = &mut |read: Read<'_>| {
            match Entry::of(&read) {
                Entry::Owner(owner) => return mark.is_some() && owner.as_ref() == mark,
                Entry::Format(value) => format = self.check_format(value, doubts),
                Entry::Position(value) => position = value.map(serde_json::from_slice),
                Entry::Map => state.put(read.key, read.value),
            }
            false
        };
        let KafkaCheckpointConfig { cluster, group, topic, .. } = &self.config;
        Cluster::new(cluster)?.read_partition(group, (topic, partition), mark.is_some(), visit)?;
        format?;
        let sum = Sum::of(&state);
        let doubted = |doubt| CheckpointError::Doubted {
            key: "checkpoint.kafka.topic",
            place: format!("partition {partition} of `{}`", self.config.topic),
            doubt,
        };
        let standing = match (&position, doubts) {
            (Some(Err(_)), true) => return Err(doubted(Doubt::Torn)),
            (Some(Ok(position)), false) => Standing { identity: position.identity, commits: position.commits },
            (Some(Ok(position)), true) => judge(sum, Some(position), known).map_err(doubted)?,
            (None | Some(Err(_)), _) => judge(sum, None, known).map_err(doubted)?,
        };
        Ok(Loaded { state, standing })
    }

    fn check_format(&self, value: &[u8], doubts: bool) -> Result<(), CheckpointError> {
        let topic = || self.config.topic.clone();
        match serde_json::from_slice(value) {
            Ok(Format { format: FORMAT | WITHOUT_POSITION, group: Some(theirs), .. })
                if doubts && theirs != self.config.group =>
            {
                Err(CheckpointError::OtherGroup { topic: topic(), theirs, ours: self.config.group.clone() })
            }
            Ok(Format { format: FORMAT | WITHOUT_POSITION, partitions, .. }) if partitions == self.partitions => Ok(()),
            Ok(Format { format: FORMAT | WITHOUT_POSITION, partitions, .. }) => {
                Err(CheckpointError::Partitions { topic: topic(), was: partitions, is: self.partitions })
            }
            Ok(Format { format, .. }) => {
                Err(CheckpointError::NewerState { topic: topic(), found: format, known: FORMAT })
            }
            Err(_) => Err(CheckpointError::NewerState { topic: topic(), found: 0, known: FORMAT }),
        }
    }

    fn format_message(&self, partition: i32) -> Message {
        let group = Some(self.config.group.clone());
        let format = Format { format: FORMAT, partitions: self.partitions, group };
        self.message(partition, FORMAT_KEY.to_vec(), serde_json::to_vec(&format).ok())
    }

    fn message(&self, partition: i32, key: Vec<u8>, value: Option<Vec<u8>>) -> Message {
        let topic = self.config.topic.as_str().into();
        Message { topic, partition: Some(partition), key: Some(key), value, ..Message::default() }
    }
}

/// Of what the group knows and what this process knows from before: the further, if both are of one state; else what the
/// group knows, since another state may have been accepted meanwhile.
fn further(group: Option<Standing>, before: Option<Standing>) -> Option<Standing> {
    match (group, before) {
        (Some(group), Some(before)) if group.identity == before.identity => {
            Some(if before.commits > group.commits { before } else { group })
        }
        (group, before) => group.or(before),
    }
}

/// What a state is held against when its partition is taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Belief {
    /// It must be what the group knows, and what this process knows of it from before.
    Known(Option<Standing>),
    /// Whatever it is counts from now on.
    Accept,
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
        Err(TopicError::Missing(name) | TopicError::Compacts(name)) => Err(CheckpointError::NoLettersTopic(name)),
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

/// Whatever a record of the topic holds, and whatever stands beside its offset.
#[cfg(any(test, fuzzing))]
pub(crate) fn reads_what_it_finds(data: &[u8]) {
    for key in [OWNER_KEY, FORMAT_KEY, POSITION_KEY, data] {
        let entry = Entry::of(&Read { offset: 0, timestamp: None, key, value: Some(data) });
        assert_eq!(matches!(entry, Entry::Map), key == data);
    }
    let _ = (serde_json::from_slice::<Format>(data).is_ok(), serde_json::from_slice::<Position>(data).is_ok());
    if let Some(standing) = std::str::from_utf8(data).ok().and_then(|text| Standing::of_offset(7, text)) {
        let (offset, text) = standing.to_offset();
        assert_eq!(Standing::of_offset(offset, &text), Some(standing));
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
            transaction_timeout: std::time::Duration::from_secs(60),
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
        assert_eq!(ours, br#"{"format":2,"partitions":8,"group":"g"}"#);
        assert!(topic.check_format(&ours, true).is_ok());
        assert!(topic.check_format(br#"{"format":1,"partitions":8}"#, true).is_ok(), "of 0.1.0");
        let theirs = topic.check_format(br#"{"format":2,"partitions":8,"group":"h"}"#, true);
        assert!(matches!(&theirs, Err(CheckpointError::OtherGroup { theirs, .. }) if theirs == "h"), "{theirs:?}");
        assert!(topic.check_format(br#"{"format":2,"partitions":8,"group":"h"}"#, false).is_ok(), "accepted");
        let was = topic.check_format(br#"{"format":1,"partitions":6}"#, true);
        assert!(matches!(was, Err(CheckpointError::Partitions { was: 6, is: 8, .. })), "{was:?}");
        let newer = topic.check_format(br#"{"format":3,"partitions":8,"more":1}"#, false);
        assert!(matches!(newer, Err(CheckpointError::NewerState { found: 3, known: 2, .. })), "{newer:?}");
        assert!(topic.check_format(b"?", false).is_err());
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
