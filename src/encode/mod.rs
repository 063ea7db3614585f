//! Event → bytes.
//!
//! Pure: no I/O, no clock.

use serde::{Deserialize, Serialize};

use crate::normalize::Event;

mod ecs;
mod json;
mod name;
mod native;
mod ocsf;
pub mod otel;

pub use name::event_name;

/// How an event is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Format {
    /// OCSF 1.8.0.
    #[default]
    Ocsf,
    /// Elastic Common Schema 9.4.
    Ecs,
    /// trailcast's own: the record untouched inside a thin frame.
    Native,
    /// OpenTelemetry: an `ExportLogsServiceRequest` in protobuf.
    Otlp,
}

impl Format {
    /// What HTTP and CloudEvents call it.
    #[must_use]
    pub const fn content_type(self) -> &'static str {
        match self {
            Self::Ocsf | Self::Ecs | Self::Native => "application/json",
            Self::Otlp => otel::CONTENT_TYPE,
        }
    }
}

/// Appends the event: in `otlp` as a message of protobuf, in all else as exactly one JSON object without a line break.
///
/// `with_raw` puts the record's own text into the event as well: an event with a
/// [`Problem`](crate::normalize::Problem) has it in any case, since nothing else may hold what the record said, and
/// so has every `native` event.
pub fn encode(format: Format, with_raw: bool, event: &Event<'_>, out: &mut Vec<u8>) {
    let raw = (with_raw || event.problem.is_some()).then_some(&event.raw);
    match format {
        Format::Ocsf => json::object(out, |to| ocsf::members(event, raw, to)),
        Format::Ecs => json::object(out, |to| ecs::members(event, raw, to)),
        Format::Native => json::object(out, |to| native::members(event, to)),
        Format::Otlp => otel::request(event, with_raw, out),
    }
}

#[cfg(test)]
mod tests;
