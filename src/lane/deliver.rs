//! A part becomes true: its events delivered or kept as dead letters, its changes committed. Tried until it is so or
//! shutdown is requested.
//!
//! | sink and checkpoint | order |
//! | --- | --- |
//! | exactly once, in Kafka | events, dead letters and changes in one transaction |
//! | any sink, checkpoint in Kafka | events; then dead letters and changes in one transaction |
//! | any sink, another checkpoint | events; then dead letters; then changes |

use std::sync::Arc;
use std::time::Instant;

use super::staged::{FirstTry, Of, Staged, Transaction};
use super::trace::delivered;
use super::{Kept, Lane, LaneError};
use crate::checkpoint::kafka::{After, Partition, TransactError, Work};
use crate::clock;
use crate::dead_letter::{DeadLetter, Refused};
use crate::health::WaitsFor;
use crate::kafka::{Failure, Message};
use crate::metrics::SinkReason;
use crate::retry::Backoff;
use crate::shutdown::Shutdown;
use crate::sink::{KafkaSink, Sink};
use crate::state::admit::New;
use crate::state::store::Commit;

/// An encoded event is reckoned at so many times its record, which it mostly holds once more in an escaped spelling …
const ENCODED: u64 = 2;
/// … and so many bytes around it.
const EVENT: u64 = 1024;

impl Lane {
    /// Takes a part on; submits it, if it can be true before those before it are known to be.
    pub(super) async fn stage(
        &self,
        part: Vec<New>,
        before: u64,
        commit: Commit,
        of: Of,
        shutdown: &Shutdown,
    ) -> Result<Staged, LaneError> {
        let changes = Arc::new(commit.changes);
        let bytes: u64 = part.iter().map(|new| ENCODED * new.admitted.raw.len() as u64 + EVENT).sum();
        let _held = self.feed.memory().hold(bytes);
        let transaction = match (&*self.sink, &self.kept) {
            (Sink::Kafka(kafka), Kept::Partition(partition)) if kafka.config().exactly_once => {
                let after = After { cursor: self.key().cursor(), commits: before };
                let work = Work { changes: Arc::clone(&changes), after: Some(after), ..Work::default() };
                Some(self.submit_events(kafka, partition, &part, work, shutdown).await?)
            }
            _ => None,
        };
        Ok(Staged { of, part, changes, cursor: commit.cursor, _held, transaction })
    }

    /// Makes a part true, whose first try may be over. The answer says which events are kept as dead letters instead.
    pub(super) async fn settle(&self, staged: &mut Staged, shutdown: &Shutdown) -> Result<Vec<Refused>, LaneError> {
        let part = &staged.part;
        let refused = match (staged.transaction.take(), &self.kept) {
            (Some(transaction), Kept::Partition(partition)) => {
                let span = transaction.span.clone();
                delivered(&span, self.transact_events(partition, part, transaction, shutdown)).await?
            }
            (_, Kept::Partition(partition)) => {
                let refused = self.deliver(part, shutdown).await?;
                let messages = Arc::new(self.letters(part, &refused, shutdown).await?);
                let mut work = Work { messages, changes: Arc::clone(&staged.changes), ..Work::default() };
                self.transact(partition, &mut work, FirstTry::None, 0, &mut Vec::new(), shutdown).await?;
                refused
            }
            (_, Kept::Store(_)) => {
                let refused = self.deliver(part, shutdown).await?;
                self.letters(part, &refused, shutdown).await?;
                let changes = Arc::clone(&staged.changes);
                self.committing(self.until_stored(shutdown, move |store| Ok(store.commit(&changes)?))).await?;
                refused
            }
        };
        self.recovered();
        self.tell_refused(part, &refused);
        Ok(refused)
    }

