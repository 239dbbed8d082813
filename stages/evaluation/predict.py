"""Weights and prepared.h5 → predictions.h5: probability maps of validation and test images."""

from pathlib import Path

import h5py
import torch
from torch import Tensor

from stages.core import cli, io
from stages.networks import models
from stages.settings.predict import ATTENTION_DATASETS, PredictSettings
from stages.training import loop, samples
from stages.training.samples import Column, Samples, normalise

BATCH_SIZE = 16


def _write_attention(file: h5py.File, n: int, index: Tensor, maps: tuple[Tensor, ...]) -> None:
    for name, attention in zip(ATTENTION_DATASETS, maps, strict=True):
        if name not in file:
            io.create_sample_dataset(file, name, (n, *attention.shape[1:]), "float16")
        file[name][index.numpy()] = attention.cpu().numpy()


@torch.no_grad()
def predict(
    prepared: Path,
    student: Path,
    output: Path,
    settings: PredictSettings,
    threads: int,
    gpus: int,
    explanations: Path | None = None,
    teacher: Path | None = None,
) -> None:
    """Write the probability maps of the validation and test samples.

    ``probability``
        The student's, (n, H, W) float16.
    ``teacher_probability, ensemble_probability``
        Only with `teacher`, the same shape. The teacher reads the text of an image if it has one.
        The ensemble's probability comes from the mean log-odds of both networks.
    ``attention_1, attention_2, attention_3, attention_4``
        Only if `settings` asks for attention and the teacher reads text: one per scale, the finest
        first, (n, K, h, w) float16. The attention weight of each of K sentences at each position;
        zeros for an image without text.
    """
    device = loop.set_up_torch(threads, gpus)
    columns = {"image": Column(prepared, "image")}
    inputs = {"prepared": prepared, "student": student}
    teacher_network = None
    if teacher is not None:
        teacher_network = models.load(teacher, "teacher").to(device)
        text = samples.text_columns(
            explanations, reads_text=teacher_network.architecture.text_width > 0
        )
        columns |= text
        inputs["teacher"] = teacher
        if text:
            inputs["explanations"] = text["text"].path
    student_network = models.load(student, "student").to(device)
    rows = samples.rows_in_splits(prepared, "val", "test")
    data = Samples(columns, rows, device, resident_mb=0)
    n, (_, height, width) = len(data), data.shape("image")

    with (
        io.open_h5(prepared, "sample_id", "split") as source,
        io.create_h5(output, "predict", inputs, settings) as file,
    ):
        for name in ("sample_id", "split"):
            io.write_strings(file, name, io.read_strings(source, name)[rows])
        names = ["probability"]
        if teacher_network is not None:
            names += ["teacher_probability", "ensemble_probability"]
        maps = {
            name: io.create_sample_dataset(file, name, (n, height, width), "float16")
            for name in names
        }
        indices = torch.split(torch.arange(n), BATCH_SIZE) if n else ()
        for index, batch in zip(cli.progress(indices, "predict"), data.batches(indices)):
            image = normalise(batch["image"])
            student_log_odds: Tensor = student_network(image).log_odds
            log_odds = {"probability": student_log_odds}
            if teacher_network is not None:
                teacher_output = teacher_network(image, batch.get("text"), settings.attention)
                log_odds["teacher_probability"] = teacher_output.log_odds
                log_odds["ensemble_probability"] = (student_log_odds + teacher_output.log_odds) / 2
                if teacher_output.attention:
                    _write_attention(file, n, index, teacher_output.attention)
            for name, values in log_odds.items():
                if not torch.isfinite(values).all():
                    raise cli.BadInput(
                        output, name, found="infinity or NaN", expected="finite log-odds",
                        mend="train the network again with a lower `learning_rate`",
                    )  # fmt: skip
                maps[name][index.numpy()] = values.sigmoid().cpu().numpy()


if __name__ == "__main__":
    cli.run(predict)
