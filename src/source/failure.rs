//! What went wrong, in words that may be logged: no secret, no signature, no address of a person.

use std::error::Error;
use std::fmt::Write as _;
use std::time::Duration;

use reqwest::StatusCode;

use super::{FailureClass, FetchError, FetchReason};

/// Most characters of what a server said that a message repeats.
const LONGEST_QUOTE: usize = 200;
/// Longer words without a space are left out: keys, tokens and signatures have more characters than the 24 of
/// an object id, and whoever reads a message misses nothing.
const LONGEST_WORD: usize = 24;

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
            _ => Self::new(
                FailureClass::Refused,
                FetchReason::HttpStatus,
                format!("HTTP {status}: look at endpoint and at what stands before the API"),
            ),
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

/// An error and its causes, each once.
fn chain(error: &dyn Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        let more = error.to_string();
        if !text.contains(&more) {
            // Writing to a string cannot fail.
            let _ = write!(text, ": {more}");
        }
        cause = error.source();
    }
    clean(&text, &[])
}

/// What a server said, fit for a log line: one line, of bounded length, without `secrets`, without words that
/// may be keys, and without e-mail addresses.
pub(super) fn clean(said: &str, secrets: &[&str]) -> String {
    let mut said = said.to_owned();
    for secret in secrets.iter().filter(|secret| !secret.is_empty()) {
        said = said.replace(secret, "…");
    }
    let mut out = String::new();
    let words = said.split(|c: char| c.is_whitespace() || c.is_control()).filter(|word| !word.is_empty());
    for (n, word) in words.enumerate() {
        if n > 0 {
            out.push(' ');
        }
        if word.contains('@') || longest_run(word) > LONGEST_WORD {
            out.push('…')
        } else {
            out.push_str(word)
        }
        if out.chars().count() > LONGEST_QUOTE {
            return out.chars().take(LONGEST_QUOTE).chain(['…']).collect();
        }
    }
    out
}

/// The longest stretch of characters that keys, tokens and signatures are made of.
fn longest_run(word: &str) -> usize {
    word.split(|c: char| !(c.is_ascii_alphanumeric() || "+/=_-.".contains(c))).map(str::len).max().unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn what_may_not_be_logged_is_left_out() {
        let said = "bad\r\nsignature\u{1b}[31m GLLe8CCzqXb3ViX8kqeHG1Wk0oQ= of ann@example.com, key short-key; retry";
        assert_eq!(clean(said, &["short-key"]), "bad signature [31m … of … key …; retry");
        assert_eq!(clean("pool 65f0c1a2b3c4d5e6f7a8b9c0 not found", &[]), "pool 65f0c1a2b3c4d5e6f7a8b9c0 not found");
    }

    proptest! {
        #[test]
        fn a_quote_is_one_bounded_line(said in "\\PC{0,600}|[a-c\\x00-\\x20]{0,600}", secret in "[a-z]{3,8}") {
            let quote = clean(&format!("{said}{secret} {said}"), &[&secret]);
            prop_assert!(quote.chars().count() <= LONGEST_QUOTE + 1);
            prop_assert!(!quote.chars().any(char::is_control));
            prop_assert!(!quote.contains(&secret));
        }
    }
}
