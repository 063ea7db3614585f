//! Puts the parts together and runs them: the only module that spawns lanes and servers.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use tokio::task::{JoinHandle, JoinSet};
use tokio::time::MissedTickBehavior;

use crate::admin::{Admin, BindError, Readiness, Server, StatusBoard, StreamBoard, Unfinished};
use crate::blocking::blocking;
use crate::checkpoint::{self, CheckpointError, warn_of_strangers};
use crate::clock::millis;
use crate::config::{
    CheckpointConfig, Config, DeadLettersConfig, SecretError, SinkConfig, SourceConfig, StreamConfig, host_name,
};
use crate::dead_letter::LetterFiles;
use crate::event::{StreamContext, StreamIdentity};
use crate::feed::Feed;
use crate::health;
use crate::lane::{self, Kept, Lane, LaneError, LaneMaker, Until};
use crate::memory::Budget;
use crate::metrics::{Metrics, StreamMetrics};
use crate::reading::Gap;
use crate::replica::{LaneLine, Line, Replica, Watched, agreement};
use crate::retry::PATIENCE;
use crate::shutdown::{self, Shutdown};
use crate::sink::{Sink, end_torn_line, was_closed};
use crate::source::{BuildError, Client, Connections, Limiter, install_tls_provider};
use crate::state::schedule::Schedule;
use crate::words::chain;

/// How long lanes may take to finish what they are delivering. Kubernetes kills after 30 s unless told otherwise, and
/// what comes after takes up to 6 s where nothing answers: the admin server, the last spans, clients of Kafka.
pub const DRAIN_DEADLINE: Duration = Duration::from_secs(23);

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
    /// Secrets cannot be read, each with its key; a line each. While it runs that is retried: a file may be replaced at any
    /// time.
    #[error("{}", lines(.0))]
    Secrets(Vec<(String, SecretError)>),
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
    /// There is no stdout.
    #[error(
        "stdout is closed, or is the null device opened for reading and writing as in place of a closed one, and the config \
         has events written there; lead it to a file or a pipe, or to throw events away use `> /dev/null`"
    )]
    StdoutClosed,
}

fn lines(lacking: &[(String, SecretError)]) -> String {
    lacking.iter().map(|(key, error)| format!("{key}: {error}")).collect::<Vec<_>>().join("\n")
}

/// Why a run that was to catch up ended before.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Cause {
    /// Asked to end.
    Asked,
    /// It took longer than it may.
    Time(Duration),
    /// Only a person can mend what keeps it from going on.
    Person,
}

/// How a run ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Ended {
    /// Every lane had caught up, and gave nothing up.
    CaughtUp {
        /// Gaps of runs before that their cursors keep.
        gaps: usize,
    },
    /// The same, but these, by stream and sink, have given up parts of the log that could not be read, all of which lie
    /// within that.
    Incomplete(Vec<((String, String), Gap)>),
    /// It was to catch up and ended before; with the lanes that have not, and whether all finished what they were delivering.
    Early {
        /// Why.
        cause: Cause,
        /// Those that ran here.
        lanes: Vec<Unfinished>,
        /// If not, the last events come again with the next run.
        drained: bool,
    },
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
    runs: Runs,
    admin: Server,
    readiness: Readiness,
    status: StatusBoard,
}

/// Who runs the lanes.
enum Runs {
    /// This process alone, all of them.
    Alone(Vec<(LaneMaker, Kept)>),
    /// The replicas of a group, each some of them.
    Shared(Box<Replica>),
}

