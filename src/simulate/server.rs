//! The server: routes, start and stop.

use std::io::{self, Write};
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use axum::body::Body;
use axum::extract::{Query, State};
use axum::http::{HeaderValue, Method, StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::{any, get, post};
use axum::{Json, Router};
use bytes::Bytes;
use futures_util::stream;
use serde::Deserialize;
use serde_json::json;
use tokio::net::TcpListener;
use tokio::signal::unix::{SignalKind, signal};
use tokio::task::JoinHandle;

use crate::event::{Millis, Source};

use super::connection::{Cut, Cuttable};
use super::options::Options;
use super::stats::Stats;
use super::truth::Ledger;
use super::world::World;
use super::{genauth, scloud};

/// How long answers that are being written may take once the simulator stops.
const DRAIN: Duration = Duration::from_secs(2);

/// Lines of the ledger that are sent at once.
const LINES: usize = 256;

/// Both APIs, served until this is dropped or shut down.
#[derive(Debug)]
pub struct Simulator {
    world: Arc<World>,
    addr: SocketAddr,
    server: JoinHandle<()>,
}

impl Simulator {
    /// Binds the address and serves on the runtime that this is called on.
    ///
    /// # Errors
    /// The address cannot be bound.
    pub async fn start(options: Options) -> io::Result<Self> {
        let listener = TcpListener::bind(options.listen).await?;
        let addr = listener.local_addr()?;
        let world = Arc::new(World::new(options));
        let app = router(Arc::clone(&world)).into_make_service_with_connect_info::<Cut>();
        let mut stopping = world.stopping.subscribe();
        let stopped = async move {
            // An error means that the simulator is gone, which is an end as well.
            let _ = stopping.wait_for(|stop| *stop).await;
        };
        let server = tokio::spawn(async move {
            // It ends when it is told to and never fails.
            let _ = axum::serve(Cuttable(listener), app).with_graceful_shutdown(stopped).await;
        });
        Ok(Self { world, addr, server })
    }

    /// Where it listens.
    #[must_use]
    pub const fn addr(&self) -> SocketAddr {
        self.addr
    }

    /// The endpoint of both APIs, without a slash at the end.
    #[must_use]
    pub fn url(&self) -> String {
        format!("http://{}", self.addr)
    }

    /// What the servers' clock shows.
    #[must_use]
    pub fn now(&self) -> Millis {
        self.world.clock.now()
    }

    /// What it has done so far.
    #[must_use]
    pub fn stats(&self) -> Stats {
        stats(&self.world)
    }

    /// What happened from `from` until before `to`, as far as it has happened yet.
    #[must_use]
    pub fn truth(&self, source: Source, from: Millis, to: Millis) -> Ledger {
        Ledger::new(Arc::clone(&self.world), source, from, to)
    }

    /// Stops listening, gives answers that are being written a moment, and ends.
    pub async fn shutdown(mut self) {
        self.world.stopping.send_replace(true);
        if tokio::time::timeout(DRAIN, &mut self.server).await.is_err() {
            self.server.abort();
        }
    }
}

impl Drop for Simulator {
    fn drop(&mut self) {
        self.world.stopping.send_replace(true);
    }
}

/// The command `trailcast simulate`: prints a line of JSON with the endpoint and the credentials to `out`, and serves
/// until SIGTERM or SIGINT.
///
/// # Errors
/// The address cannot be bound, `out` cannot be written, or signals cannot be waited for.
pub async fn serve(options: Options, mut out: impl Write) -> io::Result<()> {
    let (mut terminated, mut interrupted) = (signal(SignalKind::terminate())?, signal(SignalKind::interrupt())?);
    let listen = options.listen;
    let told =
        |error: io::Error| io::Error::new(error.kind(), format!("cannot listen on {listen} (`--listen`): {error}"));
    let simulator = Simulator::start(options).await.map_err(told)?;
    let introduction = json!({
        "url": simulator.url(),
        "genauth": {
            "user_pool_id": genauth::USER_POOL_ID,
            "access_key_id": genauth::ACCESS_KEY_ID,
            "access_key_secret": genauth::ACCESS_KEY_SECRET,
        },
        "scloud": {
            "project_id": scloud::PROJECT_ID,
            "public_key": scloud::PUBLIC_KEY,
            "private_key": scloud::PRIVATE_KEY,
        },
    });
    writeln!(out, "{introduction}")?;
    out.flush()?;
    tokio::select! {
        _ = terminated.recv() => {}
        _ = interrupted.recv() => {}
    }
    simulator.shutdown().await;
    Ok(())
}

fn router(world: Arc<World>) -> Router {
    Router::new()
        .route(genauth::TOKEN_PATH, post(genauth::token))
        .route(genauth::LOGS_PATH, post(genauth::logs))
        .route("/", any(scloud::events))
        .route("/truth", get(truth))
        .route("/stats", get(|State(world): State<Arc<World>>| async move { Json(stats(&world)) }))
        .fallback(|method: Method| async move {
            let body = genauth::not_found().body;
            let kind = [(header::CONTENT_TYPE, "application/json")];
            if method == Method::GET { (StatusCode::NOT_FOUND, kind, body) } else { (StatusCode::OK, kind, body) }
        })
        .with_state(world)
}

fn stats(world: &World) -> Stats {
    Stats { genauth: world.genauth.count(|stats| *stats), scloud: world.scloud.count(|stats| *stats) }
}

#[derive(Debug, Deserialize)]
struct TruthQuery {
    source: Source,
    from: Option<Millis>,
    to: Option<Millis>,
}

async fn truth(State(world): State<Arc<World>>, Query(query): Query<TruthQuery>) -> Response {
    let (from, to) = (query.from.unwrap_or(0), query.to.unwrap_or(Millis::MAX));
    let ledger = Ledger::new(world, query.source, from, to);
    // Written as it is read, so that ten million lines cost no memory.
    let chunks = stream::unfold(ledger, |mut ledger| async move {
        let mut lines = Vec::with_capacity(LINES * 512);
        ledger.by_ref().take(LINES).for_each(|truth| truth.write_line(&mut lines));
        (!lines.is_empty()).then(|| (Ok::<_, io::Error>(Bytes::from(lines)), ledger))
    });
    let mut response = Body::from_stream(chunks).into_response();
    response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static("application/x-ndjson"));
    response
}
