"""What the image is made of. tests/image/run calls it.

    check.py INSPECTED FILES BASE_FILES SBOM VERSION REVISION
"""

import json
import pathlib
import sys
import tomllib

ROOT = pathlib.Path(__file__).resolve().parents[2]


def must(holds, text):
    if not holds:
        sys.exit(f"the image: {text}")


def config(inspected, version, revision):
    image = inspected["OCIv1"]["config"]
    labels = image["Labels"]
    must(image["User"] == "65532:65532", f"its user is {image['User']}")
    must(image["Entrypoint"] == ["/usr/local/bin/trailcast"] and not image.get("Cmd"), f"it starts {image['Entrypoint']} {image.get('Cmd')}")
    must("9464/tcp" in image["ExposedPorts"], "it does not tell the admin port")
    must("SHELL" not in str(image["Env"]) and not any("SECRET" in variable for variable in image["Env"]), f"variables: {image['Env']}")
    expected = {"title": "trailcast", "licenses": "Apache-2.0", "version": version, "revision": revision, "base.name": "localhost/trailcast-run"}
    for name, value in expected.items():
        label = labels.get(f"org.opencontainers.image.{name}")
        must(label == value, f"label {name} is {label!r}, not {value!r}")
    for name in ("description", "source", "documentation"):
        must(labels.get(f"org.opencontainers.image.{name}"), f"no label {name}")


def files(image, base):
    """It has the base's files, the program, and a folder for its state, which is the user's; and no more."""
    program, state = image / "usr/local/bin/trailcast", image / "var/lib/trailcast"
    added = {path.relative_to(image) for path in image.rglob("*")} - {path.relative_to(base) for path in base.rglob("*")}
    # Mount points, which whoever runs it makes.
    added = {str(path) for path in added if path.parts[0] not in ("proc", "sys", "dev", "run")}
    wanted = {"usr/local/bin/trailcast", "var/lib/trailcast"}
    # And what building mounts there, empty.
    empty = {name for name in ("etc/hostname", "etc/hosts", "etc/resolv.conf") if name in added and (image / name).stat().st_size == 0}
    must(added - empty - {"usr/local", "usr/local/bin", "var/lib"} == wanted, f"it adds {sorted(added)}")
    must((state.stat().st_uid, state.stat().st_gid) == (65532, 65532), "its state's folder is another's")
    must(program.stat().st_mode & 0o022 == 0 and program.stat().st_uid == 0, "its program can be changed by who runs it")
    built = program.read_bytes()
    for place in (b"/usr/local/cargo/registry", b"/usr/src/trailcast", b"/root/"):
        must(place not in built, f"its program has {place.decode()} in it")


def parts(sbom):
    """The list has every crate that is linked, in the version of Cargo.lock."""
    must(sbom["bomFormat"] == "CycloneDX", "its list is not CycloneDX")
    found = {(part["name"], part["version"]) for part in sbom.get("components", []) if part["type"] == "library"}
    locked = {(package["name"], package["version"]) for package in tomllib.loads((ROOT / "Cargo.lock").read_text())["package"]}
    must(found <= locked, f"its list has what Cargo.lock has not: {sorted(found - locked)[:5]}")
    names = {name for name, _ in found}
    for name in ("trailcast", "tokio", "rdkafka-sys", "openssl-sys", "rustls", "redb", "zstd-sys"):
        must(name in names, f"its list lacks {name}")
    return len(found)


inspected, image, base, sbom, version, revision = sys.argv[1:]
config(json.loads(pathlib.Path(inspected).read_text()), version, revision)
files(pathlib.Path(image), pathlib.Path(base))
print(f"the program names {parts(json.loads(pathlib.Path(sbom).read_text()))} crates that it is made of")
