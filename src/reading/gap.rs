//! What a reading could not get, and what was wrong with what it got.

use serde::{Deserialize, Serialize};

use crate::event::Millis;
use crate::window::Window;

/// A part of the log that is given up: what of it was listed is delivered, what was not is lost, and told.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Gap {
    /// Its first instant.
    pub from: Millis,
    /// The first instant after it.
    pub to: Millis,
    /// Why.
    pub reason: GapReason,
}

impl Gap {
    /// All of `window`.
    #[must_use]
    pub const fn of(Window { from, to }: Window, reason: GapReason) -> Self {
        Self { from, to, reason }
    }
}

/// Why something is given up: a closed set.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum GapReason {
    /// A single record is larger than `max_response_size`.
    TooLarge,
    /// Pages that the API refuses or fails to give, however they are asked for, while it gives others.
    Unreadable,
    /// More records in one clock unit than the API pages through.
    TooDeep,
    /// Page after page with nothing new, and no end.
    Endless,
    /// The API counts other records than it lists, whenever it is asked; or lists others for parts of an interval.
    Contradiction,
    /// The API lists the same records whatever bounds are asked for: what else there is it never lists.
    Bounds,
    /// Older than what the API still gives.
    Expired,
    /// Passed over by hand, with `cursor set --skip`.
    Skipped,
}

impl GapReason {
    /// Its name, as stored and shown.
    #[must_use]
    pub const fn label(self) -> &'static str {
        match self {
            Self::TooLarge => "too_large",
            Self::Unreadable => "unreadable",
            Self::TooDeep => "too_deep",
            Self::Endless => "endless",
            Self::Contradiction => "contradiction",
            Self::Bounds => "bounds",
            Self::Expired => "expired",
            Self::Skipped => "skipped",
        }
    }
}

/// What was wrong with a run of pages whose answers were pages, one by one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Breach {
    /// A token came twice.
    Circle,
    /// Page after page listed nothing new.
    Endless,
    /// The rows listed are not as many as counted.
    Contradiction,
}

impl Breach {
    /// In words.
    #[must_use]
    pub const fn words(self) -> &'static str {
        match self {
            Self::Circle => "the API's pages go in a circle: a token came twice",
            Self::Endless => "the API gives page after page with nothing new and no end",
            Self::Contradiction => "the API counts other records than it lists",
        }
    }
}
