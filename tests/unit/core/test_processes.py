"""Compare two processes that train together with one process that has the full batch."""

import time
from datetime import timedelta

import pytest
import torch
from torch import distributed, nn
from torch import multiprocessing as mp

from stages.core import processes
from stages.networks.batch_norm import BatchNorm

# Samples of each process: unequal, so that the statistics must weight them.
SHARES = (3, 2)
SECONDS = 120


def batch(step):
    generator = torch.Generator().manual_seed(step)
    x = 10 + torch.randn(sum(SHARES), 4, 5, 3, generator=generator)
    return x, torch.randn(x.shape, generator=generator)


def two_steps(norm, rank):
    """Return outputs and gradients of two training steps, and the output of an evaluation.

    The input is the part of process `rank`, or the full batch if `rank` is None.
    """
    made = {}
    for step in range(2):
        x, gradient = (v if rank is None else v.split(SHARES)[rank] for v in batch(step))
        x.requires_grad_()
        norm.zero_grad()
        y = norm(x)
        y.backward(gradient)
        made |= {f"y{step}": y.detach(), f"x{step}": x.grad}
        made |= {f"weight{step}": norm.weight.grad.clone(), f"bias{step}": norm.bias.grad.clone()}
    made |= {f"state.{name}": value for name, value in norm.state_dict().items()}
    return made | {"evaluated": norm.eval()(x.detach()).detach()}


def affine(kind):
    norm = kind(4)
    with torch.no_grad():
        norm.weight.copy_(torch.tensor([1.0, -2.0, 0.5, 3.0]))
        norm.bias.copy_(torch.tensor([0.0, 1.0, -1.0, 2.0]))
    return norm


def work(rank, folder):
    torch.set_num_threads(1)
    distributed.init_process_group(
        "gloo",
        init_method=f"file://{folder}/meeting",
        rank=rank,
        world_size=2,
        timeout=timedelta(seconds=SECONDS),
    )
    try:
        x = torch.tensor([1.0, 2.0]).mul(10**rank).requires_grad_()
        total = processes.all_reduce_sum(x)
        # The loss of process 0 is the sum of `total`, the loss of process 1 three times as much.
        (total * (1.0, 3.0)[rank]).sum().backward()
        made = {"count": processes.world_size(), "rank": processes.rank(), "x": x.detach()}
        made |= {"total": total.detach(), "gradient": x.grad}
        made |= two_steps(affine(BatchNorm), rank)
        half = affine(BatchNorm)(batch(0)[0].split(SHARES)[rank].bfloat16())
        torch.save(made | {"half": half.detach()}, f"{folder}/{rank}.pt")
    finally:
        distributed.destroy_process_group()


@pytest.fixture(scope="module")
def joined(tmp_path_factory):
    """Return the results of each of two processes."""
    folder = tmp_path_factory.mktemp("processes")
    context = mp.spawn(work, (str(folder),), nprocs=2, join=False)
    try:
        end = time.monotonic() + SECONDS
        while not context.join(timeout=1):
            assert time.monotonic() < end, "the processes are deadlocked"
    finally:
        for process in context.processes:
            process.kill()
    return [torch.load(folder / f"{rank}.pt", weights_only=True) for rank in (0, 1)]


@pytest.fixture(scope="module")
def alone():
    """Return the results of one process with the full batch and torch's own batch norm."""
    return two_steps(affine(nn.BatchNorm2d), None)


def close(found, expected):
    return torch.allclose(found, expected, rtol=1e-5, atol=1e-5)


def test_each_process_knows_its_rank_and_the_world_size(joined):
    assert [made["count"] for made in joined] == [2, 2]
    assert [made["rank"] for made in joined] == [0, 1]


def test_all_reduce_sum_and_its_gradient_sum_over_all_processes(joined):
    for made in joined:
        assert torch.equal(made["total"], torch.tensor([11.0, 22.0]))
        # 1 from the loss of process 0 and 3 from the loss of process 1.
        assert torch.equal(made["gradient"], torch.tensor([4.0, 4.0]))
    # The input of each process is unchanged.
    assert [made["x"][0].item() for made in joined] == [1.0, 10.0]


@pytest.mark.parametrize("step", [0, 1])
def test_batch_norm_normalises_over_the_full_batch(joined, alone, step):
    together = torch.cat([made[f"y{step}"] for made in joined])
    assert close(together, alone[f"y{step}"])


@pytest.mark.parametrize("step", [0, 1])
def test_batch_norm_has_the_gradients_of_the_full_batch(joined, alone, step):
    assert close(torch.cat([made[f"x{step}"] for made in joined]), alone[f"x{step}"])
    for name in (f"weight{step}", f"bias{step}"):
        assert close(sum(made[name] for made in joined), alone[name])


def test_batch_norm_has_the_same_state_in_all_processes(joined, alone):
    names = [name for name in alone if name.startswith("state.")]
    assert len(names) == 5
    for name in names:
        assert torch.equal(joined[0][name], joined[1][name])
        assert close(joined[0][name], alone[name])


def test_in_evaluation_each_process_works_alone(joined, alone):
    together = torch.cat([made["evaluated"] for made in joined])
    assert close(together, alone["evaluated"])


def test_half_precision_input_is_summed_in_float32(joined):
    x = batch(0)[0].bfloat16()
    expected = affine(nn.BatchNorm2d)(x.float())
    together = torch.cat([made["half"] for made in joined])
    assert together.dtype == torch.bfloat16
    # The remaining difference is the rounding of the output to 8 binary digits.
    assert torch.allclose(together.float(), expected, rtol=2**-8, atol=1e-4)


def test_without_a_process_group_there_is_one_process():
    assert (processes.world_size(), processes.rank()) == (1, 0)
    x = torch.randn(3, generator=torch.Generator().manual_seed(0))
    assert processes.all_reduce_sum(x) is x


def test_batch_norm_in_one_process_equals_torchs(alone):
    ours = two_steps(affine(BatchNorm), None)
    assert ours.keys() == alone.keys()
    assert all(torch.equal(ours[name], alone[name]) for name in alone)
