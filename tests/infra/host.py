"""MiniStack hosts the functions, their rules and their schedules as the templates deploy them; EC2, CloudHSM, S3 and the rest are a sandbox's.

    host.py MINISTACK-ENDPOINT INFRA-DIRECTORY BOOTSTRAP SANDBOX-PROGRAM WORLD-DIRECTORY

with the environment that the sandbox printed. First an event on MiniStack's bus, with no schedule due; then a tick of its Scheduler, with no event at all.
Each must lead to tagged copies in the sandbox's second region that settle-copies has verified. What there is is asked of the sandbox, not of the functions.
"""

import json
import os
import subprocess
import sys
import time
import tomllib
from pathlib import Path

import boto3
import deploy
from botocore.config import Config
from relay import Relay

# AWS refuses `aws.*` from PutEvents, and so does MiniStack.
SOURCE_OF_TEST = "tde2hsm.test"
SERVICES = ["CLOUDHSM_V2", "EC2", "KMS", "S3", "SECRETS_MANAGER", "SNS", "SSM", "STS"]

# The event reaches the function as AWS would have sent it: the function takes `aws.ec2` alone.
AS_SENT_BY_AWS = """
          InputTransformer:
            InputPathsMap: {type: $.detail-type, account: $.account, region: $.region, resources: $.resources, detail: $.detail}
            InputTemplate: '{"source": "aws.ec2", "detail-type": <type>, "account": <account>, "region": <region>, "resources": <resources>, "detail": <detail>}'"""


def replaced(text, old, new):
    if old not in text:
        raise SystemExit(f"the template no longer says {old!r}")
    return text.replace(old, new)


def copies_of_templates(infra, to, relay, dr):
    """The test's copies: a further event source, the sandbox's endpoints and clock, its bucket, key and topic. Nothing else."""
    variables = {f"AWS_ENDPOINT_URL_{service}": relay for service in SERVICES}
    variables |= {name: os.environ[name] for name in ("SANDBOX_CLOCK", "LD_PRELOAD", "AWS_EC2_METADATA_DISABLED")}
    lines = "".join(f"          {name}: {json.dumps(value)}\n" for name, value in variables.items())
    for name in ("source.yaml", "dr.yaml"):
        text = (infra / name).read_text()
        text = replaced(text, "source: [aws.ec2]", f"source: [aws.ec2, {SOURCE_OF_TEST}]")
        text = replaced(text, "        Variables:\n", "        Variables:\n" + lines)
        text = replaced(text, "        - Id: function\n", "        - Id: function" + AS_SENT_BY_AWS + "\n")
        if name == "dr.yaml":
            for variable, there, here in (
                ("KMS_KEY", "!GetAtt CopiesKey.Arn", dr["kms_key"]),
                ("RECORDS_BUCKET", "!Ref Records", dr["records_bucket"]),
                ("TOPIC", "!Ref Alarms", dr["topic"]),
            ):
                text = replaced(text, f"TDE2HSM_{variable}: {there}\n", f"TDE2HSM_{variable}: {here}\n")
        (to / name).write_text(text)


class Sandbox:
    def __init__(self, program, directory):
        self.program, self.directory = program, directory

    def __call__(self, verb, *args):
        done = subprocess.run([self.program, verb, "--dir", self.directory, *args], capture_output=True, text=True)
        if done.returncode != 0:
            raise SystemExit(f"sandbox {verb}: {done.stdout}{done.stderr}")
        return json.loads(done.stdout) if done.stdout.strip() else None

    @staticmethod
    def client(service, region):
        return boto3.client(service, region_name=region, config=Config(s3={"addressing_style": "path"}))


def hosting_clock(minutes):
    """Moves MiniStack's clock, which is another than the sandbox's, ahead."""
    path = Path(os.environ["HOSTING_CLOCK"])
    ahead = int.from_bytes(path.read_bytes(), sys.byteorder, signed=True) + minutes * 60_000
    # In place: the file is mapped.
    with path.open("r+b") as file:
        file.write(ahead.to_bytes(8, sys.byteorder, signed=True))


