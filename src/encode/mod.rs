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
}

/// Appends the event as exactly one JSON object without a line break.
///
/// `with_raw` puts the record's own text into the event as well: an event with a
/// [`Problem`](crate::normalize::Problem) has it in any case, since nothing else may hold what the record said, and
/// so has every `native` event.
pub fn encode(format: Format, with_raw: bool, event: &Event<'_>, out: &mut Vec<u8>) {
    let raw = (with_raw || event.problem.is_some()).then_some(&event.raw);
    json::object(out, |to| match format {
        Format::Ocsf => ocsf::members(event, raw, to),
        Format::Ecs => ecs::members(event, raw, to),
        Format::Native => native::members(event, to),
    });
}

#[cfg(test)]
mod tests;
