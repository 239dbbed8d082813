"""Choose the device for tensors: a free GPU, or the CPU."""

import fcntl
import functools
import os
import tempfile
from pathlib import Path

import torch
from torch import distributed

from stages.core.cli import BadInput, log


def choose_device(gpus: int) -> torch.device:
    """Return a GPU if `gpus` is not 0 and one is visible, else the CPU.

    If `gpus` is not 0 and no GPU is visible, a warning is logged.
    """
    device, name = torch.device("cpu"), "cpu"
    if gpus and torch.cuda.is_available():
        device = torch.device("cuda", _claim_gpu())
        torch.cuda.set_device(device)
        name = torch.cuda.get_device_name(device)
    elif gpus:
        log.warning("no GPU is visible: using the CPU, which is slow at full size")
    count = int(os.environ["WORLD_SIZE"]) if distributed.is_torchelastic_launched() else 1
    log.info("device: %s", f"{count} × {name}" if count > 1 else name)
    return device


@functools.cache
def _claim_gpu() -> int:
    """Reserve a GPU that no other process of this user has reserved; return its index.

    Snakemake limits the number of GPUs of parallel jobs, but does not assign them to jobs.

    Raises
    ------
    BadInput
        No GPU is free for one of several processes of a training. A single process shares a GPU.
    """
    count = torch.cuda.device_count()
    for index in range(count):
        # The UUID, since a scheduler may number the GPUs differently in each job.
        name = torch.cuda.get_device_properties(index).uuid
        path = Path(tempfile.gettempdir(), f"gaze-to-insight-{os.getuid()}-{name}.lock")
        # The file stays open, and so locked, until the process ends.
        lock = os.open(path, os.O_RDWR | os.O_CREAT, 0o600)
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(lock)
            continue
        return index
    if distributed.is_torchelastic_launched():
        # NCCL does not support two processes on one GPU; its own message is hard to understand.
        raise BadInput(
            "--gpus", "option", found=f"{count} visible, all used by other processes",
            expected="one GPU for each process of a training",
            mend="wait for other jobs to end, or lower `gpus` to the number of free GPUs",
        )  # fmt: skip
    log.warning("other jobs use all %d visible GPUs: sharing GPU 0", count)
    return 0


def make_deterministic(device: torch.device) -> None:
    """Make PyTorch use deterministic algorithms; on a GPU it warns where it has none.

    Float32 convolutions on a GPU then use full float32 precision instead of TF32.
    """
    # cuBLAS needs this to be deterministic.
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    torch.backends.cudnn.allow_tf32 = False
    torch.use_deterministic_algorithms(True, warn_only=device.type == "cuda")
    # No code here reads uninitialised memory; filling it would cost a tenth of a step.
    torch.utils.deterministic.fill_uninitialized_memory = False  # type: ignore[attr-defined]
