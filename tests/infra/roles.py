"""Holds the roles of the templates to the calls of the functions: neither more nor fewer.

    roles.py INFRA-DIRECTORY LAMBDAS-README JOBS-DIRECTORY

The calls are the table in the README; the code is held to the table by tests of its own.
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
# What Lambda does in the function's name, whatever the function does.
PLATFORM = {"logs:CreateLogStream", "logs:PutLogEvents", "sqs:SendMessage"}

# All inline policies of one role together, white space left out.
INLINE_LIMIT = 10_240


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
    """Names of the metrics that the jobs emit with no dimension beside the fleet."""
    text = "".join(path.read_text() for path in sorted(jobs.glob("*.rs")))
    return set(re.findall(r"""\.metric\(\s*"(\w+)",[^;]*?&\[\]\)""", text))


def check(infra, readme, jobs):
    wrong, watched, emitted = [], [], fleet_metrics(jobs)
    largest = (0, "")
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
        for name in sorted(roles):
            policies = resources[name][1]["Policies"] + deploy.own_policies(stack, resources[name][1]["RoleName"])
            size = sum(len(re.sub(r"\s", "", json.dumps(cfn.document(one["PolicyDocument"])))) for one in policies)
            largest = max(largest, (size, name))
            if size > INLINE_LIMIT:
                wrong.append(f"{name}: policies of {size} characters, more than the {INLINE_LIMIT} that IAM takes")
        for name, (kind, wanted) in resources.items():
            # An alarm on a metric that nobody emits never fires.
            if kind == "AWS::CloudWatch::Alarm" and wanted["Namespace"] == "tde2hsm":
                watched.append(wanted["MetricName"])
                if wanted["MetricName"] not in emitted:
                    wrong.append(f"{name} watches {wanted['MetricName']}, which no function emits for the fleet: {sorted(emitted)}")
                if wanted["Dimensions"] != [{"Name": "fleet", "Value": "bank"}]:
                    wrong.append(f"{name}: {wanted['Dimensions']}")
        for function, role in FUNCTIONS[file].items():
            wanted = resources[role][1]
            trusted = cfn.document(wanted["AssumeRolePolicyDocument"])["Statement"]
            if [one.get("Principal") for one in trusted] != [{"Service": ["lambda.amazonaws.com"]}]:
                wrong.append(f"{function}: trusted by {trusted}")
            policies = wanted["Policies"] + deploy.own_policies(stack, wanted["RoleName"])
            by_name = {one["PolicyName"]: cfn.document(one["PolicyDocument"])["Statement"] for one in policies}
            for one in (one for statements in by_name.values() for one in statements):
                if one["Effect"] != "Allow" or "NotAction" in one or "NotResource" in one:
                    wrong.append(f"{function}: {one}")
            has = set().union(*(permissions(one, names) for name in ("calls", "hosts") for one in by_name.get(name, [])))
            count += len(has)
            for call in sorted(has - calls[function]):
                wrong.append(f"{function} may {call}, which it does not call")
            for call in sorted(calls[function] - has):
                wrong.append(f"{function} calls {call}, which its role does not allow")
            platform = {action for one in by_name["platform"] for action in listed(one["Action"])}
            if platform != PLATFORM or set(by_name) - {"calls", "hosts", "keys", "platform"}:
                wrong.append(f"{function}: policies {sorted(by_name)}, platform {sorted(platform)}")
            for one in by_name["keys"]:
                via = one["Condition"]["StringEquals"].get("kms:ViaService")
                lent = one["Condition"].get("Bool", {}).get("kms:GrantIsForAWSResource")
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
    print(f"largest inline policies: {largest[1]}, {largest[0]} of {INLINE_LIMIT} characters")
    print(f"alarms watch {', '.join(watched)}")
    if "DatabasesBreached" not in watched:
        wrong.append("nothing watches the recovery point objective")
    print(f"{count} permissions of {sum(map(len, FUNCTIONS.values()))} functions compared with the table")
    for one in wrong:
        print(f"WRONG {one}")
    return wrong


if __name__ == "__main__":
    sys.exit(1 if check(Path(sys.argv[1]), Path(sys.argv[2]).read_text(), Path(sys.argv[3])) else 0)
