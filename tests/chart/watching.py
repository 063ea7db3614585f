"""Alerts and dashboards: what they ask is documented, alerts are tried by promtool, dashboards keep the rules
that dashboard linters have."""

import json
import re
import subprocess

import yaml

from render import REPOSITORY, Wrong, parse

# What Prometheus and the Operator add, and what histograms have.
LABELS = {"namespace", "job", "pod", "instance", "le"}


def documented():
    """Labels of each metric in the table of the README or the docs, and the values of those that have a closed set."""
    pages = [REPOSITORY / "README.md", *sorted((REPOSITORY / "docs").rglob("*.md"))]
    text = "\n".join(page.read_text() for page in pages)
    metrics, values = {}, {}
    for name, kind, labels in re.findall(r"^\| `(trailcast_\w+)` \| ([^|]+) \| ([^|]*) \|", text, re.MULTILINE):
        for suffix in ["", "_bucket", "_sum", "_count"] if kind.startswith("histogram") else [""]:
            metrics[name + suffix] = set(re.findall(r"`(\w+)`", labels))
    for label, of, found in re.findall(r"^\| `(\w+)` \| `(trailcast_\w+)` \| ((?:`\w+` ?)+)\|", text, re.MULTILINE):
        values[of, label] = set(re.findall(r"`(\w+)`", found))
    if len(metrics) < 30 or len(values) < 4:
        raise Wrong("the tables of metrics in the README or the docs cannot be read")
    return metrics, values


def asks(where, expression, metrics, values):
    """An expression asks only for what there is."""
    for name in set(re.findall(r"\btrailcast_\w+", expression)):
        if name not in metrics:
            raise Wrong(f"{where}: no metric {name}")
    for name, matchers in re.findall(r"\b(\w+)\{([^}]*)\}", expression):
        labels = metrics.get(name, set())
        for label, value in re.findall(r"(\w+)\s*[=!]~?\s*\"([^\"]*)\"", matchers):
            if label not in labels | LABELS:
                raise Wrong(f"{where}: {name} has no label {label}")
            strange = set(value.split("|")) - values.get((name, label), set(value.split("|")))
            if strange and not value.startswith("$"):
                raise Wrong(f"{where}: {label} of {name} is never {', '.join(sorted(strange))}")


def alerts(chart, promtool, work):
    """Each alert of the values has a text and a test in which it fires, and one in which it does not."""
    values = yaml.safe_load((chart.folder / "values.yaml").read_text())["prometheusRule"]["alerts"]
    texts = yaml.safe_load((chart.folder / "alerts.yaml").read_text())
    if list(values) != list(texts):
        raise Wrong(f"values.yaml and alerts.yaml have other alerts: {set(values) ^ set(texts) or 'in another order'}")
    case = chart.folder / "ci" / "monitoring-values.yaml"
    enable = [part for alert in values for part in ("--set", f"prometheusRule.alerts.{alert}.enabled=true")]
    defaults = work / "defaults.yaml"
    defaults.write_text(yaml.safe_dump({"prometheusRule": {"alerts": values}}))
    text = chart.template("helm4", "-f", case, "-f", defaults, *enable, "-s", "templates/prometheusrule.yaml").stdout
    [rule] = parse(text)
    rules = rule["spec"]["groups"][0]["rules"]
    if [found["alert"] for found in rules] != sorted(values):
        raise Wrong("not every alert is rendered")
    known = documented()
    for found in rules:
        name = found["alert"]
        asks(name, found["expr"], *known)
        if re.search(r"SELECTOR|THRESHOLD|<no value>|<nil>", json.dumps(found)):
            raise Wrong(f"{name}: a placeholder stayed: {found}")
        # A threshold that the expression does not have would change nothing, and one that it has must be there.
        if ("THRESHOLD" in texts[name]["expr"]) != ("threshold" in values[name]):
            raise Wrong(f"{name}: a threshold stands in one of values.yaml and alerts.yaml")
        if found["labels"]["severity"] not in ("critical", "warning", "info"):
            raise Wrong(f"{name}: severity {found['labels']['severity']}")
        for key in ("summary", "description"):
            if not found["annotations"][key].endswith("."):
                raise Wrong(f"{name}: {key} is no sentence")
        if "{{" in found["annotations"]["summary"]:
            raise Wrong(f"{name}: the summary is to be the same for all")
        # What a description names is a label that the alert has.
        left = set().union(*(re.split(r",\s*", by) for by in re.findall(r"\bby \(([^)]*)\)", found["expr"])))
        left = left - {"le"} or {"namespace", "job", "pod", "instance"}
        if strange := set(re.findall(r"\$labels\.(\w+)", json.dumps(found["annotations"]))) - left:
            raise Wrong(f"{name}: the description names {', '.join(strange)}, which the alert has not")
    (work / "described.yaml").write_text(yaml.safe_dump(rule["spec"]))
    for found in rules:
        del found["annotations"]
    (work / "rules.yaml").write_text(yaml.safe_dump(rule["spec"]))
    tests = REPOSITORY / "tests" / "chart" / "alerts_test.yaml"
    (work / "alerts_test.yaml").write_text(tests.read_text())
    for command in (["check", "rules", "described.yaml"], ["test", "rules", "alerts_test.yaml"]):
        done = subprocess.run([promtool, *command], cwd=work, capture_output=True, text=True)
        if done.returncode != 0:
            raise Wrong(f"promtool {' '.join(command)}\n{done.stdout}{done.stderr}")
    fires, silent = set(), set()
    for test in yaml.safe_load(tests.read_text())["tests"]:
        for tried in test["alert_rule_test"]:
            (fires if tried.get("exp_alerts") else silent).add(tried["alertname"])
    for kind, tried in (("fires", fires), ("is silent", silent)):
        if untried := sorted(set(values) - tried):
            raise Wrong(f"no test in which it {kind}: {', '.join(untried)}")
    return f"{len(rules)} alerts"


