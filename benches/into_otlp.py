"""The parts of benches/run that are about OTLP: see there. A real Collector that throws away what it is given, on all
cores as everything else; for what a poisonous event costs, a receiver that refuses it."""

import gzip
import http.server
import os
import re
import socket
import statistics
import subprocess
import threading
import time

import measure
import profile_split
from line import Exporter, Simulator, folder
from measure import show, spread
from server import Server, free_port

HERE = os.path.dirname(os.path.realpath(__file__))
UID = re.compile(rb"log\.record\.uid.{2,8}?([0-9a-f]{32})", re.DOTALL)
# The least events of the request that is looked at: the fullest windows have a few less than 1,000.
TOGETHER = 900

CONFIG = """
receivers:
  otlp: {{ protocols: {{ grpc: {{ endpoint: "127.0.0.1:{grpc}" }}, http: {{ endpoint: "127.0.0.1:{http}" }} }} }}
exporters: {{ debug: {{ verbosity: basic, sampling_initial: 1, sampling_thereafter: 1000000 }} }}
service:
  telemetry: {{ metrics: {{ level: none }}, logs: {{ level: error }} }}
  pipelines: {{ logs: {{ receivers: [otlp], exporters: [debug] }} }}
"""


class Collector(Server):
    """Its configuration and log are in `path`."""

    def __init__(self, path):
        self.ports = {"grpc": free_port(), "http": free_port()}
        config = os.path.join(path, "collector.yaml")
        with open(config, "w", encoding="utf-8") as file:
            file.write(CONFIG.format(**self.ports))
        binary = subprocess.check_output([os.path.join(HERE, "..", "tests", "otlp", "get"), "collector"], text=True)
        with open(os.path.join(path, "collector.log"), "wb") as log:
            self.process = subprocess.Popen([binary.strip(), "--config", config], stdout=log, stderr=log)
        self.wait_until(self._is_up, 60, "the Collector does not come up")

    def _is_up(self):
        with socket.socket() as probe:
            return not probe.connect_ex(("127.0.0.1", self.ports["http"]))

    def sink(self, protocol, **more):
        """The sink that leads here."""
        return {"otlp": {"endpoint": f"http://127.0.0.1:{self.ports[protocol]}", "protocol": protocol, **more}}


def throughput(args):
    """Both protocols by turns, so that whatever else the machine does is the same to both."""
    walls, cpus, collectors = {}, {}, {}
    with folder() as path, Collector(path) as collector:
        # The first of all warms the Collector up.
        for number in range(-1, args.runs):
            for protocol in ["http", "grpc"]:
                before = collector.cpu()
                usage, _ = measure.backfill(args, args.events, sink=collector.sink(protocol), pin=False)
                if number >= 0:
                    walls.setdefault(protocol, []).append(args.events / usage.wall)
                    cpus.setdefault(protocol, []).append(args.events / usage.cpu)
                    collectors.setdefault(protocol, []).append(args.events / (collector.cpu() - before))
    show(f"otlp-throughput: genauth, with raw, {args.events:,} events, gzip, concurrency 4, file checkpoint, one "
         f"Collector")
    for protocol in walls:
        show(f"  {protocol}: events per second                  {spread(walls[protocol])}")
        show(f"  {protocol}: per CPU-second of the exporter     {spread(cpus[protocol])}")
        show(f"  {protocol}: per CPU-second of the Collector    {spread(collectors[protocol])}")


def split(args):
    for protocol in ["http", "grpc"] if not args.quick else ["http"]:
        with folder() as path, Collector(path) as collector:
            profile_split.split(args, f"otlp over {protocol} with gzip", sink=collector.sink(protocol))


def memory(args):
    events = 5_000_000 if not args.quick else 500_000
    for protocol in ["http", "grpc"] if not args.quick else ["http"]:
        with folder() as path, Collector(path) as collector:
            usage, _ = measure.backfill(args, events, sink=collector.sink(protocol), pin=False, deadline=3600)
        show(f"otlp-memory: {events:,} events over {protocol} with gzip, concurrency 4: peak RSS {usage.rss_mib:.1f} "
             f"MiB ({events / usage.wall:,.0f} events a second, {events / usage.cpu:,.0f} per CPU-second)")


class Refusing(http.server.ThreadingHTTPServer):
    """Takes OTLP over HTTP, each answer after `latency` seconds. Looks at the first request of `TOGETHER` events or
    more, until all of it is delivered. With `poisonous`, the event in its middle is refused, and all that is sent with it."""

    daemon_threads = True

    def __init__(self, latency, poisonous):
        super().__init__(("127.0.0.1", 0), Answer)
        self.latency, self.poisonous = latency, poisonous
        self.poison, self.waiting = None, None
        self.first, self.events, self.requests = None, 0, 0
        self.done = threading.Event()
        self.took = None
        threading.Thread(target=self.serve_forever, daemon=True).start()

    def answer(self, body):
        began = time.monotonic()
        ids = UID.findall(body)
        if self.waiting is None and len(ids) >= TOGETHER:
            self.first, self.waiting, self.events = began, set(ids), len(ids)
            if self.poisonous:
                self.poison = ids[len(ids) // 2]
                self.waiting.discard(self.poison)
        time.sleep(self.latency)
        if not self.first or self.done.is_set():
            return 200
        self.requests += 1
        if self.poison in ids:
            return 400
        self.waiting.difference_update(ids)
        if not self.waiting:
            self.took = time.monotonic() - self.first
            self.done.set()
        return 200


class Answer(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    # Or the head of an answer waits for its body.
    wbufsize = -1

    def do_POST(self):
        status = self.server.answer(gzip.decompress(self.rfile.read(int(self.headers["Content-Length"]))))
        self.send_response(status)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, *_):
        pass


def poison(args):
    """From the first sending of a full request until all of it is delivered, or all but one that is refused."""
    for latency in [0, 0.010]:
        took = {}
        for _ in range(args.runs):
            for poisonous in [False, True]:
                start, options = measure.history(8_000)
                with folder() as path, Simulator(args.trailcast, *options, pin=False) as simulator, \
                        Refusing(latency, poisonous) as receiver:
                    url = f"http://127.0.0.1:{receiver.server_address[1]}"
                    sink = {"otlp": {"endpoint": url, "max_request_size": "4032KiB"}}
                    run = Exporter(args.trailcast, simulator, path, start=start, sink=sink, pin=False)
                    run.catch_up()
                    receiver.shutdown()
                    if not receiver.done.is_set():
                        raise SystemExit(f"no request had {TOGETHER} events, or some of it never came")
                    took.setdefault(poisonous, []).append(1000 * receiver.took)
        show(f"otlp-poison: one request of {receiver.events} events over http with gzip, {1000 * latency:.0f} ms until "
             f"an answer, from when it has come until all of it is delivered, ms")
        show(f"  nothing refused                         {spread(took[False], 1)}")
        show(f"  one refused, with what it is sent with  {spread(took[True], 1)}; {receiver.requests} requests")
        delay = statistics.median(took[True]) - statistics.median(took[False])
        show(f"  its neighbours wait for {delay:.1f} ms more")


PARTS = {"otlp-throughput": throughput, "otlp-split": split, "otlp-memory": memory, "otlp-poison": poison}
