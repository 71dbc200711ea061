#!/usr/bin/env python3
"""Checks recorded raw responses of the sandbox against botocore's service models (H50).

usage: check_responses.py FILE...

A file is what `sandbox up --record FILE` writes: one JSON object a line with service, operation, status, headers, body.
The models are the judge: types, required members, enum values, patterns, lengths, and members a model does not know. Exits 1
when anything is wrong, 2 when nothing was checked, because a check of nothing proves nothing.
"""

import base64
import datetime
import json
import re
import sys
import xml.etree.ElementTree as ET
from collections import Counter

import botocore.session

SERVICES = {
    "ssm": "ssm",
    "ec2": "ec2",
    "cloudhsm": "cloudhsmv2",
    "secretsmanager": "secretsmanager",
    "sts": "sts",
    "s3": "s3",
    "kms": "kms",
    "sns": "sns",
}

# Errors every service may give, though no operation models them.
COMMON_ERRORS = {
    "AccessDenied", "AccessDeniedException", "AuthFailure", "ExpiredToken", "ExpiredTokenException", "IncompleteSignature",
    "IncompleteSignatureException", "InternalError", "InternalFailure", "InvalidAccessKeyId", "InvalidAction", "InvalidClientTokenId",
    "InvalidSignatureException", "MissingAuthenticationToken", "MissingAuthenticationTokenException", "MissingParameter",
    "RequestExpired", "RequestLimitExceeded", "RequestTimeTooSkewed", "SerializationException", "SignatureDoesNotMatch", "SlowDown",
    "Throttling", "ThrottlingException", "UnauthorizedOperation", "UnknownOperationException", "UnrecognizedClientException",
    "ValidationException", "NotImplemented", "MethodNotAllowed", "InvalidToken", "NoSuchVersion", "IllegalLocationConstraintException",
    "BucketAlreadyOwnedByYou", "NoSuchBucket", "NoSuchKey", "PreconditionFailed",
}

# Members whose pattern contradicts their own documentation: an elapsed time is a duration (PT0.5S), the pattern wants a date.
PATTERN_EXCEPTIONS = {"ssm:GetCommandInvocation 200.ExecutionElapsedTime"}


class Problems(list):
    def add(self, where, what):
        self.append(f"{where}: {what}")


def check_text(shape, text, where, problems):
    meta = shape.metadata
    if "enum" in meta and text not in meta["enum"]:
        problems.add(where, f"{text!r} is not one of {meta['enum']}")
    low, high = meta.get("min"), meta.get("max")
    if low is not None and len(text) < low:
        problems.add(where, f"{text!r} is shorter than {low}")
    if high is not None and len(text) > high:
        problems.add(where, f"is {len(text)} long, the most is {high}")
    pattern = meta.get("pattern")
    if pattern is not None and where not in PATTERN_EXCEPTIONS:
        try:
            compiled = re.compile(pattern)
        except re.error:
            problems.skipped[pattern] += 1
            return
        # A model's pattern is searched for, unless it is anchored itself.
        if compiled.search(text) is None:
            problems.add(where, f"{text!r} does not match {pattern}")


def check_number(shape, number, where, problems):
    low, high = shape.metadata.get("min"), shape.metadata.get("max")
    if low is not None and number < low:
        problems.add(where, f"{number} is less than {low}")
    if high is not None and number > high:
        problems.add(where, f"{number} is more than {high}")


def check_count(shape, count, where, problems):
    low, high = shape.metadata.get("min"), shape.metadata.get("max")
    if low is not None and count < low:
        problems.add(where, f"has {count} members, the least is {low}")
    if high is not None and count > high:
        problems.add(where, f"has {count} members, the most is {high}")


