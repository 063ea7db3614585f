//! What there is to say of trailcast's own log, and which levels are a filter.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use tracing_subscriber::EnvFilter;
use tracing_subscriber::filter::{LevelFilter, ParseError};

/// trailcast's own log, on stderr.
#[derive(Debug, Clone)]
pub struct LogConfig {
    /// Default: text on a terminal, JSON otherwise.
    pub format: Option<LogFormat>,
    /// `error`, `warn`, `info`, `debug` or `trace`, or a `tracing` filter. Default `info`.
    pub level: String,
}

impl Default for LogConfig {
    fn default() -> Self {
        Self { format: None, level: "info".to_owned() }
    }
}

/// How a log line is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum LogFormat {
    /// For a person.
    Text,
    /// For a program.
    Json,
}

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

/// Reads `log.level`: one level for all (`info`), or levels by module (`info,trailcast::source=debug`).
///
/// # Errors
/// When the text is neither.
pub fn log_filter(level: &str) -> Result<EnvFilter, FilterError> {
    let bare = |part: &&str| !part.contains(['=', '[', ']']);
    let is_level = |word: &str| !word.is_empty() && word.parse::<LevelFilter>().is_ok();
    if level.split(',').filter(bare).any(|word| !is_level(word)) {
        return Err(FilterError::Level);
    }
    EnvFilter::builder().parse(level).map_err(FilterError::Syntax)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bad_filter_is_an_error() {
        for bad in ["", "infoo", "trailcast", "info,debgu", "warn, trailcast=trace", "trailcast=loud", "info,="] {
            assert!(log_filter(bad).is_err(), "{bad}");
        }
        for good in ["info", "WARN", "off", "info,trailcast::source=debug"] {
            assert!(log_filter(good).is_ok(), "{good}");
        }
    }
}
