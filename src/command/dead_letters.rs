//! `trailcast dead-letters`: what sinks refused for good, and another try.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::sync::Arc;

use super::cursor::usage;
use super::{Answer, CommandError};
use crate::blocking::blocking;
use crate::cli::{DeadLettersArgs, DeadLettersCommand, Exit};
use crate::config::{self, CheckpointConfig, Config, DeadLettersConfig, KafkaCheckpointConfig};
use crate::dead_letter::{DeadLetter, LetterFiles, Refused};
use crate::kafka::{Cluster, Failure, Message, Producer, Read};
use crate::metrics::SinkReason;
use crate::retry::Backoff;
use crate::sink::Sink;
use crate::source::install_tls_provider;
use crate::telemetry::chain;

/// The most letters that are tried at once.
const TOGETHER: usize = 500;

/// Lists, or tries again.
///
/// # Errors
/// The config is wrong, or the letters cannot be read.
pub async fn dead_letters(command: &DeadLettersCommand) -> Result<Answer, CommandError> {
    let which = match command {
        DeadLettersCommand::List(args) => &args.which,
        DeadLettersCommand::Retry(args) => args,
    };
    let config = config::load(&which.config.config)?.config;
    let place = Arc::new(Place::of(&config)?);
    let reading = Arc::clone(&place);
    let all = blocking(move || reading.read()).await?;
    let letters: Vec<DeadLetter> = all.into_iter().filter(|letter| is_wanted(which, letter)).collect();
    match command {
        DeadLettersCommand::List(args) => Ok(Answer::done(list(&letters, args.json))),
        DeadLettersCommand::Retry(_) => retry(&config, &place, letters).await,
    }
}

fn is_wanted(which: &DeadLettersArgs, letter: &DeadLetter) -> bool {
    let fits = |wanted: &Option<String>, is: &str| wanted.as_ref().is_none_or(|wanted| wanted == is);
    fits(&which.stream, &letter.stream) && fits(&which.sink, &letter.sink) && fits(&which.reason, letter.reason.label())
}

fn list(letters: &[DeadLetter], json: bool) -> String {
    if json {
        let lines = letters.iter().map(|letter| String::from_utf8_lossy(&letter.to_json()).into_owned());
        return lines.collect::<Vec<_>>().join("\n");
    }
    if letters.is_empty() {
        return "no such dead letter".to_owned();
    }
    let mut text = String::new();
    for letter in letters {
        let DeadLetter { id, stream, sink, time, reason, message, record_bytes, .. } = letter;
        let cut = if letter.is_whole() { "" } else { ", kept in part" };
        let reason = reason.label();
        // Writing to a string cannot fail.
        let _ =
            writeln!(text, "{id} {time} {stream} to {sink}: {reason}, record of {record_bytes} bytes{cut}: {message}");
    }
    text.truncate(text.trim_end().len());
    text
}

async fn retry(config: &Config, place: &Arc<Place>, letters: Vec<DeadLetter>) -> Result<Answer, CommandError> {
    let mut by_lane: BTreeMap<(String, String), Vec<DeadLetter>> = BTreeMap::new();
    let (whole, cut): (Vec<_>, Vec<_>) = letters.into_iter().partition(DeadLetter::is_whole);
    for letter in whole {
        by_lane.entry((letter.stream.clone(), letter.sink.clone())).or_default().push(letter);
    }
    install_tls_provider();
    let mut text = String::new();
    let mut left = cut.len();
    if !cut.is_empty() {
        let _ = writeln!(text, "{} are kept in part only and cannot be tried", cut.len());
    }
    for ((stream, sink_name), letters) in by_lane {
        let Some(sink) = config.sinks.get(&sink_name) else {
            let _ = writeln!(text, "{stream} to {sink_name}: no such sink in the config, {} left", letters.len());
            left += letters.len();
            continue;
        };
        let sink = Arc::new(Sink::build(sink));
        let (mut accepted, mut refused) = (0, 0);
        for together in letters.chunks(TOGETHER) {
            let again = deliver(place, &sink, together).await?;
            accepted += together.len() - again;
            refused += again;
        }
        left += refused;
        let _ = writeln!(text, "{stream} to {sink_name}: {accepted} accepted, {refused} refused again");
    }
    text.truncate(text.trim_end().len());
    let text = if text.is_empty() { "no such dead letter".to_owned() } else { text };
    Ok(Answer { text, exit: if left == 0 { Exit::Done } else { Exit::Failed } })
}

/// Delivers letters of one lane and takes away those that are accepted; how many are refused again.
async fn deliver(place: &Arc<Place>, sink: &Arc<Sink>, letters: &[DeadLetter]) -> Result<usize, CommandError> {
    let Some((stream, _)) = letters.first().map(DeadLetter::event) else { return Ok(0) };
    let part: Vec<_> = letters.iter().map(|letter| letter.event().1).collect();
    let (place, owned) = (Arc::clone(place), letters.to_vec());
    if let (Place::Topic { checkpoint, topic }, Sink::Kafka(kafka)) = (&*place, &**sink)
        && kafka.config().exactly_once
    {
        let messages = kafka.messages(&stream, &part);
        let (checkpoint, topic) = (checkpoint.clone(), topic.clone());
        return Ok(blocking(move || transact(&checkpoint, &topic, &messages, &owned)).await?);
    }
    // As a lane: what is only too much at once passes, and what is too much alone is found out by trying.
    let mut backoff = Backoff::new();
    let refused = loop {
        match sink.deliver(&stream, &part).await {
            Ok(refused) => break refused,
            Err(error) if error.reason() == SinkReason::Throttled => {
                if error.has_progressed() {
                    backoff.reset();
                }
                tokio::time::sleep(backoff.wait(false, error.retry_after())).await;
            }
            Err(error) => return Err(chain(&error).into()),
        }
    };
    let again = refused.len();
    blocking(move || place.remove(&accepted(&owned, &refused))).await?;
    Ok(again)
}

