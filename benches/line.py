"""One simulator and one exporter as processes of their own, on loopback, in a temporary folder."""

import contextlib
import json
import os
import re
import shutil
import signal
import subprocess
import tempfile
import time
import urllib.request

from server import Server

CORES = sorted(os.sched_getaffinity(0))


def pinned(core):
    """What to put before a command so that it keeps to one core and leaves the other alone."""
    if len(CORES) < 2 or not shutil.which("taskset"):
        return []
    return ["taskset", "-c", str(CORES[core % len(CORES)])]


def utc(seconds):
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(seconds))


class Simulator(Server):
    """`trailcast simulate` with a history of `events` records that ended before every sweep's age, unless told."""

    def __init__(self, trailcast, *options, pin=True):
        command = [*(pinned(1) if pin else []), trailcast, "simulate", *map(str, options)]
        self.process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
        self.said = json.loads(self.process.stdout.readline())

    def get(self, path):
        return urllib.request.urlopen(self.said["url"] + path, timeout=60)

    def stats(self, source):
        return json.load(self.get("/stats"))[source]

    def stop(self):
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
            try:
                self.process.wait(5)
            except subprocess.TimeoutExpired:
                self.process.kill()
                self.process.wait()


class Usage:
    """What one exporter took, itself alone."""

    def __init__(self, wall, status, rusage):
        self.wall = wall
        self.status = status
        self.user = rusage.ru_utime
        self.system = rusage.ru_stime
        self.cpu = self.user + self.system
        self.rss_mib = rusage.ru_maxrss / 1024


class Exporter:
    """`trailcast run` into stdout, with a file checkpoint in `folder`, unless told."""

    def __init__(self, trailcast, simulator, folder, *, source="genauth", start, concurrency=4, output="ocsf",
                 raw=True, stream=None, rate_limit=1_000_000, sink=None, checkpoint=None, pin=True):
        self.trailcast = trailcast
        self.pin = pinned(0) if pin else []
        self.log = os.path.join(folder, "log")
        said = simulator.said[source]
        keys = {
            "genauth": {
                "endpoint": simulator.said["url"], "user_pool_id": said.get("user_pool_id"),
                "access_key_id": said.get("access_key_id"), "access_key_secret": {"env": "BENCH_SECRET"},
            },
            "scloud": {
                "endpoint": simulator.said["url"], "project_id": said.get("project_id"),
                "public_key": said.get("public_key"), "private_key": {"env": "BENCH_SECRET"},
            },
        }[source]
        self.secret = said.get("access_key_secret") or said.get("private_key")
        config = {
            "streams": {"bench": {
                source: keys, "start": start, "concurrency": concurrency, "rate_limit": rate_limit, **(stream or {}),
            }},
            "sinks": {"out": sink or {"stdout": {"format": output, "raw": raw}}},
            "checkpoint": checkpoint or {"file": {"path": os.path.join(folder, "state")}},
            "admin": {"listen": "127.0.0.1:0"},
            "log": {"format": "text", "level": "info"},
        }
        self.config = os.path.join(folder, "config.yaml")
        with open(self.config, "w", encoding="utf-8") as file:
            # JSON is YAML.
            json.dump(config, file)

    def spawn(self, *options, stdout=None, before=()):
        """Starts it. `before`: a command to run it under."""
        command = [*self.pin, *before, self.trailcast, "run", "-c", self.config, *options]
        # For writing alone, as the shell opens it: trailcast takes `subprocess.DEVNULL` for a stdout that is closed.
        with open(self.log, "ab") as log, open(os.devnull, "wb") as null:
            stdout = null if stdout is None else stdout
            return subprocess.Popen(
                command, stdin=subprocess.DEVNULL, stdout=stdout, stderr=log,
                env={**os.environ, "BENCH_SECRET": self.secret},
            )

    def catch_up(self, deadline=900, before=()):
        """Runs until it has caught up; what goes to stdout goes to /dev/null."""
        began = time.monotonic()
        process = self.spawn("--until-caught-up", before=before)
        with watchdog(process, deadline):
            _, status, rusage = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
        if process.returncode != 0:
            with open(self.log, encoding="utf-8", errors="replace") as log:
                raise SystemExit(f"the exporter ended with {process.returncode}:\n{log.read()[-4000:]}")
        return Usage(time.monotonic() - began, process.returncode, rusage)

    def failures(self):
        """Lines of the log that say that something went wrong."""
        with open(self.log, encoding="utf-8", errors="replace") as log:
            return [line for line in log if re.search(r"WARN|ERROR", line)]


@contextlib.contextmanager
def watchdog(process, deadline):
    """Kills `process`, and nothing else, when it is still there after `deadline` seconds, or when what is done with it fails."""
    import threading

    timer = threading.Timer(deadline, process.kill)
    timer.daemon = True
    timer.start()
    try:
        yield
    except BaseException:
        process.kill()
        raise
    finally:
        timer.cancel()


@contextlib.contextmanager
def folder():
    path = tempfile.mkdtemp(prefix="trailcast-bench-")
    try:
        yield path
    finally:
        shutil.rmtree(path, ignore_errors=True)
