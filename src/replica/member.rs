//! Membership in the consumer group on the state topic: which partitions are this replica's, told as it changes.
//!
//! The group only divides partitions among replicas; nothing is consumed through it, and no offset means anything.

use std::sync::mpsc;
use std::time::{Duration, Instant};

use rdkafka::client::{ClientContext, OAuthToken};
use rdkafka::config::{FromClientConfigAndContext, RDKafkaLogLevel};
use rdkafka::consumer::{BaseConsumer, CommitMode, Consumer, ConsumerContext, Rebalance};
use rdkafka::error::{KafkaError, RDKafkaErrorCode as Code};
use rdkafka::{Offset, TopicPartitionList};
use tokio::sync::{mpsc as channel, oneshot};

use crate::config::KafkaCheckpointConfig;
use crate::kafka::{Context, Failure, Purpose, client_config};
use crate::metrics::SinkReason;

/// How long a rebalance waits for lanes to stop. The others of the group wait with it; what is not stopped by then is
/// fenced by whoever takes the partition.
const STOP_WITHIN: Duration = Duration::from_secs(20);

/// Who is fenced twice within this time is fenced by another process, not by itself.
const FENCED_IN_A_ROW: Duration = Duration::from_secs(60);

/// What changes.
#[derive(Debug)]
pub(super) enum Change {
    /// These are this replica's now, beside those that it has; perhaps none.
    Gained(Vec<i32>),
    /// These must be let go. The rebalance waits until `done` is sent or dropped.
    Losing {
        /// The partitions.
        partitions: Vec<i32>,
        /// Says that nothing is written there any more.
        done: mpsc::Sender<()>,
    },
    /// The group does not work as it should, and is tried again.
    Trouble(Failure),
    /// This replica is out for good.
    Ended(Failure),
}

/// A member of the group, until dropped. A restart within the session timeout finds its partitions where they were.
pub(super) struct Member {
    questions: mpsc::Sender<Question>,
}

/// Whether this replica is a member of the group in good standing.
type Question = oneshot::Sender<bool>;

impl Member {
    /// Joins. Changes come in order.
    pub(super) fn join(
        config: &KafkaCheckpointConfig,
        instance: &str,
        client: &str,
    ) -> Result<(Self, channel::UnboundedReceiver<Change>), Failure> {
        let (changes, receiver) = channel::unbounded_channel();
        let consumer = consumer(config, (instance, client), &changes)?;
        let (questions, asked) = mpsc::channel();
        let (config, instance, client) = (config.clone(), instance.to_owned(), client.to_owned());
        std::thread::Builder::new()
            .name("group".to_owned())
            .spawn(move || take_part(consumer, &config, (&instance, &client), &asked, &changes))
            .expect("a process that cannot have one more thread cannot go on");
        Ok((Self { questions }, receiver))
    }

    /// Whether the group knows this replica and holds it for the owner of what it has been given. Asks the group, so a
    /// process that was stopped for longer than it knows learns it here.
    pub(super) async fn is_in_good_standing(&self) -> bool {
        let (question, answer) = oneshot::channel();
        self.questions.send(question).is_ok() && answer.await.unwrap_or(false)
    }
}

/// A consumer that joins the group, by these names of the instance and of the client.
fn consumer(
    config: &KafkaCheckpointConfig,
    (instance, client): (&str, &str),
    changes: &channel::UnboundedSender<Change>,
) -> Result<BaseConsumer<Watching>, Failure> {
    let mut settings = client_config(&config.cluster, Purpose::Consumer)?;
    let session = config.session_timeout.as_millis();
    settings.set("group.id", &config.group).set("group.instance.id", instance);
    settings.set("client.id", client);
    settings.set("session.timeout.ms", session.to_string());
    settings.set("heartbeat.interval.ms", (session / 10).clamp(200, 3000).to_string());
    settings.set("max.poll.interval.ms", session.max(300_000).to_string());
    settings.set("partition.assignment.strategy", "cooperative-sticky");
    settings.set("enable.auto.commit", "false").set("auto.offset.reset", "latest");
    settings.set("queued.max.messages.kbytes", "1024").set("topic.metadata.refresh.interval.ms", "60000");
    let context = Context::new(&config.cluster);
    let watching = Watching { context: context.clone(), changes: changes.clone() };
    let failed = |error| Failure::new("join the group", &error, &context);
    let consumer = BaseConsumer::from_config_and_context(&settings, watching).map_err(failed)?;
    consumer.subscribe(&[&config.topic]).map_err(failed)?;
    Ok(consumer)
}

/// Until the member is dropped, or is out for good.
///
/// A member is fenced where another has joined under its name. That may be this very process: it joined again after
/// brokers were away for longer than its session, and its first try had been counted after all. So it joins once more;
/// of two processes with one name, this ends the one that is fenced twice in a row.
fn take_part(
    mut consumer: BaseConsumer<Watching>,
    config: &KafkaCheckpointConfig,
    names: (&str, &str),
    questions: &mpsc::Receiver<Question>,
    changes: &channel::UnboundedSender<Change>,
) {
    let mut fenced: Option<Instant> = None;
    loop {
        let failure = match serve(&consumer, &config.topic, questions, changes) {
            End::Dropped => return,
            End::Outdated => {
                let message = "certificates or secrets were replaced; joins again with them".to_owned();
                let _ = changes.send(Change::Trouble(Failure { reason: SinkReason::Connect, message }));
                consumer = match joined_anew(consumer, config, names, changes) {
                    Ok(consumer) => consumer,
                    Err(failure) => return drop(changes.send(Change::Ended(failure))),
                };
                continue;
            }
            End::Failed(failure) => failure,
        };
        let is_first = fenced.is_none_or(|before| before.elapsed() > FENCED_IN_A_ROW);
        if failure.reason != SinkReason::Fenced || !is_first {
            let _ = changes.send(Change::Ended(failure));
            return;
        }
        fenced = Some(Instant::now());
        let message = format!("{failure}; joins again");
        let _ = changes.send(Change::Trouble(Failure { message, ..failure }));
        consumer = match joined_anew(consumer, config, names, changes) {
            Ok(consumer) => consumer,
            Err(failure) => return drop(changes.send(Change::Ended(failure))),
        };
    }
}

