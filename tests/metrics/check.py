"""Asks a running trailcast's endpoints: usage: check.py ADDRESS FILE

Waits until events were delivered, checks /livez /readyz /status and their refusals, and writes /metrics to FILE.
"""

import json
import sys
import time
import urllib.error
import urllib.request

address, path = sys.argv[1:]


def get(what, accept="*/*"):
    request = urllib.request.Request(f"http://{address}{what}", headers={"Accept": accept})
    try:
        with urllib.request.urlopen(request, timeout=10) as response:
            return response.status, response.headers["Content-Type"], response.read().decode()
    except urllib.error.HTTPError as error:
        return error.code, error.headers["Content-Type"], error.read().decode()


def delivered(metrics):
    lines = (line for line in metrics.splitlines() if line.startswith("trailcast_events_delivered_total{"))
    return [float(line.rsplit(" ", 1)[1]) for line in lines]


deadline = time.monotonic() + 60
while True:
    status, kind, metrics = get("/metrics")
    assert status == 200 and kind.startswith("text/plain; version=0.0.4"), (status, kind)
    counts = delivered(metrics)
    if len(counts) == 2 and all(counts):
        break
    assert time.monotonic() < deadline, f"nothing delivered in a minute:\n{metrics}"
    time.sleep(0.2)
with open(path, "w", encoding="utf-8") as file:
    file.write(metrics)

assert get("/livez")[0] == 200
assert get("/readyz")[0] == 200
status, kind, body = get("/status")
assert status == 200 and kind == "application/json", (status, kind)
# Its form is the unit tests' affair.
assert {"users", "cloud"} <= set(json.dumps(json.loads(body)).split('"')), body
status, kind, body = get("/status", accept="text/html")
assert status == 200 and kind.startswith("text/html") and "users" in body, (status, kind)
assert get("/")[0] == 404
print(f"/metrics /livez /readyz /status answer; {sum(counts):.0f} events delivered")
