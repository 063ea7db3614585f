#!/usr/bin/env python3
"""Tests the Helm chart. tests/chart/run calls it, and has what it needs.

    check.py TOOLS TRAILCAST PROMTOOL [--write] [--chart FOLDER] [--only CHECK…]

--write makes the README and the golden renders anew instead of comparing them. --chart and --only are for tests/chart/broken.
"""

import argparse
import concurrent.futures
import difflib
import json
import pathlib
import re
import subprocess
import sys
import tempfile
import threading
import time

import files
import kube
import watching
from render import HELMS, NAMESPACE, REPOSITORY, Chart, Wrong, parse

# A few that between them have every object; what the others change is asserted in the chart's tests/.
GOLDEN = ["stdout-genauth-values", "kafka-exactly-once-values", "extras-values", "demo-values"]
LEAST = {"right": 20, "wrong": 5}


def config_of(documents):
    [text] = [d["data"]["trailcast.yaml"] for d in documents if d["kind"] == "ConfigMap" and "trailcast.yaml" in d["data"]]
    return text


def accepted(trailcast, documents):
    """By the program itself, without a warning."""
    with tempfile.NamedTemporaryFile("w", suffix=".yaml") as file:
        file.write(config_of(documents))
        file.flush()
        done = subprocess.run([trailcast, "check", "--offline", "--json", "-c", file.name], capture_output=True, text=True)
    if done.returncode != 0 or [found["state"] for found in json.loads(done.stdout)] != ["ok"]:
        raise Wrong(f"trailcast check: {done.stdout}{done.stderr}")


def secret(case, documents):
    """What stands in the values as a secret stands in one Secret alone."""
    for text in (case.values.get("secrets") or {}).get("inline", {}).values():
        places = [document["kind"] for document in documents if text in json.dumps(document)]
        if places != ["Secret"]:
            raise Wrong(f"a secret is in {places}")


def looked_for(chart, trailcast):
    """Each key that trailcast takes a secret at, or secrets by name below, is one that the chart looks at for secrets."""
    mappings = json.loads(subprocess.check_output([trailcast, "schema"]))["$defs"].values()
    properties = [found for mapping in mappings for found in mapping.get("properties", {}).items()]
    taken = {"$ref": "#/$defs/SecretEntry"}
    keys = {name for name, found in properties if found == found | taken}
    names = {name for name, found in properties if found.get("additionalProperties") == taken}
    text = (chart.folder / "templates" / "_config.tpl").read_text()
    known = set(re.search(r'regexMatch "\^\((\w+(?:\|\w+)*)\)\$" \$key', text)[1].split("|"))
    if keys != known:
        raise Wrong(f"the chart and trailcast know other keys of secrets: {', '.join(sorted(keys ^ known))}")
    missing = names - set(re.findall(r'hasSuffix "\.(\w+)" \$at', text))
    if missing or not names:
        raise Wrong(f"the chart does not look for secrets below {', '.join(sorted(missing))}")
    return ", ".join(sorted(keys | names))


def stable(chart, text):
    """Without what each version changes."""
    about = (chart.folder / "Chart.yaml").read_text()
    version = re.search(r"^version: (.*)$", about, re.MULTILINE)[1]
    application = re.search(r'^appVersion: "(.*)"$', about, re.MULTILINE)[1]
    text = text.replace(f"helm.sh/chart: trailcast-{version}\n", "helm.sh/chart: trailcast-VERSION\n")
    text = text.replace(f'app.kubernetes.io/version: "{application}"', 'app.kubernetes.io/version: "VERSION"')
    return text.replace(f'trailcast/trailcast:{application}"', 'trailcast/trailcast:VERSION"')


def as_before(path, text, write):
    if write:
        path.parent.mkdir(exist_ok=True)
        path.write_text(text)
    before = path.read_text() if path.exists() else ""
    if before != text:
        lines = difflib.unified_diff(before.splitlines(), text.splitlines(), str(path), "as it is made now", lineterm="", n=1)
        raise Wrong("\n".join(list(lines)[:40]) + "\nif that is meant: tests/chart/run TRAILCAST --write")


def fails(chart, case):
    expected = case.said("fails")
    if not expected:
        raise Wrong("its first line is not `# fails: ` and what Helm must say")
    for helm in HELMS:
        done = chart.template(helm, *case.arguments(), check=False)
        if done.returncode == 0:
            raise Wrong(f"{helm} renders it")
        if expected not in done.stderr:
            raise Wrong(f"{helm} does not say {expected!r}, but:\n{done.stderr}")
    return []


