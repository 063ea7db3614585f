//! What others see of a lane: metrics, status, and one line in the log where its state changes.

use std::fmt::Display;
use std::sync::{MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use super::Lane;
use super::voice::{Count, Say, Voice};
use crate::clock;
use crate::config::units;
use crate::dead_letter::{DeadLetterReason, Refused};
use crate::event::{Millis, timestamp};
use crate::feed::WindowRead;
use crate::metrics::SinkReason;
use crate::reading::Gap;
use crate::sink::{Sink, deleted_at_once};
use crate::state::admit::{self, New};
use crate::state::cursor::Cursor;
use crate::state::known::{Known, Noted};
use crate::window::Window;
use crate::words::chain;

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

    /// Counts, shows and tells those that are new. Whether any is, or one has grown.
    pub(super) fn add_gaps(&self, known: &mut Known, gaps: impl Iterator<Item = Gap>) -> bool {
        let (new, noted) = self.note_gaps(known, gaps);
        // One that grows is told once.
        if let Some(first) = new.first() {
            let (stream, sink) = (&self.feed.stream.name, &self.sink_name);
            let (new, gaps, reason) = (new.len(), known.gaps.len(), first.reason.label());
            let (from, to) = (timestamp(first.from), timestamp(first.to));
            tracing::error!(
                stream, sink, new, gaps, %from, %to, reason,
                "what lies between is given up and kept as a gap: {}", read_again(stream, sink, first.from)
            );
        }
        noted
    }

    /// Counts and shows gaps that are new, or grow. Those that are new, and whether any was either.
    pub(super) fn note_gaps(&self, known: &mut Known, gaps: impl Iterator<Item = Gap>) -> (Vec<Gap>, bool) {
        let mut new = Vec::new();
        let mut noted = false;
        for gap in gaps {
            match known.add_gap(gap) {
                Noted::Known => continue,
                Noted::Grows => {}
                Noted::New => new.push(gap),
            }
            noted = true;
            self.board.gave_up(gap);
        }
        self.metrics.gaps(new.len() as u64);
        (new, noted)
    }

    /// Says at its start what runs before have given up.
    pub(super) fn tell_old_gaps(&self, cursor: &Cursor) {
        let Some((first, last)) = cursor.known.gaps.first().zip(cursor.known.gaps.last()) else { return };
        let (stream, sink, gaps) = (&self.feed.stream.name, &self.sink_name, cursor.known.gaps.len());
        tracing::warn!(
            stream, sink, gaps, from = %timestamp(first.from), to = %timestamp(last.to),
            "the cursor keeps gaps of runs before, within what lies between: {}", read_again(stream, sink, first.from)
        );
    }

    /// The first records came behind what was said to be empty.
    pub(super) fn tell_heard(&self, cursor: &Cursor) {
        tracing::info!(
            stream = self.feed.stream.name, sink = self.sink_name, from = %timestamp(cursor.floor()),
            "the API lists its first records: what it called empty before them is read once more"
        );
    }

    /// The live pass is far behind, or begins.
    pub(super) fn tell_history(&self, cursor: &Cursor, history: Window) {
        tracing::info!(
            stream = self.feed.stream.name, sink = self.sink_name,
            from = %timestamp(history.from), to = %timestamp(history.to),
            "the lane is behind: what is new comes first, and the backfill reads what lies between"
        );
        self.show(cursor);
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

    /// Counts what is kept as dead letters, and says so: for each reason at once, and then summed up now and then.
    pub(super) fn tell_refused(&self, part: &[New], refused: &[Refused]) {
        let kinds = DeadLetterReason::ALL.into_iter().flat_map(|reason| [(reason, true), (reason, false)]);
        for (reason, sent) in kinds {
            let of_kind = |refused: &&Refused| (refused.reason, refused.sent) == (reason, sent);
            let Some(first) = refused.iter().find(of_kind) else { continue };
            let count = refused.iter().filter(of_kind).inspect(|_| self.metrics.dead_letter(reason)).count() as u64;
            self.board.dead_letters(count);
            let Some(said) = self.voice().refused(reason, sent, count, Instant::now()) else { continue };
            let (stream, sink, id) = (&self.feed.stream.name, &self.sink_name, part[first.index].admitted.id);
            let (message, reason, Count { new: count, total }) = (&first.message, reason.label(), said);
            let what = if sent { "refused for good" } else { "not sent" };
            let again = if total > count { "more events are " } else { "" };
            tracing::error!(stream, sink, count, total, reason, one = %id, "{again}{what}, kept as dead letters: {message}");
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
        self.metrics.set_delivered_through(cursor.delivered_through());
        self.metrics.set_verified_through(cursor.floor());
        self.board.set_delivered_through(cursor.delivered_through());
        self.board.set_verified_through(cursor.floor());
        self.metrics.set_gaps(cursor.known.gaps.len());
        self.board.set_gaps(&cursor.known.gaps);
        let sweep = |(&age, &mark): (&Millis, &Millis)| {
            (format!("sweep {}", units::duration_text(Duration::from_millis(age.unsigned_abs()))), mark)
        };
        // Of several the one that is furthest behind.
        let backfill = cursor.history().map(|rest| rest.from).min().map(|mark| ("backfill".to_owned(), mark));
        let passes =
            std::iter::once(("live".to_owned(), cursor.live)).chain(backfill).chain(cursor.sweeps.iter().map(sweep));
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
            Some(Say::First) if reason.may_pass() => {
                tracing::warn!(stream, sink, reason = reason_label, "could not deliver all, trying again: {error}");
            }
            Some(Say::First) => {
                tracing::error!(stream, sink, reason = reason_label, "could not deliver all, trying again: {error}");
            }
            Some(Say::Still { times, since }) => {
                let since = units::passed_text(since);
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
            tracing::info!(
                stream = self.feed.stream.name,
                sink = self.sink_name,
                "the lane delivers and commits again"
            );
            self.board.ok();
        }
    }

    pub(super) fn voice(&self) -> MutexGuard<'_, Voice> {
        self.voice.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What to do about a gap that begins at `from`, in short; docs/gaps.md says more.
fn read_again(stream: &str, sink: &str, from: Millis) -> String {
    format!(
        "`trailcast cursor show` lists gaps; once the cause is mended, `{}` reads that again",
        cursor_set(stream, sink, timestamp(from))
    )
}

/// What a person types so that a lane reads again from that time.
#[must_use]
pub fn cursor_set(stream: &str, sink: &str, to: impl Display) -> String {
    format!("trailcast cursor set -c FILE --stream {stream} --sink {sink} --to {to}")
}
