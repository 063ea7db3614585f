"""The parts of benches/run that are about Kafka: see there. A broker of each part's own, all processes on all cores."""

import datetime
import json
import os
import re
import signal
import statistics
import time

import measure
import steady
from broker import Broker, Reader
from line import Exporter, Simulator, folder, utc
from measure import show, spread
from server import resident


class IntoKafka(Exporter):
    """Into `topic`, exactly once unless told."""

    def __init__(self, args, simulator, path, broker, topic, *, name="bench", instance="one", exactly_once=True,
                 output="ocsf", properties=None, kafka=None, **exporter):
        cluster = {"brokers": [broker.address], "properties": properties or {}}
        own = os.path.join(path, instance)
        os.makedirs(own, exist_ok=True)
        super().__init__(
            args.trailcast, simulator, own, output=output, pin=False,
            sink={"kafka": {**cluster, "topic": topic, "format": output, "exactly_once": exactly_once}},
            # Its topic is made by trailcast, as it makes it for everyone.
            checkpoint={"kafka": {**cluster, "topic": f"{name}-state", "group": name, "instance_id": instance,
                                  **(kafka or {})}} if exactly_once else None,
            **exporter)

    def said(self, text):
        """When a line of the log with this text was written, of each such line, since the epoch."""
        with open(self.log, encoding="utf-8", errors="replace") as log:
            lines = [re.sub(r"\x1b\[[0-9;]*m", "", line) for line in log if text in line]
        return [_time(line.split()[0]) for line in lines]


def _time(text):
    return datetime.datetime.fromisoformat(text.replace("Z", "+00:00")).timestamp()


def backfill(args, broker, topic, events, deadline=900, **exporter):
    """One backfill of `events` records, all older than every sweep. What the exporter took, its time from when the lane
    runs, and the broker's CPU."""
    start, options = measure.history(events)
    broker.create(topic)
    with folder() as path, Simulator(args.trailcast, *options, pin=False) as simulator:
        run = IntoKafka(args, simulator, path, broker, topic, name=topic, start=start, **exporter)
        before, began = broker.cpu(), time.time()
        usage = run.catch_up(deadline)
        # Joining and making topics is not what is measured here, and weighs the more the shorter the backlog is.
        usage.wall -= run.said("lane runs")[0] - began
        cpu = broker.cpu() - before
        for failure in run.failures()[:3]:
            show(f"  log: {failure.strip()}")
        stats = simulator.stats("genauth")
    assert stats["records"] >= events, f"only {stats['records']} of {events} records were read"
    return usage, cpu


def throughput(args):
    """Plain and exactly once by turns, so that whatever else the machine does is the same to both."""
    events = min(args.events, 300_000)
    cases = [("", {}), ("zstd", {"compression.type": "zstd"})]
    with folder() as path, Broker(path) as broker:
        for name, properties in cases if not args.quick else cases[:1]:
            walls, cpus, brokers = {}, {}, {}
            # The first of all warms the broker up.
            for number in range(-1 if not name else 0, args.runs):
                for mode in ["plain", "exactly-once"]:
                    topic = f"events-{mode}{name}-{number}"
                    usage, cpu = backfill(
                        args, broker, topic, events, exactly_once=mode == "exactly-once", properties=properties)
                    broker.delete(topic)
                    if number >= 0:
                        walls.setdefault(mode, []).append(events / usage.wall)
                        cpus.setdefault(mode, []).append(events / usage.cpu)
                        brokers.setdefault(mode, []).append(events / cpu)
            show(f"kafka-throughput: genauth, ocsf with raw, {events:,} events, concurrency 4, one broker"
                 f"{', compression ' + name if name else ''}; plain: idempotent, file checkpoint")
            for mode in walls:
                show(f"  {mode}: events per second                  {spread(walls[mode])}")
                show(f"  {mode}: per CPU-second of the exporter     {spread(cpus[mode])}")
                show(f"  {mode}: per CPU-second of the broker       {spread(brokers[mode])}")
            for text, values in [("per second", walls), ("per CPU-second", cpus)]:
                ratios = [100 * once / plain for once, plain in zip(values["exactly-once"], values["plain"])]
                show(f"  exactly-once as a share of plain, {text}, %: of the medians "
                     f"{100 * statistics.median(values['exactly-once']) / statistics.median(values['plain']):.1f}; "
                     f"pair by pair {spread(ratios, 1)}")


def backlog(hours, rate):
    start = utc(time.time() - hours * 3600)
    return start, ["--rate", rate, "--start", start, "--latency", "50ms"]


