//! The metrics are a contract: what is documented is there, and nothing else.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use super::*;
use crate::health::LaneState;
use crate::memory::Budget;
use crate::reading::Outcome;
use crate::source::{FetchReason, Timing};

/// Name, kind and labels of every metric, as documented.
const METRICS: &[(&str, &str, &[&str])] = &[
    ("trailcast_build_info", "gauge", &["revision", "version"]),
    ("trailcast_clock_in_doubt", "gauge", &["stream"]),
    ("trailcast_clock_offset_seconds", "gauge", &["stream"]),
    ("trailcast_dead_letters_total", "counter", &["reason", "sink", "stream"]),
    ("trailcast_delivery_lag_seconds", "gauge", &["sink", "stream"]),
    ("trailcast_event_lateness_seconds", "histogram", &["stream"]),
    ("trailcast_events_delivered_total", "counter", &["sink", "stream"]),
    ("trailcast_events_late_total", "counter", &["sink", "stream"]),
    ("trailcast_fetch_doubted_total", "counter", &["stream"]),
    ("trailcast_fetch_errors_total", "counter", &["reason", "stream"]),
    ("trailcast_fetch_lag_seconds", "gauge", &["stream"]),
    ("trailcast_fetch_request_duration_seconds", "histogram", &["stream"]),
    ("trailcast_fetch_requests_total", "counter", &["stream"]),
    ("trailcast_fetch_windows_total", "counter", &["outcome", "stream"]),
    ("trailcast_gaps", "gauge", &["sink", "stream"]),
    ("trailcast_gaps_total", "counter", &["sink", "stream"]),
    ("trailcast_lane_state", "gauge", &["sink", "state", "stream"]),
    ("trailcast_last_commit_timestamp_seconds", "gauge", &["sink", "stream"]),
    ("trailcast_memory_budget_bytes", "gauge", &[]),
    ("trailcast_memory_held_bytes", "gauge", &["stream"]),
    ("trailcast_memory_share_bytes", "gauge", &["stream"]),
    ("trailcast_memory_wait_seconds_total", "counter", &["stream"]),
    ("trailcast_rate_limit_wait_seconds_total", "counter", &["stream"]),
    ("trailcast_records_outside_total", "counter", &["stream"]),
    ("trailcast_records_total", "counter", &["stream"]),
    ("trailcast_sink_errors_total", "counter", &["reason", "sink", "stream"]),
    ("trailcast_sink_request_duration_seconds", "histogram", &["sink"]),
    ("trailcast_stream_running", "gauge", &["stream"]),
    ("trailcast_trace_spans_lost_total", "counter", &[]),
    ("trailcast_trace_spans_total", "counter", &[]),
    ("trailcast_verified_through_timestamp_seconds", "gauge", &["sink", "stream"]),
];

/// 2026-01-01T00:00:00Z.
const NOW: Millis = 1_767_225_600_000;

/// Every sample by `name{labels}`, as rendered.
fn samples(text: &str) -> BTreeMap<&str, f64> {
    text.lines()
        .filter(|line| !line.starts_with('#'))
        .map(|line| {
            let (series, value) = line.rsplit_once(' ').unwrap();
            (series, value.parse().unwrap())
        })
        .collect()
}

fn families(text: &str) -> BTreeMap<&str, (&str, BTreeSet<Vec<&str>>)> {
    let mut families = BTreeMap::new();
    for line in text.lines() {
        if let Some(declared) = line.strip_prefix("# TYPE ") {
            let (name, kind) = declared.split_once(' ').unwrap();
            assert!(families.insert(name, (kind, BTreeSet::new())).is_none(), "{name} twice");
        }
    }
    for series in samples(text).keys() {
        let (name, labels) = series.trim_end_matches('}').split_once('{').unwrap_or((series, ""));
        let (family, histogram) = ["_bucket", "_sum", "_count"]
            .iter()
            .find_map(|suffix| name.strip_suffix(suffix).filter(|family| families.contains_key(family)))
            .map_or((name, false), |family| (family, true));
        let mut labels: Vec<&str> =
            labels.split_terminator(',').map(|label| label.split_once('=').unwrap().0).collect();
        labels.retain(|label| !histogram || *label != "le");
        labels.sort_unstable();
        families.get_mut(family).unwrap_or_else(|| panic!("{family} has no type")).1.insert(labels);
    }
    families
}

