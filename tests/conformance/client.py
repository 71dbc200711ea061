#!/usr/bin/env python3
"""A client of the sandbox that no one here wrote: boto3, through every operation the sandbox knows.

Takes its endpoint and keys from the environment `sandbox up` printed. Prints `ok` when all of it came out as the field would.
"""

import hashlib
import json
import time

import boto3
from botocore.config import Config
from botocore.exceptions import ClientError

QUICK = Config(retries={"max_attempts": 1})


def client(name, **options):
    return boto3.client(name, config=QUICK, **options)


def refused(code, call, **arguments):
    try:
        call(**arguments)
    except ClientError as error:
        got = error.response["Error"]["Code"]
        assert got == code, f"{call.__name__}: {got} instead of {code}"
        return error
    raise AssertionError(f"{call.__name__} was not refused with {code}")


def until(what, seconds=20):
    deadline = time.monotonic() + seconds
    last = None
    while time.monotonic() < deadline:
        done, last = what()
        if done:
            return last
        time.sleep(0.02)
    raise AssertionError(f"gave up waiting; last seen: {last}")


def finished(ssm, command):
    def look():
        rows = ssm.list_command_invocations(CommandId=command, Details=True)["CommandInvocations"]
        return bool(rows) and all(r["Status"] not in ("Pending", "InProgress", "Delayed", "Cancelling") for r in rows), rows

    return until(look)


def run_command():
    ssm = client("ssm")
    nodes = ssm.describe_instance_information()["InstanceInformationList"]
    ids = [n["InstanceId"] for n in nodes]
    assert nodes and all(n["PingStatus"] == "Online" for n in nodes)
    one = ssm.describe_instance_information(Filters=[{"Key": "InstanceIds", "Values": ids[:1]}])["InstanceInformationList"]
    assert [n["InstanceId"] for n in one] == ids[:1]

    sent = ssm.send_command(
        InstanceIds=ids, DocumentName="AWS-RunShellScript", Comment="conformance",
        Parameters={"commands": ["echo out of $(hostname)", "echo loud >&2", "id -u"]},
    )["Command"]
    rows = finished(ssm, sent["CommandId"])
    assert len(rows) == len(ids) and all(r["Status"] == "Success" for r in rows), rows
    assert all("out of ora-" in r["CommandPlugins"][0]["Output"] for r in rows)
    got = ssm.get_command_invocation(CommandId=sent["CommandId"], InstanceId=ids[0])
    assert got["ResponseCode"] == 0 and got["StandardErrorContent"] == "loud\n", got
    assert got["StandardOutputContent"].splitlines()[-1] == "0", "scripts run as root"
    found = ssm.list_commands(Filters=[{"key": "DocumentName", "value": "AWS-RunShellScript"}])["Commands"]
    assert any(c["Comment"] == "conformance" and c["Status"] == "Success" for c in found)
    assert [c["CommandId"] for c in ssm.list_commands(CommandId=sent["CommandId"])["Commands"]] == [sent["CommandId"]]

    failing = ssm.send_command(InstanceIds=ids[:1], DocumentName="AWS-RunShellScript", Parameters={"commands": ["exit 3"]})["Command"]
    row = finished(ssm, failing["CommandId"])[0]
    assert (row["StatusDetails"], row["CommandPlugins"][0]["ResponseCode"]) == ("Failed", 3), row

    slow = ssm.send_command(InstanceIds=ids[:1], DocumentName="AWS-RunShellScript", Parameters={"commands": ["sleep 60"]})["Command"]
    until(lambda: (lambda r: (bool(r) and r[0]["Status"] == "InProgress", r))(ssm.list_command_invocations(CommandId=slow["CommandId"])["CommandInvocations"]))
    ssm.cancel_command(CommandId=slow["CommandId"])
    assert finished(ssm, slow["CommandId"])[0]["Status"] == "Cancelled"

    late = ssm.send_command(
        InstanceIds=ids[:1], DocumentName="AWS-RunShellScript", Parameters={"commands": ["sleep 60"], "executionTimeout": ["5"]},
    )["Command"]
    row = finished(ssm, late["CommandId"])[0]
    assert (row["StatusDetails"], row["CommandPlugins"][0]["ResponseCode"]) == ("ExecutionTimedOut", 137), row

    refused("InvalidInstanceId", ssm.send_command, InstanceIds=[ids[0], "i-0123456789abcdef0"], DocumentName="AWS-RunShellScript", Parameters={"commands": ["true"]})
    refused("InvalidDocument", ssm.send_command, InstanceIds=ids[:1], DocumentName="nope", Parameters={})
    refused("InvocationDoesNotExist", ssm.get_command_invocation, CommandId="0" * 36, InstanceId=ids[0])
    refused("UnknownOperationException", ssm.start_session, Target=ids[0])
    return ids


