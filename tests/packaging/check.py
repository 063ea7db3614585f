"""The Compose example with what it names, and the workflows' own rules. tests/packaging/run calls it.

    check.py COMPOSE_AS_JSON TRAILCAST
"""

import json
import os
import pathlib
import re
import subprocess
import sys
import tomllib

import yaml

ROOT = pathlib.Path(__file__).resolve().parents[2]


def must(holds, text):
    if not holds:
        sys.exit(text)


def compose(services, trailcast):
    version = tomllib.loads((ROOT / "Cargo.toml").read_text())["package"]["version"]
    own = [service for service in services.values() if "trailcast" in service["image"]]
    must(len(own) == 2, "compose: two services are trailcast's")
    for name, service in services.items():
        image, tag = service["image"].rsplit(":", 1)
        must(tag != "latest" and "/" in image, f"compose: {name}: a floating image: {service['image']}")
    for service in own:
        must(service["image"].endswith(f":{version}"), f"compose: {service['image']} is not version {version}")
        must(service["read_only"] and service["cap_drop"] == ["ALL"], f"compose: {service['command']} has more rights than it needs")
    main, simulator = services["trailcast"], services["simulator"]
    [config] = [volume["source"] for volume in main["volumes"] if volume["target"] == main["command"][-1]]
    environment = os.environ | main["environment"]
    done = subprocess.run([trailcast, "check", "--offline", "--json", "-c", config], env=environment, capture_output=True, text=True)
    must(done.returncode == 0 and [found["state"] for found in json.loads(done.stdout)] == ["ok"], f"compose: {done.stdout}{done.stderr}")
    # The simulator starts as it stands there, but for the port, and has the keys that the config has.
    arguments = [re.sub(r"^0\.0\.0\.0:8080$", "127.0.0.1:0", argument) for argument in simulator["command"]]
    with subprocess.Popen([trailcast, *arguments], stdout=subprocess.PIPE, text=True) as running:
        line = running.stdout.readline()
        running.kill()
    must(line and "127.0.0.1:0" in arguments, "compose: the simulator does not start as it stands there")
    simulated = json.loads(line)
    text = pathlib.Path(config).read_text()
    for kind, secret in (("genauth", "access_key_secret"), ("scloud", "private_key")):
        for key, value in simulated[kind].items():
            place = main["environment"].values() if key == secret else text
            must(value in place, f"compose: the simulator's {kind} {key} is another")
    brokers = yaml.safe_load(text)["checkpoint"]["kafka"]["brokers"]
    announced = services["kafka"]["environment"]["KAFKA_ADVERTISED_LISTENERS"]
    must(brokers == [announced.removeprefix("PLAINTEXT://")], f"compose: Kafka announces {announced}, the config asks {brokers}")
    must("http://simulator:8080" in text and simulator["command"][2] == "0.0.0.0:8080", "compose: the simulator is elsewhere")
    return f"compose: {len(services)} services, version {version}"


def workflows():
    """What actionlint does not ask for: actions by their commit, few rights, and scripts that are there."""
    found = sorted((ROOT / ".github" / "workflows").glob("*.yaml"))
    for path in found:
        text = path.read_text()
        for used in re.findall(r"uses: (.*)", text):
            must(re.fullmatch(r"[\w.-]+/[\w./-]+@[0-9a-f]{40} # v[\d.]+", used), f"{path.name}: {used} is not a commit with its version")
        must(yaml.safe_load(text)["permissions"] == {"contents": "read"}, f"{path.name}: more rights than to read, for all jobs")
        for script in re.findall(r"(?<![\w./-])((?:\.ci|packaging|tests)/[\w./-]+)", text):
            must((ROOT / script).exists(), f"{path.name}: no {script}")
    must({path.name for path in found} >= {"ci.yaml", "release.yaml"}, "a workflow is missing")
    return f"workflows: {len(found)}"


print(compose(json.loads(pathlib.Path(sys.argv[1]).read_text())["services"], sys.argv[2]))
print(workflows())
