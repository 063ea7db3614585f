"""Whether kcat, Python and Java saw the same events, each once, as many of each source as really happened."""

import collections
import json
import re
import sys
import urllib.request

URL, FOLDER = sys.argv[1:]
ID = re.compile("[0-9a-f]{32}")
HEADERS = {
    "ce_id", "ce_source", "ce_type", "ce_time", "ce_specversion", "content-type", "trailcast_stream", "trailcast_late"
}  # fmt: skip


def lines(name):
    with open(f"{FOLDER}/{name}", encoding="utf-8", newline="\n") as file:
        return [line.rstrip("\n") for line in file]


def truth(source):
    with urllib.request.urlopen(f"{URL}/truth?source={source}") as answer:
        return sum(1 for _ in answer)


def kcat():
    """Its own headers, and the event: %h and %s."""
    for line in lines("kcat"):
        headers, value = line.split("\t", 1)
        yield re.search(r"(?:^|,)ce_id=([^,]*)", headers)[1], json.loads(value)


def java():
    for line in lines("java"):
        record = json.loads(line)
        headers, value = record["headers"], json.loads(record["value"])
        if set(headers) != HEADERS:
            sys.exit(f"java: other headers than documented: {headers}")
        yield headers["ce_id"], value


def once(name, ids):
    """The set of ids; each is one and was seen once."""
    counts = collections.Counter(ids)
    wrong = [one for one, count in counts.items() if count > 1 or not ID.fullmatch(one)]
    if wrong:
        sys.exit(f"{name}: {len(wrong)} ids are none or were seen more than once: {wrong[:3]}")
    return set(counts)


seen = {"python": once("python", (line.split(" ")[0] for line in lines("python")))}
for name, events in (("kcat", list(kcat())), ("java", list(java()))):
    seen[name] = once(name, (id for id, _ in events))
    for id, value in events:
        if id != value["id"]:
            sys.exit(f"{name}: {id} is not the id of what it carries: {value}")
sources = collections.Counter(value["source"] for _, value in events)
for source in ("genauth", "scloud"):
    happened = truth(source)
    if sources[source] != happened or happened == 0:
        sys.exit(f"{source}: {sources[source]} events of {happened} records")
for name, ids in seen.items():
    if ids != seen["java"]:
        sys.exit(f"{name} saw other events than java: {list(ids ^ seen['java'])[:3]}")
    print(f"{name}: {len(ids)} events, each once")