def renders(chart, case, trailcast, write):
    """What its objects are, if all is right with them."""
    texts = []
    for helm in HELMS:
        lint = chart.run(helm, "lint", "--strict", ".", "-f", case.path, "--kube-version", "1.34.0", "-n", NAMESPACE, check=False)
        # Linting cannot be told which kinds the cluster knows, and passes over what fails for that.
        failed = "Fail:" in lint.stderr and not case.said("api-versions")
        if lint.returncode != 0 or failed or re.search(r"\[(WARNING|ERROR)\]", lint.stdout + lint.stderr):
            raise Wrong(f"{helm} lint: {lint.stdout}{lint.stderr}")
        # Helm 4 leaves a line free between objects.
        texts.append(re.sub(r"\n+", "\n", chart.template(helm, *case.arguments()).stdout))
    # Nor can this be told; Helm 3 makes notes only where there is a cluster.
    if not case.said("api-versions"):
        notes = chart.run("helm4", "install", "t", ".", "-n", NAMESPACE, "--dry-run=client", "-f", case.path).stdout
        if "NOTES:" not in notes:
            raise Wrong(f"no NOTES: {notes}")
        texts.append(notes)
    if nothing := re.search(r"^.*(%!|<nil>|<no value>).*$", "".join(texts), re.MULTILINE):
        raise Wrong(f"a value that is not there: {nothing[0]}")
    if texts[0] != texts[1]:
        raise Wrong("Helm 3 and Helm 4 render it differently")
    if spaces := re.search(r"^.*[ \t]$", texts[0], re.MULTILINE):
        raise Wrong(f"a line ends with a space: {spaces[0]!r}")
    documents = parse(texts[0])
    for document in documents:
        kube.valid(document)
    for name, _, spec in kube.pods(documents):
        try:
            kube.restricted(spec)
            kube.unambiguous(spec)
            if name.startswith("StatefulSet"):
                kube.probed(spec)
        except Wrong as wrong:
            raise Wrong(f"{name}: {wrong}") from wrong
    kube.connected(documents)
    accepted(trailcast, documents)
    secret(case, documents)
    if case.name in GOLDEN:
        as_before(REPOSITORY / "tests" / "chart" / "golden" / f"{case.name}.yaml", stable(chart, texts[0]), write)
    return documents


def cases(chart, trailcast, write):
    """Every case; gives the objects of the right ones."""

    def one(case):
        try:
            return None, fails(chart, case) if case.fails else renders(chart, case, trailcast, write)
        except Wrong as wrong:
            return f"ci/{case.path.name}: {wrong}", []
        except Exception as error:
            raise Wrong(f"ci/{case.path.name}: {type(error).__name__}: {error}") from error

    found = chart.cases()
    wrong = sum(case.fails for case in found)
    if len(found) - wrong < LEAST["right"] or wrong < LEAST["wrong"]:
        raise Wrong(f"{len(found) - wrong} cases that are right, {wrong} that must fail: too few")
    with concurrent.futures.ThreadPoolExecutor(2) as pool:
        outcomes = list(pool.map(one, found))
    if problems := [problem for problem, _ in outcomes if problem]:
        raise Wrong("\n".join(problems))
    return f"{len(found) - wrong} right, {wrong} wrong", [d for _, documents in outcomes for d in documents]


def operator(tools, documents):
    objects = {json.dumps(d, sort_keys=True): d for d in documents if d["apiVersion"] == kube.OPERATOR}
    if {d["kind"] for d in objects.values()} != {"ServiceMonitor", "PodMonitor", "PrometheusRule"}:
        raise Wrong("no case has each object of the Prometheus Operator")
    command = ["node", REPOSITORY / "tests" / "chart" / "crds.mjs", tools]
    done = subprocess.run(command, input=json.dumps(list(objects.values())), capture_output=True, text=True)
    if done.returncode != 0:
        raise Wrong(done.stderr)
    return f"{len(objects)} objects"


