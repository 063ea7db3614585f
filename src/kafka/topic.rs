//! Topics: whether they are there, how they are set, and making them.

use std::collections::BTreeMap;
use std::sync::OnceLock;
use std::time::{Duration, Instant};

use rdkafka::TopicPartitionList;
use rdkafka::admin::{AdminClient, AdminOptions, NewTopic, ResourceSpecifier, TopicReplication};
use rdkafka::config::FromClientConfigAndContext;
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::error::{KafkaError, RDKafkaErrorCode as Code};
use tokio::runtime::Handle;

use super::ANSWER_WITHIN;
use super::client::{Context, Purpose, client_config};
use super::failure::Failure;
use crate::config::{ClusterConfig, CreateTopicConfig, SaslConfig};
use crate::metrics::SinkReason;

/// Asks a cluster about itself. All of it blocks, on a thread of the runtime's that may.
pub struct Cluster {
    config: ClusterConfig,
    consumer: BaseConsumer<Context>,
    /// Made when first needed.
    admin: OnceLock<AdminClient<Context>>,
    context: Context,
}

impl Drop for Cluster {
    fn drop(&mut self) {
        let_go(self.admin.take());
    }
}

/// Ends a client in the background: that waits for threads of its own that look up ten times a second.
pub(super) fn let_go(client: impl Send + 'static) {
    match Handle::try_current() {
        Ok(runtime) => drop(runtime.spawn_blocking(move || drop(client))),
        Err(_) => drop(client),
    }
}

/// A member of a consumer group.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GroupMember {
    /// The id that the brokers give it: a static member's begins with its name.
    pub id: String,
    /// What it calls itself.
    pub client: String,
}

/// A topic as it is.
#[derive(Debug, Clone, Default)]
pub struct Topic {
    /// Its name.
    pub name: String,
    /// Its partitions.
    pub partitions: u32,
    /// The fewest replicas that any of its partitions has.
    pub replicas: usize,
    /// Its settings, by Kafka's names; none where the right to see them is missing.
    pub settings: Option<BTreeMap<String, String>>,
}

impl Topic {
    /// A setting that is a number.
    #[must_use]
    pub fn number(&self, name: &str) -> Option<i64> {
        self.setting(name)?.parse().ok()
    }

    /// A setting, if settings are known.
    #[must_use]
    pub fn setting(&self, name: &str) -> Option<&str> {
        self.settings.as_ref()?.get(name).map(String::as_str)
    }

    /// What of the events in it may go sooner than by their age.
    #[must_use]
    pub fn forgets(&self) -> Vec<String> {
        let mut doubts = Vec::new();
        if self.setting("cleanup.policy").is_some_and(|policy| policy.contains("compact")) {
            doubts.push(format!(
                "the topic `{}` has cleanup.policy={}: of the events of a key only the last is kept for long; set it to \
                 `delete`",
                self.name,
                self.setting("cleanup.policy").unwrap_or("?")
            ));
        }
        if let Some(bytes) = self.number("retention.bytes").filter(|bytes| *bytes >= 0) {
            doubts.push(format!(
                "the topic `{}` deletes events, however young, once a partition holds more than {bytes} bytes \
                 (retention.bytes); set it to -1 unless that is meant",
                self.name
            ));
        }
        doubts
    }

    /// `max.message.bytes`
    #[must_use]
    pub fn largest(&self) -> Option<u64> {
        self.number("max.message.bytes").and_then(|bytes| bytes.try_into().ok())
    }
}

/// Why a topic is not to be had.
#[derive(Debug, Clone, thiserror::Error)]
pub enum TopicError {
    /// Asking failed.
    #[error(transparent)]
    Failed(#[from] Failure),
    /// It is not there.
    #[error(
        "the topic `{0}` does not exist; make it, for example with `kafka-topics.sh --bootstrap-server … --create \
         --topic {0} --partitions 6 --replication-factor 3`, or let trailcast make it: \
         `create: {{ partitions: 6, replication: 3 }}`"
    )]
    Missing(String),
    /// It keeps one record of a key, and takes none without.
    #[error(
        "the topic `{0}` has `cleanup.policy=compact`, so Kafka keeps one event of each key and refuses those without one; \
         set it to `delete`, for example with `kafka-configs.sh --bootstrap-server … --alter --topic {0} --add-config \
         cleanup.policy=delete`, or name another topic"
    )]
    Compacts(String),
}

