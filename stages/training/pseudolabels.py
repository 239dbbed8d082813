"""teacher.safetensors → pseudolabels.h5: the teacher's predictions for the training images."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from stages.core import cli, io
from stages.core.parallel import ordered_map
from stages.gaze.refinement import refine_with_crf
from stages.networks import models
from stages.settings.crf import CrfSettings
from stages.training import loop, samples
from stages.training.samples import Column, Samples, normalise

# Images per batch of the teacher.
BATCH_SIZE = 16


@torch.no_grad()
def make_pseudolabels(
    prepared: Path,
    teacher: Path,
    output: Path,
    settings: CrfSettings,
    threads: int,
    gpus: int,
    explanations: Path | None = None,
) -> None:
    """Write `probability` (N, H, W) float16: the teacher's foreground, refined by the CRF.

    The teacher predicts each training sample, with its text if it reads text. The CRF then moves
    the borders of the prediction to the edges of the image: the teacher has no labels in the ring,
    so it finds a region's place better than its size. Other samples have zeros.
    """
    device = loop.set_up_torch(threads, gpus)
    # The CRF refines several images in parallel, each on one core.
    torch.set_num_threads(1)
    network = models.load(teacher, "teacher").to(device)
    rows = samples.rows_in_splits(prepared, "train")
    text = samples.text_columns(explanations, reads_text=network.architecture.text_width > 0)
    columns = {name: Column(prepared, name) for name in ("image", "original_size")} | text
    data = Samples(columns, rows, device, resident_mb=0)

    def teacher_outputs() -> Iterator[tuple[NDArray[Any], NDArray[np.float32], tuple[int, int]]]:
        for batch in data.batches(torch.split(torch.arange(len(rows)), BATCH_SIZE)):
            log_odds = network(normalise(batch["image"]), batch.get("text")).log_odds
            yield from zip(
                batch["image"].permute(0, 2, 3, 1).cpu().numpy(),
                log_odds.sigmoid().cpu().numpy(),
                batch["original_size"].tolist(),
            )

    inputs = {"prepared": prepared, "teacher": teacher}
    if text:
        inputs["explanations"] = text["text"].path
    with (
        io.open_h5(prepared, "sample_id") as source,
        io.create_h5(output, "pseudolabels", inputs, settings) as file,
    ):
        sample_ids = io.read_strings(source, "sample_id")
        io.write_strings(file, "sample_id", sample_ids)
        shape = (len(sample_ids), *data.shape("image")[1:])
        probability = io.create_sample_dataset(file, "probability", shape, np.float16)
        refined_maps = ordered_map(
            lambda item: refine_with_crf(*item, settings, device), teacher_outputs(), threads
        )
        probabilities = cli.progress(refined_maps, "pseudolabels", len(rows))
        for row, values in zip(rows.tolist(), probabilities, strict=True):
            probability[row] = values


if __name__ == "__main__":
    cli.run(make_pseudolabels)
