//! A lane's spans: a window from asking for it to its last commit, and within it each delivery and commit.

use std::future::Future;

use tracing::{Instrument, Span};

use super::{Lane, LaneError};
use crate::checkpoint::kafka::TransactError;
use crate::dead_letter::Refused;
use crate::sink::SinkError;
use crate::spans;
use crate::state::admit::New;
use crate::state::schedule::Pass;
use crate::window::Window;

/// Why something failed, as a value of the attribute `error.type`: a closed set.
pub(super) trait Reason {
    fn reason(&self) -> &'static str;
}

impl Reason for SinkError {
    fn reason(&self) -> &'static str {
        Self::reason(self).label()
    }
}

impl Reason for LaneError {
    fn reason(&self) -> &'static str {
        match self {
            Self::Sink(error) => Reason::reason(error),
            Self::Stored(_) | Self::OtherLog { .. } | Self::OtherQuestion { .. } | Self::Checkpoint(_) => "checkpoint",
            Self::NotDrained => "not_drained",
            Self::Lost => "lost",
        }
    }
}

impl Reason for TransactError {
    fn reason(&self) -> &'static str {
        match self {
            // The transaction was aborted, and the next one leaves out whatever it was.
            Self::Suspected | Self::Refused(_) => "events_refused",
            Self::Beside | Self::Unfounded => "beside",
            Self::Failed(failure) => failure.reason.label(),
            Self::Lost => "lost",
        }
    }
}

impl Lane {
    /// The span of a window, to be begun when it is asked for.
    pub(super) fn trace(&self, window: Window, pass: Pass) -> spans::Window {
        let pass = match pass {
            Pass::Live | Pass::Fore => "live",
            Pass::Sweep(_) => "sweep",
            Pass::Backfill(_) => "backfill",
        };
        spans::Window::new(&self.feed.stream.name, &self.sink_name, window, pass)
    }

    /// The span of a delivery of `part`, unless there is nothing in it.
    pub(super) fn deliver_span(&self, part: &[New], exactly_once: bool) -> Span {
        match part.len() {
            0 => Span::none(),
            events => spans::deliver(&self.feed.stream.name, &self.sink_name, events, exactly_once),
        }
    }

    /// The span of a commit.
    pub(super) fn commit_span(&self) -> Span {
        spans::commit(&self.feed.stream.name, &self.sink_name)
    }

    /// Commits in a span of its own.
    pub(super) async fn committing<T, E: Reason>(&self, commit: impl Future<Output = Result<T, E>>) -> Result<T, E> {
        let span = self.commit_span();
        let result = commit.instrument(span.clone()).await;
        if let Err(error) = &result {
            spans::failed(&span, error.reason());
        }
        result
    }
}

/// Delivers in `span`, which then tells how that went.
pub(super) async fn delivered<E: Reason>(
    span: &Span,
    delivery: impl Future<Output = Result<Vec<Refused>, E>>,
) -> Result<Vec<Refused>, E> {
    let result = delivery.instrument(span.clone()).await;
    match &result {
        Ok(refused) => spans::refused(span, refused.len()),
        Err(error) => spans::failed(span, error.reason()),
    }
    result
}
