"""Training on several processes, one per GPU: each has a share of every batch.

Each process draws the same random numbers and prepares the same batch, then keeps its share of it
for the networks; sums go over all shares. So a training on several processes is the training on
one with the joined batch. With one process every function here is the identity.
"""

from datetime import timedelta
from typing import Any

import torch
from torch import Tensor, distributed, nn
from torch.autograd import Function


def start(device: torch.device) -> None:
    """Join the other processes, if torchrun started this one with others, each on its device."""
    # A cluster may have set WORLD_SIZE and RANK for reasons of its own.
    if distributed.is_torchelastic_launched() and not distributed.is_initialized():
        backend = "nccl" if device.type == "cuda" else "gloo"
        distributed.init_process_group(backend, timeout=timedelta(minutes=30))


def stop() -> None:
    """Leave the other processes, if there are any."""
    if distributed.is_initialized():
        distributed.destroy_process_group()


def count() -> int:
    """Count the processes."""
    return distributed.get_world_size() if distributed.is_initialized() else 1


def rank() -> int:
    """Return the number of this process, from 0; the first alone writes files."""
    return distributed.get_rank() if distributed.is_initialized() else 0


class _Total(Function):
    """Sum over processes, whose gradient is the sum of their gradients."""

    @staticmethod
    def forward(context: Any, x: Tensor) -> Tensor:
        x = x.clone(memory_format=torch.contiguous_format)
        distributed.all_reduce(x)
        return x

    @staticmethod
    def backward(context: Any, gradient: Tensor) -> Tensor:
        gradient = gradient.clone(memory_format=torch.contiguous_format)
        distributed.all_reduce(gradient)
        return gradient


def total(x: Tensor) -> Tensor:
    """Sum of `x`, of one shape in all processes, over them.

    Differentiable: what is minimised is the mean of the processes' losses, and gradients are
    averaged (`average_gradient`), so that of each process is the sum over all losses.
    """
    return _Total.apply(x) if count() > 1 else x


def share(x: Tensor) -> Tensor:
    """Return this process's samples of a joined batch (B, …): B / `count()` of them."""
    return x.chunk(count())[rank()]


def gather(x: Tensor) -> Tensor:
    """Join the processes' shares to the batch again; no gradient passes."""
    if count() == 1:
        return x
    # NCCL and gloo know no bool.
    whole = x.detach().contiguous()
    sent = whole.to(torch.uint8) if whole.dtype == torch.bool else whole
    parts = [torch.empty_like(sent) for _ in range(count())]
    distributed.all_gather(parts, sent)
    return torch.cat(parts).to(x.dtype)


def average_gradient(weights: nn.Parameter) -> None:
    """Replace the gradient by its mean over the processes."""
    if count() > 1 and weights.grad is not None:
        distributed.all_reduce(weights.grad)
        weights.grad /= count()


def average(x: Tensor) -> Tensor:
    """Mean of `x` over the processes."""
    return total(x) / count()


def largest(number: int) -> int:
    """Return the largest of the processes' numbers."""
    if count() == 1:
        return number
    device = "cuda" if distributed.get_backend() == "nccl" else "cpu"
    found = torch.tensor(number, device=device)
    distributed.all_reduce(found, distributed.ReduceOp.MAX)
    return int(found)
