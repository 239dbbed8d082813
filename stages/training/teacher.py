"""prepared.h5, gaze.h5 and, if the teacher reads text, explanations.h5 → teacher.safetensors."""

from pathlib import Path
from typing import cast

import torch

from stages.core import cli, io
from stages.core.processes import local_batch
from stages.networks import models
from stages.settings.training import TeacherSettings
from stages.training import augment, loop, samples
from stages.training.encoder import load_encoder
from stages.training.losses import label_loss
from stages.training.samples import Batch, Column, Samples, normalise


def make_teacher_step(model: models.Teacher, settings: TeacherSettings) -> loop.Step:
    """Return the teacher's training step.

    The loss is cross-entropy over the trusted pixels. The precise pseudomask is foreground. All
    pixels outside the broad pseudomask are background or, with `settings.background`, only those
    whose refined map is below it. The ring between them has no label: the teacher decides it from
    image and text. Background is many times as frequent as foreground, so the teacher would predict
    background in the ring; if both classes weigh the same, it predicts foreground.
    `settings.class_balance` sets a value between these two.
    """

    def step(batch: Batch, iteration: int, generator: torch.Generator) -> loop.LossTerms:
        batch = augment.augment_and_normalise(batch, settings.augment, generator)
        text = batch.get("text")
        if text is not None:
            draw = torch.rand(len(text), generator=generator, device=text.device)
            text = local_batch(text * (draw >= settings.text_dropout)[:, None, None])
        levels = local_batch(batch["pseudomask"]).bool()
        precise, background = levels[:, 0], ~levels[:, -1]
        if settings.background is not None:
            background = local_batch(batch["refined"]) < settings.background
        logits = model(local_batch(batch["image"]), text).logits
        loss = label_loss(
            logits,
            precise,
            precise | background,
            dice_weight=settings.dice_weight,
            balance=settings.class_balance,
        )
        return {"loss": loss}

    return step


def predict(model: models.Teacher, batch: Batch) -> torch.Tensor:
    """Return the predicted foreground (B, H, W) bool."""
    log_odds: torch.Tensor = model(normalise(batch["image"]), batch.get("text")).log_odds
    return log_odds > 0


def _background_column(gaze: Path, background: float) -> Column:
    """Return the column of refined maps, in which values below `background` are background.

    Raises
    ------
    BadInput
        `background` is above the threshold of the broad pseudomask: a pixel could be both.
    """
    with io.open_h5(gaze, "threshold") as file:
        broad = float(file["threshold"][-1])
    if background > broad + 1e-6:
        raise cli.BadInput(
            gaze,
            "threshold of the broad pseudomask",
            found=f"{broad:g}, with `background` {background:g}",
            expected="a `background` of at most that threshold",
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
    encoder: Path | None = None,
) -> None:
    """Train the teacher on the training samples with gaze that `quality` does not exclude."""
    text = samples.text_columns(explanations, reads_text=settings.text)
    inputs = {"prepared": prepared, "gaze": gaze}
    if text:
        inputs["explanations"] = text["text"].path
    inputs |= {"quality": quality} if quality else {}
    inputs |= {"encoder": encoder} if encoder else {}
    pretrained = load_encoder(encoder, settings)
    device = loop.set_up_torch(threads, gpus)
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
    labels = {"pseudomask": samples.pseudomask_column(gaze, settings.levels)}
    if settings.background is not None:
        labels |= {"refined": _background_column(gaze, settings.background)}
    if text:
        labels |= samples.text_mark_columns(text["text"].path, settings.augment)
    rows = samples.rows_with_gaze(
        prepared, gaze, quality, samples.rows_in_splits(prepared, "train")
    )
    data = Samples(columns | labels, rows, device, resident_mb)
    augment.check_size(settings.augment, data.shape("image")[1:], prepared)
    rows = samples.rows_with_mask(prepared, samples.rows_in_splits(prepared, "val"))
    val = Samples(columns | {"mask": Column(prepared, "mask")}, rows, device, resident_mb)

    architecture = models.Architecture(
        role="teacher",
        channels=data.shape("image")[0],
        size=data.shape("image")[1:],
        head_width=settings.head_width,
        text_width=data.shape("text")[1] if text else 0,
        **pretrained.architecture,
    )
    network = models.build(architecture, seed, pretrained.weights)
    model = cast(models.Teacher, network).to(device).train()
    step = make_teacher_step(model, settings)
    loop.save_results(run, model, loop.fit(run, model, step, predict, data, val))


if __name__ == "__main__":
    cli.run(train_teacher)
