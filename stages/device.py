"""Where tensors are computed."""

import torch

from stages.cli import log


def choose(gpus: int) -> torch.device:
    """Return the GPU if `gpus` is not 0 and one is seen, else the CPU, with a warning if asked."""
    device = torch.device("cuda" if gpus and torch.cuda.is_available() else "cpu")
    if gpus and device.type == "cpu":
        log.warning("no GPU is visible: on the CPU, which takes long at full size")
    log.info("device: %s", device)
    return device
