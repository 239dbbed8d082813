"""Answers that are paid for: not asked for twice after a kill, and not lost to a bad endpoint."""

import json
import os
import signal
import subprocess
import sys
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import numpy as np
import pytest

from stages.core import io
from stages.settings.explain import EndpointSettings, ExplainSettings
from tests.workspace import ROOT

N, SIZE, BATCH, KILLS = 200, (32, 32), 8, 10


class Handler(BaseHTTPRequestHandler):
    """Answers what the picture alone decides, and counts."""

    def do_POST(self):
        body = self.rfile.read(int(self.headers["Content-Length"]))
        picture = json.loads(body)["messages"][0]["content"]
        with self.server.lock:
            self.server.running += 1
            self.server.most = max(self.server.most, self.server.running)
            turn = self.server.turn = self.server.turn + 1
        time.sleep(0.3 if self.server.wild and turn % 7 == 0 else 0.02)
        # Three of ten fail, and one more is cut short.
        if self.server.wild and turn % 10 in (0, 3, 6):
            self.reply(503, b"busy")
        elif self.server.wild and turn % 10 == 8:
            self.reply(200, b'{"choices": [{"mess')
        else:
            self.reply(200, self.answer(picture))
        with self.server.lock:
            self.server.running -= 1

    def answer(self, picture):
        area = sum(json.dumps(picture).encode()) % 100
        text = json.dumps(
            {
                "Location": "upper left",
                "Boundary": "lost in the surroundings",
                "Characteristics": "round, homogeneous",
                "Area Percentage": area,
                "Confidence": "high",
                "Remarks": "Nothing else.",
            }
        )
        choice = {"message": {"role": "assistant", "content": text}, "finish_reason": "stop"}
        with self.server.lock:
            self.server.calls += 1
        return json.dumps({"choices": [choice], "system_fingerprint": "fp1"}).encode()

    def reply(self, status, body):
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_):
        pass


@pytest.fixture
def server():
    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.lock, server.calls, server.wild = threading.Lock(), 0, False
    server.running = server.most = server.turn = 0
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    yield server
    server.shutdown()
    server.server_close()


def make(folder, n):
    """Write small images, each looked at."""
    rng = np.random.default_rng(0)
    ids = [f"image{i:03d}" for i in range(n)]
    with io.create_h5(folder / "prepared.h5", "prepare", {}, {}) as file:
        file["image"] = rng.integers(0, 255, (n, *SIZE, 3), np.uint8)
        io.write_strings(file, "sample_id", ids)
    with io.create_h5(folder / "gaze.h5", "gaze", {}, {}) as file:
        levels = np.zeros((n, 2, *SIZE), np.uint8)
        levels[:, :, 4:12, 4:12] = 1
        file["pseudomask"], file["has_gaze"] = levels, np.ones(n, bool)
        file["heatmap"] = levels[:, 0].astype(np.float16)
        io.write_strings(file, "sample_id", ids)
    return folder


def start(chain, server, name):
    url = f"http://127.0.0.1:{server.server_port}/v1"
    settings = ExplainSettings(backend="openai", model="scripted", url=url, batch_size=BATCH)
    options = {
        "prepared": chain / "prepared.h5", "gaze": chain / "gaze.h5",
        "prompt": ROOT / "workflow/prompts/generic.yaml", "output": chain / f"{name}.jsonl",
        "settings": settings.model_dump_json(),
        "endpoint": EndpointSettings(concurrency=4).model_dump_json(), "shard": 0, "shards": 1,
        "work": chain / f"work_{name}", "threads": 1, "gpus": 0,
    }  # fmt: skip
    command = [sys.executable, "-m", "stages.text.explain"]
    for option, value in options.items():
        command += [f"--{option}", str(value)]
    return subprocess.Popen(command, cwd=ROOT, stderr=subprocess.PIPE, text=True)


def merge(chain, name):
    options = {
        "prepared": chain / "prepared.h5", "gaze": chain / "gaze.h5",
        "answers": chain / f"{name}.jsonl", "output": chain / f"{name}.h5",
        "settings": '{"max_failed": 0}',
    }  # fmt: skip
    command = [sys.executable, "-m", "stages.text.texts"]
    for option, value in options.items():
        command += [f"--{option}", str(value)]
    subprocess.run(command, cwd=ROOT, check=True, capture_output=True)
    return (chain / f"{name}.h5").read_bytes()


def finish(process):
    _, said = process.communicate(timeout=120)
    assert process.returncode == 0, said


def test_ten_kills_cost_at_most_a_batch_each_and_change_nothing(tmp_path, server):
    chain = make(tmp_path, N)
    finish(start(chain, server, "undisturbed"))
    assert server.calls == N
    server.calls = 0

    rng = np.random.default_rng(0)
    for _ in range(KILLS):
        until = server.calls + int(rng.integers(1, 20))
        process = start(chain, server, "killed")
        while server.calls < until and process.poll() is None:
            time.sleep(0.002)
        time.sleep(rng.uniform(0, 0.05))
        os.kill(process.pid, signal.SIGKILL)
        process.communicate()
        assert process.returncode == -signal.SIGKILL
        assert not (chain / "killed.jsonl").exists()
    finish(start(chain, server, "killed"))
    assert N <= server.calls <= N + KILLS * BATCH
    assert merge(chain, "killed") == merge(chain, "undisturbed")


def test_an_endpoint_that_misbehaves_costs_time_and_no_answer(tmp_path, server):
    chain = make(tmp_path, 40)
    finish(start(chain, server, "calm"))
    server.wild, server.calls, server.most = True, 0, 0
    finish(start(chain, server, "wild"))
    assert server.calls == 40
    assert 2 <= server.most <= 4  # endpoint.concurrency
    assert merge(chain, "wild") == merge(chain, "calm")
