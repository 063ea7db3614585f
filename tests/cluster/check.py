"""Installs the chart into a real node, as users would, and does to it what happens to pods.

usage: check.py ROOT FOLDER KUBERNETES HELM TRAILCAST, run by tests/cluster/run where the node is reached
"""

import concurrent.futures
import os
import signal
import subprocess
import sys
import time
import traceback

from world import CLOUD, HOST, USERS, Namespace, World, Wrong, compared, must, now, resolve, until, written
from server import resident

SWEEPS = ["2s", "8s"]
# What the simulators make late is so by less than the older sweep.
HABITS = ["--twin-share", "0.05", "--late-share", "0.05", "--late-max", "4s"]


def streams(simulators, start="15m", **more):
    """Both sources of each simulator, by name: users, cloud; users-b, cloud-b; …"""
    found = {}
    for letter, url in zip(["", "-b", "-c"], simulators):
        common = {"start": start, "poll_interval": "1s", "sweeps": SWEEPS, "allow_http": True} | more
        secret = {"access_key_secret": {"file": "/run/secrets/trailcast/genauth-access-key-secret"}}
        found[f"users{letter}"] = common | {"genauth": {"endpoint": url} | USERS | secret}
        key = {"private_key": {"file": "/run/secrets/trailcast/scloud-private-key"}}
        found[f"cloud{letter}"] = common | {"scloud": {"endpoint": url} | CLOUD | key}
    return found


def volumes(world, namespace, count):
    """Volumes of the node's own disk, of the cluster's default class."""
    kind = {"apiVersion": "storage.k8s.io/v1", "kind": "StorageClass", "provisioner": "kubernetes.io/no-provisioner"}
    default = {"storageclass.kubernetes.io/is-default-class": "true"}
    namespace.apply(kind | {"metadata": {"name": "local", "annotations": default}, "volumeBindingMode": "WaitForFirstConsumer"})
    for number in range(count):
        path = world.folder / "volumes" / str(number)
        path.mkdir(parents=True)
        here = {"key": "kubernetes.io/hostname", "operator": "In", "values": ["node"]}
        spec = {
            "capacity": {"storage": "2Gi"},
            "accessModes": ["ReadWriteOnce"],
            "storageClassName": "local",
            "local": {"path": str(path)},
            "nodeAffinity": {"required": {"nodeSelectorTerms": [{"matchExpressions": [here]}]}},
        }
        namespace.apply({"apiVersion": "v1", "kind": "PersistentVolume", "metadata": {"name": f"local-{number}"}, "spec": spec})


def restricted(namespace):
    """That the namespace refuses what is not restricted: else it would show nothing that the chart's pods are let in."""
    try:
        namespace.kubectl("run", "careless", "--image=localhost/pause:1")
    except subprocess.CalledProcessError as error:
        must("violates PodSecurity" in error.stderr, error.stderr)
    else:
        raise Wrong("a pod that is not restricted was let in")


