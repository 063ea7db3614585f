"""The vendor's `genauth` against the simulator: management token, pages by number."""

from genauth import ManagementClient
from genauth.GenAuthException import GenAuthException

from truth import SIMULATOR, compare, genauth_identity, refused

SDK = "genauth 5.1.0"
key = SIMULATOR["genauth"]


def client(secret):
    return ManagementClient(access_key_id=key["access_key_id"], access_key_secret=secret, host=SIMULATOR["url"])


right = client(key["access_key_secret"])
records, page = [], 1
while True:
    answer = right.get_user_action_logs(pagination={"page": page, "limit": 50})
    assert answer["statusCode"] == 200, answer
    records += answer["data"]["list"]
    if page * 50 >= answer["data"]["totalCount"]:
        break
    page += 1
assert len(records) == answer["data"]["totalCount"]
compare(SDK, "genauth", genauth_identity, records)

failed = [r for r in records if isinstance(r, dict) and r.get("success") is False and r.get("eventType") == "login"]
answer = right.get_user_action_logs(event_type="login", success=False, pagination={"page": 1, "limit": 1})
assert answer["data"]["totalCount"] >= len(failed) > 0, answer
answer = right.get_user_action_logs(pagination={"page": 1, "limit": 51})
assert answer["statusCode"] == 400, answer

try:
    client("wrong").get_user_action_logs()
    refused(SDK, False, "no exception")
except GenAuthException as error:
    refused(SDK, True, error)
