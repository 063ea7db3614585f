"""What Kubernetes asks of objects: its schemas, the Pod Security Standard "restricted", and that what they name is there."""

import functools
import importlib.resources
import json
import re

import jsonschema
import referencing

from render import NAMESPACE, Wrong

VERSIONS = [f"1.{minor}" for minor in range(29, 36)]
# Whose schemas are elsewhere (crds.mjs), or nowhere here: what an example brings by itself.
OPERATOR = "monitoring.coreos.com/v1"
UNKNOWN = {"ExternalSecret"}
VOLUMES = {"configMap", "csi", "downwardAPI", "emptyDir", "ephemeral", "image", "persistentVolumeClaim", "projected", "secret"}


@functools.cache
def schema(version, name):
    folder = importlib.resources.files("kubernetes_validate") / "kubernetes-json-schema" / f"v{version}.0-local-strict"
    path = folder / f"{name}.json"
    return json.loads(path.read_text()) if path.is_file() else None


@functools.cache
def registry(version):
    resource = referencing.Resource.from_contents(schema(version, "_definitions"))
    return resource @ referencing.Registry()


@functools.cache
def validator(version, kind, api):
    # apps/v1 is apps-v1, networking.k8s.io/v1 is networking-v1.
    found = schema(version, f"{kind.lower()}-{re.sub(r'^([^./]*)[^/]*/', chr(92) + '1-', api)}")
    if found is None:
        raise Wrong(f"Kubernetes {version} has no {kind} {api}")
    return jsonschema.Draft202012Validator(found, registry=registry(version))


@functools.cache
def errors(text):
    """Of one object, as JSON: many cases have the same."""
    document = json.loads(text)
    found = []
    for version in VERSIONS:
        for error in validator(version, document["kind"], document["apiVersion"]).iter_errors(document):
            found.append(f"Kubernetes {version}: {document['kind']} {error.json_path}: {error.message[:200]}")
    return found


def valid(document):
    if document["apiVersion"] != OPERATOR and document["kind"] not in UNKNOWN:
        if found := errors(json.dumps(document, sort_keys=True)):
            raise Wrong("\n".join(found[:5]))


def pods(documents):
    """(name, metadata, spec) of each pod that there will be."""
    for document in documents:
        if document["kind"] == "Pod":
            yield f"Pod {document['metadata']['name']}", document["metadata"], document["spec"]
        elif document["kind"] == "StatefulSet":
            template = document["spec"]["template"]
            yield f"StatefulSet {document['metadata']['name']}", template["metadata"], template["spec"]


def containers(spec):
    return spec.get("initContainers", []) + spec["containers"]


def restricted(spec):
    """As pod-security-admission's policy has it, and a root that cannot be written to, no token, no floating image."""
    wrong = []
    if any(spec.get(key) for key in ("hostNetwork", "hostPID", "hostIPC")):
        wrong.append("takes a namespace of the host")
    for volume in spec.get("volumes", []):
        if not (set(volume) - {"name"}) <= VOLUMES:
            wrong.append(f"a volume of this kind: {volume}")
    of_pod = spec.get("securityContext", {})
    for container in containers(spec):
        own = container.get("securityContext", {})

        def either(key):
            return own.get(key, of_pod.get(key))

        for holds, text in [
            (own.get("allowPrivilegeEscalation") is False, "allowPrivilegeEscalation"),
            (not own.get("privileged"), "privileged"),
            (own.get("capabilities", {}).get("drop") == ["ALL"], "capabilities.drop"),
            (not own.get("capabilities", {}).get("add"), "capabilities.add"),
            (either("runAsNonRoot") is True, "runAsNonRoot"),
            (either("runAsUser") != 0, "runAsUser"),
            ((either("seccompProfile") or {}).get("type") == "RuntimeDefault", "seccompProfile"),
            (own.get("readOnlyRootFilesystem") is True, "readOnlyRootFilesystem"),
            (not any("hostPort" in port for port in container.get("ports", [])), "hostPort"),
            (re.search(r":[^:/]+$", container["image"]) and ":latest" not in container["image"], "image"),
        ]:
            if not holds:
                wrong.append(f"{container['name']}: {text}")
    if spec.get("automountServiceAccountToken") is not False:
        wrong.append("a token of the service account is mounted")
    if wrong:
        raise Wrong("not restricted: " + "; ".join(wrong))


