"""Where tensors are computed."""

import os

import torch

from stages.cli import log


def choose(gpus: int) -> torch.device:
    """Return the GPU if `gpus` is not 0 and one is seen, else the CPU, with a warning if asked."""
    device = torch.device("cuda" if gpus and torch.cuda.is_available() else "cpu")
    if gpus and device.type == "cpu":
        log.warning("no GPU is visible: on the CPU, which takes long at full size")
    name = "cpu" if device.type == "cpu" else torch.cuda.get_device_name(device)
    count = int(os.environ.get("WORLD_SIZE", "1"))
    log.info("device: %s", f"{count} × {name}" if count > 1 else name)
    return device
