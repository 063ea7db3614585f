"""What the tests of a node work with: kubectl and Helm in a namespace, pods, Kafka and simulators outside of the cluster."""

import json
import os
import pathlib
import socket
import subprocess
import sys
import threading
import time
import urllib.request

sys.path.append(str(pathlib.Path(__file__).parents[2] / "benches"))

import ledger

HOST = "10.244.255.1"
USERS = {"user_pool_id": "65f0a1b2c3d4e5f60718293a", "access_key_id": "65f0a1b2c3d4e5f607182940"}
CLOUD = {"project_id": "org-trailcast", "public_key": "demo@example.com1296235120854146120"}
# What the simulator takes for its keys.
SECRETS = {
    "genauth-access-key-secret": "6f2b8c1d9e0a4735b6c8d1e2f3a4b5c6",
    "scloud-private-key": "46f09bb9fab4f12dfc160dae12273d5332b5debe",
}


def compared(events, simulators, by):
    """What of both sources is not as all that happened there; it must be there if it could be read at `by`, in milliseconds."""
    both = ledger.Difference()
    for source in ("genauth", "scloud"):
        truth = []
        for simulator in simulators:
            with urllib.request.urlopen(f"{simulator}/truth?source={source}", timeout=30) as answer:
                truth += map(json.loads, answer)
        found = ledger.compare(truth, by + 1, [event for event in events if event.source == source], "readable_at")
        both.expected += found.expected
        for what in ("missing", "invented", "altered", "repeated"):
            getattr(both, what).extend(getattr(found, what))
    return both


class Wrong(Exception):
    """What should hold, and does not."""


def must(holds, what):
    if not holds:
        raise Wrong(what)


def until(what, look, seconds=60):
    """Waits until `look` gives something; what it raises at last is told if it never does."""
    end, last = time.monotonic() + seconds, None
    while True:
        try:
            if found := look():
                return found
        except (Wrong, OSError, subprocess.CalledProcessError, KeyError, IndexError, ValueError) as error:
            last = f"{error!r} {getattr(error, 'stderr', '') or ''}"
        if time.monotonic() > end:
            raise Wrong(f"not within {seconds} s: {what}" + (f" ({last})" if last else ""))
        time.sleep(0.2)


def written(running):
    """Of a table: what each replica runs."""
    return "; ".join(f"{number}: {' '.join(names) or 'none'}" for number, names in running.items())


def now():
    return int(time.time() * 1000)


def resolve(names):
    """Answers on HOST's port 53: each of these names, with whatever domain behind it, is HOST; no other name is known."""
    door = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    door.bind((HOST, 53))

    def answer(query):
        labels, at = [], 12
        while length := query[at]:
            labels.append(query[at + 1 : at + 1 + length].decode().lower())
            at += 1 + length
        kind, end = query[at + 1 : at + 3], at + 5
        known = any(".".join(labels).startswith(name) for name in names)
        address = b"\xc0\x0c" + kind + b"\x00\x01\x00\x00\x00\x05\x00\x04" + socket.inet_aton(HOST)
        records = address if known and kind == b"\x00\x01" else b""
        flags = b"\x81\x80" if known else b"\x81\x83"
        return query[:2] + flags + b"\x00\x01\x00" + bytes([bool(records)]) + b"\x00" * 4 + query[12:end] + records

    def serve():
        while True:
            query, asker = door.recvfrom(1024)
            try:
                door.sendto(answer(query), asker)
            except (IndexError, UnicodeDecodeError, OSError) as error:
                print(f"a query that nobody understands: {error}", flush=True)

    threading.Thread(target=serve, daemon=True).start()


