//! The whole state topic as one store, for commands.
//!
//! Reading takes nothing from anyone. A commit takes the partition for a moment: a replica that runs there is fenced,
//! takes the partition again, and goes on from what was committed here.

use std::collections::BTreeMap;
use std::ops::Range;

use super::{Belief, StateTopic};
use crate::checkpoint::{CheckpointError, MemoryStore, Store};
use crate::config::KafkaCheckpointConfig;
use crate::state::store::{Changes, LaneKey};

/// See the module.
pub struct KafkaStore {
    topic: StateTopic,
    state: MemoryStore,
}

impl KafkaStore {
    /// Reads all partitions. Blocks.
    ///
    /// # Errors
    /// The topic cannot be read, or is not what was kept there before.
    pub fn open(config: &KafkaCheckpointConfig, letters: Option<&str>) -> Result<Self, CheckpointError> {
        Self::read(StateTopic::open(config, letters)?)
    }

    /// Reads all partitions whatever they are, and has the group know that they are this from now on. Blocks.
    ///
    /// # Errors
    /// The topic cannot be read or written.
    pub fn accept(config: &KafkaCheckpointConfig, letters: Option<&str>) -> Result<(), CheckpointError> {
        let topic = StateTopic::open_as(config, letters, false)?;
        for partition in topic.numbers() {
            // A commit of nothing says which group and which state it is.
            topic.take(partition, "a command", &BTreeMap::new(), None, Belief::Accept)?.commit(&Changes::default())?;
        }
        Ok(())
    }

    /// Looks at all partitions, if there are any; how many. Makes nothing. Blocks.
    ///
    /// # Errors
    /// The topic cannot be read, or is not what was kept there before.
    pub fn look(config: &KafkaCheckpointConfig, letters: Option<&str>) -> Result<u32, CheckpointError> {
        let topic = StateTopic::found(config, letters)?;
        topic.numbers().try_for_each(|partition| topic.read(partition, true).map(drop))?;
        Ok(topic.partitions())
    }

    /// Reads all partitions, as they were before some were added, to be written elsewhere. Blocks.
    ///
    /// # Errors
    /// The topic cannot be read.
    pub fn salvage(config: &KafkaCheckpointConfig, letters: Option<&str>) -> Result<Self, CheckpointError> {
        let topic = match StateTopic::open(config, letters) {
            Err(CheckpointError::Partitions { was, .. }) => StateTopic::of_before(config, was),
            opened => opened?,
        };
        Self::read(topic)
    }

    fn read(topic: StateTopic) -> Result<Self, CheckpointError> {
        let state = MemoryStore::default();
        for partition in topic.numbers() {
            let part = topic.read(partition, true)?;
            part.scan(&[]..&[0xff], &mut |key, value| state.put(key, Some(value)))?;
        }
        Ok(Self { topic, state })
    }

    fn partition_of(&self, key: &[u8]) -> i32 {
        LaneKey::stream_of(key).map_or(0, |stream| self.topic.partition_of(&stream))
    }
}

impl Store for KafkaStore {
    fn get(&self, key: &[u8]) -> Result<Option<Vec<u8>>, CheckpointError> {
        self.state.get(key)
    }

    fn scan(&self, range: Range<&[u8]>, visit: &mut dyn FnMut(&[u8], &[u8])) -> Result<(), CheckpointError> {
        self.state.scan(range, visit)
    }

    /// All at once for each partition; a lane is in one.
    fn commit(&self, changes: &Changes) -> Result<(), CheckpointError> {
        let mut parts: BTreeMap<i32, Changes> = BTreeMap::new();
        for range in &changes.delete_ranges {
            parts.entry(self.partition_of(&range.start)).or_default().delete_ranges.push(range.clone());
        }
        for key in &changes.deletes {
            parts.entry(self.partition_of(key)).or_default().deletes.push(key.clone());
        }
        for (key, value) in &changes.puts {
            parts.entry(self.partition_of(key)).or_default().puts.push((key.clone(), value.clone()));
        }
        for (partition, changes) in parts {
            let belief = Belief::Known(None);
            self.topic.take(partition, "a command", &BTreeMap::new(), None, belief)?.commit(&changes)?;
            self.state.apply(&changes);
        }
        Ok(())
    }
}
