"""Two processes that train together, against one that has the joined batch."""

import time
from datetime import timedelta

import pytest
import torch
from torch import distributed, nn
from torch import multiprocessing as mp

from stages.core import processes
from stages.networks.batch_norm import BatchNorm

# Samples of each process: not as many, which the statistics must weigh.
SHARES = (3, 2)
SECONDS = 120


def batch(step):
    generator = torch.Generator().manual_seed(step)
    x = 10 + torch.randn(sum(SHARES), 4, 5, 3, generator=generator)
    return x, torch.randn(x.shape, generator=generator)


def two_steps(norm, rank):
    """Outputs and gradients of two training steps, and of an evaluation, on a process's share.

    `rank` None: the joined batch, in one process.
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
        total = processes.total(x)
        # The loss of the first process is the sum of the total, of the second 3 times as much.
        (total * (1.0, 3.0)[rank]).sum().backward()
        made = {"count": processes.count(), "rank": processes.rank(), "x": x.detach()}
        made |= {"total": total.detach(), "gradient": x.grad}
        made |= two_steps(affine(BatchNorm), rank)
        half = affine(BatchNorm)(batch(0)[0].split(SHARES)[rank].bfloat16())
        torch.save(made | {"half": half.detach()}, f"{folder}/{rank}.pt")
    finally:
        distributed.destroy_process_group()


@pytest.fixture(scope="module")
def joined(tmp_path_factory):
    """What each of two processes made."""
    folder = tmp_path_factory.mktemp("processes")
    context = mp.spawn(work, (str(folder),), nprocs=2, join=False)
    try:
        end = time.monotonic() + SECONDS
        while not context.join(timeout=1):
            assert time.monotonic() < end, "the processes wait for each other"
    finally:
        for process in context.processes:
            process.kill()
    return [torch.load(folder / f"{rank}.pt", weights_only=True) for rank in (0, 1)]


@pytest.fixture(scope="module")
def alone():
    """What one process makes of the joined batch with torch's own batch norm."""
    return two_steps(affine(nn.BatchNorm2d), None)


def close(found, expected):
    return torch.allclose(found, expected, rtol=1e-5, atol=1e-5)


def test_processes_know_each_other(joined):
    assert [made["count"] for made in joined] == [2, 2]
    assert [made["rank"] for made in joined] == [0, 1]


def test_a_total_is_over_all_processes_and_so_is_its_gradient(joined):
    for made in joined:
        assert torch.equal(made["total"], torch.tensor([11.0, 22.0]))
        # 1 of the first process's loss and 3 of the second's.
        assert torch.equal(made["gradient"], torch.tensor([4.0, 4.0]))
    # Each keeps its own summand.
    assert [made["x"][0].item() for made in joined] == [1.0, 10.0]


@pytest.mark.parametrize("step", [0, 1])
def test_batch_norm_normalises_the_joined_batch(joined, alone, step):
    together = torch.cat([made[f"y{step}"] for made in joined])
    assert close(together, alone[f"y{step}"])


@pytest.mark.parametrize("step", [0, 1])
def test_batch_norm_has_the_joined_batchs_gradients(joined, alone, step):
    assert close(torch.cat([made[f"x{step}"] for made in joined]), alone[f"x{step}"])
    for name in (f"weight{step}", f"bias{step}"):
        assert close(sum(made[name] for made in joined), alone[name])


def test_batch_norms_state_is_the_same_everywhere(joined, alone):
    names = [name for name in alone if name.startswith("state.")]
    assert len(names) == 5
    for name in names:
        assert torch.equal(joined[0][name], joined[1][name])
        assert close(joined[0][name], alone[name])


def test_in_evaluation_each_process_is_on_its_own(joined, alone):
    together = torch.cat([made["evaluated"] for made in joined])
    assert close(together, alone["evaluated"])


def test_half_precision_is_summed_in_full(joined):
    x = batch(0)[0].bfloat16()
    expected = affine(nn.BatchNorm2d)(x.float())
    together = torch.cat([made["half"] for made in joined])
    assert together.dtype == torch.bfloat16
    # What is left is the rounding of the answer to 8 binary digits.
    assert torch.allclose(together.float(), expected, rtol=2**-8, atol=1e-4)


def test_one_process_is_all_there_are():
    assert (processes.count(), processes.rank()) == (1, 0)
    x = torch.randn(3, generator=torch.Generator().manual_seed(0))
    assert processes.total(x) is x


def test_one_processs_batch_norm_is_torchs(alone):
    ours = two_steps(affine(BatchNorm), None)
    assert ours.keys() == alone.keys()
    assert all(torch.equal(ours[name], alone[name]) for name in alone)
