//! Destinations. A sink says that events are delivered only when it knows.

mod kafka;
mod otlp;
mod stdout;

use std::io;
use std::time::Duration;

pub use kafka::{KafkaSink, deleted_at_once};
pub use otlp::{OtlpError, OtlpSink};
pub use stdout::{Stdout, end_torn_line, was_closed};

use crate::config::SinkConfig;
use crate::dead_letter::Refused;
use crate::event::StreamContext;
use crate::kafka::{Failure, TopicError};
use crate::metrics::SinkReason;
use crate::state::admit::New;

/// A destination.
pub enum Sink {
    /// A Kafka topic.
    Kafka(Box<KafkaSink>),
    /// OTLP logs.
    Otlp(Box<OtlpSink>),
    /// NDJSON on stdout.
    Stdout(Stdout),
}

/// Why events were not delivered, or not known to be.
#[derive(Debug, thiserror::Error)]
pub enum SinkError {
    /// Whoever read our stdout has gone; nobody will read on.
    #[error("stdout is closed: its reader has ended")]
    Closed,
    /// It may work later.
    #[error("cannot write to stdout: {0}")]
    Io(io::Error),
    /// The same of another destination.
    #[error(transparent)]
    Failed(#[from] Failure),
    /// The same of a receiver of OTLP.
    #[error(transparent)]
    Otlp(#[from] OtlpError),
    /// It has no topic to write to. Someone may make it.
    #[error(transparent)]
    Topic(#[from] TopicError),
}

impl SinkError {
    /// The metric's label.
    #[must_use]
    pub const fn reason(&self) -> SinkReason {
        match self {
            Self::Closed => SinkReason::Closed,
            Self::Io(_) => SinkReason::Io,
            Self::Failed(failure) | Self::Topic(TopicError::Failed(failure)) => failure.reason,
            Self::Otlp(error) => error.reason,
            Self::Topic(TopicError::Missing(_) | TopicError::Compacts(_)) => SinkReason::Refused,
        }
    }

    /// How long the destination asks to wait.
    #[must_use]
    pub const fn retry_after(&self) -> Option<Duration> {
        match self {
            Self::Otlp(error) => error.retry_after,
            _ => None,
        }
    }

    /// Whether some of the part has become known all the same, so that the next try is a first one.
    #[must_use]
    pub const fn has_progressed(&self) -> bool {
        matches!(self, Self::Otlp(error) if error.progressed)
    }

    /// Whether it seems to be about some of the events, and others are to be asked about soon.
    #[must_use]
    pub const fn asks_on(&self) -> bool {
        matches!(self, Self::Otlp(error) if error.asks_on)
    }

    /// Whether trying again is of no use.
    #[must_use]
    pub const fn is_final(&self) -> bool {
        matches!(self, Self::Closed)
    }
}

impl Sink {
    /// Made from its config; asks nobody.
    #[must_use]
    pub fn build(config: &SinkConfig) -> Self {
        match config {
            SinkConfig::Kafka(kafka) => Self::Kafka(Box::new(KafkaSink::new((**kafka).clone()))),
            SinkConfig::Otlp(otlp) => Self::Otlp(Box::new(OtlpSink::new((**otlp).clone()))),
            SinkConfig::Stdout(stdout) => Self::Stdout(Stdout::new(*stdout)),
        }
    }

    /// Delivers all of `part`, in order. `Ok` is the destination's positive acknowledgement of each event but those
    /// that it refuses for good, which the answer names; after an error some of it may have arrived.
    ///
    /// # Errors
    /// See [`SinkError`].
    pub async fn deliver(&self, stream: &StreamContext, part: &[New]) -> Result<Vec<Refused>, SinkError> {
        match self {
            Self::Kafka(kafka) => kafka.deliver(stream, part).await,
            Self::Otlp(otlp) => otlp.deliver(stream, part).await,
            Self::Stdout(stdout) => stdout.deliver(stream, part).await.map(|()| Vec::new()),
        }
    }
}
