//! A number and a text that a consumer group keeps for whoever commits transactions: an offset of a partition that
//! nobody reads by it.

use std::time::{Duration, Instant};

use rdkafka::config::FromClientConfigAndContext;
use rdkafka::consumer::{BaseConsumer, Consumer, ConsumerGroupMetadata};
use rdkafka::error::KafkaError;
use rdkafka::{Offset, TopicPartitionList};

use super::ANSWER_WITHIN;
use super::client::{Context, Purpose, client_config};
use super::failure::Failure;
use crate::config::ClusterConfig;
use crate::metrics::SinkReason;

/// Where it is kept.
pub struct Bookmark {
    group: ConsumerGroupMetadata,
    topic: String,
    partition: i32,
}

impl Bookmark {
    /// Finds it, and what it says. `None` where the right to see it is missing. Blocks.
    ///
    /// # Errors
    /// The cluster does not answer.
    #[expect(clippy::type_complexity, reason = "what it says is a number and a text, if it says anything")]
    pub fn look_up(
        cluster: &ClusterConfig,
        group: &str,
        (topic, partition): (&str, i32),
    ) -> Result<Option<(Self, Option<(i64, String)>)>, Failure> {
        let doing = format!("look up what the group `{group}` knows");
        let context = Context::new(cluster);
        let fail = |error: &KafkaError| Failure::new(&doing, error, &context);
        let mut settings = client_config(cluster, Purpose::Consumer)?;
        settings.set("group.id", group).set("enable.auto.commit", "false");
        let consumer: BaseConsumer<Context> =
            BaseConsumer::from_config_and_context(&settings, context.clone()).map_err(|error| fail(&error))?;
        let deadline = Instant::now() + ANSWER_WITHIN;
        let committed = loop {
            // Serves the client's wish for a token.
            drop(consumer.poll(Duration::ZERO));
            let mut wanted = TopicPartitionList::new();
            wanted.add_partition(topic, partition);
            let failure = match consumer.committed_offsets(wanted, Duration::from_secs(2)) {
                Ok(committed) => break committed,
                Err(error) => fail(&error),
            };
            match failure.reason {
                SinkReason::Refused => {
                    tracing::warn!("a state that is lost will not be noticed: {failure}");
                    return Ok(None);
                }
                SinkReason::Credentials => return Err(failure),
                _ if Instant::now() > deadline => return Err(failure),
                _ => {}
            }
        };
        let said = committed.elements_for_topic(topic).first().and_then(|element| match element.offset() {
            Offset::Offset(offset) => Some((offset, element.metadata().to_owned())),
            _ => None,
        });
        let group = consumer.group_metadata();
        super::topic::let_go(consumer);
        Ok(group.map(|group| (Self { group, topic: topic.to_owned(), partition }, said)))
    }

    pub(super) const fn group(&self) -> &ConsumerGroupMetadata {
        &self.group
    }

    pub(super) fn offsets(&self, offset: i64, text: &str) -> Result<TopicPartitionList, KafkaError> {
        let mut offsets = TopicPartitionList::new();
        let mut element = offsets.add_partition(&self.topic, self.partition);
        element.set_offset(Offset::Offset(offset))?;
        element.set_metadata(text);
        Ok(offsets)
    }
}
