"""What each resource is, asked through its own service's API and told in the template's words.

One function a type: it takes the clients and the physical id and answers the properties that the service says the
resource has. A resource that is not there is `None`. Nothing here reads the template.
"""

import ast
import json
import urllib.parse

from botocore.exceptions import ClientError
from cfn import ACCOUNT, document

GONE = {
    "AWS.SimpleQueueService.NonExistentQueue",
    "404",
    "InvalidGroup.NotFound",
    "InvalidRouteTableID.NotFound",
    "InvalidSubnetID.NotFound",
    "InvalidVpcID.NotFound",
    "NoSuchBucket",
    "NoSuchBucketPolicy",
    "NoSuchEntity",
    "NotFound",
    "NotFoundException",
    "QueueDoesNotExist",
    "ResourceNotFoundException",
}


def whole(value):
    return {key: item for key, item in value.items() if item is not None}


def tags(listed):
    return [{"Key": tag["Key"], "Value": tag["Value"]} for tag in listed or [] if not tag["Key"].startswith("aws:")] or None


def policy(text):
    if isinstance(text, str):
        try:
            text = json.loads(urllib.parse.unquote(text) if text.startswith("%7B") else text)
        except json.JSONDecodeError:
            # moto keeps a policy as Python prints it.
            text = ast.literal_eval(text)
    return text and document(text)


def role(c, wanted):
    name = wanted["RoleName"]
    found = c("iam").get_role(RoleName=name)["Role"]
    inline = [c("iam").get_role_policy(RoleName=name, PolicyName=one) for one in c("iam").list_role_policies(RoleName=name)["PolicyNames"]]
    return {
        "RoleName": found["RoleName"],
        "Description": found.get("Description"),
        "MaxSessionDuration": found.get("MaxSessionDuration"),
        "PermissionsBoundary": found.get("PermissionsBoundary", {}).get("PermissionsBoundaryArn"),
        "AssumeRolePolicyDocument": policy(found["AssumeRolePolicyDocument"]),
        "Policies": [
            {"PolicyName": one["PolicyName"], "PolicyDocument": policy(one["PolicyDocument"])}
            for one in sorted(inline, key=lambda one: one["PolicyName"])
        ],
        "ManagedPolicyArns": sorted(one["PolicyArn"] for one in c("iam").list_attached_role_policies(RoleName=name)["AttachedPolicies"]),
    }


def role_policy(c, wanted):
    found = c("iam").get_role_policy(RoleName=wanted["Roles"][0], PolicyName=wanted["PolicyName"])
    return {
        "PolicyName": found["PolicyName"],
        "Roles": [found["RoleName"]],
        "PolicyDocument": policy(found["PolicyDocument"]),
    }


def managed_policy(c, wanted):
    arn = f"arn:aws:iam::{ACCOUNT}:policy/{wanted['ManagedPolicyName']}"
    found = c("iam").get_policy(PolicyArn=arn)["Policy"]
    version = c("iam").get_policy_version(PolicyArn=arn, VersionId=found["DefaultVersionId"])["PolicyVersion"]
    return {
        "ManagedPolicyName": found["PolicyName"],
        "Description": found.get("Description"),
        "PolicyDocument": policy(version["Document"]),
    }


def instance_profile(c, wanted):
    found = c("iam").get_instance_profile(InstanceProfileName=wanted["InstanceProfileName"])["InstanceProfile"]
    return {
        "InstanceProfileName": found["InstanceProfileName"],
        "Roles": [one["RoleName"] for one in found["Roles"]],
    }


def key(c, wanted, physical):
    kms = c("kms")
    found = kms.describe_key(KeyId=physical)["KeyMetadata"]
    return {
        "Description": found["Description"],
        "EnableKeyRotation": kms.get_key_rotation_status(KeyId=physical)["KeyRotationEnabled"],
        "KeyPolicy": policy(kms.get_key_policy(KeyId=physical, PolicyName="default")["Policy"]),
    }


def alias(c, wanted):
    for page in c("kms").get_paginator("list_aliases").paginate():
        for one in page["Aliases"]:
            if one["AliasName"] == wanted["AliasName"]:
                return {"AliasName": one["AliasName"], "TargetKeyId": one.get("TargetKeyId")}
    return None


