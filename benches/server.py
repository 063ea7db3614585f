"""Servers that a measurement starts, and ends by itself."""

import os
import random
import re
import socket
import time


def free_port():
    """Below those that outgoing connections get, so that it stays free until it is used."""
    while True:
        port = random.randint(12_000, 31_999)
        with socket.socket() as probe:
            if probe.connect_ex(("127.0.0.1", port)):
                return port


def cpu_seconds(pid):
    """What a process has taken so far."""
    with open(f"/proc/{pid}/stat", encoding="ascii", errors="replace") as stat:
        fields = stat.read().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def resident(pid):
    """MiB, by the kernel's names."""
    with open(f"/proc/{pid}/status", encoding="ascii", errors="replace") as status:
        return {name: int(kib) / 1024 for name, kib in re.findall(r"(Vm\w+):\s+(\d+) kB", status.read())}


class Server:
    """Ends with the `with` that it is in. `process` is what was started; nothing of it is used again."""

    process = None

    def wait_until(self, is_up, seconds, otherwise):
        """Until `is_up()`; if that takes longer than `seconds`, or the process ends, everything ends with `otherwise`."""
        deadline = time.monotonic() + seconds
        while not is_up():
            if time.monotonic() > deadline or self.process.poll() is not None:
                self.stop()
                raise SystemExit(otherwise)
            time.sleep(0.05)

    def cpu(self):
        """Seconds that it has taken so far."""
        return cpu_seconds(self.process.pid)

    def stop(self):
        self.process.kill()
        self.process.wait()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.stop()
