"""A function of the tests: speaks Lambda's runtime API and does what its event says. No product is in it."""

import json
import os
import sys
import urllib.request

import boto3
from botocore.config import Config
from botocore.exceptions import ClientError

API = f"http://{os.environ['AWS_LAMBDA_RUNTIME_API']}/2018-06-01/runtime"
served = 0


def post(path, value):
    body = json.dumps(value).encode()
    urllib.request.urlopen(urllib.request.Request(f"{API}/{path}", data=body, method="POST")).read()


def call(what, region, **arguments):
    service, operation = what.split(":")
    client = boto3.client(service, region_name=region, config=Config(retries={"max_attempts": 1}))
    try:
        getattr(client, operation)(**arguments)
        return "ok"
    except ClientError as error:
        return error.response["Error"]["Code"]


if os.environ.get("TDE2HSM_FLEET") == "broken":
    post("init/error", {"errorType": "Config", "errorMessage": "broken"})
    sys.exit(1)
while True:
    with urllib.request.urlopen(f"{API}/invocation/next") as asked:
        ident, event = asked.headers["lambda-runtime-aws-request-id"], json.load(asked)
        arn = asked.headers["lambda-runtime-invoked-function-arn"]
    served += 1
    print(f"serving {ident}", flush=True)
    if event.get("do") == "die":
        os._exit(3)
    if event.get("do") == "fail":
        post(f"invocation/{ident}/error", {"errorType": "Wanted", "errorMessage": "as asked"})
        continue
    answer = {"handler": os.environ["_HANDLER"], "arn": arn, "served": served, "env": dict(os.environ)}
    if "call" in event:
        answer["called"] = call(event["call"], event["region"], **event.get("with", {}))
    post(f"invocation/{ident}/response", answer)