def wait(what, look, seconds):
    """Until `look` answers something; the last state is told if it never does."""
    until = time.monotonic() + seconds
    while True:
        value, state = look()
        if value:
            return value
        if time.monotonic() > until:
            raise SystemExit(f"{what}: not after {seconds} s; last: {json.dumps(state, default=str, indent=1)}")
        time.sleep(0.25)


def main():
    endpoint, infra, bootstrap, program, directory = sys.argv[1:]
    world = Sandbox(program, directory)
    fleet = tomllib.loads((Path(directory) / "fleet.toml").read_text())
    source, dr = fleet["fleet"]["region"], fleet["dr"]["region"]
    relay = Relay(os.environ["AWS_ENDPOINT_URL"], os.environ["AWS_ACCESS_KEY_ID"], os.environ["AWS_SECRET_ACCESS_KEY"])
    copies = Path(directory) / "templates"
    copies.mkdir()
    copies_of_templates(Path(infra), copies, relay.endpoint, fleet["dr"])

    # Parameters as an operator has them; the document is the one that `tde2hsm setup` made.
    document = world.client("ssm", source).describe_document(Name="tde2hsm-run")["Document"]
    secrets = {name: one["arn"] for name, one in fleet["secrets"].items()}
    tag = fleet["targets"][0]["tag"]
    deploy.SOURCE, deploy.DR = source, dr
    dr_parameters, source_parameters = deploy.parameters_of_both()
    both = {
        "Fleet": fleet["fleet"]["name"],
        "FleetTagKey": tag["key"],
        "FleetTagValue": tag["value"],
        "Cluster": fleet["cluster"]["id"],
        "CryptoUserSecrets": secrets["cloudhsm"],
        "KeystoreSecrets": secrets["software"],
        "SecretArns": f"{secrets['cloudhsm']},{secrets['software']}",
    }
    hosting_dr, hosting_source = deploy.Clients(endpoint, dr), deploy.Clients(endpoint, source)
    archive = deploy.zipped(bootstrap)
    dr_parameters |= both | deploy.upload(hosting_dr, ["settle-copies", "expire-copies", "audit-recovery"], archive)
    source_parameters |= both | deploy.upload(hosting_source, ["copy-snapshots", "copy-hsm-backups"], archive)
    deploy.create(hosting_dr, "tde2hsm-dr", copies / "dr.yaml", dr_parameters)
    source_parameters |= {
        "DrKmsKeyArn": fleet["dr"]["kms_key"],
        "RecordsBucket": fleet["dr"]["records_bucket"],
        "RecordsKeyArn": fleet["dr"]["kms_key"],
        "DocumentVersion": document["DocumentVersion"],
        "DocumentHash": document["Hash"],
    }
    deploy.create(hosting_source, "tde2hsm-source", copies / "source.yaml", source_parameters)

    there, s3 = world.client("ec2", dr), world.client("s3", dr)

    def copied(snapshots):
        """Copies in the second region by their source, with their tags, and what records say of them."""
        found = {}
        for one in there.describe_snapshots(OwnerIds=["self"])["Snapshots"]:
            tags = {tag["Key"]: tag["Value"] for tag in one.get("Tags", [])}
            if tags.get("tde2hsm:source-snapshot") in snapshots:
                found.setdefault(tags["tde2hsm:source-snapshot"], []).append((one, tags))
        return found

    def record(snapshot):
        try:
            return json.loads(s3.get_object(Bucket=fleet["dr"]["records_bucket"], Key=f"copies/{snapshot}.json")["Body"].read())
        except s3.exceptions.NoSuchKey:
            return None

    def begun(snapshots):
        def look():
            found = copied(snapshots)
            return (found if set(found) == set(snapshots) else None), {
                source: [one["SnapshotId"] for one, _ in found[source]] for source in found
            }

        return look

    def verified(snapshots):
        def look():
            records = {snapshot: record(snapshot) for snapshot in snapshots}
            good = all(one and settled(one) for one in records.values())
            return (records if good else None), records

        return look

    def put(region, clients, detail_type, resources, detail):
        answer = clients("events").put_events(
            Entries=[{"Source": SOURCE_OF_TEST, "DetailType": detail_type, "Resources": resources, "Detail": json.dumps(detail)}]
        )
        if answer["FailedEntryCount"]:
            raise SystemExit(f"PutEvents in {region}: {answer}")

    def arn(region, snapshot):
        return f"arn:aws:ec2::{region}:snapshot/{snapshot}"

    def check(found, by):
        for origin, copies in found.items():
            if len(copies) != 1:
                raise SystemExit(f"{origin} was copied {len(copies)} times")
            ((one, tags),) = copies
            wanted = {"tde2hsm:fleet": fleet["fleet"]["name"], "tde2hsm:source-region": source}
            if any(tags.get(key) != value for key, value in wanted.items()) or not tags.get("tde2hsm:token") or not tags.get("tde2hsm:set"):
                raise SystemExit(f"{one['SnapshotId']} has the tags {tags}")
            if one["State"] != "completed" or not one["Encrypted"] or one["KmsKeyId"] != fleet["dr"]["kms_key"]:
                raise SystemExit(f"{one['SnapshotId']} is {one}")
        print(f"{by}: {len(found)} snapshots copied once each, tagged, encrypted with the key of {dr}, verified by settle-copies")

    # An event, and no schedule due: the shortest is a quarter of an hour.
    first = sorted(snapshot for one in world("snapshot").values() for snapshot in one)
    settle(world)
    put(
        source,
        hosting_source,
        "EBS Snapshot Notification",
        [arn(source, first[0])],
        {"event": "copySnapshot", "result": "succeeded", "snapshot_id": arn(source, first[0])},
    )
    time.sleep(1)
    if copied(first):
        raise SystemExit("an event that the rule does not name led to a copy")
    detail = {"result": "succeeded", "cause": "", "request-id": "", "startTime": "", "endTime": ""}
    snapshots = [{"snapshot_id": arn(source, one), "source": "", "status": "completed"} for one in first]
    put(
        source,
        hosting_source,
        "EBS Multi-Volume Snapshots Completion Status",
        [arn(source, one) for one in first],
        detail | {"event": "createSnapshots", "snapshots": snapshots},
    )
    found = wait("copies after an event", begun(first), 30)
    settle(world)
    for origin, ((one, _),) in found.items():
        put(
            dr,
            hosting_dr,
            "EBS Snapshot Notification",
            [arn(dr, one["SnapshotId"])],
            detail | {"event": "copySnapshot", "snapshot_id": arn(dr, one["SnapshotId"]), "source": arn(source, origin)},
        )
    wait("verified copies after an event", verified(first), 30)
    check(copied(first), "an event")

    # A tick, and no event: half an hour of the host's own clock, and every schedule of the templates but one is due.
    second = sorted(snapshot for one in world("snapshot").values() for snapshot in one)
    settle(world)
    hosting_clock(31)
    wait("copies after a tick", begun(second), 60)
    settle(world)
    hosting_clock(31)
    wait("verified copies after a tick", verified(second), 60)
    check(copied(second), "a tick of the Scheduler")

    hsm = world.client("cloudhsmv2", dr)

    def backups():
        found = [
            one
            for one in hsm.describe_backups()["Backups"]
            if one.get("SourceRegion") == source and one.get("SourceCluster") == fleet["cluster"]["id"]
        ]
        return (found if found and all(one["BackupState"] == "READY" for one in found) else None), found

    found = wait("a copied HSM backup after a tick", backups, 30)
    if len({one["SourceBackup"] for one in found}) != len(found):
        raise SystemExit(f"an HSM backup was copied twice: {found}")
    if any({"Key": "tde2hsm:fleet", "Value": fleet["fleet"]["name"]} not in one["TagList"] for one in found):
        raise SystemExit(f"an HSM backup was copied without our tags: {found}")
    print(f"a tick of the Scheduler: {len(found)} HSM backups copied once each, tagged, READY in {dr}")
    print("calls of the functions: " + ", ".join(f"{service} {region} {count}" for (service, region), count in sorted(relay.calls.items())))


def settle(world):
    """Hours in which snapshots and copies get ready."""
    world("clock", "--advance", "2h")


def settled(record):
    """settle-copies looked at the copy itself and found it completed and like its source."""
    return [one["came"] for one in record["results"].values()] == ["settled"]


if __name__ == "__main__":
    main()