def documents(ids):
    ssm, s3 = client("ssm"), client("s3")
    s3.create_bucket(Bucket="conformance-artefacts")
    s3.head_bucket(Bucket="conformance-artefacts")
    assert s3.get_bucket_location(Bucket="conformance-artefacts")["LocationConstraint"] is None
    s3.put_bucket_versioning(Bucket="conformance-artefacts", VersioningConfiguration={"Status": "Enabled"})
    program = b"#!/bin/sh\necho \"the program says $1\"\n"
    first = s3.put_object(Bucket="conformance-artefacts", Key="dir/program", Body=program)["VersionId"]
    s3.put_object(Bucket="conformance-artefacts", Key="dir/program", Body=b"#!/bin/sh\necho wrong\n")
    assert s3.get_object(Bucket="conformance-artefacts", Key="dir/program", VersionId=first)["Body"].read() == program
    assert s3.head_object(Bucket="conformance-artefacts", Key="dir/program", VersionId=first)["ContentLength"] == len(program)
    assert s3.list_objects_v2(Bucket="conformance-artefacts", Prefix="dir/")["KeyCount"] == 1
    refused("NoSuchKey", s3.get_object, Bucket="conformance-artefacts", Key="absent")
    refused("NoSuchBucket", s3.put_object, Bucket="no-such-bucket", Key="k", Body=b"")

    content = {
        "schemaVersion": "2.2",
        "description": "fetch, then run",
        "parameters": {"Word": {"type": "String", "allowedPattern": "^[a-z]{1,20}$", "interpolationType": "ENV_VAR"}},
        "mainSteps": [
            {"action": "aws:downloadContent", "name": "fetch", "inputs": {
                "sourceType": "S3", "destinationPath": "bin/program", "onFailure": "exit",
                "sourceInfo": json.dumps({"path": f"https://s3.us-east-1.amazonaws.com/conformance-artefacts/dir/program?versionId={first}"})}},
            {"action": "aws:runShellScript", "name": "skipped", "precondition": {"StringEquals": ["platformType", "Windows"]},
             "inputs": {"runCommand": ["exit 1"]}},
            {"action": "aws:runShellScript", "name": "runProgram", "inputs": {
                "timeoutSeconds": "30", "onFailure": "exit",
                "runCommand": ["#!/bin/bash", "set -eu", "sha256sum < bin/program", "exec bin/program \"$SSM_Word\""]}},
        ],
    }
    text = json.dumps(content)
    made = ssm.create_document(Name="conformance-run", Content=text, DocumentType="Command", DocumentFormat="JSON")["DocumentDescription"]
    assert made["Hash"] == hashlib.sha256(text.encode()).hexdigest()
    described = until(lambda: (lambda d: (d["Status"] == "Active", d))(ssm.describe_document(Name="conformance-run")["Document"]))
    assert described["DefaultVersion"] == "1"
    assert json.loads(ssm.get_document(Name="conformance-run")["Content"]) == content

    sent = ssm.send_command(
        InstanceIds=ids, DocumentName="conformance-run", DocumentVersion="1", DocumentHash=made["Hash"], DocumentHashType="Sha256",
        Parameters={"Word": ["hello"]}, TimeoutSeconds=60,
    )["Command"]
    for row in finished(ssm, sent["CommandId"]):
        steps = {p["Name"]: p for p in row["CommandPlugins"]}
        assert row["Status"] == "Success", row
        assert steps["skipped"]["ResponseCode"] == 0 and "skipped" in steps["skipped"]["Output"]
        assert steps["runProgram"]["Output"].splitlines() == [f"{hashlib.sha256(program).hexdigest()}  -", "the program says hello"], steps["runProgram"]
    got = ssm.get_command_invocation(CommandId=sent["CommandId"], InstanceId=ids[0], PluginName="runProgram")
    assert got["StandardOutputContent"].endswith("hello\n")
    refused("InvalidPluginName", ssm.get_command_invocation, CommandId=sent["CommandId"], InstanceId=ids[0])
    refused("InvalidDocument", ssm.send_command, InstanceIds=ids, DocumentName="conformance-run", DocumentHash="0" * 64, Parameters={"Word": ["hello"]})
    refused("InvalidParameters", ssm.send_command, InstanceIds=ids, DocumentName="conformance-run", Parameters={"Word": ["a;b"]})
    refused("DuplicateDocumentContent", ssm.update_document, Name="conformance-run", Content=text, DocumentVersion="$LATEST")
    content["description"] = "another"
    ssm.update_document(Name="conformance-run", Content=json.dumps(content), DocumentVersion="$LATEST")
    ssm.update_document_default_version(Name="conformance-run", DocumentVersion="2")
    ssm.delete_document(Name="conformance-run")
    refused("InvalidDocument", ssm.describe_document, Name="conformance-run")


