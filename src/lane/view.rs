//! What others see of a lane: metrics, status, and one line in the log where its state changes.

use std::sync::{MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use super::Lane;
use super::voice::{Say, Voice};
use crate::clock;
use crate::config::units;
use crate::dead_letter::{DeadLetterReason, Refused};
use crate::event::Millis;
use crate::feed::WindowRead;
use crate::metrics::SinkReason;
use crate::reading::Gap;
use crate::sink::{Sink, deleted_at_once};
use crate::state::admit::{self, New};
use crate::state::cursor::Cursor;
use crate::state::known::Known;
use crate::telemetry::chain;

impl Lane {
    /// What is known of the API once `read` is delivered; said where it is new.
    pub(super) fn learn(&self, known: &Known, read: &WindowRead) -> Known {
        let stream = &self.feed.stream.name;
        let mut next = known.clone();
        let (skew, outside) = admit::skew(read.window, self.feed.schedule.unit, &read.found);
        self.feed.metrics.outside(outside);
        if outside > 0 && !self.feed.tell_outside() {
            tracing::warn!(
                stream,
                outside,
                "the API does not go by the time that its records show: what it lists for a window is delivered, \
                 whatever time it shows, and remembered for longer"
            );
        }
        next.saw(skew);
        next.witness = read.witness.or(next.witness);
        // What the API has hidden of windows before this one is a gap of each lane, whichever reading showed it.
        self.add_gaps(&mut next, read.gaps.iter().copied().chain(self.feed.hidden()));
        next
    }

    /// Counts, shows and tells those that are new. Whether any is.
    pub(super) fn add_gaps(&self, known: &mut Known, gaps: impl Iterator<Item = Gap>) -> bool {
        let before = known.gaps.len();
        let new: Vec<Gap> = gaps.filter(|gap| known.add_gap(*gap)).collect();
        self.gave_up(&new);
        // One that grows is told once.
        if let Some(first) = new.first().filter(|_| known.gaps.len() > before) {
            let (stream, sink) = (&self.feed.stream.name, &self.sink_name);
            let (new, gaps, reason) = (new.len(), known.gaps.len(), first.reason.label());
            let (from, to) = (time(first.from), time(first.to));
            tracing::error!(
                stream, sink, new, gaps, %from, %to, reason, "gaps are kept: `trailcast cursor show` lists them"
            );
        }
        !new.is_empty()
    }

    /// The first records came behind what was said to be empty.
    pub(super) fn tell_heard(&self, cursor: &Cursor) {
        tracing::info!(
            stream = self.feed.stream.name, sink = self.sink_name, from = %time(cursor.floor()),
            "the API lists its first records: what it called empty before them is read once more"
        );
    }

    /// Counts and shows parts of the log that are given up.
    pub(super) fn gave_up(&self, gaps: &[Gap]) {
        self.metrics.gaps(gaps.len() as u64);
        gaps.iter().for_each(|gap| self.board.gave_up(*gap));
    }

    /// If events are about to be written to where they are deleted at once, that is said before it happens.
    pub(super) async fn warn_of_deletion(&self, cursor: &Cursor) {
        let Sink::Kafka(kafka) = &*self.sink else { return };
        // A topic that cannot be looked up is told of when it is needed.
        let Ok(topic) = kafka.look_up().await else { return };
        if let Some(doubt) = deleted_at_once(&topic, self.feed.now().sure - cursor.live) {
            tracing::warn!(stream = self.feed.stream.name, sink = self.sink_name, "{doubt}");
        }
    }

    /// Counts what is kept as dead letters, and says so: once for each reason, however many there are.
    pub(super) fn tell_refused(&self, part: &[New], refused: &[Refused]) {
        for reason in DeadLetterReason::ALL {
            let mut of_reason = refused.iter().filter(|refused| refused.reason == reason).peekable();
            let Some(first) = of_reason.peek() else { continue };
            let (stream, sink, id) = (&self.feed.stream.name, &self.sink_name, part[first.index].admitted.id);
            let (message, reason_label) = (&first.message, reason.label());
            let count = of_reason.inspect(|_| self.metrics.dead_letter(reason)).count();
            tracing::error!(
                stream, sink, count, reason = reason_label, first = %id,
                "refused for good, kept as dead letters: {message}"
            );
        }
    }

    pub(super) fn count(&self, part: &[New], refused: &[Refused], read: &WindowRead) {
        let delivered = (part.len() - refused.len()) as u64;
        self.metrics.delivered(delivered);
        self.board.delivered(delivered);
        let kept = |index: &usize| refused.iter().all(|refused| refused.index != *index);
        let late = part.iter().enumerate().filter(|(index, new)| new.admitted.late && kept(index)).map(|(_, new)| new);
        self.metrics.late(late.clone().count() as u64);
        for new in late {
            let lateness = u64::try_from(read.read_at - new.admitted.time).unwrap_or(0);
            self.feed.metrics.late(Duration::from_millis(lateness));
        }
        self.metrics.committed(clock::now());
    }

    pub(super) fn show(&self, cursor: &Cursor) {
        self.feed.metrics.set_read_through(cursor.live);
        self.feed.board.set_read_through(cursor.live);
        self.metrics.set_delivered_through(cursor.live);
        self.metrics.set_verified_through(cursor.floor());
        self.board.set_delivered_through(cursor.live);
        self.board.set_verified_through(cursor.floor());
        self.board.set_gaps(cursor.known.gaps.len());
        let sweep = |(&age, &mark): (&Millis, &Millis)| {
            (format!("sweep {}", units::duration_text(Duration::from_millis(age.unsigned_abs()))), mark)
        };
        let passes = std::iter::once(("live".to_owned(), cursor.live)).chain(cursor.sweeps.iter().map(sweep));
        self.board.set_passes(passes.collect());
    }

    /// The same, where that is further back than what was shown.
    pub(super) fn show_back(&self, cursor: &Cursor) {
        self.feed.metrics.put_read_through_back(cursor.live);
        self.feed.board.put_read_through_back(cursor.live);
        self.show(cursor);
    }

    pub(super) fn failing(&self, reason: SinkReason, error: &dyn std::error::Error) {
        self.metrics.sink_error(reason);
        let error = chain(error);
        let say = self.voice().failed(reason, Instant::now());
        let (stream, sink, reason_label) = (&self.feed.stream.name, &self.sink_name, reason.label());
        match say {
            Some(Say::First) => {
                tracing::error!(stream, sink, reason = reason_label, "could not deliver all, trying again: {error}");
            }
            Some(Say::Still { times, since }) => {
                let since = units::duration_text(since);
                tracing::error!(
                    stream,
                    sink,
                    reason = reason_label,
                    "still could not deliver all: {times} failures in {since}, the last: {error}"
                );
            }
            None => {}
        }
        self.board.failing(reason, error);
    }

    pub(super) fn recovered(&self) {
        let recovered = self.voice().worked(Instant::now());
        if recovered {
            tracing::info!(stream = self.feed.stream.name, sink = self.sink_name, "delivers and commits again");
            self.board.ok();
        }
    }

    pub(super) fn voice(&self) -> MutexGuard<'_, Voice> {
        self.voice.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

pub(super) fn time(millis: Millis) -> jiff::Timestamp {
    jiff::Timestamp::from_millisecond(millis).unwrap_or_default()
}
