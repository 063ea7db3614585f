//! A Kafka topic: one record an event.
//!
//! The value is the event in its format; the head of a [CloudEvent] in binary mode is in the headers. On its own the
//! sink delivers at least once, with an idempotent producer and acknowledgements of all replicas in sync. Where it is
//! exactly once, the lane hands [`KafkaSink::messages`] to the checkpoint, which sends them in the transaction that
//! moves the cursor.
//!
//! [CloudEvent]: https://github.com/cloudevents/spec/blob/main/cloudevents/bindings/kafka-protocol-binding.md

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use rdkafka::error::KafkaError;

use super::SinkError;
use crate::blocking::blocking;
use crate::config::{KafkaConfig, Key, units};
use crate::dead_letter::{DeadLetterReason, Refused};
use crate::encode::{self, Format, event_name};
use crate::event::{EventId, Millis, StreamContext};
use crate::kafka::{Cluster, Failure, Message, Producer, Sending, Topic, TopicError};
use crate::normalize::{Event, normalize};
use crate::record::time::Rfc3339;
use crate::state::admit::New;

/// See the module.
pub struct KafkaSink {
    config: Arc<KafkaConfig>,
    topic: Arc<str>,
    /// How the topic was when it was last looked up; or why that failed.
    found: Mutex<Option<Found>>,
    /// One at a time asks the brokers; the others take what it is told.
    asking: tokio::sync::Mutex<()>,
    /// Made when first needed, and anew after it has failed for good, or once the topic's limit has changed.
    producer: Mutex<Option<Made>>,
    /// One lane at a time fills the client's queue: while that is full, the others wait without a thread each.
    filling: tokio::sync::Mutex<()>,
    /// Sends one message at a time, whoever asks: so each is alone in its batch.
    alone: tokio::sync::Mutex<Option<Arc<Producer>>>,
    /// By stream: the part that its lane tries, if it was not delivered at once.
    tried: Mutex<HashMap<String, Tried>>,
}

#[derive(Clone)]
struct Found {
    at: Instant,
    topic: Result<Arc<Topic>, TopicError>,
}

#[derive(Clone)]
struct Made {
    producer: Arc<Producer>,
    largest: Option<u64>,
}

/// What is known of a part.
struct Tried {
    /// Its events.
    ids: Vec<EventId>,
    /// Which of them are acknowledged.
    acknowledged: Vec<bool>,
    refused: Vec<Refused>,
}

/// A limit that was looked up before is looked up again before an event is refused for it.
const FRESH: Duration = Duration::from_secs(5);
/// Lanes that asked while it was being found out that there is no answer are told the same.
const SAME_FAILURE: Duration = Duration::from_secs(1);

impl KafkaSink {
    /// Asks nobody.
    #[must_use]
    pub fn new(config: KafkaConfig) -> Self {
        Self {
            topic: config.topic.as_str().into(),
            config: Arc::new(config),
            found: Mutex::default(),
            asking: tokio::sync::Mutex::default(),
            producer: Mutex::default(),
            filling: tokio::sync::Mutex::default(),
            alone: tokio::sync::Mutex::default(),
            tried: Mutex::default(),
        }
    }

    /// Its config.
    #[must_use]
    pub fn config(&self) -> &KafkaConfig {
        &self.config
    }

    /// The topic as it was when it was last looked up; looks it up, and makes it if it may, until it is there.
    ///
    /// # Errors
    /// It is not there, or cannot be looked up.
    pub async fn look_up(&self) -> Result<Arc<Topic>, SinkError> {
        self.look_up_within(Duration::MAX).await
    }

    /// The same, as it was `fresh` ago at most: its limits may be changed at any time.
    async fn look_up_within(&self, fresh: Duration) -> Result<Arc<Topic>, SinkError> {
        let kept = |since: Option<Instant>| {
            let found = lock(&self.found).clone()?;
            let is_fresh = match found.topic {
                Ok(_) => found.at.elapsed() < fresh,
                Err(_) => since.is_some_and(|since| found.at > since) && found.at.elapsed() < SAME_FAILURE,
            };
            is_fresh.then_some(found.topic)
        };
        if let Some(Ok(topic)) = kept(None) {
            return Ok(topic);
        }
        let asked = Instant::now();
        let _turn = self.asking.lock().await;
        if let Some(found) = kept(Some(asked)) {
            return Ok(found?);
        }
        let config = Arc::clone(&self.config);
        let topic =
            blocking(move || Cluster::new(&config.cluster)?.topic_of_events(&config.topic, config.create.as_ref()))
                .await;
        if let Ok(topic) = &topic {
            if lock(&self.found).as_ref().is_none_or(|found| found.topic.is_err()) {
                topic.forgets().iter().for_each(|doubt| tracing::warn!("{doubt}"));
            }
            tracing::debug!(topic = topic.name, partitions = topic.partitions, largest = topic.largest(), "found");
        }
        let topic = topic.map(Arc::new);
        *lock(&self.found) = Some(Found { at: Instant::now(), topic: topic.clone() });
        Ok(topic?)
    }

