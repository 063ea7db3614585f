//! A replica: one of the processes that share the streams through a consumer group on the state topic.
//!
//! A stream belongs to a partition of that topic, by its name; whoever has been given the partition runs the stream's
//! lanes. Taking a partition fences whoever had it before ([`StateTopic::take`]), so that a process that was stopped and
//! goes on unaware can commit nothing more. A partition that is lost for a reason that passes is taken again, once the
//! group says that it is still ours.

mod member;
mod watch;

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use tokio::task::{JoinHandle, JoinSet};

use crate::admin::{Latch, StreamBoard};
use crate::checkpoint::CheckpointError;
use crate::checkpoint::kafka::{Partition, StateTopic};
use crate::config::KafkaCheckpointConfig;
use crate::kafka::Failure;
use crate::lane::{Kept, Lane, LaneError, Until};
use crate::metrics::StreamMetrics;
use crate::retry::Backoff;
use crate::shutdown::{self, Shutdown, Trigger};
use crate::sink::Sink;
use crate::telemetry::chain;
use member::{Change, Member};
pub use watch::Watched;

/// How long lanes may take to stop when their partition goes to another replica.
const STOP_WITHIN: Duration = Duration::from_secs(15);

/// A stream of the config, and its lanes for whenever it is this replica's.
pub struct Line {
    /// The stream's name.
    pub stream: String,
    /// Its counts.
    pub metrics: StreamMetrics,
    /// Where it shows who runs it.
    pub board: StreamBoard,
    /// Makes each of its lanes.
    pub lanes: Vec<LaneMaker>,
}

/// Makes a lane whose state is kept there.
pub type LaneMaker = Box<dyn Fn(Kept) -> Lane + Send + Sync>;

/// See the module.
pub struct Replica {
    /// The state topic, and the group.
    pub config: KafkaCheckpointConfig,
    /// This replica's name in the group.
    pub instance: String,
    /// Every stream of the config.
    pub lines: Vec<Line>,
    /// The sinks that take part in transactions.
    pub transactional: Vec<Arc<Sink>>,
    /// The topic of dead letters, if they go to one.
    pub letters: Option<String>,
    /// What is shown of lanes that run elsewhere.
    pub watched: Watched,
    /// Released once the group has said what is this replica's.
    pub joined: Latch,
}

/// What tasks of the partitions share.
struct Shared {
    topic: StateTopic,
    instance: String,
    lines: Vec<Line>,
    transactional: Vec<Arc<Sink>>,
    member: Member,
    until: Until,
}

/// A partition that is this replica's.
struct Running {
    stop: Trigger,
    task: JoinHandle<Result<(), LaneError>>,
}

impl Replica {
    /// Runs the lanes of whatever partitions this replica is given, until shutdown is requested or, with
    /// [`Until::CaughtUp`], all lanes of those that it was given first have caught up.
    ///
    /// # Errors
    /// What no retry mends, of the group or of any lane.
    pub async fn run(self, until: Until, shutdown: Shutdown) -> Result<(), LaneError> {
        let Some(topic) = self.open(&shutdown).await? else { return Ok(()) };
        let (member, mut changes) =
            Member::join(&self.config, &self.instance).map_err(CheckpointError::from).map_err(LaneError::from)?;
        let _watch = self.watched.start(&topic, &self.lines);
        let shared = Arc::new(Shared {
            topic,
            instance: self.instance,
            lines: self.lines,
            transactional: self.transactional,
            member,
            until,
        });
        let mut joined = Some(self.joined);
        let mut running: HashMap<i32, Running> = HashMap::new();
        let mut failed = Ok(());
        loop {
            let ended = async {
                loop {
                    if let Some(partition) = running.iter().find(|(_, running)| running.task.is_finished()) {
                        return *partition.0;
                    }
                    tokio::time::sleep(Duration::from_millis(20)).await;
                }
            };
            tokio::select! {
                () = shutdown.requested() => break,
                change = changes.recv() => match change {
                    Some(Change::Gained(partitions)) => {
                        tracing::info!(?partitions, "the group gives this replica partitions");
                        if let Some(joined) = joined.take() {
                            joined.release();
                        }
                        for partition in partitions {
                            running.entry(partition).or_insert_with(|| shared.start(partition));
                        }
                    }
                    Some(Change::Losing { partitions, done }) => {
                        tracing::info!(?partitions, "the group takes partitions away");
                        let losing = partitions.iter().filter_map(|partition| running.remove(partition)).collect();
                        failed = failed.and(stop(losing).await);
                        drop(done);
                    }
                    Some(Change::Trouble(failure)) => tracing::warn!("the group of replicas: {failure}"),
                    Some(Change::Ended(failure)) => {
                        failed = failed.and(Err(out(failure, &shared.instance)));
                        break;
                    }
                    None => break,
                },
                partition = ended, if !running.is_empty() => {
                    if let Some(ended) = running.remove(&partition) {
                        failed = failed.and(stop(vec![ended]).await);
                    }
                    // A sink that is gone for good is gone for all lanes; other lanes run on beside one that ended.
                    let all_done = until == Until::CaughtUp && running.is_empty();
                    if all_done || matches!(failed, Err(LaneError::Sink(_))) {
                        break;
                    }
                }
            }
        }
        let stopped = stop(running.into_values().collect()).await;
        failed.and(stopped)
    }

