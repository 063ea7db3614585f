//! Destinations. A sink says that events are delivered only when it knows.

mod stdout;

use std::io;

pub use stdout::{Stdout, end_torn_line};

use crate::config::SinkConfig;
use crate::event::StreamContext;
use crate::metrics::SinkReason;
use crate::state::admit::New;

/// A destination.
pub enum Sink {
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
}

impl SinkError {
    /// The metric's label.
    #[must_use]
    pub const fn reason(&self) -> SinkReason {
        match self {
            Self::Closed => SinkReason::Closed,
            Self::Io(_) => SinkReason::Io,
        }
    }

    /// Whether trying again is of no use.
    #[must_use]
    pub const fn is_final(&self) -> bool {
        matches!(self, Self::Closed)
    }
}

impl Sink {
    /// Made from its config.
    #[must_use]
    pub fn build(config: &SinkConfig) -> Self {
        match config {
            SinkConfig::Stdout(stdout) => Self::Stdout(Stdout::new(*stdout)),
        }
    }

    /// Delivers all of `part`, in order. `Ok` is the destination's positive acknowledgement; after an error some of it
    /// may have arrived, and delivering it again repeats the same ids.
    ///
    /// # Errors
    /// See [`SinkError`].
    pub async fn deliver(&self, stream: &StreamContext, part: &[New]) -> Result<(), SinkError> {
        match self {
            Self::Stdout(stdout) => stdout.deliver(stream, part).await,
        }
    }
}