def queue(c, wanted, physical=None):
    sqs = c("sqs")
    url = sqs.get_queue_url(QueueName=wanted["QueueName"])["QueueUrl"]
    found = sqs.get_queue_attributes(QueueUrl=url, AttributeNames=["All"])["Attributes"]
    managed = found.get("SqsManagedSseEnabled")
    return {
        "QueueName": found["QueueArn"].rsplit(":", 1)[1],
        "SqsManagedSseEnabled": None if managed is None else managed.lower() == "true",
        "MessageRetentionPeriod": int(found["MessageRetentionPeriod"]),
    }


def queue_policy(c, wanted):
    url = wanted["Queues"][0]
    found = c("sqs").get_queue_attributes(QueueUrl=url, AttributeNames=["Policy"]).get("Attributes", {})
    if not found.get("Policy"):
        return None
    return {"Queues": [url], "PolicyDocument": policy(found["Policy"])}


def topic_attributes(c, arn):
    return c("sns").get_topic_attributes(TopicArn=arn)["Attributes"]


def topic(c, wanted, physical):
    found = topic_attributes(c, physical)
    return {"TopicName": found["TopicArn"].rsplit(":", 1)[1], "KmsMasterKeyId": found.get("KmsMasterKeyId")}


def topic_policy(c, wanted):
    arn = wanted["Topics"][0]
    return {"Topics": [arn], "PolicyDocument": policy(topic_attributes(c, arn).get("Policy"))}


def subscription(c, wanted):
    for one in c("sns").list_subscriptions_by_topic(TopicArn=wanted["TopicArn"])["Subscriptions"]:
        if one["Endpoint"] == wanted["Endpoint"]:
            return {"TopicArn": one["TopicArn"], "Protocol": one["Protocol"], "Endpoint": one["Endpoint"]}
    return None


def log_group(c, wanted):
    for one in c("logs").describe_log_groups(logGroupNamePrefix=wanted["LogGroupName"])["logGroups"]:
        if one["logGroupName"] == wanted["LogGroupName"]:
            return {
                "LogGroupName": one["logGroupName"],
                "RetentionInDays": one.get("retentionInDays"),
                "KmsKeyId": one.get("kmsKeyId"),
            }
    return None


def function(c, wanted):
    client = c("lambda")
    name = wanted["FunctionName"]
    found = client.get_function(FunctionName=name)
    now = found["Configuration"]
    logging = now.get("LoggingConfig")
    return {
        "FunctionName": now["FunctionName"],
        "Description": now.get("Description"),
        "Runtime": now["Runtime"],
        "Handler": now["Handler"],
        "Architectures": now.get("Architectures"),
        "Role": now["Role"],
        "MemorySize": now["MemorySize"],
        "Timeout": now["Timeout"],
        "ReservedConcurrentExecutions": found.get("Concurrency", {}).get("ReservedConcurrentExecutions"),
        "DeadLetterConfig": now.get("DeadLetterConfig") or None,
        "LoggingConfig": logging and {"LogFormat": logging.get("LogFormat"), "LogGroup": logging.get("LogGroup")},
        "Environment": {"Variables": {key: str(value) for key, value in now.get("Environment", {}).get("Variables", {}).items()}},
        "CodeSha256": now["CodeSha256"],
    }


def invoke_config(c, wanted):
    found = c("lambda").get_function_event_invoke_config(FunctionName=wanted["FunctionName"], Qualifier=wanted["Qualifier"])
    return {
        "FunctionName": found["FunctionArn"].split(":function:")[1].split(":")[0],
        "Qualifier": (found["FunctionArn"].split(":function:")[1].split(":") + ["$LATEST"])[1],
        "MaximumEventAgeInSeconds": found.get("MaximumEventAgeInSeconds"),
        "MaximumRetryAttempts": found.get("MaximumRetryAttempts"),
    }


def permission(c, wanted):
    text = c("lambda").get_policy(FunctionName=wanted["FunctionName"])["Policy"]
    for one in json.loads(text)["Statement"]:
        condition = one.get("Condition", {})
        source = condition.get("ArnLike", condition.get("ArnEquals", {})).get("AWS:SourceArn")
        if source is not None and source != wanted["SourceArn"]:
            continue
        principal = one["Principal"]
        return {
            "Action": one["Action"],
            "FunctionName": one["Resource"].split(":function:")[1],
            "Principal": principal["Service"] if isinstance(principal, dict) else principal,
            "SourceAccount": condition.get("StringEquals", {}).get("AWS:SourceAccount"),
            "SourceArn": source,
        }
    return None


def rule(c, wanted):
    events = c("events")
    found = events.describe_rule(Name=wanted["Name"])
    targets = events.list_targets_by_rule(Rule=wanted["Name"])["Targets"]
    return {
        "Name": found["Name"],
        "Description": found.get("Description"),
        "EventBusName": found.get("EventBusName"),
        "State": found["State"],
        "EventPattern": json.loads(found["EventPattern"]),
        "Targets": targets,
    }


