//! Checkpoint stores: a small ordered key-value map with atomic, durable commits of many keys.
//!
//! A store knows nothing of cursors: what keys and values mean is their writer's business. Every operation
//! blocks (a commit waits for the disk), so it is called off the runtime's workers.

mod file;
pub mod kafka;
mod memory;
#[cfg(test)]
mod tests;

use std::io;
use std::ops::Range;
use std::path::PathBuf;
use std::sync::Arc;

pub use file::FileStore;
pub use memory::MemoryStore;

use crate::config::CheckpointConfig;
use crate::kafka::Failure;

/// What one commit changes. Applied in the order of the fields, so that a key that is put stands whatever
/// was deleted around it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Changes {
    /// Every key in these half-open ranges goes.
    pub delete_ranges: Vec<Range<Vec<u8>>>,
    /// These keys go; one that is not there is no error.
    pub deletes: Vec<Vec<u8>>,
    /// These keys get these values; of two puts to one key the later counts.
    pub puts: Vec<(Vec<u8>, Vec<u8>)>,
}

impl Changes {
    /// Whether a commit would change nothing.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.delete_ranges.is_empty() && self.deletes.is_empty() && self.puts.is_empty()
    }
}

/// Where cursors are kept.
pub trait Store: Send + Sync {
    /// The value of `key`.
    ///
    /// # Errors
    /// The store cannot be read.
    fn get(&self, key: &[u8]) -> Result<Option<Vec<u8>>, CheckpointError>;

    /// Shows every key in the half-open `range` with its value, in key order, from one snapshot.
    ///
    /// # Errors
    /// The store cannot be read; some keys may have been shown before.
    fn scan(&self, range: Range<&[u8]>, visit: &mut dyn FnMut(&[u8], &[u8])) -> Result<(), CheckpointError>;

    /// Makes all of `changes` true at once. When this returns `Ok` they outlive a power failure.
    ///
    /// # Errors
    /// The commit is not known to have happened: all of it stands or none of it. The same changes may be
    /// committed again.
    fn commit(&self, changes: &Changes) -> Result<(), CheckpointError>;
}

/// Opens the store that `config` names. The one in Kafka is opened so for commands only; lanes have a
/// [`kafka::Partition`] of it.
///
/// # Errors
/// See [`CheckpointError`].
pub fn open(config: &CheckpointConfig) -> Result<Arc<dyn Store>, CheckpointError> {
    Ok(match config {
        CheckpointConfig::File { path } => Arc::new(FileStore::open(path)?),
        CheckpointConfig::Kafka(kafka) => Arc::new(kafka::KafkaStore::open(kafka)?),
        CheckpointConfig::Memory => Arc::new(MemoryStore::default()),
    })
}

/// Why a store cannot be used. Each names the config key to look at.
#[derive(Debug, thiserror::Error)]
pub enum CheckpointError {
    /// The folder or its lock file cannot be made or opened.
    #[error("checkpoint.file.path: cannot {doing} {}", path.display())]
    Folder {
        /// What was tried.
        doing: &'static str,
        /// On what.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
    /// Another process works on the same cursors.
    #[error(
        "checkpoint.file.path: {} is in use by another process{}; give each trailcast its own folder, or stop the other",
        path.display(), pid.map(|pid| format!(" (pid {pid})")).unwrap_or_default()
    )]
    InUse {
        /// The folder.
        path: PathBuf,
        /// Its owner, if the owner has said.
        pid: Option<u32>,
    },
    /// The file was written by a later version.
    #[error(
        "checkpoint.file.path: {} has format {found}, this trailcast knows up to {known}; run the version that wrote it, or a later one",
        path.display()
    )]
    Newer {
        /// The file.
        path: PathBuf,
        /// Its format.
        found: u64,
        /// The newest known here.
        known: u64,
    },
    /// The file cannot be read or written: no space, no permission, damage.
    #[error("checkpoint.file.path: cannot {doing} {}", path.display())]
    File {
        /// What was tried.
        doing: &'static str,
        /// The file.
        path: PathBuf,
        /// Why not. Boxed: it is large, and rare.
        source: Box<redb::Error>,
    },
    /// Kafka does not answer, or refuses.
    #[error("checkpoint.kafka: {0}")]
    Kafka(#[from] Failure),
    /// The state topic is missing and cannot be made with this way in.
    #[error(
        "checkpoint.kafka.topic: `{0}` does not exist, and with a token trailcast cannot make it; make it, for example \
         with `kafka-topics.sh --bootstrap-server … --create --topic {0} --partitions 8 --config cleanup.policy=compact`"
    )]
    NoStateTopic(String),
    /// The topic of dead letters is missing and cannot be made with this way in.
    #[error(
        "dead_letters.kafka.topic: `{0}` does not exist, and with a token trailcast cannot make it; make it, for example \
         with `kafka-topics.sh --bootstrap-server … --create --topic {0} --partitions 1 --config cleanup.policy=compact`"
    )]
    NoLettersTopic(String),
    /// The state topic forgets what it must keep.
    #[error(
        "checkpoint.kafka.topic: `{topic}` has `cleanup.policy={policy}`, which loses cursors; set it to `compact`, for \
         example with `kafka-configs.sh --bootstrap-server … --alter --topic {topic} --add-config cleanup.policy=compact`, \
         or name another topic"
    )]
    StatePolicy {
        /// The topic.
        topic: String,
        /// What it has.
        policy: String,
    },
    /// Partitions were added, so streams would look for their state elsewhere.
    #[error(
        "checkpoint.kafka.topic: `{topic}` had {was} partitions when its state was written and now has {is}; export the \
         cursors with a topic of {was}, and import them into a new one"
    )]
    Partitions {
        /// The topic.
        topic: String,
        /// When it was written.
        was: u32,
        /// Now.
        is: u32,
    },
    /// The state was written by a later version.
    #[error(
        "checkpoint.kafka.topic: `{topic}` has format {found}, this trailcast knows up to {known}; run the version that \
         wrote it, or a later one"
    )]
    NewerState {
        /// The topic.
        topic: String,
        /// Its format; 0 if that cannot be read.
        found: u64,
        /// The newest known here.
        known: u64,
    },
    /// The state topic takes no record of ours.
    #[error("checkpoint.kafka.topic: a record of the state is refused: {0}")]
    Refused(String),
    /// The partition is another's now, or must be taken again.
    #[error("checkpoint.kafka: this replica no longer has the stream's partition")]
    Lost,
}