def restart(args):
    """Kills in the middle of a backlog; from the new process's start to the first event that a reader is shown."""
    start, options = backlog(30, 40)
    times, taken = [], []
    with folder() as path, Broker(path) as broker, Simulator(args.trailcast, *options, pin=False) as simulator:
        topic = broker.create("events")
        run = IntoKafka(args, simulator, path, broker, topic, start=start)
        with Reader(broker, topic) as reader:
            process = None
            try:
                for attempt in range(2 * args.runs + 1):
                    reader.expect()
                    began = time.time()
                    process = run.spawn()
                    took = 1000 * (reader.came(60) - began)
                    if attempt:
                        times.append(took)
                        taken.append(1000 * (run.said(" taken")[-1] - began))
                    else:
                        show(f"kafka-restart: first start, topics to be made: {took:,.0f} ms")
                    # Busy when it is killed, and at no certain moment.
                    time.sleep(2 + 0.37 * attempt % 1)
                    process.send_signal(signal.SIGKILL)
                    process.wait()
                    reader.quiet(0.5)
            finally:
                if process:
                    process.kill()
        for failure in run.failures()[:3]:
            show(f"  log: {failure.strip()}")
    show("kafka-restart: kill -9 while it delivers, same instance_id, API of 50 ms; from the start of the new process, ms")
    show(f"  to the first event that is visible to read_committed  {spread(times)}")
    show(f"  to the partition taken                                {spread(taken)}")


def failover(args):
    """Kills the replica that runs the stream; from then to the other's first event."""
    start, options = backlog(30, 40)
    sessions = [6, 10] if not args.quick else [6]
    with folder() as path, Broker(path, **{"group.min.session.timeout.ms": 1000}) as broker, \
            Simulator(args.trailcast, *options, pin=False) as simulator:
        for session in sessions:
            topic = broker.create(f"events-{session}")
            runs = [IntoKafka(args, simulator, path, broker, topic, name=topic, start=start, instance=name,
                              kafka={"session_timeout": f"{session}s"}) for name in [f"a-{session}", f"b-{session}"]]
            times = []
            with Reader(broker, topic) as reader:
                processes = [run.spawn() for run in runs]
                try:
                    for _ in range(args.runs):
                        reader.expect()
                        reader.came(60)
                        # Both have joined, and what is to move has moved.
                        time.sleep(session + 3)
                        reader.expect()
                        reader.came(60)
                        owner = max([0, 1], key=lambda which: max(runs[which].said(" taken"), default=0))
                        processes[owner].send_signal(signal.SIGKILL)
                        killed = time.time()
                        processes[owner].wait()
                        time.sleep(0.5)
                        reader.expect()
                        times.append(reader.came(60 + session) - killed)
                        processes[owner] = runs[owner].spawn()
                finally:
                    for process in processes:
                        process.kill()
                        process.wait()
            show(f"kafka-failover: kill -9 of one of two replicas, session_timeout {session} s: until the other's first "
                 f"event, s  {spread(times, 2)}")


def steady_lag(args):
    for poll in [10, 1] if not args.quick else [1]:
        with folder() as path, Broker(path) as broker:
            topic = broker.create("events")
            simulate = ["--rate", steady.RATE, "--start", "1s", "--late-share", 0.2, "--late-max",
                        f"{steady.LATE_MAX}s"]
            with Simulator(args.trailcast, *simulate, pin=False) as simulator:
                run = IntoKafka(args, simulator, path, broker, topic, output="native", start="1s",
                                stream={"poll_interval": f"{poll}s", "overlap": "10s"})
                with Reader(broker, topic, keep=True) as reader:
                    process = run.spawn()
                    try:
                        time.sleep(8)
                        began = time.time()
                        time.sleep(steady.SECONDS)
                        until = time.time() * 1000
                        time.sleep(2 * poll + 3)
                    finally:
                        process.send_signal(signal.SIGTERM)
                        process.wait(30)
                    reader.quiet(1)
                truth = steady.readable(simulator)
            # What happened before is not the exporter's to deliver.
            first = 1000 * run.said(" taken")[0]
            for failure in run.failures()[:3]:
                show(f"  log: {failure.strip()}")
        written = {}
        for at, value in reader.arrivals:
            written.setdefault(steady.identity(json.loads(value)), at)
        delays, missing, late = [], 0, 0
        for key, (readable_at, was_late) in truth.items():
            happened = json.loads(key)[steady.FIELDS.index("timestamp")]
            if happened < first or not 1000 * began <= readable_at <= until:
                continue
            if key in written:
                delays.append(1000 * written[key] - readable_at)
                late += was_late
            else:
                missing += 1
        delays.sort()
        at = {share: delays[min(len(delays) - 1, int(share * len(delays)))] for share in (.5, .99)}
        show(f"kafka-steady: {steady.RATE}/s, 20 % late by up to {steady.LATE_MAX} s (overlap 10 s), poll {poll} s, "
             f"exactly once")
        show(f"  readable to visible to read_committed, ms: p50 {at[.5]:,.0f}  p99 {at[.99]:,.0f}  max {delays[-1]:,.0f}"
             f"  of {len(delays):,} ({late:,} late), {missing} missing, {len(reader.arrivals) - len(written)} repeated; "
             f"poll + 250 = {1000 * poll + 250:,}")