impl Cluster {
    /// A client for questions. Connects in the background.
    ///
    /// # Errors
    /// A secret or the settings are no good.
    pub fn new(config: &ClusterConfig) -> Result<Self, Failure> {
        let context = Context::new(config);
        let settings = client_config(config, Purpose::Consumer)?;
        let consumer = BaseConsumer::from_config_and_context(&settings, context.clone())
            .map_err(|error| Failure::new("make a client", &error, &context))?;
        Ok(Self { config: config.clone(), consumer, admin: OnceLock::new(), context })
    }

    /// How many brokers there are, and the cluster's id.
    ///
    /// # Errors
    /// It cannot be reached.
    pub fn brokers(&self) -> Result<(usize, Option<String>), Failure> {
        let brokers = self.ask("reach the brokers", |consumer, timeout| {
            Ok(consumer.client().fetch_metadata(None, timeout)?.brokers().len())
        })?;
        Ok((brokers, self.consumer.client().fetch_cluster_id(Duration::from_secs(1))))
    }

    /// The members of a consumer group.
    ///
    /// # Errors
    /// They cannot be asked for.
    pub fn members(&self, group: &str) -> Result<Vec<GroupMember>, Failure> {
        self.ask(&format!("look up the group `{group}`"), |consumer, timeout| {
            let list = consumer.client().fetch_group_list(Some(group), timeout)?;
            let members = list.groups().iter().flat_map(|group| group.members());
            let member = |member: &rdkafka::groups::GroupMemberInfo| GroupMember {
                id: member.id().to_owned(),
                client: member.client_id().to_owned(),
            };
            Ok(members.map(member).collect())
        })
    }

    /// How far each of a topic's partitions has ever been written; 0 where nothing was.
    ///
    /// # Errors
    /// They cannot be asked for.
    pub fn ends(&self, topic: &str, partitions: u32) -> Result<Vec<i64>, Failure> {
        let doing = format!("look up the ends of the topic `{topic}`");
        let end = |partition| {
            self.ask(&doing, |consumer, timeout| Ok(consumer.fetch_watermarks(topic, partition, timeout)?.1))
        };
        (0..i32::try_from(partitions).unwrap_or(i32::MAX)).map(end).collect()
    }

    /// The topic as it is.
    ///
    /// # Errors
    /// It is missing, or asking failed.
    pub fn topic(&self, name: &str) -> Result<Topic, TopicError> {
        let doing = format!("look up the topic `{name}`");
        let found = self.ask(&doing, |consumer, timeout| {
            let metadata = consumer.client().fetch_metadata(Some(name), timeout)?;
            let Some(topic) = metadata.topics().iter().find(|topic| topic.name() == name) else { return Ok(None) };
            match topic.error().map(Code::from) {
                None => {}
                Some(Code::UnknownTopicOrPartition | Code::UnknownTopic) => return Ok(None),
                Some(code) => return Err(KafkaError::MetadataFetch(code)),
            }
            let replicas = topic.partitions().iter().map(|partition| partition.replicas().len()).min().unwrap_or(0);
            Ok(Some((u32::try_from(topic.partitions().len()).unwrap_or(0), replicas)))
        })?;
        let Some((partitions, replicas)) = found else { return Err(TopicError::Missing(name.to_owned())) };
        Ok(Topic { name: name.to_owned(), partitions, replicas, settings: self.settings(name) })
    }

    /// The topic, made as `create` says if it is missing.
    ///
    /// # Errors
    /// It cannot be looked up or made.
    pub fn topic_or_create(&self, name: &str, create: &CreateTopicConfig) -> Result<Topic, TopicError> {
        match self.topic(name) {
            Err(TopicError::Missing(_)) if self.is_administrable() => self.create(name, create)?,
            result => return result,
        }
        // The broker that is asked next may not have heard of it.
        let deadline = Instant::now() + ANSWER_WITHIN;
        loop {
            match self.topic(name) {
                Err(TopicError::Missing(_)) if Instant::now() < deadline => {
                    std::thread::sleep(Duration::from_millis(20));
                }
                result => return result,
            }
        }
    }

