"""The soak: trailcast against its own simulator, through random faults, and the truth ledger. See benches/run.

Two trailcasts read the same two APIs at the same time, one exactly once into a real Kafka broker, one with a checkpoint
in a file onto stdout. Ends with status 1 if anything is missing, invented or altered, or came twice into Kafka; or if
something did not come back from a fault, or a fault that was drawn never happened.
"""

from __future__ import annotations

import argparse
import contextlib
import datetime
import heapq
import itertools
import os
import random
import re
import shutil
import signal
import sys
import tempfile
import time
from collections.abc import Callable

from confluent_kafka import OFFSET_BEGINNING, Consumer, KafkaError, TopicPartition

import ledger
from broker import PARTITIONS, Broker
from line import utc
from soak_faults import KINDS, NOT_DRAWN, RATE, Fault, plan
from soak_watch import Watch, clock
from soak_world import Apis, Disk, Failure, Trailcast, kill, stop, sweeps

# Seconds of history that are there at the start.
BACKLOG = 300
# Seconds in which both must have caught up once all faults are over: the oldest sweep comes at nine eighths of its age,
# and a clock in doubt takes 5 minutes.
CATCH_UP = 1200
# Seconds for which a fault of the APIs lasts longer, at most, until it has happened.
MORE = 60
TOPIC = "events"
STREAMS = ["users", "cloud"]


def show(text: str) -> None:
    print(text, flush=True)