def rolls(chart):
    """Pods are replaced when the config or the chart's own Secret changes, and for nothing else."""

    def sums(name, *settings):
        documents = parse(chart.template("helm4", "-f", chart.folder / "ci" / f"{name}-values.yaml", *settings).stdout)
        [metadata] = [m for n, m, _ in kube.pods(documents) if n.startswith("StatefulSet")]
        return {key: value for key, value in metadata["annotations"].items() if key.startswith("checksum/")}

    before = sums("secrets-inline")
    config = sums("secrets-inline", "--set", "config.log.level=debug")
    text = sums("secrets-inline", "--set", "secrets.inline.genauth-access-key-secret=other")
    size = sums("secrets-inline", "--set", "persistence.size=1Gi,replicas=1")
    changed = [{key for key in before if after[key] != before[key]} for after in (config, text, size)]
    if changed != [{"checksum/config"}, {"checksum/secret"}, set()]:
        raise Wrong(f"checksums that change: {changed}")
    # Of a Secret that is not the chart's, nothing is known, and its files are read again.
    if set(sums("stdout-genauth")) != {"checksum/config"}:
        raise Wrong("a checksum of a Secret that is not the chart's")
    return "config, secret"


def demo(chart, trailcast, work):
    """What the demo's containers run, run here: its config, variables and arguments, on ports that are free."""
    documents = parse(chart.template("helm4", "-f", chart.folder / "ci" / "demo-values.yaml").stdout)
    [spec] = [spec for name, _, spec in kube.pods(documents) if name.startswith("StatefulSet")]
    main, simulator = spec["containers"]
    arguments = [argument.replace("127.0.0.1:8080", "127.0.0.1:0") for argument in simulator["args"]]
    with subprocess.Popen([trailcast, *arguments], stdout=subprocess.PIPE, text=True) as simulated:
        try:
            line = simulated.stdout.readline()
            if not line:
                raise Wrong("the simulator does not start with its arguments")
            url = json.loads(line)["url"]
            config = work / "demo.yaml"
            text = config_of(documents).replace("http://127.0.0.1:8080", url).replace("0.0.0.0:9464", "127.0.0.1:0")
            config.write_text(text)
            arguments = [argument.replace("/etc/trailcast/trailcast.yaml", str(config)) for argument in main["args"]]
            variables = {variable["name"]: variable["value"] for variable in main["env"]}
            with subprocess.Popen([trailcast, *arguments], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, env=variables) as run:
                # Without an event there is no line to wait for.
                limit = threading.Timer(60, run.kill)
                limit.start()
                sources = set()
                for line in run.stdout:
                    sources.add(json.loads(line)["metadata"]["log_provider"])
                    if len(sources) == 2:
                        break
                limit.cancel()
                run.kill()
        finally:
            simulated.kill()
    if len(sources) != 2:
        raise Wrong(f"events came of these sources: {sources}")
    return f"events of {' and '.join(sorted(sources))}"


def unit_tests(chart):
    done = chart.run("helm-unittest", "--strict", ".", check=False)
    if done.returncode != 0:
        raise Wrong(done.stdout + done.stderr)
    said = re.search(r"Tests:\s+(\d+) passed, .*", done.stdout)
    if not said or int(said[1]) < 20:
        raise Wrong(f"too few unit tests: {done.stdout}")
    return said[0]


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("tools", type=pathlib.Path)
    parser.add_argument("trailcast", type=pathlib.Path)
    parser.add_argument("promtool", type=pathlib.Path)
    parser.add_argument("--write", action="store_true")
    parser.add_argument("--chart", type=pathlib.Path, default=REPOSITORY / "helm" / "trailcast")
    parser.add_argument("--only", nargs="*")
    given = parser.parse_args()
    chart = Chart(given.chart.resolve(), given.tools)
    failed = 0
    with tempfile.TemporaryDirectory() as folder:
        work = pathlib.Path(folder)
        objects = []

        def every_case():
            said, found = cases(chart, given.trailcast, given.write)
            objects.extend(found)
            return said

        for name, check in [
            ("schema", lambda: files.schema(chart)),
            ("about", lambda: files.about(chart)),
            ("readme", lambda: as_before(chart.folder / "README.md", files.readme(chart), given.write)),
            ("package", lambda: files.package(chart, work)),
            ("unit", lambda: unit_tests(chart)),
            ("secrets", lambda: looked_for(chart, given.trailcast)),
            ("cases", every_case),
            ("rolls", lambda: rolls(chart)),
            ("demo", lambda: demo(chart, given.trailcast, work)),
            ("operator", lambda: operator(given.tools, objects)),
            ("alerts", lambda: watching.alerts(chart, given.promtool, work)),
            ("dashboards", lambda: watching.dashboards(chart)),
        ]:
            if given.only and name not in given.only:
                continue
            began = time.monotonic()
            try:
                said = check() or "as it should be"
            except Wrong as wrong:
                failed += 1
                said = f"FAILED\n{wrong}"
            print(f"{name:<11}{time.monotonic() - began:5.1f} s  {said}", flush=True)
    sys.exit(1 if failed else 0)


main()
