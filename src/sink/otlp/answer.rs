//! What a receiver's answer means: decided here, and nowhere else.
//!
//! An answer counts for what its sender and type make likely. A success is one where it is an answer of OTLP by its type:
//! protobuf, JSON, or 204. A page for people is nobody's answer, whatever its status: it acknowledges nothing, and says
//! nothing against an event. What our own client says, of an answer that is too long or none, is not the receiver's word.
//! Whether a refusal is believed is not decided here, but in [`super::verdict`].

use std::time::{Duration, SystemTime};

use opentelemetry_proto::tonic::collector::logs::v1::ExportLogsServiceResponse;
use prost::Message;
use serde::Deserialize;
use tonic::Code;

use crate::dead_letter::DeadLetterReason;
use crate::metrics::SinkReason;
use crate::quote::{Secrets, quote};
use crate::retry::retry_after;

/// The most bytes of an answer that are read: more is no answer to this. An odd number: tonic's message about our own limit
/// repeats it, and is told by it from a server's about its own.
pub(super) const LARGEST_ANSWER: usize = (1 << 20) + 11;

/// What became of a request.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Answer {
    /// All of it is delivered.
    Delivered,
    /// So many of its records are refused for good, by its own count; the others are delivered. More than it was sent, or
    /// fewer than none ([`u64::MAX`]), is a contradiction.
    Partial { rejected: u64, message: String },
    /// A success of which nothing says whose it is: no word, and no type.
    Mute,
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
    /// Whether some of it is to be asked about soon, for it was not yet: each alone is refused so far, or it has taken some
    /// a moment ago.
    pub asks_on: bool,
}

impl OtlpError {
    pub(super) fn new(reason: SinkReason, message: impl Into<String>) -> Self {
        Self { reason, message: message.into(), retry_after: None, progressed: false, asks_on: false }
    }
}

/// An answer over HTTP, as it came.
#[derive(Debug)]
pub(super) struct HttpAnswer {
    pub(super) status: u16,
    /// As the header says it.
    pub(super) retry_after: Option<String>,
    /// The type alone, without parameters, in lower case.
    pub(super) content_type: Option<String>,
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

/// By status and type; the receiver's words matter for the name of a refusal alone.
pub(super) fn of_http(answer: &HttpAnswer, secrets: &Secrets) -> Answer {
    let raw = words_of(&answer.body);
    let words = quote(&raw, secrets);
    let said = |what: &str| match (what, words.as_str()) {
        (what, "") => format!("HTTP {}{what}", answer.status),
        (what, words) => format!("HTTP {}{what}: {words}", answer.status),
    };
    let later = |reason, advice| {
        let retry_after = answer.retry_after.as_deref().and_then(|asked| retry_after(asked, answer.now));
        Answer::Later(OtlpError { retry_after, ..OtlpError::new(reason, said(advice)) })
    };
    match answer.status {
        200 | 202 => acknowledged(answer, secrets)
            // Something between us and a receiver answers in its place: nothing says that anything was delivered.
            .unwrap_or_else(|| later(SinkReason::Refused, " with no answer of OTLP; look at `endpoint`")),
        // Loki's. It has no body, and so no type.
        204 => Answer::Delivered,
        // Loki's, for a tenant whose ingestion is blocked: taken, and thrown away.
        260 => Answer::Dropped { message: said("") },
        400 | 422 if answer.is_page() => {
            later(SinkReason::Refused, " with a page for people; look at `endpoint`, and at what stands before it")
        }
        // The content is wrong, and will be tomorrow. Loki keeps the records that are not, and does not say which.
        400 | 422 => refused(said(""), &raw),
        // Whoever says so: smaller requests are no risk.
        413 => Answer::TooLarge { message: said("") },
        // It says that it is too much, or that it cannot now.
        429 => later(SinkReason::Throttled, ""),
        408 | 425 | 500 | 502..=504 => later(SinkReason::Unavailable, ""),
        401 => later(SinkReason::Credentials, "; look at `headers`"),
        403 => later(SinkReason::Refused, "; look at `headers`, and at what they may do there"),
        // Followed, a redirect would carry secrets to another host.
        300..=399 => later(SinkReason::Refused, ", a redirect; set `endpoint` to where it leads"),
        404 | 405 => later(SinkReason::Refused, "; look at the path of `endpoint`"),
        409 => later(SinkReason::Refused, "; it seems to refuse what it has already: OTLP asks it to take that, too"),
        415 => later(SinkReason::Refused, "; look at `compression`: the receiver may not take this one"),
        // An unknown answer is no acknowledgement, and no reason to give an event up.
        _ => later(SinkReason::Refused, "; look at `endpoint`, and at what stands before the receiver"),
    }
}

impl HttpAnswer {
    /// Of an answer to what is no request.
    pub(super) fn refuses_what_it_reads(&self) -> bool {
        matches!(self.status, 400 | 415 | 422) && !self.is_page()
    }

