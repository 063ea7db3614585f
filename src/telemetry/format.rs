//! Log lines as the subscriber of `tracing` writes them, and the trace that they belong to, where there is one.

use std::fmt;

use tracing::{Event, Subscriber};
use tracing_subscriber::field::RecordFields;
use tracing_subscriber::fmt::format::{DefaultFields, Format, Json, JsonFields, Writer};
use tracing_subscriber::fmt::time::SystemTime;
use tracing_subscriber::fmt::{FmtContext, FormatEvent, FormatFields};
use tracing_subscriber::registry::LookupSpan;

use crate::spans::Place;

/// Fields of a line of text, with `trace_id` behind the last.
pub(super) struct TextFields(DefaultFields);

impl TextFields {
    pub(super) fn new() -> Self {
        Self(DefaultFields::new())
    }
}

impl<'writer> FormatFields<'writer> for TextFields {
    fn format_fields<R: RecordFields>(&self, mut writer: Writer<'writer>, fields: R) -> fmt::Result {
        self.0.format_fields(writer.by_ref(), fields)?;
        match Place::here().trace() {
            Some(trace) => write!(writer, " trace_id={trace}"),
            None => Ok(()),
        }
    }
}

/// A line of JSON, with `trace_id` as its last member.
pub(super) struct JsonLine(pub(super) Format<Json, SystemTime>);

impl<S> FormatEvent<S, JsonFields> for JsonLine
where
    S: Subscriber + for<'lookup> LookupSpan<'lookup>,
{
    fn format_event(
        &self,
        context: &FmtContext<'_, S, JsonFields>,
        mut writer: Writer<'_>,
        event: &Event<'_>,
    ) -> fmt::Result {
        let Some(trace) = Place::here().trace() else { return self.0.format_event(context, writer, event) };
        let mut line = String::new();
        self.0.format_event(context, Writer::new(&mut line), event)?;
        let members = line.trim_end().strip_suffix('}').ok_or(fmt::Error)?;
        writeln!(writer, "{members},\"trace_id\":\"{trace}\"}}")
    }
}
