"""Where tensors are computed."""

import fcntl
import functools
import os
import tempfile
from pathlib import Path

import torch
from torch import distributed

from stages.core.cli import BadInput, log


def choose(gpus: int) -> torch.device:
    """Return a GPU if `gpus` is not 0 and one is seen, else the CPU, with a warning if asked."""
    device, name = torch.device("cpu"), "cpu"
    if gpus and torch.cuda.is_available():
        device = torch.device("cuda", _claim())
        torch.cuda.set_device(device)
        name = torch.cuda.get_device_name(device)
    elif gpus:
        log.warning("no GPU is visible: on the CPU, which takes long at full size")
    count = int(os.environ["WORLD_SIZE"]) if distributed.is_torchelastic_launched() else 1
    log.info("device: %s", f"{count} × {name}" if count > 1 else name)
    return device


@functools.cache
def _claim() -> int:
    """Take a GPU that no other process of this user's has taken so.

    Snakemake counts the GPUs that jobs side by side may have, and does not say which are whose.

    Raises
    ------
    BadInput
        There is none for one of a training's several processes. A single one shares a GPU.
    """
    count = torch.cuda.device_count()
    for index in range(count):
        # Its number is another in each job, where a scheduler hides the others.
        name = torch.cuda.get_device_properties(index).uuid
        path = Path(tempfile.gettempdir(), f"gaze-to-insight-{os.getuid()}-{name}.lock")
        # Open, and so locked, as long as the process lives.
        lock = os.open(path, os.O_RDWR | os.O_CREAT, 0o600)
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(lock)
            continue
        return index
    if distributed.is_torchelastic_launched():
        # NCCL knows no two processes on one GPU, and would say so in words of its own.
        raise BadInput(
            "--gpus", "option", found=f"{count} visible, each taken by another process",
            expected="one for each process of a training",
            mend="wait for other jobs to end, or lower `gpus` to what there is",
        )  # fmt: skip
    log.warning("other jobs have all %d GPUs that are visible: number 0 is shared", count)
    return 0


def deterministic(device: torch.device) -> None:
    """Have the same numbers give the same bits, wherever PyTorch can; on a GPU it warns elsewhere.

    Convolutions in float32 are then of float32 on a GPU, too.
    """
    # Without it cuBLAS refuses to be deterministic.
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    torch.backends.cudnn.allow_tf32 = False
    torch.use_deterministic_algorithms(True, warn_only=device.type == "cuda")
    # Nothing here reads memory before it is written; filling it costs a tenth of a step.
    torch.utils.deterministic.fill_uninitialized_memory = False  # type: ignore[attr-defined]
