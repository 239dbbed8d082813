"""prepared.h5, gaze.h5, explanations.h5 → teacher.safetensors."""

from pathlib import Path

import torch

from stages import cli, io, models, samples, train
from stages.losses import partial_cross_entropy
from stages.samples import Batch
from stages.settings.training import TeacherSettings


def train_teacher(
    prepared: Path,
    gaze: Path,
    explanations: Path,
    output: Path,
    history: Path,
    settings: TeacherSettings,
    seed: int,
    threads: int,
    gpus: int,
    quality: Path | None = None,
) -> None:
    """Train the teacher on the training samples with gaze, less those that `quality` leaves out.

    Its loss is cross-entropy over the trusted pixels: the precise pseudomask is foreground, all
    outside the broad one is background, the ring between them is left to the image and the text.
    With `settings.class_balance` both classes weigh the same: background is many times as
    frequent, and would take the ring, of which no label says anything.
    """
    device = train.start(threads, gpus)
    index, data = samples.load_images(prepared, ("train",))
    samples.add_pseudomasks(data, prepared, gaze, quality, index)
    samples.add_text(data, prepared, explanations, index)
    data = samples.keep_looked_at(data, gaze)
    index, val = samples.load_images(prepared, ("val",))
    samples.add_masks(val, prepared, index)
    samples.add_text(val, prepared, explanations, index)
    data, val = ({k: v.to(device) for k, v in batch.items()} for batch in (data, val))

    architecture = models.Architecture(
        role="teacher",
        channels=data["image"].shape[1],
        size=data["image"].shape[2:],
        widths=settings.widths,
        head_width=settings.head_width,
        text_width=data["text"].shape[2] if settings.text else 0,
    )
    model = models.build(architecture, seed).to(device).train()
    generator = torch.Generator().manual_seed(seed)

    def step(batch: Batch, iteration: int) -> train.Terms:
        batch = samples.flip(batch, generator)
        read = torch.rand(len(batch["text"]), generator=generator) >= settings.text_dropout
        text = batch["text"] * read[:, None, None].to(device)
        precise, broad = batch["precise"].bool(), batch["broad"].bool()
        logits = model(batch["image"], text).logits
        loss = partial_cross_entropy(
            logits, precise, precise | ~broad, balanced=settings.class_balance
        )
        return {"loss": loss}

    @torch.no_grad()
    def predict(batch: Batch) -> torch.Tensor:
        logits: torch.Tensor = model(batch["image"], batch["text"]).logits
        return logits[:, 1] > logits[:, 0]

    def validate() -> float:
        model.eval()
        dice = train.validation_dice(predict, val, settings.batch_size)
        model.train()
        return dice

    rows = train.fit(model, step, data, validate, settings, generator, "teacher")
    inputs = {"prepared": prepared, "gaze": gaze, "explanations": explanations}
    inputs |= {"quality": quality} if quality else {}
    made = io.provenance("teacher", inputs, settings.model_dump(mode="json") | {"seed": seed})
    models.save(model, output, made)
    io.write_csv(rows, history)


if __name__ == "__main__":
    cli.run(train_teacher)
