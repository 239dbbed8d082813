"""Let each write, fsync and rename of each stage fail, or kill the process there; then run again.

Three faults are tried at the n-th call, for every n: the disk is full from then on; this one call
has an error of the disk; the process is killed. All calls count that change a file of the workspace
(`interception.CALLS`), also those of HDF5 and safetensors, to results, temporary files, logs,
checkpoints, journals and the shared cache. Not tried: errors of mkdir, unlink and open, and power
failures, after which a disk may lose what was written but not synchronised.

`import_published` is left out: its networks are half a gigabyte, and `models.save` writes them, as
it does those of the trainings. A stage's commands are those that Snakemake itself would run.
"""

import errno
import io
import os
import tarfile
from hashlib import sha256
from pathlib import Path
from typing import Any

import pytest

from stages.data import fetch_lesions
from stages.data.datasets.layouts import LAYOUTS
from tests.faults import interception
from tests.faults.folders import Content, is_same, lost_bytes, read_folder, write_folder
from tests.faults.interception import KILL, RENAMES, Call
from tests.faults.pipeline import Pipeline, plan
from tests.faults.server import stages_with_command
from tests.workspace import Workspace, tiny_config

# In an order in which each finds the results of those before.
STAGES = (
    "demo.demo_data", "data.prepare", "gaze.verify", "gaze.pseudomasks", "gaze.quality",
    "text.explain", "text.texts", "text.embed", "training.encoder", "training.teacher",
    "training.pseudolabels", "training.student", "evaluation.predict", "evaluation.evaluate",
    "evaluation.summarise", "evaluation.compare", "deploy.segment", "report.tabulate",
    "report.provenance", "report.report", "published.export_published", "data.fetch_lesions",
)  # fmt: skip
# An export takes a quarter of a minute for each fault; its folder appears in one step at the end,
# and `test_export` fills the disk under each of its writers.
NOT_TRIED = {"published.import_published", "deploy.export", "deploy.app"}
# One that writes a journal and a cache, one a file of weights. The others are slow.
QUICK = ("text.explain", "training.encoder")
TARGETS = ("demo_kvasir", "comparison", "export_published_demo_kvasir")
FAULTS = {"full": errno.ENOSPC, "broken": errno.EIO, "killed": KILL}

pytestmark = pytest.mark.skipif(
    bool(reason := interception.missing_support()), reason=reason or "supported"
)


def config() -> dict[str, Any]:
    """Return the config of twelve images, two experiments and a comparison."""
    found = tiny_config()
    dataset = found["datasets"]["demo_kvasir"] | {"experiments": ["full", "gaze_only"]}
    dataset["demo"] |= {"train": 6, "test": 6}
    for network in ("teacher", "student"):
        dataset[network] |= {"iterations": 2, "log_every": 1, "validate_every": 1}
    pretrained = {
        "method": "single", "encoder": "test_efficientnet", "encoder_weights": "none",
        "decoder_widths": [16, 16, 8, 8, 8],
    }  # fmt: skip
    return found | {
        "cache": "cache",
        "summary": ["demo_kvasir"],
        "datasets": {"demo_kvasir": dataset},
        "experiments": {
            "full": found["experiments"]["full"],
            "gaze_only": {"student": pretrained},
        },
        "tables": {"comparison": {"reference": "full", "experiments": ["gaze_only"]}},
    }


def write_archive(file: Path) -> bytes:
    """Write an archive like the one with the real scans, with other content; return its bytes."""
    package = f"{fetch_lesions.PACKAGE}-{fetch_lesions.VERSION}"
    with tarfile.open(file, "w:gz") as archive:
        for name in LAYOUTS["lesions"].required:
            member = tarfile.TarInfo(f"{package}/data/{name}")
            member.size = len(name)
            archive.addfile(member, io.BytesIO(name.encode()))
    return file.read_bytes()


@pytest.fixture(scope="module")
def pipeline(tmp_path_factory, forks):
    folder = Workspace(tmp_path_factory.mktemp("injected") / "clone", config()).folder
    archive = write_archive(folder / "archive.tar.gz")
    run = "results/demo_kvasir/full/seed0"
    commands = [
        *plan(forks, folder, TARGETS),
        ["stages.deploy.segment", "--student", f"{run}/student.safetensors",
         "--images", "data/demo/kvasir/images", "--output", "segmented"],
        ["stages.data.fetch_lesions", "--archive", "archive.tar.gz", "--output", "lesions"],
    ]  # fmt: skip
    changes = {
        # After each iteration.
        "stages.training.checkpoint": {"SAVE_INTERVAL": 0},
        "stages.data.fetch_lesions": {"SHA256": sha256(archive).hexdigest()},
    }
    return Pipeline(forks, folder, commands, changes)


