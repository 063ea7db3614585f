//! A replica: one of the processes that share the streams through a consumer group on the state topic.
//!
//! A stream belongs to a partition of that topic, by its name; whoever has been given the partition runs the stream's
//! lanes. Taking a partition fences whoever had it before ([`StateTopic::take`]), so that a process that was stopped and
//! goes on unaware can commit nothing more. A partition that is lost for a reason that passes is taken again, once the
//! group says that it is still ours.

pub mod agreement;
mod member;
mod watch;

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::task::{AbortHandle, JoinError, JoinSet};

use crate::admin::{LaneBoard, Latch, Readiness, StreamBoard};
use crate::blocking::blocking;
use crate::checkpoint::kafka::{Belief, Partition, Standing, StateTopic};
use crate::checkpoint::{CheckpointError, warn_of_strangers};
use crate::config::{KafkaCheckpointConfig, units};
use crate::kafka::{Cluster, Failure};
use crate::lane::{Kept, LaneError, LaneMaker, Say, Until, Voice, run, supervise};
use crate::metrics::{SinkReason, StreamMetrics};
use crate::retry::{Backoff, Patience};
use crate::shutdown::{self, Shutdown, Trigger};
use crate::sink::Sink;
use crate::words::chain;
use member::{Change, Member};
pub use watch::Watched;

/// How long lanes may take to stop when their partition goes to another replica.
const STOP_WITHIN: Duration = Duration::from_secs(15);

/// A partition that was held for so long is taken again as if for the first time.
const HELD_WELL: Duration = Duration::from_secs(60);

/// A stream of the config, and its lanes for whenever it is this replica's.
pub struct Line {
    /// The stream's name.
    pub stream: String,
    /// Its counts.
    pub metrics: StreamMetrics,
    /// Where it shows who runs it.
    pub board: StreamBoard,
    /// Makes each of its lanes.
    pub lanes: Vec<LaneLine>,
}

/// A lane that can be made.
pub struct LaneLine {
    /// Its sink's name.
    pub sink: String,
    /// Makes it.
    pub make: LaneMaker,
    /// Where it shows how it is.
    pub board: LaneBoard,
}

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
    /// What all replicas must share: see [`agreement`].
    pub shared: String,
    /// Says no while a partition's state is refused.
    pub readiness: Readiness,
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
    /// What all replicas must share.
    digest: String,
    readiness: Readiness,
}

/// The partitions that are this replica's, each with a task that keeps it.
#[derive(Default)]
struct Running {
    partitions: HashMap<i32, (Trigger, AbortHandle)>,
    tasks: JoinSet<(i32, Result<(), LaneError>)>,
}

impl Running {
    fn start(&mut self, shared: &Arc<Shared>, partition: i32) {
        if self.partitions.contains_key(&partition) {
            return;
        }
        let (stop, end) = shutdown::channel();
        let shared = Arc::clone(shared);
        let task = self.tasks.spawn(async move {
            let keep = || Arc::clone(&shared).keep(partition, end.clone());
            (partition, supervise(keep, || {}, &end).await)
        });
        self.partitions.insert(partition, (stop, task));
    }

    /// Takes note of a task that has ended.
    fn over(&mut self, ended: Result<(i32, Result<(), LaneError>), JoinError>) -> Result<(), LaneError> {
        match ended {
            Ok((partition, result)) => {
                self.partitions.remove(&partition);
                result
            }
            Err(error) if error.is_cancelled() => Ok(()),
            Err(panic) => std::panic::resume_unwind(panic.into_panic()),
        }
    }

    /// Asks the tasks of these partitions to end and waits for them, but not for ever.
    async fn stop(&mut self, partitions: &[i32]) -> Result<(), LaneError> {
        for (stop, _) in partitions.iter().filter_map(|partition| self.partitions.get(partition)) {
            stop.pull();
        }
        let deadline = tokio::time::Instant::now() + STOP_WITHIN;
        let mut result = Ok(());
        while partitions.iter().any(|partition| self.partitions.contains_key(partition)) {
            match tokio::time::timeout_at(deadline, self.tasks.join_next()).await {
                Ok(Some(ended)) => result = worse(result, self.over(ended)),
                Ok(None) => break,
                Err(_) => {
                    for (_, task) in partitions.iter().filter_map(|partition| self.partitions.remove(partition)) {
                        task.abort();
                    }
                    result = worse(result, Err(LaneError::NotDrained));
                }
            }
        }
        result
    }
}

