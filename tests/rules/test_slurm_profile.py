"""What the cluster's profile asks for; tests/slurm runs it."""

import re

import pytest
import yaml

from tests.workspace import ROOT, Workspace, tiny_config

PROFILE = yaml.safe_load((ROOT / "workflow/profiles/slurm/config.yaml").read_text())
DEFAULT = yaml.safe_load((ROOT / "workflow/profiles/default/config.yaml").read_text())
WAYS = (["--workflow-profile", "slurm"], ["--profile", "workflow/profiles/slurm"])


@pytest.fixture(scope="module")
def workspace(tmp_path_factory):
    """A data set with a vision-language model that runs here, and trainings on two GPUs."""
    config = tiny_config()
    config["datasets"]["demo_isic"] |= {
        "explain": {
            "backend": "transformers", "model": "models/vlm",
            "prompt": "workflow/prompts/skin.yaml",
        },
        "gpus": 2,
    }  # fmt: skip
    config["datasets"]["demo_kvasir"] |= {"gpus": 1}
    return Workspace(tmp_path_factory.mktemp("workspace"), config)


def jobs(printed, name):
    """What a dry run prints of each job of a rule."""
    return re.findall(rf"^ *rule {name}:\n((?: .+\n)+)", printed, re.M)


def resource(job, name):
    return int(re.search(rf"\b{name}=(\d+)", job)[1])


def job_rules():
    """Name → text of the rules that are jobs, of the rule files."""
    return {
        re.match(r"(?:use rule \w+ as|rule) (\w+)", block)[1]: block
        for file in (ROOT / "rules").glob("*.smk")
        for block in re.split(r"^(?=(?:use )?rule )", file.read_text(), flags=re.M)[1:]
        if "localrule: True" not in block
    }


def test_memory_and_time_of_each_rule_are_in_the_profile_alone():
    rules = job_rules()
    assert set(rules) == set(PROFILE["set-resources"])
    for name, text in rules.items():
        assert not re.search(r"\b(mem|mem_mb|runtime)\s*=", text), name


def test_so_are_the_cpus_of_each_rule_that_has_a_data_sets():
    threads = {name for name, text in job_rules().items() if "threads: dataset_threads" in text}
    assert threads == set(PROFILE["set-threads"])


def test_each_attempt_has_more_memory_and_time():
    for rule, resources in PROFILE["set-resources"].items():
        for name in ("mem_mb", "runtime"):
            first, second = (eval(resources[name], {"attempt": n}) for n in (1, 2))
            assert second > first > 0, (rule, name)


@pytest.mark.parametrize("way", WAYS, ids=["workflow profile", "beside the default profile"])
def test_gpus_are_asked_for_by_the_model_teacher_student_and_prediction_alone(workspace, way):
    printed = workspace.must_run("-n", "demo_isic", *way)
    expected = {"explain": 1, "teacher": 2, "student": 2, "predict": 1}
    expected |= dict.fromkeys(("pseudomasks", "embed", "pseudolabels"), 0)
    for rule, gpus in expected.items():
        found = jobs(printed, rule)
        assert found and {resource(job, "gpu") for job in found} == {gpus}, rule
    for rule in {"prepare", "texts", "evaluate", "summarise"}:
        assert not any("gpu=" in job for job in jobs(printed, rule))


@pytest.mark.parametrize("way", WAYS, ids=["workflow profile", "beside the default profile"])
def test_cpus_are_those_of_the_profile_whatever_the_login_node_has(workspace, way):
    (job,) = jobs(workspace.must_run("-n", "results/demo_kvasir/prepared.h5", *way), "prepare")
    assert f"threads: {PROFILE['set-threads']['prepare']}" in job


def test_a_model_behind_an_endpoint_asks_for_no_gpu(workspace):
    printed = workspace.must_run("-n", "demo_kvasir", *WAYS[0])  # explained by measurement
    assert {resource(job, "gpu") for job in jobs(printed, "explain")} == {0}


def test_a_site_that_hands_gpus_out_as_gres_trains_on_them(workspace):
    target = "results/demo_isic/gaze_only/seed0/student.safetensors"
    printed = workspace.must_run(
        "-n", target, "--printshellcmds", *WAYS[0],
        "--set-resources", "student:gpu=0", "student:gres=gpu:a100:2",
    )  # fmt: skip
    (job,) = jobs(printed, "student")
    assert resource(job, "gpu") == 0 and "gres=gpu:a100:2" in job
    assert "--nproc-per-node 2 -m stages.training.student" in printed
    assert "--gpus 2 " in printed


def test_on_one_machine_the_default_profile_lets_one_training_have_the_gpu(workspace):
    printed = workspace.must_run("-n", "demo_kvasir")
    assert {resource(job, "gpu") for job in jobs(printed, "student")} == {1}
    assert "gpu=1" in DEFAULT["resources"]


@pytest.mark.parametrize(("gres", "gpus"), [("gpu", 1), ("gpu:a100", 1), ("gpu:a100:2", 2)])
def test_gpus_may_be_asked_for_as_gres(workspace, gres, gpus):
    printed = workspace.must_run(
        "-n", "-p", "demo_isic", "--workflow-profile", "slurm",
        "--set-resources", f"predict:gres={gres}",
    )  # fmt: skip
    (command,) = set(re.findall(r"stages\.evaluation\.predict .* (--gpus \d)", printed))
    assert command == f"--gpus {gpus}"


@pytest.mark.parametrize("rule", ["teacher", "student"])
def test_the_gpus_of_a_training_are_of_one_node(workspace, rule):
    printed = workspace.must_run("-n", "demo_isic", "--workflow-profile", "slurm")
    assert {resource(job, "nodes") for job in jobs(printed, rule)} == {1}
