//! The whole state topic as one store, for commands.
//!
//! Reading takes nothing from anyone. A commit takes the partition for a moment: a replica that runs there is fenced,
//! takes the partition again, and goes on from what was committed here.

use std::collections::BTreeMap;
use std::ops::Range;

use super::StateTopic;
use crate::checkpoint::{Changes, CheckpointError, MemoryStore, Store};
use crate::config::KafkaCheckpointConfig;
use crate::state::store::LaneKey;

/// See the module.
pub struct KafkaStore {
    topic: StateTopic,
    state: MemoryStore,
}

impl KafkaStore {
    /// Reads all partitions. Blocks.
    ///
    /// # Errors
    /// The topic cannot be read.
    pub fn open(config: &KafkaCheckpointConfig) -> Result<Self, CheckpointError> {
        let topic = StateTopic::open(config, None)?;
        let state = MemoryStore::default();
        for partition in 0..topic.partitions() {
            let part = topic.read(i32::try_from(partition).expect("Kafka numbers partitions in 31 bits"))?;
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
            self.topic.take(partition, "a command", &BTreeMap::new(), None)?.commit(&changes)?;
            self.state.apply(&changes);
        }
        Ok(())
    }
}