def inventory(ids):
    ec2 = client("ec2")
    seen = []
    for page in ec2.get_paginator("describe_instances").paginate(PaginationConfig={"PageSize": 5}):
        seen += [i for r in page["Reservations"] for i in r["Instances"]]
    assert sorted(i["InstanceId"] for i in seen) == sorted(ids)
    tagged = ec2.describe_instances(Filters=[{"Name": "tag:tde2hsm:fleet", "Values": ["demo"]}])["Reservations"]
    assert len(tagged) == len(ids)
    vpc = seen[0]["VpcId"]
    by_vpc = [{"Name": "vpc-id", "Values": [vpc]}]
    assert len(ec2.describe_subnets(Filters=by_vpc)["Subnets"]) == 2
    assert len(ec2.describe_security_groups(Filters=by_vpc)["SecurityGroups"]) == 2
    assert ec2.describe_route_tables(Filters=by_vpc)["RouteTables"][0]["Routes"]
    assert len(ec2.describe_volumes(Filters=[{"Name": "attachment.instance-id", "Values": ids[:1]}])["Volumes"]) == 2
    refused("InvalidInstanceID.NotFound", ec2.describe_instances, InstanceIds=["i-0123456789abcdef0"])
    refused("InvalidAction", ec2.start_instances, InstanceIds=ids[:1])


def cluster():
    hsm = client("cloudhsmv2")
    found = hsm.describe_clusters()["Clusters"][0]
    assert found["State"] == "ACTIVE" and [h["State"] for h in found["Hsms"]] == ["ACTIVE", "ACTIVE"]
    assert hsm.describe_clusters(Filters={"clusterIds": ["cluster-aaaaaaaaaaa"]})["Clusters"] == []
    before = hsm.describe_backups(Filters={"clusterIds": [found["ClusterId"]]})["Backups"]
    assert hsm.list_tags(ResourceId=found["ClusterId"])["TagList"]
    zone = sorted(found["SubnetMapping"])[0]
    made = hsm.create_hsm(ClusterId=found["ClusterId"], AvailabilityZone=zone)["Hsm"]

    def active():
        hsms = hsm.describe_clusters()["Clusters"][0]["Hsms"]
        return any(h["HsmId"] == made["HsmId"] and h["State"] == "ACTIVE" for h in hsms), hsms

    until(active)
    hsm.delete_hsm(ClusterId=found["ClusterId"], HsmId=made["HsmId"])
    until(lambda: (lambda hsms: (len(hsms) == 2, hsms))(hsm.describe_clusters()["Clusters"][0]["Hsms"]))

    def ready():
        backups = hsm.describe_backups(Filters={"clusterIds": [found["ClusterId"]], "states": ["READY"]})["Backups"]
        return len(backups) == len(before) + 2, backups

    newest = until(ready)[0]
    hsm.copy_backup_to_region(DestinationRegion="us-west-2", BackupId=newest["BackupId"])
    west = client("cloudhsmv2", region_name="us-west-2")
    until(lambda: (lambda b: (bool(b) and b[0]["BackupState"] == "READY", b))(west.describe_backups(Filters={"sourceBackupIds": [newest["BackupId"]]})["Backups"]))
    refused("CloudHsmResourceNotFoundException", hsm.create_hsm, ClusterId="cluster-aaaaaaaaaaa", AvailabilityZone=zone)