class Soak:
    """What runs, and what is to happen to it and when."""

    def __init__(self, apis: Apis, broker: Broker, disk: Disk, file: Trailcast, kafka: Trailcast) -> None:
        self.apis, self.broker, self.disk, self.file, self.kafka = apis, broker, disk, file, kafka
        self.began = 0.0
        # What is to be done and when; of what is to be done at once, what was said first.
        self._acts: list[tuple[float, int, Callable[[], None]]] = []
        self._number = itertools.count()

    def run(self, faults: list[Fault]) -> None:
        """Until the last fault is over."""
        self.began = time.monotonic()
        for fault in faults:
            self._do(fault.at, lambda fault=fault: self._begin(fault))
        while self._acts:
            at, _, act = self._acts[0]
            if at <= time.monotonic() - self.began:
                heapq.heappop(self._acts)
                act()
            else:
                self.look_after(min(0.1, at - (time.monotonic() - self.began)))

    def _do(self, at: float, act: Callable[[], None]) -> None:
        heapq.heappush(self._acts, (at, next(self._number), act))

    def look_after(self, seconds: float) -> None:
        for trailcast in (self.file, self.kafka):
            trailcast.look_after()
        if not self.apis.up and not self.apis.down:
            raise Failure(f"the APIs ended by themselves: see {self.apis.log}")
        time.sleep(max(seconds, 0.01))

    def _begin(self, fault: Fault) -> None:
        show(f"{clock()} {fault.at:6.0f} s  {fault}")
        end = self._happen(fault)
        if end:
            self._do(time.monotonic() - self.began + fault.lasts, end)

    def _happen(self, fault: Fault) -> Callable[[], None] | None:
        """Lets it begin; returns what ends it."""
        if fault.kind.options:
            self.apis.change([*self.apis.faults, fault])
            return lambda: self._end_of_apis(fault, MORE)
        what, _, whom = fault.kind.name.partition(": ")
        targets = {"file": [self.file], "kafka": [self.kafka], "both": [self.file, self.kafka]}.get(whom, [])
        match what:
            case "kill -9":
                fault.seen = all([target.kill() for target in targets])
            case "SIGTERM":
                targets[0].ask_to_end(fault)
            case "SIGSTOP":
                process = targets[0].process
                fault.seen = process.poll() is None and stop(process)
                return lambda: process.send_signal(signal.SIGCONT)
            case "APIs down":
                fault.seen = self.apis.take_down()
                return self.apis.bring_up
            case "broker SIGSTOP":
                fault.seen = stop(self.broker.process)
                return lambda: self.broker.process.send_signal(signal.SIGCONT)
            case "broker kill -9":
                fault.seen = kill(self.broker.process)
                return self.broker.spawn
            case "broker SIGTERM":
                self.broker.process.terminate()
                return lambda: self._start_broker_that_ended(fault)
            case "disk full":
                fault.seen = self.disk.fill()
                return self.disk.free
        return None

    def _end_of_apis(self, fault: Fault, more: float) -> None:
        """Ends it, or, as long as nobody has met it, waits for that: others may have kept all requests away."""
        self.apis.take_stock()
        if fault.seen or more <= 0:
            self.apis.change([other for other in self.apis.faults if other is not fault])
        else:
            self._do(time.monotonic() - self.began + 5, lambda: self._end_of_apis(fault, more - 5))

    def _start_broker_that_ended(self, fault: Fault) -> None:
        fault.seen = self.broker.process.poll() is not None
        if not fault.seen:
            kill(self.broker.process)
            fault.seen = True
        self.broker.spawn()

    def until_delivered(self, watches: list[Watch]) -> None:
        """Waits until all that was listed by now is delivered: what is filed before a stream's `start` is nobody's."""
        self._wait(watches, "delivered_through")

    def catch_up(self, watches: list[Watch]) -> int:
        """Waits until all that was listed by now was swept at the oldest age; returns that time, milliseconds."""
        return self._wait(watches, "verified_through")

    def _wait(self, watches: list[Watch], mark: str) -> int:
        until = int(time.time())
        deadline = time.monotonic() + CATCH_UP

        def is_there(watch: Watch) -> bool:
            marks = {lane["stream"]: lane[mark] for lane in watch.last or []}
            return all(marks.get(stream) and _seconds(marks[stream]) >= until for stream in STREAMS)

        while not all(is_there(watch) for watch in watches):
            if time.monotonic() > deadline:
                for watch in watches:
                    show(f"{watch.trailcast.name} stands at {watch.last}")
                raise Failure(f"not all came so far in {CATCH_UP} s, see {mark}")
            self.look_after(0.2)
        return 1000 * until

    def end(self) -> None:
        for trailcast in (self.file, self.kafka):
            trailcast.ask_to_end(None)
        while any(trailcast.process.poll() is None for trailcast in (self.file, self.kafka)):
            self.look_after(0.1)
        self.look_after(0)
        for trailcast in (self.file, self.kafka):
            if trailcast.process.returncode != 0:
                trailcast.failures.append(f"{trailcast.name} did not drain at the end: {trailcast.process.returncode}")


def _seconds(text: str) -> float:
    return datetime.datetime.fromisoformat(text.replace("Z", "+00:00")).timestamp()


def committed(broker: Broker) -> tuple[list[ledger.Event], list[str]]:
    """All that a consumer with read_committed gets, to the end of each partition; and what is no event."""
    consumer = Consumer({
        "bootstrap.servers": broker.address, "group.id": "soak", "enable.auto.commit": False,
        "isolation.level": "read_committed", "enable.partition.eof": True,
    })
    consumer.assign([TopicPartition(TOPIC, partition, OFFSET_BEGINNING) for partition in range(PARTITIONS)])
    lines, ended, deadline = [], set(), time.monotonic() + 300
    while len(ended) < PARTITIONS:
        if time.monotonic() > deadline:
            raise Failure("the topic cannot be read to its end: a transaction is open")
        for message in consumer.consume(1000, 1):
            if not message.error():
                lines.append(message.value().decode())
            elif message.error().code() == KafkaError._PARTITION_EOF:
                ended.add(message.partition())
    consumer.close()
    return _parse(lines)


def _parse(lines: list[str]) -> tuple[list[ledger.Event], list[str]]:
    events, torn = [], []
    for line in lines:
        try:
            events.append(ledger.Event.parse(line))
        except (ValueError, KeyError):
            torn.append(line)
    return events, torn