class World:
    """All that is there beside Helm's releases. Its processes end with the node's first one."""

    def __init__(self, root, folder, bin, helm, trailcast):
        self.root, self.folder, self.bin, self.helm = map(pathlib.Path, (root, folder, bin, helm))
        self.trailcast = trailcast
        self.rows, self.lock, self.namespaces = [], threading.Lock(), {}
        self.kubelet_restarted = threading.Event()

    def row(self, *cells):
        with self.lock:
            self.rows.append(cells)
        print("  " + " | ".join(str(cell) for cell in cells), flush=True)

    def run(self, *command, **options):
        """The command's stdout. What it says on stderr comes with its failure."""
        done = subprocess.run(
            [str(word) for word in command], capture_output=True, text=True, timeout=options.pop("timeout", 120), **options
        )
        if done.returncode:
            raise subprocess.CalledProcessError(done.returncode, command, done.stdout, done.stderr[-3000:])
        return done.stdout

    def start(self, name, *command):
        with open(self.folder / f"{name}.log", "wb") as log:
            return subprocess.Popen([str(word) for word in command], stdout=log, stderr=log, stdin=subprocess.DEVNULL)

    def simulator(self, port, *options):
        self.start(f"simulator-{port}", self.trailcast, "simulate", "--listen", f"{HOST}:{port}", *options)
        url = f"http://{HOST}:{port}"
        until("the simulator", lambda: urllib.request.urlopen(f"{url}/stats", timeout=5).read())
        return url

    def kafka(self):
        broker = f"{HOST}:9092"
        listeners = f"listeners=CLIENT://{broker},CONTROLLER://127.0.0.1:9093"
        self.start("broker", self.root / "tests/kafka/broker", self.folder / "kafka", 1, 9092, 9093, listeners)
        self.client("ready", broker, 1)
        return broker

    def client(self, *words):
        return self.run(self.root / "tests/kafka/client", *words)

    def events(self, broker, topic):
        """Those that are committed."""
        return [ledger.Event.parse(json.loads(line)["value"]) for line in self.client("consume", broker, topic).splitlines()]

    def pids(self, uid):
        """Of trailcast, in the pod of this uid."""
        found = []
        for place in pathlib.Path("/proc").glob("[0-9]*"):
            try:
                if uid in (place / "cgroup").read_text() and (place / "comm").read_text() == "trailcast\n":
                    found.append(int(place.name))
            except OSError:
                # It has ended.
                pass
        return found


