//! One partition of the state topic, taken: its state in memory, and the one thread that writes it.
//!
//! Everything goes through transactions of this partition's transactional id. What lanes submit while a transaction is
//! being committed goes together into the next one, in the order in which it was submitted. A transaction that fails is
//! aborted and each of its submitters told; what was built on it is not tried. What cannot be known to be aborted ends
//! the partition's use, and taking it again tells what had been committed.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::ops::Range;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use rdkafka::error::KafkaError;
use tokio::sync::{mpsc, oneshot, watch};

use super::position::Sum;
use super::{LetterTopic, POSITION_KEY, Standing, StateTopic};
use crate::checkpoint::{CheckpointError, MemoryStore, Store};
use crate::dead_letter::Refused;
use crate::kafka::{Bookmark, Failure, Message, Producer, Sending};
use crate::metrics::SinkReason;
use crate::state::store::{Changes, parse_cursor};

/// Works that may wait for the transaction that is being committed.
const WAITING: usize = 64;
/// The most records of one transaction, so that a slow one ends within its time.
const TOGETHER: usize = 20_000;
/// The group is told at most so often how far the state is: what it knows is a bound from below.
const TOLD_EVERY: Duration = Duration::from_secs(1);
/// How long the group's coordinator may take to be told.
const TOLD_WITHIN: Duration = Duration::from_secs(10);

/// See the module.
pub struct Partition {
    number: i32,
    letters: LetterTopic,
    batch: usize,
    state: Arc<MemoryStore>,
    standing: Arc<Mutex<Standing>>,
    works: mpsc::Sender<Submitted>,
    lost: watch::Receiver<Option<Failure>>,
}

/// What is to become true at once.
#[derive(Debug, Clone, Default)]
pub struct Work {
    /// Events and dead letters.
    pub messages: Arc<Vec<Message>>,
    /// The places of messages that are left out.
    pub without: BTreeSet<usize>,
    /// To find out which message a broker refuses, each is sent on its own from this place on; those before it are
    /// known to be taken.
    pub one_by_one: Option<usize>,
    /// The most bytes of messages that are under way at once, where the producer's batches may be larger than their
    /// topic takes by now. (The limit of a topic can be lowered at any time.)
    pub flight: Option<usize>,
    /// To the state.
    pub changes: Arc<Changes>,
    /// What `changes` are built on, where a lane has not waited until that is so.
    pub after: Option<After>,
}

impl Work {
    /// Whether it is sent bit by bit.
    const fn is_careful(&self) -> bool {
        self.one_by_one.is_some() || self.flight.is_some()
    }
}

/// That a cursor stands where it must for a work to make sense: a lane submits parts before those before them are known
/// to be committed, and when one of these fails, it and all after it must come again.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct After {
    /// The cursor's key.
    pub cursor: Vec<u8>,
    /// The commits that it counts; 0 where there is none yet.
    pub commits: u64,
}

/// What becomes of a work; see [`Partition::submit`].
pub struct Answer(oneshot::Receiver<Result<(), TransactError>>);

impl Answer {
    /// Waits for it, once. `Ok` says that the work is committed, and what it is built on.
    ///
    /// # Errors
    /// Nothing of it is true; but after [`TransactError::Lost`] that is known only once the partition is taken again.
    pub async fn wait(&mut self) -> Result<(), TransactError> {
        (&mut self.0).await.unwrap_or(Err(TransactError::Lost))
    }
}

/// Why a work did not become true.
#[derive(Debug)]
pub enum TransactError {
    /// Some messages of this work were refused, perhaps for what stood beside them; once more, one by one.
    Suspected,
    /// These messages are refused for good.
    Refused(Vec<Refused>),
    /// It was not this work that failed: once more.
    Beside,
    /// What it is built on is not so.
    Unfounded,
    /// It may work later.
    Failed(Failure),
    /// The partition is another's now, or must be taken again.
    Lost,
}

struct Submitted {
    work: Work,
    reply: oneshot::Sender<Result<(), TransactError>>,
}