def judge(soak: Soak, until: int, faults: list[Fault], watches: list[Watch]) -> list[str]:
    """Prints what became of it all; returns what is wrong."""
    wrong = [*soak.file.failures, *soak.kafka.failures]
    show("\nfaults: drawn, of these seen to happen")
    for kind in KINDS:
        drawn = [fault for fault in faults if fault.kind is kind]
        seen = sum(fault.seen > 0 for fault in drawn)
        if drawn:
            show(f"  {kind.name:40} {len(drawn):4} {seen:4}")
        if drawn and not seen:
            wrong.append(f"{kind.name}: drawn, and never happened")
    counts = {name: soak.apis.counts[name] for name in sorted(soak.apis.counts)}
    show("the APIs counted: " + ", ".join(f"{name} {count:,}" for name, count in counts.items() if count))
    with open(soak.file.out, encoding="utf-8", errors="replace") as out:
        written = _parse(out.read().splitlines())
    kills = soak.file.starts - 1
    if len(written[1]) > kills:
        wrong.append(f"file: {len(written[1])} torn lines of {kills} runs that ended")
    read = committed(soak.broker)
    wrong += [f"kafka: not an event: {line[:200]}" for line in read[1][:3]]
    show("the ledger")
    for name, (events, torn) in {"kafka": read, "file": written}.items():
        for source in ("genauth", "scloud"):
            found = ledger.compare(soak.apis.truth(source), until, [it for it in events if it.source == source])
            bad = {name: getattr(found, name) for name in ("missing", "invented", "altered")}
            repeated = len(found.repeated)
            show(f"  {name:5}  {source:7}  of {found.expected:,} records: " + ", ".join(
                f"{len(values)} {what}" for what, values in bad.items()) + f", {repeated:,} repeated with the same id")
            if name == "kafka":
                bad["repeated"] = found.repeated
            for what, values in bad.items():
                wrong += [f"{name}, {source}: {len(values)} {what}"] * bool(values)
                for value in values[:5]:
                    show(f"    {what}: {value}")
            if not found.expected:
                wrong.append(f"{source}: nothing happened, so nothing was shown")
        if name == "file":
            show(f"  file   torn lines, each at the end of a run: {len(torn)} of {kills} runs")
    for watch in watches:
        trailcast, (longest, lag, stream, at) = watch.trailcast, watch.longest
        show(f"{trailcast.name}: {trailcast.starts} starts; ends: "
             + ", ".join(f"{how} {count}" for how, count in sorted(trailcast.ends.items())))
        show(f"  peak resident memory {watch.peak_mib:.1f} MiB")
        show(f"  longest time that a lane was ok while its lag grew: {longest:.1f} s, to {lag:.1f} s ({stream}, {at})")
        show("  gaps: " + ", ".join(f"{lane['stream']} {lane['gaps']}" for lane in watch.last or []))
        show("  samples of lanes: " + ", ".join(f"{state} {count}" for state, count in watch.samples.most_common()))
    return wrong


def duration(text: str) -> float:
    found = re.fullmatch(r"(\d+)([smh])", text)
    if not found:
        raise argparse.ArgumentTypeError("a number with a unit: 90s, 3m or 1h")
    return int(found[1]) * {"s": 1, "m": 60, "h": 3600}[found[2]]


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="benches/run soak")
    parser.add_argument("--trailcast", required=True, help=argparse.SUPPRESS)
    parser.add_argument("--for", type=duration, default=3600, dest="seconds", metavar="DURATION",
                        help="for how long faults are drawn (default: 1h); catching up comes on top")
    parser.add_argument("--seed", type=int, default=random.getrandbits(32), help="what everything is drawn from")
    parser.add_argument("--per-hour", type=float, default=200, metavar="COUNT", help="faults (default: 200)")
    parser.add_argument("--only", default="", metavar="PATTERN", help="draw only faults whose name matches this")
    parser.add_argument("--list", action="store_true", help="say what would happen, and end")
    return parser.parse_args()


