"""A photograph's score over HTTP, to this machine alone: python examples/service.py CHECKPOINT 8000

$ curl --data-binary @photo.jpg http://127.0.0.1:8000
"""

import json
import re
import sys
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import eat


class Handler(BaseHTTPRequestHandler):
    timeout = 30  # seconds that a client may be silent

    def do_POST(self) -> None:
        length = self.headers["Content-Length"] or ""
        if not re.fullmatch(r"[1-9]\d{0,7}", length):
            return self.send_error(413, "expected a Content-Length of less than 100 MB")
        score = next(scorer(self.rfile.read(int(length))))
        answer = {"score": score.score, "votes": score.votes}
        body = json.dumps({"error": score.error} if score.error else answer).encode()
        self.send_response(422 if score.error else 200)
        self.send_header("Content-Type", "application/json")
        self.end_headers()
        self.wfile.write(body)


scorer = eat.Scorer(sys.argv[1], workers=1)  # threads share it
with ThreadingHTTPServer(("127.0.0.1", int(sys.argv[2])), Handler) as server:
    print(f"http://127.0.0.1:{server.server_port}", flush=True)
    server.serve_forever()
