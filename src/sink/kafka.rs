//! A Kafka topic: one record an event.
//!
//! The value is the event in its format; the head of a [CloudEvent] in binary mode is in the headers. On its own the
//! sink delivers at least once, with an idempotent producer and acknowledgements of all replicas in sync. Where it is
//! exactly once, the lane hands [`KafkaSink::messages`] to the checkpoint, which sends them in the transaction that
//! moves the cursor.
//!
//! [CloudEvent]: https://github.com/cloudevents/spec/blob/main/cloudevents/bindings/kafka-protocol-binding.md

use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::Duration;

use super::SinkError;
use crate::blocking::blocking;
use crate::config::{KafkaConfig, Key, units};
use crate::dead_letter::{DeadLetterReason, Refused};
use crate::encode::{self, Format, event_name};
use crate::event::{Millis, StreamContext};
use crate::kafka::{Cluster, Failure, Message, Producer, Topic};
use crate::normalize::{Event, normalize};
use crate::record::time::Rfc3339;
use crate::state::admit::New;

/// See the module.
pub struct KafkaSink {
    config: Arc<KafkaConfig>,
    topic: Arc<str>,
    found: OnceLock<Topic>,
    /// Made when first needed, and anew after it has failed for good.
    producer: Mutex<Option<Arc<Producer>>>,
}

impl KafkaSink {
    /// Asks nobody.
    #[must_use]
    pub fn new(config: KafkaConfig) -> Self {
        let topic = config.topic.as_str().into();
        Self { topic, config: Arc::new(config), found: OnceLock::new(), producer: Mutex::default() }
    }

    /// Its config.
    #[must_use]
    pub fn config(&self) -> &KafkaConfig {
        &self.config
    }

    /// The topic as it was when it was first found; looks it up, and makes it if it may, until it is.
    ///
    /// # Errors
    /// It is not there, or cannot be looked up.
    pub async fn look_up(&self) -> Result<&Topic, SinkError> {
        if let Some(topic) = self.found.get() {
            return Ok(topic);
        }
        let config = Arc::clone(&self.config);
        let topic =
            blocking(move || Cluster::new(&config.cluster)?.topic_of_events(&config.topic, config.create.as_ref()))
                .await?;
        if self.found.get().is_none() {
            topic.forgets().iter().for_each(|doubt| tracing::warn!("{doubt}"));
        }
        tracing::debug!(topic = topic.name, partitions = topic.partitions, "found");
        Ok(self.found.get_or_init(|| topic))
    }

    /// As [`super::Sink::deliver`].
    ///
    /// # Errors
    /// See [`SinkError`].
    pub async fn deliver(&self, stream: &StreamContext, part: &[New]) -> Result<Vec<Refused>, SinkError> {
        if part.is_empty() {
            return Ok(Vec::new());
        }
        let producer = self.producer().await?;
        let messages = self.messages(stream, part);
        let sending = Arc::clone(&producer);
        let result = blocking(move || send(&sending, &messages)).await;
        if producer.fatal().is_some() || result.is_err() && producer.context().is_outdated() {
            // It will send nothing more; the next try makes another.
            self.kept().take_if(|kept| Arc::ptr_eq(kept, &producer));
        }
        Ok(result?)
    }

    /// The events as records, one each, in order.
    #[must_use]
    pub fn messages(&self, stream: &StreamContext, part: &[New]) -> Vec<Message> {
        part.iter().map(|new| self.message(&normalize(stream, &new.admitted))).collect()
    }

    /// Those of `messages` that no try would deliver, where that is known without one: it is not before the topic has
    /// been looked up, nor where compression may yet make them fit.
    #[must_use]
    pub fn surely_too_large(&self, messages: &[Message]) -> Vec<Refused> {
        let Some(largest) = self.found.get().and_then(Topic::largest).filter(|_| !self.is_compressed()) else {
            return Vec::new();
        };
        let too_large = |(index, message): (usize, &Message)| {
            let message = (message.size() as u64 > largest)
                .then(|| format!("{} bytes where the topic's max.message.bytes is {largest}", message.size()))?;
            Some(Refused { index, reason: DeadLetterReason::TooLarge, message })
        };
        messages.iter().enumerate().filter_map(too_large).collect()
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
        if let Some(producer) = &*self.kept() {
            return Ok(Arc::clone(producer));
        }
        let config = Arc::clone(&self.config);
        let producer = Arc::new(blocking(move || Producer::new(&config.cluster, &[], largest, None)).await?);
        // Of several lanes that came at once, the last one's is kept.
        *self.kept() = Some(Arc::clone(&producer));
        Ok(producer)
    }

    /// What is kept is whole at every moment.
    fn kept(&self) -> std::sync::MutexGuard<'_, Option<Arc<Producer>>> {
        self.producer.lock().unwrap_or_else(PoisonError::into_inner)
    }
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

/// Sends all and finds out which are refused for good. Records in one batch share its fate, so what was refused
/// together is sent again one by one: only what is refused alone is refused.
fn send(producer: &Producer, messages: &[Message]) -> Result<Vec<Refused>, Failure> {
    let fail = |error| Failure::new("send", &error, producer.context());
    let first = producer.send(messages, |_| true).map_err(fail)?;
    let suspects = first.refused(producer)?;
    let mut refused = Vec::new();
    for suspect in suspects {
        let alone = producer.send(messages, |index| index == suspect.index).map_err(fail)?;
        refused.extend(alone.refused(producer)?);
    }
    Ok(refused)
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
