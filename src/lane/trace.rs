//! A lane's spans: a window from asking for it to its last commit, and within it each delivery and commit.

use std::future::Future;

use tracing::{Instrument, Span};

use super::{Lane, LaneError};
use crate::checkpoint::kafka::TransactError;
use crate::dead_letter::Refused;
use crate::feed::WindowRead;
use crate::sink::SinkError;
use crate::state::admit::New;
use crate::state::cursor::Pass;
use crate::telemetry::spans::{self, WindowOutcome};
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
            Self::Stored(_) | Self::OtherLog { .. } | Self::Checkpoint(_) => "checkpoint",
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
            Self::Beside => "beside",
            Self::Failed(failure) => failure.reason.label(),
            Self::Lost => "lost",
        }
    }
}

impl Lane {
    /// The span of a window, to be begun when it is asked for.
    pub(super) fn trace(&self, window: Window, pass: Pass) -> spans::Window {
        let pass = match pass {
            Pass::Live => "live",
            Pass::Sweep(_) => "sweep",
        };
        spans::Window::new(&self.feed.stream.name, &self.sink_name, window, pass)
    }

    /// Does a window's `step` in its span.
    pub(super) async fn traced(
        &self,
        trace: &mut spans::Window,
        read: &WindowRead,
        step: impl Future<Output = Result<(), LaneError>>,
    ) -> Result<(), LaneError> {
        trace.read_in(&read.place);
        let result = step.instrument(trace.span()).await;
        match &result {
            Ok(()) => trace.ended(WindowOutcome::Committed),
            Err(error) => trace.failed(error.reason()),
        }
        result
    }

    /// Delivers `part` in a span of its own, unless there is nothing in it.
    pub(super) async fn delivering<E: Reason>(
        &self,
        part: &[New],
        exactly_once: bool,
        delivery: impl Future<Output = Result<Vec<Refused>, E>>,
    ) -> Result<Vec<Refused>, E> {
        let span = match part.len() {
            0 => Span::none(),
            events => spans::deliver(&self.feed.stream.name, &self.sink_name, events, exactly_once),
        };
        let result = delivery.instrument(span.clone()).await;
        match &result {
            Ok(refused) => spans::refused(&span, refused.len()),
            Err(error) => spans::failed(&span, error.reason()),
        }
        result
    }

    /// Commits in a span of its own.
    pub(super) async fn committing<T, E: Reason>(&self, commit: impl Future<Output = Result<T, E>>) -> Result<T, E> {
        let span = spans::commit(&self.feed.stream.name, &self.sink_name);
        let result = commit.instrument(span.clone()).await;
        if let Err(error) = &result {
            spans::failed(&span, error.reason());
        }
        result
    }
}
