"""The time of a training step does not depend on the number of samples."""

import time

import numpy as np
import pytest
import torch
from torch import nn

from stages.core import io
from stages.settings.training import OptimisationSettings
from stages.training import loop
from stages.training.samples import Column, Samples

FEW, MANY, STEPS = 100, 3_000, 80
CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    folder = tmp_path_factory.mktemp("growth")
    for count in (FEW, MANY):
        with io.create_h5(folder / f"{count}.h5", "prepare", {}, {}) as file:
            image = io.create_sample_dataset(file, "image", (count, 16, 16, 3), np.uint8)
            image[...] = np.full(image.shape, 7)
            io.write_strings(file, "sample_id", [str(i) for i in range(count)])
    return folder


def load(folder, count, resident_mb):
    columns = {"image": Column(folder / f"{count}.h5", "image")}
    data = Samples(columns, np.arange(count), CPU, resident_mb)
    assert data.resident == (resident_mb > 0)
    return data


def median_step(folder, count):
    """Return the CPU seconds of an iteration's thread: other work on the machine does not count."""
    model, began = nn.Conv2d(3, 1, 1), []

    def step(batch, iteration, generator):
        began.append(time.thread_time())
        return {"loss": model(batch["image"].float()).square().mean()}

    run = loop.Run(
        name="student", inputs={}, seed=0, device=CPU, output=folder / "weights",
        settings=OptimisationSettings(iterations=STEPS, batch_size=8, learning_rate=1e-6),
        history=folder / "history", work=folder / "work", modules=("stages.training.loop",),
    )  # fmt: skip
    none = Samples({"image": Column(folder / f"{count}.h5", "image")}, np.arange(0), CPU, 0)
    loop.fit(run, model, step, None, load(folder, count, 4000), none)
    return np.median(np.diff(began))


def median_batch(folder, count):
    """Return the CPU seconds of the thread that reads a batch from the file."""
    data, seconds = load(folder, count, 0), []
    order = loop.index_batches(count, 8, torch.Generator().manual_seed(0))
    for index, _ in zip(order, range(STEPS)):
        before = time.thread_time()
        data[index]
        seconds.append(time.thread_time() - before)
    return np.median(seconds)


@pytest.mark.parametrize("cost", [median_step, median_batch])
def test_a_step_takes_the_same_time_with_thirty_times_the_samples(files, cost):
    costs = {FEW: [], MANY: []}
    for _ in range(5):
        for count, found in costs.items():
            found.append(cost(files, count))
    assert np.median(costs[MANY]) < 1.3 * np.median(costs[FEW])
