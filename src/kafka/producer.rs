//! Sends records and waits until each is acknowledged by all replicas in sync, or is known to have failed.

use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use rdkafka::config::FromClientConfigAndContext;
use rdkafka::error::{KafkaError, RDKafkaErrorCode as Code};
use rdkafka::message::{Header, Message as _, OwnedHeaders};
use rdkafka::producer::{BaseRecord, DeliveryResult, Producer as _, ProducerContext, ThreadedProducer};
use tokio::sync::Notify;

use super::bookmark::Bookmark;
use super::client::{Context, Purpose, client_config};
use super::failure::Failure;
use crate::config::ClusterConfig;
use crate::dead_letter::{DeadLetterReason, Refused};

/// A record for Kafka.
#[derive(Debug, Clone, Default)]
pub struct Message {
    /// The topic.
    pub topic: Arc<str>,
    /// The partition; without one the key decides, and without a key chance.
    pub partition: Option<i32>,
    /// The key.
    pub key: Option<Vec<u8>>,
    /// The value; none is a tombstone.
    pub value: Option<Vec<u8>>,
    /// Headers, in order.
    pub headers: Vec<(&'static str, String)>,
    /// Milliseconds since the epoch; none is the time of sending.
    pub timestamp: Option<i64>,
}

impl Message {
    /// Its bytes in a batch of its own before compression, which is what the broker holds against the topic's limit.
    ///
    /// Record batches of magic 2: <https://kafka.apache.org/documentation/#recordbatch>
    #[must_use]
    pub fn size(&self) -> usize {
        /// From the base offset to the count of records.
        const HEAD: usize = 61;
        let bytes = |bytes: Option<usize>| bytes.map_or(1, |length| varint(length) + length);
        let headers: usize =
            self.headers.iter().map(|(name, value)| bytes(Some(name.len())) + bytes(Some(value.len()))).sum();
        // Attributes, and the differences of time and offset, which are 0.
        let record = 3
            + bytes(self.key.as_ref().map(Vec::len))
            + bytes(self.value.as_ref().map(Vec::len))
            + varint(self.headers.len())
            + headers;
        HEAD + varint(record) + record
    }
}

/// The bytes of a length as a zigzag varint.
const fn varint(length: usize) -> usize {
    let mut rest = length << 1;
    let mut bytes = 1;
    while rest >= 0x80 {
        rest >>= 7;
        bytes += 1;
    }
    bytes
}

/// What became of messages that were sent.
#[derive(Debug, Default)]
pub struct Report {
    /// The places, among those sent, of messages that failed, and why; all others are acknowledged, unless there is a
    /// `doom`.
    failed: Vec<(usize, Code)>,
    /// The offset of the last of those that are acknowledged, if it was told.
    last: Option<(usize, i64)>,
    /// What has failed the whole transaction, while nothing was heard of some messages.
    doom: Option<KafkaError>,
}

impl Report {
    fn is_clean(&self) -> bool {
        self.failed.is_empty() && self.doom.is_none()
    }

    /// Where in its partition the message at `index` lies, if it is the last of those that are acknowledged.
    #[must_use]
    pub fn offset_of_last(&self, index: usize) -> Option<i64> {
        self.last.filter(|(last, _)| *last == index).map(|(_, offset)| offset)
    }

    /// The places of messages that are not known to be acknowledged. Of a transaction nothing is before it is committed.
    pub fn failed(&self) -> impl Iterator<Item = usize> {
        self.failed.iter().map(|(index, _)| *index)
    }