/// Of two ends the one that says more: that something was not drained follows from whatever else happened.
fn worse(one: Result<(), LaneError>, other: Result<(), LaneError>) -> Result<(), LaneError> {
    match (one, other) {
        (Ok(()) | Err(LaneError::NotDrained), Err(other)) => Err(other),
        (one, _) => one,
    }
}

/// A partition that is being taken, unless shutdown is requested. Then it is still waited for, but not for long: let go
/// half-way, it would fence whoever is given the partition next.
async fn taken_unless<T>(shutdown: &Shutdown, take: impl Future<Output = T>) -> Option<T> {
    const LET_IT_END: Duration = Duration::from_secs(5);
    let given_up = async {
        shutdown.requested().await;
        tokio::time::sleep(LET_IT_END).await;
    };
    tokio::select! {
        taken = take => Some(taken).filter(|_| !shutdown.is_requested()),
        () = given_up => None,
    }
}

impl Replica {
    /// Runs the lanes of whatever partitions this replica is given, until shutdown is requested or, with
    /// [`Until::CaughtUp`], all lanes of those that it was given first have caught up.
    ///
    /// # Errors
    /// What no retry mends, of the group or of any lane.
    pub async fn run(self, until: Until, shutdown: Shutdown) -> Result<(), LaneError> {
        let Some(topic) = self.open(until, &shutdown).await? else { return Ok(()) };
        let (member, mut changes) = Member::join(&self.config, &self.instance, &agreement::client_id(&self.shared))
            .map_err(CheckpointError::from)
            .map_err(LaneError::from)?;
        let _watch = self.watched.start(&topic, &self.lines);
        let shared = Arc::new(Shared {
            topic,
            instance: self.instance,
            lines: self.lines,
            transactional: self.transactional,
            member,
            until,
            digest: self.shared,
            readiness: self.readiness,
        });
        let mut joined = Some(self.joined);
        let mut running = Running::default();
        let mut failed = Ok(());
        loop {
            tokio::select! {
                () = shutdown.requested() => break,
                change = changes.recv() => match change {
                    Some(Change::Gained(partitions)) => {
                        tracing::info!(?partitions, "the group gives this replica partitions");
                        if let Some(joined) = joined.take() {
                            joined.release();
                        }
                        for partition in partitions {
                            running.start(&shared, partition);
                        }
                    }
                    Some(Change::Losing { partitions, done }) => {
                        tracing::info!(?partitions, "the group takes partitions away");
                        match running.stop(&partitions).await {
                            // What they could not deliver is the next owner's to deliver, perhaps ours again.
                            Err(LaneError::NotDrained) => {}
                            stopped => failed = failed.and(stopped),
                        }
                        drop(done);
                        if matches!(failed, Err(LaneError::Sink(_))) {
                            break;
                        }
                    }
                    Some(Change::Trouble(failure)) => tracing::warn!("the group of replicas: {failure}"),
                    Some(Change::Ended(failure)) => {
                        failed = failed.and(Err(out(failure, &shared.instance)));
                        break;
                    }
                    None => break,
                },
                Some(ended) = running.tasks.join_next() => {
                    failed = failed.and(running.over(ended));
                    // A sink that is gone for good is gone for all lanes; other lanes run on beside one that ended.
                    let none_left = running.partitions.keys().all(|partition| shared.lines(*partition).next().is_none());
                    let all_done = until == Until::CaughtUp && running.partitions.is_empty();
                    if all_done || failed.is_err() && none_left || matches!(failed, Err(LaneError::Sink(_))) {
                        break;
                    }
                }
            }
        }
        let all: Vec<i32> = running.partitions.keys().copied().collect();
        let stopped = running.stop(&all).await;
        failed.and(stopped)
    }

