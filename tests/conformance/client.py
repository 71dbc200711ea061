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
    refused("InvalidAction", ec2.run_instances, MinCount=1, MaxCount=1)


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


ids = run_command()
documents(ids)
inventory(ids)
cluster()
secrets()
identity()
print("ok")
