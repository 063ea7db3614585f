"""The parts of benches/run: see there."""

import argparse
import math
import os
import signal
import statistics
import subprocess
import threading
import time

import line
import profile_split
import steady
import streams
from line import Exporter, Simulator, folder, utc

# Older than the oldest sweep, so that a backfill reads everything once.
OLD = 6.5 * 3600
PAGE = 50


def show(text):
    print(text, flush=True)


def history(events, rate=20):
    """A history that ended just before the oldest sweep's age: its start for the exporter, options for the simulator."""
    start = utc(time.time() - events / rate - OLD)
    return start, ["--rate", rate, "--start", start, "--events", events]


def backfill(args, events, *, source="genauth", simulate=(), deadline=900, **exporter):
    """One backfill of `events` records, all older than every sweep."""
    start, options = history(events)
    with folder() as path, Simulator(args.trailcast, *options, *simulate) as simulator:
        run = Exporter(args.trailcast, simulator, path, source=source, start=start, **exporter)
        usage = run.catch_up(deadline)
        stats = simulator.stats(source)
        for failure in run.failures()[:3]:
            show(f"  log: {failure.strip()}")
    assert stats["records"] >= events, f"only {stats['records']} of {events} records were read"
    return usage, stats


def over_minimum(stats, events):
    return stats["requests"] / math.ceil(events / PAGE)


def spread(values, digits=0):
    median = statistics.median(values)
    return f"median {median:,.{digits}f}  (of {len(values)}: {min(values):,.{digits}f} … {max(values):,.{digits}f})"


def throughput(args):
    cases = [
        ("genauth, ocsf with raw", {}),
        ("genauth, native", {"output": "native"}),
        ("scloud, ocsf with raw", {"source": "scloud"}),
    ]
    for name, options in cases if not args.quick else cases[:1]:
        show(f"throughput: {name}, {args.events:,} events, concurrency 4, file checkpoint, into /dev/null")
        rates, walls, system, calls = [], [], [], []
        for _ in range(args.runs):
            usage, stats = backfill(args, args.events, **options)
            rates.append(args.events / usage.cpu)
            walls.append(args.events / usage.wall)
            system.append(100 * usage.system / usage.cpu)
            calls.append(over_minimum(stats, args.events))
        show(f"  events per CPU-second   {spread(rates)}")
        show(f"  of it in the kernel, %  {spread(system)}")
        show(f"  events per second       {spread(walls)}")
        show(f"  calls over the minimum  {spread(calls, 3)}")


def catchup(args):
    latency = 0.050
    for source in ["genauth", "scloud"] if not args.quick else ["genauth"]:
        for concurrency in [1, 4, 16]:
            # Long enough that start and end weigh little.
            events = 30_000 * max(concurrency, 2)
            possible = concurrency * PAGE / latency
            shares, calls = [], []
            for _ in range(args.runs):
                usage, stats = backfill(
                    args, events, source=source, simulate=["--latency", "50ms"], concurrency=concurrency)
                shares.append(100 * events / usage.wall / possible)
                calls.append(over_minimum(stats, events))
            show(f"catch-up: {source}, 50 ms, concurrency {concurrency}, {events:,} events")
            show(f"  share of {possible:,.0f}/s, %   {spread(shares, 1)}")
            show(f"  calls over the minimum  {spread(calls, 3)}")


def calls(args):
    for events in [1_000, 3_000, 10_000, 60_000, 120_000] if not args.quick else [1_000]:
        over = []
        for source in ["genauth", "scloud"]:
            _, stats = backfill(args, events, source=source, simulate=["--latency", "50ms"], concurrency=4)
            over.append(f"{source} {over_minimum(stats, events):.2f}")
        show(f"calls over the minimum: {events:,} events older than the oldest sweep: {', '.join(over)}")


def memory(args):
    for events in [1_000_000, 10_000_000] if not args.quick else [1_000_000]:
        usage, stats = backfill(args, events, deadline=900)
        show(f"memory: {events:,} events, concurrency 4: peak RSS {usage.rss_mib:.1f} MiB "
             f"({events / usage.cpu:,.0f} events per CPU-second, calls {over_minimum(stats, events):.3f})")


def restart(args):
    """Kills in the middle of a backlog that lies within the oldest sweep, so that all of it must be remembered."""
    hours, rate = 5.5, 40
    firsts, starts = [], []
    with folder() as path:
        start = utc(time.time() - hours * 3600)
        options = ["--rate", rate, "--start", start, "--latency", "50ms"]
        with Simulator(args.trailcast, *options) as simulator:
            run = Exporter(args.trailcast, simulator, path, start=start)
            for attempt in range(2 * args.runs + 1):
                began = time.monotonic()
                process = run.spawn(stdout=subprocess.PIPE)
                with line.watchdog(process, 60):
                    first = os.read(process.stdout.fileno(), 1)
                    took = time.monotonic() - began
                    assert first, "the exporter ended without an event"
                    # The first start is no restart.
                    (firsts if attempt else starts).append(1000 * took)
                    drain(process, seconds=1.0)
                    process.send_signal(signal.SIGKILL)
                    process.stdout.close()
                    process.wait()
            kept = os.path.getsize(os.path.join(path, "state", "trailcast.redb")) / 2**20
    show(f"restart: kill -9 in a backlog of {int(hours * 3600 * rate):,} events that sweeps still cover; "
         f"checkpoint {kept:.1f} MiB at the end")
    show(f"  50 ms API, exec to first byte out, ms   {spread(firsts)}; first start {starts[0]:.0f}")


def drain(process, seconds):
    """Reads what comes, so that the exporter is busy when it is killed."""
    end = time.monotonic() + seconds
    descriptor = process.stdout.fileno()
    while time.monotonic() < end and os.read(descriptor, 1 << 16):
        pass


PARTS = {
    "throughput": throughput, "catchup": catchup, "calls": calls, "memory": memory, "steady": steady.steady,
    "restart": restart, "streams": streams.streams, "split": profile_split.split,
}


def main():
    parser = argparse.ArgumentParser(prog="benches/run")
    parser.add_argument("parts", nargs="*", metavar="PART", help=", ".join(PARTS) + ", otlp, otlp-…, kafka, kafka-…")
    parser.add_argument("--trailcast", required=True, help=argparse.SUPPRESS)
    parser.add_argument("--events", type=int, default=500_000, help="of one run of throughput and split")
    parser.add_argument("--runs", type=int, default=5, help="of which the median is printed")
    parser.add_argument("--quick", action="store_true", help="the first case of each part only")
    args = parser.parse_args()
    parts, groups = dict(PARTS), {}
    if any(part.startswith("otlp") for part in args.parts):
        import into_otlp

        groups["otlp"] = into_otlp.PARTS
    if any(part.startswith("kafka") for part in args.parts):
        # Needs what the others do without.
        import into_kafka

        groups["kafka"] = into_kafka.PARTS
    for group in groups.values():
        parts.update(group)
    wanted = [name for part in args.parts or PARTS for name in groups.get(part, [part])]
    unknown = [part for part in wanted if part not in parts]
    if unknown:
        parser.error(f"no such part: {', '.join(unknown)}")
    for part in wanted:
        parts[part](args)


if __name__ == "__main__":
    main()
