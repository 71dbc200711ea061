"""Between functions that another hosts and the sandbox: signs their requests again with a key that the sandbox knows.

MiniStack gives a function its account's number for a key, which no sandbox issued. Nothing else of a request is changed; what
was called is kept, by function where the request says so.
"""

import http.client
import re
import threading
from collections import Counter
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import urlsplit

from botocore.auth import S3SigV4Auth, SigV4Auth
from botocore.awsrequest import AWSRequest
from botocore.credentials import Credentials

SIGNED = {"authorization", "x-amz-date", "x-amz-security-token", "host", "content-length", "connection"}


class Relay:
    def __init__(self, sandbox, access, secret):
        self.sandbox, self.credentials = urlsplit(sandbox), Credentials(access, secret)
        self.calls = Counter()
        relay = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def log_message(self, *_):
                pass

            def handle_any(self):
                relay.forward(self)

            do_GET = do_PUT = do_POST = do_DELETE = do_HEAD = handle_any

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.server.daemon_threads = True
        self.endpoint = f"http://127.0.0.1:{self.server.server_address[1]}"
        threading.Thread(target=self.server.serve_forever, daemon=True).start()

    def forward(self, request):
        length = int(request.headers.get("content-length") or 0)
        body = request.rfile.read(length)
        scope = re.search(r"Credential=[^/]+/\d+/([^/]+)/([^/]+)/", request.headers.get("authorization", ""))
        if scope is None:
            request.send_error(403, "not signed")
            return
        region, service = scope.groups()
        headers = {name: value for name, value in request.headers.items() if name.lower() not in SIGNED}
        again = AWSRequest(request.command, f"http://{self.sandbox.netloc}{request.path}", headers=headers, data=body)
        (S3SigV4Auth if service == "s3" else SigV4Auth)(self.credentials, service, region).add_auth(again)
        self.calls[service, region] += 1
        connection = http.client.HTTPConnection(self.sandbox.netloc, timeout=60)
        connection.putrequest(request.command, request.path, skip_host=True, skip_accept_encoding=True)
        connection.putheader("Host", self.sandbox.netloc)
        for name, value in again.headers.items():
            connection.putheader(name, value)
        connection.putheader("Content-Length", str(len(body)))
        connection.endheaders(body)
        answer = connection.getresponse()
        content = answer.read()
        request.send_response(answer.status)
        for name, value in answer.getheaders():
            if name.lower() not in ("content-length", "connection", "transfer-encoding", "date", "server"):
                request.send_header(name, value)
        told = answer.getheader("content-length") if request.command == "HEAD" else None
        request.send_header("Content-Length", told or str(len(content)))
        request.end_headers()
        request.wfile.write(content)
        connection.close()
