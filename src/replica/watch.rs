//! What this replica shows of lanes that run elsewhere, or nowhere: read from the state topic as it is written.
//!
//! So any replica's metrics tell of a stream that nobody runs: its lag grows and its last commit grows old.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use rdkafka::config::FromClientConfigAndContext;
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::{Message, Offset, TopicPartitionList};

use super::Line;
use crate::admin::{LaneBoard, StreamBoard};
use crate::checkpoint::kafka::{Entry, StateTopic};
use crate::event::Millis;
use crate::kafka::{Context, Purpose, Read, client_config};
use crate::metrics::{LaneMetrics, StreamMetrics};
use crate::state::store::{LaneKey, parse_cursor};

/// Every lane of the config, by stream and sink.
#[derive(Default)]
pub struct Watched {
    /// Where each is shown.
    pub lanes: HashMap<(String, String), (LaneMetrics, LaneBoard)>,
}

/// Watches until dropped.
pub(super) struct Watch(Arc<AtomicBool>);

impl Drop for Watch {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

struct Watcher {
    topic: StateTopic,
    lanes: HashMap<(String, String), (LaneMetrics, LaneBoard)>,
    streams: HashMap<String, (StreamMetrics, StreamBoard)>,
}

impl Watched {
    /// Starts to watch, in a thread of its own. Whatever goes wrong there concerns no event.
    pub(super) fn start(self, topic: &StateTopic, lines: &[Line]) -> Watch {
        let stop = Arc::new(AtomicBool::new(false));
        let streams =
            lines.iter().map(|line| (line.stream.clone(), (line.metrics.clone(), line.board.clone()))).collect();
        let watcher = Watcher { topic: topic.clone(), lanes: self.lanes, streams };
        let stopped = Arc::clone(&stop);
        let watch = move || {
            if let Err(error) = watcher.run(&stopped) {
                tracing::warn!("what other replicas run cannot be watched: {error}");
            }
        };
        if let Err(error) = std::thread::Builder::new().name("watch".to_owned()).spawn(watch) {
            tracing::warn!("what other replicas run cannot be watched: {error}");
        }
        Watch(stop)
    }
}

impl Watcher {
    /// With a new client whenever what one was made of has been replaced and it has trouble.
    fn run(&self, stop: &AtomicBool) -> Result<(), Box<dyn std::error::Error>> {
        while !stop.load(Ordering::Relaxed) {
            self.watch(stop)?;
        }
        Ok(())
    }

    fn watch(&self, stop: &AtomicBool) -> Result<(), Box<dyn std::error::Error>> {
        let context = Context::new(&self.topic.config().cluster);
        let config = self.topic.config();
        let mut settings = client_config(&config.cluster, Purpose::Consumer)?;
        // The client wants to know a group, though it takes no part in it.
        settings.set("group.id", &config.group).set("enable.auto.commit", "false");
        settings.set("isolation.level", "read_committed").set("auto.offset.reset", "earliest");
        settings.set("queued.max.messages.kbytes", "1024").set("fetch.wait.max.ms", "1000");
        let consumer = BaseConsumer::from_config_and_context(&settings, context.clone())?;
        let mut all = TopicPartitionList::new();
        for partition in 0..i32::try_from(self.topic.partitions())? {
            all.add_partition_offset(&config.topic, partition, Offset::Beginning)?;
        }
        consumer.assign(&all)?;
        let mut looked = Instant::now();
        while !stop.load(Ordering::Relaxed) {
            if looked.elapsed() > Duration::from_secs(1) {
                looked = Instant::now();
                if context.is_outdated() {
                    break;
                }
            }
            // The client tries again by itself what failed.
            if let Some(Ok(message)) = consumer.poll(Duration::from_millis(100)) {
                self.see(message.partition(), &Read::of(&message));
            }
        }
        Ok(())
    }

    fn see(&self, partition: i32, read: &Read<'_>) {
        if let Entry::Owner(Some(owner)) = Entry::of(read) {
            for (name, (metrics, board)) in &self.streams {
                if self.topic.partition_of(name) == partition && !metrics.is_running() {
                    board.set_running(false, Some(&owner.instance));
                }
            }
            return;
        }
        let Some((lane, cursor)) = LaneKey::names(read.key).zip(read.value.and_then(|value| parse_cursor(value).ok()))
        else {
            return;
        };
        let Some((stream, board)) = self.streams.get(&lane.0).filter(|(stream, _)| !stream.is_running()) else {
            return;
        };
        let Some((metrics, lane_board)) = self.lanes.get(&lane) else { return };
        let committed: Millis = read.timestamp.unwrap_or_default();
        stream.set_read_through(cursor.live);
        board.set_read_through(cursor.live);
        metrics.set_delivered_through(cursor.delivered_through());
        metrics.set_verified_through(cursor.floor());
        metrics.set_gaps(cursor.known.gaps.len());
        metrics.committed(committed);
        lane_board.set_delivered_through(cursor.delivered_through());
        lane_board.set_verified_through(cursor.floor());
        lane_board.set_gaps(&cursor.known.gaps);
    }
}
