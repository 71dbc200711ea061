"""Holds the roles of the templates to the calls of the functions, neither more nor fewer, and the alarms to the schedules.

    roles.py INFRA-DIRECTORY LAMBDAS-README JOBS-DIRECTORY PERMISSIONS

The calls are the table in the README; the code is held to the table by tests of its own. Those of a drill's operator are the
table in docs/permissions.md, to which a drill on the sandbox is held.
"""

import json
import re
import sys
from collections import defaultdict
from pathlib import Path

import cfn
import deploy

FUNCTIONS = {
    "source.yaml": {"copy-snapshots": "CopySnapshotsRole", "copy-hsm-backups": "CopyHsmBackupsRole"},
    "dr.yaml": {
        "settle-copies": "SettleCopiesRole",
        "expire-copies": "ExpireCopiesRole",
        "audit-recovery": "AuditRecoveryRole",
    },
}
OTHER_ROLES = {"source.yaml": {"TicksRole"}, "dr.yaml": {"TicksRole", "DrillHostRole", "DrillOperatorRole"}}
# What Lambda does in the function's name, whatever the function does; the last where it keeps what failed.
PLATFORM = {"logs:CreateLogStream", "logs:PutLogEvents"}
KEEP_WHAT_FAILED = {"sqs:SendMessage"}

# All inline policies of one role together, and one managed policy, white space left out; managed policies a role.
INLINE_LIMIT, MANAGED_LIMIT, MANAGED_A_ROLE = 10_240, 6_144, 10
# One parameter of a stack.
VALUE_LIMIT = 4_096
# CloudWatch looks back no further, in seconds.
ALARM_LIMIT = 86_400

# The job that each file of the jobs is.
JOBS = {
    "audit": "audit-recovery",
    "copy_hsm_backups": "copy-hsm-backups",
    "copy_snapshots": "copy-snapshots",
    "expire": "expire-copies",
    "settle": "settle-copies",
}


def table(readme):
    """function -> {(call, region or record)} from the table under `## Calls`."""
    calls = defaultdict(set)
    text = readme.split("## Calls", 1)[1].split("\n## ", 1)[0]
    for function, call, regions, resource in re.findall(r"^\| `([a-z-]+)` \| `([A-Za-z0-9:]+)` \| ([^|]+) \| (.+) \|$", text, re.MULTILINE):
        if call in ("s3:GetObject", "s3:PutObject", "s3:DeleteObject"):
            for record in re.findall(r"`records/([^`]+)`", resource):
                calls[function].add((call, record + "*" if record.endswith("/") else record))
        elif call == "s3:ListBucket":
            calls[function].add((call, ""))
        else:
            for region in regions.split(","):
                calls[function].add((call, region.strip()))
    return calls, keys(text)


def keys(text):
    """The rights on keys that AWS uses in the caller's name, as the paragraph below the table has them."""
    paragraph = text[text.index("Beside these") :]
    source, rest = paragraph.split("and the DR key", 1)
    dr, records = rest.split("both limited", 1)

    def named(part):
        return {"kms:" + name.removeprefix("kms:") for name in re.findall(r"`((?:kms:)?[A-Z][A-Za-z]+|kms:[A-Za-z]+)`", part)}

    return named(source.replace("copy-snapshots", "")), named(dr), named(records) - {"kms:ViaService"}


def of_operator(permissions):
    """The calls of `## The drill operator`."""
    section = permissions.split("## The drill operator", 1)[1].split("\n## ", 1)[0]
    first = re.findall(r"^\| (`[^|]+`) \|", section, re.MULTILINE)
    return {call for cell in first for call in re.findall(r"`([a-z0-9]+:[A-Za-z]+)`", cell)}


def listed(value):
    return value if isinstance(value, list) else [value]