class Steps:
    """Does one thing after the other, and writes a row of each: how long it took, what had arrived then, what it is."""

    def __init__(self, world, name, namespace, topic, broker):
        self.world, self.name, self.namespace, self.topic, self.broker = world, name, namespace, topic, broker
        self.repeated, self.owners = 0, None

    def catches_up(self, began):
        """Waits until each stream has an owner, and the one with most has delivered some of the history; who that is."""
        self.owners = self.namespace.owners()
        busy = max(self.owners, key=lambda number: len(self.owners[number]))

        def delivered():
            return sum(lane["delivered"] for lane in self.namespace.status(busy)["lanes"]) >= 300

        until("some of the history", delivered)
        took = time.monotonic() - began
        self.world.row(self.name, "helm install --wait", f"{took:.0f} s", "", "", "", written(self.owners), "begins with the history")
        return busy

    def did(self, what, began, note=""):
        # What had happened by now comes, whatever was done.
        self.namespace.reached("delivered_through", now())
        took = time.monotonic() - began
        owners = self.namespace.owners()
        events = self.world.events(self.broker, self.topic)
        self.repeated = len(events) - len({event.id for event in events})
        self.world.row(self.name, what, f"{took:.0f} s", len(events), "", self.repeated, written(owners), note)
        moved, self.owners = self.owners != owners, owners
        return took, moved

    def all_arrived(self, simulators):
        """Waits until all that has happened by now was swept, and compares it with the ledgers."""
        began, by = time.monotonic(), now()
        self.namespace.reached("verified_through", by)
        owners = self.namespace.owners()
        events, found = self.compared(simulators, by)
        took, owners = time.monotonic() - began, written(owners)
        note = f"of {found.expected} in the ledger"
        self.world.row(self.name, "all was swept", f"{took:.0f} s", events, len(found.missing), len(found.repeated), owners, note)
        return by

    def compared(self, simulators, by):
        events = self.world.events(self.broker, self.topic)
        found = compared(events, simulators, by)
        must(found.expected > 1000, f"{self.topic}: only {found.expected} records")
        for what in ("missing", "invented", "altered"):
            these = getattr(found, what)
            must(not these, f"{self.topic}: {len(these)} {what}, such as {these[:2]}")
        return len(events), found


def in_a_file(world, broker, simulator):
    """One replica, its state in a volume."""
    namespace = Namespace(world, "file")
    namespace.secret("trailcast")
    namespace.watch()
    sink = {"brokers": [broker], "topic": "file", "format": "native", "create": {"partitions": 3}}
    config = {"streams": streams([simulator]), "sinks": {"events": {"kafka": sink}}}
    steps = Steps(world, "file", namespace, "file", broker)

    began = time.monotonic()
    namespace.install({"config": config, "secrets": {"existingSecret": "trailcast"}}, "--wait")
    steps.catches_up(began)
    began, uid = time.monotonic(), namespace.pod()["metadata"]["uid"]
    namespace.kubectl("delete", "pod", "trailcast-0", "--force", "--grace-period=0")
    namespace.ready(but=uid)
    steps.did("pod deleted by force meanwhile", began)
    # At least once: what was delivered and not yet committed, at most a part of each lane.
    allowed = steps.repeated
    must(allowed <= 2 * 1000, f"{allowed} repeated")

    began, before = time.monotonic(), namespace.pod()
    world.run(world.root / "tests/cluster/node", "kubelet", world.folder, env=os.environ)
    until("the node is ready", lambda: namespace.kubectl("get", "node", "node", "--no-headers").split()[1] == "Ready")
    world.kubelet_restarted.set()
    steps.did("kubelet killed, started again", began)
    same(before, namespace.ready(), "the kubelet's restart")

    began, before = time.monotonic(), namespace.pod()
    namespace.upgrade("--set", "config.log.level=debug")
    must(before["metadata"]["uid"] != namespace.ready()["metadata"]["uid"], "a changed config replaced no pod")
    must(namespace.ended_with(before["metadata"]["uid"]) == 0, "it did not drain")
    steps.did("helm upgrade, changed config", began)

    # As if the API had another key by now, and then as if that had been given to the pod.
    began, before = time.monotonic(), namespace.pod()
    namespace.secret("trailcast", **{"scloud-private-key": "0" * 40})
    until("the wrong key is refused", lambda: state(namespace, "cloud")["state"] == "failing", 60)
    reason = state(namespace, "cloud").get("reason", "")
    refused = time.monotonic() - began
    namespace.secret("trailcast")
    until("the right key is taken", lambda: state(namespace, "cloud")["state"] == "ok", 90)
    same(before, namespace.ready(), "a rotated secret")
    steps.did("secret rotated, twice", began, f"refused as {reason} after {refused:.0f} s; no restart")

    began = time.monotonic()
    said = namespace.helm("test", "trailcast", "--logs")
    must("Phase:" in said and "Succeeded" in said, said)
    steps.did("helm test", began)

    by = steps.all_arrived([simulator])
    must(steps.repeated == allowed, f"{steps.repeated - allowed} repeated by what is no kill")
    uninstalled(world, namespace, ["Secret/trailcast", "PersistentVolumeClaim/state-trailcast-0"])
    _, found = steps.compared([simulator], by)
    must(len(found.repeated) == allowed, "something came again at the end")
    return allowed


