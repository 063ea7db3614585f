"""The delay from the moment the API first shows a record to its line on stdout."""

import datetime
import json
import os
import signal
import subprocess
import threading
import time
import urllib.parse

import line
from line import Exporter, Simulator, folder

RATE = 100
SECONDS = 75
LATE_MAX = 8


def steady(args):
    for poll, latency, concurrency in [(10, 0, 4), (1, 0, 4), (10, 50, 4), (10, 50, 16)]:
        measure(args, poll, latency, concurrency)
        if args.quick:
            break


def measure(args, poll, latency, concurrency):
    # Late records come within `overlap`, which the live pass reads again at each poll.
    simulate = ["--rate", RATE, "--start", "1s", "--late-share", 0.2, "--late-max", f"{LATE_MAX}s",
                "--latency", f"{latency}ms"]
    with folder() as path, Simulator(args.trailcast, *simulate) as simulator:
        run = Exporter(args.trailcast, simulator, path, start="1s", concurrency=concurrency, output="native",
                       stream={"poll_interval": f"{poll}s", "overlap": "10s"})
        spawned = 1000 * time.time()
        process = run.spawn(stdout=subprocess.PIPE)
        arrivals = []
        reader = threading.Thread(target=collect, args=(process.stdout, arrivals), daemon=True)
        with line.watchdog(process, SECONDS + 60):
            reader.start()
            time.sleep(5)
            before = simulator.stats("genauth")["requests"]
            began = time.time()
            time.sleep(SECONDS)
            calls = 60 * (simulator.stats("genauth")["requests"] - before) / (time.time() - began)
            # What is readable by now must be written by then.
            until = time.time() * 1000
            time.sleep(2 * poll + 3)
            process.send_signal(signal.SIGTERM)
            process.wait(30)
        reader.join(5)
        truth = readable(simulator)
    delays, missing, late = [], [], 0
    written = {}
    for at, text in arrivals:
        for event in text.splitlines():
            written.setdefault(identity(json.loads(event)), at)
    for key, (readable_at, was_late) in truth.items():
        happened = json.loads(key)[FIELDS.index("timestamp")]
        # What happened before the exporter's start is not its to deliver.
        if happened < spawned or not 1000 * began <= readable_at <= until:
            continue
        if key in written:
            delays.append(1000 * written[key] - readable_at)
            late += was_late
        else:
            missing.append((happened, readable_at))
    delays.sort()

    def percentile(share):
        return delays[min(len(delays) - 1, int(share * len(delays)))]

    print(f"steady: {RATE}/s, 20 % late by up to {LATE_MAX} s (overlap 10 s), poll {poll} s, "
          f"API {latency} ms, concurrency {concurrency}")
    print(f"  readable to written, ms: p50 {percentile(.5):,.0f}  p99 {percentile(.99):,.0f}  max {delays[-1]:,.0f}"
          f"  of {len(delays):,} ({late:,} late), {len(missing)} missing; poll + 250 = {1000 * poll + 250:,}")
    print(f"  API calls a minute: {calls:,.0f}; the records alone need {60 * RATE / 50:,.0f}", flush=True)
    for happened, readable_at in missing[:3]:
        print(f"  missing: of {happened}, readable {readable_at - happened} ms later")


def collect(pipe, arrivals):
    """Whole lines with the time at which the last of them came."""
    torn = b""
    while chunk := os.read(pipe.fileno(), 1 << 20):
        now = time.time()
        whole, end, rest = chunk.rpartition(b"\n")
        if end:
            arrivals.append((now, torn + whole))
            torn = rest
        else:
            torn += chunk


def readable(simulator):
    """When each record was first shown, by its identity."""
    query = urllib.parse.urlencode({"source": "genauth", "from": 0})
    truth = {}
    with simulator.get(f"/truth?{query}") as answer:
        for text in answer:
            record = json.loads(text)
            truth[json.dumps(record["identity"])] = (record["readable_at"], record["late"])
    return truth


FIELDS = ["userId", "appId", "clientIp", "eventType", "eventDetail", "success", "userAgent", "timestamp", "requestId"]


def identity(event):
    """Of a native event, as the simulator's ledger writes it."""
    values = [event["record"].get(field) for field in FIELDS]
    at = datetime.datetime.fromisoformat(event["time"].replace("Z", "+00:00"))
    values[FIELDS.index("timestamp")] = round(at.timestamp() * 1000)
    return json.dumps(values)