fn all_known() -> Metrics {
    let metrics = Metrics::new();
    let stream = metrics.stream("users");
    stream.set_clock_offset(2_500);
    stream.set_clock(2_500, true);
    stream.set_read_through(NOW - 1_000);
    let lane = metrics.lane("users", "out");
    lane.set_delivered_through(NOW - 3_000);
    lane.set_verified_through(NOW - 60_000);
    lane.committed(NOW - 500);
    let _ = metrics.sink("out");
    metrics
}

#[test]
fn every_documented_metric_is_there_and_no_other() {
    let text = all_known().render_at(NOW);
    let found = families(&text);
    let ours: BTreeMap<_, _> = found.iter().filter(|(name, _)| name.starts_with("trailcast_")).collect();
    let names: Vec<&str> = ours.keys().map(|name| **name).collect();
    let documented: Vec<&str> = METRICS.iter().map(|(name, ..)| *name).collect();
    assert_eq!(names, documented, "\n{text}");
    for (name, kind, labels) in METRICS {
        assert_eq!(found[name], (*kind, BTreeSet::from([labels.to_vec()])), "{name}");
    }
    if cfg!(target_os = "linux") {
        assert!(found.contains_key("process_resident_memory_bytes"), "\n{text}");
    }
    assert!(found.keys().all(|name| name.starts_with("trailcast_") || name.starts_with("process_")), "\n{text}");
}

#[test]
fn every_label_value_starts_at_zero_and_what_is_unknown_is_absent() {
    let metrics = Metrics::new();
    let (_stream, _lane) = (metrics.stream("users"), metrics.lane("users", "out"));
    let text = metrics.render_at(NOW);
    let samples = samples(&text);
    for reason in FetchReason::ALL {
        let series = format!("trailcast_fetch_errors_total{{reason=\"{}\",stream=\"users\"}}", reason.label());
        assert_eq!(samples.get(series.as_str()), Some(&0.0), "{series}");
    }
    for outcome in Outcome::ALL {
        let series = format!("trailcast_fetch_windows_total{{outcome=\"{}\",stream=\"users\"}}", outcome.label());
        assert_eq!(samples.get(series.as_str()), Some(&0.0), "{series}");
    }
    for reason in SinkReason::ALL {
        let series =
            format!("trailcast_sink_errors_total{{reason=\"{}\",sink=\"out\",stream=\"users\"}}", reason.label());
        assert_eq!(samples.get(series.as_str()), Some(&0.0), "{series}");
    }
    for state in LaneState::ALL {
        let series = format!("trailcast_lane_state{{sink=\"out\",state=\"{}\",stream=\"users\"}}", state.label());
        assert_eq!(samples.get(series.as_str()), Some(&0.0), "{series}");
    }
    for unknown in ["lag", "timestamp", "offset"] {
        assert!(
            !samples.keys().any(|series| series.starts_with("trailcast_") && series.contains(unknown)),
            "{unknown}"
        );
    }
}

#[test]
fn lags_grow_while_nothing_runs() {
    let metrics = all_known();
    let lags = |now| {
        let text = metrics.render_at(now);
        let samples = samples(&text);
        (
            samples["trailcast_fetch_lag_seconds{stream=\"users\"}"],
            samples["trailcast_delivery_lag_seconds{sink=\"out\",stream=\"users\"}"],
        )
    };
    // The server's clock is 2.5 s ahead.
    assert_eq!(lags(NOW), (3.5, 5.5));
    assert_eq!(lags(NOW + 10_000), (13.5, 15.5));
    metrics.stream("users").set_read_through(NOW - 2_000);
    assert_eq!(lags(NOW), (3.5, 5.5), "a lane that reads behind another does not set the stream back");
    metrics.stream("users").set_read_through(NOW + 9_000);
    assert_eq!(lags(NOW), (-6.5, 5.5), "what is ahead of the server's time shows");
    assert_eq!(lags(NOW + 6_000), (0.0, 11.5), "but not what an estimate is off by");
}

