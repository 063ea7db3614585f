//! What went wrong, in words that may be logged: no secret, no signature, no address of a person.

use std::time::Duration;

use reqwest::StatusCode;

use super::{FailureClass, FetchError, FetchReason};
use crate::words::chain;

/// What to do where a server has nothing at that path.
pub(super) const NOTHING_THERE: &str = "nothing is served there: look at endpoint and its path";

impl FetchError {
    pub(super) fn new(class: FailureClass, reason: FetchReason, message: impl Into<String>) -> Self {
        Self { class, reason, retry_after: None, message: message.into() }
    }

    /// The answer is no page.
    pub(super) fn malformed(message: impl Into<String>) -> Self {
        Self::new(FailureClass::Malformed, FetchReason::Malformed, message)
    }

    /// The answer is not even an answer of this API: it was cut off, or something in between wrote it.
    pub(super) fn garbled(message: impl Into<String>) -> Self {
        Self::new(FailureClass::Transient, FetchReason::Malformed, message)
    }

    pub(super) fn credentials(message: impl Into<String>) -> Self {
        Self::new(FailureClass::Credentials, FetchReason::Credentials, message)
    }

    pub(super) fn refused(message: impl Into<String>) -> Self {
        Self::new(FailureClass::Refused, FetchReason::Refused, message)
    }

    pub(super) fn api(message: impl Into<String>) -> Self {
        Self::new(FailureClass::Transient, FetchReason::Api, message)
    }

    pub(super) fn throttled(message: impl Into<String>, retry_after: Option<Duration>) -> Self {
        Self { retry_after, ..Self::new(FailureClass::Throttled, FetchReason::Throttled, message) }
    }

    /// An HTTP status that is no success, from whoever answered: the API, or a gateway before it.
    pub(super) fn of_status(status: StatusCode, retry_after: Option<Duration>) -> Self {
        let error = match status.as_u16() {
            429 => Self::throttled(format!("HTTP {status}"), None),
            401 => Self::credentials(format!("HTTP {status}: look at the credentials")),
            407 => Self::refused(format!("HTTP {status}: the proxy from the environment wants credentials")),
            // Followed, a redirect would carry credentials to another host.
            300..=399 => Self::refused(format!("HTTP {status}: a redirect; set endpoint to where it leads")),
            // The server gave up waiting for the request, or for what is behind it.
            408 | 425 | 500.. => Self::new(FailureClass::Transient, FetchReason::HttpStatus, format!("HTTP {status}")),
            // No request of ours does better by being sent again.
            404 | 405 => Self::refused(format!("HTTP {status}: {NOTHING_THERE}")),
            _ => Self::refused(format!("HTTP {status}: look at endpoint and at what stands before the API")),
        };
        Self { retry_after, ..error }
    }

    /// No answer, or the end of it never came.
    pub(super) fn of_transport(error: reqwest::Error, doing: &str) -> Self {
        let reason = if error.is_timeout() {
            FetchReason::Timeout
        } else if error.is_body() || error.is_decode() {
            FetchReason::Malformed
        } else {
            FetchReason::Connect
        };
        // The address is config, and could hold a password.
        let message = format!("{doing}: {}", chain(&error.without_url()));
        Self::new(FailureClass::Transient, reason, message)
    }
}