def check_json(shape, value, where, problems):
    kind = shape.type_name
    if value is None:
        problems.add(where, "is null")
    elif kind == "structure":
        if not isinstance(value, dict):
            return problems.add(where, f"is {type(value).__name__}, not an object")
        for name in shape.required_members:
            if name not in value:
                problems.add(where, f"{name} is missing")
        for name, member in value.items():
            if name not in shape.members:
                problems.add(where, f"{name} is not a member of {shape.name}")
            else:
                check_json(shape.members[name], member, f"{where}.{name}", problems)
    elif kind == "list":
        if not isinstance(value, list):
            return problems.add(where, f"is {type(value).__name__}, not a list")
        check_count(shape, len(value), where, problems)
        for n, member in enumerate(value):
            check_json(shape.member, member, f"{where}[{n}]", problems)
    elif kind == "map":
        if not isinstance(value, dict):
            return problems.add(where, f"is {type(value).__name__}, not a map")
        check_count(shape, len(value), where, problems)
        for key, member in value.items():
            check_json(shape.key, key, f"{where} key", problems)
            check_json(shape.value, member, f"{where}[{key}]", problems)
    elif kind == "string":
        if not isinstance(value, str):
            return problems.add(where, f"is {type(value).__name__}, not a string")
        check_text(shape, value, where, problems)
    elif kind in ("integer", "long"):
        if isinstance(value, bool) or not isinstance(value, int):
            return problems.add(where, f"is {value!r}, not an integer")
        check_number(shape, value, where, problems)
    elif kind in ("float", "double", "timestamp"):
        if isinstance(value, bool) or not isinstance(value, (int, float)):
            return problems.add(where, f"is {value!r}, not a number")
    elif kind == "boolean":
        if not isinstance(value, bool):
            problems.add(where, f"is {value!r}, not a boolean")
    elif kind == "blob":
        try:
            base64.b64decode(value, validate=True)
        except (ValueError, TypeError):
            problems.add(where, "is not base64")
    else:
        problems.add(where, f"has the unknown type {kind}")


def local(element):
    return element.tag.rsplit("}", 1)[-1]


def check_scalar(shape, text, where, problems):
    kind = shape.type_name
    if kind == "string":
        check_text(shape, text, where, problems)
    elif kind in ("integer", "long"):
        if re.fullmatch(r"-?\d+", text):
            check_number(shape, int(text), where, problems)
        else:
            problems.add(where, f"is {text!r}, not an integer")
    elif kind in ("float", "double"):
        try:
            float(text)
        except ValueError:
            problems.add(where, f"is {text!r}, not a number")
    elif kind == "boolean":
        if text not in ("true", "false"):
            problems.add(where, f"is {text!r}, not a boolean")
    elif kind == "timestamp":
        try:
            datetime.datetime.fromisoformat(text.replace("Z", "+00:00"))
        except ValueError:
            try:
                datetime.datetime.strptime(text, "%a, %d %b %Y %H:%M:%S GMT")
            except ValueError:
                problems.add(where, f"is {text!r}, not a time")
    elif kind != "blob":
        problems.add(where, f"has the unknown type {kind}")


def check_xml(shape, element, where, problems, extra=()):
    kind = shape.type_name
    if kind == "structure":
        by_name = {}
        for name, member in shape.members.items():
            if member.serialization.get("location") in ("header", "headers", "statusCode"):
                continue
            wire = member.serialization.get("name", name)
            if member.type_name == "list" and member.serialization.get("flattened"):
                wire = member.member.serialization.get("name", wire)
                wire = member.serialization.get("name", wire)
            by_name[wire] = (name, member)
        seen = Counter()
        for child in element:
            wire = local(child)
            if wire in extra:
                continue
            if wire not in by_name:
                problems.add(where, f"<{wire}> is not a member of {shape.name}")
                continue
            name, member = by_name[wire]
            seen[name] += 1
            if member.type_name == "list" and member.serialization.get("flattened"):
                check_xml(member.member, child, f"{where}.{name}", problems)
            else:
                if seen[name] > 1:
                    problems.add(where, f"<{wire}> appears twice")
                check_xml(member, child, f"{where}.{name}", problems)
        for name in shape.required_members:
            if shape.members[name].serialization.get("location") is None and not seen[name]:
                problems.add(where, f"{name} is missing")
    elif kind == "list":
        wire = shape.member.serialization.get("name", "member")
        check_count(shape, len(element), where, problems)
        for n, child in enumerate(element):
            if local(child) != wire:
                problems.add(where, f"<{local(child)}> instead of <{wire}>")
            check_xml(shape.member, child, f"{where}[{n}]", problems)
    elif kind == "map":
        problems.add(where, "maps are not expected in XML here")
    else:
        if len(element):
            problems.add(where, f"has elements, a {kind} was expected")
        check_scalar(shape, element.text or "", where, problems)


def check_headers(shape, headers, where, problems):
    for name, member in shape.members.items():
        if member.serialization.get("location") != "header":
            continue
        value = headers.get(member.serialization.get("name", name).lower())
        if value is None:
            if name in shape.required_members:
                problems.add(where, f"header {name} is missing")
        else:
            check_scalar(member, value, f"{where}.{name}", problems)


