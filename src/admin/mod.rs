//! The admin server.
//!
//! | endpoint | answers |
//! | --- | --- |
//! | `/metrics` | Prometheus' text format |
//! | `/livez` | 200 while the process turns |
//! | `/readyz` | 200 once every part that start-up waits for is there, 503 before and while draining, and while a checkpoint is refused; says nothing about APIs and sinks, which a restart would not mend |
//! | `/status` | each stream and lane, as JSON, or as a page where `Accept` prefers `text/html` |
//!
//! Read-only, without a login, and without secrets: it may still name user pools and projects, so it listens on
//! loopback unless told otherwise.

mod answer;
mod page;
mod serve;
mod status;

#[cfg(test)]
mod tests;

use std::io;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;

use axum::Router;
use axum::extract::State;
use axum::http::{HeaderMap, HeaderName, StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use tokio::net::TcpListener;

use crate::metrics::{self, Metrics};
use crate::shutdown::Shutdown;

pub use status::{End, LaneBoard, StatusBoard, StreamBoard, Unfinished};

/// What the endpoints show.
#[derive(Clone)]
pub struct Admin {
    /// `/metrics`
    pub metrics: Metrics,
    /// `/readyz`
    pub readiness: Readiness,
    /// `/status`
    pub status: StatusBoard,
    /// Once this is requested, `/readyz` says no.
    pub draining: Shutdown,
}

/// A latch for each part that start-up waits for.
#[derive(Debug, Clone, Default)]
pub struct Readiness(Arc<Mutex<Vec<&'static str>>>);

/// Held until its part is there. Dropping it releases nothing: a part that failed to start is not there.
#[derive(Debug)]
#[must_use = "a latch that is never released keeps the process unready for ever"]
pub struct Latch {
    part: &'static str,
    readiness: Readiness,
}

impl Readiness {
    /// Makes readiness wait for one more part, by the name that `/readyz` shows while it waits.
    pub fn hold(&self, part: &'static str) -> Latch {
        self.parts(|parts| parts.push(part));
        Latch { part, readiness: self.clone() }
    }

    /// What is still waited for, each part once however often it is held.
    #[must_use]
    pub fn waiting_for(&self) -> Vec<&'static str> {
        let mut waiting = Vec::new();
        self.parts(|parts| waiting.extend(parts.iter().copied()));
        let mut seen = std::collections::HashSet::new();
        waiting.retain(|part| seen.insert(*part));
        waiting
    }

    fn parts<T>(&self, act: impl FnOnce(&mut Vec<&'static str>) -> T) -> T {
        act(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

impl Latch {
    /// The part is there.
    pub fn release(self) {
        self.readiness.parts(|parts| {
            if let Some(index) = parts.iter().position(|part| *part == self.part) {
                parts.remove(index);
            }
        });
    }
}

/// The address cannot be listened on.
#[derive(Debug, thiserror::Error)]
#[error(
    "`admin.listen`: cannot listen on {address}; another process may use the port, or the address is not this machine's"
)]
pub struct BindError {
    /// As configured.
    pub address: SocketAddr,
    /// What the system said.
    #[source]
    pub source: io::Error,
}

/// A bound server that does not answer yet.
#[derive(Debug)]
pub struct Server {
    listener: TcpListener,
    address: SocketAddr,
}

impl Server {
    /// Listens, so that a port in use is known before anything starts.
    ///
    /// # Errors
    /// When the system refuses the address.
    pub async fn bind(address: SocketAddr) -> Result<Self, BindError> {
        let refused = |source| BindError { address, source };
        let listener = TcpListener::bind(address).await.map_err(refused)?;
        let address = listener.local_addr().map_err(refused)?;
        Ok(Self { listener, address })
    }

    /// Where it listens; the real port if 0 was asked for.
    #[must_use]
    pub const fn address(&self) -> SocketAddr {
        self.address
    }

    /// Answers until `end` is requested, then lets open requests finish for two seconds. `end` comes after the
    /// drain, not with `admin.draining`: a drain is when lag and health are looked at.
    ///
    /// # Errors
    /// When the system takes the listener away.
    pub async fn serve(self, admin: Admin, end: Shutdown) -> io::Result<()> {
        serve::serve(self.listener, router(admin), end).await
    }
}

#[derive(Clone)]
struct Context {
    admin: Admin,
    started: Instant,
}

fn router(admin: Admin) -> Router {
    Router::new()
        .route("/metrics", get(metrics))
        .route("/livez", get(async || "ok\n"))
        .route("/readyz", get(readyz))
        .route("/status", get(status))
        .fallback(async || (StatusCode::NOT_FOUND, "no such page; there are /metrics /livez /readyz /status\n"))
        .with_state(Context { admin, started: Instant::now() })
}

async fn metrics(State(context): State<Context>) -> Response {
    let metrics = &context.admin.metrics;
    for ((stream, sink), state) in context.admin.status.lane_states() {
        metrics.lane(&stream, &sink).set_state(state);
    }
    ([(header::CONTENT_TYPE, metrics::CONTENT_TYPE)], metrics.render()).into_response()
}

async fn readyz(State(context): State<Context>) -> Response {
    let waiting = context.admin.readiness.waiting_for();
    if context.admin.draining.is_requested() {
        (StatusCode::SERVICE_UNAVAILABLE, "draining\n").into_response()
    } else if waiting.is_empty() {
        "ready\n".into_response()
    } else {
        (StatusCode::SERVICE_UNAVAILABLE, format!("waiting for: {}\n", waiting.join(", "))).into_response()
    }
}

/// No cache may hold what is true for a moment, and none may give one reader's form to another.
const MOMENTARY: [(HeaderName, &str); 2] = [(header::CACHE_CONTROL, "no-store"), (header::VARY, "accept")];

async fn status(State(context): State<Context>, headers: HeaderMap) -> Response {
    let ready = context.admin.readiness.waiting_for().is_empty() && !context.admin.draining.is_requested();
    let status = context.admin.status.report(ready, context.started.elapsed());
    if prefers_html(&headers) {
        let form = [
            (header::CONTENT_TYPE, "text/html; charset=utf-8"),
            // The page runs and loads nothing; messages in it came over the network.
            (header::CONTENT_SECURITY_POLICY, "default-src 'none'; style-src 'unsafe-inline'"),
        ];
        (MOMENTARY, form, page::render(&status)).into_response()
    } else {
        (MOMENTARY, axum::Json(status)).into_response()
    }
}

/// Browsers ask for `text/html` above `*/*`; programs that ask for nothing or anything get JSON.
fn prefers_html(headers: &HeaderMap) -> bool {
    let accept: Vec<&str> = headers
        .get_all(header::ACCEPT)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(','))
        .collect();
    let quality = |names: [&str; 3]| {
        let named = names.iter().find_map(|name| {
            accept.iter().find_map(|range| {
                let mut parts = range.split(';').map(str::trim);
                (parts.next() == Some(name))
                    .then(|| parts.find_map(|part| part.strip_prefix("q=")?.parse().ok()).unwrap_or(1.0))
            })
        });
        named.unwrap_or(0.0_f32)
    };
    quality(["text/html", "text/*", "*/*"]) > quality(["application/json", "application/*", "*/*"])
}
