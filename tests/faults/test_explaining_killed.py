"""Answers cost money: a kill must not repeat them, and a faulty endpoint must not lose them."""

import json
import os
import signal
import subprocess
import sys
import threading
import time
from itertools import cycle

import h5py
import numpy as np
import pytest

from stages.core import io
from stages.settings.explain import EndpointSettings, ExplainSettings
from tests.loopback import completion, error
from tests.workspace import ROOT

N, SIZE, BATCH, KILLS = 200, (32, 32), 8, 10


class Endpoint:
    """An endpoint that counts its valid answers; an answer depends only on the picture."""

    def __init__(self):
        self.calls, self.n_requests, self.faulty = 0, 0, False
        self.lock = threading.Lock()

    def __call__(self, asked):
        with self.lock:
            number = self.n_requests = self.n_requests + 1
        time.sleep(0.3 if self.faulty and number % 7 == 0 else 0.02)
        # Of ten requests three fail, and the answer to another one is cut short.
        if self.faulty and number % 10 in (0, 3, 6):
            return 503, {}, b"busy"
        if self.faulty and number % 10 == 8:
            return 200, {}, b'{"choices": [{"mess'
        with self.lock:
            self.calls += 1
        return completion(valid_text(area_of(asked)), system_fingerprint="fp1")


def picture_of(asked):
    return asked.fields["messages"][0]["content"][1]["image_url"]["url"]


def area_of(asked):
    """Return a number from 0 to 98 that depends on the picture."""
    return sum(picture_of(asked).encode()) % 99


def valid_text(area):
    return json.dumps(
        {
            "Location": "upper left",
            "Boundary": "lost in the surroundings",
            "Characteristics": "round, homogeneous",
            "Area Percentage": area,
            "Confidence": "high",
            "Remarks": "Nothing else.",
        }
    )


@pytest.fixture
def server(serve):
    return serve(Endpoint())


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
    settings = ExplainSettings(backend="openai", model="m", url=server.url, batch_size=BATCH)
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
    assert server.answer.calls == N
    server.answer.calls = 0

    rng = np.random.default_rng(0)
    for _ in range(KILLS):
        until = server.answer.calls + int(rng.integers(1, 20))
        process = start_explaining(folder, server, "killed")
        while server.answer.calls < until and process.poll() is None:
            time.sleep(0.002)
        time.sleep(rng.uniform(0, 0.05))
        os.kill(process.pid, signal.SIGKILL)
        process.communicate()
        assert process.returncode == -signal.SIGKILL
        assert not (folder / "killed.jsonl").exists()
    finish(start_explaining(folder, server, "killed"))
    assert N <= server.answer.calls <= N + KILLS * BATCH
    assert merge(folder, "killed") == merge(folder, "undisturbed")


def test_a_faulty_endpoint_loses_and_repeats_no_answer(tmp_path, server):
    folder = make_inputs(tmp_path, 40)
    finish(start_explaining(folder, server, "calm"))
    server.answer.faulty, server.answer.calls, server.most = True, 0, 0
    finish(start_explaining(folder, server, "faulty"))
    assert server.answer.calls == 40
    assert 2 <= server.most <= 4  # endpoint.concurrency
    assert merge(folder, "faulty") == merge(folder, "calm")


def draft(text, *, end="stop", **message):
    """Return an answer whose area, 99 percent, belongs to no picture."""
    answer = completion(text.replace("DRAFT", valid_text(99)), end=end)
    answer["choices"][0]["message"] |= message
    return answer


def forms(text):
    """Return, for each form of answers, all that an endpoint says about one picture."""
    valid, part = completion(text), {"type": "text", "text": text}
    thinking = {"type": "thinking", "thinking": [{"type": "text", "text": valid_text(99)}]}
    return [
        [valid],
        [completion([part])],
        [completion([thinking, part])],
        [completion([{"type": "text", "text": text[:20]}, {"type": "text", "text": text[20:]}])],
        [completion(f"<think>{valid_text(99)}</think>{text}")],
        [completion(f"```json\n{text}\n```", end="eos_token")],
        [draft("<think>DRAFT but", end="length"), valid],
        [draft("DRAFT But", end="length"), valid],
        [draft("<reasoning>DRAFT hmm", end="length"), valid],
        [draft("<think>x</think><think>DRAFT but", end="length"), valid],
        [draft("<reflection>DRAFT"), draft("DRAFT", end="max_tokens"), valid],
        [draft("", reasoning_content=valid_text(99)), valid],
        [completion(None), valid],
        [draft("DRAFT", end="error"), valid],
        [(503, {}, b"busy"), valid],
        [{"error": {"message": "busy", "code": 429}}, valid],
        [(200, {}, b'{"choices": [{"mess'), valid],
    ]


def test_an_answer_in_any_form_is_read_with_no_more_requests_than_needed(tmp_path, serve):
    """The endpoint also has another name for max_tokens, and no seed."""
    n_forms = len(forms(""))
    numbers, said, lock = cycle(range(n_forms)), {}, threading.Lock()
    refusals = []

    def answer(asked):
        time.sleep(0.01)
        with lock:
            for field in ("max_tokens", "seed"):
                if field in asked.fields:
                    refusals.append(field)
                    return 400, {}, error(f"no {field}", param=field)
            picture = picture_of(asked)
            if picture not in said:
                said[picture] = forms(valid_text(area_of(asked)))[next(numbers)]
            return said[picture].pop(0)

    server = serve(answer)
    folder = make_inputs(tmp_path, 2 * n_forms)
    finish(start_explaining(folder, server, "forms"))
    merge(folder, "forms")

    assert len(said) == 2 * n_forms and not any(said.values())
    n_needed = 2 * sum(map(len, forms("")))
    assert len(server.requests) == n_needed + len(refusals)
    # Each of the first four questions, which are asked at once, may meet both refusals.
    assert 2 <= len(refusals) <= 2 * 4
    assert 2 <= server.most <= 4  # endpoint.concurrency
    areas = {picture_of(asked): area_of(asked) / 100 for asked in server.requests}
    with h5py.File(folder / "forms.h5") as file:
        assert not file["failed"][()].any()
        found = [json.loads(values)["area"] for values in file["attributes"].asstr()]
    assert sorted(found) == pytest.approx(sorted(areas.values()))