def permissions(statement, names):
    """{(action, region or record)} of one statement."""
    found = set()
    asked = listed(statement.get("Condition", {}).get("StringEquals", {}).get("aws:RequestedRegion", []))
    for action in listed(statement["Action"]):
        for resource in listed(statement["Resource"]):
            if resource == "*":
                for region in asked or ["anywhere"]:
                    found.add((action, names.get(region, region)))
            elif resource.startswith("arn:aws:s3:::"):
                bucket, _, key = resource.removeprefix("arn:aws:s3:::").partition("/")
                found.add((action, key if bucket.startswith("tde2hsm-records-") else resource))
            else:
                region = resource.split(":")[3]
                found.add((action, names.get(region, region)))
    return found


def fleet_metrics(jobs):
    """Metric -> functions that emit it with no dimension beside the fleet."""
    emitted = defaultdict(set)
    for path in sorted(jobs.glob("*.rs")):
        for name in re.findall(r"""\.metric\(\s*"(\w+)",[^;]*?&\[\]\)""", path.read_text()):
            emitted[name].add(JOBS.get(path.stem))
    return emitted


def function_metrics(jobs):
    """Names of the metrics that every job emits with its own name as a dimension."""
    text = "".join(path.read_text() for path in sorted(jobs.parent.rglob("*.rs")))
    return set(re.findall(r"""\.metric\(\s*"(\w+)",[^;]*?&\[\(\s*"function",[^;]*?\)\]\)""", text))


def length(document):
    """As IAM counts: without white space."""
    return len(re.sub(r"\s", "", json.dumps(cfn.document(document))))


def managed(resources, role):
    """The managed policies that a role names, by the names of their resources."""
    arns = {f"arn:aws:iam::{cfn.ACCOUNT}:policy/{one['ManagedPolicyName']}": name
            for name, (kind, one) in resources.items() if kind == "AWS::IAM::ManagedPolicy"}
    return [arns[arn] for arn in role.get("ManagedPolicyArns", [])]


def of_secrets(how):
    """Parameters for estates of other sizes: `many` has forty secrets by their full ARNs and fifty keys, `pattern` one name for all."""
    names = [f"tde/oracle-host-{n:02}-keystore-AbCdEf" for n in range(40)] if how == "many" else ["tde/*"]
    of = [",".join(f"arn:aws:secretsmanager:{region}:{cfn.ACCOUNT}:secret:{name}" for name in names) for region in (deploy.SOURCE, deploy.DR)]
    keys = [",".join(f"arn:aws:kms:{region}:{cfn.ACCOUNT}:key/5f1c2a52-7f1e-4c4e-9a37-1d1b4b4d5e{n:02}" for n in range(50))
            for region in (deploy.SOURCE, deploy.DR)]
    return {"SecretArns": of[0], "ReplicaSecretArns": of[1]} | ({"SourceKmsKeyArns": keys[0], "SecretsKeyArns": keys[1]} if how == "many" else {})


def refused(template, parameters):
    """What CloudFormation would not take."""
    for name, declared in template["Parameters"].items():
        value = str(parameters.get(name, declared.get("Default")))
        if len(value) > VALUE_LIMIT:
            yield f"{name} has {len(value)} characters, more than the {VALUE_LIMIT} of a parameter"
        pattern = declared.get("AllowedPattern")
        listed_type = declared["Type"] == "CommaDelimitedList" or declared["Type"].startswith("List<")
        for one in value.split(",") if listed_type else [value]:
            if pattern and not re.fullmatch(pattern, one):
                yield f"{name}: {one} is not {pattern}"