    /// The state topic and the one of dead letters, however long Kafka needs to be there; but one that is to catch up does not
    /// wait for a person for long. `None` if shutdown came first.
    async fn open(&self, until: Until, shutdown: &Shutdown) -> Result<Option<StateTopic>, LaneError> {
        let mut backoff = Backoff::new();
        let mut patience = Patience::default();
        let mut voice = Voice::default();
        loop {
            let (config, letters) = (self.config.clone(), self.letters.clone());
            match blocking(move || StateTopic::open(&config, letters.as_deref())).await {
                Ok(topic) => {
                    // Whoever is given a stream shows how it is from here on.
                    self.lanes().for_each(|lane| lane.board.ok());
                    return Ok(Some(topic));
                }
                Err(CheckpointError::Kafka(failure)) => {
                    self.lanes().for_each(|lane| lane.board.failing(SinkReason::Checkpoint, failure.to_string()));
                    if until == Until::CaughtUp && patience.is_over(failure.reason.needs_operator(), Instant::now()) {
                        return Err(CheckpointError::Kafka(failure).into());
                    }
                    match voice.failed(failure.reason, Instant::now()) {
                        Some(Say::First) if failure.reason.may_pass() => {
                            tracing::warn!(
                                reason = failure.reason.label(),
                                "checkpoint.kafka: trying again: {failure}"
                            );
                        }
                        Some(Say::First) => {
                            tracing::error!(
                                reason = failure.reason.label(),
                                "checkpoint.kafka: trying again: {failure}"
                            );
                        }
                        Some(Say::Still { times, since }) => tracing::error!(
                            reason = failure.reason.label(),
                            "checkpoint.kafka: still in vain: {times} tries in {}, the last: {failure}",
                            units::passed_text(since)
                        ),
                        None => {}
                    }
                    let wait = backoff.wait(failure.reason.needs_operator(), None);
                    let wait = patience.at_most(wait, Instant::now());
                    if shutdown.unless(tokio::time::sleep(wait)).await.is_none() {
                        return Ok(None);
                    }
                }
                Err(error) => return Err(error.into()),
            }
        }
    }

    fn lanes(&self) -> impl Iterator<Item = &LaneLine> {
        self.lines.iter().flat_map(|line| &line.lanes)
    }
}

/// That streams show as run by this replica: until it is dropped, which is also what ends a task that would not end.
struct Runs<'a>(Vec<&'a Line>);

impl<'a> Runs<'a> {
    fn here(lines: Vec<&'a Line>, instance: &str) -> Self {
        for line in &lines {
            line.metrics.set_running(true);
            line.board.set_running(true, Some(instance));
        }
        Self(lines)
    }
}

impl Drop for Runs<'_> {
    fn drop(&mut self) {
        for line in &self.0 {
            line.metrics.set_running(false);
            line.board.set_running(false, None);
        }
    }
}

