//! What trailcast says of itself. Its log: lines on stderr, text for a person or JSON for a program; stdout belongs to
//! events. Its [`spans`], where the config says whom to [`export`] them to; what is written within one carries its
//! `trace_id`. (What it counts is in [`crate::metrics`].)
//!
//! Reads `NO_COLOR` from the environment, as terminal programs do.

pub mod export;
mod format;

use std::io::{self, IsTerminal};

use tracing::{Metadata, Subscriber};
use tracing_subscriber::filter::{LevelFilter, filter_fn};
use tracing_subscriber::fmt::MakeWriter;
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::registry::LookupSpan;
use tracing_subscriber::util::SubscriberInitExt;
use tracing_subscriber::{EnvFilter, Layer, Registry};

use self::export::Traces;
use self::format::{JsonLine, TextFields};
use crate::config::{FilterError, LogConfig, LogFormat, log_filter};
use crate::spans;

/// Why the log could not be set up.
#[derive(Debug, thiserror::Error)]
pub enum TelemetryError {
    /// `log.level` is no filter.
    #[error("`log.level` is neither a level nor a filter")]
    Filter(#[source] FilterError),
    /// The process already has a log.
    #[error("the log is already set up")]
    AlreadySet,
}

/// Whether the log is for a program.
#[must_use]
pub fn is_json(config: &LogConfig) -> bool {
    config.format.map_or_else(|| !io::stderr().is_terminal(), |format| format == LogFormat::Json)
}

/// Starts the log of this process, on stderr, and its traces, if there are to be any. Call once.
///
/// # Errors
/// When `log.level` is no filter, which [`crate::config::load`] has already ruled out, or when called twice.
pub fn init(config: &LogConfig, traces: Option<&Traces>) -> Result<(), TelemetryError> {
    let stderr_is_terminal = io::stderr().is_terminal();
    let format = if is_json(config) { LogFormat::Json } else { LogFormat::Text };
    let filter = log_filter(&config.level).map_err(TelemetryError::Filter)?;
    // https://no-color.org
    let colour = stderr_is_terminal && std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty());
    subscriber(format, filter, colour, io::stderr, traces).try_init().map_err(|_| TelemetryError::AlreadySet)
}

fn subscriber<W>(
    format: LogFormat,
    filter: EnvFilter,
    colour: bool,
    writer: W,
    traces: Option<&Traces>,
) -> Box<dyn Subscriber + Send + Sync>
where
    W: for<'writer> MakeWriter<'writer> + Send + Sync + 'static,
{
    match traces {
        // No layer takes spans: none is ever made.
        None => Box::new(Registry::default().with(log(format, filter, colour, writer))),
        Some(traces) => {
            let spans = tracing_opentelemetry::layer()
                .with_tracer(traces.tracer())
                .with_location(false)
                .with_threads(false)
                .with_target(false)
                .with_tracked_inactivity(false)
                .with_filter(filter_fn(is_span).with_max_level_hint(LevelFilter::INFO));
            Box::new(Registry::default().with(spans).with(log(format, filter, colour, writer)))
        }
    }
}

/// Ours alone. Those of the libraries that we send with would be sent in their turn; and an event of the log would take
/// its message along.
fn is_span(metadata: &Metadata<'_>) -> bool {
    metadata.is_span() && metadata.target() == spans::TARGET
}

