"""The smallest DAG of the demo on a real SLURM cluster, with interrupted trainings."""

import os
import re
import shutil
import signal
import subprocess
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import pytest
import yaml

from tests.slurm.cluster import (
    DAEMONS,
    JOB_PROCESSES,
    cluster,
    processes,
    run_command,
    wait_until,
    why_unavailable,
)
from tests.workspace import DEMO_DATASETS, ROOT, Workspace, tiny_config

pytestmark = [
    pytest.mark.slurm,
    pytest.mark.skipif(why_unavailable() is not None, reason=str(why_unavailable())),
]

DATASET = DEMO_DATASETS[0]
RUN = f"results/{DATASET}/full/seed0"
PROFILE = yaml.safe_load((ROOT / "workflow/profiles/slurm/config.yaml").read_text())
# The node has few real cores, and such small networks are slow on more than one.
THREADS = PROFILE["set-threads"] | dict.fromkeys(("embed", "teacher", "student", "predict"), 1)
# The settings of a site.
DEFAULTS = PROFILE["default-resources"] | {"slurm_account": "lab"}
GPU_RULES = {"teacher", "student", "predict"}
# Name of each job → its rules.
JOBS = {
    name: (name,)
    for name in (
        "demo_data", "prepare", "verify", "explain", "pseudolabels", "evaluate", *GPU_RULES,
    )
} | {
    "gaze_pseudomasks_quality": ("pseudomasks", "quality"),
    "text_embed_texts": ("texts", "embed"),
    "report_provenance_report_summarise": ("summarise", "provenance", "report"),
}  # fmt: skip
RESTARTS = 3
SIGNALS = ("USR1", "TERM")


def smallest_config() -> dict:
    """Return a config with one data set and one experiment on a GPU; trainings take seconds."""
    config = tiny_config()
    config["summary"] = [DATASET]
    for other in set(DEMO_DATASETS) - {DATASET}:
        config["datasets"].pop(other)
    dataset = config["datasets"][DATASET]
    dataset |= {"experiments": ["full"], "gpus": 1}
    for network in ("teacher", "student"):
        dataset[network] |= {"iterations": 300, "log_every": 10, "validate_every": 300}
    return config


def jobs() -> dict[str, str]:
    """Return the id of each job → its rule, or its group and the rules of the group."""
    lines = run_command("squeue", "--noheader", "--states=all", "--format=%i|%k").split()
    found = dict(line.split("|") for line in lines)
    return {
        number: re.sub(r"^rule_|_wildcards_.*", "", comment) for number, comment in found.items()
    }


def job_of(rule: str, attempt: int = 1) -> str:
    """Wait for an attempt at a rule; return the id of its job."""

    def attempts() -> list[str]:
        return sorted((number for number, name in jobs().items() if name == rule), key=int)

    wait_until(lambda: len(attempts()) >= attempt, f"attempt {attempt} at the {rule}", 300)
    return attempts()[attempt - 1]


def job_details(number: str) -> dict[str, str]:
    """Return what SLURM knows about a job: its request and its state."""
    words = run_command("scontrol", "show", "job", number).split()
    return dict(word.split("=", 1) for word in words if "=" in word)


def state(number: str) -> str:
    return job_details(number)["JobState"]


def minutes(limit: str) -> int:
    """Return the minutes of SLURM's [days-]hours:minutes:seconds."""
    days, _, clock = limit.rpartition("-")
    hours, minute, _ = map(int, clock.split(":"))
    return (int(days or 0) * 24 + hours) * 60 + minute


def requested(rule: str, resource: str, attempt: int = 1) -> int:
    """Return what the profile requests for an attempt at a rule."""
    return eval(PROFILE["set-resources"][rule][resource], {"attempt": attempt})


