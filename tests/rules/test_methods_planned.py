"""The inputs of each method's student, as a dry run prints them."""

import json
import re

import pytest

from stages.settings.training import StudentSettings
from tests.workspace import Workspace, tiny_config


@pytest.fixture(scope="module")
def workspace(tmp_path_factory):
    config = tiny_config()
    config["datasets"]["demo_kvasir"]["teacher"]["widths"] = [16] * 6
    return Workspace(tmp_path_factory.mktemp("workspace"), config)


def student(experiment):
    return f"results/demo_kvasir/{experiment}/seed0/student.safetensors"


@pytest.mark.parametrize(
    ("experiment", "teacher", "text"),
    [("full", True, True), ("paper", True, True), ("levels_3", True, True),
     ("no_text", True, False),
     ("published", False, True), ("gazemedseg", False, False), ("gaze_only", False, False)],
)  # fmt: skip
def test_only_experiments_that_need_a_teacher_or_text_get_them(
    workspace, experiment, teacher, text
):
    planned = workspace.planned_rules(student(experiment))
    assert {"pseudomasks", "student"} <= planned
    assert ("teacher" in planned, "embed" in planned) == (teacher, text)


@pytest.mark.parametrize(("experiment", "widths"), [("published", (16,) * 6), ("full", None)])
def test_a_student_that_trains_its_teacher_gets_the_teachers_widths(workspace, experiment, widths):
    printed = workspace.must_run("-n", "-p", student(experiment))
    (command,) = re.findall(r"python -m stages\.training\.student .*", printed)
    (options,) = re.findall(r"--settings '(.*?)'", command)
    settings = StudentSettings(**json.loads(options))
    assert settings.teacher_widths == widths
    assert ("--explanations" in command, "--teacher" in command) == (True, widths is None)


def test_more_gpus_than_the_run_has_are_an_error(tmp_path):
    config = tiny_config()
    config["datasets"]["demo_kvasir"]["gpus"] = 2
    workspace = Workspace(tmp_path, config)
    status, printed = workspace.run("-n", student("full"))
    assert status != 0
    assert "demo_kvasir: a training asks for gpus: 2, and this run has 1" in printed
    assert "--resources gpu=2" in printed
    assert "--nproc-per-node 2" in workspace.must_run(
        "-n", "-p", "--resources", "gpu=2", "--", student("full")
    )
    # On a machine without GPUs.
    assert "--gpus 0" in workspace.must_run(
        "-n", "-p", "--resources", "gpu=0", "--", student("full")
    )