def schedule(c, wanted):
    found = c("scheduler").get_schedule(Name=wanted["Name"], GroupName=wanted["GroupName"])
    target = found["Target"]
    return {
        "Name": found["Name"],
        "Description": found.get("Description"),
        "GroupName": found["GroupName"],
        "ScheduleExpression": found["ScheduleExpression"],
        "ScheduleExpressionTimezone": found.get("ScheduleExpressionTimezone"),
        "FlexibleTimeWindow": found["FlexibleTimeWindow"],
        "State": found["State"],
        "Target": target,
    }


def schedule_group(c, wanted):
    return {"Name": c("scheduler").get_schedule_group(Name=wanted["Name"])["Name"]}


def alarm(c, wanted):
    found = c("cloudwatch").describe_alarms(AlarmNames=[wanted["AlarmName"]])["MetricAlarms"]
    return {name: found[0].get(name) for name in wanted} if found else None


def bucket(c, wanted):
    s3, name = c("s3"), wanted["BucketName"]

    def ask(call, missing):
        try:
            return call(Bucket=name)
        except ClientError as error:
            if error.response["Error"]["Code"] == missing:
                return {}
            raise

    s3.head_bucket(Bucket=name)
    encryption = ask(s3.get_bucket_encryption, "ServerSideEncryptionConfigurationNotFoundError")
    access = ask(s3.get_public_access_block, "NoSuchPublicAccessBlockConfiguration")
    owner = ask(s3.get_bucket_ownership_controls, "OwnershipControlsNotFoundError").get("OwnershipControls", {})
    lifecycle = ask(s3.get_bucket_lifecycle_configuration, "NoSuchLifecycleConfiguration").get("Rules")
    return {
        "BucketName": name,
        "VersioningConfiguration": whole({"Status": s3.get_bucket_versioning(Bucket=name).get("Status")}),
        "BucketEncryption": {
            "ServerSideEncryptionConfiguration": [
                {
                    "BucketKeyEnabled": one.get("BucketKeyEnabled"),
                    "ServerSideEncryptionByDefault": one["ApplyServerSideEncryptionByDefault"],
                }
                for one in encryption["ServerSideEncryptionConfiguration"]["Rules"]
            ]
        }
        if encryption
        else None,
        "PublicAccessBlockConfiguration": access.get("PublicAccessBlockConfiguration"),
        "OwnershipControls": {"Rules": owner["Rules"]} if owner else None,
        "LifecycleConfiguration": {
            "Rules": [
                {
                    "Id": one["ID"],
                    "Status": one["Status"],
                    "NoncurrentVersionExpiration": one.get("NoncurrentVersionExpiration"),
                    "ExpiredObjectDeleteMarker": one.get("Expiration", {}).get("ExpiredObjectDeleteMarker"),
                    "AbortIncompleteMultipartUpload": one.get("AbortIncompleteMultipartUpload"),
                }
                for one in lifecycle
            ]
        }
        if lifecycle
        else None,
    }


def bucket_policy(c, wanted):
    return {"Bucket": wanted["Bucket"], "PolicyDocument": policy(c("s3").get_bucket_policy(Bucket=wanted["Bucket"])["Policy"])}


def vpc(c, wanted, physical):
    ec2 = c("ec2")
    found = ec2.describe_vpcs(VpcIds=[physical])["Vpcs"][0]

    def attribute(name):
        answer = ec2.describe_vpc_attribute(VpcId=physical, Attribute=name[0].lower() + name[1:])
        return answer[name]["Value"]

    return {
        "CidrBlock": found["CidrBlock"],
        "EnableDnsSupport": attribute("EnableDnsSupport"),
        "EnableDnsHostnames": attribute("EnableDnsHostnames"),
        "Tags": tags(found.get("Tags")),
    }


def route_table(c, wanted, physical):
    found = c("ec2").describe_route_tables(RouteTableIds=[physical])["RouteTables"][0]
    return {
        "VpcId": found["VpcId"],
        "Tags": tags(found.get("Tags")),
        # Beyond the template's words, since it is the point of the network: where it leads.
        "Gateways": [one.get("GatewayId") for one in found["Routes"] if not str(one.get("GatewayId")).startswith("vpce-")],
    }


def subnet(c, wanted, physical):
    found = c("ec2").describe_subnets(SubnetIds=[physical])["Subnets"][0]
    return {name: tags(found.get(name)) if name == "Tags" else found.get(name) for name in wanted}


