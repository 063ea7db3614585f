"""The chart's own files: a closed schema that has every value and no other, comments, the README, and what is packaged."""

import json
import re
import tarfile
import tomllib

import yaml

from render import HELMS, REPOSITORY, Wrong

# Objects whose keys are Kubernetes', the Operator's or trailcast's to check, or the user's to choose.
OPEN = {
    "config", "config.streams", "config.sinks", "config.admin", "global", "resources.requests", "resources.limits",
    "podSecurityContext", "securityContext", "affinity", "dnsConfig",
}  # fmt: skip
# These may be set and are not set, in the values' own objects.
UNSET = {"initialDelaySeconds", "expr", "threshold"}


def resolved(schema, root):
    while "$ref" in schema:
        schema = root["definitions"][schema["$ref"].removeprefix("#/definitions/")]
    return schema


def closed(schema, root, place=""):
    schema = resolved(schema, root)
    if schema.get("type") == "object":
        names = schema.get("properties", {})
        if place not in OPEN:
            if "additionalProperties" not in schema or schema["additionalProperties"] is True:
                raise Wrong(f"values.schema.json: {place or 'the root'} takes any key")
        for name, inner in names.items():
            closed(inner, root, f"{place}.{name}".lstrip("."))
        if isinstance(schema.get("additionalProperties"), dict):
            closed(schema["additionalProperties"], root, f"{place}.*")


def same(values, schema, root, place=""):
    """Each value has a place in the schema, and each place a value."""
    schema = resolved(schema, root)
    names = schema.get("properties")
    if names is None or not isinstance(values, dict):
        return
    for name in set(values) - set(names) if place not in OPEN else ():
        raise Wrong(f"values.schema.json lacks {place}{'.' * bool(place)}{name}")
    for name in set(names) - set(values) - UNSET:
        raise Wrong(f"values.yaml lacks {place}{'.' * bool(place)}{name}")
    for name in set(names) & set(values):
        same(values[name], names[name], root, f"{place}.{name}".lstrip("."))


def schema(chart):
    root = json.loads((chart.folder / "values.schema.json").read_text())
    values = (chart.folder / "values.yaml").read_text()
    closed(root, root)
    same(yaml.safe_load(values), root, root)
    # What has no comment, and is in nothing that has one, has a row without a meaning.
    if bare := re.findall(r"^\| `([^`]+)` \|.*\|\s*\|$", readme(chart), re.MULTILINE):
        raise Wrong(f"values.yaml: no comment of {', '.join(bare)}")
    alerts = yaml.safe_load((chart.folder / "alerts.yaml").read_text())
    for name, text in alerts.items():
        if f"    # -- {text['summary']}\n    {name}:" not in values:
            raise Wrong(f"values.yaml: the comment of {name} is not the alert's summary: {text['summary']}")
    return "closed, and the same as the values"


def readme(chart):
    """As helm-docs makes it of the values' comments."""
    return chart.run("helm-docs", "--dry-run", "--log-level", "error", "--sort-values-order", "file").stdout


def about(chart):
    described = yaml.safe_load((chart.folder / "Chart.yaml").read_text())
    version = tomllib.loads((REPOSITORY / "Cargo.toml").read_text())["package"]["version"]
    if described["appVersion"] != version:
        raise Wrong(f"Chart.yaml: appVersion {described['appVersion']}, but the program is {version}")
    notes = {name: yaml.safe_load(text) for name, text in described["annotations"].items()}
    image = yaml.safe_load((chart.folder / "values.yaml").read_text())["image"]
    expected = f"{image['registry']}/{image['repository']}:{version}"
    if [found["image"] for found in notes["artifacthub.io/images"]] != [expected]:
        raise Wrong(f"Chart.yaml: artifacthub.io/images is not {expected}")
    for name in ("category", "license", "links", "changes", "prerelease", "containsSecurityUpdates"):
        if f"artifacthub.io/{name}" not in notes:
            raise Wrong(f"Chart.yaml lacks artifacthub.io/{name}")
    if not any(link["name"] == "support" for link in notes["artifacthub.io/links"]):
        raise Wrong("Chart.yaml: no link for support")
    for helm in HELMS:
        refused = chart.run(helm, "template", "t", ".", "--kube-version", "1.28.0", "--set", "demo.enabled=true", check=False)
        if "incompatible with Kubernetes v1.28.0" not in refused.stderr:
            raise Wrong(f"{helm}: Kubernetes 1.28 is not refused")
    return f"appVersion {version}"


def package(chart, work):
    chart.run("helm4", "package", ".", "-d", work)
    [made] = work.glob("*.tgz")
    names = [name.removeprefix("trailcast/") for name in tarfile.open(made).getnames()]
    strange = [name for name in names if not re.match(r"(Chart|values|alerts)\.yaml$|values\.schema\.json$|README\.md$"
                                                       r"|\.helmignore$|templates/|dashboards/", name)]  # fmt: skip
    if strange:
        raise Wrong(f"the package has more than it should: {', '.join(strange)}")
    if not {"README.md", "alerts.yaml", "values.schema.json", "templates/NOTES.txt"} <= set(names):
        raise Wrong(f"the package lacks files: {names}")
    return f"{len(names)} files"
