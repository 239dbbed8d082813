"""A job of paid-for answers that is killed again and again asks for next to nothing twice."""

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

from stages import io
from stages.settings.explain import ExplainSettings
from tests.workspace import ROOT

N, SIZE, BATCH, KILLS = 200, (32, 32), 8, 10


class Handler(BaseHTTPRequestHandler):
    """Answers what the picture alone decides, and counts."""

    def do_POST(self):
        body = self.rfile.read(int(self.headers["Content-Length"]))
        picture = json.loads(body)["messages"][0]["content"]
        time.sleep(0.02)
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
        answer = json.dumps({"choices": [choice], "system_fingerprint": "fp1"}).encode()
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(answer)))
        self.end_headers()
        self.wfile.write(answer)

    def log_message(self, *_):
        pass


@pytest.fixture
def server():
    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.lock, server.calls = threading.Lock(), 0
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    yield server
    server.shutdown()
    server.server_close()


@pytest.fixture
def chain(tmp_path):
    """Two hundred small images, each looked at."""
    rng = np.random.default_rng(0)
    ids = [f"image{i:03d}" for i in range(N)]
    with io.create_h5(tmp_path / "prepared.h5", "prepare", {}, {}) as file:
        file["image"] = rng.integers(0, 255, (N, *SIZE, 3), np.uint8)
        io.write_strings(file, "sample_id", ids)
    with io.create_h5(tmp_path / "gaze.h5", "gaze", {}, {}) as file:
        levels = np.zeros((N, 2, *SIZE), np.uint8)
        levels[:, :, 4:12, 4:12] = 1
        file["pseudomask"], file["has_gaze"] = levels, np.ones(N, bool)
        file["heatmap"] = levels[:, 0].astype(np.float16)
        io.write_strings(file, "sample_id", ids)
    return tmp_path


def start(chain, server, name):
    url = f"http://127.0.0.1:{server.server_port}/v1"
    settings = ExplainSettings(
        backend="openai", model="scripted", url=url, concurrency=4, batch_size=BATCH
    )
    options = {
        "prepared": chain / "prepared.h5", "gaze": chain / "gaze.h5",
        "prompt": ROOT / "workflow/prompts/generic.yaml", "output": chain / f"{name}.jsonl",
        "settings": settings.model_dump_json(), "shard": 0, "shards": 1,
        "work": chain / f"work_{name}", "threads": 1, "gpus": 0,
    }  # fmt: skip
    command = [sys.executable, "-m", "stages.explain"]
    for option, value in options.items():
        command += [f"--{option}", str(value)]
    return subprocess.Popen(command, cwd=ROOT, stderr=subprocess.PIPE, text=True)


def merge(chain, name):
    options = {
        "prepared": chain / "prepared.h5", "gaze": chain / "gaze.h5",
        "answers": chain / f"{name}.jsonl", "output": chain / f"{name}.h5",
        "settings": '{"max_failed": 0}',
    }  # fmt: skip
    command = [sys.executable, "-m", "stages.texts"]
    for option, value in options.items():
        command += [f"--{option}", str(value)]
    subprocess.run(command, cwd=ROOT, check=True, capture_output=True)
    return (chain / f"{name}.h5").read_bytes()


def finish(process):
    _, said = process.communicate(timeout=120)
    assert process.returncode == 0, said


def test_ten_kills_cost_at_most_a_batch_each_and_change_nothing(chain, server):
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