def association(c, wanted):
    found = c("ec2").describe_route_tables(RouteTableIds=[wanted["RouteTableId"]])["RouteTables"][0]
    for one in found["Associations"]:
        if one.get("SubnetId") == wanted["SubnetId"]:
            return {"SubnetId": one["SubnetId"], "RouteTableId": one["RouteTableId"]}
    return None


def flattened(permissions):
    for one in permissions:
        base = whole({"IpProtocol": one["IpProtocol"], "FromPort": one.get("FromPort"), "ToPort": one.get("ToPort")})
        for block in one.get("IpRanges", []):
            yield whole({**base, "CidrIp": block["CidrIp"], "Description": block.get("Description")})
        for pair in one.get("UserIdGroupPairs", []):
            yield whole({**base, "SourceSecurityGroupId": pair["GroupId"], "Description": pair.get("Description")})
        for prefix in one.get("PrefixListIds", []):
            yield whole({**base, "DestinationPrefixListId": prefix["PrefixListId"], "Description": prefix.get("Description")})


def by_text(rules):
    return sorted(rules, key=lambda one: json.dumps(one, sort_keys=True))


def security_group(c, wanted, physical):
    found = c("ec2").describe_security_groups(GroupIds=[physical])["SecurityGroups"][0]
    return {
        "GroupName": found["GroupName"],
        "GroupDescription": found["Description"],
        "VpcId": found["VpcId"],
        "SecurityGroupIngress": by_text(flattened(found["IpPermissions"])),
        "SecurityGroupEgress": by_text(flattened(found["IpPermissionsEgress"])),
        "Tags": tags(found.get("Tags")),
    }


def endpoint(c, wanted, physical):
    found = c("ec2").describe_vpc_endpoints(VpcEndpointIds=[physical])["VpcEndpoints"]
    if not found:
        return None
    found = found[0]
    return {
        "VpcEndpointType": found.get("VpcEndpointType"),
        "ServiceName": found["ServiceName"],
        "VpcId": found["VpcId"],
        "SubnetIds": found.get("SubnetIds"),
        "RouteTableIds": found.get("RouteTableIds"),
        "SecurityGroupIds": [one["GroupId"] for one in found.get("Groups", [])],
        "PrivateDnsEnabled": found.get("PrivateDnsEnabled"),
        "PolicyDocument": policy(found.get("PolicyDocument")),
    }


BY_NAME = {
    "AWS::CloudWatch::Alarm": alarm,
    "AWS::EC2::SubnetRouteTableAssociation": association,
    "AWS::Events::Rule": rule,
    "AWS::IAM::InstanceProfile": instance_profile,
    "AWS::IAM::ManagedPolicy": managed_policy,
    "AWS::IAM::Policy": role_policy,
    "AWS::IAM::Role": role,
    "AWS::KMS::Alias": alias,
    "AWS::Lambda::EventInvokeConfig": invoke_config,
    "AWS::Lambda::Function": function,
    "AWS::Lambda::Permission": permission,
    "AWS::Logs::LogGroup": log_group,
    "AWS::S3::Bucket": bucket,
    "AWS::S3::BucketPolicy": bucket_policy,
    "AWS::SNS::Subscription": subscription,
    "AWS::SNS::TopicPolicy": topic_policy,
    "AWS::SQS::Queue": queue,
    "AWS::SQS::QueuePolicy": queue_policy,
    "AWS::Scheduler::Schedule": schedule,
    "AWS::Scheduler::ScheduleGroup": schedule_group,
}
BY_ID = {
    "AWS::EC2::RouteTable": route_table,
    "AWS::EC2::SecurityGroup": security_group,
    "AWS::EC2::Subnet": subnet,
    "AWS::EC2::VPC": vpc,
    "AWS::EC2::VPCEndpoint": endpoint,
    "AWS::KMS::Key": key,
    "AWS::SNS::Topic": topic,
}


class Failed(Exception):
    """The third party's own API broke when it was asked."""


def describe(clients, kind, wanted, physical):
    """The resource's properties, or `None` if it is not there."""
    try:
        if kind in BY_NAME:
            return BY_NAME[kind](clients, wanted)
        return BY_ID[kind](clients, wanted, physical)
    except ClientError as error:
        if error.response["Error"]["Code"] in GONE:
            return None
        if error.response["ResponseMetadata"]["HTTPStatusCode"] == 500:
            raise Failed(f"{error.operation_name} answers 500") from error
        raise