def check_error(model, record, code, message, where, problems):
    if not code:
        return problems.add(where, "an error without a code")
    if record["service"] == "ec2":
        # EC2 models no errors; its codes are words in CamelCase, with dots.
        if not re.fullmatch(r"[A-Z][A-Za-z]+(\.[A-Za-z]+)?", code):
            problems.add(where, f"{code!r} is no error code")
    elif code not in COMMON_ERRORS:
        known = {shape.metadata.get("error", {}).get("code", shape.name) for shape in model.error_shapes} if model else set()
        known |= {shape.name for shape in model.error_shapes} if model else set()
        if code not in known:
            problems.add(where, f"{code!r} is not an error of this operation, which has {sorted(known)}")
    shape = next((s for s in model.error_shapes if s.name == code), None) if model else None
    has_message = shape is None or any(name.lower() == "message" for name in shape.members)
    if has_message and not isinstance(message, str) and record["service"] != "s3":
        problems.add(where, "an error without a message")


def check(record, model, problems):
    where = f"{record['service']}:{record['operation']} {record['status']}"
    operation = model.operation_model(record["operation"]) if record["operation"] in model.operation_names else None
    failed = record["status"] >= 300
    body = record["body"]
    if operation is None and not failed:
        return problems.add(where, "an answer to an operation the model does not know")
    protocol = "json" if record["headers"].get("content-type", "").startswith("application/x-amz-json") else "xml"
    if protocol == "json":
        try:
            value = json.loads(body)
        except ValueError as error:
            return problems.add(where, f"no JSON: {error}")
        if failed:
            code = value.get("__type", "").rsplit("#", 1)[-1]
            check_error(operation, record, code, value.get("message", value.get("Message")), where, problems)
            shape = next((s for s in operation.error_shapes if s.name == code), None) if operation else None
            if shape is not None:
                check_json(shape, {k: v for k, v in value.items() if k != "__type"}, where, problems)
        elif operation.output_shape is not None:
            check_json(operation.output_shape, value, where, problems)
        elif value:
            problems.add(where, "an answer where the model has none")
        return
    if failed and not body:
        return  # an answer to HEAD
    shape = operation.output_shape if operation else None
    if not failed and shape is not None and record["service"] == "s3":
        check_headers(shape, record["headers"], where, problems)
        if "payload" in shape.serialization or not body:
            return
    if not failed and shape is None:
        return
    if not body:
        return problems.add(where, "an empty body")
    try:
        root = ET.fromstring(body)
    except ET.ParseError as error:
        return problems.add(where, f"no XML: {error}")
    if failed:
        error = root if local(root) == "Error" else next((e for e in root.iter() if local(e) == "Error"), None)
        parts = {local(child): child.text or "" for child in error} if error is not None else {}
        check_error(operation, record, parts.get("Code"), parts.get("Message"), where, problems)
        return
    if record["service"] == "s3":
        if record["operation"] == "GetBucketLocation":
            if root.text:
                check_scalar(shape.members["LocationConstraint"], root.text, where, problems)
            return
        check_xml(shape, root, where, problems)
        return
    if local(root) != f"{record['operation']}Response":
        problems.add(where, f"the root is <{local(root)}>")
    wrapper = shape.serialization.get("resultWrapper")
    if wrapper:
        root = next((child for child in root if local(child) == wrapper), root)
    check_xml(shape, root, where, problems, extra=("requestId", "ResponseMetadata"))


def main(paths):
    session = botocore.session.get_session()
    models = {}
    counts, problems = Counter(), Problems()
    problems.skipped = Counter()
    for path in paths:
        with open(path, encoding="utf-8") as lines:
            for number, line in enumerate(lines, 1):
                record = json.loads(line)
                name = SERVICES.get(record["service"])
                if name is None:
                    problems.add(f"{path}:{number}", f"unknown service {record['service']}")
                    continue
                if name not in models:
                    models[name] = session.get_service_model(name)
                before = len(problems)
                check(record, models[name], problems)
                problems[before:] = [f"{path}:{number}: {text}" for text in problems[before:]]
                counts[f"{record['service']}:{record['operation']}"] += 1
    for text in problems[:200]:
        print(text)
    total = sum(counts.values())
    print(f"{total} responses of {len(counts)} operations checked, {len(problems)} problems", end="")
    print(f", patterns that Python cannot read: {sorted(problems.skipped)}" if problems.skipped else "")
    if not total:
        return 2
    return 1 if problems else 0


if __name__ == "__main__":
    if len(sys.argv) < 2:
        sys.exit(__doc__)
    sys.exit(main(sys.argv[1:]))
