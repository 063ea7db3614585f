//! trailcast's own format: the record untouched inside a thin frame.

use serde_json::value::RawValue;

use super::json::Members;
use crate::normalize::{Event, Problem};
use crate::record::time::Rfc3339;

/// Every event has every member, but for `error`; what the record does not say is `null`.
pub(super) fn members(event: &Event<'_>, to: &mut Members<'_>) {
    to.put("id", &event.id);
    to.put("source", event.stream.identity.source.name());
    to.put("tenant", &event.stream.identity.tenant);
    to.put("stream", &event.stream.name);
    to.put("time", &Rfc3339(event.time));
    to.put("late", &event.late);
    to.put("ordinal", &event.ordinal);
    to.put("type", &event.action);
    to.put("actor", &event.user.handle());
    to.put("client_ip", &event.client.address);
    to.put("success", &event.success);
    to.some("error", event.problem.map(Problem::name));
    if is_json(event) {
        to.json("record", &event.raw);
    } else {
        to.put("record", &event.raw);
    }
}

/// Text that was read as a record is JSON; other text may be all the same.
fn is_json(event: &Event<'_>) -> bool {
    event.problem != Some(Problem::NotARecord) || serde_json::from_str::<&RawValue>(&event.raw).is_ok()
}
