"""Validates OCSF events, one JSON object a line, against the OCSF 1.8.0 JSON schema of each event's class, with the
profiles that it declares. Fails on the first twenty errors, on an empty input, and when its self-check finds that a
broken event would pass."""

import collections
import copy
import json
import sys

import jsonschema_rs
from ocsf_json_schema import OcsfJsonSchemaEmbedded, get_ocsf_schema

VERSION = "1.8.0"
ERRORS_SHOWN = 20

SCHEMA = OcsfJsonSchemaEmbedded(get_ocsf_schema(version=VERSION))
validators = {}


def validator(event):
    class_uid = event["class_uid"]
    profiles = tuple(event["metadata"].get("profiles", []))
    if (class_uid, profiles) not in validators:
        name = SCHEMA.lookup_class_name_from_uid(class_uid)
        schema = SCHEMA.get_class_schema(class_name=name, profiles=list(profiles))
        validators[class_uid, profiles] = jsonschema_rs.Draft202012Validator(schema)
    return validators[class_uid, profiles]


def errors(event):
    """What is wrong with the event: by the schema, and by OCSF's rules that no JSON schema can say."""
    try:
        found = [f"{'/'.join(map(str, e.instance_path))}: {e.message[:300]}" for e in validator(event).iter_errors(event)]
    except (KeyError, TypeError, ValueError) as error:
        return [f"no schema for it: {error!r}"]
    if event["metadata"].get("version") != VERSION:
        found.append(f"metadata.version is not {VERSION}")
    if event["type_uid"] != event["class_uid"] * 100 + event["activity_id"]:
        found.append("type_uid is not class_uid * 100 + activity_id")
    if event["category_uid"] != event["class_uid"] // 1000:
        found.append("category_uid is not class_uid / 1000")
    return found


def self_check(event):
    """A good event, broken in each of these ways, must be refused: else nothing here proves anything."""

    def broken(change):
        event_copy = copy.deepcopy(event)
        change(event_copy)
        return event_copy

    for name, change in {
        "a missing required attribute": lambda e: e.pop("severity_id"),
        "an attribute that the class does not have": lambda e: e.update(no_such_attribute=1),
        "an attribute that an object does not have": lambda e: e["metadata"].update(no_such_attribute=1),
        "a time that is a text": lambda e: e.update(time="now"),
        "a value that is not in the enum": lambda e: e.update(status_id=7),
        "a type of another class": lambda e: e.update(type_uid=e["type_uid"] + 100),
        "another version": lambda e: e["metadata"].update(version="1.0.0"),
    }.items():
        if not errors(broken(change)):
            sys.exit(f"self-check: {name} was not refused")


def main(path):
    lines = sys.stdin if path == "-" else open(path, encoding="utf-8")
    counts, failed = collections.Counter(), 0
    for number, line in enumerate(lines, 1):
        try:
            event = json.loads(line)
            found = errors(event)
        except ValueError as error:
            found = [f"not JSON: {error}"]
        for error in found:
            failed += 1
            if failed <= ERRORS_SHOWN:
                print(f"line {number}: {error}", file=sys.stderr)
        if found:
            continue
        key = (event["class_uid"], event["type_uid"])
        if key not in counts:
            self_check(event)
        counts[key] += 1
    for (class_uid, type_uid), count in sorted(counts.items()):
        print(f"{count:8}  class {class_uid}  type {type_uid}")
    print(f"{sum(counts.values()):8}  valid OCSF {VERSION} events, {failed} errors")
    if failed or not counts:
        sys.exit("failed" if failed else "no events")


main(sys.argv[1])