    /// For people: no receiver of OTLP answers so.
    fn is_page(&self) -> bool {
        self.content_type.as_deref().is_some_and(|kind| kind == "text/html" || kind == "application/xhtml+xml")
    }
}

/// What a success says, if it is one of OTLP.
fn acknowledged(answer: &HttpAnswer, secrets: &Secrets) -> Option<Answer> {
    let body = answer.body.as_slice();
    match answer.content_type.as_deref() {
        Some("application/x-protobuf" | "application/protobuf" | "application/vnd.google.protobuf") => {
            Some(of_response(ExportLogsServiceResponse::decode(body).ok()?, secrets))
        }
        Some("application/json") => of_json(body, secrets),
        None | Some("application/octet-stream") if body.is_empty() => Some(Answer::Mute),
        // Without a type only what cannot be anything else.
        None | Some("application/octet-stream") => {
            let response = ExportLogsServiceResponse::decode(body).ok()?;
            let is_one = response.partial_success.is_some() && response.encode_to_vec() == body;
            is_one.then(|| of_response(response, secrets))
        }
        Some(_) => None,
    }
}

/// As the JSON of OTLP has it: nothing but a partial success, if anything. Whatever else it holds, it is another's.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct JsonResponse {
    #[serde(default, alias = "partial_success")]
    partial_success: Option<JsonPartial>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct JsonPartial {
    /// A number, or its digits in quotes, as protobuf's JSON writes 64 bits.
    #[serde(default, alias = "rejected_log_records")]
    rejected_log_records: Option<serde_json::Value>,
    #[serde(default, alias = "error_message")]
    error_message: Option<String>,
}

fn of_json(body: &[u8], secrets: &Secrets) -> Option<Answer> {
    // An object: a list would do for the parser.
    let object: serde_json::Map<String, serde_json::Value> = serde_json::from_slice(body).ok()?;
    let Some(partial) = JsonResponse::deserialize(serde_json::Value::Object(object)).ok()?.partial_success else {
        return Some(Answer::Delivered);
    };
    let rejected = match partial.rejected_log_records {
        None | Some(serde_json::Value::Null) => 0,
        Some(serde_json::Value::Number(number)) => number.as_i64()?,
        Some(serde_json::Value::String(digits)) => digits.parse().ok()?,
        Some(_) => return None,
    };
    Some(of_partial(rejected, &partial.error_message.unwrap_or_default(), secrets))
}

/// By code, as the protocol has it, and beyond it on the side of trying again.
pub(super) fn of_grpc(code: Code, message: &str, details: &[u8], secrets: &Secrets) -> Answer {
    let words = quote(message, secrets);
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
        Code::InvalidArgument => refused(said(""), message),
        // The words are the one thing that tells a request that is too large from a server that is out of something.
        Code::ResourceExhausted | Code::OutOfRange if asked.is_none() && is_about_size(message) => {
            Answer::TooLarge { message: said("") }
        }
        Code::ResourceExhausted => later(SinkReason::Throttled, ""),
        Code::DeadlineExceeded => later(SinkReason::Timeout, ""),
        Code::Unauthenticated => later(SinkReason::Credentials, "; look at `headers`"),
        Code::PermissionDenied => later(SinkReason::Refused, "; look at `headers`, and at what they may do there"),
        Code::Unimplemented => {
            later(SinkReason::Refused, "; look at `endpoint` and `compression`: it may not speak OTLP, or not this one")
        }
        Code::AlreadyExists => {
            later(SinkReason::Refused, "; it seems to refuse what it has already: OTLP asks it to take that, too")
        }
        Code::NotFound | Code::FailedPrecondition => later(SinkReason::Refused, ""),
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
pub(super) fn of_response(response: ExportLogsServiceResponse, secrets: &Secrets) -> Answer {
    response
        .partial_success
        .map_or(Answer::Delivered, |partial| of_partial(partial.rejected_log_records, &partial.error_message, secrets))
}

fn of_partial(rejected: i64, message: &str, secrets: &Secrets) -> Answer {
    let message = quote(message, secrets);
    if rejected != 0 {
        let rejected = u64::try_from(rejected).unwrap_or(u64::MAX);
        return Answer::Partial { rejected, message: format!("partial success: {message}") };
    }
    // A warning of the receiver's.
    if !message.is_empty() {
        tracing::debug!("the receiver took all and says: {message}");
    }
    Answer::Delivered
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

/// Go's and C's, tonic's and Java's words for one request that is too large; any other is about load, or a quota. Not our
/// own client's about an answer.
fn is_about_size(words: &str) -> bool {
    let words = words.to_ascii_lowercase();
    let said = ["message larger than max", "message length too large", "message exceeds maximum size"];
    said.iter().any(|said| words.contains(said)) && !words.contains(&LARGEST_ANSWER.to_string())
}

/// What a body says: a `google.rpc.Status` whatever its content type claims, or text.
fn words_of(body: &[u8]) -> String {
    match RpcStatus::decode(body) {
        Ok(status) if !status.message.is_empty() => status.message,
        _ => std::str::from_utf8(body).unwrap_or_default().to_owned(),
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
