"""The processes of the soak, and what can be done to them. Each can be started again where it was."""

from __future__ import annotations

import collections
import json
import os
import signal
import socket
import subprocess
import time
import urllib.request
from typing import Any

from server import Server, free_port
from soak_faults import HISTORY, Fault, merged

# Seconds in which what was asked to end must have: trailcast drains for 23 s at most.
DRAIN = 30
# Seconds until a trailcast that ended by itself is started again, as a supervisor of services would.
PATIENCE = 1
# Short, so that all is read three times within minutes: by the live pass and by two sweeps. `overlap` and the sweeps
# are longer than what is late or filed later.
STREAM = {"poll_interval": "2s", "overlap": "20s", "concurrency": 4, "rate_limit": 1000, "request_timeout": "5s"}


def sweeps(seconds: float) -> list[str]:
    """For a soak of so many seconds, at the end of which the oldest is waited for. What a lane has not read when it is
    older than that is read once, and then nothing heals what the API did meanwhile: so it is as old as can be waited for."""
    return ["40s", f"{min(max(seconds / 8, 100), 480):.0f}s"]


class Failure(Exception):
    """A fault did not happen, or something did not come back from one."""


def get_json(url: str, timeout: float = 2) -> Any:
    request = urllib.request.Request(url, headers={"accept": "application/json"})
    with urllib.request.urlopen(request, timeout=timeout) as answer:
        return json.load(answer)


def kill(process: subprocess.Popen) -> bool:
    """Whether it ran until this killed it."""
    process.send_signal(signal.SIGKILL)
    return process.wait() == -signal.SIGKILL


def stop(process: subprocess.Popen) -> bool:
    """Whether it stands still."""
    process.send_signal(signal.SIGSTOP)
    deadline = time.monotonic() + 2
    while time.monotonic() < deadline:
        with open(f"/proc/{process.pid}/stat", encoding="ascii", errors="replace") as stat:
            if stat.read().rpartition(")")[2].split()[0] == "T":
                return True
        time.sleep(0.01)
    return False


class Apis(Server):
    """Both simulated APIs. Their faults change by starting them again at the same address: to a client an outage of a
    moment, since the history is the same."""

    def __init__(self, trailcast: str, seed: int, start: str, log: str) -> None:
        self.port = free_port()
        options = {"listen": f"127.0.0.1:{self.port}", "seed": seed, "start": start, **HISTORY}
        self.command = [trailcast, "simulate", *_arguments(options)]
        self.log = log
        self.faults: list[Fault] = []
        # Whether they were taken down.
        self.down = False
        # Of all that ran so far, both sources together.
        self.counts: collections.Counter[str] = collections.Counter()
        # Of the run of now, when stock was last taken.
        self.taken: collections.Counter[str] = collections.Counter()
        self.said = self._spawn()

    def _spawn(self) -> Any:
        with open(self.log, "ab") as log:
            self.process = subprocess.Popen(
                [*self.command, *_arguments(merged(self.faults))], stdout=subprocess.PIPE, stderr=log)
        self.taken = collections.Counter()
        line = self.process.stdout.readline()
        self.process.stdout.close()
        if not line:
            raise Failure(f"the APIs do not come up with {merged(self.faults)}: see {self.log}")
        return json.loads(line)

    @property
    def up(self) -> bool:
        return self.process.poll() is None

    def take_stock(self) -> None:
        """Adds what they counted since the last time, and says to the faults of now how often they happened."""
        if not self.up:
            return
        counts: collections.Counter[str] = collections.Counter()
        for source in get_json(f"{self.said['url']}/stats", 30).values():
            counts.update(source)
        new = counts - self.taken
        self.taken = counts
        self.counts += new
        for fault in self.faults:
            fault.seen += sum(new[name] for name in fault.kind.counts)

    def take_down(self) -> bool:
        """Whether nobody listens then."""
        if self.up:
            self.take_stock()
            kill(self.process)
        self.down = True
        with socket.socket() as probe:
            return probe.connect_ex(("127.0.0.1", self.port)) != 0

    def bring_up(self) -> None:
        self._spawn()
        self.down = False

    def change(self, faults: list[Fault]) -> None:
        """From now on these."""
        was_down = self.down
        if not was_down:
            self.take_down()
        self.faults = list(faults)
        if not was_down:
            self.bring_up()

    def truth(self, source: str) -> list[dict]:
        with urllib.request.urlopen(f"{self.said['url']}/truth?source={source}", timeout=60) as answer:
            return [json.loads(line) for line in answer]


def _arguments(options: dict[str, object]) -> list[str]:
    # With "=", so that a value may begin with a dash.
    return [f"--{key}" if value is True else f"--{key}={value}" for key, value in options.items()]


