//! Puts the parts together and runs them: the only module that spawns lanes and servers.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::Duration;

use tokio::task::JoinSet;

use crate::admin::{Admin, BindError, Readiness, Server, StatusBoard};
use crate::checkpoint::{self, CheckpointError, Store};
use crate::clock::millis;
use crate::config::{Config, SecretError, SinkConfig, SourceConfig, StreamConfig};
use crate::event::{StreamContext, StreamIdentity};
use crate::feed::Feed;
use crate::lane::{Lane, LaneError, Until};
use crate::metrics::Metrics;
use crate::shutdown::{self, Shutdown};
use crate::sink::{Sink, end_torn_line};
use crate::source::{BuildError, Client, Limiter, install_tls_provider};
use crate::state::cursor::Schedule;
use crate::telemetry::chain;

/// How long lanes may take to finish what they are delivering. Kubernetes kills after 30 s unless told otherwise.
pub const DRAIN_DEADLINE: Duration = Duration::from_secs(25);

/// Why the process could not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// A key of a stream does not work out.
    #[error("streams.{stream}.{error}")]
    Stream {
        /// The stream.
        stream: String,
        /// Which key, and why.
        error: BuildError,
    },
    /// A secret cannot be read. While it runs that is retried: a file may be replaced at any time.
    #[error("streams.{stream}.{key}: {error}")]
    Secret {
        /// The stream.
        stream: String,
        /// Which key.
        key: &'static str,
        /// Why.
        error: SecretError,
    },
    /// The checkpoint cannot be opened.
    #[error(transparent)]
    Checkpoint(#[from] CheckpointError),
    /// The admin server cannot listen.
    #[error(transparent)]
    Admin(#[from] BindError),
    /// What is stored does not fit the config.
    #[error(transparent)]
    Lane(#[from] LaneError),
    /// stdout cannot be written to.
    #[error("cannot write to stdout: {0}")]
    Stdout(std::io::Error),
}

/// How a run ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ended {
    /// Every lane had caught up.
    CaughtUp,
    /// Asked to end, and every lane finished what it was delivering.
    Drained,
    /// Asked to end, and not every lane did in time: its last events come again with the next run.
    NotDrained,
    /// A lane could not go on.
    Failed,
}

/// Everything built, nothing running.
pub struct App {
    /// Its counts.
    pub metrics: Metrics,
    /// The names of its lanes, by stream and sink.
    pub lanes: Vec<(String, String)>,
    ready: Vec<Lane>,
    admin: Server,
    readiness: Readiness,
    status: StatusBoard,
}

impl App {
    /// Builds every part: opens the checkpoint and listens, but asks no API.
    ///
    /// # Errors
    /// See [`StartError`].
    pub async fn build(config: &Config) -> Result<Self, StartError> {
        install_tls_provider();
        for (name, stream) in &config.streams {
            let (key, secret) = stream.secret();
            secret.read().map_err(|error| StartError::Secret { stream: name.clone(), key, error })?;
        }
        let readiness = Readiness::default();
        let open = readiness.hold("checkpoint");
        let (metrics, status) = (Metrics::new(), StatusBoard::default());
        let sinks: BTreeMap<&String, Arc<Sink>> =
            config.sinks.iter().map(|(name, sink)| (name, Arc::new(Sink::build(sink)))).collect();
        if config.sinks.values().any(|sink| matches!(sink, SinkConfig::Stdout(_))) {
            end_torn_line().map_err(StartError::Stdout)?;
        }
        let streams = streams(config)?;
        let admin = Server::bind(config.admin.listen).await?;
        let store = checkpoint::open(&config.checkpoint)?;
        let mut ready = Vec::new();
        for (stream, client) in streams {
            let named = &config.streams[&stream];
            let feed = Arc::new(feed(&stream, named, client, &metrics, &status));
            for sink_name in &named.sinks {
                let lane = Lane {
                    feed: Arc::clone(&feed),
                    sink: Arc::clone(&sinks[sink_name]),
                    start: named.start,
                    store: Arc::clone(&store) as Arc<dyn Store>,
                    metrics: metrics.lane(&stream, sink_name),
                    sink_metrics: metrics.sink(sink_name),
                    board: status.lane(&stream, sink_name),
                    sink_name: sink_name.clone(),
                    failing: AtomicBool::new(false),
                };
                lane.stored().await?;
                ready.push(lane);
            }
        }
        open.release();
        let lanes = ready.iter().map(|lane| (lane.feed.stream.name.clone(), lane.sink_name.clone())).collect();
        Ok(Self { metrics, lanes, ready, admin, readiness, status })
    }

    /// Where the admin server listens.
    #[must_use]
    pub const fn admin_address(&self) -> SocketAddr {
        self.admin.address()
    }

    /// Runs every lane until `shutdown` is requested, all have caught up, or one cannot go on because nobody reads
    /// our stdout any more; then drains.
    pub async fn run(self, until: Until, shutdown: Shutdown) -> Ended {
        let (stop_admin, admin_end) = shutdown::channel();
        let admin =
            Admin { metrics: self.metrics, readiness: self.readiness, status: self.status, draining: shutdown.clone() };
        let admin = tokio::spawn(self.admin.serve(admin, admin_end));
        // Pulled by the shutdown from outside or by a lane whose sink is gone for good.
        let (stop_lanes, lanes_end) = shutdown::channel();
        let mut lanes = JoinSet::new();
        for lane in self.ready {
            lanes.spawn(lane.run(until, lanes_end.clone()));
        }
        let (mut failed, mut undelivered) = (false, false);
        let all_ended = async {
            while let Some(lane) = lanes.join_next().await {
                match lane {
                    Ok(Ok(())) => {}
                    Ok(Err(LaneError::NotDrained)) => undelivered = true,
                    Ok(Err(LaneError::Sink(error))) => {
                        // The other lanes into it find the same: said once.
                        if !std::mem::replace(&mut failed, true) {
                            tracing::error!("ends: {}", chain(&error));
                        }
                        stop_lanes.pull();
                    }
                    Ok(Err(error)) => {
                        failed = true;
                        tracing::error!("a lane ended: {}", chain(&error));
                    }
                    Err(panic) => std::panic::resume_unwind(panic.into_panic()),
                }
            }
        };
        let drained = async {
            shutdown.requested().await;
            stop_lanes.pull();
            tokio::time::sleep(DRAIN_DEADLINE).await;
        };
        let in_time = tokio::select! {
            () = all_ended => true,
            () = drained => false,
        };
        stop_admin.pull();
        // It ends by itself at once; what it may have failed with concerns no event.
        let _ = admin.await;
        match (in_time && !undelivered, failed, shutdown.is_requested()) {
            (_, true, false) => Ended::Failed,
            (false, ..) => Ended::NotDrained,
            (true, true, _) => Ended::Failed,
            (true, false, true) => Ended::Drained,
            (true, false, false) => Ended::CaughtUp,
        }
    }
}

/// A client for each stream; streams that use the same credential share one limiter, the strictest of theirs.
pub(crate) fn streams(config: &Config) -> Result<Vec<(String, Client)>, StartError> {
    let mut limits: BTreeMap<(String, String), (f64, u32)> = BTreeMap::new();
    for stream in config.streams.values() {
        let limit = limits.entry(credential(stream)).or_insert((f64::INFINITY, u32::MAX));
        *limit = (limit.0.min(stream.rate_limit), limit.1.min(stream.concurrency));
    }
    let limiters: BTreeMap<_, _> =
        limits.into_iter().map(|(key, (rate, in_flight))| (key, Limiter::new(rate, in_flight))).collect();
    let client = |(name, stream): (&String, &StreamConfig)| {
        let limiter = limiters[&credential(stream)].clone();
        match Client::build(stream, limiter) {
            Ok(client) => Ok((name.clone(), client)),
            Err(error) => Err(StartError::Stream { stream: name.clone(), error }),
        }
    };
    config.streams.iter().map(client).collect()
}

/// What an API tells callers apart by.
fn credential(stream: &StreamConfig) -> (String, String) {
    match &stream.source {
        SourceConfig::Genauth(genauth) => (genauth.endpoint.to_string(), genauth.access_key_id.clone()),
        SourceConfig::Scloud(scloud) => (scloud.endpoint.to_string(), scloud.public_key.clone()),
    }
}

fn feed(name: &str, config: &StreamConfig, client: Client, metrics: &Metrics, status: &StatusBoard) -> Feed {
    let identity = StreamIdentity { source: client.source(), tenant: client.tenant().to_owned() };
    let unit = identity.source.clock_unit();
    let board = status.stream(name, &identity);
    let schedule = Schedule {
        unit,
        poll: millis(config.poll_interval),
        settle: millis(config.settle),
        overlap: millis(config.overlap),
        sweeps: config.sweeps.iter().copied().map(millis).collect(),
    };
    let stream = Arc::new(StreamContext { identity, name: name.to_owned() });
    let lanes = config.sinks.len();
    Feed::new(stream, client, metrics.stream(name), board, schedule, config.concurrency, lanes)
}
