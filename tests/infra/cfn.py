"""Reads a CloudFormation template and works out what its properties are, without CloudFormation.

What a third party made of a template is compared with what this makes of it: two readings of one text, by two hands.
"""

import json
import re

import yaml

ACCOUNT = "123456789012"


class _Loader(yaml.SafeLoader):
    pass


def _tag(loader, suffix, node):
    if isinstance(node, yaml.ScalarNode):
        value = loader.construct_scalar(node)
    elif isinstance(node, yaml.SequenceNode):
        value = loader.construct_sequence(node, deep=True)
    else:
        value = loader.construct_mapping(node, deep=True)
    if suffix in ("Ref", "Condition"):
        return {suffix: value}
    if suffix == "GetAtt" and isinstance(value, str):
        value = value.split(".", 1)
    return {"Fn::" + suffix: value}


_Loader.add_multi_constructor("!", _tag)
# A version such as 2012-10-17 is text, as CloudFormation has it.
_Loader.yaml_implicit_resolvers = {
    first: [(tag, regexp) for tag, regexp in resolvers if tag != "tag:yaml.org,2002:timestamp"]
    for first, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
}


def load(path):
    with open(path) as file:
        return yaml.load(file, _Loader)


NOTHING = object()


class Stack:
    """One template with its parameters, in one region, and the physical ids that a deployment gave."""

    def __init__(self, template, region, parameters, physical=None):
        self.template = template
        self.region = region
        self.physical = physical or {}
        self.parameters = {}
        for name, declared in template["Parameters"].items():
            value = parameters.get(name, declared.get("Default"))
            if value is None:
                raise ValueError(f"parameter {name} has no value")
            if declared["Type"] == "CommaDelimitedList" or declared["Type"].startswith("List<"):
                value = [part.strip() for part in value.split(",")]
            else:
                value = str(value)
            self.parameters[name] = value

    def resources(self):
        for name, resource in self.template["Resources"].items():
            if "Condition" not in resource or self.condition(resource["Condition"]):
                yield name, resource["Type"], self.resolve(resource.get("Properties", {}))

    def condition(self, name):
        return self.resolve(self.template["Conditions"][name])

    def ref(self, name):
        pseudo = {
            "AWS::Region": self.region,
            "AWS::AccountId": ACCOUNT,
            "AWS::Partition": "aws",
            "AWS::NoValue": NOTHING,
        }
        if name in pseudo:
            return pseudo[name]
        if name in self.parameters:
            return self.parameters[name]
        kind, properties = self._resource(name)
        if kind == "AWS::SNS::Topic":
            return f"arn:aws:sns:{self.region}:{ACCOUNT}:{self.resolve(properties['TopicName'])}"
        if kind == "AWS::IAM::ManagedPolicy":
            return f"arn:aws:iam::{ACCOUNT}:policy/{self.resolve(properties['ManagedPolicyName'])}"
        named = {
            "AWS::IAM::Role": "RoleName",
            "AWS::IAM::InstanceProfile": "InstanceProfileName",
            "AWS::Lambda::Function": "FunctionName",
            "AWS::Logs::LogGroup": "LogGroupName",
            "AWS::S3::Bucket": "BucketName",
            "AWS::Scheduler::ScheduleGroup": "Name",
        }
        if kind in named:
            return self.resolve(properties[named[kind]])
        return self.physical[name]

    def attribute(self, name, attribute):
        kind, properties = self._resource(name)
        here = f"{self.region}:{ACCOUNT}"
        known = {
            ("AWS::IAM::Role", "Arn"): lambda: f"arn:aws:iam::{ACCOUNT}:role/{self.ref(name)}",
            ("AWS::KMS::Key", "Arn"): lambda: f"arn:aws:kms:{here}:key/{self.ref(name)}",
            ("AWS::Lambda::Function", "Arn"): lambda: f"arn:aws:lambda:{here}:function:{self.ref(name)}",
            ("AWS::SQS::Queue", "Arn"): lambda: f"arn:aws:sqs:{here}:{self.resolve(properties['QueueName'])}",
            ("AWS::SQS::Queue", "QueueName"): lambda: self.resolve(properties["QueueName"]),
            ("AWS::Logs::LogGroup", "Arn"): lambda: f"arn:aws:logs:{here}:log-group:{self.ref(name)}:*",
            ("AWS::S3::Bucket", "Arn"): lambda: f"arn:aws:s3:::{self.ref(name)}",
            ("AWS::Events::Rule", "Arn"): lambda: f"arn:aws:events:{here}:rule/{self.resolve(properties['Name'])}",
            ("AWS::Scheduler::ScheduleGroup", "Arn"): lambda: f"arn:aws:scheduler:{here}:schedule-group/{self.ref(name)}",
        }
        return known[kind, attribute]()

    def _resource(self, name):
        resource = self.template["Resources"][name]
        return resource["Type"], resource.get("Properties", {})

    def resolve(self, value):
        if isinstance(value, list):
            resolved = [self.resolve(item) for item in value]
            return [item for item in resolved if item is not NOTHING]
        if not isinstance(value, dict):
            return value
        if len(value) == 1:
            ((function, argument),) = value.items()
            if function == "Ref":
                return self.ref(argument)
            if function == "Condition" and isinstance(argument, str):
                return self.condition(argument)
            if function.startswith("Fn::"):
                return self._function(function[4:], argument)
        resolved = {key: self.resolve(item) for key, item in value.items()}
        return {key: item for key, item in resolved.items() if item is not NOTHING}

    def _function(self, function, argument):
        if function == "GetAtt":
            return self.attribute(*argument)
        if function == "If":
            return self.resolve(argument[1] if self.condition(argument[0]) else argument[2])
        if function == "Sub":
            return re.sub(r"\$\{([A-Za-z0-9:.]+)\}", lambda m: self._variable(m.group(1)), argument)
        argument = self.resolve(argument)
        if function == "Join":
            return argument[0].join(argument[1])
        if function == "Select":
            return argument[1][int(argument[0])]
        if function == "Equals":
            return argument[0] == argument[1]
        if function == "Not":
            return not argument[0]
        if function == "And":
            return all(argument)
        raise ValueError(f"Fn::{function} is not known here")

    def _variable(self, name):
        if "." in name:
            return self.attribute(*name.split(".", 1))
        return self.ref(name)


def document(policy):
    """A policy as one shape: text parsed, single values in lists, numbers and truth values as the text that IAM keeps."""
    if isinstance(policy, str):
        policy = json.loads(policy)

    def listed(value):
        return value if isinstance(value, list) else [value]

    def statement(one):
        shape = {}
        for key, value in one.items():
            if key in ("Action", "NotAction", "Resource", "NotResource"):
                shape[key] = sorted(listed(value))
            elif key in ("Principal", "NotPrincipal") and isinstance(value, dict):
                shape[key] = {kind: sorted(listed(who)) for kind, who in value.items()}
            elif key == "Condition":
                shape[key] = {
                    operator: {name: sorted(str(v) for v in listed(values)) for name, values in tests.items()}
                    for operator, tests in value.items()
                }
            else:
                shape[key] = value
        return shape

    return {"Version": policy["Version"], "Statement": [statement(one) for one in listed(policy["Statement"])]}
