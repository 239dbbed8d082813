"""prepared.h5, gaze.h5 and, for one that reads text, explanations.h5 → teacher.safetensors."""

from pathlib import Path
from typing import cast

import torch

from stages.core import cli, io
from stages.core.processes import share
from stages.networks import models
from stages.settings.training import TeacherSettings
from stages.training import augment, loop, samples
from stages.training.losses import partial_cross_entropy
from stages.training.samples import Batch, Column, Samples, normalise


def teacher_step(model: models.Teacher, settings: TeacherSettings) -> loop.Step:
    """Make the teacher's step.

    Its loss is cross-entropy over the trusted pixels: the precise pseudomask is foreground, all
    outside the broad one is background or, with `settings.background`, only what is further out;
    the ring between them is left to the image and the text. Background is many times as frequent,
    and would take the ring, of which no label says anything; with both classes weighing the same,
    foreground does. `settings.class_balance` lies between.
    """

    def step(batch: Batch, iteration: int, generator: torch.Generator) -> loop.Terms:
        batch = augment.flip(batch, generator)
        text = batch.get("text")
        if text is not None:
            draw = torch.rand(len(text), generator=generator, device=text.device)
            text = share(text * (draw >= settings.text_dropout)[:, None, None])
        levels = share(batch["pseudomask"]).bool()
        precise, outside = levels[:, 0], ~levels[:, -1]
        if settings.background is not None:
            outside = share(batch["refined"]) < settings.background
        logits = model(normalise(share(batch["image"])), text).logits
        loss = partial_cross_entropy(
            logits, precise, precise | outside, balance=settings.class_balance
        )
        return {"loss": loss}

    return step


def predict(model: models.Teacher, batch: Batch) -> torch.Tensor:
    """Segment (B, H, W) bool."""
    log_odds: torch.Tensor = model(normalise(batch["image"]), batch.get("text")).log_odds
    return log_odds > 0


def _below_broad(gaze: Path, background: float) -> Column:
    """Find the refined maps, of which what is below `background` is not foreground.

    Raises
    ------
    BadInput
        In the broad pseudomask there is less than `background`: a pixel would be both.
    """
    with io.open_h5(gaze, "threshold") as file:
        broad = float(file["threshold"][-1])
    if background > broad + 1e-6:
        raise cli.BadInput(
            gaze,
            "threshold of the broad pseudomask",
            found=f"{broad:g}, with `background` {background:g}",
            expected="a `background` up to that threshold",
            mend="lower `background` under `teacher`, or raise gaze.thresholds",
        )
    return Column(gaze, "refined")


def train_teacher(
    prepared: Path,
    gaze: Path,
    output: Path,
    history: Path,
    settings: TeacherSettings,
    seed: int,
    work: Path,
    threads: int,
    gpus: int,
    resident_mb: int,
    explanations: Path | None = None,
    quality: Path | None = None,
) -> None:
    """Train the teacher on the training samples with gaze, less those that `quality` leaves out."""
    text = samples.texts(explanations, read=settings.text)
    inputs = {"prepared": prepared, "gaze": gaze}
    if text:
        inputs["explanations"] = text["text"].path
    inputs |= {"quality": quality} if quality else {}
    device = loop.start(threads, gpus)
    run = loop.Run(
        "teacher",
        inputs,
        settings,
        seed,
        device,
        output,
        history,
        work,
        ("stages.training.teacher",),
    )
    columns = {"image": Column(prepared, "image")} | text
    labels = {"pseudomask": samples.pseudomasks(gaze, settings.levels)}
    if settings.background is not None:
        labels |= {"refined": _below_broad(gaze, settings.background)}
    rows = samples.with_gaze(prepared, gaze, quality, samples.rows_of(prepared, "train"))
    data = Samples(columns | labels, rows, device, resident_mb)
    rows = samples.with_mask(prepared, samples.rows_of(prepared, "val"))
    val = Samples(columns | {"mask": Column(prepared, "mask")}, rows, device, resident_mb)

    architecture = models.Architecture(
        role="teacher",
        channels=data.shape("image")[0],
        size=data.shape("image")[1:],
        widths=settings.widths,
        head_width=settings.head_width,
        text_width=data.shape("text")[1] if text else 0,
    )
    model = cast(models.Teacher, models.build(architecture, seed)).to(device).train()
    step = teacher_step(model, settings)
    loop.finish(run, model, loop.fit(run, model, step, predict, data, val))


if __name__ == "__main__":
    cli.run(train_teacher)
