//! trailcast's own log: lines on stderr, text for a person or JSON for a program. stdout belongs to events.
//!
//! Reads `NO_COLOR` from the environment, as terminal programs do.

use std::io::{self, IsTerminal};

use tracing_subscriber::EnvFilter;
use tracing_subscriber::filter::{LevelFilter, ParseError};
use tracing_subscriber::fmt::MakeWriter;
use tracing_subscriber::util::SubscriberInitExt;

use crate::config::{LogConfig, LogFormat};

/// A filter that would not do what its writer meant.
#[derive(Debug, thiserror::Error)]
pub enum FilterError {
    /// Not the syntax of a filter.
    #[error("not a filter")]
    Syntax(#[source] ParseError),
    /// A word that is no level. The syntax takes it for a module and is silent about everything else.
    #[error("not a level: one of `error`, `warn`, `info`, `debug`, `trace`, `off`")]
    Level,
}

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

/// Reads `log.level`: one level for all (`info`), or levels by module (`info,trailcast::source=debug`).
///
/// # Errors
/// When the text is neither.
pub fn filter(level: &str) -> Result<EnvFilter, FilterError> {
    let bare = |part: &&str| !part.contains(['=', '[', ']']);
    let is_level = |word: &str| !word.is_empty() && word.parse::<LevelFilter>().is_ok();
    if level.split(',').filter(bare).any(|word| !is_level(word)) {
        return Err(FilterError::Level);
    }
    EnvFilter::builder().parse(level).map_err(FilterError::Syntax)
}

/// Starts the log of this process, on stderr. Call once.
///
/// # Errors
/// When `log.level` is no filter, which [`crate::config::load`] has already ruled out, or when called twice.
pub fn init(config: &LogConfig) -> Result<(), TelemetryError> {
    let stderr_is_terminal = io::stderr().is_terminal();
    let format = config.format.unwrap_or(if stderr_is_terminal { LogFormat::Text } else { LogFormat::Json });
    let filter = filter(&config.level).map_err(TelemetryError::Filter)?;
    // https://no-color.org
    let colour = stderr_is_terminal && std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty());
    subscriber(format, filter, colour, io::stderr).try_init().map_err(|_| TelemetryError::AlreadySet)
}

fn subscriber<W>(
    format: LogFormat,
    filter: EnvFilter,
    colour: bool,
    writer: W,
) -> Box<dyn tracing::Subscriber + Send + Sync>
where
    W: for<'writer> MakeWriter<'writer> + Send + Sync + 'static,
{
    let builder = tracing_subscriber::fmt().with_env_filter(filter).with_writer(writer).with_ansi(colour);
    match format {
        LogFormat::Text => Box::new(builder.finish()),
        // Flat fields are what log stores index without further rules.
        LogFormat::Json => Box::new(builder.json().flatten_event(true).finish()),
    }
}

/// An error with all that caused it, in one line.
#[must_use]
pub fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(error) = source {
        text = format!("{text}: {error}");
        source = error.source();
    }
    text
}

#[cfg(test)]
mod tests {
    use std::sync::{Arc, Mutex};

    use super::*;

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

    fn log(format: LogFormat, level: &str) -> String {
        let captured = Captured::default();
        let writer = captured.clone();
        let subscriber = subscriber(format, filter(level).unwrap(), false, move || writer.clone());
        tracing::subscriber::with_default(subscriber, || {
            tracing::info!(stream = "users", "a \"quoted\" line\nand another");
            tracing::debug!("not at this level");
        });
        String::from_utf8(captured.0.lock().unwrap().clone()).unwrap()
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

    #[test]
    fn a_bad_filter_is_an_error() {
        for bad in ["", "infoo", "trailcast", "info,debgu", "warn, trailcast=trace", "trailcast=loud", "info,="] {
            assert!(filter(bad).is_err(), "{bad}");
        }
        for good in ["info", "WARN", "off", "info,trailcast::source=debug"] {
            assert!(filter(good).is_ok(), "{good}");
        }
    }
}
