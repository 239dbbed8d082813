"""teacher.safetensors → pseudolabels.h5: teacher and gaze on the training images."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from stages.core import cli, io
from stages.core.cli import BadInput
from stages.core.parallel import ordered_map
from stages.gaze.refinement import refine_with_crf
from stages.networks import models
from stages.settings.training import PseudolabelSettings
from stages.training import loop, samples
from stages.training.samples import Column, Samples, normalise

# Images per batch of the teacher.
BATCH_SIZE = 16


@torch.no_grad()
def make_pseudolabels(
    prepared: Path,
    teacher: Path,
    output: Path,
    settings: PseudolabelSettings,
    threads: int,
    gpus: int,
    gaze: Path | None = None,
    explanations: Path | None = None,
) -> None:
    """Write `probability` (N, H, W) float16: what teacher and gaze say, refined by the CRF.

    The teacher predicts each training sample, with its text if it reads text. With `settings.gaze`
    the refined map of the gaze joins in: the two err in different pixels, so their mean is better
    than either. The CRF then moves the borders to the edges of the image: the teacher has no labels
    in the ring, so it finds a region's place better than its size. Other samples have zeros.

    Raises
    ------
    BadInput
        `settings.gaze` needs the gaze, and there is none.
    """
    if settings.gaze and gaze is None:
        raise BadInput(
            "--gaze", "option", found="none", expected="the file whose maps join in",
            mend="add it, for example --gaze results/kvasir/gaze.h5",
        )  # fmt: skip
    device = loop.set_up_torch(threads, gpus)
    # The CRF refines several images in parallel, each on one core.
    torch.set_num_threads(1)
    network = models.load(teacher, "teacher").to(device)
    rows = samples.rows_in_splits(prepared, "train")
    text = samples.text_columns(explanations, reads_text=network.architecture.text_width > 0)
    columns = {name: Column(prepared, name) for name in ("image", "original_size")} | text
    if settings.gaze and gaze:
        columns["refined"] = Column(gaze, "refined")
    data = Samples(columns, rows, device, resident_mb=0)

    def teacher_outputs() -> Iterator[tuple[NDArray[Any], NDArray[np.float32], tuple[int, int]]]:
        for batch in data.batches(torch.split(torch.arange(len(rows)), BATCH_SIZE)):
            foreground = network(normalise(batch["image"]), batch.get("text")).log_odds.sigmoid()
            if "refined" in batch:
                foreground = torch.lerp(foreground, batch["refined"].float(), settings.gaze)
            yield from zip(
                batch["image"].permute(0, 2, 3, 1).cpu().numpy(),
                foreground.cpu().numpy(),
                batch["original_size"].tolist(),
            )

    inputs = {"prepared": prepared, "teacher": teacher}
    if "refined" in columns:
        inputs["gaze"] = columns["refined"].path
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
        maps: Iterator[NDArray[np.float32]] = (values for _, values, _ in teacher_outputs())
        if crf := settings.crf:
            maps = ordered_map(
                lambda item: refine_with_crf(*item, crf, device), teacher_outputs(), threads
            )
        probabilities = cli.progress(maps, "pseudolabels", len(rows))
        for row, values in zip(rows.tolist(), probabilities, strict=True):
            probability[row] = values


if __name__ == "__main__":
    cli.run(make_pseudolabels)
