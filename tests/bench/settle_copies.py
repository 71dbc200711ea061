"""settle-copies as one would write it in Python: boto3, clients made when the module is loaded, records read sixteen at a time.

The same job with the same calls as the function's, for the same fake runtime API. Only what leads to the calls and to the judgement is here; retries and time-outs are
boto3's own.
"""

import http.client
import json
import os
import time
from concurrent.futures import ThreadPoolExecutor

import boto3
from botocore.config import Config

FLEET, REGION, BUCKET = (os.environ[f"TDE2HSM_{name}"] for name in ("FLEET", "DR_REGION", "RECORDS_BUCKET"))
CLUSTER = os.environ["TDE2HSM_CLUSTER"]
# A copy that was answered and is in no list this long after is gone.
APPEARS = 600

s3 = boto3.client("s3", region_name=REGION, config=Config(max_pool_connections=16, s3={"addressing_style": "path"}))
ec2 = boto3.client("ec2", region_name=REGION)
cloudhsm = boto3.client("cloudhsmv2", region_name=REGION)


def read_all(prefix):
    """Records below a prefix by key, with their ETags."""
    pages = s3.get_paginator("list_objects_v2").paginate(Bucket=BUCKET, Prefix=prefix)
    keys = [one["Key"] for page in pages for one in page.get("Contents", [])]

    def read(key):
        answer = s3.get_object(Bucket=BUCKET, Key=key)
        return key, (json.loads(answer["Body"].read()), answer["ETag"])

    with ThreadPoolExecutor(16) as pool:
        return dict(pool.map(read, keys))


def tags(one, name):
    return {tag["Key"]: tag["Value"] for tag in one.get(name, [])}


def judged(came, copy, now, ready, failed, unfit):
    """What is to be written down of an attempt, or None where that is nothing new."""
    if came and came["came"] in ("failed", "expired", "gone"):
        return None
    if copy is None:
        if came and (came["came"] == "settled" or now - came["at"] >= APPEARS):
            return {"came": "gone", "copy": came["copy"], "at": now}
        return None
    id, state, why = copy
    if state == ready:
        if came and came["came"] == "settled":
            return None
        wrong = unfit()
        return {"came": "failed", "copy": id, "why": wrong, "at": now} if wrong else {"came": "settled", "copy": id, "at": now}
    if state in failed:
        return {"came": "failed", "copy": id, "why": why, "at": now}
    return None if came else {"came": "made", "copy": id, "at": now}


def settle(records, by_id, by_token, now, ready, failed, unfit):
    settled = 0
    for key, (record, etag) in records.items():
        changed = False
        for attempt in record["attempts"]:
            came = record["results"].get(attempt["token"])
            one = by_id.get(came["copy"]) if came else by_token.get(attempt["token"])
            copy = one and (one["id"], one["state"], one["why"])
            next = judged(came, copy, now, ready, failed, lambda one=one, record=record: unfit(record, one))
            if next:
                record["results"][attempt["token"]] = next
                settled += next["came"] == "settled"
                changed = True
        if changed:
            s3.put_object(Bucket=BUCKET, Key=key, Body=json.dumps(record).encode(), IfMatch=etag)
    return settled


def unfit_copy(record, one):
    snapshot = one["snapshot"]
    if snapshot["VolumeSize"] != record["size_gib"]:
        return f"has {snapshot['VolumeSize']} GiB and not {record['size_gib']}"
    if not snapshot["Encrypted"]:
        return "is not encrypted"
    if snapshot["StartTime"].timestamp() < record["started"]:
        return "was begun before its source was"
    return None


def handle(event):
    now = int(time.time())
    copies, hsm_copies = read_all("copies/"), read_all("hsm-copies/")
    filters = [{"Name": "tag:tde2hsm:fleet", "Values": [FLEET]}]
    pages = ec2.get_paginator("describe_snapshots").paginate(OwnerIds=["self"], Filters=filters, PaginationConfig={"PageSize": 1000})
    snapshots = [
        {
            "id": one["SnapshotId"],
            "state": one["State"],
            "why": one.get("StateMessage", ""),
            "token": tags(one, "Tags").get("tde2hsm:token"),
            "snapshot": one,
        }
        for page in pages
        for one in page["Snapshots"]
    ]
    pending = sum(one["state"] == "pending" for one in snapshots)
    by_id = {one["id"]: one for one in snapshots}
    by_token = {one["token"]: one for one in snapshots if one["token"]}
    settled = settle(copies, by_id, by_token, now, "completed", ("error", "recoverable", "recovering"), unfit_copy)

    pages = cloudhsm.get_paginator("describe_backups").paginate(Filters={"clusterIds": [CLUSTER]})
    found = [one for page in pages for one in page["Backups"]]
    lacking = [record["source"] for record, _ in hsm_copies.values() if record["source"] not in {one.get("SourceBackup") for one in found}]
    if lacking:
        pages = cloudhsm.get_paginator("describe_backups").paginate(Filters={"sourceBackupIds": lacking})
        found += [one for page in pages for one in page["Backups"]]
    backups = [
        {
            "id": one["BackupId"],
            "state": one["BackupState"],
            "why": "it ended as DELETED",
            "token": tags(one, "TagList").get("tde2hsm:token"),
            "backup": one,
        }
        for one in found
    ]
    by_id = {one["id"]: one for one in backups}
    by_token = {one["token"]: one for one in backups if one["token"]}
    settled += settle(hsm_copies, by_id, by_token, now, "READY", ("DELETED", "PENDING_DELETION"), lambda record, one: None)
    return {"job": "settle-copies", "copies": len(copies), "hsm-copies": len(hsm_copies), "in-flight": pending, "settled": settled}


def main():
    """What Lambda's own Python runtime does, at its shortest."""
    api = http.client.HTTPConnection(os.environ["AWS_LAMBDA_RUNTIME_API"])
    while True:
        api.request("GET", "/2018-06-01/runtime/invocation/next")
        answer = api.getresponse()
        event, id = json.loads(answer.read()), answer.getheader("Lambda-Runtime-Aws-Request-Id")
        try:
            what, body = "response", handle(event)
        except Exception as error:
            what, body = "error", {"errorType": type(error).__name__, "errorMessage": str(error)}
        api.request("POST", f"/2018-06-01/runtime/invocation/{id}/{what}", json.dumps(body))
        api.getresponse().read()


main()
