//! Every metric, declared in one place and handed down as pre-labelled handles.
//!
//! There is no global registry: whoever counts was given a handle, and each test has its own [`Metrics`]. A handle
//! is cheap to clone, and asking twice for the same name gives handles of the same series. All label values are
//! from closed sets or from the config, and start at 0.
//!
//! Lags are computed when they are read, so that they grow while nothing runs. A lag, a timestamp and the clock
//! offset are absent until their first value: whoever starts a lane sets its start point at once, so that a lane
//! that is stuck from the beginning shows.

mod families;
mod handles;

#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use prometheus::TextEncoder;

use crate::clock::steady;
use crate::event::Millis;
use families::Families;

pub use handles::{LaneMetrics, SinkMetrics, StreamMetrics, TraceMetrics};
pub(crate) use handles::{lag, seconds};

/// The content type of [`Metrics::render`]'s text.
pub const CONTENT_TYPE: &str = prometheus::TEXT_FORMAT;

/// All metrics of one process.
#[derive(Clone)]
pub struct Metrics {
    shared: Arc<Shared>,
}

struct Shared {
    families: Families,
    streams: Mutex<BTreeMap<String, StreamMetrics>>,
    /// By stream and sink.
    lanes: Mutex<BTreeMap<(String, String), LaneMetrics>>,
}

/// Why a lane could not deliver or commit: the closed set of values of the label `reason` of
/// `trailcast_sink_errors_total`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum SinkReason {
    /// The reader of stdout has gone.
    Closed,
    /// The sink's write failed in another way.
    Io,
    /// The destination cannot be reached, or speaks another protocol.
    Connect,
    /// It did not answer in time.
    Timeout,
    /// It asks to be asked less often.
    Throttled,
    /// It is there and cannot work now: loading, moving, short of replicas.
    Unavailable,
    /// A password, token or certificate is not accepted, or cannot be read.
    Credentials,
    /// A right, a topic or a setting is missing there: someone must act.
    Refused,
    /// Another replica has taken the stream's partition over.
    Fenced,
    /// The events were delivered, and the cursor could not be committed.
    Checkpoint,
    /// What the sink refuses for good could not be kept.
    DeadLetters,
    /// A fault of trailcast's own: the lane panicked and is begun again.
    Fault,
}

impl SinkReason {
    /// Every value.
    pub const ALL: [Self; 12] = [
        Self::Closed,
        Self::Io,
        Self::Connect,
        Self::Timeout,
        Self::Throttled,
        Self::Unavailable,
        Self::Credentials,
        Self::Refused,
        Self::Fenced,
        Self::Checkpoint,
        Self::DeadLetters,
        Self::Fault,
    ];

    /// The label's value.
    #[must_use]
    pub const fn label(self) -> &'static str {
        match self {
            Self::Closed => "closed",
            Self::Io => "io",
            Self::Connect => "connect",
            Self::Timeout => "timeout",
            Self::Throttled => "throttled",
            Self::Unavailable => "unavailable",
            Self::Credentials => "credentials",
            Self::Refused => "refused",
            Self::Fenced => "fenced",
            Self::Checkpoint => "checkpoint",
            Self::DeadLetters => "dead_letters",
            Self::Fault => "fault",
        }
    }

    /// Whether it waits for a person: asking often helps nobody and may lock an account.
    #[must_use]
    pub const fn needs_operator(self) -> bool {
        matches!(self, Self::Credentials | Self::Refused)
    }

    /// Whether it may pass by itself, as what is on the way, or whoever answers, comes back.
    #[must_use]
    pub const fn may_pass(self) -> bool {
        matches!(self, Self::Connect | Self::Timeout | Self::Throttled | Self::Unavailable)
    }
}

impl Metrics {
    /// A set of its own, with `trailcast_build_info` and, on Linux, `process_*` in it.
    #[must_use]
    pub fn new() -> Self {
        Self {
            shared: Arc::new(Shared { families: Families::new(), streams: Mutex::default(), lanes: Mutex::default() }),
        }
    }

    /// The handle of a stream, by its name in the config.
    #[must_use]
    pub fn stream(&self, name: &str) -> StreamMetrics {
        lock(&self.shared.streams)
            .entry(name.to_owned())
            .or_insert_with(|| StreamMetrics::new(&self.shared.families, name))
            .clone()
    }

    /// The handle of a lane, by the names of its stream and sink in the config.
    #[must_use]
    pub fn lane(&self, stream: &str, sink: &str) -> LaneMetrics {
        let of_stream = self.stream(stream);
        lock(&self.shared.lanes)
            .entry((stream.to_owned(), sink.to_owned()))
            .or_insert_with(|| LaneMetrics::new(&self.shared.families, of_stream, stream, sink))
            .clone()
    }

    /// The handle of a sink, by its name in the config.
    #[must_use]
    pub fn sink(&self, name: &str) -> SinkMetrics {
        SinkMetrics::new(&self.shared.families, name)
    }

    /// What all that is read and not yet delivered may hold, bytes.
    #[expect(clippy::cast_precision_loss, reason = "memory is smaller than 2^53 bytes")]
    pub fn set_memory_budget(&self, bytes: u64) {
        self.shared.families.memory_budget.set(bytes as f64);
    }

    /// The handle of our own traces.
    #[must_use]
    pub fn traces(&self) -> TraceMetrics {
        TraceMetrics::new(&self.shared.families)
    }

    /// Everything, now, in Prometheus' text format ([`CONTENT_TYPE`]).
    #[must_use]
    pub fn render(&self) -> String {
        self.render_at(steady())
    }

    fn render_at(&self, now: Millis) -> String {
        let families = &self.shared.families;
        for (name, stream) in lock(&self.shared.streams).iter() {
            stream.show_memory();
            if let Some(lag) = stream.fetch_lag_at(now) {
                families.fetch_lag.with_label_values(&[name]).set(lag);
            }
        }
        for ((stream, sink), lane) in lock(&self.shared.lanes).iter() {
            if let Some(lag) = lane.delivery_lag_at(now) {
                families.delivery_lag.with_label_values(&[stream, sink]).set(lag);
            }
        }
        TextEncoder::new()
            .encode_to_string(&families.registry.gather())
            .expect("a gathered family has a name and at least one sample")
    }
}

impl Default for Metrics {
    fn default() -> Self {
        Self::new()
    }
}

/// What the maps hold is whole at every moment, so a panic of another thread spoils nothing.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