@dataclass
class Training:
    """The training of a network, observed through its log."""

    workspace: Workspace
    network: str

    def log(self) -> str:
        file = self.workspace.folder / RUN / f"logs/{self.network}.log"
        return file.read_text() if file.exists() else ""

    def kept(self) -> list[str]:
        """Return the iteration of the checkpoint that a signal wrote, as the log states it."""
        return re.findall(r"iteration (\d+) is saved in", self.log())

    def wait_until_it_trains(self, kept: str | None) -> None:
        """Wait for the first iterations, or for those after iteration `kept`."""
        begun = "" if kept is None else rf"resumed at iteration {kept} (?s:.*)"
        row = re.compile(rf"{begun}{self.network} \d+: iteration")
        wait_until(lambda: row.search(self.log()) is not None, f"{self.network} after {kept}")

    def interrupt(self, kept: str | None, *command: str) -> str:
        """Let SLURM signal the running training; return the iteration of its checkpoint."""
        self.wait_until_it_trains(kept)
        run_command(*command)
        wait_until(lambda: self.kept() not in ([], [kept]), f"a checkpoint of the {self.network}")
        (iteration,) = self.kept()
        return iteration


def requeue_the_teacher(workspace: Workspace) -> None:
    number = job_of("teacher")
    teacher, kept = Training(workspace, "teacher"), None
    for _ in range(RESTARTS):
        kept = teacher.interrupt(kept, "scontrol", "requeue", number)
        wait_until(lambda: state(number) == "PENDING", "the requeued job")
        # SLURM would wait for two minutes.
        run_command("scontrol", "update", f"jobid={number}", "starttime=now")


def signal_the_student(workspace: Workspace) -> None:
    student, kept = Training(workspace, "student"), None
    for attempt, name in enumerate(SIGNALS, start=1):
        number = job_of("student", attempt)
        kept = student.interrupt(kept, "scancel", f"--signal={name}", number)


def command_and_environment(stage: str, folder: Path) -> tuple[list[str], dict[str, str]]:
    """Wait for a stage's process in `folder`; return its command and its variables."""
    found: list[tuple[list[str], dict[str, str]]] = []

    def look() -> bool:
        for number in processes_in(folder):
            with suppress(OSError):
                command = Path(f"/proc/{number}/cmdline").read_text().split("\0")
                if command[1:3] == ["-m", stage]:
                    lines = Path(f"/proc/{number}/environ").read_text().split("\0")
                    found.append((command, dict(line.split("=", 1) for line in lines if line)))
        return bool(found)

    wait_until(look, stage, 300)
    return found[0]


def processes_in(folder: Path) -> list[int]:
    """Return the ids of the processes whose working directory is `folder`."""
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):
            if (process / "cwd").readlink() == folder:
                found.append(int(process.name))
    return found


@dataclass
class Ran:
    """What the tests need to know about the finished run."""

    folder: Path
    requests: dict[str, list[dict[str, str]]]
    prepare: tuple[list[str], dict[str, str]]
    undisturbed: dict[str, bytes]


def weights(folder: Path) -> dict[str, bytes]:
    return {
        network: (folder / RUN / f"{network}.safetensors").read_bytes()
        for network in ("teacher", "student")
    }


def copy_without_networks(workspace: Workspace, folder: Path) -> Workspace:
    """Return a workspace with the same data and without trained networks."""
    reference = Workspace(folder, workspace.config)
    for name in ("data", "results"):
        shutil.copytree(
            workspace.folder / name, folder / name, ignore=shutil.ignore_patterns("full")
        )
    return reference


@contextmanager
def running(process: subprocess.Popen[str]) -> Iterator[Callable[[], None]]:
    """Yield a function that waits for the end; on a failure end the process, print its output."""
    with ThreadPoolExecutor(1) as pool:
        output = pool.submit(process.communicate)

        def wait() -> None:
            output.result(600)
            assert process.returncode == 0

        try:
            yield wait
        except BaseException:
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            print(output.result()[0])
            raise


