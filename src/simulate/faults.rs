//! What goes wrong between an API and its client, at the rates that the options give.

use std::io;
use std::time::Duration;

use axum::body::Body;
use axum::http::{HeaderName, HeaderValue, StatusCode, header};
use axum::response::Response;
use bytes::Bytes;
use futures_util::{StreamExt, stream};

use crate::event::Source;

use super::clock::http_date;
use super::connection::Cut;
use super::dates;
use super::hash::{mix, unit};
use super::options::Options;
use super::world::World;

const REQUEST_ID: HeaderName = HeaderName::from_static("x-ucloud-request-uuid");

const HTML: &str = "<html>\r\n<head><title>502 Bad Gateway</title></head>\r\n<body>\r\n<center><h1>502 Bad Gateway</h1></center>\r\n<hr><center>nginx</center>\r\n</body>\r\n</html>\r\n";

/// What an API answers.
#[derive(Debug)]
pub struct Reply {
    /// The HTTP status.
    pub status: StatusCode,
    /// Whether the client is asked to come back in a second.
    pub retry_after: bool,
    /// JSON.
    pub body: Vec<u8>,
}

impl Reply {
    /// An answer with HTTP status 200, which says nothing of success in either API.
    #[must_use]
    pub const fn ok(body: Vec<u8>) -> Self {
        Self { status: StatusCode::OK, retry_after: false, body }
    }
}

/// A failure that an API words itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Failure {
    /// Too many requests; with a Retry-After header or without.
    Throttled {
        /// Whether the client is told for how long.
        retry_after: bool,
    },
    /// A code that says to try again.
    Transient,
    /// A code of credentials, permission or parameters.
    Refused,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Fault {
    Failure(Failure),
    Torn,
    Truncated,
    Hang,
    Html,
    Close,
}

/// Answers a request with `answer`, or with the fault that this request meets; `fail` words failures as the API
/// does. Both get bits that belong to this request alone.
pub async fn around(
    world: &World,
    source: Source,
    cut: &Cut,
    fail: fn(Failure, u64) -> Reply,
    answer: impl FnOnce(u64) -> Reply,
) -> Response {
    let api = world.api(source);
    let request = api.count(|stats| {
        stats.requests += 1;
        stats.requests
    });
    let nonce = world.nonce(source, request);
    let respond = |nonce, reply| respond(world, source, nonce, reply);
    if world.over_limit(api) {
        api.count(|stats| stats.over_limit += 1);
        return respond(nonce, fail(Failure::Throttled { retry_after: true }, mix(nonce, 3)));
    }
    if !world.options.latency.is_zero() {
        tokio::time::sleep(world.options.latency.mul_f64(0.5 + unit(mix(nonce, 1)))).await;
    }
    let fault = draw(&world.options, mix(nonce, 2));
    match fault {
        None => {}
        Some(Fault::Failure(Failure::Throttled { retry_after: false })) => api.count(|stats| stats.throttled += 1),
        Some(Fault::Failure(Failure::Throttled { .. })) => api.count(|stats| stats.throttled_retry_after += 1),
        Some(Fault::Failure(Failure::Transient)) => api.count(|stats| stats.errors += 1),
        Some(Fault::Failure(Failure::Refused)) => api.count(|stats| stats.refusals += 1),
        Some(Fault::Torn) => api.count(|stats| stats.torn += 1),
        Some(Fault::Truncated) => api.count(|stats| stats.truncated += 1),
        Some(Fault::Hang) => api.count(|stats| stats.hung += 1),
        Some(Fault::Html) => api.count(|stats| stats.html += 1),
        Some(Fault::Close) => api.count(|stats| stats.closed += 1),
    }
    match fault {
        None => respond(nonce, answer(nonce)),
        Some(Fault::Failure(failure)) => respond(nonce, fail(failure, mix(nonce, 3))),
        Some(Fault::Truncated) => {
            let mut reply = answer(nonce);
            reply.body.truncate(reply.body.len() * 2 / 3);
            respond(nonce, reply)
        }
        Some(Fault::Torn) => tear(respond(nonce, Reply::ok(Vec::new())), answer(nonce).body),
        Some(Fault::Html) => {
            let reply = Reply { status: StatusCode::BAD_GATEWAY, retry_after: false, body: HTML.into() };
            let mut response = respond(nonce, reply);
            response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static("text/html"));
            response
        }
        Some(Fault::Close) => close(cut),
        Some(Fault::Hang) => {
            let mut stopping = world.stopping.subscribe();
            // Either way it ends without an answer.
            let _ = tokio::time::timeout(world.options.hang_for, stopping.wait_for(|stop| *stop)).await;
            close(cut)
        }
    }
}