def sizes(file, stack, how):
    """What IAM would not take, and the largest of the roles."""
    resources = {name: (kind, wanted) for name, kind, wanted in stack.resources()}
    wrong, largest = [], (0, "")
    for name, (kind, wanted) in resources.items():
        if kind == "AWS::IAM::ManagedPolicy" and length(wanted["PolicyDocument"]) > MANAGED_LIMIT:
            wrong.append(f"{file} with {how} secrets: {name} of {length(wanted['PolicyDocument'])} characters, more than {MANAGED_LIMIT}")
        if kind == "AWS::IAM::Role":
            policies = wanted["Policies"] + deploy.own_policies(stack, wanted["RoleName"])
            size = sum(length(one["PolicyDocument"]) for one in policies)
            largest = max(largest, (size, name))
            if size > INLINE_LIMIT:
                wrong.append(f"{file} with {how} secrets: {name}: policies of {size} characters, more than the {INLINE_LIMIT} that IAM takes")
            if len(managed(resources, wanted)) > MANAGED_A_ROLE:
                wrong.append(f"{name}: more than {MANAGED_A_ROLE} managed policies")
    print(f"{file} with {how} secrets: largest inline policies: {largest[1]}, {largest[0]} of {INLINE_LIMIT} characters")
    return wrong


def referred(value):
    """Names that a part of a template refers to."""
    if isinstance(value, list):
        return set().union(*map(referred, value))
    if not isinstance(value, dict):
        return set()
    found = set()
    for name, argument in value.items():
        if name == "Ref":
            found.add(argument)
        elif name == "Fn::GetAtt":
            found.add(argument[0])
        elif name == "Fn::Sub":
            found |= {one.split(".")[0] for one in re.findall(r"\$\{([A-Za-z0-9:.]+)\}", argument)}
        elif name == "Fn::If":
            found.add(f"condition {argument[0]}")
            found |= referred(argument[1:])
        else:
            found |= referred(argument)
    return {one for one in found if not one.startswith("AWS::")}


def seconds(rate):
    n, unit = re.fullmatch(r"rate\((\d+) (minute|hour|day)s?\)", rate).groups()
    return int(n) * {"minute": 60, "hour": 3600, "day": 86_400}[unit]


def alarms(resources, functions, emitted, each):
    """Whether each alarm can be reached by what the schedules run, and what none watches; the metrics of ours that are watched."""
    wrong, watched, of_function = [], [], defaultdict(set)
    every = {}
    for kind, wanted in resources.values():
        if kind == "AWS::Scheduler::Schedule":
            every[wanted["Target"]["Arn"].rsplit(":", 1)[1]] = seconds(wanted["ScheduleExpression"])
    for name, (kind, wanted) in resources.items():
        if kind != "AWS::CloudWatch::Alarm":
            continue
        metric, dimensions = wanted["MetricName"], {one["Name"]: one["Value"] for one in wanted["Dimensions"]}
        if wanted["Namespace"] == "AWS/SQS":
            # Letters stay for two weeks: an alarm on what lies there would be one for as long, and no news for the next.
            if metric != "NumberOfMessagesSent":
                wrong.append(f"{name} watches {metric}: it would stay in alarm for as long as a letter lies there")
            continue
        if wanted["Namespace"] == "AWS/Lambda":
            by = {dimensions["FunctionName"]}
            of_function[dimensions["FunctionName"]].add(metric)
        else:
            watched.append(metric)
            # An alarm on a metric that nobody emits never fires.
            if set(dimensions) == {"fleet", "function"} and metric in each and dimensions["function"] in functions:
                by = {f"tde2hsm-{dimensions['function']}"}
                of_function[f"tde2hsm-{dimensions['function']}"].add(metric)
            elif set(dimensions) == {"fleet"} and emitted.get(metric, set()) & set(functions):
                by = {f"tde2hsm-{one}" for one in emitted[metric] & set(functions)}
            else:
                wrong.append(f"{name} watches {metric} by {dimensions}, which no function emits here: {sorted(emitted)}, {sorted(each)}")
                continue
            if dimensions["fleet"] != "bank":
                wrong.append(f"{name}: {dimensions}")
        period, periods = wanted["Period"], wanted["EvaluationPeriods"]
        interval, need = min(every[one] for one in by), wanted.get("DatapointsToAlarm", periods)
        reached = periods if period >= interval else periods * period // interval
        if reached < need:
            wrong.append(f"{name} wants {need} of {periods} times {period} s, and what runs every {interval} s is seen in {reached} of them")
        if wanted["TreatMissingData"] == "breaching" and period <= interval:
            wrong.append(f"{name} takes the pause between two runs, {interval} s, for silence")
        if period * periods > ALARM_LIMIT:
            wrong.append(f"{name} looks back {period * periods} s, more than CloudWatch's {ALARM_LIMIT}")
    for function in functions:
        missing = {"Errors", "Invocations"} | {one for one in each if one == "CallsFailed"}
        for metric in sorted(missing - of_function[f"tde2hsm-{function}"]):
            wrong.append(f"nothing watches {metric} of {function}")
    return wrong, watched