class Namespace:
    """One that enforces the Pod Security Standard restricted, and a release in it."""

    def __init__(self, world, name, release="trailcast", helm="helm4"):
        self.world, self.name, self.release, self.helm_name = world, name, release, helm
        world.namespaces[name] = self
        config = (world.folder / "admin.conf").read_text()
        self.kubeconfig = world.folder / f"{name}-{release}.conf"
        self.kubeconfig.write_text(config.replace("user: user } }]\ncurrent", f"user: user, namespace: {name} }} }}]\ncurrent"))
        homes = {f"HELM_{kind}_HOME": str(world.folder / "helm") for kind in ("CONFIG", "CACHE", "DATA")}
        self.environment = os.environ | homes | {"KUBECONFIG": str(self.kubeconfig)}
        self.environment["PATH"] = f"{world.folder / self.helm_name}:{world.bin}:{os.environ['PATH']}"
        # So that what stands in the docs as `helm` is this one.
        (world.folder / helm).mkdir(exist_ok=True)
        link = world.folder / helm / "helm"
        if not link.exists():
            link.symlink_to(world.helm / helm)
        if self.kubectl("get", "namespace", name, "--ignore-not-found") == "":
            self.apply(
                {
                    "apiVersion": "v1",
                    "kind": "Namespace",
                    "metadata": {"name": name, "labels": {"pod-security.kubernetes.io/enforce": "restricted"}},
                }
            )

    def kubectl(self, *words, **options):
        return self.world.run("kubectl", *words, env=self.environment, **options)

    def helm(self, *words, **options):
        return self.world.run("helm", *words, env=self.environment, cwd=self.world.root, **options)

    def said(self):
        """What its pods and Kubernetes say of it, to be read where something failed."""
        commands = [
            ["get", "pods", "--output=wide"],
            ["get", "events", "--sort-by=.lastTimestamp"],
            ["logs", f"--selector=app.kubernetes.io/instance={self.release}", "--all-containers", "--prefix", "--tail=15"],
        ]
        found = [subprocess.run(["kubectl", *words], capture_output=True, text=True, env=self.environment) for words in commands]
        return "\n".join("\n".join(line[:400] for line in one.stdout.splitlines()[-25:]) for one in found)

    def shell(self, line, folder):
        """A line of the docs, as it stands there."""
        return self.world.run("bash", "-c", line, env=self.environment, cwd=folder)

    def apply(self, *objects):
        for one in objects:
            self.kubectl("apply", "--filename=-", input=json.dumps(one))

    def secret(self, name, **files):
        data = {"apiVersion": "v1", "kind": "Secret", "metadata": {"name": name}, "stringData": SECRETS | files}
        self.apply(data)

    def values(self, values):
        path = self.world.folder / f"{self.name}-{self.release}.json"
        path.write_text(json.dumps(values))
        return path

    def install(self, values, *words):
        self.helm("install", self.release, "./helm/trailcast", "-f", self.values(values), *words)

    def upgrade(self, *words):
        self.helm("upgrade", self.release, "./helm/trailcast", "--reuse-values", *words)
        self.rolled()

    def rolled(self):
        self.kubectl("rollout", "status", f"statefulset/{self.release}", "--timeout=120s", timeout=130)

    def get(self, *words):
        return json.loads(self.kubectl("get", *words, "--output=json"))

    def pods(self):
        found = self.get("pods", f"--selector=app.kubernetes.io/instance={self.release},app.kubernetes.io/name=trailcast")
        return {pod["metadata"]["name"]: pod for pod in found["items"]}

    def pod(self, number=0):
        return self.pods()[f"{self.release}-{number}"]

    def ready(self, number=0, but=None):
        """Waits for the pod to be ready, and no longer that with the uid `but`."""

        def look():
            pod = self.pod(number)
            conditions = {condition["type"]: condition["status"] for condition in pod["status"]["conditions"]}
            fine = conditions.get("Ready") == "True" and "deletionTimestamp" not in pod["metadata"]
            return fine and pod["metadata"]["uid"] != but and pod

        return until(f"{self.release}-{number} is ready", look, 90)

    def status(self, number=0):
        address = self.pod(number)["status"]["podIP"]
        with urllib.request.urlopen(f"http://{address}:9464/status", timeout=5) as answer:
            return json.load(answer)

    def owners(self):
        """What each replica runs, once each stream is run by one, and the others say by which."""

        def look():
            shown = {number: self.status(number)["streams"] for number in range(len(self.pods()))}
            running = {number: sorted(one["name"] for one in streams if one["running"]) for number, streams in shown.items()}
            runs = {name: number for number, names in running.items() for name in names}
            must(sum(map(len, running.values())) == len(runs), f"a stream runs twice: {running}")
            for number, streams in shown.items():
                for one in streams:
                    must(one["name"] in runs, f"{one['name']} does not run: {running}")
                    owner = f"{self.release}-{runs[one['name']]}"
                    must(one["running"] or one["owner"] == owner, f"{number} says that {one['owner']} has {one['name']}: {running}")
            return running

        return until("each stream runs once, and everybody knows where", look, 90)

    def reached(self, mark, end, seconds=90):
        """Waits until each lane has come to `end` by what /status calls `mark`."""

        def look():
            lanes = self.status()["lanes"]
            short = [lane for lane in lanes if not lane.get(mark) or ledger.instant(lane[mark]) < end]
            must(lanes and not short, f"not yet at {end}: {short}")
            return True

        until(f"{self.name}/{self.release}: {mark}", look, seconds)

    def watch(self):
        """Writes down how each pod's container ends, until the node does."""
        form = "{.metadata.name} {.metadata.uid} {.status.containerStatuses[0].state.terminated.exitCode}{'\\n'}"
        self.world_log = self.world.folder / f"ends-{self.name}.log"
        with open(self.world_log, "wb") as log:
            command = ["kubectl", "get", "pods", "--watch", f"--output=jsonpath={form}"]
            subprocess.Popen(command, stdout=log, stderr=subprocess.DEVNULL, env=self.environment)

    def ended_with(self, uid):
        """The exit status of the container of a pod, once it has ended."""

        def look():
            lines = [line.split() for line in self.world_log.read_text().splitlines()]
            return [int(line[2]) + 1 for line in lines if len(line) == 3 and line[1] == uid]

        return until(f"the end of the pod {uid} was seen", look, 40)[-1] - 1