impl Shared {
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
        let mut patience = Patience::default();
        let mut known: Option<Standing> = None;
        let mut refused: Option<Latch> = None;
        let mut voice = Voice::default();
        loop {
            if shutdown.unless(self.agree(partition)).await.is_none() {
                return Ok(());
            }
            match taken_unless(&shutdown, self.take(partition, known)).await {
                None => return Ok(()),
                Some(Ok(taken)) => {
                    if let Some(refused) = refused.take() {
                        refused.release();
                    }
                    patience = Patience::default();
                    voice.worked(Instant::now());
                    let began = Instant::now();
                    let taken = Arc::new(taken);
                    let (result, lost) = self.run(&taken, &shutdown).await;
                    known = Some(taken.standing());
                    let Err(LaneError::Lost) = result else { return result };
                    if began.elapsed() > HELD_WELL {
                        backoff.reset();
                    }
                    // What waits for an operator is not mended by taking it again at once.
                    if lost.is_some_and(|failure| failure.reason.needs_operator()) {
                        shutdown.unless(tokio::time::sleep(backoff.wait(true, None))).await;
                    }
                }
                Some(Err(CheckpointError::Kafka(failure)))
                    if self.until == Until::CaughtUp
                        && patience.is_over(failure.reason.needs_operator(), Instant::now()) =>
                {
                    return Err(CheckpointError::Kafka(failure).into());
                }
                Some(Err(CheckpointError::Kafka(failure))) => {
                    if voice.failed(failure.reason, Instant::now()).is_some() {
                        tracing::error!(
                            partition,
                            reason = failure.reason.label(),
                            "cannot take the partition, trying again: {failure}"
                        );
                    }
                    // A topic or a right is missing: its streams stand still.
                    if failure.reason == SinkReason::Refused {
                        self.refuse(partition, &mut refused, failure.to_string());
                    }
                    let wait = backoff.wait(failure.reason.needs_operator(), None);
                    shutdown.unless(tokio::time::sleep(patience.at_most(wait, Instant::now()))).await;
                }
                Some(Err(error @ (CheckpointError::Doubted { .. } | CheckpointError::OtherGroup { .. })))
                    if self.until == Until::Shutdown =>
                {
                    if voice.failed(SinkReason::Checkpoint, Instant::now()).is_some() {
                        tracing::error!(partition, "does not take the partition, until that is settled: {error}");
                    }
                    self.refuse(partition, &mut refused, error.to_string());
                    shutdown.unless(tokio::time::sleep(backoff.wait(true, None))).await;
                }
                Some(Err(error)) => return Err(error.into()),
            }
            // Whoever fenced us may be the rightful owner: then the group will take the partition away.
            loop {
                // Who answers may be the one that waits for this task to end.
                match shutdown.unless(self.member.is_in_good_standing()).await {
                    None => return Ok(()),
                    Some(true) => break,
                    Some(false) => drop(shutdown.unless(tokio::time::sleep(backoff.wait(false, None))).await),
                }
            }
        }
    }

    /// Shows that the streams of a partition stand still, until it is taken.
    fn refuse(&self, partition: i32, refused: &mut Option<Latch>, why: String) {
        refused.get_or_insert_with(|| self.readiness.hold("checkpoint"));
        for line in self.lines(partition) {
            line.lanes.iter().for_each(|lane| lane.board.failing(SinkReason::Checkpoint, why.clone()));
        }
    }

    /// Waits until no other member of the group runs another config. Those that run go on meanwhile.
    async fn agree(&self, partition: i32) {
        let mut backoff = Backoff::new();
        let mut told = false;
        loop {
            let config = self.topic.config();
            let (cluster, group) = (config.cluster.clone(), config.group.clone());
            let asked = blocking(move || Cluster::new(&cluster)?.members(&group)).await;
            // Who cannot ask cannot take the partition either, and is told there why.
            let Ok(members) = asked else { return };
            let others = agreement::others(&members, &self.digest);
            if others.is_empty() {
                return;
            }
            let why = format!(
                "replicas of the group `{}` run another config ({}): streams, sinks, filters and sweeps must be the same \
                 everywhere, or events would be delivered twice; this replica waits until they are, or those have gone",
                config.group,
                others.join(", ")
            );
            if !std::mem::replace(&mut told, true) {
                tracing::error!(partition, "does not take the partition: {why}");
            }
            for line in self.lines(partition) {
                line.lanes.iter().for_each(|lane| lane.board.failing(SinkReason::Checkpoint, why.clone()));
            }
            tokio::time::sleep(backoff.wait(false, None)).await;
        }
    }

    async fn take(&self, partition: i32, known: Option<Standing>) -> Result<Partition, CheckpointError> {
        let mut largest: Option<u64> = None;
        let mut properties = BTreeMap::new();
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
        let taken =
            blocking(move || topic.take(partition, &instance, &properties, largest, Belief::Known(known))).await?;
        tracing::info!(partition, "the partition is taken");
        let known = |stream: &str, sink: &str| {
            self.lines.iter().any(|line| line.stream == stream && line.lanes.iter().any(|lane| lane.sink == sink))
        };
        warn_of_strangers(&taken, known)?;
        Ok(taken)
    }

    /// Runs the lanes on a partition that is taken, until they end or it is lost; and why it is.
    async fn run(&self, taken: &Arc<Partition>, shutdown: &Shutdown) -> (Result<(), LaneError>, Option<Failure>) {
        let (stop, end) = shutdown::channel();
        let mut lanes = JoinSet::new();
        let mut shown = Vec::new();
        let _runs = Runs::here(self.lines(taken.number()).collect(), &self.instance);
        for line in self.lines(taken.number()) {
            for LaneLine { make, .. } in &line.lanes {
                let lane = make(Kept::Partition(Arc::clone(taken)));
                // Whatever kept it from going on before: it begins anew, and says what fails from here on.
                lane.board.ok();
                shown.push((lane.metrics.clone(), lane.board.clone()));
                let (make, kept) = (Arc::clone(make), Kept::Partition(Arc::clone(taken)));
                lanes.spawn(run(make, kept, self.until, end.clone()));
            }
        }
        let mut result = Ok(());
        let mut lost = None;
        loop {
            tokio::select! {
                // In this order: lanes end because the partition is lost, and the reason is not to be lost with them.
                biased;
                failure = taken.lost(), if lost.is_none() => {
                    tracing::error!(partition = taken.number(), reason = failure.reason.label(), "the partition is lost: {failure}");
                    for (metrics, board) in &shown {
                        metrics.sink_error(failure.reason);
                        board.failing(failure.reason, failure.to_string());
                    }
                    lost = Some(failure);
                    stop.pull();
                }
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
                () = shutdown.requested(), if !end.is_requested() => stop.pull(),
            }
        }
        match (&lost, result) {
            (Some(_), Ok(()) | Err(LaneError::NotDrained)) => (Err(LaneError::Lost), lost),
            (_, result) => (result, lost),
        }
    }
}

/// Why this replica is out of the group.
fn out(failure: Failure, instance: &str) -> LaneError {
    let message = format!(
        "{failure}; if another trailcast has joined the group as `{instance}`, give each its own \
         `checkpoint.kafka.instance_id`"
    );
    CheckpointError::Kafka(Failure { message, ..failure }).into()
}
