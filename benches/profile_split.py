"""Where the exporter's CPU time goes: samples of its stacks, each counted for the first part that it is in."""

import collections
import re
import shutil
import subprocess

from line import Exporter, Simulator, folder

# The first that matches any frame of a stack names the sample. Inlined functions have no frame of their own.
PARTS = [
    ("compress", r"flate2|miniz_oxide|zstd"),
    ("encode: write the event, escape the raw text", r"trailcast::encode|prost"),
    ("normalize: parse the record", r"trailcast::normalize"),
    ("identify: parse the record, fingerprint", r"record::identi|Body::listed|blake3"),
    ("page: parse the envelope, check UTF-8", r"source::(genauth|scloud)::(read|page)|source::http::Body"),
    ("checkpoint", r"redb|trailcast::checkpoint"),
    ("write", r"sink::stdout::Lines"),
    ("reading: tally, order", r"trailcast::reading"),
    ("admit, commit", r"trailcast::state"),
    ("gRPC client", r"tonic::(client|codec|transport)|trailcast::sink::otlp::grpc|\bh2::"),
    ("HTTP client",
     r"hyper|reqwest|trailcast::source::http|trailcast::source::(genauth|scloud)|trailcast::sink::otlp::http"),
    ("sink: plan, search", r"trailcast::sink::otlp"),
    ("limiter", r"trailcast::source"),
    ("lane", r"trailcast::lane"),
    ("feed", r"trailcast::feed"),
    ("runtime", r"tokio|mio"),
]


def split(args, into="ocsf with raw", **exporter):
    import measure

    if not shutil.which("perf"):
        print("split: needs Linux perf")
        return
    start, options = measure.history(args.events // 2)
    with folder() as path, Simulator(args.trailcast, *options) as simulator:
        run = Exporter(args.trailcast, simulator, path, start=start, **exporter)
        data = f"{path}/perf.data"
        run.catch_up(before=["perf", "record", "--quiet", "-F", "299", "--call-graph", "dwarf,8192", "-o", data])
        script = subprocess.Popen(
            ["perf", "script", "--no-inline", "-i", data, "-F", "ip,sym"], stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL, text=True)
        counts, kernel, leaves = collections.Counter(), collections.Counter(), collections.Counter()
        for stack in stacks(script.stdout):
            name = part(stack)
            counts[name] += 1
            leaves[stack[0]] += 1
            kernel[name] += re.match(r"[a-z0-9_.]+$", stack[0]) is not None and "syscall" in " ".join(stack)
    total = sum(counts.values())
    print(f"split: {args.events // 2:,} events, genauth, {into}; {total:,} samples")
    for name, count in counts.most_common():
        print(f"  {100 * count / total:5.1f} %  {name}  (in the kernel {100 * kernel[name] / total:.1f})")
    print("  by function: " + ", ".join(f"{short(name)} {100 * n / total:.1f}" for name, n in leaves.most_common(14)))


def stacks(lines):
    """Function names of each sample, from the leaf to the root."""
    stack = []
    for text in lines:
        fields = text.split(maxsplit=1)
        if fields:
            stack.append(fields[1].strip() if len(fields) > 1 else "?")
        elif stack:
            yield stack
            stack = []
    if stack:
        yield stack


def part(stack):
    for name, pattern in PARTS:
        if any(re.search(pattern, frame) for frame in stack):
            return name
    return "other"


def short(name):
    return re.sub(r"<.*>::", "", name).split("::")[-1] if "::" in name else name