/// Lets all go, and joins with a new client.
fn joined_anew(
    consumer: BaseConsumer<Watching>,
    config: &KafkaCheckpointConfig,
    names: (&str, &str),
    changes: &channel::UnboundedSender<Change>,
) -> Result<BaseConsumer<Watching>, Failure> {
    if let Ok(list) = consumer.assignment() {
        consumer.context().lose(partitions(&list));
    }
    drop(consumer);
    self::consumer(config, names, changes)
}

/// What ends a consumer's use.
enum End {
    /// The member is dropped.
    Dropped,
    /// What it was made of has been replaced, and it has trouble.
    Outdated,
    /// Anything else.
    Failed(Failure),
}

/// Until this consumer's use ends.
fn serve(
    consumer: &BaseConsumer<Watching>,
    topic: &str,
    questions: &mpsc::Receiver<Question>,
    changes: &channel::UnboundedSender<Change>,
) -> End {
    let mut looked = Instant::now();
    let mut last_told: Option<(Code, Instant)> = None;
    loop {
        match consumer.poll(Duration::from_millis(50)) {
            None | Some(Ok(_)) => {}
            Some(Err(error)) => {
                let code = error.rdkafka_error_code().unwrap_or(Code::Fail);
                let failure = Failure::new("take part in the group", &error, &consumer.context().context);
                if matches!(error, KafkaError::MessageConsumptionFatal(_)) {
                    return End::Failed(failure);
                }
                // The same is not news again for a while; that all brokers are down follows from what came before it.
                let is_news = last_told.is_none_or(|(told, at)| told != code || at.elapsed() > Duration::from_secs(30));
                if is_news && !matches!(code, Code::AutoOffsetReset | Code::AllBrokersDown) {
                    last_told = Some((code, Instant::now()));
                    let _ = changes.send(Change::Trouble(failure));
                }
            }
        }
        if looked.elapsed() > Duration::from_secs(1) {
            looked = Instant::now();
            if consumer.context().context.is_outdated() {
                return End::Outdated;
            }
        }
        loop {
            match questions.try_recv() {
                Ok(answer) => drop(answer.send(is_in_good_standing(consumer, topic))),
                Err(mpsc::TryRecvError::Empty) => break,
                Err(mpsc::TryRecvError::Disconnected) => return End::Dropped,
            }
        }
    }
}

/// The group takes a commit of offsets from a member of its present generation only.
fn is_in_good_standing(consumer: &BaseConsumer<Watching>, topic: &str) -> bool {
    let Ok(assignment) = consumer.assignment() else { return false };
    if assignment.count() == 0 || consumer.assignment_lost() {
        return false;
    }
    let mut offsets = TopicPartitionList::new();
    for element in assignment.elements_for_topic(topic) {
        if offsets.add_partition_offset(topic, element.partition(), Offset::Offset(0)).is_err() {
            return false;
        }
    }
    consumer.commit(&offsets, CommitMode::Sync).is_ok()
}

/// Hands rebalances on.
struct Watching {
    context: Context,
    changes: channel::UnboundedSender<Change>,
}

fn partitions(list: &TopicPartitionList) -> Vec<i32> {
    list.elements().iter().map(|element| element.partition()).collect()
}

impl Watching {
    /// Has these partitions let go, and waits for that.
    fn lose(&self, partitions: Vec<i32>) {
        let (done, stopped) = mpsc::channel();
        if !partitions.is_empty() && self.changes.send(Change::Losing { partitions, done }).is_ok() {
            let _ = stopped.recv_timeout(STOP_WITHIN);
        }
    }
}

impl ClientContext for Watching {
    const ENABLE_REFRESH_OAUTH_TOKEN: bool = Context::ENABLE_REFRESH_OAUTH_TOKEN;

    fn log(&self, level: RDKafkaLogLevel, facility: &str, message: &str) {
        self.context.log(level, facility, message);
    }

    fn stats(&self, statistics: rdkafka::Statistics) {
        self.context.stats(statistics);
    }

    fn error(&self, error: KafkaError, reason: &str) {
        self.context.error(error, reason);
    }

    fn generate_oauth_token(&self, config: Option<&str>) -> Result<OAuthToken, Box<dyn std::error::Error>> {
        self.context.generate_oauth_token(config)
    }
}

impl ConsumerContext for Watching {
    fn pre_rebalance(&self, _: &BaseConsumer<Self>, rebalance: &Rebalance<'_>) {
        if let Rebalance::Revoke(list) = rebalance {
            // Heartbeats go on meanwhile, from a thread of the client's own.
            self.lose(partitions(list));
        }
    }

    fn post_rebalance(&self, consumer: &BaseConsumer<Self>, rebalance: &Rebalance<'_>) {
        if let Rebalance::Assign(list) = rebalance {
            // Nothing is read through the group.
            let _ = consumer.pause(list);
            let _ = self.changes.send(Change::Gained(partitions(list)));
        }
    }
}
