"""What the SLURM profile requests, from dry runs; tests/slurm runs it on a cluster."""

import re

import pytest
import yaml

from tests.workspace import ROOT, Workspace, tiny_config

PROFILE = yaml.safe_load((ROOT / "workflow/profiles/slurm/config.yaml").read_text())
DEFAULT = yaml.safe_load((ROOT / "workflow/profiles/default/config.yaml").read_text())
PROFILE_OPTIONS = (["--workflow-profile", "slurm"], ["--profile", "workflow/profiles/slurm"])


@pytest.fixture(scope="module")
def workspace(tmp_path_factory):
    """A workspace with a local vision-language model and trainings on two GPUs."""
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
    """Return what a dry run prints about each job of a rule."""
    return re.findall(rf"^ *rule {name}:\n((?: .+\n)+)", printed, re.M)


def resource(job, name):
    return int(re.search(rf"\b{name}=(\d+)", job)[1])


def job_rules():
    """Return name → text of each rule that runs as a job."""
    return {
        re.match(r"(?:use rule \w+ as|rule) (\w+)", block)[1]: block
        for file in (ROOT / "rules").glob("*.smk")
        for block in re.split(r"^(?=(?:use )?rule )", file.read_text(), flags=re.M)[1:]
        if "localrule: True" not in block
    }


def test_only_the_profile_sets_memory_and_time():
    rules = job_rules()
    assert set(rules) == set(PROFILE["set-resources"])
    for name, text in rules.items():
        assert not re.search(r"\b(mem|mem_mb|runtime)\s*=", text), name


def test_the_profile_sets_the_cpus_of_rules_with_dataset_threads():
    threads = {name for name, text in job_rules().items() if "threads: dataset_threads" in text}
    assert threads == set(PROFILE["set-threads"])


def test_each_attempt_has_more_memory_and_time():
    for rule, resources in PROFILE["set-resources"].items():
        for name in ("mem_mb", "runtime"):
            first, second = (eval(resources[name], {"attempt": n}) for n in (1, 2))
            assert second > first > 0, (rule, name)


@pytest.mark.parametrize(
    "options", PROFILE_OPTIONS, ids=["workflow profile", "beside the default profile"]
)
def test_only_the_model_the_trainings_and_prediction_request_gpus(workspace, options):
    printed = workspace.must_run("-n", "demo_isic", *options)
    expected = {"explain": 1, "teacher": 2, "student": 2, "predict": 1}
    expected |= dict.fromkeys(("pseudomasks", "embed", "pseudolabels"), 0)
    for rule, gpus in expected.items():
        found = jobs(printed, rule)
        assert found and {resource(job, "gpu") for job in found} == {gpus}, rule
    for rule in {"prepare", "texts", "evaluate", "summarise"}:
        assert not any("gpu=" in job for job in jobs(printed, rule))


@pytest.mark.parametrize(
    "options", PROFILE_OPTIONS, ids=["workflow profile", "beside the default profile"]
)
def test_cpus_do_not_depend_on_the_login_node(workspace, options):
    (job,) = jobs(workspace.must_run("-n", "results/demo_kvasir/prepared.h5", *options), "prepare")
    assert f"threads: {PROFILE['set-threads']['prepare']}" in job


def test_explanations_without_a_local_model_request_no_gpu(workspace):
    printed = workspace.must_run("-n", "demo_kvasir", *PROFILE_OPTIONS[0])  # backend: measured
    assert {resource(job, "gpu") for job in jobs(printed, "explain")} == {0}


def test_a_training_uses_the_gpus_requested_as_gres(workspace):
    target = "results/demo_isic/gaze_only/seed0/student.safetensors"
    printed = workspace.must_run(
        "-n", target, "--printshellcmds", *PROFILE_OPTIONS[0],
        "--set-resources", "student:gpu=0", "student:gres=gpu:a100:2",
    )  # fmt: skip
    (job,) = jobs(printed, "student")
    assert resource(job, "gpu") == 0 and "gres=gpu:a100:2" in job
    assert "--nproc-per-node 2 -m stages.training.student" in printed
    assert "--gpus 2 " in printed


def test_the_default_profile_runs_one_training_on_the_gpu_at_a_time(workspace):
    printed = workspace.must_run("-n", "demo_kvasir")
    assert {resource(job, "gpu") for job in jobs(printed, "student")} == {1}
    assert "gpu=1" in DEFAULT["resources"]


@pytest.mark.parametrize(("gres", "gpus"), [("gpu", 1), ("gpu:a100", 1), ("gpu:a100:2", 2)])
def test_prediction_uses_the_gpus_requested_as_gres(workspace, gres, gpus):
    printed = workspace.must_run(
        "-n", "-p", "demo_isic", "--workflow-profile", "slurm",
        "--set-resources", f"predict:gres={gres}",
    )  # fmt: skip
    (command,) = set(re.findall(r"stages\.evaluation\.predict .* (--gpus \d)", printed))
    assert command == f"--gpus {gpus}"


@pytest.mark.parametrize("rule", ["teacher", "student"])
def test_a_training_runs_on_one_node(workspace, rule):
    printed = workspace.must_run("-n", "demo_isic", "--workflow-profile", "slurm")
    assert {resource(job, "nodes") for job in jobs(printed, rule)} == {1}
