"""Answers cost money: a kill must not repeat them, and a faulty endpoint must not lose them."""

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
    """An endpoint that counts its answers; an answer depends only on the picture."""

    def do_POST(self):
        body = self.rfile.read(int(self.headers["Content-Length"]))
        picture = json.loads(body)["messages"][0]["content"]
        with self.server.lock:
            self.server.running += 1
            self.server.most_parallel = max(self.server.most_parallel, self.server.running)
            request_number = self.server.request_number = self.server.request_number + 1
        time.sleep(0.3 if self.server.faulty and request_number % 7 == 0 else 0.02)
        # Of ten requests three fail, and the answer to another one is cut short.
        if self.server.faulty and request_number % 10 in (0, 3, 6):
            self.reply(503, b"busy")
        elif self.server.faulty and request_number % 10 == 8:
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
    server.lock, server.calls, server.faulty = threading.Lock(), 0, False
    server.running = server.most_parallel = server.request_number = 0
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    yield server
    server.shutdown()
    server.server_close()


def make_inputs(folder, n):
    """Write small images, all with gaze."""
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


def start_explaining(folder, server, name):
    url = f"http://127.0.0.1:{server.server_port}/v1"
    settings = ExplainSettings(backend="openai", model="scripted", url=url, batch_size=BATCH)
    options = {
        "prepared": folder / "prepared.h5", "gaze": folder / "gaze.h5",
        "prompt": ROOT / "workflow/prompts/generic.yaml", "output": folder / f"{name}.jsonl",
        "settings": settings.model_dump_json(),
        "endpoint": EndpointSettings(concurrency=4).model_dump_json(), "shard": 0, "shards": 1,
        "work": folder / f"work_{name}", "threads": 1, "gpus": 0,
    }  # fmt: skip
    command = [sys.executable, "-m", "stages.text.explain"]
    for option, value in options.items():
        command += [f"--{option}", str(value)]
    return subprocess.Popen(command, cwd=ROOT, stderr=subprocess.PIPE, text=True)


def merge(folder, name):
    options = {
        "prepared": folder / "prepared.h5", "gaze": folder / "gaze.h5",
        "answers": folder / f"{name}.jsonl", "output": folder / f"{name}.h5",
        "settings": '{"max_failed": 0}',
    }  # fmt: skip
    command = [sys.executable, "-m", "stages.text.texts"]
    for option, value in options.items():
        command += [f"--{option}", str(value)]
    subprocess.run(command, cwd=ROOT, check=True, capture_output=True)
    return (folder / f"{name}.h5").read_bytes()


def finish(process):
    _, printed = process.communicate(timeout=120)
    assert process.returncode == 0, printed


def test_a_kill_repeats_at_most_one_batch_and_changes_no_answer(tmp_path, server):
    folder = make_inputs(tmp_path, N)
    finish(start_explaining(folder, server, "undisturbed"))
    assert server.calls == N
    server.calls = 0

    rng = np.random.default_rng(0)
    for _ in range(KILLS):
        until = server.calls + int(rng.integers(1, 20))
        process = start_explaining(folder, server, "killed")
        while server.calls < until and process.poll() is None:
            time.sleep(0.002)
        time.sleep(rng.uniform(0, 0.05))
        os.kill(process.pid, signal.SIGKILL)
        process.communicate()
        assert process.returncode == -signal.SIGKILL
        assert not (folder / "killed.jsonl").exists()
    finish(start_explaining(folder, server, "killed"))
    assert N <= server.calls <= N + KILLS * BATCH
    assert merge(folder, "killed") == merge(folder, "undisturbed")


def test_a_faulty_endpoint_loses_and_repeats_no_answer(tmp_path, server):
    folder = make_inputs(tmp_path, 40)
    finish(start_explaining(folder, server, "calm"))
    server.faulty, server.calls, server.most_parallel = True, 0, 0
    finish(start_explaining(folder, server, "faulty"))
    assert server.calls == 40
    assert 2 <= server.most_parallel <= 4  # endpoint.concurrency
    assert merge(folder, "faulty") == merge(folder, "calm")
