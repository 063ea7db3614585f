//! Where dead letters are, and dealing with them: one at a time does, and reads after it has begun.
//!
//! Every operation blocks.

use std::collections::HashMap;
use std::ops::ControlFlow;
use std::sync::Arc;

use super::super::CommandError;
use super::super::cursor::usage;
use crate::config::{CheckpointConfig, Config, DeadLettersConfig, KafkaCheckpointConfig};
use crate::dead_letter::{self, DeadLetter, LetterFiles};
use crate::kafka::{Cluster, Failure, Message, Producer, Read};
use crate::words::chain;

/// Where the letters are.
pub(super) enum Place {
    Files(Arc<LetterFiles>),
    Topic(Arc<LetterTopic>),
}

pub(super) struct LetterTopic {
    pub(super) checkpoint: Box<KafkaCheckpointConfig>,
    pub(super) topic: String,
}

/// Where a letter stands.
#[derive(Debug, Clone, Copy)]
pub(super) enum At {
    File(dead_letter::At),
    /// By its key.
    Topic,
}

/// A letter, as it is told to be done.
#[derive(Debug, Clone)]
pub(super) struct Told {
    at: At,
    key: Vec<u8>,
}

impl Told {
    pub(super) fn of(at: At, letter: &DeadLetter) -> Self {
        Self { at, key: letter.key() }
    }

    pub(super) fn key(&self) -> &[u8] {
        &self.key
    }
}

/// Dealing with letters; others wait, or are fenced.
pub(super) enum Dealing {
    Files(Arc<LetterFiles>, dead_letter::Dealing),
    Topic(Arc<LetterTopic>, Producer),
}

impl Place {
    pub(super) fn of(config: &Config) -> Result<Self, CommandError> {
        match (&config.dead_letters, &config.checkpoint) {
            (DeadLettersConfig::Files { path, max_file_size, max_size }, _) => {
                Ok(Self::Files(Arc::new(LetterFiles::new(path, *max_file_size, *max_size))))
            }
            (DeadLettersConfig::Topic(topic), CheckpointConfig::Kafka(kafka)) => {
                Ok(Self::Topic(Arc::new(LetterTopic { checkpoint: kafka.clone(), topic: topic.clone() })))
            }
            (DeadLettersConfig::Topic(_), _) => Err(usage("dead_letters.kafka needs checkpoint.kafka")),
        }
    }

    /// Shows all letters, one by one. Of a topic only where each stands is held.
    pub(super) fn visit(&self, visit: &mut dyn FnMut(At, DeadLetter) -> ControlFlow<()>) -> Result<(), String> {
        match self {
            Self::Files(files) => {
                files.visit(&mut |at, letter| visit(At::File(at), letter)).map_err(|error| chain(&error))
            }
            Self::Topic(topic) => topic.visit(&mut |letter| visit(At::Topic, letter)),
        }
    }

    /// Begins to deal with the letters: from here on nobody else does. `None` if there are none.
    pub(super) fn deal(&self) -> Result<Option<Dealing>, String> {
        match self {
            Self::Files(files) => {
                let wait = || tracing::warn!("another `trailcast dead-letters` deals with these: waits for its end");
                let dealing = files.deal(wait).map_err(|error| chain(&error))?;
                Ok(dealing.map(|dealing| Dealing::Files(Arc::clone(files), dealing)))
            }
            // Whoever was dealing with them is fenced, before anything is read.
            Self::Topic(topic) => Ok(Some(Dealing::Topic(Arc::clone(topic), topic.producer()?))),
        }
    }
}

impl LetterTopic {
    /// The one that may deal with the letters: fences whoever else did.
    pub(super) fn producer(&self) -> Result<Producer, String> {
        let id = format!("{}-dead-letters", self.checkpoint.group);
        let producer =
            Producer::new(&self.checkpoint.cluster, &self.checkpoint.transaction_properties(), None, Some(&id))
                .map_err(|error| error.to_string())?;
        producer
            .begin_anew()
            .map_err(|error| Failure::new("deal with dead letters", &error, producer.context()).to_string())?;
        Ok(producer)
    }

    pub(super) fn tombstone(&self, told: &Told) -> Message {
        Message { topic: self.topic.as_str().into(), key: Some(told.key.clone()), ..Message::default() }
    }

    fn visit(&self, visit: &mut dyn FnMut(DeadLetter) -> ControlFlow<()>) -> Result<(), String> {
        let cluster = Cluster::new(&self.checkpoint.cluster).map_err(|error| error.to_string())?;
        let found = cluster.topic(&self.topic).map_err(|error| chain(&error))?;
        for partition in 0..i32::try_from(found.partitions).unwrap_or(0) {
            let read = |visit: &mut dyn FnMut(Read<'_>) -> bool| {
                cluster
                    .read_partition(&self.checkpoint.group, (&self.topic, partition), false, visit)
                    .map_err(|error| error.to_string())
            };
            // The last of each key counts, and a key is in one partition.
            let mut last: HashMap<[u8; 16], i64> = HashMap::new();
            read(&mut |read| {
                if read.value.is_some() {
                    last.insert(short(read.key), read.offset);
                } else {
                    last.remove(&short(read.key));
                }
                false
            })?;
            let mut broke = false;
            if last.is_empty() {
                continue;
            }
            let mut left = last.len();
            read(&mut |read| {
                if last.get(&short(read.key)) == Some(&read.offset) {
                    left -= 1;
                    if let Some(letter) = read.value.and_then(|value| serde_json::from_slice(value).ok()) {
                        broke = visit(letter).is_break();
                    }
                }
                broke || left == 0
            })?;
            if broke {
                break;
            }
        }
        Ok(())
    }
}

fn short(key: &[u8]) -> [u8; 16] {
    let mut short = [0; 16];
    short.copy_from_slice(&blake3::hash(key).as_bytes()[..16]);
    short
}

impl Dealing {
    /// These are dealt with. When this returns `Ok` no crash brings them back.
    pub(super) fn done(&mut self, told: &[Told]) -> Result<(), String> {
        match self {
            Self::Files(files, _) => {
                let at = |told: &Told| match told.at {
                    At::File(at) => Some(at),
                    At::Topic => None,
                };
                files.mark(&told.iter().filter_map(at).collect::<Vec<_>>()).map_err(|error| chain(&error))
            }
            Self::Topic(topic, producer) => {
                if told.is_empty() {
                    return Ok(());
                }
                let failed = |error| Failure::new("take letters away", &error, producer.context()).to_string();
                let tombstones: Vec<Message> = told.iter().map(|told| topic.tombstone(told)).collect();
                producer.begin().map_err(failed)?;
                let report = producer.send(&tombstones, |_| true).map_err(failed)?;
                match report.refused(producer).map_err(|failure| failure.to_string())?.first() {
                    None => producer.commit().map_err(failed),
                    Some(refused) => Err(format!("the topic of dead letters: {}", refused.message)),
                }
            }
        }
    }

    /// No more.
    pub(super) fn end(self) -> Result<(), String> {
        match self {
            Self::Files(files, dealing) => files.compact(&dealing).map_err(|error| chain(&error)),
            Self::Topic(..) => Ok(()),
        }
    }
}