def is_final(path: Path) -> bool:
    """Return whether others read the file: not a log, a checkpoint, a journal or a hidden file."""
    hidden = any(part.startswith(".") for part in path.parts)
    return not (hidden or path.suffix == ".log" or "work" in path.parts)


def final(content: Content) -> dict[Path, bytes]:
    return {path: values for path, values in content.items() if is_final(path)}


def without_logs(content: Content) -> dict[Path, bytes]:
    return {path: values for path, values in content.items() if path.suffix != ".log"}


def same_folders(one: Content, other: Content) -> bool:
    return one.keys() == other.keys() and all(
        is_same(path, values, other[path]) for path, values in one.items()
    )


def fails_at(n: int, fault: str, seen: list[Call]):
    """Return a function for `supervise`: the fault at the n-th call; `seen` receives all calls."""

    def decide(call: Call) -> int:
        seen.append(call)
        # A disk that is full stays full, but can still give a file another name.
        again = fault == "full" and len(seen) > n and call.name not in RENAMES
        return FAULTS[fault] if len(seen) == n or again else 0

    return decide


@pytest.mark.parametrize(
    "stage",
    [s if s in QUICK else pytest.param(s, marks=pytest.mark.slow) for s in STAGES],
)
@pytest.mark.parametrize("fault", FAULTS)
def test_a_fault_at_any_write_loses_nothing_and_a_rerun_gives_the_same(
    pipeline, tally, stage, fault
):
    command, before, after = pipeline.step(stage)
    tally["name"] = f"{fault} disk: {stage}" if fault != "killed" else f"killed: {stage}"
    results = {path: values for path, values in final(after).items() if path not in before}
    # Snakemake deletes the results of a job before it runs again; another caller may not. Only
    # `segment` does not write masks again that it finds.
    keeps = fault != "killed" and stage != "deploy.segment"
    kept = {p: v for p, v in results.items() if keeps and p.parts[0] != "cache"}
    recovered: list[Content] = []
    n = 0
    while True:
        n += 1
        write_folder(pipeline.folder, {**before, **kept})
        seen: list[Call] = []
        status, printed = pipeline.run(command, fails_at(n, fault, seen))
        if len(seen) < n:
            break
        where = f"{fault} at call {n}, {seen[n - 1]}:\n{printed}"
        found = read_folder(pipeline.folder)
        tally["tried"] += 1
        tally["tracebacks"] += "Traceback" in printed
        tally["bytes lost"] += lost_bytes(without_logs({**before, **kept}), found)
        if fault == "killed":
            assert status == -9, where
        else:
            # Python may copy anew, by read and write, if sendfile fails with another error than a
            # full disk.
            is_copied = status == 0 and fault == "broken" and seen[n - 1].name == "sendfile"
            assert status == 1 or is_copied, where
            told = os.strerror(FAULTS[fault]) in printed and "to mend:" in printed
            assert told or is_copied, where
            assert not list(pipeline.folder.rglob("*.tmp")), where
        assert not tally["tracebacks"] and not tally["bytes lost"], where
        # No file has its final name before it is complete.
        for path, values in final(found).items():
            expected = after.get(path)
            assert expected is not None and is_same(path, values, expected), (path, where)
        # A rerun from the same content would do the same.
        left = without_logs(found)
        if not any(same_folders(left, known) for known in recovered):
            status, printed = pipeline.run(command)
            assert status == 0, (where, printed)
            again = read_folder(pipeline.folder)
            assert same_folders(without_logs(again), without_logs(after)), where
            recovered.append(left)
        tally["survived"] += 1
    assert status == 0, printed
    # The process writes its log, and its result once at least, and syncs and renames that.
    assert n > 4 and {"fsync", "rename"} <= {call.name for call in seen} | (
        {"fsync"} if stage == "published.export_published" else set()
    )


@pytest.mark.slow
def test_every_command_of_the_project_is_tried(pipeline):
    planned = {command[0].removeprefix("stages.") for command in pipeline.commands}
    assert planned == set(STAGES)
    everything = {name.removeprefix("stages.") for name in stages_with_command()}
    assert everything == set(STAGES) | NOT_TRIED
