"""An API key, planted where the job reads it, is in no file and in no message afterwards.

The endpoint sends the headers of each request back, in errors and in answers, as a gateway that was
left in debug mode does.
"""

import json
import os
import subprocess
import sys

import h5py
import numpy as np
import pytest

from stages.settings.explain import EndpointSettings, ExplainSettings
from stages.text.describers import FIELDS
from stages.text.describers.prompts import load_prompt
from tests.faults.test_explaining_killed import make_inputs
from tests.loopback import completion, error, valid_answer
from tests.workspace import ROOT

VARIABLE, KEY = "PLANTED_TEST_KEY", "sk-planted-Q7w9ZkX2mN4pR8tVb3"
# Any such part of the key is too much.
PARTS = {KEY[i : i + 8] for i in range(len(KEY) - 7)}
PROMPT = ROOT / "workflow/prompts/generic.yaml"
N = 6


def run_stage(folder, stage, **options):
    """Run a stage like its rule; return the exit status and what it printed."""
    command = [sys.executable, "-m", f"stages.text.{stage}", "--code", "0123", "--log"]
    command.append(str(folder / f"{stage}.log"))
    for name, value in options.items():
        command += [f"--{name}", str(value)]
    environment = os.environ | {VARIABLE: KEY}
    done = subprocess.run(
        command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=300
    )
    return done.returncode, done.stdout + done.stderr


def explain(folder, url, **changes):
    settings = ExplainSettings(
        backend="openai", model="m", url=url, batch_size=2, attempts=2, view={"side": 64}, **changes
    )
    reached = EndpointSettings(key_variable=VARIABLE, retries=1, concurrency=1)
    return run_stage(
        folder, "explain", prepared=folder / "prepared.h5", gaze=folder / "gaze.h5",
        prompt=PROMPT, output=folder / "0of1.jsonl", settings=settings.model_dump_json(),
        endpoint=reached.model_dump_json(), shard=0, shards=1, work=folder / "work",
        cache=folder / "cache", threads=1, gpus=0,
    )  # fmt: skip


def said_in(file):
    """Return all names, values and attributes of an HDF5 file as one text."""
    said = []

    def visit(name, item):
        said.extend([name, *map(str, item.attrs.values())])
        if isinstance(item, h5py.Dataset):
            said.extend(map(str, np.ravel(item[()]).tolist()))

    with h5py.File(file) as opened:
        visit("", opened)
        opened.visititems(visit)
    return "\n".join(said)


def find_parts(folder, *printed):
    """Return the parts of the key that are in a file, its name, its values, or a message."""
    contents = [text.encode() for text in printed]
    for path in folder.rglob("*"):
        contents.append(str(path).encode())
        contents.append(path.read_bytes() if path.is_file() else b"")
        contents.append(said_in(path).encode() if path.suffix == ".h5" else b"")
    return {part for part in PARTS for content in contents if part.encode() in content}


class Echo:
    """An endpoint that tells the headers of a request, with errors first, then with answers."""

    def __init__(self, *statuses):
        self.statuses, self.keys = list(statuses), set()

    def __call__(self, asked):
        headers = json.dumps(dict(asked.headers))
        self.keys.add(asked.headers["Authorization"])
        if self.statuses:
            status = self.statuses.pop(0)
            return status, {"X-Echo": headers, "Retry-After": "0"}, error(headers, request=headers)
        prompt = load_prompt(PROMPT)
        answer = valid_answer(prompt) | {"Remarks": headers, "Headers": dict(asked.headers)}
        text = f"I was asked with {asked.headers['Authorization']}. {json.dumps(answer)}"
        return completion(text, model=f"m of {headers}", system_fingerprint=headers, echo=headers)


@pytest.mark.parametrize("status", [400, 401, 403, 429])
def test_a_failed_run_tells_no_key(serve, tmp_path, status):
    folder = make_inputs(tmp_path, N)
    echo = Echo(*[status] * 100)
    status, printed = explain(folder, serve(echo).url)
    assert status == 0 if echo.statuses[:1] == [429] else status == 1
    assert echo.keys == {f"Bearer {KEY}"}
    assert find_parts(tmp_path, printed) == set()
    # The message is there, and has the rest of what the endpoint said, but for 401.
    assert echo.statuses[0] in (401, 429) or "[key]" in printed


def test_a_run_through_errors_to_the_vectors_tells_no_key(serve, tmp_path):
    folder = make_inputs(tmp_path, N)
    echo = Echo(500, 429, 503, 408)
    status, printed = explain(folder, serve(echo).url)
    assert status == 0, printed
    assert echo.keys == {f"Bearer {KEY}"}
    inputs = {"prepared": folder / "prepared.h5", "gaze": folder / "gaze.h5"}
    merged = run_stage(
        folder, "texts", **inputs, answers=folder / "0of1.jsonl", output=folder / "texts.h5",
        settings='{"max_failed": 0.9}',
    )  # fmt: skip
    (folder / "vectors").mkdir()
    for i in range(N):
        np.save(folder / f"vectors/image{i:03d}.npy", np.ones((len(FIELDS), 4), np.float32))
    embedded = run_stage(
        folder, "embed", texts=folder / "texts.h5", source=folder / "vectors",
        output=folder / "explanations.h5", settings='{"encoder": "import", "source": "vectors"}',
        threads=1, gpus=0,
    )  # fmt: skip
    assert (merged[0], embedded[0]) == (0, 0), (merged, embedded)
    assert find_parts(tmp_path, printed, merged[1], embedded[1]) == set()
    # What was searched holds the answers, journals, caches and logs, with the key's stand-in.
    found = {path.name for path in tmp_path.rglob("*") if path.is_file()}
    assert {"explain.log", "texts.h5", "explanations.h5", "0of1.jsonl"} <= found
    assert len(list(tmp_path.rglob("0of1.jsonl"))) == 3
    assert "[key]" in said_in(folder / "explanations.h5")
    assert "[key]" in (folder / "explain.log").read_text()


def test_the_search_finds_a_key(tmp_path):
    with h5py.File(tmp_path / "a.h5", "w") as file:
        file.create_dataset("text", data=[f"so {KEY}"], dtype=h5py.string_dtype())
        file["zipped"] = np.zeros(1)
    assert find_parts(tmp_path) == PARTS
    assert find_parts(tmp_path / "nothing", KEY[3:14]) <= PARTS
    assert len(find_parts(tmp_path / "nothing", KEY[3:14])) == 4