#[test]
fn handles_count_into_their_own_series() {
    let metrics = all_known();
    let (users, cloud) = (metrics.stream("users"), metrics.stream("cloud"));
    users.request_started();
    users.request_finished(Duration::from_millis(300));
    users.error(FetchReason::Timeout);
    users.window(Outcome::Split);
    users.records(7);
    let waited_for_memory = Duration::from_millis(250);
    users.waited(Timing { waited: Duration::from_millis(1_500), waited_for_memory, ..Timing::default() });
    metrics.set_memory_budget(1 << 20);
    let share = Budget::new(1 << 20, 1 << 19, 1).share();
    users.set_memory(Arc::clone(&share));
    let _held = share.hold(7);
    users.late(Duration::from_secs(45));
    cloud.records(1);
    let lane = metrics.lane("users", "out");
    lane.delivered(5);
    metrics.lane("users", "out").delivered(1);
    lane.late(2);
    lane.sink_error(SinkReason::Checkpoint);
    lane.set_state(LaneState::Stalled);
    lane.set_state(LaneState::CatchingUp);
    metrics.sink("out").request_finished(Duration::from_millis(30));
    metrics.traces().span();
    metrics.traces().lost(1);
    assert_eq!((lane.delivered_so_far(), users.requests_so_far()), (6, 1));

    let text = metrics.render_at(NOW);
    let samples = samples(&text);
    for (series, value) in [
        ("fetch_requests_total{stream=\"users\"}", 1.0),
        ("fetch_requests_total{stream=\"cloud\"}", 0.0),
        ("fetch_request_duration_seconds_bucket{stream=\"users\",le=\"0.25\"}", 0.0),
        ("fetch_request_duration_seconds_bucket{stream=\"users\",le=\"0.5\"}", 1.0),
        ("fetch_errors_total{reason=\"timeout\",stream=\"users\"}", 1.0),
        ("fetch_errors_total{reason=\"connect\",stream=\"users\"}", 0.0),
        ("fetch_windows_total{outcome=\"split\",stream=\"users\"}", 1.0),
        ("records_total{stream=\"users\"}", 7.0),
        ("records_total{stream=\"cloud\"}", 1.0),
        ("rate_limit_wait_seconds_total{stream=\"users\"}", 1.5),
        ("memory_wait_seconds_total{stream=\"users\"}", 0.25),
        ("memory_budget_bytes", 1_048_576.0),
        ("memory_share_bytes{stream=\"users\"}", 524_288.0),
        ("memory_held_bytes{stream=\"users\"}", 7.0),
        ("memory_held_bytes{stream=\"cloud\"}", 0.0),
        ("event_lateness_seconds_bucket{stream=\"users\",le=\"30\"}", 0.0),
        ("event_lateness_seconds_bucket{stream=\"users\",le=\"60\"}", 1.0),
        ("events_delivered_total{sink=\"out\",stream=\"users\"}", 6.0),
        ("events_late_total{sink=\"out\",stream=\"users\"}", 2.0),
        ("sink_errors_total{reason=\"checkpoint\",sink=\"out\",stream=\"users\"}", 1.0),
        ("lane_state{sink=\"out\",state=\"catching_up\",stream=\"users\"}", 1.0),
        ("lane_state{sink=\"out\",state=\"stalled\",stream=\"users\"}", 0.0),
        ("sink_request_duration_seconds_sum{sink=\"out\"}", 0.03),
        ("trace_spans_total", 1.0),
        ("trace_spans_lost_total", 1.0),
        ("clock_in_doubt{stream=\"users\"}", 1.0),
        ("clock_in_doubt{stream=\"cloud\"}", 0.0),
        ("clock_offset_seconds{stream=\"users\"}", 2.5),
        ("last_commit_timestamp_seconds{sink=\"out\",stream=\"users\"}", 1_767_225_599.5),
        ("verified_through_timestamp_seconds{sink=\"out\",stream=\"users\"}", 1_767_225_540.0),
    ] {
        let series = format!("trailcast_{series}");
        assert_eq!(samples.get(series.as_str()), Some(&value), "{series}\n{text}");
    }
}