def panels(board):
    for panel in board["panels"]:
        yield panel
        yield from panel.get("panels", [])


def dashboards(chart):
    found = sorted((chart.folder / "dashboards").glob("*.json"))
    if not found:
        raise Wrong("no dashboard")
    known = documented()
    uids = [dashboard(path, known) for path in found]
    if len(uids) != len(set(uids)):
        raise Wrong(f"two dashboards have one uid: {uids}")
    return f"{len(found)} dashboard(s)"


def dashboard(path, known):
    text = path.read_text()
    board = json.loads(text)

    def must(holds, rule):
        if not holds:
            raise Wrong(f"{path.name}: {rule}")

    # A ConfigMap holds a MiB.
    must(len(text) < 900_000, "too large for a ConfigMap")
    must("id" not in board and re.fullmatch(r"[a-z0-9-]{1,40}", board["uid"]), "no id, and a uid that stays")
    must(board["editable"] is False, "editable")
    must(board["tags"] == ["trailcast"], "its tag is trailcast")
    variables = {variable["name"]: variable for variable in board["templating"]["list"]}
    sources = [variable for variable in variables.values() if variable["type"] == "datasource"]
    must(len(sources) == 1 and sources[0]["name"] == "datasource", "one variable of a data source, named datasource")
    must(sources[0]["label"] == "Data source" and sources[0]["query"] == "prometheus", "the data source's label or kind")
    for name in ("job", "instance"):
        must(name in variables, f"no variable {name}")
    for name, variable in variables.items():
        if variable["type"] == "query":
            must(variable["datasource"]["uid"] == "${datasource}", f"{name} does not use the data source")
            must(variable["refresh"] == 2, f"{name} does not follow the time range")
            must(variable["multi"] and variable["includeAll"] and variable["allValue"] == ".+", f"{name} is not multi, or has no all")
            must(variable["label"], f"{name} has no label")
            asks(f"{path.name}: {name}", variable["query"]["query"], *known)
    ids = [panel["id"] for panel in panels(board)]
    must(len(ids) == len(set(ids)), "two panels have one id")
    for panel in panels(board):
        if panel["type"] == "row":
            continue
        title = panel.get("title")
        must(title and panel.get("description"), f"panel {panel['id']} has no title or description")
        must(panel["datasource"]["uid"] == "${datasource}", f"{title}: does not use the data source")
        must(panel["fieldConfig"]["defaults"].get("unit"), f"{title}: no unit")
        must(panel["targets"], f"{title}: asks nothing")
        for target in panel["targets"]:
            expression = target["expr"]
            asks(f"{path.name}: {title}", expression, *known)
            for selector in re.findall(r"\b(?:trailcast|process)_\w+(?:\{([^}]*)\})?", expression):
                must('job=~"$job"' in selector and 'instance=~"$instance"' in selector, f"{title}: a query without job and instance")
            for function, name in re.findall(r"(\w*)\(?(trailcast_\w+_total)\b", expression):
                must(function in ("rate", "increase", "irate"), f"{title}: {name} without rate or increase")
            for window in re.findall(r"(?:rate|increase)\([^\[]*\[([^\]]*)\]", expression):
                must(window == "$__rate_interval" or window == "$__range", f"{title}: a window of {window}")
            must(target.get("legendFormat") is not None, f"{title}: no legend")
    return board["uid"]