fn log<S, W>(format: LogFormat, filter: EnvFilter, colour: bool, writer: W) -> Box<dyn Layer<S> + Send + Sync>
where
    S: Subscriber + for<'lookup> LookupSpan<'lookup>,
    W: for<'writer> MakeWriter<'writer> + Send + Sync + 'static,
{
    let without_spans = format!("{}=off", spans::TARGET).parse().expect("a constant directive");
    let filter = filter.add_directive(without_spans);
    let log = tracing_subscriber::fmt::layer().with_writer(writer).with_ansi(colour);
    match format {
        LogFormat::Text => log.fmt_fields(TextFields::new()).with_filter(filter).boxed(),
        LogFormat::Json => {
            // Flat fields are what log stores index without further rules.
            let line = tracing_subscriber::fmt::format().json().flatten_event(true);
            log.json().event_format(JsonLine(line)).with_filter(filter).boxed()
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::sync::{Arc, Mutex, PoisonError};
    use std::time::{Duration, Instant};

    use super::*;
    use crate::config::TracesConfig;
    use crate::metrics::TraceMetrics;

    #[derive(Clone, Default)]
    struct Captured(Arc<Mutex<Vec<u8>>>);

    impl io::Write for Captured {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.lock().unwrap().extend_from_slice(bytes);
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    /// Acts with a subscriber that is the only one: what a span is to one, the process remembers for all that are there.
    pub(super) fn alone(subscriber: impl Subscriber + Send + Sync + 'static, act: impl FnOnce()) {
        static ALONE: Mutex<()> = Mutex::new(());
        let _alone = ALONE.lock().unwrap_or_else(PoisonError::into_inner);
        tracing::subscriber::with_default(subscriber, act);
    }

    fn captured(format: LogFormat, level: &str, traces: Option<&Traces>, act: impl FnOnce()) -> String {
        let captured = Captured::default();
        let writer = captured.clone();
        let subscriber = subscriber(format, log_filter(level).unwrap(), false, move || writer.clone(), traces);
        alone(subscriber, act);
        String::from_utf8(captured.0.lock().unwrap().clone()).unwrap()
    }

    fn log(format: LogFormat, level: &str) -> String {
        captured(format, level, None, || {
            tracing::info!(stream = "users", "a \"quoted\" line\nand another");
            tracing::debug!("not at this level");
        })
    }

    /// Nobody listens on port 1.
    fn nowhere(sample_ratio: f64) -> TracesConfig {
        TracesConfig { endpoint: "http://127.0.0.1:1".parse().unwrap(), headers: BTreeMap::new(), sample_ratio }
    }

    fn traces(sample_ratio: f64) -> Traces {
        Traces::build(&nowhere(sample_ratio), TraceMetrics::default()).unwrap()
    }

    #[test]
    fn without_traces_there_are_no_spans_whatever_the_filter() {
        let text = captured(LogFormat::Text, "trace", None, || {
            let span = spans::commit("users", "out");
            assert!(span.is_disabled());
            span.in_scope(|| tracing::info!("in it"));
        });
        assert!(text.ends_with("in it\n") && !text.contains("commit") && !text.contains("trace_id"), "{text}");
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn a_line_within_a_trace_carries_its_id_and_is_otherwise_as_ever() {
        let traces = traces(1.0);
        let lines = |traces| {
            let act = || {
                spans::commit("users", "out").in_scope(|| tracing::info!(stream = "users", "in it"));
                tracing::info!("beside it");
            };
            [LogFormat::Text, LogFormat::Json].map(|format| captured(format, "trace", traces, act))
        };
        let ([text, json], [plain, _]) = (lines(Some(&traces)), lines(None));
        let (within, beside) = text.split_once('\n').unwrap();
        let (line, trace) = within.split_once(" trace_id=").unwrap();
        assert_eq!(trace.len(), 32);
        let untimed = |line: &str| line.split_once("INFO").unwrap().1.to_owned();
        assert_eq!(untimed(line), untimed(plain.lines().next().unwrap()));
        assert!(!beside.contains("trace_id"), "{text}");
        let json: Vec<serde_json::Value> = json.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
        assert_eq!(json[0]["trace_id"].as_str().unwrap().len(), 32);
        let keys: Vec<&String> = json[0].as_object().unwrap().keys().collect();
        assert_eq!(keys, ["timestamp", "level", "message", "stream", "target", "trace_id"]);
        assert_eq!((&json[1]["trace_id"], &json[1]["message"]), (&serde_json::Value::Null, &"beside it".into()));
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn what_is_not_sampled_has_no_id() {
        let traces = traces(0.0);
        let text = captured(LogFormat::Text, "info", Some(&traces), || {
            spans::commit("users", "out").in_scope(|| tracing::info!("in it"));
        });
        assert!(text.contains("in it") && !text.contains("trace_id"), "{text}");
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn only_our_own_spans_are_taken_and_no_events() {
        let traces = traces(1.0);
        captured(LogFormat::Text, "off", Some(&traces), || {
            assert!(tracing::info_span!(target: "h2::client", "connection").is_disabled());
            assert!(tracing::info_span!("of a module of ours").is_disabled());
            assert!(!tracing::enabled!(target: spans::TARGET, tracing::Level::ERROR));
            assert!(!spans::request("users").is_disabled());
        });
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn spans_that_nobody_takes_are_counted_and_hold_nobody_up() {
        let lost_of = async |spans: usize| {
            let metrics = crate::metrics::Metrics::new();
            let traces = Traces::build(&nowhere(1.0), metrics.traces()).unwrap();
            captured(LogFormat::Text, "off", Some(&traces), || (0..spans).for_each(|_| drop(spans::commit("s", "k"))));
            let began = Instant::now();
            traces.flush().await;
            assert!(began.elapsed() < Duration::from_secs(4), "{:?}", began.elapsed());
            let text = metrics.render();
            assert!(text.contains(&format!("trailcast_trace_spans_total {spans}\n")), "{text}");
            let lost = text.lines().find_map(|line| line.strip_prefix("trailcast_trace_spans_lost_total "));
            lost.unwrap().parse::<usize>().unwrap()
        };
        assert_eq!(lost_of(100).await, 100);
        // More than may ever wait; what waits may not have been given up yet.
        assert!(lost_of(10_000).await > 5_000);
        assert!(export::probe(&nowhere(1.0)).await.unwrap_err().contains("Unavailable"));
    }

    #[test]
    fn json_lines_parse() {
        let text = log(LogFormat::Json, "info");
        let lines: Vec<serde_json::Value> = text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
        assert_eq!(lines.len(), 1, "{text}");
        assert_eq!(lines[0]["stream"], "users");
        assert_eq!(lines[0]["level"], "INFO");
        assert_eq!(lines[0]["message"], "a \"quoted\" line\nand another");
    }

    #[test]
    fn text_is_readable_and_the_filter_counts() {
        let text = log(LogFormat::Text, "info");
        assert!(text.contains("stream=\"users\"") && !text.contains("not at this level"), "{text}");
        assert!(log(LogFormat::Text, "info,trailcast=debug").contains("not at this level"));
        assert_eq!(log(LogFormat::Text, "warn"), "");
    }
}