def secrets():
    east, west = client("secretsmanager"), client("secretsmanager", region_name="us-west-2")
    value = east.get_secret_value(SecretId="tde/old-hsm")
    assert ":" in value["SecretString"]
    pinned = east.get_secret_value(SecretId=value["ARN"], VersionId=value["VersionId"])
    assert pinned["SecretString"] == value["SecretString"]
    assert value["VersionId"] in east.describe_secret(SecretId=value["ARN"])["VersionIdsToStages"]
    made = east.create_secret(Name="conformance/escrow", SecretBinary=b"\x00\x01keystore", AddReplicaRegions=[{"Region": "us-west-2"}])
    assert west.get_secret_value(SecretId="conformance/escrow")["SecretBinary"] == b"\x00\x01keystore"
    second = east.put_secret_value(SecretId=made["ARN"], SecretBinary=b"more")
    assert east.get_secret_value(SecretId=made["ARN"], VersionId=made["VersionId"])["SecretBinary"] == b"\x00\x01keystore"
    assert west.get_secret_value(SecretId="conformance/escrow")["VersionId"] == second["VersionId"]
    assert len(east.list_secret_version_ids(SecretId=made["ARN"])["Versions"]) == 2
    # A version that carries a stage of its own stays when it is neither current nor the one before.
    east.update_secret_version_stage(SecretId=made["ARN"], VersionStage="kept", MoveToVersionId=made["VersionId"])
    assert "kept" in west.describe_secret(SecretId="conformance/escrow")["VersionIdsToStages"][made["VersionId"]]
    east.update_secret_version_stage(SecretId=made["ARN"], VersionStage="kept", RemoveFromVersionId=made["VersionId"])
    refused("ResourceNotFoundException", east.get_secret_value, SecretId="absent")
    refused("ResourceExistsException", east.create_secret, Name="conformance/escrow", SecretString="x")


def identity():
    assert client("sts").get_caller_identity()["Account"] == "123456789012"
    wrong = {"aws_access_key_id": "AKIAIOSFODNN7EXAMPLE", "aws_secret_access_key": "wrong"}
    refused("UnrecognizedClientException", client("ssm", **wrong).list_commands)
    refused("AuthFailure", client("ec2", **wrong).describe_instances)
    refused("InvalidClientTokenId", client("sts", **wrong).get_caller_identity)
    refused("InvalidAccessKeyId", client("s3", **wrong).list_buckets)
    good = boto3.Session().get_credentials().get_frozen_credentials()
    forged = {"aws_access_key_id": good.access_key, "aws_secret_access_key": "wrong"}
    refused("InvalidSignatureException", client("secretsmanager", **forged).get_secret_value, SecretId="tde/old-hsm")
    refused("InvalidSignatureException", client("cloudhsmv2", **forged).describe_clusters)
    refused("SignatureDoesNotMatch", client("s3", **forged).list_buckets)


