//! Another try for dead letters: each lane's on its own, a few hundred at once, and a line for each at the end.
//!
//! Letters are read while they are delivered, so few are held. Exactly once, events and the tombstones of their letters go
//! into one transaction; elsewhere what is accepted is taken away right after.

use std::collections::{BTreeMap, HashSet};
use std::fmt::Write as _;
use std::ops::ControlFlow;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::sync::mpsc;

use super::super::cursor::usage;
use super::super::{Answer, CommandError};
use super::place::{Dealing, LetterTopic, Place, Told};
use super::{is_wanted, none};
use crate::blocking::blocking;
use crate::cli::{DeadLettersRetryArgs, Exit};
use crate::config::Config;
use crate::dead_letter::{DeadLetter, Refused};
use crate::event::StreamContext;
use crate::kafka::{Failure, Message, Producer};
use crate::metrics::SinkReason;
use crate::retry::Backoff;
use crate::sink::Sink;
use crate::source::install_tls_provider;
use crate::state::admit::New;
use crate::words::chain;

/// The most letters that are tried at once, and about the most bytes of their records.
const TOGETHER: usize = 500;
const BYTES: usize = 4 << 20;
/// How long a sink that gets nowhere is waited for.
const PATIENCE: Duration = Duration::from_secs(300);

/// The letters of one stream that one sink refused.
struct Lane {
    /// Of the sink that they go to; none if the config has none of the name.
    sink: Option<Arc<Sink>>,
    letters: Vec<(Told, DeadLetter)>,
    bytes: usize,
    accepted: usize,
    refused: usize,
    /// What was said of the first that was refused again.
    said: Option<String>,
    left: usize,
    /// Why; no more is tried then.
    why: Option<String>,
}

pub(super) async fn retry(
    config: &Config,
    place: Arc<Place>,
    args: &DeadLettersRetryArgs,
) -> Result<Answer, CommandError> {
    if let Some(to) = args.to.as_ref().filter(|to| !config.sinks.contains_key(*to)) {
        let names: Vec<&str> = config.sinks.keys().map(String::as_str).collect();
        return Err(usage(&format!("--to {to}: no such sink in the config; it has {}", names.join(", "))));
    }
    install_tls_provider();
    let dealt = Arc::clone(&place);
    let Some(dealing) = blocking(move || dealt.deal()).await? else { return Ok(Answer::done(none(&args.which))) };
    let mut run =
        Run { dealing: Some(dealing), lanes: BTreeMap::new(), tried: HashSet::new(), cut: 0, sinks: BTreeMap::new() };
    let (show, mut shown) = mpsc::channel(16);
    let which = args.which.clone();
    let reading = tokio::task::spawn_blocking(move || {
        place.visit(&mut |at, letter| {
            if !is_wanted(&which, &letter) {
                return ControlFlow::Continue(());
            }
            match show.blocking_send((Told::of(at, &letter), letter)) {
                Ok(()) => ControlFlow::Continue(()),
                Err(_) => ControlFlow::Break(()),
            }
        })
    });
    let mut lost = None;
    while let Some((told, letter)) = shown.recv().await {
        if let Err(error) = run.take(config, args.to.as_deref(), told, letter).await {
            lost = Some(error);
            break;
        }
    }
    drop(shown);
    let read = reading.await.map_err(|error| error.to_string())?;
    if lost.is_none() {
        lost = run.finish().await.err();
    }
    if let Some(dealing) = run.dealing.take() {
        blocking(move || dealing.end()).await?;
    }
    let mut answer = run.answer(none(&args.which));
    // What went before is told all the same.
    if let Some(error) = lost.or(read.err()) {
        let _ = write!(answer.text, "\nended early, what is not named above is left: {error}");
        answer.exit = Exit::Failed;
    }
    Ok(answer)
}

struct Run {
    dealing: Option<Dealing>,
    lanes: BTreeMap<(String, String), Lane>,
    sinks: BTreeMap<String, Arc<Sink>>,
    /// Keys of letters that were tried: a letter may be kept twice, and its event is delivered once.
    tried: HashSet<[u8; 16]>,
    cut: usize,
}

