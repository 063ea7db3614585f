//! The names, helps, labels and buckets of all metrics.

use prometheus::core::Collector;
use prometheus::{
    CounterVec, Gauge, GaugeVec, HistogramOpts, HistogramVec, IntCounter, IntCounterVec, IntGaugeVec, Opts, Registry,
};

use crate::version;

/// Seconds of one request to an API.
const FETCH_BUCKETS: &[f64] = &[0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0];
/// Seconds of one request to a sink, which may be a pipe or a machine next door.
const SINK_BUCKETS: &[f64] = &[0.001, 0.005, 0.025, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0];
/// Seconds from an event's time to when it could first be read: to a week.
const LATENESS_BUCKETS: &[f64] =
    &[1.0, 5.0, 15.0, 30.0, 60.0, 120.0, 300.0, 600.0, 1_800.0, 3_600.0, 21_600.0, 86_400.0, 604_800.0];

const STREAM: &[&str] = &["stream"];
const LANE: &[&str] = &["stream", "sink"];

pub(super) struct Families {
    pub registry: Registry,
    pub fetch_lag: GaugeVec,
    pub fetch_requests: IntCounterVec,
    pub fetch_errors: IntCounterVec,
    pub fetch_duration: HistogramVec,
    pub fetch_windows: IntCounterVec,
    pub records: IntCounterVec,
    pub outside: IntCounterVec,
    pub doubted: IntCounterVec,
    pub gaps: IntCounterVec,
    pub gaps_kept: GaugeVec,
    pub lateness: HistogramVec,
    pub clock_offset: GaugeVec,
    pub clock_in_doubt: GaugeVec,
    pub rate_limit_wait: CounterVec,
    pub memory_budget: Gauge,
    pub memory_share: GaugeVec,
    pub memory_held: GaugeVec,
    pub memory_wait: CounterVec,
    pub delivery_lag: GaugeVec,
    pub verified_through: GaugeVec,
    pub delivered: IntCounterVec,
    pub late: IntCounterVec,
    pub sink_errors: IntCounterVec,
    pub sink_duration: HistogramVec,
    pub last_commit: GaugeVec,
    pub dead_letters: IntCounterVec,
    pub running: GaugeVec,
    pub lane_state: GaugeVec,
    pub trace_spans: IntCounter,
    pub trace_spans_lost: IntCounter,
}