def state(namespace, name):
    return next(stream for stream in namespace.status()["streams"] if stream["name"] == name)


def same(before, after, what):
    for of in (lambda pod: pod["metadata"]["uid"], lambda pod: pod["status"]["containerStatuses"][0]["containerID"]):
        must(of(before) == of(after), f"{what} replaced the container")


def uninstalled(world, namespace, leaves):
    """Uninstalls, and looks that the pods have ended by themselves, in time, and that nothing else is left."""
    began, pods = time.monotonic(), namespace.pods()
    namespace.helm("uninstall", namespace.release, "--wait")
    until("the pods have ended", lambda: not namespace.pods(), 60)
    took = time.monotonic() - began
    must(took < 30, f"it took {took:.0f} s to end")
    for pod in pods.values():
        status = namespace.ended_with(pod["metadata"]["uid"])
        must(status == 0, f"{pod['metadata']['name']} ended with {status}")
    given = {"ConfigMap/kube-root-ca.crt", "ServiceAccount/default"}
    kinds = "all,configmap,secret,serviceaccount,pvc,pdb,networkpolicy,role,rolebinding,controllerrevision,endpointslice,lease"

    def left():
        found = {f"{one['kind']}/{one['metadata']['name']}" for one in namespace.get(kinds)["items"]}
        return sorted(found - given)

    until(f"nothing is left but {leaves}", lambda: must(left() == sorted(leaves), f"left: {left()}") or True, 20)
    names = ", ".join(name.split("/")[0] for name in leaves) or "nothing"
    world.row(namespace.name, "helm uninstall", f"{took:.0f} s", "", "", "", "", f"drained, status 0; left: {names}")


def in_kafka(world, broker, simulators):
    """Replicas that share the streams, without a volume."""
    namespace = Namespace(world, "kafka", helm="helm3")
    namespace.secret("keys")
    namespace.watch()
    sink = {"brokers": [broker], "topic": "audit", "format": "native", "exactly_once": True, "create": {"partitions": 3}}
    # A group of its own: the README's has the default's. A replica that is gone for good is waited for no longer than this.
    session = 20
    own = {"topic": "audit-state", "group": "audit", "session_timeout": f"{session}s"}
    checkpoint = {"kafka": {"brokers": [broker]} | own}
    config = {"streams": streams(simulators), "sinks": {"events": {"kafka": sink}}, "checkpoint": checkpoint}
    steps = Steps(world, "kafka", namespace, "audit", broker)

    def once(what, began, stay=False):
        took, moved = steps.did(what, began)
        must(steps.repeated == 0, f"{steps.repeated} ids were repeated: {what}")
        # Who comes back under his name before he is missed finds his streams.
        must(not (stay and moved) or took > session, f"streams moved: {what}")

    began = time.monotonic()
    namespace.install({"replicas": 2, "config": config, "secrets": {"existingSecret": "keys"}}, "--wait")
    victim = steps.catches_up(began)
    began, [pid] = time.monotonic(), world.pids(namespace.pod(victim)["metadata"]["uid"])
    os.kill(pid, signal.SIGKILL)
    until("it was started again", lambda: restarts(namespace, victim) == 1)
    namespace.ready(victim)
    once(f"{victim} killed meanwhile", began, stay=True)

    began, uids = time.monotonic(), {pod["metadata"]["uid"] for pod in namespace.pods().values()}
    namespace.kubectl("rollout", "restart", "statefulset/trailcast")
    namespace.rolled()
    pods = namespace.pods().values()
    must(uids.isdisjoint(pod["metadata"]["uid"] for pod in pods), "not all pods were replaced")
    for uid in uids:
        must(namespace.ended_with(uid) == 0, "it did not drain")
    once("kubectl rollout restart", began, stay=True)

    began, images = time.monotonic(), image_ids(namespace)
    tag = namespace.pod()["spec"]["containers"][0]["image"].rpartition(":")[2]
    namespace.upgrade("--set", f"image.tag={tag}-next")
    must(images.isdisjoint(image_ids(namespace)), "the image is not another one")
    once("helm upgrade, new image tag", began, stay=True)

    for replicas in (3, 1):
        began = time.monotonic()
        namespace.upgrade("--set", f"replicas={replicas}")
        until(f"{replicas} pods", lambda: len(namespace.pods()) == replicas)
        once(f"scaled to {replicas}", began)
        must(len(steps.owners) == replicas, f"{steps.owners}")

    began = time.monotonic()
    namespace.helm("test", "trailcast")
    once("helm test", began, stay=True)

    by = steps.all_arrived(simulators)
    uninstalled(world, namespace, ["Secret/keys"])
    must(not steps.compared(simulators, by)[1].repeated, "something came again at the end")


