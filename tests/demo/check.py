"""Checks what `trailcast demo` printed: usage: check.py FILE LEAST

Every line is a JSON object with an OCSF id of its own, both sources are there, and so are at least LEAST events.
"""

import collections
import json
import sys

path, least = sys.argv[1], int(sys.argv[2])
with open(path, encoding="utf-8") as file:
    text = file.read()
assert text.endswith("\n"), "the last line is torn"
events = [json.loads(line) for line in text.splitlines()]

ids = collections.Counter(event["metadata"]["uid"] for event in events)
repeated = [uid for uid, count in ids.items() if count > 1]
assert not repeated, f"{len(repeated)} ids came more than once: {repeated[:5]}"
assert all(len(uid) == 32 and set(uid) <= set("0123456789abcdef") for uid in ids), "an id is no 32 hex characters"

sources = collections.Counter(event["metadata"]["product"]["name"] for event in events)
assert len(sources) == 2, f"both sources are expected: {sources}"
assert len(events) >= least, f"{len(events)} events, at least {least} expected"
print(f"{len(events)} events, each id once: {dict(sources)}")