    /// The state topic and the one of dead letters, however long Kafka needs to be there. `None` if shutdown came first.
    async fn open(&self, shutdown: &Shutdown) -> Result<Option<StateTopic>, LaneError> {
        let mut backoff = Backoff::new();
        loop {
            let (config, letters) = (self.config.clone(), self.letters.clone());
            match blocking(move || StateTopic::open(&config, letters.as_deref())).await {
                Ok(topic) => return Ok(Some(topic)),
                Err(CheckpointError::Kafka(failure)) => {
                    tracing::error!(reason = failure.reason.label(), "checkpoint.kafka: trying again: {failure}");
                    let wait = backoff.wait(failure.reason.needs_operator(), None);
                    if shutdown.unless(tokio::time::sleep(wait)).await.is_none() {
                        return Ok(None);
                    }
                }
                Err(error) => return Err(error.into()),
            }
        }
    }
}

impl Shared {
    fn start(self: &Arc<Self>, partition: i32) -> Running {
        let (stop, end) = shutdown::channel();
        let shared = Arc::clone(self);
        Running { stop, task: tokio::spawn(async move { shared.keep(partition, end).await }) }
    }

    /// The streams whose state is in `partition`.
    fn lines(&self, partition: i32) -> impl Iterator<Item = &Line> {
        self.lines.iter().filter(move |line| self.topic.partition_of(&line.stream) == partition)
    }

    /// Runs the lanes of one partition for as long as it is this replica's, taking it again whenever that is needed.
    async fn keep(self: Arc<Self>, partition: i32, shutdown: Shutdown) -> Result<(), LaneError> {
        if self.lines(partition).next().is_none() {
            if self.until == Until::Shutdown {
                shutdown.requested().await;
            }
            return Ok(());
        }
        let mut backoff = Backoff::new();
        loop {
            match shutdown.unless(self.take(partition)).await {
                None => return Ok(()),
                Some(Ok(taken)) => {
                    backoff.reset();
                    match self.run(&Arc::new(taken), &shutdown).await {
                        Err(LaneError::Lost) => {}
                        result => return result,
                    }
                }
                Some(Err(CheckpointError::Kafka(failure))) => {
                    tracing::error!(
                        partition,
                        reason = failure.reason.label(),
                        "cannot take it, trying again: {failure}"
                    );
                    let wait = backoff.wait(failure.reason.needs_operator(), None);
                    shutdown.unless(tokio::time::sleep(wait)).await;
                }
                Some(Err(error)) => return Err(error.into()),
            }
            // Whoever fenced us may be the rightful owner: then the group will take the partition away.
            while !shutdown.is_requested() && !self.member.is_in_good_standing().await {
                shutdown.unless(tokio::time::sleep(backoff.wait(false, None))).await;
            }
            if shutdown.is_requested() {
                return Ok(());
            }
        }
    }

