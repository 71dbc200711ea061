"""Deploys both templates to a third party through boto3 and asks every resource, through its own API, what it has become.

    deploy.py WHO ENDPOINT DEPLOYED-DIRECTORY READ-DIRECTORY BOOTSTRAP

Prints one line a type, and what the third party lacks. Exit status 0 only if nothing else differs from the template and
what it lacks is exactly what LACKS says.
"""

import base64
import hashlib
import io
import json
import sys
import time
import zipfile
from pathlib import Path

import boto3
import cfn
import described
from botocore.config import Config

SOURCE, DR = "eu-central-1", "eu-west-1"

# Types that a third party does not make of a template, whatever it answered, and properties that it drops. Each is the third party's, none is ours: where
# one of them learns it, the test fails until the line here goes.
_UNMADE = "accepted in a template, never made"
_DROPPED = "made without this property"
LACKS = {
    "moto": {
        "AWS::CloudWatch::Alarm": _UNMADE,
        "AWS::EC2::RouteTable.Tags": _DROPPED,
        "AWS::EC2::SecurityGroup.SecurityGroupEgress": _DROPPED,
        "AWS::EC2::SecurityGroup.SecurityGroupIngress": "a rule loses its description",
        "AWS::EC2::SubnetRouteTableAssociation": _UNMADE,
        "AWS::EC2::VPC.EnableDnsHostnames": _DROPPED,
        "AWS::IAM::Role.ManagedPolicyArns": _DROPPED,
        "AWS::KMS::Key (DescribeKey answers 500)": "made with a policy that its own API cannot read",
        "AWS::Lambda::EventInvokeConfig": _UNMADE,
        "AWS::Lambda::Function.DeadLetterConfig": _DROPPED,
        "AWS::Lambda::Function.LoggingConfig": _DROPPED,
        "AWS::Logs::LogGroup.KmsKeyId": _DROPPED,
        "AWS::S3::Bucket.BucketEncryption": _DROPPED,
        "AWS::S3::Bucket.LifecycleConfiguration": _DROPPED,
        "AWS::S3::Bucket.OwnershipControls": _DROPPED,
        "AWS::S3::Bucket.PublicAccessBlockConfiguration": _DROPPED,
        "AWS::S3::Bucket.VersioningConfiguration": _DROPPED,
        "AWS::S3::BucketPolicy": _UNMADE,
        "AWS::SNS::Subscription": _UNMADE,
        "AWS::SNS::TopicPolicy.PolicyDocument": _UNMADE,
        "AWS::SQS::QueuePolicy": _UNMADE,
        "AWS::Scheduler::Schedule": _UNMADE,
        "AWS::Scheduler::ScheduleGroup": _UNMADE,
    },
    "ministack": {
        "AWS::EC2::VPCEndpoint.PolicyDocument": _DROPPED,
        "AWS::EC2::VPCEndpoint.PrivateDnsEnabled": _DROPPED,
        "AWS::EC2::VPCEndpoint.SecurityGroupIds": _DROPPED,
        "AWS::IAM::Role.PermissionsBoundary": _DROPPED,
        "AWS::Lambda::Function.DeadLetterConfig": _DROPPED,
        "AWS::Lambda::Function.ReservedConcurrentExecutions": _DROPPED,
        "AWS::S3::Bucket.BucketEncryption": "encrypted by default only",
        "AWS::S3::Bucket.LifecycleConfiguration": _DROPPED,
        "AWS::SNS::Topic.KmsMasterKeyId": _DROPPED,
    },
}


class Clients:
    def __init__(self, endpoint, region):
        self.endpoint, self.region, self.made = endpoint, region, {}

    def __call__(self, service):
        if service not in self.made:
            self.made[service] = boto3.client(
                service,
                endpoint_url=self.endpoint,
                region_name=self.region,
                aws_access_key_id=cfn.ACCOUNT,
                aws_secret_access_key="secret",
                config=Config(s3={"addressing_style": "path"}, retries={"total_max_attempts": 1}),
            )
        return self.made[service]


def zipped(bootstrap):
    """A function's archive with one program in it, the same bytes for the same program."""
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED, compresslevel=1) as archive:
        info = zipfile.ZipInfo("bootstrap", (1980, 1, 1, 0, 0, 0))
        info.create_system = 3
        info.external_attr = 0o100755 << 16
        info.compress_type = zipfile.ZIP_DEFLATED
        archive.writestr(info, Path(bootstrap).read_bytes())
    return out.getvalue()