def main() -> int:
    args = arguments()
    # However it is asked to end, what it started ends first.
    for name in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(name, lambda *_: sys.exit(130))
    kept = tempfile.mkdtemp(prefix="trailcast-soak-")
    wrong: list[str] = []
    with contextlib.ExitStack() as stack:
        # Done from the last to the first; logs are kept for who looks for a cause.
        stack.callback(lambda: wrong or shutil.rmtree(kept, ignore_errors=True))
        stack.callback(lambda: [signal.signal(name, signal.SIG_IGN) for name in (signal.SIGINT, signal.SIGTERM)])
        disk = Disk(kept)
        stack.callback(disk.stop)
        kinds = [kind for kind in KINDS if re.search(args.only, kind.name) and (disk.small or "disk" not in kind.takes)]
        if not kinds:
            raise SystemExit(f"no fault that can be drawn here has a name like {args.only!r}")
        faults = plan(args.seed, args.seconds, args.per_hour, kinds)
        show(f"soak: seed {args.seed}, {args.seconds:.0f} s, {len(faults)} faults of {len(kinds)} kinds, "
             f"{RATE} records a second of each API")
        if not disk.small:
            show("left out: disk full, which needs root for a small tmpfs")
        for what, why in NOT_DRAWN.items():
            show(f"not drawn: {what}: {why}")
        if args.list:
            for fault in faults:
                show(f"{fault.at:6.0f} s  {fault}")
            return 0
        start = utc(time.time() - BACKLOG)
        apis = Apis(args.trailcast, args.seed, start, os.path.join(kept, "apis.log"))
        stack.callback(apis.stop)
        broker = Broker(kept)
        stack.callback(broker.stop)
        # Nothing of it may go before it is compared.
        broker.create(TOPIC, **{"retention.bytes": -1})
        cluster = {"brokers": [broker.address]}
        trailcasts = []
        for name, out, config in [
            ("file", os.path.join(disk.path, "out.ndjson"), {
                "sinks": {"out": {"stdout": {"format": "native"}}},
                "checkpoint": {"file": {"path": os.path.join(disk.path, "state")}},
            }),
            ("kafka", os.path.join(kept, "kafka.out"), {
                "sinks": {"out": {"kafka": {**cluster, "topic": TOPIC, "format": "native"}}},
                "checkpoint": {"kafka": {**cluster, "topic": "soak-state", "group": "soak", "instance_id": "one",
                                         "session_timeout": "10s"}},
            }),
        ]:
            stream = {"start": start, "sweeps": sweeps(args.seconds)}
            trailcasts.append(Trailcast(args.trailcast, name, kept, apis, stream, out, **config))
            stack.callback(lambda trailcast=trailcasts[-1]: (trailcast.process.kill(), trailcast.process.wait()))
        watches = [Watch(trailcast) for trailcast in trailcasts]
        for watch in watches:
            stack.callback(watch.stop)
        soak = Soak(apis, broker, disk, *trailcasts)
        try:
            soak.until_delivered(watches)
            show(f"{clock()} what had happened before is delivered: faults begin")
            soak.run(faults)
            show(f"{clock()} all faults are over")
            until = soak.catch_up(watches)
            for watch in watches:
                watch.stop()
            apis.change([])
            soak.end()
            wrong += judge(soak, until, faults, watches)
        except (Failure, OSError) as failure:
            wrong.append(f"the soak did not come to its end: {failure!r}")
        if wrong:
            with contextlib.suppress(OSError):
                # Its own place goes with the small disk.
                shutil.copy(trailcasts[0].out, os.path.join(kept, "file.out"))
    for what in wrong:
        show(f"WRONG: {what}")
    if wrong:
        show(f"seed {args.seed}; logs are kept in {kept}")
        return 1
    show("nothing is missing, nothing is invented, and nothing came twice into Kafka")
    return 0


if __name__ == "__main__":
    try:
        sys.exit(main())
    except KeyboardInterrupt:
        sys.exit("interrupted: what was started has ended")
