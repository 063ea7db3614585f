//! Clients of the two APIs: one page each, with its limits and credentials.
//!
//! A client asks once. It never retries (but for the one fresh token or fresh signature that the API itself
//! asks for), never sleeps but in its limiter, and knows nothing of windows, lanes or sinks.

use std::time::Duration;

use crate::event::{Listed, Millis};

/// Who waits behind whom for a credential's requests.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Priority {
    /// The live pass, near now.
    Live,
    /// A sweep.
    Sweep,
    /// The live pass far behind, and every backfill.
    CatchUp,
}

/// One page to ask for. All but `position` stays the same through a run of pages.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PageRequest {
    /// The lower bound as sent (a multiple of the source's clock unit).
    pub from: Millis,
    /// The upper bound as sent.
    pub to: Millis,
    /// Most records in the answer.
    pub limit: u32,
    /// Which page of the run.
    pub position: Position,
}

/// A page's place in its run.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Position {
    /// The first page.
    First,
    /// The page with this number, from 1 (GenAuth).
    Number(u32),
    /// The page behind this token (SCloud).
    Token(String),
}

/// One API response.
#[derive(Debug, Clone)]
pub struct Page {
    /// The records, in the order listed.
    pub records: Vec<Listed>,
    /// How many records the API says there are between the bounds (GenAuth), if it says so.
    pub total: Option<u64>,
    /// The token of the next page (SCloud). An empty one was none.
    pub next_token: Option<String>,
}

/// What went wrong with one request, sorted by what to do about it. See [`FailureClass`].
#[derive(Debug, thiserror::Error)]
#[error("{message}")]
pub struct FetchError {
    /// What to do.
    pub class: FailureClass,
    /// The metric label.
    pub reason: FetchReason,
    /// How long the server asked to wait, as it said it (not clamped).
    pub retry_after: Option<Duration>,
    /// One readable line; holds no secret and no personal data.
    pub message: String,
}

/// Failures sorted by what they ask of the caller. None ends the process, none advances state.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum FailureClass {
    /// Slow down, and honour the wait that was asked for.
    Throttled,
    /// Try again with backoff.
    Transient,
    /// An operator must mend the credentials; retry slowly and loudly.
    Credentials,
    /// The request itself is refused; an operator must mend the config or a permission.
    Refused,
    /// The answer is not what the API documents; try again with backoff.
    Malformed,
}

/// The closed set of values of the label `reason` of `trailcast_fetch_errors_total`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum FetchReason {
    /// HTTP 429, `statusCode` 429, `RetCode` 153.
    Throttled,
    /// No connection: refused, reset, DNS, TLS.
    Connect,
    /// No answer in time.
    Timeout,
    /// An HTTP status that is an error.
    HttpStatus,
    /// The API's own error, worth a retry.
    Api,
    /// The credentials are refused.
    Credentials,
    /// The request is refused: a parameter or a permission.
    Refused,
    /// The body ended early or is no such page.
    Malformed,
    /// The body is larger than the cap.
    TooLarge,
}

impl FetchReason {
    /// Every value, for initialising metrics to zero.
    pub const ALL: [Self; 9] = [
        Self::Throttled,
        Self::Connect,
        Self::Timeout,
        Self::HttpStatus,
        Self::Api,
        Self::Credentials,
        Self::Refused,
        Self::Malformed,
        Self::TooLarge,
    ];

    /// The label's value.
    #[must_use]
    pub const fn label(self) -> &'static str {
        match self {
            Self::Throttled => "throttled",
            Self::Connect => "connect",
            Self::Timeout => "timeout",
            Self::HttpStatus => "http_status",
            Self::Api => "api",
            Self::Credentials => "credentials",
            Self::Refused => "refused",
            Self::Malformed => "malformed",
            Self::TooLarge => "too_large",
        }
    }
}