def recovery(ids):
    """What a second region is for: sets and their copies, backups and theirs, and a host and a cluster made from them."""
    east, west = client("ec2"), client("ec2", region_name="us-west-2")
    fleet = [{"Key": "tde2hsm:fleet", "Value": "demo"}]
    kms = client("kms", region_name="us-west-2")
    key = kms.describe_key(KeyId="alias/tde2hsm-copies")["KeyMetadata"]
    assert key["KeyState"] == "Enabled"
    refused("NotFoundException", kms.describe_key, KeyId="alias/absent")

    about = east.describe_instances(InstanceIds=ids[:1])["Reservations"][0]["Instances"][0]
    tags = [{"ResourceType": "snapshot", "Tags": [{"Key": "dlm:managed", "Value": "true"}]}]
    made = east.create_snapshots(
        InstanceSpecification={"InstanceId": ids[0]}, Description="a set", CopyTagsFromSource="volume", TagSpecifications=tags,
    )["Snapshots"]
    assert len(made) == len(about["BlockDeviceMappings"]) and len({s["StartTime"] for s in made}) == 1
    sources = {s["VolumeId"]: s["SnapshotId"] for s in made}
    single = east.create_snapshot(VolumeId=about["BlockDeviceMappings"][0]["Ebs"]["VolumeId"], Description="alone")

    def done(ec2, snapshots):
        def look():
            found = ec2.describe_snapshots(OwnerIds=["self"], Filters=[{"Name": "snapshot-id", "Values": list(snapshots)}])["Snapshots"]
            return len(found) == len(snapshots) and all(s["State"] == "completed" for s in found), found

        return until(look, 60)

    done(east, sources.values())
    assert east.describe_snapshots(OwnerIds=["self"], Filters=[{"Name": "tag:dlm:managed", "Values": ["true"]}])["Snapshots"]
    pages = east.get_paginator("describe_snapshots").paginate(OwnerIds=["self"], PaginationConfig={"PageSize": 5})
    assert sum(len(page["Snapshots"]) for page in pages) >= 3
    copies = {}
    for volume, source in sources.items():
        copies[volume] = west.copy_snapshot(
            SourceRegion="us-east-1", SourceSnapshotId=source, Encrypted=True, KmsKeyId=key["Arn"], Description="a copy",
            TagSpecifications=[{"ResourceType": "snapshot", "Tags": fleet}],
        )["SnapshotId"]
    for copy in done(west, copies.values()):
        assert copy["VolumeId"] == "vol-ffffffff" and copy["KmsKeyId"] == key["Arn"] and copy["Tags"] == fleet, copy
    wrong = west.copy_snapshot(SourceRegion="us-east-1", SourceSnapshotId=single["SnapshotId"], Encrypted=True, KmsKeyId="alias/absent")
    until(lambda: (lambda s: (bool(s) and s[0]["State"] == "error", s))(
        west.describe_snapshots(Filters=[{"Name": "snapshot-id", "Values": [wrong["SnapshotId"]]}])["Snapshots"]))
    west.delete_snapshot(SnapshotId=wrong["SnapshotId"])
    refused("InvalidSnapshot.NotFound", west.delete_snapshot, SnapshotId="snap-0123456789abcdef0")
    refused("InvalidSnapshot.NotFound", west.describe_snapshots, SnapshotIds=["snap-0123456789abcdef0"])
    west.create_tags(Resources=[copies[next(iter(copies))]], Tags=[{"Key": "note", "Value": "<&>"}])
    west.delete_tags(Resources=[copies[next(iter(copies))]], Tags=[{"Key": "note"}])

    hsm, far = client("cloudhsmv2"), client("cloudhsmv2", region_name="us-west-2")
    home = hsm.describe_clusters()["Clusters"][0]
    newest = hsm.describe_backups(Filters={"clusterIds": [home["ClusterId"]], "states": ["READY"]}, SortAscending=False)["Backups"][0]
    assert hsm.modify_backup_attributes(BackupId=newest["BackupId"], NeverExpires=True)["Backup"]["NeverExpires"]
    hsm.copy_backup_to_region(DestinationRegion="us-west-2", BackupId=newest["BackupId"], TagList=fleet)
    by_source = {"sourceBackupIds": [newest["BackupId"]], "states": ["READY"]}
    backup = until(lambda: (lambda b: (bool(b), b))(far.describe_backups(Filters=by_source)["Backups"]))[0]
    assert backup["SourceRegion"] == "us-east-1" and backup["ClusterId"] == home["ClusterId"]

    subnets = sorted(west.describe_subnets()["Subnets"], key=lambda s: s["AvailabilityZone"])
    restored = far.create_cluster(HsmType="hsm2m.medium", SubnetIds=[s["SubnetId"] for s in subnets], SourceBackupId=backup["BackupId"], TagList=fleet)["Cluster"]
    mine = {"clusterIds": [restored["ClusterId"]]}
    until(lambda: (lambda c: (c["State"] == "ACTIVE", c))(far.describe_clusters(Filters=mine)["Clusters"][0]))
    one = far.create_hsm(ClusterId=restored["ClusterId"], AvailabilityZone=subnets[0]["AvailabilityZone"])["Hsm"]
    until(lambda: (lambda c: (c["Hsms"][0]["State"] == "ACTIVE", c))(far.describe_clusters(Filters=mine)["Clusters"][0]))

    groups = west.describe_security_groups(Filters=[{"Name": "vpc-id", "Values": [subnets[0]["VpcId"]]}])["SecurityGroups"]
    mapping = [
        {"DeviceName": d["DeviceName"], "Ebs": {"SnapshotId": copies[d["Ebs"]["VolumeId"]], "DeleteOnTermination": True}}
        for d in about["BlockDeviceMappings"]
    ]
    image = west.register_image(Name="conformance", RootDeviceName=about["RootDeviceName"], BlockDeviceMappings=mapping, Architecture="x86_64", VirtualizationType="hvm", EnaSupport=True)["ImageId"]
    assert west.describe_images(ImageIds=[image])["Images"][0]["State"] == "available"
    launched = west.run_instances(
        ImageId=image, MinCount=1, MaxCount=1, InstanceType="r6i.xlarge", SubnetId=subnets[0]["SubnetId"], ClientToken="conformance",
        SecurityGroupIds=[g["GroupId"] for g in groups], IamInstanceProfile={"Name": "tde2hsm-drill"},
        TagSpecifications=[{"ResourceType": kind, "Tags": fleet} for kind in ("instance", "volume")],
    )["Instances"][0]["InstanceId"]
    ssm = client("ssm", region_name="us-west-2")
    until(lambda: (lambda n: (bool(n) and n[0]["PingStatus"] == "Online", n))(ssm.describe_instance_information()["InstanceInformationList"]))
    # The host has the files of the other one, and is itself.
    sent = ssm.send_command(InstanceIds=[launched], DocumentName="AWS-RunShellScript", Parameters={"commands": ["cat /etc/oratab; hostname"]})["Command"]
    said = finished(ssm, sent["CommandId"])[0]["CommandPlugins"][0]["Output"]
    assert ":/u01/app/oracle/product/19.0.0/dbhome_1:Y" in said and said.splitlines()[-1].startswith("ip-10-9-"), said
    refused("InvalidSnapshot.InUse", west.delete_snapshot, SnapshotId=mapping[0]["Ebs"]["SnapshotId"])

    assert west.terminate_instances(InstanceIds=[launched])["TerminatingInstances"][0]["InstanceId"] == launched
    until(lambda: (lambda i: (i["State"]["Name"] == "terminated", i))(west.describe_instances(InstanceIds=[launched])["Reservations"][0]["Instances"][0]))
    west.deregister_image(ImageId=image)
    volume = west.create_volume(AvailabilityZone=subnets[0]["AvailabilityZone"], SnapshotId=mapping[0]["Ebs"]["SnapshotId"])
    west.delete_volume(VolumeId=volume["VolumeId"])
    for copy in copies.values():
        west.delete_snapshot(SnapshotId=copy)
    far.delete_hsm(ClusterId=restored["ClusterId"], HsmId=one["HsmId"])
    until(lambda: (lambda c: (not c["Hsms"], c))(far.describe_clusters(Filters=mine)["Clusters"][0]))
    far.delete_cluster(ClusterId=restored["ClusterId"])
    assert far.delete_backup(BackupId=backup["BackupId"])["Backup"]["BackupState"] == "PENDING_DELETION"
    assert far.restore_backup(BackupId=backup["BackupId"])["Backup"]["BackupState"] in ("READY", "CREATE_IN_PROGRESS")

    sns = client("sns", region_name="us-west-2")
    topic = "arn:aws:sns:us-west-2:123456789012:tde2hsm-alarms"
    assert sns.publish(TopicArn=topic, Subject="a breach", Message="the newest point is old")["MessageId"]
    refused("NotFound", sns.publish, TopicArn=topic + "-absent", Message="x")