def image_ids(namespace):
    return {pod["status"]["containerStatuses"][0]["imageID"] for pod in namespace.pods().values()}


def restarts(namespace, number=0):
    return namespace.pod(number)["status"]["containerStatuses"][0]["restartCount"]


def stuck(world, simulator):
    """A process that hangs is killed and started again, by the probes' defaults; one that cannot reach a thing is not."""
    namespace = Namespace(world, "stuck")
    namespace.secret("trailcast")
    namespace.watch()
    config = {"streams": streams([simulator]), "sinks": {"out": {"stdout": {}}}, "checkpoint": {"memory": {}}}
    namespace.install({"config": config, "secrets": {"existingSecret": "trailcast"}}, "--wait")
    uid = namespace.pod()["metadata"]["uid"]
    # A kubelet that is new gives a process all the time of a start again: it must have found this one alive.
    must(world.kubelet_restarted.wait(150), "the kubelet was not restarted in time")
    until("the liveness probe", lambda: asked_alive(namespace), 60)
    began, [pid] = time.monotonic(), world.pids(uid)
    os.kill(pid, signal.SIGSTOP)
    until("the stuck process was restarted", lambda: restarts(namespace) == 1, 150)
    took = time.monotonic() - began
    namespace.ready()
    namespace.reached("delivered_through", now())
    world.row("stuck", "SIGSTOP", f"{took:.0f} s", "", "", "", "", "restarted by the liveness probe, delivers again")
    uninstalled(world, namespace, ["Secret/trailcast"])


def asked_alive(namespace):
    """How often the kubelet, since it runs, has found the process alive."""
    lines = namespace.kubectl("get", "--raw", "/api/v1/nodes/node/proxy/metrics/probes").splitlines()
    labels = [f'namespace="{namespace.name}"', 'probe_type="Liveness"', 'result="successful"']
    found = [line for line in lines if line.startswith("prober_probe_total{") and all(label in line for label in labels)]
    return sum(float(line.split()[-1]) for line in found)