/// The HTTP status of a failure that says to try again: most say it in the body alone, some with the status too.
#[must_use]
pub const fn transient_status(hash: u64) -> StatusCode {
    match hash >> 32 & 7 {
        0 => StatusCode::INTERNAL_SERVER_ERROR,
        1 => StatusCode::SERVICE_UNAVAILABLE,
        2 => StatusCode::GATEWAY_TIMEOUT,
        _ => StatusCode::OK,
    }
}

/// Which fault the request meets whose random bits are `hash`.
fn draw(options: &Options, hash: u64) -> Option<Fault> {
    let faults = [
        (options.throttle, Fault::Failure(Failure::Throttled { retry_after: false })),
        (options.throttle_retry_after, Fault::Failure(Failure::Throttled { retry_after: true })),
        (options.errors, Fault::Failure(Failure::Transient)),
        (options.refusals, Fault::Failure(Failure::Refused)),
        (options.torn / 2.0, Fault::Torn),
        (options.torn / 2.0, Fault::Truncated),
        (options.hang, Fault::Hang),
        (options.html, Fault::Html),
        (options.close, Fault::Close),
    ];
    let mut left = unit(hash);
    faults.into_iter().find_map(|(share, fault)| {
        left -= share;
        (left < 0.0).then_some(fault)
    })
}

fn respond(world: &World, source: Source, nonce: u64, reply: Reply) -> Response {
    let mut response = Response::new(Body::from(reply.body));
    *response.status_mut() = reply.status;
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json; charset=utf-8"));
    let now = world.clock.now();
    let age = now - world.clock.started_at();
    let date = world.api(source).count(|stats| {
        let wrong = dates::wrong(&world.options, now, age, stats.dates_off, mix(nonce, 4));
        stats.dates_off += u64::from(wrong.is_some());
        match wrong {
            Some(_) if world.options.date_unreadable => "what time is it?".to_owned(),
            wrong => http_date(wrong.unwrap_or(now)),
        }
    });
    if let Ok(date) = HeaderValue::try_from(date) {
        headers.insert(header::DATE, date);
    }
    if let Ok(id) = HeaderValue::try_from(format!("{nonce:016x}")) {
        headers.insert(REQUEST_ID, id);
    }
    if reply.retry_after {
        headers.insert(header::RETRY_AFTER, HeaderValue::from_static("1"));
    }
    response
}

/// Announces all of `body` and sends half of it.
fn tear(mut response: Response, mut body: Vec<u8>) -> Response {
    let length = HeaderValue::from(body.len());
    body.truncate(body.len() / 2);
    let broken = stream::once(async {
        // Time for the first half to leave, so that the client has begun to read when it breaks off.
        tokio::time::sleep(Duration::from_millis(5)).await;
        Err(io::Error::from(io::ErrorKind::ConnectionReset))
    });
    let halves = stream::iter([Ok(Bytes::from(body))]).chain(broken);
    *response.body_mut() = Body::from_stream(halves);
    response.headers_mut().insert(header::CONTENT_LENGTH, length);
    response
}

fn close(cut: &Cut) -> Response {
    cut.now();
    Response::default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_fault_is_drawn_at_its_rate() {
        let options = Options { throttle: 0.1, torn: 0.2, close: 0.05, ..Options::default() };
        let drawn: Vec<_> = (0..20_000).map(|request| draw(&options, mix(9, request))).collect();
        let share = |fault| drawn.iter().filter(|drawn| **drawn == Some(fault)).count() as f64 / 20_000.0;
        assert!((share(Fault::Failure(Failure::Throttled { retry_after: false })) - 0.1).abs() < 0.01);
        assert!((share(Fault::Torn) - 0.1).abs() < 0.01);
        assert!((share(Fault::Truncated) - 0.1).abs() < 0.01);
        assert!((share(Fault::Close) - 0.05).abs() < 0.01);
        assert!(share(Fault::Hang) == 0.0);
    }
}
