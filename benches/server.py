"""Servers that a measurement starts, and ends by itself."""

import os
import random
import socket
import time


def free_port():
    """Below those that outgoing connections get, so that it stays free until it is used."""
    while True:
        port = random.randint(12_000, 31_999)
        with socket.socket() as probe:
            if probe.connect_ex(("127.0.0.1", port)):
                return port


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
        with open(f"/proc/{self.process.pid}/stat", encoding="ascii", errors="replace") as stat:
            fields = stat.read().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")

    def stop(self):
        self.process.kill()
        self.process.wait()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.stop()