    /// Which messages the broker refuses for good. Records in one batch share its fate: only what is refused alone is.
    ///
    /// A transaction is doomed by one message that fails: what failed for it says nothing of its own there, and is not
    /// delivered either.
    ///
    /// # Errors
    /// Others failed for a reason that may pass.
    pub fn refused(&self, producer: &Producer) -> Result<Vec<Refused>, Failure> {
        let causes = || self.failed.iter().filter(|(_, code)| !is_consequence(*code));
        let by_cause = producer.is_transactional && causes().next().is_some();
        let refusal = |&(index, code): &(usize, Code)| match refusal(code) {
            Some(reason) => Ok(Refused { index, reason, sent: true, message: code.to_string() }),
            None => Err(Failure::of("send", code, &code.to_string(), producer.context())),
        };
        match &self.doom {
            _ if by_cause => causes().map(refusal).collect(),
            Some(doom) => Err(Failure::new("transact", doom, producer.context())),
            None => self.failed.iter().map(refusal).collect(),
        }
    }
}

/// Of a message that failed because another had failed before it in the same transaction: nothing more is sent then.
const fn is_consequence(code: Code) -> bool {
    matches!(code, Code::State | Code::PurgeQueue | Code::PurgeInflight | Code::MessageTimedOut)
}

/// What no later try will change.
const fn refusal(code: Code) -> Option<DeadLetterReason> {
    match code {
        Code::MessageSizeTooLarge | Code::MessageBatchTooLarge | Code::InvalidMessageSize => {
            Some(DeadLetterReason::TooLarge)
        }
        // Too long ago or too far ahead for the topic (`message.timestamp.before.max.ms`, `…after.max.ms`); a record
        // that the topic's rules refuse, such as one without a key where records are compacted.
        Code::InvalidTimestamp | Code::InvalidRecord | Code::InvalidDifferentRecord => Some(DeadLetterReason::Invalid),
        _ => None,
    }
}

/// A connection that sends.
pub struct Producer {
    inner: ThreadedProducer<Context>,
    is_transactional: bool,
    /// The most bytes of a batch with more than one message.
    batch: usize,
    context: Context,
}

/// The largest that the client itself lets pass: what a topic takes is the broker's to say.
const LARGEST: &str = "67108864";

/// Room in a batch for what compression may add to bytes that do not compress, and for the batch's head.
const BATCH_MARGIN: u64 = 1024;

impl Producer {
    /// Connects in the background. With a transactional id it is of use after [`Producer::begin_anew`] only.
    /// `largest` is the smallest limit of the topics it sends to: several records in a batch must not exceed together
    /// what each may have alone.
    ///
    /// # Errors
    /// A secret or the settings are no good.
    pub fn new(
        cluster: &ClusterConfig,
        properties: &[(String, String)],
        largest: Option<u64>,
        transactional_id: Option<&str>,
    ) -> Result<Self, Failure> {
        // Before anything is read: what is replaced meanwhile is newer than this says.
        let context = Context::new(cluster);
        let mut config = client_config(cluster, Purpose::Producer)?;
        // A lane decides what to do next; within this the client tries again by itself.
        config.set("message.timeout.ms", "20000");
        for (name, value) in properties {
            config.set(name, value);
        }
        let fits = largest.map_or(1_000_000, |largest| largest.saturating_sub(BATCH_MARGIN)).clamp(1, 1_000_000);
        let asked = config.get("batch.size").and_then(|size| size.parse().ok()).unwrap_or(u64::MAX);
        let batch = fits.min(asked);
        config.set("batch.size", batch.to_string());
        config.set("enable.idempotence", "true").set("acks", "all").set("partitioner", "murmur2_random");
        config.set("message.max.bytes", LARGEST);
        if let Some(id) = transactional_id {
            config.set("transactional.id", id);
        }
        let inner = ThreadedProducer::from_config_and_context(&config, context.clone())
            .map_err(|error| Failure::new("make a producer", &error, &context))?;
        let batch = usize::try_from(batch).unwrap_or(usize::MAX);
        Ok(Self { inner, is_transactional: transactional_id.is_some(), batch, context })
    }

    /// Sends those of `messages` that `wanted` picks and blocks until each is acknowledged or has failed, which it has
    /// after 20 s at the latest.
    ///
    /// # Errors
    /// The producer is of no more use.
    pub fn send(&self, messages: &[Message], wanted: impl Fn(usize) -> bool) -> Result<Report, KafkaError> {
        let sending = Sending::default();
        self.enqueue(messages, wanted, 0, &sending)?;
        Ok(self.wait(&sending))
    }

