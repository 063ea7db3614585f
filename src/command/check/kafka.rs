//! What `trailcast check` asks of Kafka: brokers, topics, rights, and whether the topic keeps what it is to get.
//!
//! Writes nothing that stays: the right to write is proven by a record that is refused for its size.

use super::{Finding, State};
use crate::checkpoint::kafka;
use crate::config::{ClusterConfig, DeadLettersConfig, KafkaCheckpointConfig, KafkaConfig, units};
use crate::event::Millis;
use crate::kafka::{Cluster, Failure, Message, Producer, Topic, TopicError};
use crate::sink::deleted_at_once;
use crate::version;
use crate::words::{chain, counted};

/// The largest record that is made up to be refused.
const LARGEST_PROBE: u64 = 16 << 20;
/// A topic that takes less than this makes dead letters of ordinary events.
const SMALL: u64 = 64 << 10;

/// Of a sink into which a stream goes that begins `age` ago. Blocks.
pub(super) fn sink(name: &str, config: &KafkaConfig, age: Millis) -> Vec<Finding> {
    let found = Findings(format!("sinks.{name}"));
    let (cluster, brokers) = match found.reach(&config.cluster) {
        Ok(reached) => reached,
        Err(failure) => return vec![found.failed(&failure)],
    };
    let mut findings = vec![brokers];
    let topic = match (cluster.topic_of_events(&config.topic, None), &config.create) {
        (Ok(topic), _) => topic,
        (Err(TopicError::Missing(topic)), Some(create)) => {
            let message =
                format!("the topic `{topic}` is missing and will be made, with {} partitions", create.partitions);
            findings.push(found.ok(message));
            return findings;
        }
        (Err(error), _) => {
            findings.push(found.failed(&error));
            return findings;
        }
    };
    findings.push(found.topic(&topic));
    findings.extend(topic.forgets().into_iter().map(|doubt| found.finding(State::Warning, doubt)));
    findings.extend(deleted_at_once(&topic, age).map(|doubt| found.finding(State::Warning, doubt)));
    findings.push(found.may_write(&config.cluster, &topic));
    findings
}

/// Of the state topic and the group. Blocks.
pub(super) fn checkpoint(config: &KafkaCheckpointConfig, letters: &DeadLettersConfig) -> Vec<Finding> {
    let found = Findings("checkpoint".to_owned());
    let (cluster, brokers) = match found.reach(&config.cluster) {
        Ok(reached) => reached,
        Err(failure) => return vec![found.failed(&failure)],
    };
    let mut findings = vec![brokers];
    let mut names = vec![&config.topic];
    if let DeadLettersConfig::Topic(name) = letters {
        names.push(name);
    }
    for name in names {
        match cluster.topic(name) {
            Ok(topic) if *name == config.topic => findings.push(match kafka::check(&topic) {
                Ok(()) => found.topic(&topic),
                Err(error) => found.failed(&error),
            }),
            Ok(topic) => findings.push(found.topic(&topic)),
            Err(TopicError::Missing(name)) => {
                findings.push(found.ok(format!("the topic `{name}` is missing and will be made")));
            }
            Err(error) => findings.push(found.failed(&error)),
        }
    }
    findings.push(match cluster.members(&config.group) {
        Ok(members) if members.is_empty() => found.ok(format!("nobody is in the group `{}`", config.group)),
        Ok(members) => {
            let ids: Vec<_> = members.iter().map(|member| member.id.as_str()).collect();
            found.ok(format!("in the group `{}`: {}", config.group, ids.join(", ")))
        }
        Err(failure) => found.failed(&failure),
    });
    // As a run looks at it when it takes a partition: what was kept there before must still be there.
    findings.push(match kafka::KafkaStore::look(config, letters.topic()) {
        Ok(partitions) => found.ok(format!("the state of {} is what was kept there", counted(partitions, "partition"))),
        Err(error) => found.failed(&error),
    });
    // A name of its own, so that no replica is fenced for it.
    let id = format!("{}-check", config.group);
    findings.push(match cluster.may_transact(&id, &config.transaction_properties()) {
        Ok(()) => found.ok(format!("may make transactions as `{id}`")),
        Err(failure) => found.failed(&failure),
    });
    findings
}

/// Findings of one part.
struct Findings(String);

impl Findings {
    fn finding(&self, state: State, message: String) -> Finding {
        Finding { part: self.0.clone(), state, message }
    }

    fn ok(&self, message: String) -> Finding {
        self.finding(State::Ok, message)
    }

    fn failed(&self, error: &dyn std::error::Error) -> Finding {
        self.finding(State::Failed, chain(error))
    }

    fn reach(&self, cluster: &ClusterConfig) -> Result<(Cluster, Finding), Failure> {
        let cluster = Cluster::new(cluster)?;
        let (brokers, id) = cluster.brokers()?;
        let id = id.map(|id| format!(" of the cluster {id}")).unwrap_or_default();
        let answer = if brokers == 1 { "answers" } else { "answer" };
        let brokers = counted(brokers, "broker");
        let message = format!("{brokers}{id} {answer} librdkafka {}", version::librdkafka());
        Ok((cluster, self.ok(message)))
    }

    fn topic(&self, topic: &Topic) -> Finding {
        let Topic { name, partitions, replicas, .. } = topic;
        let (partitions, replicas) = (counted(partitions, "partition"), counted(replicas, "replica"));
        let what = format!("the topic `{name}` has {partitions}, {replicas}");
        let Some(largest) = topic.largest() else {
            return self.finding(State::Warning, format!("{what}; its settings cannot be seen (DescribeConfigs)"));
        };
        let size = units::size_text(largest);
        let setting = |name| topic.setting(name).unwrap_or("?");
        if largest < SMALL {
            let doubt = format!("{what}; it takes records of up to {size} bytes: larger events become dead letters");
            return self.finding(State::Warning, doubt);
        }
        let (policy, in_sync) = (setting("cleanup.policy"), setting("min.insync.replicas"));
        self.ok(format!("{what}, {in_sync} of them in sync to write; {policy}; records of up to {size} bytes"))
    }

    /// A broker looks at the right before it looks at the size.
    fn may_write(&self, cluster: &ClusterConfig, topic: &Topic) -> Finding {
        let Some(largest) = topic.largest().filter(|largest| *largest <= LARGEST_PROBE) else {
            return self
                .finding(State::Warning, "whether it may write is not checked: records may be very large".into());
        };
        let probe = || -> Result<bool, Failure> {
            let producer = Producer::new(cluster, &[("compression.type".into(), "none".into())], None, None)?;
            let value = vec![0; usize::try_from(largest).unwrap_or(usize::MAX)];
            let message = Message { topic: topic.name.as_str().into(), value: Some(value), ..Message::default() };
            let report = producer
                .send(&[message], |_| true)
                .map_err(|error| Failure::new("send", &error, producer.context()))?;
            Ok(!report.refused(&producer)?.is_empty())
        };
        match probe() {
            Ok(true) => self.ok(format!("may write to `{}`", topic.name)),
            Ok(false) => self.finding(State::Warning, "a record that was to be refused for its size was taken".into()),
            Err(failure) => self.failed(&failure),
        }
    }
}