    /// Until the sink acknowledges.
    async fn deliver(&self, part: &[New], shutdown: &Shutdown) -> Result<Vec<Refused>, LaneError> {
        self.board.waits_for(WaitsFor::Sink);
        let mut backoff = Backoff::new();
        loop {
            let began = Instant::now();
            let span = self.deliver_span(part, false);
            let result = delivered(&span, self.sink.deliver(&self.feed.stream, part)).await;
            self.sink_metrics.request_finished(began.elapsed());
            match result {
                Ok(refused) => return Ok(refused),
                Err(error) if error.is_final() => {
                    self.metrics.sink_error(error.reason());
                    self.board.failing(error.reason(), error.to_string());
                    return Err(error.into());
                }
                Err(error) => {
                    self.failing(error.reason(), &error);
                    if error.has_progressed() || error.asks_on() {
                        backoff.reset();
                    }
                    // Where others pass, no person is waited for.
                    let wait = backoff.wait(error.reason().needs_operator() && !error.asks_on(), error.retry_after());
                    shutdown.unless(tokio::time::sleep(wait)).await.ok_or(LaneError::NotDrained)?;
                }
            }
        }
    }

    /// Adds the events of a part, and letters of those that are surely refused, to `work`, and submits it.
    async fn submit_events(
        &self,
        kafka: &KafkaSink,
        partition: &Partition,
        part: &[New],
        mut work: Work,
        shutdown: &Shutdown,
    ) -> Result<Transaction, LaneError> {
        let span = self.deliver_span(part, true);
        let mut backoff = Backoff::new();
        let mut messages = kafka.messages(&self.feed.stream, part);
        let refused = loop {
            match kafka.surely_too_large(&messages).await {
                Ok(refused) => break refused,
                Err(error) => {
                    self.failing(error.reason(), &error);
                    self.pause(&mut backoff, error.reason(), shutdown).await?;
                }
            }
        };
        work.flight = kafka.flight(partition.batch());
        messages.extend(self.letters(part, &refused, shutdown).await?);
        work.without = refused.iter().map(|refused| refused.index).collect();
        work.messages = Arc::new(messages);
        let submitted = Instant::now();
        let commit = span.in_scope(|| self.commit_span());
        let first = FirstTry::Waits { answer: partition.submit(work.clone()).await, commit };
        Ok(Transaction { work, refused, span, submitted, first })
    }

    /// Until all of a transaction is true.
    async fn transact_events(
        &self,
        partition: &Partition,
        part: &[New],
        Transaction { mut work, mut refused, submitted: mut began, mut first, .. }: Transaction,
        shutdown: &Shutdown,
    ) -> Result<Vec<Refused>, LaneError> {
        loop {
            let before = refused.len();
            self.transact(partition, &mut work, first, part.len(), &mut refused, shutdown).await?;
            self.sink_metrics.request_finished(began.elapsed());
            (began, first) = (Instant::now(), FirstTry::None);
            if refused.len() == before {
                return Ok(refused);
            }
            work.without = refused.iter().map(|refused| refused.index).collect();
            // While it is not known which, each try tells of one more at least, and of all before it that they are taken.
            if work.one_by_one.is_some() {
                work.one_by_one = refused.last().map(|last| last.index);
            }
            let mut messages = Arc::unwrap_or_clone(work.messages);
            messages.truncate(part.len());
            messages.extend(self.letters(part, &refused, shutdown).await?);
            work.messages = Arc::new(messages);
        }
    }

