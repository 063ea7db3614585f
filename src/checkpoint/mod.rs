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

use crate::config::{CheckpointConfig, DeadLettersConfig};
use crate::kafka::Failure;
use crate::state::store::{Changes, LaneKey};

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
pub fn open(config: &CheckpointConfig, letters: &DeadLettersConfig) -> Result<Arc<dyn Store>, CheckpointError> {
    Ok(match config {
        CheckpointConfig::File { path } => Arc::new(FileStore::open(path)?),
        CheckpointConfig::Kafka(kafka) => Arc::new(kafka::KafkaStore::open(kafka, letters.topic())?),
        CheckpointConfig::Memory => Arc::new(MemoryStore::default()),
    })
}

/// Whether the state is what was kept there before.
///
/// # Errors
/// It is not, or that cannot be seen.
pub fn look(config: &CheckpointConfig, letters: &DeadLettersConfig) -> Result<(), CheckpointError> {
    match config {
        CheckpointConfig::File { path } if FileStore::is_new(path) => Ok(()),
        CheckpointConfig::File { path } => FileStore::open(path).map(drop),
        CheckpointConfig::Kafka(kafka) => kafka::KafkaStore::look(kafka, letters.topic()).map(drop),
        CheckpointConfig::Memory => Ok(()),
    }
}

/// Takes what is there for the state that was kept there before, whatever speaks against that.
///
/// # Errors
/// See [`CheckpointError`].
pub fn accept(config: &CheckpointConfig, letters: &DeadLettersConfig) -> Result<(), CheckpointError> {
    match config {
        CheckpointConfig::File { path } => FileStore::accept(path).map(drop),
        CheckpointConfig::Kafka(kafka) => kafka::KafkaStore::accept(kafka, letters.topic()),
        CheckpointConfig::Memory => Ok(()),
    }
}

/// As [`open`], to be read: where nothing was ever kept in a folder, nothing is made there.
///
/// # Errors
/// See [`CheckpointError`].
pub fn read(config: &CheckpointConfig, letters: &DeadLettersConfig) -> Result<Arc<dyn Store>, CheckpointError> {
    match config {
        CheckpointConfig::File { path } if FileStore::is_new(path) => Ok(Arc::new(MemoryStore::default())),
        config => open(config, letters),
    }
}

/// As [`open`], to be read only: of a state topic to which partitions were added what it held before.
///
/// # Errors
/// See [`CheckpointError`].
pub fn salvage(config: &CheckpointConfig, letters: &DeadLettersConfig) -> Result<Arc<dyn Store>, CheckpointError> {
    match config {
        CheckpointConfig::File { .. } => read(config, letters),
        CheckpointConfig::Kafka(kafka) => Ok(Arc::new(kafka::KafkaStore::salvage(kafka, letters.topic())?)),
        other => open(other, letters),
    }
}

/// Says which cursors are kept of lanes that the config does not have: a renamed stream or sink begins anew, and what was
/// remembered of the old one stays for ever. Blocks.
///
/// # Errors
/// The store cannot be read.
pub fn warn_of_strangers(store: &dyn Store, known: impl Fn(&str, &str) -> bool) -> Result<(), CheckpointError> {
    let all = LaneKey::all_cursors();
    store.scan(&all.start..&all.end, &mut |key, _| {
        if let Some((stream, sink)) = LaneKey::names(key).filter(|(stream, sink)| !known(stream, sink)) {
            tracing::warn!(
                stream, sink,
                "a cursor is kept of a lane that the config does not have: under another name it begins anew, at `start`; \
                 `trailcast cursor delete --stream {stream} --sink {sink}` forgets it"
            );
        }
    })
}

