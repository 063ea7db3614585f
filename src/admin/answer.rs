//! What `/status` answers.

use serde::Serialize;

use crate::event::{Millis, Source};
use crate::reading::Gap;

/// How a stream or a lane is, as it is shown.
#[derive(Debug, PartialEq, Eq, Serialize)]
pub(super) struct Condition {
    /// Of a stream `starting`, `ok` or `failing`, of a lane that of a [`LaneState`](crate::health::LaneState).
    pub state: &'static str,
    /// Why it fails: a `reason` of the metrics.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reason: Option<&'static str>,
    /// Since when it fails.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub since: Option<Time>,
    /// What failed, or what it waits for.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub message: Option<String>,
}

/// The answer of `/status`.
#[derive(Debug, Serialize)]
pub(super) struct Status {
    pub version: &'static str,
    pub revision: Option<&'static str>,
    pub uptime_seconds: u64,
    pub ready: bool,
    pub streams: Vec<StreamStatus>,
    pub lanes: Vec<LaneStatus>,
}

#[derive(Debug, Serialize)]
pub(super) struct StreamStatus {
    pub name: String,
    pub source: Source,
    pub tenant: String,
    /// By this process.
    pub running: bool,
    /// Of replicas, the one that has last taken it.
    pub owner: Option<String>,
    #[serde(flatten)]
    pub health: Condition,
    pub clock_offset_seconds: Option<f64>,
    pub read_through: Option<Time>,
    pub fetch_lag_seconds: Option<f64>,
}

#[derive(Debug, Serialize)]
pub(super) struct LaneStatus {
    pub stream: String,
    pub sink: String,
    #[serde(flatten)]
    pub health: Condition,
    /// Events, since the process started.
    pub delivered: u64,
    /// Parts of the log that it gave up, in this run or one before.
    pub gaps: usize,
    /// The last of them, by their place in the log: at most [`NEWEST_GAPS`](super::status::NEWEST_GAPS).
    pub newest_gaps: Vec<GapStatus>,
    pub delivered_through: Option<Time>,
    pub delivery_lag_seconds: Option<f64>,
    pub verified_through: Option<Time>,
    #[serde(serialize_with = "in_order")]
    pub passes: Vec<(String, Time)>,
}

/// A part of the log that was given up.
#[derive(Debug, Serialize)]
pub(super) struct GapStatus {
    pub from: Time,
    pub to: Time,
    pub reason: &'static str,
}

impl GapStatus {
    pub const fn of(gap: &Gap) -> Self {
        Self { from: Time(gap.from), to: Time(gap.to), reason: gap.reason.label() }
    }
}

/// Shown as RFC 3339 in UTC.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Time(pub Millis);

impl std::fmt::Display for Time {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match jiff::Timestamp::from_millisecond(self.0) {
            Ok(time) => time.fmt(f),
            Err(_) => write!(f, "{} ms", self.0),
        }
    }
}

impl Serialize for Time {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

/// A JSON object whose keys keep their order.
fn in_order<S: serde::Serializer>(passes: &[(String, Time)], serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_map(passes.iter().map(|(name, through)| (name, through)))
}