def unambiguous(spec):
    """The lists that Kubernetes merges by a key have each key once."""
    lists = {"volumes": (spec.get("volumes", []), "name"), "containers": (containers(spec), "name")}
    for container in containers(spec):
        for part, key in [("env", "name"), ("ports", "name"), ("volumeMounts", "mountPath")]:
            lists[f"{container['name']}.{part}"] = (container.get(part, []), key)
    for name, (items, key) in lists.items():
        names = [item[key] for item in items]
        if len(names) != len(set(names)):
            raise Wrong(f"{name}: {key} twice: {names}")


def selects(selector, labels):
    return selector and all(labels.get(key) == value for key, value in selector.items())


def connected(documents):
    """What one object names of another is there."""
    of = {}
    for document in documents:
        of.setdefault(document["kind"], []).append(document)
        if document["metadata"].get("namespace", NAMESPACE) != NAMESPACE:
            raise Wrong(f"{document['kind']} goes into another namespace")
    names = {kind: {document["metadata"]["name"] for document in found} for kind, found in of.items()}
    for kind, found in of.items():
        if len(names[kind]) != len(found):
            raise Wrong(f"two objects of kind {kind} have one name: {sorted(names[kind])}")
    [stateful] = of["StatefulSet"]
    [service] = of["Service"]
    labels = stateful["spec"]["template"]["metadata"]["labels"]

    def must(holds, text):
        if not holds:
            raise Wrong(text)

    must(stateful["spec"]["serviceName"] == service["metadata"]["name"], "StatefulSet: no such Service")
    must(selects(stateful["spec"]["selector"]["matchLabels"], labels), "StatefulSet: does not select its pods")
    must(selects(service["spec"]["selector"], labels), "Service: does not select the pods")
    for kind, on in [("PodMonitor", labels), ("ServiceMonitor", service["metadata"]["labels"]), ("PodDisruptionBudget", labels)]:
        for document in of.get(kind, []):
            must(selects(document["spec"]["selector"]["matchLabels"], on), f"{kind}: selects nothing")
    for policy in of.get("NetworkPolicy", []):
        for name, metadata, _ in pods(documents):
            must(selects(policy["spec"]["podSelector"]["matchLabels"], metadata["labels"]), f"NetworkPolicy: not for {name}")
    for name, metadata, spec in pods(documents):
        volumes = {volume["name"]: volume for volume in spec.get("volumes", [])}
        if name.startswith("StatefulSet"):
            volumes |= {claim["metadata"]["name"]: claim for claim in stateful["spec"].get("volumeClaimTemplates", [])}
        else:
            must(not selects(service["spec"]["selector"], metadata["labels"]), f"Service: selects {name}, too")
        for container in containers(spec):
            for mount in container.get("volumeMounts", []):
                must(mount["name"] in volumes, f"{name}: no volume {mount['name']}")
                must("subPath" not in mount, f"{name}: {mount['mountPath']} would not change with its Secret")
        must(volumes["config"]["configMap"]["name"] in names["ConfigMap"], f"{name}: no such ConfigMap")
        account = spec["serviceAccountName"]
        must("ServiceAccount" not in names or account in names["ServiceAccount"], f"{name}: no ServiceAccount {account}")


def probed(spec):
    """Three probes on trailcast's own port, of which none restarts a process for what others do."""
    [main] = [container for container in spec["containers"] if container["name"] == "trailcast"]
    paths = {"startupProbe": "/livez", "livenessProbe": "/livez", "readinessProbe": "/readyz"}
    ports = {port["name"] for port in main["ports"]}
    for probe, path in paths.items():
        get = main[probe]["httpGet"]
        if (get["path"], get["port"] in ports, "host" in get) != (path, True, False):
            raise Wrong(f"{probe}: {get}")
    if not main["resources"]["limits"].get("memory"):
        raise Wrong("no limit on memory")