    /// As [`super::Sink::deliver`]. What is acknowledged of a part that failed is not sent again with it.
    ///
    /// # Errors
    /// See [`SinkError`].
    pub async fn deliver(&self, stream: &StreamContext, part: &[New]) -> Result<Vec<Refused>, SinkError> {
        if part.is_empty() {
            return Ok(Vec::new());
        }
        let ids: Vec<EventId> = part.iter().map(|new| new.admitted.id).collect();
        let before = lock(&self.tried).remove(&stream.name).filter(|tried| tried.ids == ids);
        let new = || Tried { acknowledged: vec![false; part.len()], ids, refused: Vec::new() };
        let mut tried = before.unwrap_or_else(new);
        let messages = Arc::new(self.messages(stream, part));
        let result = self.send(&messages, &mut tried).await;
        match result {
            Ok(()) => {
                tried.refused.sort_by_key(|refused| refused.index);
                Ok(tried.refused)
            }
            Err(error) => {
                lock(&self.tried).insert(stream.name.clone(), tried);
                Err(error)
            }
        }
    }

    /// Sends what is not acknowledged yet, and finds out which are refused for good. Records in one batch share its fate,
    /// so what was refused together is sent again one by one: only what is refused alone is refused.
    async fn send(&self, messages: &Arc<Vec<Message>>, tried: &mut Tried) -> Result<(), SinkError> {
        let producer = self.producer().await?;
        let is_refused = |tried: &Tried, index: usize| tried.refused.iter().any(|refused| refused.index == index);
        let open: Vec<bool> = (0..messages.len()).map(|at| !tried.acknowledged[at] && !is_refused(tried, at)).collect();
        let report = match self.enqueue(&producer, messages, open.clone()).await {
            Ok(sending) => Ok(producer.answered(&sending).await),
            Err(error) => Err(error),
        };
        let outdated = || producer.context().is_outdated();
        let failed = report.as_ref().map_or(true, |report| report.failed().next().is_some());
        if producer.fatal().is_some() || failed && outdated() {
            // It will send nothing more; the next try makes another.
            lock(&self.producer).take_if(|made| Arc::ptr_eq(&made.producer, &producer));
        }
        let report = report.map_err(|error| Failure::new("send", &error, producer.context()))?;
        let failed: Vec<usize> = report.failed().collect();
        let acknowledged = (0..messages.len()).filter(|at| open[*at] && !failed.contains(at));
        acknowledged.for_each(|at| tried.acknowledged[at] = true);
        for suspect in report.refused(&producer)? {
            let refused = self.send_alone(messages, suspect.index).await?;
            tried.acknowledged[suspect.index] = refused.is_none();
            tried.refused.extend(refused);
        }
        Ok(())
    }

    async fn enqueue(
        &self,
        producer: &Arc<Producer>,
        messages: &Arc<Vec<Message>>,
        wanted: Vec<bool>,
    ) -> Result<Sending, KafkaError> {
        let _turn = self.filling.lock().await;
        let (producer, all) = (Arc::clone(producer), Arc::clone(messages));
        blocking(move || {
            let sending = Sending::default();
            producer.enqueue(&all, |index| wanted[index], 0, &sending)?;
            Ok(sending)
        })
        .await
    }

    /// Sends one message in a batch of its own, whatever other lanes send meanwhile.
    async fn send_alone(&self, messages: &Arc<Vec<Message>>, index: usize) -> Result<Option<Refused>, SinkError> {
        // The limit may have been changed: then the other lanes' batches are to be smaller, too.
        let largest = self.look_up_within(FRESH).await?.largest();
        lock(&self.producer).take_if(|made| made.largest != largest);
        let mut kept = self.alone.lock().await;
        let producer = match kept.take() {
            Some(producer) if producer.fatal().is_none() => producer,
            _ => self.make(largest).await?,
        };
        *kept = Some(Arc::clone(&producer));
        let (sending, all) = (Arc::clone(&producer), Arc::clone(messages));
        let report = blocking(move || sending.send(&all, |other| other == index)).await;
        let report = report.map_err(|error| Failure::new("send", &error, producer.context()))?;
        Ok(report.refused(&producer)?.pop())
    }

    /// The events as records, one each, in order.
    #[must_use]
    pub fn messages(&self, stream: &StreamContext, part: &[New]) -> Vec<Message> {
        part.iter().map(|new| self.message(&normalize(stream, &new.admitted))).collect()
    }

    /// Those of `messages` that no try would deliver, where that is known without one: not where compression may yet make
    /// them fit. The limit is looked up again before any is refused for it.
    ///
    /// # Errors
    /// It cannot be looked up.
    pub async fn surely_too_large(&self, messages: &[Message]) -> Result<Vec<Refused>, SinkError> {
        let sure = |topic: Arc<Topic>| {
            let Some(largest) = topic.largest().filter(|_| !self.is_compressed()) else { return Vec::new() };
            let too_large = |(index, message): (usize, &Message)| {
                let size = message.size();
                let message = (size as u64 > largest)
                    .then(|| format!("{size} bytes where the topic's max.message.bytes is {largest}"))?;
                Some(Refused { index, reason: DeadLetterReason::TooLarge, sent: false, message })
            };
            messages.iter().enumerate().filter_map(too_large).collect()
        };
        let by_what_is_known = sure(self.look_up().await?);
        if by_what_is_known.is_empty() { Ok(by_what_is_known) } else { Ok(sure(self.look_up_within(FRESH).await?)) }
    }