impl App {
    /// Builds every part, to count with `metrics`: opens a checkpoint that is on this machine and listens, but asks no API
    /// and no broker.
    ///
    /// # Errors
    /// See [`StartError`].
    pub async fn build(config: &Config, metrics: Metrics) -> Result<Self, StartError> {
        install_tls_provider();
        let lacking = config.lacking();
        if !lacking.is_empty() {
            return Err(StartError::Secrets(lacking));
        }
        let readiness = Readiness::default();
        let open = readiness.hold("checkpoint");
        let status = StatusBoard::default();
        let sinks: BTreeMap<&String, Arc<Sink>> =
            config.sinks.iter().map(|(name, sink)| (name, Arc::new(Sink::build(sink)))).collect();
        if config.sinks.values().any(|sink| matches!(sink, SinkConfig::Stdout(_))) {
            if was_closed() {
                return Err(StartError::StdoutClosed);
            }
            end_torn_line().map_err(StartError::Stdout)?;
        }
        let clients = streams(config)
            .into_iter()
            .map(|(stream, client)| match client {
                Ok(client) => Ok((stream, client)),
                Err(error) => Err(StartError::Stream { stream, error }),
            })
            .collect::<Result<Vec<_>, _>>()?;
        metrics.set_memory_budget(config.memory.process);
        let admin = Server::bind(config.admin.listen).await?;
        let files = match &config.dead_letters {
            DeadLettersConfig::Files { path, max_file_size, max_size } => {
                Some(Arc::new(LetterFiles::new(path, *max_file_size, *max_size)))
            }
            DeadLettersConfig::Topic(_) => None,
        };
        let lines: Vec<Line> = clients
            .into_iter()
            .map(|(stream, client)| {
                line(&stream, &config.streams[&stream], client, &sinks, files.as_ref(), &metrics, &status)
            })
            .collect();
        let lanes: Vec<(String, String)> = config
            .streams
            .iter()
            .flat_map(|(stream, named)| named.sinks.iter().map(|sink| (stream.clone(), sink.clone())))
            .collect();
        let runs = match &config.checkpoint {
            CheckpointConfig::Kafka(kafka) => {
                let lane = |(stream, sink): &(String, String)| {
                    let board = status.lane(stream, sink, allowed(&config.streams[stream]));
                    ((stream.clone(), sink.clone()), (metrics.lane(stream, sink), board))
                };
                Runs::Shared(Box::new(Replica {
                    config: (**kafka).clone(),
                    instance: kafka.instance_id.clone().unwrap_or_else(host_name),
                    watched: Watched { lanes: lanes.iter().map(lane).collect() },
                    lines,
                    transactional: transactional(config, &sinks),
                    letters: config.dead_letters.topic().map(ToOwned::to_owned),
                    shared: agreement::digest(config),
                    readiness: readiness.clone(),
                    joined: open,
                }))
            }
            CheckpointConfig::File { .. } | CheckpointConfig::Memory => {
                let store = checkpoint::open(&config.checkpoint, &config.dead_letters)?;
                let (kept, known) = (Arc::clone(&store), lanes.clone());
                blocking(move || {
                    warn_of_strangers(&*kept, |stream, sink| known.iter().any(|(a, b)| a == stream && b == sink))
                })
                .await?;
                let mut ready = Vec::new();
                for line in lines {
                    line.metrics.set_running(true);
                    line.board.set_running(true, None);
                    for LaneLine { make, .. } in &line.lanes {
                        let kept = Kept::Store(Arc::clone(&store));
                        make(kept.clone()).stored().await?;
                        ready.push((Arc::clone(make), kept));
                    }
                }
                open.release();
                Runs::Alone(ready)
            }
        };
        Ok(Self { metrics, lanes, runs, admin, readiness, status })
    }

    /// Where the admin server listens.
    #[must_use]
    pub const fn admin_address(&self) -> SocketAddr {
        self.admin.address()
    }

    /// Where streams and lanes show how they are.
    #[must_use]
    pub fn status(&self) -> StatusBoard {
        self.status.clone()
    }

