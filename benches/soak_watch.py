"""What of a trailcast is looked at while the soak runs."""

from __future__ import annotations

import collections
import contextlib
import threading
import time
from typing import Any

from server import resident
from soak_world import Trailcast


def clock() -> str:
    return time.strftime("%H:%M:%SZ", time.gmtime())


class Watch:
    """Looks at a trailcast each second: its memory, the states of its lanes, and how long one was `ok` while its lag
    grew.

    That is the longest stretch of samples of one process, each with the state `ok` and none with less lag than the one
    before. A lane that keeps up falls back at each poll, so its stretches are as long as a poll and its delivery; the
    state may be `ok` for `settle` (none here) and 30 s of lag. A sample that has no answer ends a stretch.
    """

    def __init__(self, trailcast: Trailcast) -> None:
        self.trailcast = trailcast
        self.peak_mib = 0.0
        self.samples: collections.Counter[str] = collections.Counter()
        # Seconds, the lag then, the lane, and when.
        self.longest: tuple[float, float, str, str] = (0, 0, "none", "never")
        self.last: Any = None
        self._stretches: dict[tuple[int, str], tuple[float, float]] = {}
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)
        self._thread.start()

    def _watch(self) -> None:
        while not self._ended.wait(1):
            pid = self.trailcast.process.pid
            with contextlib.suppress(OSError, AttributeError):
                # A process that has just ended has none.
                self.peak_mib = max(self.peak_mib, resident(pid).get("VmHWM", 0))
            try:
                lanes = self.trailcast.status()["lanes"]
            except (OSError, ValueError):
                lanes = []
                self.samples["no answer"] += 1
            self.last = lanes
            self._see(pid, lanes)

    def _see(self, pid: int, lanes: list[dict]) -> None:
        now, stretches = time.monotonic(), {}
        for lane in lanes:
            self.samples[lane["state"]] += 1
            lag = lane["delivery_lag_seconds"]
            if lane["state"] != "ok" or lag is None:
                continue
            began, before = self._stretches.get((pid, lane["stream"]), (now, lag))
            began = began if lag >= before else now
            stretches[pid, lane["stream"]] = (began, lag)
            if now - began > self.longest[0]:
                self.longest = (now - began, lag, lane["stream"], clock())
        self._stretches = stretches

    def stop(self) -> None:
        self._ended.set()
        self._thread.join()