impl Partition {
    pub(super) fn start(
        topic: StateTopic,
        number: i32,
        producer: Producer,
        state: MemoryStore,
        standing: Standing,
        bookmark: Option<Bookmark>,
    ) -> Self {
        let (works, submitted) = mpsc::channel(WAITING);
        let (lose, lost) = watch::channel(None);
        let (state, letters, batch) = (Arc::new(state), topic.letters.clone(), producer.batch());
        let sum = Sum::of(&state);
        let shown = Arc::new(Mutex::new(standing));
        let told = Told { bookmark: bookmark.map(Arc::new), last: None };
        let (has_format, upset) = (false, false);
        let (shared, standing) = (Arc::clone(&state), Arc::clone(&shown));
        let producer = Arc::new(producer);
        let next = 0;
        let writer = Writer { topic, number, producer, state: shared, sum, standing, told, has_format, upset, next };
        let standing = shown;
        std::thread::Builder::new()
            .name(format!("state-{number}"))
            .spawn(move || writer.run(submitted, &lose))
            .expect("a process that cannot have one more thread cannot go on");
        Self { number, letters, batch, state, standing, works, lost }
    }

    /// Its number.
    #[must_use]
    pub const fn number(&self) -> i32 {
        self.number
    }

    /// Which state it is, and how far.
    #[must_use]
    pub fn standing(&self) -> Standing {
        *self.standing.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Where dead letters go that are not kept in files.
    #[must_use]
    pub const fn letters(&self) -> &LetterTopic {
        &self.letters
    }

    /// The most bytes of a batch of several messages that it sends.
    #[must_use]
    pub const fn batch(&self) -> usize {
        self.batch
    }

    /// Has all of `work` made true in one transaction, after all that was submitted before. A work whose answer nobody
    /// waits for any longer may be left out.
    pub async fn submit(&self, work: Work) -> Answer {
        let (reply, answer) = oneshot::channel();
        // If nobody takes works any more, the answer says so.
        let _ = self.works.send(Submitted { work, reply }).await;
        Answer(answer)
    }

    /// Returns once the partition must be taken again to be of use, with the reason.
    pub async fn lost(&self) -> Failure {
        let mut lost = self.lost.clone();
        loop {
            if let Some(failure) = &*lost.borrow_and_update() {
                return failure.clone();
            }
            if lost.changed().await.is_err() {
                std::future::pending::<()>().await;
            }
        }
    }
}

impl Store for Partition {
    fn get(&self, key: &[u8]) -> Result<Option<Vec<u8>>, CheckpointError> {
        self.state.get(key)
    }

    fn scan(&self, range: Range<&[u8]>, visit: &mut dyn FnMut(&[u8], &[u8])) -> Result<(), CheckpointError> {
        self.state.scan(range, visit)
    }

    fn commit(&self, changes: &Changes) -> Result<(), CheckpointError> {
        loop {
            let (reply, answer) = oneshot::channel();
            let work = Work { changes: Arc::new(changes.clone()), ..Work::default() };
            self.works.blocking_send(Submitted { work, reply }).map_err(|_| CheckpointError::Lost)?;
            return match answer.blocking_recv().unwrap_or(Err(TransactError::Lost)) {
                Ok(()) => Ok(()),
                Err(TransactError::Beside | TransactError::Suspected) => continue,
                Err(TransactError::Failed(failure)) => Err(failure.into()),
                // Of no message of its own can it be told that it is refused, and it is built on nothing.
                Err(TransactError::Lost | TransactError::Refused(_) | TransactError::Unfounded) => {
                    Err(CheckpointError::Lost)
                }
            };
        }
    }
}

struct Writer {
    topic: StateTopic,
    number: i32,
    producer: Arc<Producer>,
    state: Arc<MemoryStore>,
    /// What the state amounts to.
    sum: Sum,
    standing: Arc<Mutex<Standing>>,
    told: Told,
    has_format: bool,
    /// The last transaction was aborted because a record was refused. The client takes that for a gap in its own
    /// sequence, which fails the next transaction, too, whatever is in it.
    upset: bool,
    /// The state's next record lies there or later.
    next: i64,
}

/// What the group is told of the state.
struct Told {
    /// None where that is not allowed.
    bookmark: Option<Arc<Bookmark>>,
    last: Option<Instant>,
}

/// How a transaction ended, if not well.
enum Trouble {
    /// Aborted: these messages, by work and place, were refused.
    Refused(Unsent),
    /// Aborted, for a reason that may pass.
    Failed(Failure),
    /// Not known to be aborted.
    Lost(Failure),
}

/// Messages that were refused, by work and place.
struct Unsent {
    refused: Vec<(usize, Refused)>,
    /// Whether each was alone in its batch: otherwise it may have been refused for what stood beside it.
    alone: bool,
    /// Where the records of the state lie, as far as that is known.
    state_at: Option<Range<i64>>,
}

impl Writer {
    fn run(mut self, mut submitted: mpsc::Receiver<Submitted>, lose: &watch::Sender<Option<Failure>>) {
        let mut held = None;
        while let Some(first) = held.take().or_else(|| submitted.blocking_recv()) {
            let group = self.group(first, &mut submitted, &mut held);
            if group.is_empty() {
                continue;
            }
            let works: Vec<&Work> = group.iter().map(|submitted| &submitted.work).collect();
            let result = self.transact(&works);
            // A transaction may have found itself upset.
            let upset = std::mem::replace(&mut self.upset, matches!(result, Err(Trouble::Refused(_))));
            match result {
                Ok(()) => {
                    for Submitted { work, reply } in group {
                        self.state.apply(&work.changes);
                        // A lane that has been given up learns it from the state.
                        let _ = reply.send(Ok(()));
                    }
                }
                Err(Trouble::Lost(failure)) => {
                    lose.send_replace(Some(failure));
                    // Whoever waits finds the channel closed.
                    return;
                }
                Err(Trouble::Failed(_)) if upset => {
                    for Submitted { reply, .. } in group {
                        let _ = reply.send(Err(TransactError::Beside));
                    }
                }
                Err(Trouble::Failed(failure)) => {
                    for Submitted { reply, .. } in group {
                        let _ = reply.send(Err(TransactError::Failed(failure.clone())));
                    }
                }
                Err(Trouble::Refused(unsent)) => answer_refused(group, unsent),
            }
        }
    }