    /// One work, until it is true or some of its first `events` messages turn out to be `refused`: each alone, or by the
    /// limit that their topic has by now.
    async fn transact(
        &self,
        partition: &Partition,
        work: &mut Work,
        mut first: FirstTry,
        events: usize,
        refused: &mut Vec<Refused>,
        shutdown: &Shutdown,
    ) -> Result<(), LaneError> {
        self.board.waits_for(if events > 0 { WaitsFor::Sink } else { WaitsFor::Checkpoint });
        let mut beside = false;
        let mut backoff = Backoff::new();
        loop {
            let result = match std::mem::replace(&mut first, FirstTry::None) {
                FirstTry::Over(result) => result,
                FirstTry::Waits { mut answer, .. } => answer.wait().await,
                FirstTry::None => self.committing(async { partition.submit(work.clone()).await.wait().await }).await,
            };
            match result {
                Ok(()) => return Ok(()),
                Err(TransactError::Suspected) => {
                    // Its limit may be another by now. What fits together is sent so once more; then each on its own.
                    let kafka = match &*self.sink {
                        Sink::Kafka(kafka) if events > 0 => Some(kafka),
                        _ => None,
                    };
                    let flight = match kafka {
                        Some(kafka) => kafka.flight_now(partition.batch()).await,
                        None => None,
                    };
                    let is_new = flight.is_some() && work.flight != flight && work.one_by_one.is_none();
                    work.one_by_one = (!is_new).then_some(0);
                    work.flight = flight;
                    let events = &work.messages[..events];
                    let sure = match kafka {
                        Some(kafka) => kafka.surely_too_large(events).await.unwrap_or_default(),
                        None => Vec::new(),
                    };
                    let before = refused.len();
                    refused.extend(sure.into_iter().filter(|sure| !work.without.contains(&sure.index)));
                    if refused.len() > before {
                        return Ok(());
                    }
                }
                // For once at once: should it go on, it waits as for anything else.
                Err(TransactError::Beside) if !std::mem::replace(&mut beside, true) => {}
                Err(TransactError::Beside) => self.pause(&mut backoff, SinkReason::Unavailable, shutdown).await?,
                Err(TransactError::Refused(more)) => match more.iter().find(|refused| refused.index >= events) {
                    None => {
                        refused.extend(more);
                        return Ok(());
                    }
                    Some(letter) => {
                        let message = format!("the topic of dead letters refuses one: {}", letter.message);
                        self.failing(SinkReason::DeadLetters, &Failure { reason: SinkReason::DeadLetters, message });
                        self.pause(&mut backoff, SinkReason::DeadLetters, shutdown).await?;
                    }
                },
                Err(TransactError::Failed(failure)) => {
                    self.failing(failure.reason, &failure);
                    self.pause(&mut backoff, failure.reason, shutdown).await?;
                }
                // All before it is true: so the state is not what this lane took it for.
                Err(TransactError::Unfounded | TransactError::Lost) => return Err(LaneError::Lost),
            }
        }
    }

    /// Keeps what is refused, or says as which messages it is to be kept.
    async fn letters(&self, part: &[New], refused: &[Refused], shutdown: &Shutdown) -> Result<Vec<Message>, LaneError> {
        let now = clock::now();
        let of =
            |refused: &Refused| DeadLetter::new(&self.feed.stream, &self.sink_name, &part[refused.index], refused, now);
        let letters: Vec<DeadLetter> = refused.iter().map(of).collect();
        if letters.is_empty() {
            return Ok(Vec::new());
        }
        let files = match (&self.letters, &self.kept) {
            (Some(files), _) => Arc::clone(files),
            (None, Kept::Partition(partition)) => {
                let message = |letter: &DeadLetter| Message {
                    topic: Arc::clone(&partition.letters().name),
                    key: Some(letter.key()),
                    value: Some(letter.to_json_within(partition.letters().largest)),
                    ..Message::default()
                };
                return Ok(letters.iter().map(message).collect());
            }
            (None, Kept::Store(_)) => unreachable!("only a lane whose state is in Kafka may have no files for letters"),
        };
        let letters = Arc::new(letters);
        let mut backoff = Backoff::new();
        loop {
            let (files, letters) = (Arc::clone(&files), Arc::clone(&letters));
            match self.blocking(move |_| Ok(files.append(&letters))).await? {
                Ok(()) => return Ok(Vec::new()),
                Err(error) => {
                    self.failing(SinkReason::DeadLetters, &error);
                    self.pause(&mut backoff, SinkReason::DeadLetters, shutdown).await?;
                }
            }
        }
    }

    /// Waits before the next try.
    async fn pause(&self, backoff: &mut Backoff, reason: SinkReason, shutdown: &Shutdown) -> Result<(), LaneError> {
        let wait = backoff.wait(reason.needs_operator(), None);
        shutdown.unless(tokio::time::sleep(wait)).await.ok_or(LaneError::NotDrained)
    }
}
