//! What a receiver's answer means: decided here, and nowhere else.

use std::time::{Duration, SystemTime};

use opentelemetry_proto::tonic::collector::logs::v1::ExportLogsServiceResponse;
use prost::Message;
use tonic::Code;

use crate::dead_letter::DeadLetterReason;
use crate::metrics::SinkReason;

/// The most bytes of a receiver's own words that are repeated.
const LONGEST_QUOTE: usize = 300;

/// What became of a request.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Answer {
    /// All of it is delivered.
    Delivered,
    /// So many of its records are refused for good; the others are delivered.
    Partial { rejected: u64, message: String },
    /// Some or all of its records are refused for good; the others may be delivered or not.
    Refused {
        reason: DeadLetterReason,
        message: String,
        /// It is too old for its stream alone: another may take it.
        behind: bool,
    },
    /// It is larger than is taken.
    TooLarge { message: String },
    /// All of it was taken and thrown away.
    Dropped { message: String },
    /// It may work later; what became of it is not known.
    Later(OtlpError),
}

/// Why a request was not answered, or not for good.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
#[error("{message}")]
pub struct OtlpError {
    /// The class, as metrics name it.
    pub reason: SinkReason,
    /// What happened, in the receiver's own words where it has some, and what to do where that is known.
    pub message: String,
    /// How long the receiver asks to wait.
    pub retry_after: Option<Duration>,
    /// Whether some of what was to be delivered has become known before.
    pub progressed: bool,
}

impl OtlpError {
    pub(super) fn new(reason: SinkReason, message: impl Into<String>) -> Self {
        Self { reason, message: message.into(), retry_after: None, progressed: false }
    }
}

/// An answer over HTTP, as it came.
#[derive(Debug)]
pub(super) struct HttpAnswer {
    pub(super) status: u16,
    /// As the header says it.
    pub(super) retry_after: Option<String>,
    /// The server's own time.
    pub(super) now: SystemTime,
    pub(super) body: Vec<u8>,
}

/// `google.rpc.Status`, in which receivers say what is wrong.
#[derive(Clone, PartialEq, Message)]
struct RpcStatus {
    #[prost(string, tag = "2")]
    message: String,
    #[prost(message, repeated, tag = "3")]
    details: Vec<Detail>,
}

/// `google.protobuf.Any`.
#[derive(Clone, PartialEq, Message)]
struct Detail {
    #[prost(string, tag = "1")]
    type_url: String,
    #[prost(bytes = "vec", tag = "2")]
    value: Vec<u8>,
}

/// `google.rpc.RetryInfo`.
#[derive(Clone, PartialEq, Message)]
struct RetryInfo {
    #[prost(message, optional, tag = "1")]
    delay: Option<Delay>,
}

/// `google.protobuf.Duration`.
#[derive(Clone, PartialEq, Message)]
struct Delay {
    #[prost(int64, tag = "1")]
    seconds: i64,
    #[prost(int32, tag = "2")]
    nanos: i32,
}

/// By status; the receiver's words matter for the name of a refusal alone.
pub(super) fn of_http(answer: &HttpAnswer, secrets: &[&str]) -> Answer {
    let words = words_of(&answer.body, secrets);
    let said = |what: &str| match (what, words.as_str()) {
        (what, "") => format!("HTTP {}{what}", answer.status),
        (what, words) => format!("HTTP {}{what}: {words}", answer.status),
    };
    let later = |reason, advice| {
        let retry_after = answer.retry_after.as_deref().and_then(|asked| retry_after(asked, answer.now));
        Answer::Later(OtlpError { retry_after, ..OtlpError::new(reason, said(advice)) })
    };
    match answer.status {
        // Delivered, but for what a partial success says. 204 is Loki's.
        200 | 202 | 204 => match ExportLogsServiceResponse::decode(answer.body.as_slice()) {
            Ok(response) => of_response(response, secrets),
            // Something between us and a receiver answers in its place: nothing says that anything was delivered.
            Err(_) => later(SinkReason::Refused, " with no answer of OTLP; look at `endpoint`"),
        },
        // Loki's, for a tenant whose ingestion is blocked: taken, and thrown away.
        260 => Answer::Dropped { message: said("") },
        // The content is wrong, and will be tomorrow. Loki keeps the records that are not, and does not say which.
        400 | 422 => refused(said(""), &words),
        413 => Answer::TooLarge { message: said("") },
        // It says that it is too much, or that it cannot now.
        429 => later(SinkReason::Throttled, ""),
        408 | 425 | 500 | 502..=504 => later(SinkReason::Unavailable, ""),
        401 => later(SinkReason::Credentials, "; look at `headers`"),
        403 => later(SinkReason::Refused, "; look at `headers`, and at what they may do there"),
        // Followed, a redirect would carry secrets to another host.
        300..=399 => later(SinkReason::Refused, ", a redirect; set `endpoint` to where it leads"),
        404 | 405 => later(SinkReason::Refused, "; look at the path of `endpoint`"),
        415 => later(SinkReason::Refused, "; look at `compression`: the receiver may not take this one"),
        // An unknown answer is no acknowledgement, and no reason to give an event up.
        _ => later(SinkReason::Refused, "; look at `endpoint`, and at what stands before the receiver"),
    }
}