    /// As [`Cluster::topic`], for a topic of events, which is made if it is missing and may be.
    ///
    /// # Errors
    /// The same, or it would not keep what is written there.
    pub fn topic_of_events(&self, name: &str, create: Option<&CreateTopicConfig>) -> Result<Topic, TopicError> {
        let topic = match create {
            Some(create) => self.topic_or_create(name, create)?,
            None => self.topic(name)?,
        };
        if topic.setting("cleanup.policy") == Some("compact") {
            return Err(TopicError::Compacts(name.to_owned()));
        }
        Ok(topic)
    }

    /// Whether the client for administration can get in: with a token it never asks for one.
    fn is_administrable(&self) -> bool {
        !matches!(self.config.sasl, Some(SaslConfig::Token(_)))
    }

    fn create(&self, name: &str, create: &CreateTopicConfig) -> Result<(), Failure> {
        let doing = format!("create the topic `{name}`");
        let partitions = i32::try_from(create.partitions).unwrap_or(i32::MAX);
        let replication = TopicReplication::Fixed(create.replication.map_or(-1, i32::from));
        let topic = create
            .config
            .iter()
            .fold(NewTopic::new(name, partitions, replication), |topic, (name, value)| topic.set(name, value));
        let options = AdminOptions::new().operation_timeout(Some(ANSWER_WITHIN)).request_timeout(Some(ANSWER_WITHIN));
        let made = Handle::current().block_on(self.admin()?.create_topics([&topic], &options));
        match made.map(|topics| topics.into_iter().next()) {
            // Another replica was quicker.
            Ok(Some(Ok(_)) | Some(Err((_, Code::TopicAlreadyExists)))) => Ok(()),
            Ok(Some(Err((_, code)))) => Err(Failure::of(&doing, code, &code.to_string(), &self.context)),
            Ok(None) => Err(Failure::of(&doing, Code::Fail, "no answer", &self.context)),
            Err(error) => Err(Failure::new(&doing, &error, &self.context)),
        }
    }

    fn settings(&self, name: &str) -> Option<BTreeMap<String, String>> {
        if !self.is_administrable() {
            return None;
        }
        let options = AdminOptions::new().request_timeout(Some(ANSWER_WITHIN));
        let wanted = [ResourceSpecifier::Topic(name)];
        let answer = Handle::current().block_on(self.admin().ok()?.describe_configs(&wanted, &options));
        let resource = answer.ok()?.into_iter().next()?.ok()?;
        Some(resource.entries.into_iter().filter_map(|entry| Some((entry.name, entry.value?))).collect())
    }

    fn admin(&self) -> Result<&AdminClient<Context>, Failure> {
        if let Some(admin) = self.admin.get() {
            return Ok(admin);
        }
        let settings = client_config(&self.config, Purpose::Producer)?;
        let admin = AdminClient::from_config_and_context(&settings, self.context.clone())
            .map_err(|error| Failure::new("make a client", &error, &self.context))?;
        Ok(self.admin.get_or_init(|| admin))
    }

    /// Whether a producer may take this transactional id: takes it and lets go of it. Whoever has it is fenced.
    ///
    /// # Errors
    /// It may not, or asking failed.
    pub fn may_transact(&self, id: &str, properties: &[(String, String)]) -> Result<(), Failure> {
        let producer = super::Producer::new(&self.config, properties, None, Some(id))?;
        producer.begin_anew().map_err(|error| Failure::new("take part in transactions", &error, producer.context()))
    }