/// In what a state differs from the one that was kept in its place before.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Doubt {
    /// Nothing is there.
    #[error("is gone, though state was kept there before")]
    Gone,
    /// Its entries are not those that were committed.
    #[error("does not add up to what was committed last: records are missing, or are not trailcast's")]
    Torn,
    /// It was made at another time.
    #[error("is another state than the one that was kept there before")]
    Other,
    /// It has not all of its commits.
    #[error("is older than what was kept there before: it counts {has} commits, and {seen} were made")]
    Older {
        /// Those that it counts.
        has: u64,
        /// Those that are known to have been made.
        seen: u64,
    },
}

/// What to do where the system forbids it.
fn advice(doing: &str, error: &io::Error) -> &'static str {
    match (error.kind(), doing) {
        (io::ErrorKind::PermissionDenied, MAKE_FOLDER) => {
            "; make it for the user that trailcast runs as, or name another place: `checkpoint: { file: { path: … } }`"
        }
        (io::ErrorKind::PermissionDenied, _) => {
            "; the folder and what is in it must belong to the user that trailcast runs as: did another one, such as root, run \
             it there before?"
        }
        _ => "",
    }
}

/// What is tried where the folder is missing.
pub(crate) const MAKE_FOLDER: &str = "create the folder";

/// Why a store cannot be used. Each names the config key to look at.
#[derive(Debug, thiserror::Error)]
pub enum CheckpointError {
    /// The folder or its lock file cannot be made or opened.
    #[error("checkpoint.file.path: cannot {doing} {}: {error}{}", path.display(), advice(doing, error))]
    Folder {
        /// What was tried.
        doing: &'static str,
        /// On what.
        path: PathBuf,
        /// Why not.
        error: io::Error,
    },
    /// Another process works on the same cursors.
    #[error(
        "checkpoint.file.path: {} is in use by another process{}; give each trailcast its own folder, or stop the other; \
         /status of one that runs shows where its lanes stand",
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
    /// The file is not what was written there.
    #[error(
        "checkpoint.file.path: {} is damaged: {what}; put back a copy of its folder and accept it with `trailcast cursor \
         accept`, or move the folder away: then each stream begins again at its `start`, and what was delivered since \
         comes again with the same ids",
        path.display()
    )]
    Damaged {
        /// The file.
        path: PathBuf,
        /// What makes no sense.
        what: String,
    },
    /// Others would find another file, or none, where this process has its own.
    #[error(
        "checkpoint.file.path: {} was removed or replaced while this trailcast runs, so nothing more is committed; stop it, \
         put the folder back as it was, and start it again",
        path.display()
    )]
    Replaced {
        /// What has lost its name.
        path: PathBuf,
    },
    /// What is there is not what was kept there before.
    #[error(
        "{key}: {place} {doubt}. To go on, put the newest copy back; or accept what is there with `trailcast cursor accept`: \
         lanes go on where it says, and those that it does not know begin at their stream's `start`, so that events come \
         again; or accept it, and then `trailcast cursor import` what was exported, or `trailcast cursor set`"
    )]
    Doubted {
        /// The config's key.
        key: &'static str,
        /// A file, or a partition of a topic.
        place: String,
        /// In what it differs.
        doubt: Doubt,
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
        "checkpoint.kafka.topic: `{topic}` had {was} partitions when its state was written and now has {is}, so streams would \
         be looked for elsewhere. `trailcast cursor export` still reads it: name a new topic in `checkpoint.kafka.topic`, and \
         `trailcast cursor import` there what was exported"
    )]
    Partitions {
        /// The topic.
        topic: String,
        /// When it was written.
        was: u32,
        /// Now.
        is: u32,
    },
    /// Replicas of another group keep their state there.
    #[error(
        "checkpoint.kafka.group: the state in `{topic}` is kept by the group `{theirs}`, and this one is `{ours}`: two groups \
         would each deliver everything. Give all replicas one group; or if `{theirs}` runs no more, take its state over with \
         `trailcast cursor accept`"
    )]
    OtherGroup {
        /// The topic.
        topic: String,
        /// The group that is written there.
        theirs: String,
        /// The config's.
        ours: String,
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
