"""Answers of a model, and an endpoint on loopback that sends them and counts the requests."""

import json
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import SimpleNamespace


def valid_answer(prompt):
    """Return the fields of an answer that a prompt allows."""
    return {
        "Location": "upper left",
        "Boundary": prompt.boundary[0],
        "Characteristics": [words[0] for words in prompt.characteristics.values()],
        "Area Percentage": 12,
        "Confidence": prompt.confidence[0],
        "Remarks": "It stands out.",
    }


def completion(text, *, end="stop", **beside):
    message = {"role": "assistant", "content": text}
    return {"choices": [{"index": 0, "message": message, "finish_reason": end}], **beside}


def scripted(*answers):
    """Answer the requests with `answers` in turn, and all further requests with the last."""
    left = list(answers)
    return lambda asked: left.pop(0) if len(left) > 1 else left[0]


def error(message, **beside):
    return json.dumps({"error": {"message": message, **beside}}).encode()


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_POST(self):
        stub = self.server.stub
        with stub.lock:
            stub.running += 1
            stub.most = max(stub.most, stub.running)
        try:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            asked = SimpleNamespace(
                path=self.path, headers=dict(self.headers), fields=json.loads(body)
            )
            asked.text = asked.fields["messages"][0]["content"][0]["text"]
            with stub.lock:
                stub.requests.append(asked)
            answer = stub.answer(asked)
        finally:
            with stub.lock:
                stub.running -= 1
        self.send(answer)

    def do_CONNECT(self):
        self.server.stub.requests.append(
            SimpleNamespace(path=self.path, headers=dict(self.headers))
        )
        self.send((403, {}, b""))

    def send(self, answer):
        """Send the fields of a completion, a tuple (status, headers, body), or raw bytes."""
        if isinstance(answer, dict):
            answer = 200, {}, json.dumps(answer).encode()
        try:
            if isinstance(answer, bytes):
                self.wfile.write(answer)
                self.close_connection = True
                return
            status, headers, body = answer
            self.send_response(status)
            for name, value in {"Content-Length": str(len(body)), **headers}.items():
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(body)
        except OSError:
            # The client gave up, as some tests want.
            self.close_connection = True

    def log_message(self, *_):
        pass


class Server(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 64

    def handle_error(self, request, client_address):
        if not self.stub.quiet:
            super().handle_error(request, client_address)
