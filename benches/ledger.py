"""What arrived, compared with the simulator's truth ledger: as multisets, since equal records are several events. See
tests/it/ledger.rs, which does the same."""

from __future__ import annotations

import collections
import datetime
import json
from collections.abc import Iterable
from dataclasses import dataclass, field

# What identifies a record, in the ledger's order.
GENAUTH = ["userId", "appId", "clientIp", "eventType", "eventDetail", "success", "userAgent", "timestamp", "requestId"]
SCLOUD = [
    "Region", "Api", "IsSuccess", "OperateTime", "UserName", "UserEmail", "RelatedResource", "RemoteIP", "AccessKeyID",
]
_DECODER = json.JSONDecoder()


@dataclass(frozen=True)
class Event:
    """One in the format `native`."""

    id: str
    source: str
    # Milliseconds since the epoch.
    time: int
    # The record's own text, and what it holds.
    text: str
    record: object

    @classmethod
    def parse(cls, line: str) -> Event:
        """ValueError or KeyError if it is none."""
        frame = json.loads(line)
        # Quotes within strings are escaped, so this can only be the key; those before it hold no objects.
        begin = line.index('"record":') + len('"record":')
        record, end = _DECODER.raw_decode(line, begin)
        time = datetime.datetime.fromisoformat(frame["time"].replace("Z", "+00:00"))
        return cls(frame["id"], frame["source"], round(time.timestamp() * 1000), line[begin:end], record)


@dataclass
class Difference:
    """Everything is empty where each event arrived once and as it was."""

    expected: int = 0
    # Lines of the ledger.
    missing: list[dict] = field(default_factory=list)
    # Events of no record.
    invented: list[Event] = field(default_factory=list)
    # Events whose frame does not say what their record says, or whose id is another event's.
    altered: list[Event] = field(default_factory=list)
    # Ids that arrived more than once, with the same content; once for each time too many.
    repeated: list[str] = field(default_factory=list)


def compare(truth: Iterable[dict], until: int, events: Iterable[Event], since: str = "listed_at") -> Difference:
    """Of one source. What the API lists before `until` must be there; what it lists later may be. With `since` it is what can
    be read by then, however late."""
    truth = list(truth)
    odd = {line["raw"] for line in truth if line["raw"] is not None}
    difference = Difference()
    by_id: dict[str, str] = {}
    arrived: dict[str, list[Event]] = collections.defaultdict(list)
    for event in events:
        content = event.text if event.text in odd else _identity(event)
        first = by_id.setdefault(event.id, content)
        if first != content:
            difference.altered.append(event)
        elif any(event.id == other.id for other in arrived[content]):
            difference.repeated.append(event.id)
        else:
            arrived[content].append(event)
    # Those that must be there first, so that one that may is not taken for one that must.
    for line in sorted(truth, key=lambda line: line[since] >= until):
        must = line[since] < until
        difference.expected += must
        content = json.dumps(line["identity"]) if line["raw"] is None else line["raw"]
        if not arrived[content]:
            difference.missing += [line] * must
            continue
        event = arrived[content].pop()
        if line["time"] is not None and line["time"] != event.time:
            difference.altered.append(event)
    difference.invented = [event for events in arrived.values() for event in events]
    return difference


def _identity(event: Event) -> str:
    """As the ledger writes it. One that is neither odd nor as documented equals nothing that happened."""
    record = event.record if isinstance(event.record, dict) else {}
    if event.source == "genauth":
        values = [record.get(name) for name in GENAUTH]
        values[7] = instant(values[7])
    else:
        values = [record.get(name) for name in SCLOUD]
        at = instant(values[3])
        values[3] = values[3] if at is None else at // 1000
        resources = values[6] if isinstance(values[6], list) else []
        values[6] = [resource.get("ResourceId") for resource in resources if isinstance(resource, dict)]
    return json.dumps(values)


def instant(written: object) -> int | None:
    """Milliseconds since the epoch of text, of seconds or milliseconds, or of a text of them."""
    try:
        number = float(written)  # type: ignore[arg-type]
    except (TypeError, ValueError):
        try:
            return round(datetime.datetime.fromisoformat(str(written).replace("Z", "+00:00")).timestamp() * 1000)
        except ValueError:
            return None
    return round(number * 1000 if number < 1e11 else number)