def deliveries(resources, functions):
    """Who is woken by events has no letters: events that waited too long are no failure. Who is not, has."""
    wrong, woken = [], set()
    for kind, wanted in resources.values():
        if kind == "AWS::Events::Rule":
            woken |= {one["Arn"].rsplit(":", 1)[1] for one in wanted["Targets"]}
    for kind, wanted in resources.values():
        if kind == "AWS::Lambda::Function" and ("DeadLetterConfig" in wanted) == (wanted["FunctionName"] in woken):
            wrong.append(f"{wanted['FunctionName']}: woken by events and keeping letters of them, or neither")
    return wrong


def drill(resources, parameters, said_of_operator):
    """What a drill's host and operator must be able to do and must not, beyond what the sandbox asks of them."""
    wrong = []
    bucket = f"arn:aws:s3:::{parameters['ArtifactBucket']}"
    fetch = {("s3:ListBucket", bucket), ("s3:GetObject", bucket + "/*"), ("s3:GetObjectVersion", bucket + "/*")}
    host = resources["DrillHostRole"][1]["Policies"]
    for who, documents in (
        ("DrillHostRole", [one["PolicyDocument"] for one in host]),
        ("DrillS3Endpoint", [resources["DrillS3Endpoint"][1]["PolicyDocument"]]),
    ):
        statements = [one for document in documents for one in cfn.document(document)["Statement"] if one["Effect"] == "Allow"]
        may = {(action, resource) for one in statements for action in one["Action"] for resource in one["Resource"] if action.startswith("s3:")}
        if may != fetch:
            wrong.append(f"{who}: the agent fetches by {sorted(fetch)}, and may {sorted(may)}")
    # Keys of production that lie on a copied disk are of this account as well: only the drill host's own role is answered.
    only = {"ArnEquals": {"aws:PrincipalArn": [f"arn:aws:iam::{cfn.ACCOUNT}:role/{resources['DrillHostRole'][1]['RoleName']}"]}}
    for name, (kind, wanted) in resources.items():
        if kind == "AWS::EC2::VPCEndpoint" and wanted["VpcEndpointType"] == "Interface":
            for one in cfn.document(wanted["PolicyDocument"])["Statement"]:
                if one["Effect"] != "Allow" or one.get("Condition") != only:
                    wrong.append(f"{name} answers others than the drill host: {one.get('Condition')}")
    denied = set()
    for policy in resources["DrillOperatorRole"][1]["Policies"]:
        for one in cfn.document(policy["PolicyDocument"])["Statement"]:
            if one["Effect"] == "Deny" and one.get("Resource") == [parameters["ProtectedClusterArns"]] and "Condition" not in one:
                denied |= set(one["Action"])
    for action in ("cloudhsm:TagResource", "cloudhsm:DeleteHsm", "cloudhsm:DeleteCluster"):
        if action not in denied:
            wrong.append(f"DrillOperatorRole may {action} on a cluster that is protected")
    role = resources["DrillOperatorRole"][1]
    documents = [one["PolicyDocument"] for one in role["Policies"]] + [resources[name][1]["PolicyDocument"] for name in managed(resources, role)]
    statements = [one for document in documents for one in cfn.document(document)["Statement"] if one["Effect"] == "Allow"]
    may = {action for one in statements for action in listed(one["Action"])}
    print(f"{len(may)} calls of a drill's operator compared with the table")
    wrong += [f"a drill's operator may {call}, which the table does not have" for call in sorted(may - said_of_operator)]
    wrong += [f"a drill's operator calls {call}, which its role does not allow" for call in sorted(said_of_operator - may)]
    return wrong


