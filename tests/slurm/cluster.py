"""A SLURM cluster of one simulated node on loopback, for the duration of a test."""

import os
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

HERE = Path(__file__).parent
# SLURM's commands read this folder without SLURM_CONF, which jobs of the plugin do not have.
CONFIGURATION = Path("/etc/slurm")
DAEMONS = ("munged", "slurmctld", "slurmd")
# The processes that run a job.
JOB_PROCESSES = ("slurmstepd", "srun")


def why_unavailable() -> str | None:
    """Return why no cluster can run here, or None if one can."""
    if os.geteuid() != 0:
        return "SLURM's daemons need root"
    absent = [name for name in (*DAEMONS, "sbatch") if shutil.which(name) is None]
    if absent:
        return f"{', '.join(absent)} not found: `make slurm-test` installs slurm-wlm and munge"
    if (CONFIGURATION / "slurm.conf").exists():
        return (
            f"{CONFIGURATION}/slurm.conf exists: this machine belongs to a cluster, or these tests "
            "were killed: then end munged, slurmctld and slurmd, and delete the file"
        )
    return None


def run_command(*command: str) -> str:
    """Run a command of SLURM; return its output."""
    done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, f"{command}: {done.stderr}"
    return done.stdout


def wait_until(condition: Callable[[], bool], what: str, seconds: float = 120) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, f"waited {seconds} s in vain: {what}"
        time.sleep(0.2)


def processes(*names: str) -> list[int]:
    """Return the ids of the processes with these names."""
    found = []
    for file in Path("/proc").glob("[0-9]*/comm"):
        with suppress(OSError):
            if file.read_text().strip() in names:
                found.append(int(file.parent.name))
    return found


def end_all_jobs() -> None:
    run_command("scancel", "--user=root")
    wait_until(lambda: not processes(*JOB_PROCESSES), "the end of all jobs")


@contextmanager
def cluster(folder: Path) -> Iterator[None]:
    """Run the daemons, with all their files in `folder`; at the end remove everything of them.

    This also happens after SIGTERM, which counts as Ctrl-C here.
    """
    host = socket.gethostname().split(".")[0]
    settings = (HERE / "slurm.conf").read_text().format(host=host, folder=folder)
    files = {
        "slurm.conf": settings,
        "gres.conf": "Name=gpu File=/dev/null\n",
        "cgroup.conf": "CgroupPlugin=cgroup/v1\n",
    }
    for name in ("state", "spool"):
        (folder / name).mkdir()
    key = folder / "munge.key"
    key.write_bytes(os.urandom(128))
    key.chmod(0o400)
    munged = [f"--{name}-file={folder}/munge.{name}" for name in ("key", "pid", "seed", "log")]
    commands = (
        # --force: the folder may belong to a user.
        ["munged", "--foreground", "--force", f"--socket={folder}/munge.socket", *munged],
        ["slurmctld", "-D", "-c"],
        ["slurmd", "-D", "-c"],
    )
    running: list[subprocess.Popen[bytes]] = []
    handler = signal.signal(signal.SIGTERM, signal.default_int_handler)
    CONFIGURATION.mkdir(exist_ok=True)
    try:
        for name, text in files.items():
            (CONFIGURATION / name).write_text(text)
        for command in commands:
            with (folder / f"{command[0]}.out").open("wb") as out:
                # A signal that ends these tests must not end the daemons first.
                process = subprocess.Popen(command, stdout=out, stderr=out, start_new_session=True)
                running.append(process)
        wait_until(
            lambda: "idle" in subprocess.run(
                ["sinfo", "-h", "-o", "%t"], capture_output=True, text=True
            ).stdout,
            f"an idle node; see {folder}/*.out",
        )  # fmt: skip
        try:
            yield
        finally:
            end_all_jobs()
    finally:
        for process in reversed(running):
            process.terminate()
        for process in running:
            try:
                process.wait(30)
            except subprocess.TimeoutExpired:
                process.kill()
        for name in files:
            (CONFIGURATION / name).unlink(missing_ok=True)
        signal.signal(signal.SIGTERM, handler)