def upload(clients, names, archive):
    """Into a versioned bucket of the functions' region, as infra/deploy does; the parameters that name them."""
    s3, bucket = clients("s3"), f"code-{clients.region}"
    # us-east-1 is the one region that may not be named.
    place = {} if clients.region == "us-east-1" else {"CreateBucketConfiguration": {"LocationConstraint": clients.region}}
    s3.create_bucket(Bucket=bucket, **place)
    s3.put_bucket_versioning(Bucket=bucket, VersioningConfiguration={"Status": "Enabled"})
    parameters = {"CodeBucket": bucket}
    for name in names:
        key = f"lambdas/{hashlib.sha256(archive).hexdigest()}/{name}.zip"
        version = s3.put_object(Bucket=bucket, Key=key, Body=archive)["VersionId"]
        camel = "".join(part.capitalize() for part in name.split("-"))
        parameters |= {f"{camel}Key": key, f"{camel}Version": version}
    return parameters


def parameters_of_both():
    secret = f"arn:aws:secretsmanager:{{}}:{cfn.ACCOUNT}:secret:{{}}"
    names = ["hsm/crypto-user-AbCdEf", "db/keystore-GhIjKl"]
    key = f"arn:aws:kms:{{}}:{cfn.ACCOUNT}:key/5f1c2a52-7f1e-4c4e-9a37-1d1b4b4d5e1{{}}"
    fleet = {
        "Fleet": "bank",
        "FleetTagKey": "tde2hsm",
        "FleetTagValue": "bank",
        "Cluster": "cluster-abcdefghijk",
        "SecretArns": ",".join(secret.format(SOURCE, name) for name in names),
        "RpoMinutes": "480",
        "AlarmEmail": "night-shift@bank.example",
        "PermissionsBoundaryArn": f"arn:aws:iam::{cfn.ACCOUNT}:policy/boundary",
    }
    dr = fleet | {
        "SourceRegion": SOURCE,
        "ReplicaSecretArns": ",".join(secret.format(DR, name) for name in names),
        "SecretsKeyArns": key.format(DR, 2),
        "DrillSubnetCidrs": "10.255.252.0/24,10.255.253.0/24",
        "DrillZones": f"{DR}a,{DR}b",
        "DrillEndpoints": "true",
        "DrillS3PrefixList": "pl-6da54004",
        "DrillOperatorArns": f"arn:aws:iam::{cfn.ACCOUNT}:role/recovery,arn:aws:iam::{cfn.ACCOUNT}:role/night",
        "ProtectedClusterArns": f"arn:aws:cloudhsm:{DR}:{cfn.ACCOUNT}:cluster/cluster-zzzzzzzzzzz",
        "ArtifactBucket": "tde2hsm-artefacts-dr",
    }
    source = fleet | {
        "DrRegion": DR,
        "SourceKmsKeyArns": key.format(SOURCE, 1) + "," + key.format(SOURCE, 3),
        "DocumentVersion": "3",
        "DocumentHash": "ab" * 32,
    }
    return dr, source


def create(clients, name, template, parameters, deadline=60):
    """Creates a stack and waits for its end; its outputs and the physical ids of its resources."""
    # By way of S3: more than 51,200 bytes do not go into the call itself.
    bucket = parameters["CodeBucket"]
    clients("s3").put_object(Bucket=bucket, Key=template.name, Body=template.read_bytes())
    cloudformation = clients("cloudformation")
    cloudformation.create_stack(
        StackName=name,
        TemplateURL=f"https://s3.{clients.region}.amazonaws.com/{bucket}/{template.name}",
        Parameters=[{"ParameterKey": key, "ParameterValue": value} for key, value in parameters.items()],
        Capabilities=["CAPABILITY_NAMED_IAM"],
    )
    until = time.monotonic() + deadline
    while True:
        stack = cloudformation.describe_stacks(StackName=name)["Stacks"][0]
        if stack["StackStatus"] == "CREATE_COMPLETE":
            break
        if not stack["StackStatus"].endswith("_IN_PROGRESS") or time.monotonic() > until:
            events = cloudformation.describe_stack_events(StackName=name)["StackEvents"]
            why = [e for e in events if "FAILED" in e["ResourceStatus"]]
            raise SystemExit(f"{name}: {stack['StackStatus']}: {json.dumps(why, default=str, indent=1)}")
        time.sleep(0.2)
    physical = {
        one["LogicalResourceId"]: one["PhysicalResourceId"]
        for one in cloudformation.describe_stack_resources(StackName=name)["StackResources"]
        if "PhysicalResourceId" in one
    }
    return {one["OutputKey"]: one["OutputValue"] for one in stack.get("Outputs", [])}, physical


# Words of the template that no API gives back: they order or describe the making, not the resource.
NOT_TOLD = {
    ("AWS::Lambda::Function", "Code"),
    ("AWS::KMS::Key", "PendingWindowInDays"),
}