    /// What of messages may be under way at once, if a producer's batches of up to `batch` bytes may be larger than the
    /// topic takes, as far as is known.
    #[must_use]
    pub fn flight(&self, batch: usize) -> Option<usize> {
        let topic = lock(&self.found).as_ref()?.topic.clone().ok()?;
        usize::try_from(topic.largest()?).ok().filter(|largest| *largest < batch)
    }

    /// The same after a batch was refused, by what the topic takes now; one message at a time where that cannot be known.
    pub async fn flight_now(&self, batch: usize) -> Option<usize> {
        match self.look_up_within(FRESH).await.ok().and_then(|topic| topic.largest()) {
            Some(_) => self.flight(batch),
            None => Some(0),
        }
    }

    fn is_compressed(&self) -> bool {
        let codec = |name: &str| self.config.cluster.properties.get(name).is_some_and(|codec| codec != "none");
        codec("compression.type") || codec("compression.codec")
    }

    fn message(&self, event: &Event<'_>) -> Message {
        let mut value = Vec::with_capacity(event.raw.len() * 2 + 512);
        encode::encode(self.config.format, self.config.raw, event, &mut value);
        let key = match self.config.key {
            Key::Actor => event.user.handle().map(|handle| handle.as_bytes().to_vec()),
            Key::Id => Some(event.id.to_string().into_bytes()),
            Key::Stream => Some(event.stream.name.clone().into_bytes()),
            Key::None => None,
        };
        Message {
            topic: Arc::clone(&self.topic),
            partition: None,
            key,
            value: Some(value),
            headers: headers(event, self.config.format),
            timestamp: Some(event.time),
        }
    }

    async fn producer(&self) -> Result<Arc<Producer>, SinkError> {
        let largest = self.look_up().await?.largest();
        let _turn = self.asking.lock().await;
        if let Some(made) = lock(&self.producer).clone() {
            return Ok(made.producer);
        }
        let producer = self.make(largest).await?;
        *lock(&self.producer) = Some(Made { producer: Arc::clone(&producer), largest });
        Ok(producer)
    }

    async fn make(&self, largest: Option<u64>) -> Result<Arc<Producer>, SinkError> {
        let config = Arc::clone(&self.config);
        Ok(Arc::new(blocking(move || Producer::new(&config.cluster, &[], largest, None)).await?))
    }
}

/// What is kept is whole at every moment.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// What becomes of events that are `age` old, or older, if `topic` does not keep them.
#[must_use]
pub fn deleted_at_once(topic: &Topic, age: Millis) -> Option<String> {
    // What Kafka itself writes down as the time of appending ages from then on.
    if topic.setting("message.timestamp.type") == Some("LogAppendTime") {
        return None;
    }
    let name = &topic.name;
    let text = |millis: i64| units::duration_text(Duration::from_millis(millis.unsigned_abs()));
    let within = |setting| topic.number(setting).filter(|limit| (0..age).contains(limit));
    if let Some(limit) = within("message.timestamp.before.max.ms") {
        return Some(format!(
            "the topic `{name}` refuses records older than {} (message.timestamp.before.max.ms={limit}): older events \
             become dead letters; raise it, or begin later with `start`",
            text(limit)
        ));
    }
    let deletes = topic.setting("cleanup.policy").is_some_and(|policy| policy.contains("delete"));
    let limit = within("retention.ms").filter(|_| deletes)?;
    Some(format!(
        "the topic `{name}` deletes events older than {} as soon as they are written, and `start` reaches further back: \
         raise its retention.ms (now {limit}; for example `kafka-configs.sh --bootstrap-server … --alter --topic {name} \
         --add-config retention.ms=-1`), set message.timestamp.type=LogAppendTime, or begin later with `start`",
        text(limit)
    ))
}

/// The CloudEvent's attributes, and ours.
fn headers(event: &Event<'_>, format: Format) -> Vec<(&'static str, String)> {
    let identity = &event.stream.identity;
    vec![
        ("ce_specversion", "1.0".to_owned()),
        ("ce_id", event.id.to_string()),
        ("ce_source", format!("/{}/{}", identity.source, uri_segment(&identity.tenant))),
        ("ce_type", event_name(event).into_owned()),
        ("ce_time", Rfc3339(event.time).to_string()),
        ("content-type", format.content_type().to_owned()),
        ("trailcast_stream", event.stream.name.clone()),
        ("trailcast_late", event.late.to_string()),
    ]
}

/// A tenant is text from a config; `ce_source` is a URI reference.
fn uri_segment(text: &str) -> String {
    let mut segment = String::with_capacity(text.len());
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) {
            segment.push(char::from(byte));
        } else {
            segment += &format!("%{byte:02X}");
        }
    }
    segment
}

#[cfg(test)]
#[path = "kafka_tests.rs"]
mod tests;
