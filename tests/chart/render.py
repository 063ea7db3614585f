"""The chart's cases, and what Helm makes of them."""

import pathlib
import re
import subprocess

import yaml

REPOSITORY = pathlib.Path(__file__).resolve().parents[2]
HELMS = ("helm3", "helm4")
# The oldest that Chart.yaml allows.
KUBE = "1.29.0"
NAMESPACE = "audit"


class Wrong(Exception):
    """What a check has found."""


class Unique(yaml.SafeLoader):
    """Helm 4 applies on the server's side, which refuses a key that stands twice; PyYAML would take the last."""

    def construct_mapping(self, node, deep=False):
        keys = [key.value for key, _ in node.value if key.tag != "tag:yaml.org,2002:merge"]
        twice = {key for key in keys if keys.count(key) > 1}
        if twice:
            raise Wrong(f"line {node.start_mark.line + 1}: twice in one object: {', '.join(sorted(twice))}")
        return super().construct_mapping(node, deep)


def parse(text):
    return [document for document in yaml.load_all(text, Unique) if document is not None]


class Chart:
    """A chart in a folder, and the programs to treat it with."""

    def __init__(self, folder, tools):
        self.folder = pathlib.Path(folder)
        self.tools = pathlib.Path(tools)

    def run(self, tool, *arguments, check=True):
        done = subprocess.run([self.tools / "bin" / tool, *arguments], capture_output=True, text=True, cwd=self.folder)
        if check and done.returncode != 0:
            raise Wrong(f"{tool} {' '.join(map(str, arguments))}\n{done.stdout}{done.stderr}")
        return done

    def template(self, helm, *arguments, check=True):
        # A release by another name than the chart's, so that what takes one for the other shows.
        return self.run(helm, "template", "t", ".", "-n", NAMESPACE, "--kube-version", KUBE, *arguments, check=check)

    def cases(self):
        found = sorted((self.folder / "ci").glob("*.yaml"))
        strangers = [path.name for path in found if not re.search(r"-(values|fails)\.yaml$", path.name)]
        if strangers:
            raise Wrong(f"ci: neither NAME-values.yaml nor NAME-fails.yaml: {strangers}")
        return [Case(path) for path in found]


class Case:
    """Values of ci/. NAME-fails.yaml begins with a line `# fails: ` and what Helm must say then."""

    def __init__(self, path):
        self.path = path
        self.name = path.name.removesuffix(".yaml")
        self.fails = self.name.endswith("-fails")
        self.text = path.read_text()
        self.values = yaml.safe_load(self.text)

    def said(self, word):
        found = re.search(rf"^# {word}: (.*)$", self.text, re.MULTILINE)
        return found[1] if found else None

    def arguments(self):
        known = (self.said("api-versions") or "").split()
        return ["-f", self.path, *(argument for version in known for argument in ("--api-versions", version))]