def as_told(kind, wanted):
    """The template's properties in the shape that `described` uses: policies parsed, lists without order sorted, numbers as numbers."""
    shape = {}
    for name, value in wanted.items():
        if (kind, name) in NOT_TOLD:
            continue
        if name in ("PolicyDocument", "AssumeRolePolicyDocument", "KeyPolicy"):
            value = cfn.document(value)
        elif name == "Policies":
            value = [
                {"PolicyName": one["PolicyName"], "PolicyDocument": cfn.document(one["PolicyDocument"])}
                for one in sorted(value, key=lambda one: one["PolicyName"])
            ]
        elif name in ("SecurityGroupIngress", "SecurityGroupEgress"):
            value = described.by_text(value)
        elif name in ("RetentionInDays", "Threshold", "MemorySize"):
            value = int(value)
        elif name == "LifecycleConfiguration":
            value = json.loads(json.dumps(value))
            for rule in value["Rules"]:
                rule["NoncurrentVersionExpiration"]["NoncurrentDays"] = int(rule["NoncurrentVersionExpiration"]["NoncurrentDays"])
        shape[name] = value
    if kind == "AWS::EC2::RouteTable":
        shape["Gateways"] = ["local"]
    return shape


def differences(kind, wanted, found):
    """Names of the properties that are not as the template says, with both values."""
    for name, value in as_told(kind, wanted).items():
        if found.get(name) != value:
            yield name, value, found.get(name)


def own_policies(stack, role):
    """Policies that resources of their own put on a role."""
    return [
        {"PolicyName": one["PolicyName"], "PolicyDocument": one["PolicyDocument"]}
        for _, kind, one in stack.resources()
        if kind == "AWS::IAM::Policy" and role in one["Roles"]
    ]


def compare(who, stacks, codes):
    lacks, wrong, compared = set(), [], {}
    for clients, stack in stacks:
        for name, kind, wanted in stack.resources():
            if kind == "AWS::IAM::Role":
                # What is on the role counts, whichever resource put it there.
                wanted["Policies"] += own_policies(stack, wanted["RoleName"])
                wanted["ManagedPolicyArns"] = sorted(wanted.get("ManagedPolicyArns", []))
            count = compared.setdefault(kind, [0, 0])
            try:
                found = described.describe(clients, kind, wanted, stack.physical.get(name))
            except described.Failed as error:
                lacks.add(f"{kind} ({error})")
                continue
            if found is None:
                lacks.add(kind)
                continue
            count[0] += 1
            if kind == "AWS::Lambda::Function" and found["CodeSha256"] != codes:
                wrong.append(f"{stack.region} {name}: another code than was uploaded")
            count[1] += len(as_told(kind, wanted))
            for property, want, have in differences(kind, wanted, found):
                lacks.add(f"{kind}.{property}")
                if f"{kind}.{property}" not in LACKS[who] and kind not in LACKS[who]:
                    wrong.append(f"{stack.region} {name} {property}:\n    template {json.dumps(want)}\n    {who}     {json.dumps(have)}")
    for kind, (resources, properties) in sorted(compared.items()):
        print(f"{who}: {kind}: {resources} described, {properties} properties compared")
    for one in sorted(lacks):
        print(f"{who} lacks {one}" + (f": {LACKS[who][one]}" if one in LACKS[who] else ""))
    for one in wrong:
        print(f"WRONG {one}")
    for one in sorted(lacks - set(LACKS[who])):
        print(f"WRONG {who} lacks {one}, which is not in the list")
    for one in sorted(set(LACKS[who]) - lacks):
        print(f"WRONG {who} has {one} now: take it off the list")
    return wrong or lacks != set(LACKS[who])


def both(endpoint, infra, read, bootstrap):
    """Both stacks, DR first, as an operator does it; what they should be is read from `read`."""
    archive = zipped(bootstrap)
    dr_clients, source_clients = Clients(endpoint, DR), Clients(endpoint, SOURCE)
    dr_parameters, source_parameters = parameters_of_both()
    dr_parameters |= upload(dr_clients, ["settle-copies", "expire-copies", "audit-recovery"], archive)
    source_parameters |= upload(source_clients, ["copy-snapshots", "copy-hsm-backups"], archive)
    outputs, dr_physical = create(dr_clients, "tde2hsm-dr", infra / "dr.yaml", dr_parameters)
    source_parameters |= {
        "DrKmsKeyArn": outputs["CopiesKeyArn"],
        "RecordsBucket": outputs["RecordsBucketName"],
        "RecordsKeyArn": outputs["OperationsKeyArn"],
    }
    _, source_physical = create(source_clients, "tde2hsm-source", infra / "source.yaml", source_parameters)
    return archive, [
        (dr_clients, cfn.Stack(cfn.load(read / "dr.yaml"), DR, dr_parameters, dr_physical)),
        (source_clients, cfn.Stack(cfn.load(read / "source.yaml"), SOURCE, source_parameters, source_physical)),
    ]


def main():
    who, endpoint, infra, read, bootstrap = sys.argv[1:]
    archive, stacks = both(endpoint, Path(infra), Path(read), bootstrap)
    code = base64.b64encode(hashlib.sha256(archive).digest()).decode()
    sys.exit(1 if compare(who, stacks, code) else 0)


if __name__ == "__main__":
    main()
