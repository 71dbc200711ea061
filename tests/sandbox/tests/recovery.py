"""The operator's side of a drill by hand, with boto3: prints JSON. Time that nobody wants to wait for is skipped by `sandbox clock`."""

import json
import os
import subprocess
import sys
import time

import boto3

EAST, WEST = "us-east-1", "us-west-2"


def client(name, region):
    return boto3.client(name, region_name=region)


def sandbox(*words):
    subprocess.run([os.environ["SANDBOX"], words[0], "--dir", os.environ["DIR"], *words[1:]], check=True, capture_output=True)


def until(look):
    deadline = time.monotonic() + 60
    while True:
        found = look()
        if found:
            return found
        if time.monotonic() > deadline:
            raise SystemExit("gave up waiting")
        time.sleep(0.02)


def copy_set(key, *snapshots):
    """Copies snapshots into the second region; source to copy."""
    east, west = client("ec2", EAST), client("ec2", WEST)
    sandbox("clock", "--advance", "10m")
    until(lambda: all(s["State"] == "completed" for s in east.describe_snapshots(SnapshotIds=list(snapshots))["Snapshots"]))
    copies = {
        s: west.copy_snapshot(SourceRegion=EAST, SourceSnapshotId=s, Encrypted=True, KmsKeyId=key)["SnapshotId"] for s in snapshots
    }
    sandbox("clock", "--advance", "6h")
    states = {}
    for source, copy in copies.items():
        found = until(lambda copy=copy: west.describe_snapshots(Filters=[{"Name": "snapshot-id", "Values": [copy]}])["Snapshots"])[0]
        states[source] = {"copy": copy, "state": found["State"]}
    return states


def copy_backup():
    """Copies the cluster's newest backup."""
    here, there = client("cloudhsmv2", EAST), client("cloudhsmv2", WEST)
    cluster = here.describe_clusters()["Clusters"][0]["ClusterId"]
    newest = here.describe_backups(Filters={"clusterIds": [cluster], "states": ["READY"]}, SortAscending=False)["Backups"][0]
    here.copy_backup_to_region(DestinationRegion=WEST, BackupId=newest["BackupId"])
    sandbox("clock", "--advance", "1h")
    found = until(lambda: there.describe_backups(Filters={"sourceBackupIds": [newest["BackupId"]]})["Backups"])
    return {"backup": found[0]["BackupId"], "state": found[0]["BackupState"]}


def restore(subnet, zone, backup):
    """A cluster with one HSM from a backup."""
    hsm = client("cloudhsmv2", WEST)
    made = hsm.create_cluster(HsmType="hsm2m.medium", SubnetIds=[subnet], SourceBackupId=backup)["Cluster"]["ClusterId"]
    mine = {"clusterIds": [made]}
    sandbox("clock", "--advance", "1h")
    until(lambda: hsm.describe_clusters(Filters=mine)["Clusters"][0]["State"] == "ACTIVE")
    hsm.create_hsm(ClusterId=made, AvailabilityZone=zone)
    sandbox("clock", "--advance", "1h")
    hsms = until(lambda: [h for h in hsm.describe_clusters(Filters=mine)["Clusters"][0]["Hsms"] if h["State"] == "ACTIVE"])
    return {"cluster": made, "address": hsms[0]["EniIp"]}


def launch(subnet, group, *devices):
    """An instance from copies, given as DEVICE=SNAPSHOT, the root first."""
    ec2 = client("ec2", WEST)
    devices = [d.split("=") for d in devices]
    mapping = [{"DeviceName": name, "Ebs": {"SnapshotId": snapshot}} for name, snapshot in devices]
    name = f"drill-{time.time_ns()}"
    image = ec2.register_image(Name=name, RootDeviceName=devices[0][0], BlockDeviceMappings=mapping)["ImageId"]
    made = ec2.run_instances(
        ImageId=image, MinCount=1, MaxCount=1, InstanceType="r6i.xlarge", SubnetId=subnet, SecurityGroupIds=[group],
        IamInstanceProfile={"Name": "tde2hsm-drill"},
    )["Instances"][0]["InstanceId"]
    sandbox("clock", "--advance", "10m")
    ssm = client("ssm", WEST)
    until(lambda: [n for n in ssm.describe_instance_information()["InstanceInformationList"] if n["InstanceId"] == made])
    return {"instance": made}


def terminate(instance):
    client("ec2", WEST).terminate_instances(InstanceIds=[instance])
    return {}


def answers(region):
    """Whether a region answers at all."""
    try:
        boto3.client("ec2", region_name=region, config=boto3.session.Config(retries={"max_attempts": 1})).describe_instances()
        return {"answers": True}
    except Exception as error:
        return {"answers": False, "why": type(error).__name__}


print(json.dumps(globals()[sys.argv[1]](*sys.argv[2:])))
