//! trailcast's spans: which there are, and all that can be in them. Each is declared here, with every attribute it may
//! have; the table in docs/operations.md is held against these declarations.
//!
//! | span | within | is |
//! | --- | --- | --- |
//! | `window` | nothing: a trace is one window of one lane | from asking for a window to its last commit |
//! | `request` | `window` | one HTTP request to an API |
//! | `deliver` | `window` | one try to hand a part to the sink; exactly once: all its tries |
//! | `commit` | `window`; exactly once: `deliver` | writing to the checkpoint; in Kafka: one try |
//!
//! An attribute is a name from the config, a count, a time, or from a closed set. Never a record, an id of a person, a
//! message of a server or an address with its query: what leaves through here is read by more people than the events.
//!
//! Spans are those of [`tracing`], at a target of their own, which the log leaves out. Where nobody takes them, one costs
//! an atomic load. There is one for a window, a request, a part: never for an event.

use std::sync::atomic::{AtomicBool, Ordering};

use opentelemetry::Context;
use opentelemetry::trace::{SpanContext, TraceContextExt, TraceId};
use tracing::Span;
use tracing::field::Empty;
use tracing_opentelemetry::OpenTelemetrySpanExt;

use crate::event::timestamp;
use crate::reading::Outcome;
use crate::window;

/// What the filter of the exporter asks for, and that of the log leaves out.
pub const TARGET: &str = "trailcast::span";

/// How a lane was done with a window: the closed set of values of `trailcast.outcome`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum WindowOutcome {
    /// What was new in it is delivered, or kept as dead letters, and committed.
    Committed,
    /// It held too much to be read at once: asked for again as shorter ones.
    TooFull,
    /// Read ahead in vain: the process ends, or something more urgent is due.
    Abandoned,
    /// The lane cannot go on: `error.type` says why.
    Failed,
}

impl WindowOutcome {
    /// Every value.
    pub const ALL: [Self; 4] = [Self::Committed, Self::TooFull, Self::Abandoned, Self::Failed];

    /// The attribute's value.
    #[must_use]
    pub const fn label(self) -> &'static str {
        match self {
            Self::Committed => "committed",
            Self::TooFull => "too_full",
            Self::Abandoned => "abandoned",
            Self::Failed => "failed",
        }
    }
}

/// The span `window`. Dropped without an end it was abandoned.
pub struct Window {
    span: Span,
    ended: AtomicBool,
}

impl Window {
    /// Begins as the lane asks for the window. `pass` is `live` or `sweep`.
    #[must_use]
    pub fn new(stream: &str, sink: &str, window: window::Window, pass: &'static str) -> Self {
        let span = tracing::info_span!(
            target: TARGET,
            parent: None,
            "window",
            trailcast.stream = stream,
            trailcast.sink = sink,
            trailcast.pass = pass,
            trailcast.window.from = %timestamp(window.from),
            trailcast.window.to = %timestamp(window.to),
            trailcast.reading = Empty,
            trailcast.records = Empty,
            trailcast.events = Empty,
            trailcast.outcome = Empty,
            error.type = Empty,
            otel.status_code = Empty,
        );
        Self { span, ended: AtomicBool::new(false) }
    }

    /// What is done for this window is done in this span.
    #[must_use]
    pub fn span(&self) -> Span {
        self.span.clone()
    }

    /// Points to where the window was read, if another lane's wish for it was first.
    pub fn read_in(&self, place: &Place) {
        let Some(read) = &place.0 else { return };
        if self.span.context().span().span_context().span_id() != read.span_id() {
            self.span.add_link(read.clone());
        }
    }

    /// Says how it ended; the first word counts.
    pub fn ended(&self, outcome: WindowOutcome) {
        if !self.ended.swap(true, Ordering::Relaxed) {
            self.span.record("trailcast.outcome", outcome.label());
        }
    }

    /// The lane cannot go on.
    pub fn failed(&self, reason: &'static str) {
        self.ended(WindowOutcome::Failed);
        failed(&self.span, reason);
    }
}

impl Drop for Window {
    fn drop(&mut self) {
        self.ended(WindowOutcome::Abandoned);
    }
}

/// The span `request`.
#[must_use]
pub fn request(stream: &str) -> Span {
    tracing::info_span!(
        target: TARGET,
        "request",
        otel.kind = "client",
        trailcast.stream = stream,
        http.request.method = "POST",
        server.address = Empty,
        http.response.status_code = Empty,
        trailcast.records = Empty,
        error.type = Empty,
        otel.status_code = Empty,
    )
}

/// The span `deliver`, of a part with so many events.
#[must_use]
pub fn deliver(stream: &str, sink: &str, events: usize, exactly_once: bool) -> Span {
    tracing::info_span!(
        target: TARGET,
        "deliver",
        otel.kind = "client",
        trailcast.stream = stream,
        trailcast.sink = sink,
        trailcast.events = count(events),
        trailcast.exactly_once = exactly_once,
        trailcast.refused = Empty,
        error.type = Empty,
        otel.status_code = Empty,
    )
}

/// The span `commit`.
#[must_use]
pub fn commit(stream: &str, sink: &str) -> Span {
    tracing::info_span!(
        target: TARGET,
        "commit",
        trailcast.stream = stream,
        trailcast.sink = sink,
        error.type = Empty,
        otel.status_code = Empty,
    )
}

/// What a span was for came to nothing. `reason` is a metric's label, or as closed a word.
pub fn failed(span: &Span, reason: &'static str) {
    span.record("error.type", reason);
    span.record("otel.status_code", "ERROR");
}

/// Of a `deliver`: the sink took the part, but for so many events that it refuses for good.
pub fn refused(span: &Span, events: usize) {
    span.record("trailcast.refused", count(events));
}

/// Of the `request` that this is called in: whom it is sent to.
pub fn sent_to(host: Option<&str>) {
    Span::current().record("server.address", host);
}

/// Of the `request` that this is called in: it has an answer.
pub fn answered(status: u16) {
    Span::current().record("http.response.status_code", i64::from(status));
}

/// Of the `request` that this is called in: the answer is a page.
pub fn listed(records: usize) {
    Span::current().record("trailcast.records", count(records));
}

/// Of the `window` that this is called in: it was read, by whom asked for it first.
pub fn read(outcome: Outcome, records: u64) {
    let span = Span::current();
    span.record("trailcast.reading", outcome.label());
    span.record("trailcast.records", i64::try_from(records).unwrap_or(i64::MAX));
}

/// Of the `window` that this is called in: so many of its events are new to the lane.
pub fn admitted(events: usize) {
    Span::current().record("trailcast.events", count(events));
}

/// A place in a trace, to point to from another trace; none outside of a trace that is kept.
#[derive(Debug, Clone, Default)]
pub struct Place(Option<SpanContext>);

impl Place {
    /// Where this is called.
    #[must_use]
    pub fn here() -> Self {
        let context = Context::current();
        let span = context.span().span_context().clone();
        Self((span.is_valid() && span.is_sampled()).then_some(span))
    }

    /// Its trace.
    #[must_use]
    pub fn trace(&self) -> Option<TraceId> {
        self.0.as_ref().map(SpanContext::trace_id)
    }
}

/// The bridge makes text of unsigned numbers.
fn count(events: usize) -> i64 {
    i64::try_from(events).unwrap_or(i64::MAX)
}