class Trailcast:
    """One `trailcast run` that is started again whenever it has ended."""

    def __init__(self, trailcast: str, name: str, folder: str, apis: Apis, stream: dict[str, Any], out: str,
                 **config: Any) -> None:
        self.name = name
        self.log = os.path.join(folder, f"{name}.log")
        self.out = out
        self.admin = f"http://127.0.0.1:{(port := free_port())}"
        genauth, scloud = dict(apis.said["genauth"]), dict(apis.said["scloud"])
        self.secrets = {"SOAK_GENAUTH": genauth.pop("access_key_secret"), "SOAK_SCLOUD": scloud.pop("private_key")}
        url = apis.said["url"]
        streams = {
            "users": {"genauth": {"endpoint": url, **genauth, "access_key_secret": {"env": "SOAK_GENAUTH"}}},
            "cloud": {"scloud": {"endpoint": url, **scloud, "private_key": {"env": "SOAK_SCLOUD"}}},
        }
        whole = {
            "streams": {name: {**source, **STREAM, **stream} for name, source in streams.items()},
            "admin": {"listen": f"127.0.0.1:{port}"}, "log": {"format": "text", "level": "info"}, **config,
        }
        path = os.path.join(folder, f"{name}.yaml")
        with open(path, "w", encoding="utf-8") as file:
            # JSON is YAML.
            json.dump(whole, file, indent=1)
        self.command = [trailcast, "run", "-c", path]
        self.starts = 0
        # How its runs ended.
        self.ends: collections.Counter[str] = collections.Counter()
        self.failures: list[str] = []
        # It was asked to end, by this fault or for good, and has until then.
        self.asked = False
        self.by: Fault | None = None
        self.deadline = 0.0
        self.ended_at: float | None = None
        self.closing = False
        self.spawn()

    def spawn(self) -> None:
        with open(self.log, "ab") as log, open(self.out, "ab") as out:
            self.process = subprocess.Popen(
                self.command, stdin=subprocess.DEVNULL, stdout=out, stderr=log, env={**os.environ, **self.secrets})
        self.starts += 1
        self.asked, self.ended_at = False, None

    def kill(self) -> bool:
        """Kills it, and starts it at once; whether it ran until then."""
        ran = self.process.poll() is None and kill(self.process)
        self.ends["kill -9" if ran else "had ended before kill -9"] += 1
        self.spawn()
        return ran

    def ask_to_end(self, by: Fault | None) -> None:
        """None is for good."""
        self.asked, self.by, self.closing = True, by, by is None
        self.deadline = time.monotonic() + DRAIN
        self.process.send_signal(signal.SIGTERM)

    def look_after(self) -> None:
        """Starts it again if it has ended, at once if it was asked to."""
        now, status = time.monotonic(), self.process.poll()
        if status is None:
            if self.asked and now > self.deadline:
                self.failures.append(f"{self.name} has not ended {DRAIN} s after SIGTERM")
                self.kill()
            return
        if self.ended_at is None:
            self.ended_at = now
            self.ends[f"{'SIGTERM' if self.asked else 'by itself'}, status {status}"] += 1
            if self.asked and self.by:
                self.by.seen += 1
            # 1: it failed while it ran, or could not drain; 2: a part of its config could not be opened.
            if status not in (0, 1, 2) or status == 0 and not self.asked:
                self.failures.append(f"{self.name} ended with status {status}")
        if not self.closing and (self.asked or now > self.ended_at + PATIENCE):
            self.spawn()

    def status(self) -> Any:
        """`/status`; OSError or ValueError if there is none."""
        return get_json(f"{self.admin}/status", 0.7)


class Disk:
    """A small tmpfs, which needs root; without that it is a folder, and `small` is false."""

    SIZE = "768m"

    def __init__(self, folder: str) -> None:
        self.path = os.path.join(folder, "disk")
        self.ballast = os.path.join(self.path, "ballast")
        os.mkdir(self.path)
        mount = ["mount", "-t", "tmpfs", "-o", f"size={self.SIZE}", "soak", self.path]
        try:
            self.small = os.geteuid() == 0 and subprocess.run(mount, stderr=subprocess.DEVNULL).returncode == 0
        except OSError:
            self.small = False

    def fill(self) -> bool:
        """Whether nothing more fits then."""
        try:
            with open(self.ballast, "wb", buffering=0) as ballast:
                for size in (1 << 20, 1 << 12):
                    try:
                        while True:
                            ballast.write(bytes(size))
                    except OSError:
                        pass
        except OSError:
            pass
        return os.statvfs(self.path).f_bavail == 0

    def free(self) -> None:
        os.remove(self.ballast)

    def stop(self) -> None:
        if self.small:
            subprocess.run(["umount", "--lazy", self.path], check=False)