    /// `first` and what else waits, as much as goes into one transaction. A work that is to be sent bit by bit has one of
    /// its own: it is `held` until then.
    fn group(
        &self,
        first: Submitted,
        waiting: &mut mpsc::Receiver<Submitted>,
        held: &mut Option<Submitted>,
    ) -> Vec<Submitted> {
        let mut group: Vec<Submitted> = Vec::new();
        let mut commits = HashMap::new();
        let mut records = 0;
        let mut next = Some(first);
        while let Some(submitted) = next.take() {
            let work = &submitted.work;
            if work.is_careful() && !group.is_empty() {
                *held = Some(submitted);
                break;
            }
            let is_last = work.is_careful() || records + work.messages.len() >= TOGETHER;
            // Of one that nobody waits for the lane has been given up, or has learnt that it comes too early.
            if submitted.reply.is_closed() || !self.follows(work, &mut commits) {
                tracing::debug!(partition = self.number, "left out: what it is built on is not so");
                let _ = submitted.reply.send(Err(TransactError::Unfounded));
            } else {
                records += work.messages.len();
                group.push(submitted);
                if is_last {
                    break;
                }
            }
            next = waiting.try_recv().ok();
        }
        group
    }

    /// Whether what `work` is built on is so once the works before it in its group are true; `commits` are their
    /// cursors' by then.
    fn follows(&self, work: &Work, commits: &mut HashMap<Vec<u8>, u64>) -> bool {
        let Some(After { cursor, commits: needed }) = &work.after else { return true };
        let stored = || Some(parse_cursor(&self.state.get(cursor).ok()??).ok()?.commits);
        let stands = commits.get(cursor).copied().or_else(stored).unwrap_or(0);
        if stands == *needed {
            commits.insert(cursor.clone(), stands + 1);
        }
        stands == *needed
    }

    fn transact(&mut self, works: &[&Work]) -> Result<(), Trouble> {
        self.producer.begin().map_err(|error| self.lost(&error))?;
        let mut standing = *self.standing.lock().unwrap_or_else(PoisonError::into_inner);
        standing.commits += 1;
        let (changes, sum) = self.state_messages(works);
        let position = serde_json::to_vec(&sum.position(standing)).ok();
        let position = self.topic.message(self.number, POSITION_KEY.to_vec(), position);
        let state = changes.into_iter().chain([position]).collect();
        let unsent = self.send(works, state).map_err(|error| self.abort(&error))?;
        if !unsent.refused.is_empty() {
            return Err(match self.producer.abort() {
                Ok(()) => Trouble::Refused(unsent),
                Err(error) => self.lost(&error),
            });
        }
        if let Some(at) = unsent.state_at {
            // A topic that is deleted and made again, or has lost its end, may take records as if nothing had happened.
            if at.start < self.next {
                let (name, at, next) = (&self.topic.config.topic, at.start, self.next);
                let message = format!(
                    "the state topic {name} took a record at offset {at}, but had reached {next}: it was deleted and made again, \
                     or has lost its end"
                );
                return Err(Trouble::Lost(Failure { reason: SinkReason::Checkpoint, message }));
            }
            self.next = at.end;
        }
        let is_told = self.tell(standing)?;
        match self.producer.commit() {
            Ok(()) => {
                self.has_format = true;
                self.sum = sum;
                *self.standing.lock().unwrap_or_else(PoisonError::into_inner) = standing;
                if is_told {
                    self.told.last = Some(Instant::now());
                }
                Ok(())
            }
            Err(KafkaError::Transaction(error)) if error.txn_requires_abort() => {
                Err(self.abort(&Failed::Error(KafkaError::Transaction(error))))
            }
            // It may be committed or not.
            Err(error) => Err(self.lost(&error)),
        }
    }