impl Run {
    /// Takes a letter on, and delivers when there are enough. An error says that dealing with letters is over.
    async fn take(&mut self, config: &Config, to: Option<&str>, told: Told, letter: DeadLetter) -> Result<(), String> {
        if !letter.is_whole() {
            self.cut += 1;
            return Ok(());
        }
        let mut key = [0; 16];
        key.copy_from_slice(&blake3::hash(told.key()).as_bytes()[..16]);
        if !self.tried.insert(key) {
            // Its fate is its twin's; if that was accepted, the next try finds it and nothing else.
            return Ok(());
        }
        let target = to.unwrap_or(&letter.sink).to_owned();
        let of = (letter.stream.clone(), letter.sink.clone());
        if !self.lanes.contains_key(&of) {
            let sink = match (self.sinks.get(&target), config.sinks.get(&target)) {
                (Some(sink), _) => Some(Arc::clone(sink)),
                (None, Some(sink)) => Some(Arc::new(Sink::build(sink))),
                (None, None) => None,
            };
            if let Some(sink) = &sink {
                self.sinks.insert(target.clone(), Arc::clone(sink));
            }
            let advice = "no such sink in the config; `--to SINK` delivers them to another, `trailcast dead-letters drop` \
                          takes them away";
            let why = sink.is_none().then(|| advice.to_owned());
            let lane = Lane { sink, letters: Vec::new(), bytes: 0, accepted: 0, refused: 0, said: None, left: 0, why };
            self.lanes.insert(of.clone(), lane);
        }
        let Some(lane) = self.lanes.get_mut(&of) else { return Ok(()) };
        if lane.why.is_some() {
            lane.left += 1;
            return Ok(());
        }
        lane.bytes += letter.record.len();
        lane.letters.push((told, letter));
        if lane.letters.len() < TOGETHER && lane.bytes < BYTES {
            return Ok(());
        }
        self.deliver(&of).await
    }

    async fn finish(&mut self) -> Result<(), String> {
        let all: Vec<_> = self.lanes.keys().cloned().collect();
        for of in all {
            self.deliver(&of).await?;
        }
        Ok(())
    }

    /// Delivers what a lane has, and takes away what is accepted.
    async fn deliver(&mut self, of: &(String, String)) -> Result<(), String> {
        let Some(lane) = self.lanes.get_mut(of).filter(|lane| !lane.letters.is_empty()) else { return Ok(()) };
        let (told, letters): (Vec<Told>, Vec<DeadLetter>) = std::mem::take(&mut lane.letters).into_iter().unzip();
        lane.bytes = 0;
        let (count, stream) = (told.len(), letters[0].event().0);
        let part: Vec<New> = letters.iter().map(|letter| letter.event().1).collect();
        drop(letters);
        let (Some(sink), Some(dealing)) = (lane.sink.clone(), self.dealing.take()) else {
            lane.left += count;
            return Ok(());
        };
        let (outcome, dealing) = match (dealing, &*sink) {
            (Dealing::Topic(topic, producer), Sink::Kafka(kafka)) if kafka.config().exactly_once => {
                let messages = kafka.messages(&stream, &part);
                match kafka.surely_too_large(&messages).await {
                    Ok(refused) => {
                        let flight = kafka.flight_now(producer.batch()).await.unwrap_or(producer.batch());
                        let work = Transactions { topic, producer, messages, told, flight };
                        blocking(move || work.run(refused)).await
                    }
                    Err(error) => (Outcome::failed(chain(&error)), Some(Dealing::Topic(topic, producer))),
                }
            }
            (mut dealing, sink) => match patiently(sink, &stream, &part).await {
                Ok(refused) => {
                    let is_accepted = |index: usize| refused.iter().all(|refused| refused.index != index);
                    let accepted = told.into_iter().enumerate().filter(|(index, _)| is_accepted(*index));
                    let accepted: Vec<Told> = accepted.map(|(_, told)| told).collect();
                    let outcome = Outcome { accepted: accepted.len(), refused, why: None };
                    match blocking(move || (dealing.done(&accepted), dealing)).await {
                        (Ok(()), dealing) => (outcome, Some(dealing)),
                        // What was accepted comes again with the next try, with the same ids.
                        (Err(why), _) => (Outcome { why: Some(why), ..outcome }, None),
                    }
                }
                Err(why) => (Outcome::failed(why), Some(dealing)),
            },
        };
        self.dealing = dealing;
        lane.accepted += outcome.accepted;
        lane.refused += outcome.refused.len();
        lane.left += count - outcome.accepted - outcome.refused.len();
        lane.said = lane.said.take().or(outcome.refused.into_iter().next().map(|refused| refused.message));
        match (&self.dealing, outcome.why) {
            (None, why) => Err(why.unwrap_or_default()),
            (Some(_), None) => Ok(()),
            (Some(_), why) => {
                lane.why = why;
                Ok(())
            }
        }
    }

    /// A line for each lane.
    fn answer(self, none: String) -> Answer {
        let mut text = String::new();
        let mut left = self.cut;
        for ((stream, sink), lane) in &self.lanes {
            left += lane.refused + lane.left;
            // Writing to a string cannot fail.
            let _ = write!(text, "{stream} to {sink}: {} accepted, {} refused again", lane.accepted, lane.refused);
            if let Some(said) = &lane.said {
                let _ = write!(text, " ({said})");
            }
            if lane.left > 0 || lane.why.is_some() {
                let _ = write!(text, ", {} left: {}", lane.left, lane.why.as_deref().unwrap_or("not tried"));
            }
            text.push('\n');
        }
        if self.cut > 0 {
            let _ = writeln!(text, "{} are kept in part only and cannot be tried", self.cut);
        }
        text.truncate(text.trim_end().len());
        let text = if text.is_empty() { none } else { text };
        Answer { text, exit: if left == 0 { Exit::Done } else { Exit::Failed } }
    }
}

