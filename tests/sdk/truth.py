"""What the simulator says of itself, and a comparison of records with its truth ledger."""

import collections
import datetime
import json
import os
import sys
import urllib.request

SIMULATOR = json.loads(os.environ["SIMULATOR"])


def instant(text):
    """Milliseconds since the Unix epoch of a time like 2022-09-20T08:55:00.188+0800."""
    text = text.replace("Z", "+0000")
    if text[-3] == ":":
        text = text[:-3] + text[-2:]
    form = "%Y-%m-%dT%H:%M:%S.%f%z" if "." in text else "%Y-%m-%dT%H:%M:%S%z"
    epoch = datetime.datetime(1970, 1, 1, tzinfo=datetime.timezone.utc)
    return (datetime.datetime.strptime(text, form) - epoch) // datetime.timedelta(milliseconds=1)


def genauth_identity(record):
    names = ("userId", "appId", "clientIp", "eventType", "eventDetail", "success", "userAgent", "timestamp", "requestId")
    values = [record.get(name) for name in names]
    values[7] = instant(values[7])
    return values


def scloud_identity(record):
    names = ("Region", "Api", "IsSuccess", "OperateTime", "UserName", "UserEmail", "RelatedResource", "RemoteIP", "AccessKeyID")
    values = [record.get(name) for name in names]
    values[6] = [resource["ResourceId"] for resource in values[6]]
    return values


def compare(sdk, source, identity, records):
    """Ends the process unless `records` and the ledger hold the same, each as often."""
    with urllib.request.urlopen(f"{SIMULATOR['url']}/truth?source={source}") as answer:
        ledger = [json.loads(line) for line in answer]
    odd = {canonical(json.loads(line["raw"])) for line in ledger if line["raw"] is not None}
    expected = collections.Counter(
        canonical(line["identity"] if line["raw"] is None else json.loads(line["raw"])) for line in ledger
    )
    read = collections.Counter(
        canonical(record) if canonical(record) in odd else canonical(identity(record)) for record in records
    )
    missing, extra = expected - read, read - expected
    if missing or extra or not records:
        sys.exit(f"{sdk}: {missing.total()} missing, {extra.total()} too many: {list((missing | extra).items())[:3]}")
    twins = sum(count for count in expected.values() if count > 1)
    print(f"{sdk}: {len(records)} records are the truth, {twins} of them twins, {sum(expected[o] for o in odd)} odd")


def canonical(value):
    return json.dumps(value, sort_keys=True)


def refused(sdk, is_refused, why):
    if not is_refused:
        sys.exit(f"{sdk}: a wrong key was not refused: {why}")
    print(f"{sdk}: a wrong key is refused: {why}")