fn accepted(letters: &[DeadLetter], refused: &[Refused]) -> Vec<DeadLetter> {
    let is_accepted = |index: usize| refused.iter().all(|refused| refused.index != index);
    letters.iter().enumerate().filter(|(index, _)| is_accepted(*index)).map(|(_, letter)| letter.clone()).collect()
}

/// Each event with its letter's tombstone in one transaction, so that neither a crash nor a second try doubles it.
fn transact(
    checkpoint: &KafkaCheckpointConfig,
    topic: &str,
    messages: &[Message],
    letters: &[DeadLetter],
) -> Result<usize, String> {
    let id = format!("{}-dead-letters", checkpoint.group);
    let producer = Producer::new(&checkpoint.cluster, &[], None, Some(&id)).map_err(|error| error.to_string())?;
    let failed = |error| Failure::new("deliver a dead letter again", &error, producer.context()).to_string();
    producer.begin_anew().map_err(failed)?;
    let mut refused = 0;
    for (message, letter) in messages.iter().zip(letters) {
        producer.begin().map_err(failed)?;
        let tombstone = tombstone(topic, letter);
        let report = producer.send(&[message.clone(), tombstone], |_| true).map_err(failed)?;
        if report.refused(&producer).map_err(|failure| failure.to_string())?.is_empty() {
            producer.commit().map_err(failed)?;
        } else {
            refused += 1;
            producer.abort().map_err(failed)?;
        }
    }
    Ok(refused)
}

fn tombstone(topic: &str, letter: &DeadLetter) -> Message {
    Message { topic: topic.into(), key: Some(letter.key()), ..Message::default() }
}

/// Where the letters are.
enum Place {
    Files(LetterFiles),
    Topic { checkpoint: Box<KafkaCheckpointConfig>, topic: String },
}

impl Place {
    fn of(config: &Config) -> Result<Self, CommandError> {
        match (&config.dead_letters, &config.checkpoint) {
            (DeadLettersConfig::Files { path, max_file_size, max_size }, _) => {
                Ok(Self::Files(LetterFiles::new(path, *max_file_size, *max_size)))
            }
            (DeadLettersConfig::Topic(topic), CheckpointConfig::Kafka(kafka)) => {
                Ok(Self::Topic { checkpoint: kafka.clone(), topic: topic.clone() })
            }
            (DeadLettersConfig::Topic(_), _) => Err(usage("dead_letters.kafka needs checkpoint.kafka")),
        }
    }

    /// Blocks.
    fn read(&self) -> Result<Vec<DeadLetter>, String> {
        match self {
            Self::Files(files) => files.read().map_err(|error| chain(&error)),
            Self::Topic { checkpoint, topic } => read_topic(checkpoint, topic),
        }
    }

    /// Blocks.
    fn remove(&self, letters: &[DeadLetter]) -> Result<(), String> {
        match self {
            Self::Files(files) => {
                let keys: std::collections::BTreeSet<_> = letters.iter().map(DeadLetter::key).collect();
                files.remove(|letter| keys.contains(&letter.key())).map_err(|error| chain(&error))
            }
            Self::Topic { checkpoint, topic } => {
                let producer =
                    Producer::new(&checkpoint.cluster, &[], None, None).map_err(|error| error.to_string())?;
                let tombstones: Vec<_> = letters.iter().map(|letter| tombstone(topic, letter)).collect();
                let report = producer.send(&tombstones, |_| true).map_err(|error| error.to_string())?;
                match report.refused(&producer).map_err(|failure| failure.to_string())?.first() {
                    None => Ok(()),
                    Some(refused) => Err(format!("the topic of dead letters: {}", refused.message)),
                }
            }
        }
    }
}

/// By key, in the order in which they were refused.
fn read_topic(checkpoint: &KafkaCheckpointConfig, topic: &str) -> Result<Vec<DeadLetter>, String> {
    let cluster = Cluster::new(&checkpoint.cluster).map_err(|error| error.to_string())?;
    let found = cluster.topic(topic).map_err(|error| chain(&error))?;
    let mut letters: BTreeMap<Vec<u8>, DeadLetter> = BTreeMap::new();
    for partition in 0..i32::try_from(found.partitions).unwrap_or(0) {
        let visit = &mut |read: Read<'_>| {
            match read.value.and_then(|value| serde_json::from_slice(value).ok()) {
                Some(letter) => drop(letters.insert(read.key.to_vec(), letter)),
                None => drop(letters.remove(read.key)),
            }
            false
        };
        cluster
            .read_partition(&checkpoint.group, (topic, partition), false, visit)
            .map_err(|error| error.to_string())?;
    }
    let mut letters: Vec<_> = letters.into_values().collect();
    letters.sort_by_key(|letter| letter.refused_at);
    Ok(letters)
}
