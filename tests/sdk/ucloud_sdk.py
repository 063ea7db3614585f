"""The vendor family's `ucloud-sdk-python3` against the simulator: signed forms, pages by token."""

import logging

from ucloud.client import Client
from ucloud.core import exc

from truth import SIMULATOR, compare, refused, scloud_identity

SDK = "ucloud-sdk-python3 0.11.150"
key = SIMULATOR["scloud"]
logging.disable(logging.CRITICAL)


def client(private_key):
    return Client(
        {
            "base_url": SIMULATOR["url"] + "/",
            "project_id": key["project_id"],
            "public_key": key["public_key"],
            "private_key": private_key,
        }
    )


right = client(key["private_key"])
records, token = [], None
while True:
    answer = right.invoke("GetUserOperationEvents", {"MaxResults": 50, "NextToken": token})
    records += answer["Events"]
    token = answer.get("NextToken")
    if not token:
        break
compare(SDK, "scloud", scloud_identity, records)

used = next(record["AccessKeyID"] for record in records if isinstance(record, dict) and "AccessKeyID" in record)
answer = right.invoke("GetUserOperationEvents", {"MaxResults": 50, "AccessKeyIDs": [used]})
assert answer["Events"] and all(record["AccessKeyID"] == used for record in answer["Events"])

try:
    client("wrong").invoke("GetUserOperationEvents", {})
    refused(SDK, False, "no exception")
except exc.RetCodeException as error:
    refused(SDK, error.code == 171, error)