impl Families {
    pub fn new() -> Self {
        let declare = Declare(Registry::new());
        declare.build_info();
        #[cfg(target_os = "linux")]
        declare
            .0
            .register(Box::new(prometheus::process_collector::ProcessCollector::for_self()))
            .expect("no other collector has these names");
        Self {
            fetch_lag: declare.gauge(
                "fetch_lag_seconds",
                "How far behind the server's clock the end of what the live pass has read completely is.",
                STREAM,
            ),
            fetch_requests: declare.counter("fetch_requests_total", "Requests to the API.", STREAM),
            fetch_errors: declare.counter(
                "fetch_errors_total",
                "Requests to the API that gave no page, by reason.",
                &["stream", "reason"],
            ),
            fetch_duration: declare.histogram(
                "fetch_request_duration_seconds",
                "Time from sending a request to the end of its answer.",
                STREAM,
                FETCH_BUCKETS,
            ),
            fetch_windows: declare.counter(
                "fetch_windows_total",
                "Readings of windows, by outcome.",
                &["stream", "outcome"],
            ),
            records: declare.counter("records_total", "Records read, repeats included.", STREAM),
            outside: declare.counter(
                "records_outside_total",
                "Records listed for a window though their own time lies outside it, repeats included.",
                STREAM,
            ),
            doubted: declare.counter(
                "fetch_doubted_total",
                "Windows that were emptier than their neighbours and asked again before they counted.",
                STREAM,
            ),
            gaps: declare.counter(
                "gaps_total",
                "Gaps since the process started: parts of the log that could not be read and are given up. One that grows is \
                 counted once.",
                LANE,
            ),
            gaps_kept: declare.gauge(
                "gaps",
                "Gaps that the cursor keeps, of whichever run; `/status` and `trailcast cursor show` list them.",
                LANE,
            ),
            lateness: declare.histogram(
                "event_lateness_seconds",
                "Time from a late event's own time to when it could first be read here.",
                STREAM,
                LATENESS_BUCKETS,
            ),
            clock_offset: declare.gauge("clock_offset_seconds", "The server's clock minus this machine's.", STREAM),
            clock_in_doubt: declare.gauge(
                "clock_in_doubt",
                "1 while the server's Date contradicts what its clock is known to be, or there is none; 0 otherwise.",
                STREAM,
            ),
            rate_limit_wait: declare.float_counter(
                "rate_limit_wait_seconds_total",
                "Time that requests waited for the stream's own rate limit.",
                STREAM,
            ),
            memory_budget: declare.register(
                Gauge::with_opts(opts("memory_budget_bytes", "What all that is read and not yet delivered may hold."))
                    .expect(CONSTANT),
            ),
            memory_share: declare.gauge("memory_share_bytes", "The stream's share of that.", STREAM),
            memory_held: declare.gauge(
                "memory_held_bytes",
                "What the stream holds of its share: answers, records, and what waits for sinks.",
                STREAM,
            ),
            memory_wait: declare.float_counter(
                "memory_wait_seconds_total",
                "Time that requests waited until there was room for their answers.",
                STREAM,
            ),
            delivery_lag: declare.gauge(
                "delivery_lag_seconds",
                "How far behind the server's clock the time is before which everything was delivered and committed.",
                LANE,
            ),
            verified_through: declare.gauge(
                "verified_through_timestamp_seconds",
                "Everything before this time was read again at the oldest sweep's age.",
                LANE,
            ),
            delivered: declare.counter("events_delivered_total", "Events delivered and committed.", LANE),
            late: declare.counter(
                "events_late_total",
                "Events delivered whose window had already been read completely without them.",
                LANE,
            ),
            sink_errors: declare.counter(
                "sink_errors_total",
                "Deliveries and commits that failed, by reason.",
                &["stream", "sink", "reason"],
            ),
            sink_duration: declare.histogram(
                "sink_request_duration_seconds",
                "Time from handing a batch to the sink to its acknowledgement.",
                &["sink"],
                SINK_BUCKETS,
            ),
            last_commit: declare.gauge("last_commit_timestamp_seconds", "When the cursor was last committed.", LANE),
            dead_letters: declare.counter(
                "dead_letters_total",
                "Events that the sink refuses for good, kept as dead letters, by reason.",
                &["stream", "sink", "reason"],
            ),
            running: declare.gauge("stream_running", "1 while this process runs the stream, 0 otherwise.", STREAM),
            lane_state: declare.gauge(
                "lane_state",
                "1 for the state that the lane is in, 0 for all others.",
                &["stream", "sink", "state"],
            ),
            trace_spans: declare.single("trace_spans_total", "Spans of trailcast's own traces that ended."),
            trace_spans_lost: declare.single(
                "trace_spans_lost_total",
                "Spans that the Collector did not take: not reached, or too slow for the queue.",
            ),
            registry: declare.0,
        }
    }
}

struct Declare(Registry);

/// Names, helps and labels are constants, so that the module `tests` has seen all that could be wrong with them.
const CONSTANT: &str = "a constant, valid and unique name with constant, valid labels";

impl Declare {
    fn counter(&self, name: &str, help: &str, labels: &[&str]) -> IntCounterVec {
        self.register(IntCounterVec::new(opts(name, help), labels).expect(CONSTANT))
    }

    fn single(&self, name: &str, help: &str) -> IntCounter {
        self.register(IntCounter::with_opts(opts(name, help)).expect(CONSTANT))
    }

    fn float_counter(&self, name: &str, help: &str, labels: &[&str]) -> CounterVec {
        self.register(CounterVec::new(opts(name, help), labels).expect(CONSTANT))
    }

    fn gauge(&self, name: &str, help: &str, labels: &[&str]) -> GaugeVec {
        self.register(GaugeVec::new(opts(name, help), labels).expect(CONSTANT))
    }

    fn histogram(&self, name: &str, help: &str, labels: &[&str], buckets: &[f64]) -> HistogramVec {
        let opts = HistogramOpts::from(opts(name, help)).buckets(buckets.to_vec());
        self.register(HistogramVec::new(opts, labels).expect(CONSTANT))
    }

    fn build_info(&self) {
        let info = IntGaugeVec::new(opts("build_info", "Which trailcast this is; always 1."), &["version", "revision"]);
        self.register(info.expect(CONSTANT))
            .with_label_values(&[version::VERSION, version::REVISION.unwrap_or("unknown")])
            .set(1);
    }

    fn register<C: Collector + Clone + 'static>(&self, collector: C) -> C {
        self.0.register(Box::new(collector.clone())).expect(CONSTANT);
        collector
    }
}

fn opts(name: &str, help: &str) -> Opts {
    Opts::new(name, help).namespace("trailcast")
}