    /// The same, a flight after the other: what is under way at once has at most `flight` bytes, or is one message. So no
    /// batch is larger, however large a producer made long ago may make them. Ends with the flight of which something
    /// failed, and says whether that was one message alone; what comes after it was not sent.
    ///
    /// # Errors
    /// As [`Producer::send`].
    pub fn send_in_flights(
        &self,
        messages: &[Message],
        wanted: impl Fn(usize) -> bool,
        flight: usize,
    ) -> Result<(Report, bool), KafkaError> {
        let mut wanted = (0..messages.len()).filter(|index| wanted(*index)).peekable();
        while let Some(first) = wanted.next() {
            let mut bytes = messages[first].size();
            let mut members = vec![first];
            while let Some(next) = wanted.next_if(|next| bytes + messages[*next].size() <= flight) {
                bytes += messages[next].size();
                members.push(next);
            }
            let slice = &messages[first..=members[members.len() - 1]];
            let sending = Sending::default();
            self.enqueue(slice, |index| members.binary_search(&(first + index)).is_ok(), first, &sending)?;
            let report = self.wait(&sending);
            if !report.is_clean() {
                return Ok((report, members.len() == 1));
            }
        }
        Ok((Report::default(), false))
    }

    /// The most bytes of a batch with more than one message.
    #[must_use]
    pub const fn batch(&self) -> usize {
        self.batch
    }

    /// Begins to send those of `messages` that `wanted` picks, to be reported by their places and `base`. Blocks while
    /// the queue is full.
    ///
    /// # Errors
    /// The producer is of no more use.
    pub fn enqueue(
        &self,
        messages: &[Message],
        wanted: impl Fn(usize) -> bool,
        base: usize,
        sending: &Sending,
    ) -> Result<(), KafkaError> {
        messages
            .iter()
            .enumerate()
            .filter(|(index, _)| wanted(*index))
            .try_for_each(|(index, message)| self.enqueue_one(message, base + index, &sending.0))
    }

    /// Blocks until all that `sending` counts is acknowledged or has failed. A transaction is over for this as soon as
    /// one has failed on its own account, as it is then doomed. (What it takes with it may be reported first, or only
    /// when its time is over.)
    #[must_use]
    pub fn wait(&self, sending: &Sending) -> Report {
        /// Between two looks at what nobody reports; a cause is reported before the next.
        const LOOK: Duration = Duration::from_millis(50);
        let is_over = |tally: &Tally| {
            let is_doomed = || self.is_transactional && tally.failed.iter().any(|(_, code)| !is_consequence(*code));
            tally.under_way == 0 || is_doomed()
        };
        let mut doom = None;
        loop {
            let waited = sending.0.changed.wait_timeout_while(sending.0.tally(), LOOK, |tally| !is_over(tally));
            let (mut tally, waited) = waited.unwrap_or_else(PoisonError::into_inner);
            let is_over = !waited.timed_out();
            if is_over && tally.failed.is_empty() {
                self.context.well();
            }
            if is_over || doom.is_some() {
                let (failed, last) = (std::mem::take(&mut tally.failed), tally.last);
                return Report { failed, last, doom: doom.filter(|_| !is_over) };
            }
            drop(tally);
            doom = self.is_transactional.then(|| self.doom()).flatten();
        }
    }

    /// The same for a producer without transactions, and without a thread that waits.
    pub async fn answered(&self, sending: &Sending) -> Report {
        loop {
            let answered = sending.0.answered.notified();
            {
                let mut tally = sending.0.tally();
                if tally.under_way == 0 {
                    if tally.failed.is_empty() {
                        self.context.well();
                    }
                    return Report { failed: std::mem::take(&mut tally.failed), last: tally.last, doom: None };
                }
            }
            answered.await;
        }
    }

