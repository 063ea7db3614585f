"""What many streams cost beside each other: most of them quiet, each with a lane into stdout."""

import json
import os
import signal
import subprocess
import threading
import time
import urllib.request

import ledger
import line
from line import Exporter, Simulator, folder
from server import cpu_seconds, free_port, resident

POLL = 10
SECONDS = 60
# For each stream, an event in 50 s.
RATE = 0.02


def streams(args):
    base = None
    for count in [1, 100, 1_000, 5_000] if not args.quick else [1, 100]:
        found = measure(args, count)
        base = base or found
        each = max(count - 1, 1)
        print(f"streams: {count:,} quiet ones of one credential, poll {POLL} s, file checkpoint, over {SECONDS} s")
        print(f"  memory {found['rss']:,.1f} MiB, {1024 * (found['rss'] - base['rss']) / each:,.0f} KiB a stream more; "
              f"{found['threads']} threads; {found['descriptors']:,} descriptors")
        print(f"  CPU {100 * found['cpu']:.1f} % of a core; API calls a minute and stream {found['calls'] / count:.1f}")
        print(f"  happened to written, ms: {quantiles(found['delays'])}; poll + 250 = {1000 * POLL + 250:,}")
        print(f"  start to all read once {found['start']:.1f} s, drain {found['drain']:.1f} s", flush=True)


def measure(args, count):
    with folder() as path, Simulator(args.trailcast, "--rate", RATE, "--start", "1s") as simulator:
        run = Exporter(args.trailcast, simulator, path, start="1s", output="native")
        with open(run.config, encoding="utf-8") as file:
            config = json.load(file)
        one = {**config["streams"]["bench"], "poll_interval": f"{POLL}s"}
        config["streams"] = {f"quiet-{number}": one for number in range(count)}
        admin = free_port()
        config["admin"]["listen"] = f"127.0.0.1:{admin}"
        with open(run.config, "w", encoding="utf-8") as file:
            json.dump(config, file)
        began = time.monotonic()
        process = run.spawn(stdout=subprocess.PIPE)
        arrivals = []
        reader = threading.Thread(target=collect, args=(process.stdout, arrivals), daemon=True)
        reader.start()
        with line.watchdog(process, 300):
            while not is_ready(admin):
                assert process.poll() is None and time.monotonic() < began + 120, "it did not become ready"
                time.sleep(0.02)
            start = time.monotonic() - began
            # Past each stream's first polls.
            time.sleep(2 * POLL)
            before, asked, at = cpu_seconds(process.pid), simulator.stats("genauth")["requests"], time.monotonic()
            time.sleep(SECONDS)
            took = time.monotonic() - at
            found = {
                "start": start,
                "cpu": (cpu_seconds(process.pid) - before) / took,
                "calls": 60 * (simulator.stats("genauth")["requests"] - asked) / took,
                "rss": resident(process.pid)["VmRSS"],
                "threads": len(os.listdir(f"/proc/{process.pid}/task")),
                "descriptors": len(os.listdir(f"/proc/{process.pid}/fd")),
            }
            ended = time.monotonic()
            process.send_signal(signal.SIGTERM)
            process.wait(60)
            found["drain"] = time.monotonic() - ended
        reader.join(5)
        found["delays"] = sorted(1000 * at - ledger.Event.parse(text).time for at, text in arrivals)
        return found


def quantiles(delays):
    if not delays:
        return "no events"

    def at(share):
        return delays[min(len(delays) - 1, int(share * len(delays)))]

    return f"p50 {at(.5):,.0f}  p99 {at(.99):,.0f}  max {delays[-1]:,.0f}  of {len(delays):,}"


def collect(pipe, arrivals):
    for text in pipe:
        arrivals.append((time.time(), text.decode()))


def is_ready(port):
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/readyz", timeout=5) as answer:
            return answer.status == 200
    except OSError:
        return False