def deaf(world, simulator):
    """One stream's API and the sink are where nothing is, all the time; and the pod is ready."""
    namespace = Namespace(world, "deaf")
    namespace.secret("trailcast")
    namespace.watch()
    both = streams([simulator])
    both["cloud"]["scloud"]["endpoint"] = f"http://{HOST}:9"
    sinks = {"events": {"kafka": {"brokers": [f"{HOST}:10"], "topic": "none"}}}
    namespace.install({"config": {"streams": both, "sinks": sinks}, "secrets": {"existingSecret": "trailcast"}}, "--wait")
    before, since = namespace.pod(), time.monotonic()
    until("longer than the liveness probe bears", lambda: time.monotonic() - since > 75, 80)
    after = namespace.ready()
    same(before, after, "an API or a sink that is out of reach")
    must(restarts(namespace) == 0, "it was restarted")
    states = {f"{lane['stream']}: {lane['state']}" for lane in namespace.status()["lanes"]}
    took = time.monotonic() - since
    world.row("deaf", "API, sink out of reach", f"{took:.0f} s", 0, "", "", "", f"ready, no restart; {', '.join(sorted(states))}")
    began = time.monotonic()
    namespace.helm("uninstall", "trailcast", "--wait")
    until("the pod has ended", lambda: not namespace.pods(), 60)
    took, status = time.monotonic() - began, namespace.ended_with(before["metadata"]["uid"])
    must(took < 30 and status != 137, f"it took {took:.0f} s to end, with {status}")
    world.row("deaf", "helm uninstall", f"{took:.0f} s", "", "", "", "", f"ended by itself, status {status}")


def backfill(world, broker, simulator, records):
    """A long history, within the default limit of memory."""
    namespace = Namespace(world, "backfill")
    namespace.secret("trailcast")
    namespace.watch()
    config = {"retention.ms": "-1"}
    sink = {"brokers": [broker], "topic": "backfill", "format": "native", "create": {"partitions": 3, "config": config}}
    values = {"config": {"streams": streams([simulator], "60d", rate_limit=100), "sinks": {"events": {"kafka": sink}}}}
    began, by = time.monotonic(), now()
    namespace.install(values | {"secrets": {"existingSecret": "trailcast"}}, "--wait")
    uid, peak = namespace.pod()["metadata"]["uid"], 0

    def delivered():
        nonlocal peak
        [pid] = world.pids(uid)
        peak = round(resident(pid)["VmHWM"])
        status = namespace.status()
        count = sum(lane["delivered"] for lane in status["lanes"])
        must(count >= records, f"{count} of {records}, with at most {peak} MiB: {status}")
        return True

    until("all was delivered", delivered, 180)
    took = time.monotonic() - began
    events = world.events(broker, "backfill")
    found = compared(events, [simulator], by)
    must(found.expected == records, f"{found.expected} records")
    must(
        not found.missing and not found.invented and not found.altered and not found.repeated,
        "the backfill differs from the ledger",
    )
    must(restarts(namespace) == 0, "it was restarted")
    limit = namespace.pod()["spec"]["containers"][0]["resources"]["limits"]["memory"]
    world.row("backfill", "from a long history", f"{took:.0f} s", len(events), 0, 0, "", f"at most {peak} MiB of {limit}")
    uninstalled(world, namespace, ["PersistentVolumeClaim/state-trailcast-0", "Secret/trailcast"])


def demo(world):
    """The newcomer's two commands, as the README has them."""
    namespace = Namespace(world, "demo", helm="helm3")
    namespace.watch()
    commands = block(world, "## Try it", "sh").splitlines()
    install, logs = commands
    must(install.startswith("helm install") and logs.startswith("kubectl logs") and logs.endswith(" -f"), commands)
    began = time.monotonic()
    namespace.shell(install, world.root)
    # A newcomer tries until it is there.
    path = world.folder / "demo.ndjson"

    def shown():
        lines = namespace.shell(logs.removesuffix(" -f"), world.root).splitlines(keepends=True)
        events = [line for line in lines if '"metadata"' in line and line.endswith("\n")]
        path.write_text("".join(events))
        return len(events) >= 100

    until("100 events", shown)
    took = time.monotonic() - began
    said = world.run("python3", world.root / "tests/demo/check.py", path, 100)
    world.row("demo", "the README's commands", f"{took:.0f} s", path.read_text().count("\n"), "", 0, "", said.strip())
    uninstalled(world, namespace, [])