def state(args):
    """A state of 2 M fingerprints: what it weighs, and how long a start on it takes."""
    events = 2_000_000 if not args.quick else 200_000
    # The oldest sweep begins at 6 h: until the end all of it must be remembered.
    hours = 5.7
    start = utc(time.time() - hours * 3600)
    options = ["--rate", events / hours / 3600, "--start", start, "--events", events]
    compact_often = {"log.cleaner.backoff.ms": 1000}
    with folder() as path, Broker(path, **compact_often) as broker, \
            Simulator(args.trailcast, *options, pin=False) as simulator:
        topic = broker.create("events")
        run = IntoKafka(args, simulator, path, broker, topic, start=start)
        usage = run.catch_up(1800)
        written = broker.size("bench-state")
        show(f"kafka-state: {events:,} events of the last {hours} h, all remembered; backfill {usage.wall:.0f} s, "
             f"peak RSS {usage.rss_mib:.1f} MiB")
        for failure in run.failures()[:3]:
            show(f"  log: {failure.strip()}")
        show(f"  state topic at the end of the backfill: {written / 2**20:.1f} MiB")
        loads(args, run, "as it is then")
        broker.configure("bench-state", **{
            "cleanup.policy": "compact", "segment.bytes": 16 << 20, "segment.ms": 1000, "min.cleanable.dirty.ratio": 0.01,
            "max.compaction.lag.ms": 2000, "delete.retention.ms": 1000,
        })
        # Only a write closes a segment; only closed ones are compacted.
        for _ in range(3):
            time.sleep(3)
            loads(args, run, None)
            time.sleep(3)
        settled(lambda: broker.size("bench-state"))
        show(f"  state topic, compacted: {broker.size('bench-state') / 2**20:.1f} MiB")
        loads(args, run, "compacted")


def settled(measured, patience=120):
    """Waits until it has not changed for a while."""
    deadline = time.monotonic() + patience
    last, since = measured(), time.monotonic()
    while time.monotonic() < min(deadline, since + 6):
        time.sleep(0.5)
        if (now := measured()) != last:
            last, since = now, time.monotonic()


def loads(args, run, name):
    """Starts on the state as it is, a few times, and kills it once it has taken the partition."""
    took, after, peak = [], [], []
    for _ in range(3 if name else 1):
        began = time.time()
        process = run.spawn()
        try:
            deadline = time.monotonic() + 60
            while not (seen := [at for at in run.said(" taken") if at >= began - 0.001]):
                if time.monotonic() > deadline:
                    raise SystemExit("the partition was not taken")
                time.sleep(0.02)
            time.sleep(0.1)
            took.append(1000 * (seen[0] - began))
            memory = resident(process.pid)
            after.append(memory["VmRSS"])
            # What lanes do first is part of what such a start takes.
            time.sleep(2)
            peak.append(resident(process.pid)["VmHWM"])
        finally:
            process.kill()
            process.wait()
    if name:
        show(f"  start on it, {name}: from exec to the partition taken, ms  {spread(took)}")
        show(f"    resident then, MiB  {spread(after, 1)}; peak in the first two seconds  {spread(peak, 1)}")


def memory(args):
    with folder() as path, Broker(path) as broker:
        for events in [1_000_000, 10_000_000] if not args.quick else [1_000_000]:
            usage, cpu = backfill(args, broker, f"events-{events}", events, deadline=1800)
            show(f"kafka-memory: {events:,} events, concurrency 4, exactly once: peak RSS {usage.rss_mib:.1f} MiB "
                 f"({events / usage.wall:,.0f} events a second, {events / usage.cpu:,.0f} per CPU-second, "
                 f"{events / cpu:,.0f} per CPU-second of the broker)")


PARTS = {
    "kafka-throughput": throughput, "kafka-restart": restart, "kafka-failover": failover, "kafka-steady": steady_lag,
    "kafka-state": state, "kafka-memory": memory,
}