@pytest.fixture(scope="module")
def ran(tmp_path_factory):
    """Run the DAG on the cluster, and interrupt its trainings."""
    workspace = Workspace(tmp_path_factory.mktemp("workspace"), smallest_config())
    with (
        cluster(tmp_path_factory.mktemp("cluster")),
        running(workspace.start(
            DATASET, "--profile", "workflow/profiles/slurm",
            # Without accounting only squeue shows how a job ended.
            "--slurm-status-command", "squeue",
            "--default-resources", *(f"{name}={value}" for name, value in DEFAULTS.items()),
            "--set-threads", *(f"{rule}={n}" for rule, n in THREADS.items()),
            program=[str(Path(__file__).with_name("polling.py"))],
        )) as wait,
    ):  # fmt: skip
        prepare = command_and_environment("stages.data.prepare", workspace.folder)
        requeue_the_teacher(workspace)
        reference = copy_without_networks(workspace, tmp_path_factory.mktemp("reference"))
        student = f"{RUN}/student.safetensors"
        with running(reference.start("--rerun-triggers", "mtime", "--", student)) as wait_for_it:
            signal_the_student(workspace)
            wait()
            wait_for_it()
        requests: dict[str, list[dict[str, str]]] = {}
        for number, name in sorted(jobs().items(), key=lambda item: int(item[0])):
            requests.setdefault(name, []).append(job_details(number))
    return Ran(workspace.folder, requests, prepare, weights(reference.folder))


def test_the_whole_dag_ran(ran):
    folder = ran.folder / "results" / DATASET
    assert (folder / "report.html").exists() and (folder / "verified.csv").exists()


def test_small_rules_share_a_job_and_the_others_have_their_own(ran):
    assert set(ran.requests) == set(JOBS)


@pytest.mark.parametrize("name", JOBS)
def test_a_job_requests_what_the_profile_sets_for_its_rules(ran, name):
    for attempt, request in enumerate(ran.requests[name], start=1):
        memory = max(requested(rule, "mem_mb", attempt) for rule in JOBS[name])
        assert request["MinMemoryNode"] == f"{memory}M"
        # The rules of a job run one after the other.
        time = sum(requested(rule, "runtime", attempt) for rule in JOBS[name])
        assert minutes(request["TimeLimit"]) == time
        assert int(request["NumCPUs"]) == max(THREADS.get(rule, 1) for rule in JOBS[name])


def test_only_rules_that_need_a_gpu_request_one(ran):
    for name, requests in ran.requests.items():
        gpus = {request.get("TresPerJob") for request in requests}
        assert gpus == ({"gres:gpu:1"} if name in GPU_RULES else {None}), name
        partitions = {request["Partition"] for request in requests}
        assert partitions == ({"gpu"} if name in GPU_RULES else {"cpu"}), name


def test_all_jobs_use_the_account(ran):
    assert {request["Account"] for found in ran.requests.values() for request in found} == {"lab"}


def test_a_job_uses_as_many_threads_as_it_has_cpus(ran):
    command, variables = ran.prepare
    threads = command[command.index("--threads") + 1]
    assert threads == str(min(THREADS["prepare"], os.cpu_count()))
    for name in ("OMP", "MKL", "OPENBLAS"):
        assert variables[f"{name}_NUM_THREADS"] == threads


def test_preempted_and_signalled_trainings_end_like_undisturbed_ones(ran):
    (teacher,) = ran.requests["teacher"]
    assert teacher["Restarts"] == str(RESTARTS)
    # Each signal ends an attempt.
    states = [request["JobState"] for request in ran.requests["student"]]
    assert states == ["FAILED"] * len(SIGNALS) + ["COMPLETED"]
    assert not list((ran.folder / RUN / "work").iterdir())

    assert weights(ran.folder) == ran.undisturbed


def test_no_process_and_no_configuration_remain(ran):
    assert why_unavailable() is None
    assert not processes(*DAEMONS, *JOB_PROCESSES)
    assert not processes_in(ran.folder)


def test_no_process_and_no_configuration_remain_after_a_failure(ran, tmp_path):
    class Failure(Exception):
        pass

    job = tmp_path / "id"
    with pytest.raises(Failure), cluster(tmp_path):
        run_command(
            "sbatch", "--output=/dev/null", f"--wrap=sleep 600 & echo $! > {tmp_path}/id; wait"
        )
        wait_until(lambda: job.exists() and job.read_text() != "", "a job")
        raise Failure
    assert why_unavailable() is None
    assert not processes(*DAEMONS, *JOB_PROCESSES)
    assert not Path("/proc", job.read_text().strip()).exists()