    fn enqueue_one(&self, message: &Message, index: usize, waiting: &Arc<Waiting>) -> Result<(), KafkaError> {
        let headers = message
            .headers
            .iter()
            .fold(OwnedHeaders::new_with_capacity(message.headers.len()), |headers, (key, value)| {
                headers.insert(Header { key, value: Some(value) })
            });
        let mut record = BaseRecord::<[u8], [u8], _>::with_opaque_to(
            &message.topic,
            Box::new(Ticket { index, waiting: Arc::clone(waiting) }),
        );
        (record.partition, record.timestamp) = (message.partition, message.timestamp);
        (record.key, record.payload) = (message.key.as_deref(), message.value.as_deref());
        record.headers = (!message.headers.is_empty()).then_some(headers);
        waiting.tally().under_way += 1;
        loop {
            let (error, again) = match self.inner.send(record) {
                Ok(()) => return Ok(()),
                Err(refused) => refused,
            };
            match error.rdkafka_error_code() {
                Some(Code::QueueFull) if self.inner.in_flight_count() > 0 => {
                    let tally = waiting.tally();
                    // Someone else's messages may be what fills it, and they do not wake us.
                    drop(waiting.changed.wait_timeout(tally, Duration::from_millis(10)));
                    record = again;
                }
                Some(code) if self.inner.client().fatal_error().is_none() => {
                    // Alone too large for the queue is too large.
                    let code = if code == Code::QueueFull { Code::MessageSizeTooLarge } else { code };
                    let mut tally = waiting.tally();
                    tally.under_way -= 1;
                    tally.failed.push((index, code));
                    return Ok(());
                }
                _ => return Err(error),
            }
        }
    }

    /// The error that ended this producer's use, if one did.
    #[must_use]
    pub fn fatal(&self) -> Option<Code> {
        self.inner.client().fatal_error().map(|(code, _)| code)
    }

    /// What it has to say beside its answers.
    #[must_use]
    pub const fn context(&self) -> &Context {
        &self.context
    }

    /// Takes the transactional id over: fences whoever had it, ends the transaction that was open under it, and
    /// returns once that is done. Blocks.
    ///
    /// # Errors
    /// The cluster does not answer, or refuses.
    pub fn begin_anew(&self) -> Result<(), KafkaError> {
        self.inner.init_transactions(super::ANSWER_WITHIN * 3)
    }

    /// Begins a transaction; asks nobody.
    ///
    /// # Errors
    /// There is one, or the producer is of no more use.
    pub fn begin(&self) -> Result<(), KafkaError> {
        self.inner.begin_transaction()
    }

    /// Adds to the open transaction what a bookmark is to say. Blocks.
    ///
    /// # Errors
    /// The transaction must be aborted, or the producer is of no more use.
    pub fn mark(&self, bookmark: &Bookmark, offset: i64, text: &str) -> Result<(), KafkaError> {
        let offsets = bookmark.offsets(offset, text)?;
        self.until_answered(super::ANSWER_WITHIN, |timeout| {
            self.inner.send_offsets_to_transaction(&offsets, bookmark.group(), timeout)
        })
    }

    /// Commits. To be called once all messages are acknowledged: otherwise it waits in slices of 100 ms. Blocks.
    ///
    /// # Errors
    /// The transaction must be aborted, or its fate is unknown, or the producer is of no more use.
    pub fn commit(&self) -> Result<(), KafkaError> {
        self.until_answered(super::ANSWER_WITHIN, |timeout| self.inner.commit_transaction(timeout))
    }

    /// What dooms the transaction that is open, if something does: of messages it may have told only that they were
    /// purged. Asks nobody.
    #[must_use]
    pub fn doom(&self) -> Option<KafkaError> {
        match self.inner.begin_transaction() {
            Err(KafkaError::Transaction(error)) if error.txn_requires_abort() => Some(KafkaError::Transaction(error)),
            _ => None,
        }
    }

    /// Aborts: nobody who reads committed records will ever see what was sent. Blocks.
    ///
    /// # Errors
    /// The producer is of no more use.
    pub fn abort(&self) -> Result<(), KafkaError> {
        // Asked again soon: what the client has missed of its queue when it was emptied it only finds when asked again.
        self.until_answered(Duration::from_millis(100), |timeout| self.inner.abort_transaction(timeout))
    }