    async fn take(&self, partition: i32) -> Result<Partition, CheckpointError> {
        let mut largest: Option<u64> = None;
        let mut properties = self.topic.config().cluster.properties.clone();
        for sink in &self.transactional {
            if let Sink::Kafka(kafka) = &**sink {
                properties.extend(kafka.config().cluster.properties.clone());
                // A topic that is not there yet is each lane's own trouble.
                if let Ok(topic) = kafka.look_up().await {
                    largest = largest.into_iter().chain(topic.largest()).min();
                }
            }
        }
        let (topic, instance) = (self.topic.clone(), self.instance.clone());
        let taken = blocking(move || topic.take(partition, &instance, &properties, largest)).await?;
        tracing::info!(partition, "taken");
        Ok(taken)
    }

    /// Runs the lanes on a partition that is taken, until they end or it is lost.
    async fn run(&self, taken: &Arc<Partition>, shutdown: &Shutdown) -> Result<(), LaneError> {
        let (stop, end) = shutdown::channel();
        let mut lanes = JoinSet::new();
        let mut shown = Vec::new();
        for line in self.lines(taken.number()) {
            line.metrics.set_running(true);
            line.board.set_running(true, Some(&self.instance));
            for make in &line.lanes {
                let lane = make(Kept::Partition(Arc::clone(taken)));
                shown.push((lane.metrics.clone(), lane.board.clone()));
                lanes.spawn(lane.run(self.until, end.clone()));
            }
        }
        let mut result = Ok(());
        let mut lost = None;
        loop {
            tokio::select! {
                lane = lanes.join_next() => match lane {
                    None => break,
                    Some(Ok(Ok(()))) => {}
                    Some(Ok(Err(LaneError::Lost))) => result = Err(LaneError::Lost),
                    Some(Ok(Err(error))) => {
                        if !matches!(error, LaneError::NotDrained | LaneError::Sink(_)) {
                            tracing::error!("a lane ended: {}", chain(&error));
                        }
                        result = result.and(Err(error));
                    }
                    Some(Err(panic)) => std::panic::resume_unwind(panic.into_panic()),
                },
                failure = taken.lost(), if lost.is_none() => {
                    tracing::error!(partition = taken.number(), reason = failure.reason.label(), "lost: {failure}");
                    for (metrics, board) in &shown {
                        metrics.sink_error(failure.reason);
                        board.failing(failure.reason, failure.to_string());
                    }
                    lost = Some(failure);
                    stop.pull();
                }
                () = shutdown.requested(), if !end.is_requested() => stop.pull(),
            }
        }
        for line in self.lines(taken.number()) {
            line.metrics.set_running(false);
            line.board.set_running(false, None);
        }
        match (lost, result) {
            (Some(_), Ok(()) | Err(LaneError::NotDrained)) => Err(LaneError::Lost),
            (_, result) => result,
        }
    }
}

/// Asks partitions' tasks to end and waits for them, but not for ever.
async fn stop(running: Vec<Running>) -> Result<(), LaneError> {
    for partition in &running {
        partition.stop.pull();
    }
    let deadline = tokio::time::Instant::now() + STOP_WITHIN;
    let mut result = Ok(());
    for Running { mut task, .. } in running {
        result = result.and(match tokio::time::timeout_at(deadline, &mut task).await {
            Ok(Ok(ended)) => ended,
            Ok(Err(panic)) => std::panic::resume_unwind(panic.into_panic()),
            Err(_) => {
                task.abort();
                Err(LaneError::NotDrained)
            }
        });
    }
    result
}

/// Why this replica is out of the group.
fn out(failure: Failure, instance: &str) -> LaneError {
    let message = format!(
        "{failure}; if another trailcast has joined the group as `{instance}`, give each its own \
         `checkpoint.kafka.instance_id`"
    );
    CheckpointError::Kafka(Failure { message, ..failure }).into()
}

async fn blocking<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> T {
    match tokio::task::spawn_blocking(work).await {
        Ok(result) => result,
        Err(ended) => std::panic::resume_unwind(ended.into_panic()),
    }
}