def readme(world, broker):
    """What else the README shows, as it stands there. The APIs that it names are the vendors', and out of reach."""
    lines = block(world, "## Install", "sh").splitlines()
    must([line.split()[0:2] for line in lines] == [["kubectl", "create"], ["helm", "install"], ["helm", "test"]], lines)
    # Its topics have more replicas than one broker can hold: so somebody has made it.
    world.client("create", broker, "audit-events", 6, 1)
    variants = {
        "readme-stdout": ("for one user pool onto stdout,", 1, [lines[0]]),
        "readme-kafka": ("by three replicas that need no volume,", 3, [lines[0]]),
    }
    for name, (after, replicas, commands) in variants.items():
        began = time.monotonic()
        folder = world.folder / name
        folder.mkdir()
        (folder / "helm").symlink_to(world.root / "helm")
        (folder / "values.yaml").write_text(block(world, after, "yaml"))
        namespace = Namespace(world, name)
        namespace.watch()
        for command in [*commands, lines[1]]:
            namespace.shell(command, folder)
        for number in range(replicas):
            namespace.ready(number)
        owners, took = namespace.owners(), time.monotonic() - began
        world.row(name, f"helm install, {replicas} ready", f"{took:.0f} s", "", "", "", written(owners), "as it stands in the README")
        claims = ["PersistentVolumeClaim/state-trailcast-0"] if replicas == 1 else []
        uninstalled(world, namespace, [*claims, "Secret/trailcast"])


def block(world, after, language):
    """The first block of the chart's README of this language after this text."""
    text = (world.root / "helm/trailcast/README.md").read_text().split(after, 1)[1]
    return text.split(f"```{language}\n", 1)[1].split("```", 1)[0]


def told(error):
    """What failed, and where unless it says that by itself."""
    if isinstance(error, subprocess.CalledProcessError):
        return f"{' '.join(map(str, error.cmd))}: {error.stderr}"
    return str(error) if isinstance(error, Wrong) else "".join(traceback.format_exception(error))


def main():
    world = World(*sys.argv[1:])
    began = time.monotonic()
    plain = Namespace(world, "plain")
    volumes(world, plain, 6)
    resolve(["kafka-0.kafka", "kafka-1.kafka"])
    broker = world.kafka()
    first = world.simulator(8081, "--rate", "10", "--start", "10m", "--seed", "1", *HABITS)
    second = world.simulator(8082, "--rate", "10", "--start", "10m", "--seed", "2", *HABITS)
    many = world.simulator(8083, "--events", "5000", "--start", "6h", "--rate", "2", "--seed", "3", "--large-share", "0.05", *HABITS[:2])
    until("the service account", lambda: plain.kubectl("get", "serviceaccount", "default"))
    restricted(plain)
    print(f"Kafka, simulators and volumes are there after {time.monotonic() - began:.0f} s", flush=True)

    with concurrent.futures.ThreadPoolExecutor() as pool:
        parts = {
            "file": pool.submit(in_a_file, world, broker, first),
            "kafka": pool.submit(in_kafka, world, broker, [first, second]),
            "stuck": pool.submit(stuck, world, first),
            "deaf": pool.submit(deaf, world, first),
            "backfill": pool.submit(backfill, world, broker, many, 10000),
            "demo": pool.submit(lambda: demo(world) or readme(world, broker)),
        }
        failed = {name: error for name, part in parts.items() if (error := part.exception())}

    head = ("release", "what was done", "time", "events", "missing", "repeated", "streams by replica", "note")
    table = [head, *world.rows]
    table[1:] = sorted(table[1:], key=lambda row: [row[0] for row in world.rows].index(row[0]))
    widths = [max(len(str(row[column])) for row in table) for column in range(len(head))]
    print()
    for row in table:
        print("  ".join(str(cell).ljust(width) for cell, width in zip(row, widths)).rstrip())
    print()
    for name, error in failed.items():
        print(f"FAILED: {name}: {told(error)}", file=sys.stderr)
        if name in world.namespaces:
            print(world.namespaces[name].said(), file=sys.stderr)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