/// What became of some letters; what is neither accepted nor refused is left.
struct Outcome {
    accepted: usize,
    refused: Vec<Refused>,
    why: Option<String>,
}

impl Outcome {
    fn failed(why: String) -> Self {
        Self { accepted: 0, refused: Vec::new(), why: Some(why) }
    }
}

/// As a lane does, but not for ever: what waits for a person is told at once, all else after a while without progress.
async fn patiently(sink: &Sink, stream: &StreamContext, part: &[New]) -> Result<Vec<Refused>, String> {
    let mut backoff = Backoff::new();
    let mut since = Instant::now();
    loop {
        let error = match sink.deliver(stream, part).await {
            Ok(refused) => return Ok(refused),
            Err(error) => error,
        };
        if error.has_progressed() {
            since = Instant::now();
        }
        if error.has_progressed() || error.asks_on() {
            backoff.reset();
        }
        // Each was refused before: most may be again, and one that passes shows that it is they.
        if error.asks_on() {
            tokio::time::sleep(backoff.wait(false, error.retry_after())).await;
            continue;
        }
        let is_lasting = error.is_final() || error.reason().needs_operator() && !error.has_progressed();
        if is_lasting || since.elapsed() > PATIENCE {
            return Err(chain(&error));
        }
        tokio::time::sleep(backoff.wait(false, error.retry_after())).await;
    }
}

/// Events and the tombstones of their letters, a transaction after the other, so that neither a crash nor a second try
/// doubles one. Whoever fences the producer reads what is left.
struct Transactions {
    topic: Arc<LetterTopic>,
    producer: Producer,
    messages: Vec<Message>,
    told: Vec<Told>,
    /// The most bytes of events that are under way at once.
    flight: usize,
}

impl Transactions {
    /// Until each is accepted or refused, or one transaction fails. What is `refused` already is not tried.
    fn run(mut self, refused: Vec<Refused>) -> (Outcome, Option<Dealing>) {
        let mut open: Vec<usize> =
            (0..self.messages.len()).filter(|at| refused.iter().all(|refused| refused.index != *at)).collect();
        let mut outcome = Outcome { accepted: 0, refused, why: None };
        let (mut at, mut end, mut careful) = (0, open.len(), false);
        while at < end {
            match self.transaction(&open[at..end], careful) {
                Ok(None) => {
                    outcome.accepted += end - at;
                    (at, end, careful) = (end, open.len(), false);
                }
                Ok(Some((_, false))) if !careful => careful = true,
                // Those before it are taken each alone: they go first, and it is left out.
                Ok(Some((refused, _))) => {
                    let place = open[at..end].iter().position(|index| *index == refused.index).unwrap_or(0) + at;
                    open.remove(place);
                    outcome.refused.push(refused);
                    (end, careful) = (if place > at { place } else { open.len() }, place <= at && careful);
                }
                Err(failure) => {
                    let others = self.messages.len() - outcome.accepted - outcome.refused.len();
                    outcome.why = Some(format!("{failure} (in a transaction of {} letters)", end - at));
                    if failure.reason == SinkReason::Fenced {
                        outcome.why =
                            Some(format!("another `trailcast dead-letters` has taken over; it has {others} of these"));
                        return (outcome, None);
                    }
                    return match self.topic.producer() {
                        Ok(producer) => (outcome, Some(Dealing::Topic(self.topic, producer))),
                        Err(_) => (outcome, None),
                    };
                }
            }
        }
        (outcome, Some(Dealing::Topic(self.topic, self.producer)))
    }

    /// One transaction; which event was refused, if one was, and whether alone.
    fn transaction(&mut self, events: &[usize], careful: bool) -> Result<Option<(Refused, bool)>, Failure> {
        let flight = if careful { 0 } else { self.flight };
        let wanted = |index: usize| events.binary_search(&index).is_ok();
        let producer = &self.producer;
        let failed = |error| Failure::new("deliver dead letters again", &error, producer.context());
        producer.begin().map_err(failed)?;
        let (report, alone) = producer.send_in_flights(&self.messages, wanted, flight).map_err(failed)?;
        if let Some(refused) = report.refused(producer)?.into_iter().next() {
            producer.abort().map_err(failed)?;
            // The client takes what was refused for a gap in its own sequence, which would fail the next transaction.
            self.producer =
                self.topic.producer().map_err(|message| Failure { reason: SinkReason::Unavailable, message })?;
            return Ok(Some((refused, alone)));
        }
        let tombstones: Vec<Message> = events.iter().map(|index| self.topic.tombstone(&self.told[*index])).collect();
        let report = producer.send(&tombstones, |_| true).map_err(failed)?;
        if let Some(refused) = report.refused(producer)?.into_iter().next() {
            let message = format!("the topic of dead letters: {}", refused.message);
            return Err(Failure { reason: SinkReason::DeadLetters, message });
        }
        producer.commit().map_err(failed)?;
        Ok(None)
    }
}