/// By code, as the protocol has it, and beyond it on the side of trying again.
pub(super) fn of_grpc(code: Code, message: &str, details: &[u8], secrets: &[&str]) -> Answer {
    let words = clean(message, secrets);
    let name = code.description();
    let said = |advice: &str| match words.as_str() {
        "" => format!("gRPC: {name}{advice}"),
        words => format!("gRPC: {words} ({name}){advice}"),
    };
    let asked = retry_info(details);
    let later =
        |reason, advice| Answer::Later(OtlpError { retry_after: asked, ..OtlpError::new(reason, said(advice)) });
    match code {
        Code::Ok => Answer::Delivered,
        Code::InvalidArgument => refused(said(""), &words),
        // The words are the one thing that tells a request that is too large from a server that is out of something.
        Code::ResourceExhausted | Code::OutOfRange if asked.is_none() && is_about_size(&words) => {
            Answer::TooLarge { message: said("") }
        }
        Code::ResourceExhausted => later(SinkReason::Throttled, ""),
        Code::DeadlineExceeded => later(SinkReason::Timeout, ""),
        Code::Unauthenticated => later(SinkReason::Credentials, "; look at `headers`"),
        Code::PermissionDenied => later(SinkReason::Refused, "; look at `headers`, and at what they may do there"),
        Code::Unimplemented => {
            later(SinkReason::Refused, "; look at `endpoint` and `compression`: it may not speak OTLP, or not this one")
        }
        Code::NotFound | Code::AlreadyExists | Code::FailedPrecondition => later(SinkReason::Refused, ""),
        Code::Unavailable
        | Code::Cancelled
        | Code::Aborted
        | Code::OutOfRange
        | Code::DataLoss
        | Code::Internal
        | Code::Unknown => later(SinkReason::Unavailable, ""),
    }
}

/// A success, with what it may say against itself.
pub(super) fn of_response(response: ExportLogsServiceResponse, secrets: &[&str]) -> Answer {
    let Some(partial) = response.partial_success else { return Answer::Delivered };
    let message = clean(&partial.error_message, secrets);
    match u64::try_from(partial.rejected_log_records) {
        Ok(rejected @ 1..) => Answer::Partial { rejected, message: format!("partial success: {message}") },
        _ => {
            // A warning of the receiver's.
            if !message.is_empty() {
                tracing::debug!("the receiver took all and says: {message}");
            }
            Answer::Delivered
        }
    }
}

fn refused(message: String, words: &str) -> Answer {
    let behind = words.contains("too far behind");
    let reason = if behind || words.contains("too old") {
        DeadLetterReason::TooOld
    } else if words.contains("max entry size") || words.contains("too large") {
        DeadLetterReason::TooLarge
    } else {
        DeadLetterReason::Rejected
    };
    Answer::Refused { reason, message, behind }
}

/// Go's, Java's and tonic's words for it.
fn is_about_size(words: &str) -> bool {
    let words = words.to_ascii_lowercase();
    ["larger than max", "too large", "exceeds maximum", "message size"].iter().any(|part| words.contains(part))
}

/// What a body says: a `google.rpc.Status` whatever its content type claims, or text.
fn words_of(body: &[u8], secrets: &[&str]) -> String {
    match RpcStatus::decode(body) {
        Ok(status) if !status.message.is_empty() => clean(&status.message, secrets),
        _ => std::str::from_utf8(body).map_or_else(|_| String::new(), |text| clean(text, secrets)),
    }
}

/// A receiver's words, fit for a log: one line, of bounded length, without secrets and e-mail addresses.
fn clean(said: &str, secrets: &[&str]) -> String {
    let mut said = said.to_owned();
    for secret in secrets.iter().filter(|secret| !secret.is_empty()) {
        said = said.replace(secret, "…");
    }
    let words = said.split(|c: char| c.is_whitespace() || c.is_control()).filter(|word| !word.is_empty());
    let mut line = words.map(|word| if word.contains('@') { "…" } else { word }).collect::<Vec<_>>().join(" ");
    if line.len() > LONGEST_QUOTE {
        line.truncate((0..=LONGEST_QUOTE).rev().find(|at| line.is_char_boundary(*at)).unwrap_or(0));
        line.push('…');
    }
    line
}

/// `Retry-After` in either form (RFC 9110, 10.2.3). A date counts from the server's own `now`.
fn retry_after(asked: &str, now: SystemTime) -> Option<Duration> {
    let asked = asked.trim();
    match asked.parse() {
        Ok(seconds) => Some(Duration::from_secs(seconds)),
        Err(_) => Some(httpdate::parse_http_date(asked).ok()?.duration_since(now).unwrap_or_default()),
    }
}

fn retry_info(details: &[u8]) -> Option<Duration> {
    let status = RpcStatus::decode(details).ok()?;
    let info = status.details.iter().find(|detail| detail.type_url.ends_with("/google.rpc.RetryInfo"))?;
    let delay = RetryInfo::decode(info.value.as_slice()).ok()?.delay.unwrap_or_default();
    // What is negative asks for nothing.
    Some(Duration::new(u64::try_from(delay.seconds).unwrap_or(0), u32::try_from(delay.nanos).unwrap_or(0)))
}

#[cfg(test)]
#[path = "answer_tests.rs"]
mod tests;