def records():
    """One object, many writers: whoever read what is no longer there loses."""
    s3, bucket = client("s3", region_name="us-west-2"), "tde2hsm-records-123456789012-us-west-2"
    assert s3.get_bucket_versioning(Bucket=bucket)["Status"] == "Enabled"
    first = s3.put_object(Bucket=bucket, Key="copies/a.json", Body=b"1", IfNoneMatch="*")["ETag"]
    refused("PreconditionFailed", s3.put_object, Bucket=bucket, Key="copies/a.json", Body=b"2", IfNoneMatch="*")
    second = s3.put_object(Bucket=bucket, Key="copies/a.json", Body=b"2", IfMatch=first)["ETag"]
    assert second != first
    refused("PreconditionFailed", s3.put_object, Bucket=bucket, Key="copies/a.json", Body=b"3", IfMatch=first)
    refused("NoSuchKey", s3.put_object, Bucket=bucket, Key="copies/absent.json", Body=b"3", IfMatch=first)
    assert s3.get_object(Bucket=bucket, Key="copies/a.json")["Body"].read() == b"2"
    s3.delete_object(Bucket=bucket, Key="copies/a.json")
    s3.put_object(Bucket=bucket, Key="copies/a.json", Body=b"4", IfNoneMatch="*")
    assert len(s3.list_object_versions(Bucket=bucket, Prefix="copies/")["Versions"]) == 3


ids = run_command()
documents(ids)
inventory(ids)
cluster()
secrets()
records()
recovery(ids)
identity()
print("ok")
