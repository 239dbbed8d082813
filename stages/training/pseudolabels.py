"""teacher.safetensors → pseudolabels.h5: what the teacher says of the training images."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from stages.core import cli, io
from stages.core.parallel import ordered
from stages.gaze.refinement import refine
from stages.networks import models
from stages.settings.crf import CrfSettings
from stages.training import loop, samples
from stages.training.samples import Column, Samples, normalise

# Images that the teacher reads together.
BATCH = 16


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
    """Write `probability` (N, H, W) float16, the teacher's of foreground, for training samples.

    Each is read, with its text by a teacher that reads text, and then drawn to the edges of its
    image by the CRF: a teacher that was told nothing of the ring finds a region's place better than
    its size, and where the region ends shows in the image. Other samples have zeros.
    """
    device = loop.start(threads, gpus)
    # Images are drawn side by side; each takes one core.
    torch.set_num_threads(1)
    guide = models.load(teacher, "teacher").to(device)
    rows = samples.rows_of(prepared, "train")
    text = samples.texts(explanations, read=guide.architecture.text_width > 0)
    columns = {name: Column(prepared, name) for name in ("image", "original_size")} | text
    data = Samples(columns, rows, device, resident_mb=0)

    def answers() -> Iterator[tuple[NDArray[Any], NDArray[np.float32], tuple[int, int]]]:
        for batch in data.batches(torch.split(torch.arange(len(rows)), BATCH)):
            log_odds = guide(normalise(batch["image"]), batch.get("text")).log_odds
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
        probability = io.sample_dataset(file, "probability", shape, np.float16)
        drawn = ordered(lambda answer: refine(*answer, settings, device), answers(), threads)
        found = cli.progress(drawn, "pseudolabels", len(rows))
        for row, values in zip(rows.tolist(), found, strict=True):
            probability[row] = values


if __name__ == "__main__":
    cli.run(make_pseudolabels)
