//! Event → bytes.
//!
//! Pure: no I/O, no clock.

use serde::{Deserialize, Serialize};

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
