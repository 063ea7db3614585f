//! What the parts hold to count with.

use std::sync::atomic::{AtomicI64, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use prometheus::{Counter, Gauge, GaugeVec, Histogram, IntCounter};

use super::SinkReason;
use super::families::Families;
use crate::clock::steady;
use crate::dead_letter::DeadLetterReason;
use crate::event::Millis;
use crate::health::{Counts, LaneState};
use crate::memory::Share;
use crate::reading::Outcome;
use crate::source::{FetchReason, Timing};

/// A time that is not known yet.
const UNKNOWN: Millis = Millis::MIN;

/// Counts for one stream.
#[derive(Clone)]
pub struct StreamMetrics(Arc<StreamSeries>);

struct StreamSeries {
    requests: IntCounter,
    /// In the order of [`FetchReason::ALL`].
    errors: [IntCounter; FetchReason::ALL.len()],
    duration: Histogram,
    /// In the order of [`Outcome::ALL`].
    windows: [IntCounter; Outcome::ALL.len()],
    records: IntCounter,
    outside: IntCounter,
    doubted: IntCounter,
    lateness: Histogram,
    rate_limit_wait: Counter,
    memory_wait: Counter,
    memory_share: Gauge,
    memory_held: Gauge,
    memory: OnceLock<Arc<Share>>,
    running: Gauge,
    clock_offset: OnceKnown,
    clock_in_doubt: Gauge,
    /// The server's clock minus our steady time, milliseconds.
    clock_ahead: AtomicI64,
    read_through: AtomicI64,
}

impl StreamMetrics {
    pub(super) fn new(families: &Families, name: &str) -> Self {
        let stream = &[name];
        Self(Arc::new(StreamSeries {
            requests: families.fetch_requests.with_label_values(stream),
            errors: FetchReason::ALL.map(|reason| families.fetch_errors.with_label_values(&[name, reason.label()])),
            duration: families.fetch_duration.with_label_values(stream),
            windows: Outcome::ALL.map(|outcome| families.fetch_windows.with_label_values(&[name, outcome.label()])),
            records: families.records.with_label_values(stream),
            outside: families.outside.with_label_values(stream),
            doubted: families.doubted.with_label_values(stream),
            lateness: families.lateness.with_label_values(stream),
            rate_limit_wait: families.rate_limit_wait.with_label_values(stream),
            memory_wait: families.memory_wait.with_label_values(stream),
            memory_share: families.memory_share.with_label_values(stream),
            memory_held: families.memory_held.with_label_values(stream),
            memory: OnceLock::new(),
            running: families.running.with_label_values(stream),
            clock_offset: OnceKnown::new(&families.clock_offset, stream),
            clock_in_doubt: families.clock_in_doubt.with_label_values(stream),
            clock_ahead: AtomicI64::new(0),
            read_through: AtomicI64::new(UNKNOWN),
        }))
    }

    /// A request is about to be sent.
    pub fn request_started(&self) {
        self.0.requests.inc();
    }

    /// A request has its answer, good or bad, or will have none.
    pub fn request_finished(&self, took: Duration) {
        self.0.duration.observe(took.as_secs_f64());
    }

    /// A request gave no page.
    pub fn error(&self, reason: FetchReason) {
        count(&FetchReason::ALL, &self.0.errors, &reason);
    }

    /// A reading of a window ended.
    pub fn window(&self, outcome: Outcome) {
        count(&Outcome::ALL, &self.0.windows, &outcome);
    }

    /// Whether this process runs the stream. Without replicas it always does.
    pub fn set_running(&self, running: bool) {
        self.0.running.set(if running { 1.0 } else { 0.0 });
    }

    /// Whether this process runs the stream.
    #[must_use]
    pub fn is_running(&self) -> bool {
        self.0.running.get() > 0.0
    }

    /// This many records were read, repeats included.
    pub fn records(&self, count: u64) {
        self.0.records.inc_by(count);
    }

    /// This many records were listed outside the bounds that were asked for, repeats included.
    pub fn outside(&self, count: u64) {
        self.0.outside.inc_by(count);
    }

    /// A window was emptier than its neighbours, and is asked again.
    pub fn doubted(&self) {
        self.0.doubted.inc();
    }

    /// A request waited this long for the stream's own limit, and for memory.
    pub fn waited(&self, timing: Timing) {
        self.0.rate_limit_wait.inc_by(timing.waited.as_secs_f64());
        self.0.memory_wait.inc_by(timing.waited_for_memory.as_secs_f64());
    }

    /// What counts what the stream holds. The first counts.
    pub fn set_memory(&self, share: Arc<Share>) {
        self.0.memory_share.set(bytes(share.size()));
        let _ = self.0.memory.set(share);
    }

    pub(super) fn show_memory(&self) {
        if let Some(share) = self.0.memory.get() {
            self.0.memory_held.set(bytes(share.held()));
        }
    }

    /// The server's clock minus this machine's wall clock, milliseconds: for showing alone.
    pub fn set_clock_offset(&self, millis: i64) {
        self.0.clock_offset.set(seconds(millis));
    }

    /// The server's clock minus our steady time, milliseconds: what lags are reckoned by. And whether clocks contradict
    /// each other.
    pub fn set_clock(&self, ahead: i64, in_doubt: bool) {
        self.0.clock_ahead.store(ahead, Ordering::Relaxed);
        self.0.clock_in_doubt.set(if in_doubt { 1.0 } else { 0.0 });
    }

    /// Everything before `end` was read completely. Never goes back: of the lanes that share a stream, the one
    /// that has read furthest counts.
    pub fn set_read_through(&self, end: Millis) {
        self.0.read_through.fetch_max(end, Ordering::Relaxed);
    }

    /// It was not: only what lies before `end`.
    pub fn put_read_through_back(&self, end: Millis) {
        self.0.read_through.fetch_min(end, Ordering::Relaxed);
    }

    /// A late event became readable this long after its own time.
    pub fn late(&self, lateness: Duration) {
        self.0.lateness.observe(lateness.as_secs_f64());
    }

    /// Requests so far.
    #[must_use]
    pub fn requests_so_far(&self) -> u64 {
        self.0.requests.get()
    }

    /// What says how it reads.
    #[must_use]
    pub fn counts(&self) -> Counts {
        // Sums of times that passed.
        let seconds = |counter: &Counter| Duration::try_from_secs_f64(counter.get()).unwrap_or_default();
        Counts {
            requests: self.0.requests.get(),
            waited: seconds(&self.0.rate_limit_wait),
            waited_for_memory: seconds(&self.0.memory_wait),
        }
    }

    /// How far behind the server's now the end of what was read completely is, seconds; `None` before the first
    /// [`set_read_through`](Self::set_read_through).
    #[must_use]
    pub fn fetch_lag(&self) -> Option<f64> {
        self.fetch_lag_at(steady())
    }

    pub(super) fn fetch_lag_at(&self, now: Millis) -> Option<f64> {
        self.lag(&self.0.read_through, now)
    }

    fn lag(&self, through: &AtomicI64, now: Millis) -> Option<f64> {
        let through = through.load(Ordering::Relaxed);
        let server = now.saturating_add(self.0.clock_ahead.load(Ordering::Relaxed));
        (through != UNKNOWN).then(|| lag(server, through))
    }
}

/// Counts for one lane.
#[derive(Clone)]
pub struct LaneMetrics(Arc<LaneSeries>);

struct LaneSeries {
    /// For its clock offset.
    stream: StreamMetrics,
    delivered: IntCounter,
    late: IntCounter,
    gaps: IntCounter,
    gaps_kept: Gauge,
    /// In the order of [`SinkReason::ALL`].
    errors: [IntCounter; SinkReason::ALL.len()],
    /// In the order of [`DeadLetterReason::ALL`].
    dead_letters: [IntCounter; DeadLetterReason::ALL.len()],
    /// In the order of [`LaneState::ALL`].
    states: [Gauge; LaneState::ALL.len()],
    last_commit: OnceKnown,
    verified_through: OnceKnown,
    delivered_through: AtomicI64,
}

impl LaneMetrics {
    pub(super) fn new(families: &Families, of_stream: StreamMetrics, stream: &str, sink: &str) -> Self {
        let lane = &[stream, sink];
        Self(Arc::new(LaneSeries {
            stream: of_stream,
            delivered: families.delivered.with_label_values(lane),
            late: families.late.with_label_values(lane),
            gaps: families.gaps.with_label_values(lane),
            gaps_kept: families.gaps_kept.with_label_values(lane),
            errors: SinkReason::ALL
                .map(|reason| families.sink_errors.with_label_values(&[stream, sink, reason.label()])),
            dead_letters: DeadLetterReason::ALL
                .map(|reason| families.dead_letters.with_label_values(&[stream, sink, reason.label()])),
            states: LaneState::ALL.map(|state| families.lane_state.with_label_values(&[stream, sink, state.label()])),
            last_commit: OnceKnown::new(&families.last_commit, lane),
            verified_through: OnceKnown::new(&families.verified_through, lane),
            delivered_through: AtomicI64::new(UNKNOWN),
        }))
    }

    /// This many events were delivered and committed, late ones included.
    pub fn delivered(&self, count: u64) {
        self.0.delivered.inc_by(count);
    }

    /// This many of them were late.
    pub fn late(&self, count: u64) {
        self.0.late.inc_by(count);
    }

    /// This many more gaps: parts of the log that were given up.
    pub fn gaps(&self, count: u64) {
        self.0.gaps.inc_by(count);
    }

    /// So many gaps stand in its cursor.
    pub fn set_gaps(&self, gaps: usize) {
        #[expect(clippy::cast_precision_loss, reason = "they are a hundred at most")]
        self.0.gaps_kept.set(gaps as f64);
    }

    /// A delivery or a commit failed.
    pub fn sink_error(&self, reason: SinkReason) {
        count(&SinkReason::ALL, &self.0.errors, &reason);
    }

    /// An event became a dead letter, and is committed as one.
    pub fn dead_letter(&self, reason: DeadLetterReason) {
        count(&DeadLetterReason::ALL, &self.0.dead_letters, &reason);
    }

    /// The lane is in this state, and in no other.
    pub fn set_state(&self, state: LaneState) {
        for (series, of) in self.0.states.iter().zip(LaneState::ALL) {
            series.set(if of == state { 1.0 } else { 0.0 });
        }
    }

    /// The cursor was committed at this time by this machine's clock.
    pub fn committed(&self, at: Millis) {
        self.0.last_commit.set(seconds(at));
    }

    /// Everything before `end` is delivered and committed. Set it at the lane's start too, to where it starts.
    pub fn set_delivered_through(&self, end: Millis) {
        self.0.delivered_through.store(end, Ordering::Relaxed);
    }

    /// Everything before `end` was swept at the oldest age.
    pub fn set_verified_through(&self, end: Millis) {
        self.0.verified_through.set(seconds(end));
    }

    /// Events delivered so far by this process.
    #[must_use]
    pub fn delivered_so_far(&self) -> u64 {
        self.0.delivered.get()
    }

    /// How far behind the server's now the end of what was delivered and committed is, seconds; `None` before the
    /// first [`set_delivered_through`](Self::set_delivered_through).
    #[must_use]
    pub fn delivery_lag(&self) -> Option<f64> {
        self.delivery_lag_at(steady())
    }

    pub(super) fn delivery_lag_at(&self, now: Millis) -> Option<f64> {
        self.0.stream.lag(&self.0.delivered_through, now)
    }
}

/// Times one sink.
#[derive(Clone)]
pub struct SinkMetrics(Histogram);

impl SinkMetrics {
    pub(super) fn new(families: &Families, name: &str) -> Self {
        Self(families.sink_duration.with_label_values(&[name]))
    }

    /// A batch was acknowledged or failed, this long after it was handed over.
    pub fn request_finished(&self, took: Duration) {
        self.0.observe(took.as_secs_f64());
    }
}

/// Counts the spans of our own traces. The default counts for nobody.
#[derive(Debug, Clone)]
pub struct TraceMetrics {
    spans: IntCounter,
    lost: IntCounter,
}

impl TraceMetrics {
    pub(super) fn new(families: &Families) -> Self {
        Self { spans: families.trace_spans.clone(), lost: families.trace_spans_lost.clone() }
    }

    /// A span ended.
    pub fn span(&self) {
        self.spans.inc();
    }

    /// So many spans were not exported.
    pub fn lost(&self, spans: u64) {
        self.lost.inc_by(spans);
    }
}

impl Default for TraceMetrics {
    fn default() -> Self {
        Self::new(&Families::new())
    }
}

/// A gauge that has no series until it has a value: 0 would be a wrong one.
struct OnceKnown {
    family: GaugeVec,
    labels: Vec<String>,
    series: OnceLock<Gauge>,
}

impl OnceKnown {
    fn new(family: &GaugeVec, labels: &[&str]) -> Self {
        let labels = labels.iter().map(ToString::to_string).collect();
        Self { family: family.clone(), labels, series: OnceLock::new() }
    }

    fn set(&self, value: f64) {
        self.series.get_or_init(|| self.family.with_label_values(&self.labels)).set(value);
    }
}

/// The closed sets have few values, so that a search costs no more than a hash.
fn count<T: PartialEq, const N: usize>(values: &[T; N], series: &[IntCounter; N], value: &T) {
    if let Some(index) = values.iter().position(|candidate| candidate == value) {
        series[index].inc();
    }
}

/// How far behind the server's `now` a time is, seconds. A second below zero says only that the clock is an estimate; more
/// says that something is ahead of the server's time, and that must show.
pub(crate) fn lag(now: Millis, through: Millis) -> f64 {
    let lag = now.saturating_sub(through);
    seconds(if (-1000..0).contains(&lag) { 0 } else { lag })
}

#[expect(clippy::cast_precision_loss, reason = "memory is smaller than 2^53 bytes")]
fn bytes(bytes: u64) -> f64 {
    bytes as f64
}

/// Prometheus counts in seconds.
#[expect(clippy::cast_precision_loss, reason = "milliseconds since the epoch are exact in 53 bits")]
pub(crate) fn seconds(millis: Millis) -> f64 {
    millis as f64 / 1000.0
}