    /// Adds to the transaction what the group is to know, now and then; whether it was added.
    fn tell(&mut self, standing: Standing) -> Result<bool, Trouble> {
        let is_due = self.told.last.is_none_or(|last| last.elapsed() >= TOLD_EVERY);
        let Some(bookmark) = self.told.bookmark.as_ref().filter(|_| is_due) else { return Ok(false) };
        let Err(failed) = self.mark(bookmark, standing) else { return Ok(true) };
        let Some(error) = failed else {
            // The client is inside that call, and nothing else can be asked of it: another takes the partition.
            let message = format!("the group's coordinator was not told for {} s", TOLD_WITHIN.as_secs());
            return Err(Trouble::Lost(Failure { reason: SinkReason::Timeout, message }));
        };
        let trouble = self.abort(&Failed::Error(error));
        if let Trouble::Failed(failure) = &trouble
            && failure.reason == SinkReason::Refused
        {
            tracing::warn!(
                partition = self.number,
                "a state topic that is deleted will not be noticed, as how far it is cannot be kept outside of it: {failure}"
            );
            self.told.bookmark = None;
            // Nothing of the works is at fault: at once once more.
            self.upset = true;
        }
        Err(trouble)
    }

    /// Has the producer say it, in a thread of its own: whatever time it is given, the client (librdkafka 2.12.1,
    /// `rd_kafka_coord_req_fsm`) waits for a coordinator that is gone until any broker comes or goes.
    ///
    /// # Errors
    /// None where it did not answer in time; the thread ends with the client's wait.
    fn mark(&self, bookmark: &Arc<Bookmark>, standing: Standing) -> Result<(), Option<KafkaError>> {
        let (reply, answer) = std::sync::mpsc::channel();
        let (producer, bookmark) = (Arc::clone(&self.producer), Arc::clone(bookmark));
        let (offset, text) = standing.to_offset();
        std::thread::Builder::new()
            .name(format!("state-{}-told", self.number))
            .spawn(move || drop(reply.send(producer.mark(&bookmark, offset, &text))))
            .expect("a process that cannot have one more thread cannot go on");
        answer.recv_timeout(TOLD_WITHIN).map_or(Err(None), |told| told.map_err(Some))
    }

    /// All messages of all works and what becomes of the `state`; what is refused, by work.
    fn send(&self, works: &[&Work], mut changes: Vec<Message>) -> Result<Unsent, Failed> {
        if let [work] = works
            && work.is_careful()
        {
            // What is known to be taken, or to fit together; then each on its own.
            let from = work.one_by_one.unwrap_or(work.messages.len());
            for (part, flight) in
                [(0..from, work.flight.unwrap_or(self.producer.batch())), (from..work.messages.len(), 0)]
            {
                let wanted = |index: usize| part.contains(&index) && !work.without.contains(&index);
                let (report, alone) = self.producer.send_in_flights(&work.messages, wanted, flight)?;
                let refused = report.refused(&self.producer)?;
                if !refused.is_empty() {
                    return Ok(Unsent {
                        refused: refused.into_iter().map(|refused| (0, refused)).collect(),
                        alone,
                        state_at: None,
                    });
                }
            }
        }
        if !self.has_format {
            changes.push(self.topic.format_message(self.number));
        }
        let sending = Sending::default();
        let mut begins = Vec::new();
        let mut total = 0;
        for work in works {
            begins.push(total);
            if !work.is_careful() {
                self.producer.enqueue(&work.messages, |index| !work.without.contains(&index), total, &sending)?;
            }
            total += work.messages.len();
        }
        self.producer.enqueue(&changes, |_| true, total, &sending)?;
        let report = self.producer.wait(&sending);
        // One after the other: nobody else writes there.
        let records = changes.len();
        let state_at =
            report.offset_of_last(total + records - 1).map(|last| last + 1 - (records as u64).cast_signed()..last + 1);
        let refused = report.refused(&self.producer)?;
        let of_work = |mut refused: Refused| {
            if refused.index >= total {
                return Err(Failed::Failure(Failure {
                    reason: crate::metrics::SinkReason::Checkpoint,
                    message: format!("the state topic refuses a record: {}", refused.message),
                }));
            }
            let work = begins.partition_point(|begin| *begin <= refused.index) - 1;
            refused.index -= begins[work];
            Ok((work, refused))
        };
        let refused = refused.into_iter().map(of_work).collect::<Result<_, _>>()?;
        Ok(Unsent { refused, alone: false, state_at })
    }