def check(infra, readme, jobs, said_of_operator):
    wrong, watched, emitted, each = [], [], fleet_metrics(jobs), function_metrics(jobs)
    calls, (source_keys, dr_keys, record_keys) = table(readme)
    dr_parameters, source_parameters = deploy.parameters_of_both()
    code = {"CodeBucket": "code"}
    source_parameters |= {
        "DrKmsKeyArn": f"arn:aws:kms:{deploy.DR}:{cfn.ACCOUNT}:key/copies",
        "RecordsKeyArn": f"arn:aws:kms:{deploy.DR}:{cfn.ACCOUNT}:key/operations",
        "RecordsBucket": f"tde2hsm-records-{cfn.ACCOUNT}-{deploy.DR}",
    }
    names = {deploy.SOURCE: "source", deploy.DR: "DR"}
    count = 0
    for file, region, parameters in (("source.yaml", deploy.SOURCE, source_parameters), ("dr.yaml", deploy.DR, dr_parameters)):
        template = cfn.load(infra / file)
        for name in template["Parameters"]:
            if name.endswith(("Key", "Version")):
                code.setdefault(name, "1")
        physical = {name: name for name in template["Resources"]}
        stack = cfn.Stack(template, region, code | parameters, physical)
        resources = {name: (kind, wanted) for name, kind, wanted in stack.resources()}
        roles = {name for name, (kind, _) in resources.items() if kind == "AWS::IAM::Role"}
        if roles != set(FUNCTIONS[file].values()) | OTHER_ROLES[file]:
            wrong.append(f"{file}: roles that nobody accounts for: {sorted(roles)}")
        for how, other in (("two", {}), ("many", of_secrets("many")), ("pattern", of_secrets("pattern"))):
            given = code | parameters | other
            wrong += [f"{file} with {how} secrets: {one}" for one in refused(template, given)]
            wrong += sizes(file, cfn.Stack(template, region, given, physical), how)
        for name, resource in template["Resources"].items():
            # What stays after a failed first attempt would stand in the way of the second, by its name.
            if resource.get("DeletionPolicy", "RetainExceptOnCreate") != "RetainExceptOnCreate":
                wrong.append(f"{name}: DeletionPolicy {resource['DeletionPolicy']}")
        # What stays can be imported before the rest is made again: it refers to nothing of the rest.
        staying = {name: one for name, one in template["Resources"].items() if "DeletionPolicy" in one}
        for name, resource in staying.items():
            for other in sorted(referred(resource["Properties"]) - set(staying) - set(template["Parameters"])):
                wrong.append(f"{name} stays and refers to {other}, which does not")
        told, ours = alarms(resources, FUNCTIONS[file], emitted, each)
        watched += ours
        wrong += told + deliveries(resources, FUNCTIONS[file])
        if file == "dr.yaml":
            wrong += drill(resources, parameters, said_of_operator)
        for function, role in FUNCTIONS[file].items():
            wanted = resources[role][1]
            trusted = cfn.document(wanted["AssumeRolePolicyDocument"])["Statement"]
            if [one.get("Principal") for one in trusted] != [{"Service": ["lambda.amazonaws.com"]}]:
                wrong.append(f"{function}: trusted by {trusted}")
            policies = wanted["Policies"] + deploy.own_policies(stack, wanted["RoleName"])
            by_name = {one["PolicyName"]: cfn.document(one["PolicyDocument"])["Statement"] for one in policies}
            shared = managed(resources, wanted)
            by_name |= {one: cfn.document(resources[one][1]["PolicyDocument"])["Statement"] for one in shared}
            by_name["keys"] = sum((by_name.pop(one) for one in shared if one.endswith("SourceKeys")), by_name["keys"])
            shared = [one for one in shared if one in by_name]
            for one in (one for statements in by_name.values() for one in statements):
                if one["Effect"] != "Allow" or "NotAction" in one or "NotResource" in one:
                    wrong.append(f"{function}: {one}")
                # Not even a wrong program deletes what is not ours, or what somebody holds.
                ours = {"aws:ResourceTag/tde2hsm:token": ["false"], "aws:ResourceTag/tde2hsm:hold": ["true"]}
                # Nor does it touch a stage that AWS or anybody else put there.
                stages = one.get("Condition", {}).get("StringLike", {}).get("secretsmanager:VersionStage")
                if "secretsmanager:UpdateSecretVersionStage" in one["Action"] and stages != ["tde2hsm-*"]:
                    wrong.append(f"{function} may move any stage of a secret")
                deletes = {"ec2:DeleteSnapshot", "cloudhsm:DeleteBackup"} & set(one["Action"])
                if deletes and one["Condition"].get("Null") != ours:
                    wrong.append(f"{function} may {sorted(deletes)} without token, or in spite of a hold")
            has = set().union(*(permissions(one, names) for name in ("calls", "hosts", *shared) for one in by_name.get(name, [])))
            count += len(has)
            for call in sorted(has - calls[function]):
                wrong.append(f"{function} may {call}, which it does not call")
            for call in sorted(calls[function] - has):
                wrong.append(f"{function} calls {call}, which its role does not allow")
            platform = {action for one in by_name["platform"] for action in listed(one["Action"])}
            keeps = any(kind == "AWS::Lambda::Function" and one["FunctionName"] == wanted["RoleName"] and "DeadLetterConfig" in one
                        for kind, one in resources.values())
            if platform != PLATFORM | (KEEP_WHAT_FAILED if keeps else set()) or set(by_name) - {"calls", "hosts", "keys", "platform", *shared}:
                wrong.append(f"{function}: policies {sorted(by_name)}, platform {sorted(platform)}")
            for one in by_name["keys"]:
                bounds = one.get("Condition", {})
                via = bounds.get("StringEquals", {}).get("kms:ViaService")
                lent = bounds.get("Bool", {}).get("kms:GrantIsForAWSResource")
                if not via or ("kms:CreateGrant" in one["Action"] and lent != ["true"]) or "*" in one["Resource"]:
                    wrong.append(f"{function}: a key without bounds: {one}")
            used = defaultdict(set)
            for one in by_name["keys"]:
                for resource in one["Resource"]:
                    used["source" if resource.split(":")[3] == deploy.SOURCE else resource.rsplit("/", 1)[1]] |= set(one["Action"])
            expected = {"operations": record_keys}
            if function == "copy-snapshots":
                expected |= {"source": source_keys, "copies": dr_keys}
            found = {name.lower().replace("key", ""): actions for name, actions in used.items()}
            if found != expected:
                wrong.append(f"{function}: keys {found}, the README says {expected}")
    for function in calls.keys() - {name for names in FUNCTIONS.values() for name in names}:
        wrong.append(f"{function} is in the table and in no template")
    print(f"alarms watch {', '.join(watched)}")
    for metric in ("DatabasesBreached", "HostsUnseen", "InstancesSeen"):
        if metric not in watched:
            wrong.append(f"nothing watches {metric}")
    print(f"{count} permissions of {sum(map(len, FUNCTIONS.values()))} functions compared with the table")
    for one in wrong:
        print(f"WRONG {one}")
    return wrong


if __name__ == "__main__":
    sys.exit(1 if check(Path(sys.argv[1]), Path(sys.argv[2]).read_text(), Path(sys.argv[3]), of_operator(Path(sys.argv[4]).read_text())) else 0)
