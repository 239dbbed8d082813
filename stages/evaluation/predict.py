"""Weights and prepared.h5 → predictions.h5: foreground probabilities of validation and test."""

from pathlib import Path

import h5py
import torch
from torch import Tensor

from stages.core import cli, io
from stages.networks import models
from stages.settings.predict import ATTENTION, PredictSettings
from stages.training import loop, samples
from stages.training.samples import Column, Samples, normalise

BATCH = 16


def _write_attention(file: h5py.File, n: int, index: Tensor, maps: tuple[Tensor, ...]) -> None:
    for name, shares in zip(ATTENTION, maps, strict=True):
        if name not in file:
            io.sample_dataset(file, name, (n, *shares.shape[1:]), "float16")
        file[name][index.numpy()] = shares.cpu().numpy()


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
    """Write `probability`, the student's, for the validation and test samples.

    With a teacher also `teacher_probability`, read with the text of the images that somebody
    looked at and without text for the others, and `ensemble_probability`, of the mean of both
    networks' log-odds. If `settings` asks for attention and the teacher reads text, also
    `attention_2`, `attention_4`, `attention_8` and `attention_16`, one per stride, (n, K, H/stride,
    W/stride) float16: the share of each sentence in what the teacher reads at a position, zeros
    for an image without text.
    """
    device = loop.start(threads, gpus)
    columns = {"image": Column(prepared, "image")}
    inputs = {"prepared": prepared, "student": student}
    guide = None
    if teacher is not None:
        guide = models.load(teacher, "teacher").to(device)
        text = samples.texts(explanations, read=guide.architecture.text_width > 0)
        columns |= text
        inputs |= {"teacher": teacher}
        if text:
            inputs["explanations"] = text["text"].path
    network = models.load(student, "student").to(device)
    rows = samples.rows_of(prepared, "val", "test")
    data = Samples(columns, rows, device, resident_mb=0)
    n, (_, height, width) = len(data), data.shape("image")

    with (
        io.open_h5(prepared, "sample_id", "split") as source,
        io.create_h5(output, "predict", inputs, settings) as file,
    ):
        for name in ("sample_id", "split"):
            io.write_strings(file, name, io.read_strings(source, name)[rows])
        names = ["probability"]
        if guide is not None:
            names += ["teacher_probability", "ensemble_probability"]
        maps = {
            name: io.sample_dataset(file, name, (n, height, width), "float16") for name in names
        }
        chosen = torch.split(torch.arange(n), BATCH) if n else ()
        for index, batch in zip(cli.progress(chosen, "predict"), data.batches(chosen)):
            image = normalise(batch["image"])
            said: Tensor = network(image).log_odds
            log_odds = {"probability": said}
            if guide is not None:
                taught = guide(image, batch.get("text"), settings.attention)
                log_odds["teacher_probability"] = taught.log_odds
                log_odds["ensemble_probability"] = (said + taught.log_odds) / 2
                if taught.attention:
                    _write_attention(file, n, index, taught.attention)
            for name, values in log_odds.items():
                if not torch.isfinite(values).all():
                    raise cli.BadInput(
                        output, name, found="infinity or no number", expected="finite log-odds",
                        mend="train the network anew, with a lower `learning_rate`",
                    )  # fmt: skip
                maps[name][index.numpy()] = values.sigmoid().cpu().numpy()


if __name__ == "__main__":
    cli.run(predict)