    /// Asks again where asking again is what is to be done, for a minute: a coordinator may be moving. Not where only
    /// another client can mend it.
    fn until_answered(
        &self,
        slice: Duration,
        ask: impl Fn(Duration) -> Result<(), KafkaError>,
    ) -> Result<(), KafkaError> {
        let deadline = Instant::now() + Duration::from_secs(60);
        loop {
            match ask(slice) {
                Err(KafkaError::Transaction(error))
                    if error.is_retriable() && Instant::now() < deadline && !self.context.is_outdated() => {}
                result => return result,
            }
        }
    }
}

/// Messages that are being sent.
#[derive(Debug, Default)]
pub struct Sending(Arc<Waiting>);

/// Counts messages that are under way.
#[derive(Debug, Default)]
struct Waiting {
    tally: Mutex<Tally>,
    /// For a thread that waits.
    changed: Condvar,
    /// For a task: all is answered.
    answered: Notify,
}

#[derive(Debug, Default)]
struct Tally {
    under_way: usize,
    failed: Vec<(usize, Code)>,
    last: Option<(usize, i64)>,
}

impl Waiting {
    /// Two numbers cannot be left half-written.
    fn tally(&self) -> MutexGuard<'_, Tally> {
        self.tally.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Which message a report is of.
pub struct Ticket {
    index: usize,
    waiting: Arc<Waiting>,
}

impl ProducerContext for Context {
    type DeliveryOpaque = Box<Ticket>;

    fn delivery(&self, result: &DeliveryResult<'_>, ticket: Box<Ticket>) {
        let mut tally = ticket.waiting.tally();
        tally.under_way -= 1;
        match result {
            Ok(message) if message.offset() >= 0 => tally.last = tally.last.max(Some((ticket.index, message.offset()))),
            Ok(_) => {}
            Err((error, _)) => tally.failed.push((ticket.index, error.rdkafka_error_code().unwrap_or(Code::Fail))),
        }
        if tally.under_way == 0 || result.is_err() {
            let is_over = tally.under_way == 0;
            drop(tally);
            ticket.waiting.changed.notify_all();
            if is_over {
                ticket.waiting.answered.notify_one();
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::metrics::SinkReason;

    fn producer(transactional_id: Option<&str>) -> Producer {
        let brokers = vec!["127.0.0.1:1".to_owned()];
        let cluster =
            ClusterConfig { brokers, tls: None, sasl: None, properties: std::collections::BTreeMap::default() };
        Producer::new(&cluster, &[], None, transactional_id).unwrap()
    }

    /// In a transaction one refusal fails all that comes after it, which is nothing against those.
    #[test]
    fn a_report_tells_causes_from_consequences() {
        let (transactional, plain) = (producer(Some("t")), producer(None));
        let refused =
            |failed: &[(usize, Code)]| Report { failed: failed.to_vec(), ..Report::default() }.refused(&transactional);
        let too_large = refused(&[(4, Code::State), (2, Code::MessageSizeTooLarge), (3, Code::PurgeQueue)]).unwrap();
        assert_eq!(too_large.iter().map(|refused| refused.index).collect::<Vec<_>>(), [2]);
        assert_eq!(too_large[0].reason, DeadLetterReason::TooLarge);
        let failed = refused(&[(1, Code::MessageSizeTooLarge), (2, Code::TopicAuthorizationFailed)]).unwrap_err();
        assert_eq!(failed.reason, SinkReason::Refused, "first what may pass, then what is refused");
        assert!(refused(&[(1, Code::PurgeQueue)]).is_err(), "nor is it delivered");
        assert_eq!(refused(&[]).unwrap(), []);
        let mixed = Report { failed: vec![(4, Code::PurgeQueue), (2, Code::MessageSizeTooLarge)], ..Report::default() };
        assert!(mixed.refused(&plain).is_err(), "what failed beside it is not delivered");
    }

    #[test]
    fn a_size_is_what_the_broker_counts() {
        let message = Message {
            key: Some(vec![0; 3]),
            value: Some(vec![0; 10]),
            headers: vec![("a", "bc".to_owned())],
            ..Message::default()
        };
        // 61 bytes of head; length, attributes, time, offset, key, value, headers, each with a byte of length here.
        assert_eq!(message.size(), 61 + (1 + 1 + 1 + 1) + (1 + 3) + (1 + 10) + 1 + (1 + 1 + 1 + 2));
        assert_eq!(Message::default().size(), 61 + 4 + 1 + 1 + 1, "no key, no value, no headers");
        for (length, bytes) in [(0, 1), (63, 1), (64, 2), (8191, 2), (8192, 3), (1 << 20, 4)] {
            assert_eq!(varint(length), bytes, "{length}");
        }
    }
}
