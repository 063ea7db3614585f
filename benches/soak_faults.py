"""The faults of the soak, as data: what is drawn, what is not and why; and the plan that a seed gives."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterable
from dataclasses import dataclass

# Flags of `trailcast simulate`, without their dashes in front; True is a flag without a value.
Options = dict[str, object]

# What belongs to the history is the same whenever the APIs start, so that the truth stays the same. Bursts and a
# second's own records fit a page of 50 together: more than that in another order at each request is a documented limit.
RATE = 10
HISTORY: Options = {
    "rate": RATE, "burst": 30, "twin-share": 0.05, "late-share": 0.1, "late-max": "30s", "odd-share": 0.005,
}
# Habits that the APIs have all along, unless a fault says otherwise.
HABITS: Options = {
    "order": "newest", "unstable": True, "volatile-share": 0.3, "empty-pages": 0.05, "token-ttl": "60s",
    "next-token-ttl": "60s", "latency": "5ms", "hang-for": "20s",
}


@dataclass(frozen=True)
class Kind:
    """One kind of fault."""

    name: str
    # What it takes for itself until it is over: no other fault that takes it, or needs it, begins meanwhile.
    takes: tuple[str, ...] = ()
    needs: tuple[str, ...] = ()
    # Cards in the deck.
    cards: int = 1
    # Seconds, at least and at most.
    lasts: tuple[float, float] = (0, 0)
    # Of the APIs: their options meanwhile, and which of their counts grow by it (see /stats). "pages" and "requests"
    # grow by any use: where nothing else counts a fault, it happened to these.
    options: Callable[[random.Random], Options] | None = None
    counts: tuple[str, ...] = ()


@dataclass
class Fault:
    """One fault that was drawn."""

    kind: Kind
    at: float
    lasts: float
    options: Options
    # How often it was seen to happen.
    seen: int = 0

    def __str__(self) -> str:
        options = " ".join(f"--{key}" if value is True else f"--{key} {value}" for key, value in self.options.items())
        lasts = f", {self.lasts:.1f} s" if self.lasts else ""
        return f"{self.kind.name}{lasts}{'  ' + options if options else ''}"


def _apis(name: str, counts: str, options: Callable[[random.Random], Options]) -> Kind:
    return Kind(name, needs=("apis",), lasts=(10, 60), options=options, counts=tuple(counts.split()))


def _share(flag: str) -> Callable[[random.Random], Options]:
    return lambda rng: {flag: round(rng.uniform(0.2, 0.9), 2)}


def _seconds(rng: random.Random, most: int) -> str:
    return f"{rng.choice([-1, 1]) * rng.randint(1, most)}s"


LIES = [
    "maintenance", "no-data", "empty", "zero-count", "page-count", "count-alone", "huge-count", "short-list",
    "empty-later-pages", "deep-errors", "mistyped-token", "refused-tokens", "endless-tokens", "long-tokens", "padded",
    "many-rows", "other-answer", "spelled",
]
_OFF = ["60s", "-60s", "20m", "-20m", "8h", "-8h", "1d", "-1d"]

OF_THE_APIS = [
    _apis("throttled", "throttled", _share("throttle")),
    _apis("throttled, told for how long", "throttled_retry_after", _share("throttle-retry-after")),
    _apis("throttled beyond so many a second", "over_limit", lambda rng: {"requests-per-second": rng.randint(1, 4)}),
    _apis("errors to retry", "errors", _share("errors")),
    _apis("credentials and parameters refused", "refusals", _share("refusals")),
    _apis("torn answers", "torn truncated", _share("torn")),
    _apis("never answered", "hung", lambda rng: {"hang": round(rng.uniform(0.1, 0.5), 2), "hang-for": "60s"}),
    _apis("a gateway's pages", "html", _share("html")),
    _apis("connections closed", "closed", _share("close")),
    _apis("slow", "requests", lambda rng: {"latency": f"{rng.randint(200, 3500)}ms"}),
    _apis("empty pages though more follow", "empty_pages", _share("empty-pages")),
    _apis("management tokens of a second", "tokens_issued", lambda _: {"token-ttl": "1s"}),
    _apis("next tokens of a moment", "expired_next_tokens", lambda _: {"next-token-ttl": "1ms"}),
    _apis("pages beyond few rows refused", "too_deep", lambda rng: {"max-rows": rng.randint(51, 150)}),
    _apis("oldest first", "pages", lambda _: {"order": "oldest"}),
    _apis("all that is looked up is new", "pages", lambda _: {"volatile-share": 1}),
    _apis("bounds left out", "pages", lambda _: {"exclusive-bounds": True}),
    _apis("times in another form", "pages", lambda rng: {"times": rng.choice(["other-unit", "exponent", "text"])}),
    _apis("filed by another time", "pages", lambda rng: {"filed-later": _seconds(rng, 15)}),
    _apis("filed by other times", "pages", lambda rng: {
        "filed-later": _seconds(rng, 10), "filed-spread": f"{rng.randint(1, 5)}s"}),
    _apis("bounds by minutes", "pages", lambda rng: {"round-bounds": f"{rng.choice([10, 30, 60])}s"}),
    _apis("the servers' clock steps", "pages", lambda rng: {"clock-offset": _seconds(rng, 15)}),
    _apis("Date off", "dates_off", lambda rng: {"date-off": rng.choice(_OFF)}),
    _apis("Date off for a few answers", "dates_off", lambda rng: {
        "date-off": rng.choice(_OFF), "date-answers": rng.randint(1, 12)}),
    _apis("Date of one node in two off", "dates_off", lambda rng: {"date-off": rng.choice(_OFF), "date-share": 0.5}),
    _apis("Date at random", "dates_off", lambda _: {"date-random": "1h"}),
    _apis("Date of another year", "dates_off", lambda rng: {"date-year": rng.choice([1970, 1999, 2030, 2100, 9999])}),
    _apis("everything at moderate rates", "throttled errors torn truncated html closed lies",
          lambda _: {"faults": True}),
    _apis("lies now and then", "lies", lambda rng: {"lie-share": round(rng.uniform(0.05, 0.5), 2)}),
    *(_apis(f"lie: {lie}", "lies", lambda _, lie=lie: {"lie": lie}) for lie in LIES),
]

KINDS = [
    *OF_THE_APIS,
    Kind("APIs down", takes=("apis",), lasts=(1, 30), cards=2),
    Kind("kill -9: file", takes=("file",), cards=4),
    Kind("kill -9: kafka", takes=("kafka",), cards=5),
    Kind("kill -9: both", takes=("file", "kafka"), cards=2),
    Kind("SIGTERM: file", takes=("file",), lasts=(30, 30)),
    Kind("SIGTERM: kafka", takes=("kafka",), lasts=(30, 30)),
    Kind("SIGSTOP: file", takes=("file",), lasts=(1, 20)),
    # Longer and shorter than its session.
    Kind("SIGSTOP: kafka", takes=("kafka",), lasts=(1, 20), cards=2),
    Kind("broker SIGSTOP", takes=("broker",), lasts=(1, 20), cards=3),
    Kind("broker kill -9", takes=("broker",), lasts=(0.5, 20), cards=3),
    Kind("broker SIGTERM", takes=("broker",), lasts=(5, 20)),
    Kind("disk full", takes=("disk",), lasts=(2, 30), cards=3),
]

NOT_DRAWN = {
    "--seed, --rate, --start, --events, --twin-share, --late-share, --late-max, --odd-share, --burst":
        "they are the history: with others, other things would have happened. Twins, late and odd records and bursts "
        "are there all along",
    "--unstable": "there all along, as is --order newest",
    "--ignore-bounds": "what is not listed meanwhile cannot be read: that is a gap, which is told, by design",
    "--burst beyond a page, --rate beyond a page a second":
        "more than a page in one second in another order at each request may hide twins: a documented limit",
    "--late-max, --filed-later, --filed-spread, --clock-offset beyond the oldest sweep":
        "what becomes readable later than that is missed: a documented limit",
    "--lie-after, --lie-for, --date-after, --date-for": "when a fault begins and ends is drawn here",
    "any fault for good": "each is over within a minute; what is missing then is missing for good",
    "this machine's wall clock": "trailcast reads it when it starts, and the machine is not only ours: the servers' "
        "clock steps instead, also while trailcast is started again",
    "a checkpoint that is lost, or older": "refused, and a person has to accept it",
    "a broker's disk lost, a power cut": "one broker with one copy of each record keeps nothing then",
}


def merged(faults: Iterable[Fault]) -> Options:
    """The options while all of these last: of one that two set, the later counts; lies add up."""
    options = {**HABITS}
    for fault in faults:
        lies = [str(lie) for lie in (options.get("lie"), fault.options.get("lie")) if lie]
        options.update(fault.options)
        if lies:
            options["lie"] = ",".join(dict.fromkeys(lies))
    return options


def plan(seed: int, seconds: float, per_hour: float, kinds: list[Kind]) -> list[Fault]:
    """Faults in the order of their times. From a deck that is shuffled and dealt to its end, and again: so an hour has
    all kinds. Everything is drawn here, so that nothing depends on how quick a machine is."""
    rng = random.Random(seed)
    deck: list[Kind] = []
    taken: dict[str, float] = {}
    faults: list[Fault] = []
    at = 0.0
    while (at := at + rng.uniform(0.5, 1.5) * 3600 / per_hour) < seconds:
        if len(deck) < len(kinds):
            more = [kind for kind in kinds for _ in range(kind.cards)]
            rng.shuffle(more)
            deck += more
        free = (kind for kind in deck if all(taken.get(part, 0) < at for part in kind.takes + kind.needs))
        kind = next(free, None)
        if kind is None:
            # All that is in the deck is taken: that is enough for now.
            continue
        deck.remove(kind)
        lasts = rng.uniform(*kind.lasts)
        taken.update({part: at + lasts for part in kind.takes})
        faults.append(Fault(kind, at, lasts, kind.options(rng) if kind.options else {}))
    return faults