    /// Runs every lane until `shutdown` is requested, all have caught up (for `timeout` at most, if there is one), or one
    /// cannot go on because nobody reads our stdout any more; then drains.
    pub async fn run(self, until: Until, timeout: Option<Duration>, shutdown: Shutdown) -> Ended {
        let (stop_admin, admin_end) = shutdown::channel();
        let streams: BTreeSet<&String> = self.lanes.iter().map(|(stream, _)| stream).collect();
        let streams =
            streams.into_iter().map(|name| (self.status.of_stream(name), self.metrics.stream(name))).collect();
        let _watchman = Watchman::over(self.status.clone(), streams);
        let status = self.status.clone();
        let admin =
            Admin { metrics: self.metrics, readiness: self.readiness, status: self.status, draining: shutdown.clone() };
        let admin = tokio::spawn(self.admin.serve(admin, admin_end));
        // Pulled by the shutdown from outside or by a lane whose sink is gone for good.
        let (stop_lanes, lanes_end) = shutdown::channel();
        let mut lanes = JoinSet::new();
        match self.runs {
            Runs::Alone(ready) => {
                for (make, kept) in ready {
                    lanes.spawn(lane::run(make, kept, until, lanes_end.clone()));
                }
            }
            Runs::Shared(replica) => drop(lanes.spawn(replica.run(until, lanes_end))),
        }
        let (mut failed, mut undelivered) = (false, false);
        let all_ended = async {
            while let Some(ended) = lanes.join_next().await {
                match ended {
                    Ok(Ok(())) => {}
                    Ok(Err(LaneError::NotDrained)) => undelivered = true,
                    Ok(Err(LaneError::Sink(error))) => {
                        // The other lanes into it find the same: said once.
                        if !std::mem::replace(&mut failed, true) {
                            tracing::error!("trailcast ends: {}", chain(&error));
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
        let catches_up = until == Until::CaughtUp;
        let mut early = None;
        let drained = async {
            let why = tokio::select! {
                biased;
                () = shutdown.requested() => Cause::Asked,
                why = gives_up(&status, timeout), if catches_up => why,
            };
            // As they are now: a lane that has ended fails no more.
            early = Some((why, status.unfinished()));
            stop_lanes.pull();
            tokio::time::sleep(DRAIN_DEADLINE).await;
        };
        let in_time = tokio::select! {
            biased;
            () = all_ended => true,
            () = drained => false,
        };
        stop_admin.pull();
        // It ends by itself at once; what it may have failed with concerns no event.
        let _ = admin.await;
        let drained = in_time && !undelivered;
        if let Some((cause, mut lanes)) = early.filter(|_| catches_up && !failed) {
            lanes.retain(|lane| !status.has_caught_up(&lane.stream, &lane.sink));
            // With no lane, the group has not given this replica any stream yet.
            if !lanes.is_empty() || !status.has_run() {
                return Ended::Early { cause, lanes, drained };
            }
        }
        match (drained, failed, shutdown.is_requested() && !catches_up) {
            (_, true, false) => Ended::Failed,
            (false, ..) => Ended::NotDrained,
            (true, true, _) => Ended::Failed,
            (true, false, true) => Ended::Drained,
            (true, false, false) => match status.gave_up() {
                none if none.is_empty() => Ended::CaughtUp { gaps: status.gaps() },
                lanes => Ended::Incomplete(lanes),
            },
        }
    }
}

/// Returns once lanes that are to catch up are not to go on.
async fn gives_up(status: &StatusBoard, timeout: Option<Duration>) -> Cause {
    let needs_person = async {
        let mut seconds = tokio::time::interval(Duration::from_secs(1));
        seconds.set_missed_tick_behavior(MissedTickBehavior::Delay);
        while !status.needs_person(Instant::now(), PATIENCE) {
            seconds.tick().await;
        }
    };
    let late = async {
        match timeout {
            Some(timeout) => {
                tokio::time::sleep(timeout).await;
                timeout
            }
            None => std::future::pending().await,
        }
    };
    tokio::select! {
        () = needs_person => Cause::Person,
        timeout = late => Cause::Time(timeout),
    }
}

/// Looks after the lanes, and says in the log which are in trouble; until it is dropped.
struct Watchman(JoinHandle<()>);

impl Watchman {
    fn over(status: StatusBoard, streams: Vec<(StreamBoard, StreamMetrics)>) -> Self {
        Self(tokio::spawn(async move {
            let mut seconds = tokio::time::interval(Duration::from_secs(1));
            // One look is enough after a pause, however long that was.
            seconds.set_missed_tick_behavior(MissedTickBehavior::Delay);
            loop {
                seconds.tick().await;
                streams.iter().for_each(|(board, metrics)| board.set_counts(metrics.counts()));
                status.review();
            }
        }))
    }
}

impl Drop for Watchman {
    fn drop(&mut self) {
        self.0.abort();
    }
}

/// A stream's lanes, each to be made where its state is kept.
fn line(
    name: &str,
    config: &StreamConfig,
    client: Client,
    sinks: &BTreeMap<&String, Arc<Sink>>,
    letters: Option<&Arc<LetterFiles>>,
    metrics: &Metrics,
    status: &StatusBoard,
) -> Line {
    let feed = Arc::new(feed(name, config, client, metrics, status));
    let lane = |sink_name: &String| -> LaneLine {
        let (feed, sink, letters) = (Arc::clone(&feed), Arc::clone(&sinks[sink_name]), letters.cloned());
        let (start, sink_name) = (config.start, sink_name.clone());
        let (lane_metrics, sink_metrics) = (metrics.lane(name, &sink_name), metrics.sink(&sink_name));
        let board = status.lane(name, &sink_name, allowed(config));
        let (shown, named) = (board.clone(), sink_name.clone());
        let make: LaneMaker = Arc::new(move |kept| Lane {
            feed: Arc::clone(&feed),
            sink: Arc::clone(&sink),
            start,
            kept,
            letters: letters.clone(),
            metrics: lane_metrics.clone(),
            sink_metrics: sink_metrics.clone(),
            board: board.clone(),
            sink_name: sink_name.clone(),
            voice: Mutex::default(),
        });
        LaneLine { sink: named, make, board: shown }
    };
    let lanes = config.sinks.iter().map(lane).collect();
    Line { stream: name.to_owned(), metrics: feed.metrics.clone(), board: feed.board.clone(), lanes }
}

/// How far behind the server's now the lanes of a stream may be.
fn allowed(stream: &StreamConfig) -> Duration {
    health::allowed(stream.settle, stream.poll_interval)
}

/// The sinks whose events go into the transactions of the checkpoint.
fn transactional(config: &Config, sinks: &BTreeMap<&String, Arc<Sink>>) -> Vec<Arc<Sink>> {
    let is_transactional =
        |name: &String| matches!(&config.sinks[name], SinkConfig::Kafka(kafka) if kafka.exactly_once);
    sinks.iter().filter(|(name, _)| is_transactional(name)).map(|(_, sink)| Arc::clone(sink)).collect()
}

/// A client for each stream, with its share of memory; streams that use the same credential share one limiter, the
/// strictest of theirs.
pub(crate) fn streams(config: &Config) -> Vec<(String, Result<Client, BuildError>)> {
    let mut limits: BTreeMap<(String, String), (f64, u32)> = BTreeMap::new();
    for stream in config.streams.values() {
        let limit = limits.entry(credential(stream)).or_insert((f64::INFINITY, u32::MAX));
        *limit = (limit.0.min(stream.rate_limit), limit.1.min(stream.concurrency));
    }
    let limiters: BTreeMap<_, _> =
        limits.into_iter().map(|(key, (rate, in_flight))| (key, Limiter::new(rate, in_flight))).collect();
    let budget = Budget::new(config.memory.process, config.memory.stream, config.streams.len());
    let mut connections = Connections::default();
    let client = |(name, stream): (&String, &StreamConfig)| {
        let limiter = limiters[&credential(stream)].for_another();
        (name.clone(), Client::build(name, stream, limiter, budget.share(), &mut connections))
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
    let poll = millis(config.poll_interval);
    let schedule = Schedule {
        unit,
        poll,
        phase: Schedule::phase_of(name, poll, unit),
        settle: millis(config.settle),
        overlap: millis(config.overlap),
        sweeps: config.sweeps.iter().copied().map(millis).collect(),
    };
    let stream = Arc::new(StreamContext { identity, name: name.to_owned() });
    let lanes = config.sinks.len();
    Feed::new(stream, client, metrics.stream(name), board, schedule, config.concurrency, lanes)
}