    /// Reads one partition from its beginning, in order, aborted records left out. It ends once `visit` says that it has
    /// found what it looked for; if there may be nothing to look for, also at the end of what is committed. Where there
    /// is, the end does not count: a broker that has just become the leader may see it too early. The client wants to
    /// know a group, though it takes no part in it.
    ///
    /// # Errors
    /// It cannot be read, or what is looked for does not come; some records may have been shown.
    pub fn read_partition(
        &self,
        group: &str,
        (topic, partition): (&str, i32),
        must_find: bool,
        visit: &mut dyn FnMut(Read<'_>) -> bool,
    ) -> Result<(), Failure> {
        let doing = format!("read the topic `{topic}`");
        let fail = |error: &KafkaError, context: &Context| Failure::new(&doing, error, context);
        let mut settings = client_config(&self.config, Purpose::Consumer)?;
        settings.set("group.id", group).set("enable.auto.commit", "false");
        settings.set("isolation.level", "read_committed").set("enable.partition.eof", "true");
        settings.set("auto.offset.reset", "earliest").set("queued.max.messages.kbytes", "4096");
        // How long it stops to fetch when so much is waiting; a whole second otherwise, however soon that is taken.
        settings.set("fetch.queue.backoff.ms", "5");
        let context = Context::new(&self.config);
        let consumer: BaseConsumer<Context> = BaseConsumer::from_config_and_context(&settings, context.clone())
            .map_err(|error| fail(&error, &context))?;
        let mut assignment = TopicPartitionList::new();
        assignment
            // A number, not `Offset::Beginning`: looking that up waits half a second for a leader that is not known yet.
            // Where the partition begins later, it is set to its beginning.
            .add_partition_offset(topic, partition, rdkafka::Offset::Offset(0))
            .and_then(|()| consumer.assign(&assignment))
            .map_err(|error| fail(&error, &context))?;
        let result = read(&consumer, must_find, visit).map_err(|error| fail(&error, &context));
        let_go(consumer);
        result
    }

    /// Asks until there is an answer, serving what the client has to say in between: its own errors, and its wish for
    /// a token.
    fn ask<T>(
        &self,
        doing: &str,
        question: impl Fn(&BaseConsumer<Context>, Duration) -> Result<T, KafkaError>,
    ) -> Result<T, Failure> {
        let deadline = Instant::now() + ANSWER_WITHIN;
        loop {
            // Nothing is consumed here, so nothing is lost.
            drop(self.consumer.poll(Duration::ZERO));
            let error = match question(&self.consumer, Duration::from_millis(1000)) {
                Ok(answer) => {
                    self.context.well();
                    return Ok(answer);
                }
                Err(error) => error,
            };
            drop(self.consumer.poll(Duration::from_millis(10)));
            let failure = Failure::new(doing, &error, &self.context);
            let lasting = matches!(failure.reason, SinkReason::Credentials | SinkReason::Refused);
            if lasting || is_lasting(&error) || Instant::now() > deadline {
                return Err(failure);
            }
        }
    }
}

/// See [`Cluster::read_partition`].
fn read(
    consumer: &BaseConsumer<Context>,
    must_find: bool,
    visit: &mut dyn FnMut(Read<'_>) -> bool,
) -> Result<(), KafkaError> {
    let mut deadline = Instant::now() + ANSWER_WITHIN * 3;
    loop {
        match consumer.poll(Duration::from_millis(200)) {
            Some(Ok(message)) => {
                if visit(Read::of(&message)) {
                    return Ok(());
                }
                deadline = Instant::now() + ANSWER_WITHIN * 3;
            }
            Some(Err(KafkaError::PartitionEOF(_))) if !must_find => return Ok(()),
            Some(Err(KafkaError::PartitionEOF(_))) | None if Instant::now() < deadline => {}
            Some(Err(error)) if is_lasting(&error) || Instant::now() >= deadline => return Err(error),
            Some(Err(_)) => {}
            None => return Err(KafkaError::MessageConsumption(Code::OperationTimedOut)),
        }
    }
}

/// A record that was read.
pub struct Read<'a> {
    /// Its offset.
    pub offset: i64,
    /// Milliseconds since the epoch.
    pub timestamp: Option<i64>,
    /// Its key.
    pub key: &'a [u8],
    /// Its value; none is a tombstone.
    pub value: Option<&'a [u8]>,
}

impl<'a> Read<'a> {
    pub(crate) fn of<M: rdkafka::Message>(message: &'a M) -> Self {
        Self {
            offset: message.offset(),
            timestamp: message.timestamp().to_millis(),
            key: message.key().unwrap_or_default(),
            value: message.payload(),
        }
    }
}

/// Asking again at once would not help.
fn is_lasting(error: &KafkaError) -> bool {
    matches!(
        error.rdkafka_error_code(),
        Some(Code::TopicAuthorizationFailed | Code::ClusterAuthorizationFailed | Code::GroupAuthorizationFailed)
    )
}