    /// What the changes of works, one after the other, are in the topic: the last of each key, and of a range the keys
    /// that are there; and what the state amounts to then.
    fn state_messages(&self, works: &[&Work]) -> (Vec<Message>, Sum) {
        let mut writes: BTreeMap<Vec<u8>, Option<Vec<u8>>> = BTreeMap::new();
        for Work { changes, .. } in works {
            for range in &changes.delete_ranges {
                self.state.keys(range).into_iter().for_each(|key| drop(writes.insert(key, None)));
                writes.iter_mut().filter(|(key, _)| range.contains(&**key)).for_each(|(_, value)| *value = None);
            }
            for key in &changes.deletes {
                if self.state.has(key) || writes.contains_key(key) {
                    writes.insert(key.clone(), None);
                }
            }
            for (key, value) in &changes.puts {
                writes.insert(key.clone(), Some(value.clone()));
            }
        }
        let mut sum = self.sum;
        for (key, value) in &writes {
            // A map in memory can always be read.
            let before = self.state.get(key).ok().flatten();
            sum.change(key, before.as_deref(), value.as_deref());
        }
        (writes.into_iter().map(|(key, value)| self.topic.message(self.number, key, value)).collect(), sum)
    }

    /// After an error in a transaction: it is aborted, unless the producer is of no more use.
    fn abort(&self, failed: &Failed) -> Trouble {
        // Nothing of this client's gets through any more: taking the partition again aborts it.
        if self.producer.context().is_outdated() {
            return match failed {
                Failed::Error(error) => self.lost(error),
                Failed::Failure(failure) => Trouble::Lost(failure.clone()),
            };
        }
        match (failed, self.producer.fatal()) {
            (Failed::Error(error), Some(_)) => return self.lost(error),
            (Failed::Failure(failure), Some(code)) => {
                let fatal = Failure::of("send", code, &code.to_string(), self.producer.context());
                let reason = fatal.reason;
                return Trouble::Lost(Failure { reason, message: format!("{}: {}", fatal.message, failure.message) });
            }
            _ => {}
        }
        let failure = match (self.producer.doom(), failed) {
            (Some(error), _) => Failure::new("transact", &error, self.producer.context()),
            (None, Failed::Error(error)) => Failure::new("transact", error, self.producer.context()),
            (None, Failed::Failure(failure)) => failure.clone(),
        };
        match self.producer.abort() {
            Ok(()) => Trouble::Failed(failure),
            // Why it had to be aborted says more than why it could not be: a partition that the broker refused was
            // never part of a transaction, and there is none to abort.
            Err(error) if self.producer.fatal().is_none() => {
                let message = format!("{}; nor could that be undone: {error}", failure.message);
                Trouble::Lost(Failure { message, ..failure })
            }
            Err(error) => self.lost(&error),
        }
    }

    fn lost(&self, error: &KafkaError) -> Trouble {
        Trouble::Lost(Failure::new("transact", error, self.producer.context()))
    }
}

/// Why sending failed.
enum Failed {
    Error(KafkaError),
    Failure(Failure),
}

impl From<KafkaError> for Failed {
    fn from(error: KafkaError) -> Self {
        Self::Error(error)
    }
}

impl From<Failure> for Failed {
    fn from(failure: Failure) -> Self {
        Self::Failure(failure)
    }
}

fn answer_refused(group: Vec<Submitted>, mut unsent: Unsent) {
    for (index, Submitted { reply, .. }) in group.into_iter().enumerate() {
        let own = unsent.refused.extract_if(.., |(of, _)| *of == index).map(|(_, refused)| refused);
        let own: Vec<Refused> = own.collect();
        let _ = reply.send(Err(match own {
            own if own.is_empty() => TransactError::Beside,
            own if unsent.alone => TransactError::Refused(own),
            _ => TransactError::Suspected,
        }));
    }
}

#[cfg(test)]
#[path = "partition_tests.rs"]
mod tests;
