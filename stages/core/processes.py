"""Train in several processes, one per GPU: each computes a part of every batch.

Each process draws the same random numbers and prepares the same full batch, but passes only its
own part to the networks; sums are taken over all processes. So a training in several processes
gives the same result as one process with the full batch. With one process, the functions on
tensors change nothing.
"""

from datetime import timedelta
from typing import Any

import torch
from torch import Tensor, distributed, nn
from torch.autograd import Function


def init_process_group(device: torch.device) -> None:
    """Join the process group if torchrun started this process; do nothing otherwise."""
    # WORLD_SIZE and RANK alone prove nothing: a cluster may set them for other purposes.
    if distributed.is_torchelastic_launched() and not distributed.is_initialized():
        backend = "nccl" if device.type == "cuda" else "gloo"
        distributed.init_process_group(backend, timeout=timedelta(minutes=30))


def destroy_process_group() -> None:
    """Leave the process group, if there is one."""
    if distributed.is_initialized():
        distributed.destroy_process_group()


def world_size() -> int:
    """Return the number of processes."""
    return distributed.get_world_size() if distributed.is_initialized() else 1


def rank() -> int:
    """Return the index of this process, from 0; only process 0 writes files."""
    return distributed.get_rank() if distributed.is_initialized() else 0


class _AllReduceSum(Function):
    """Sum over all processes; the gradient is the sum of the gradients of all processes."""

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


def all_reduce_sum(x: Tensor) -> Tensor:
    """Return the sum of `x`, which has the same shape in all processes, over all processes.

    The sum is differentiable. Training minimises the mean loss of the processes and averages their
    gradients (`average_gradient`), so the gradient of each process sums over all losses.
    """
    return _AllReduceSum.apply(x) if world_size() > 1 else x


def local_batch(x: Tensor) -> Tensor:
    """Return this process's part of the full batch (B, …): B / `world_size()` samples."""
    return x.chunk(world_size())[rank()]


def gather_batch(x: Tensor) -> Tensor:
    """Concatenate the parts of all processes to the full batch, without gradient."""
    if world_size() == 1:
        return x
    # NCCL and gloo do not support bool.
    part = x.detach().contiguous()
    sent = part.to(torch.uint8) if part.dtype == torch.bool else part
    parts = [torch.empty_like(sent) for _ in range(world_size())]
    distributed.all_gather(parts, sent)
    return torch.cat(parts).to(x.dtype)


def average_gradient(parameter: nn.Parameter) -> None:
    """Replace the gradient of `parameter` by its mean over all processes."""
    if world_size() > 1 and parameter.grad is not None:
        distributed.all_reduce(parameter.grad)
        parameter.grad /= world_size()


def all_reduce_mean(x: Tensor) -> Tensor:
    """Return the mean of `x` over all processes."""
    return all_reduce_sum(x) / world_size()


def all_reduce_max(number: int) -> int:
    """Return the largest `number` of all processes."""
    if world_size() == 1:
        return number
    device = "cuda" if distributed.get_backend() == "nccl" else "cpu"
    largest = torch.tensor(number, device=device)
    distributed.all_reduce(largest, distributed.ReduceOp.MAX)
    return int(largest)
