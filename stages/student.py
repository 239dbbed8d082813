"""prepared.h5, gaze.h5 and, to be distilled, a teacher → student.safetensors."""

from pathlib import Path
from typing import cast

import torch
from torch import Tensor

from stages import cli, io, models, samples, train
from stages.losses import (
    confidence_weighted_consistency,
    feature_alignment,
    partial_cross_entropy,
    ramp_up,
)
from stages.masking import disagreement_mask
from stages.samples import Batch
from stages.settings.training import StudentSettings


def cut_boxes(size: tuple[int, ...], count: int, beta: int, generator: torch.Generator) -> Tensor:
    """Draw one CutMix box per sample; its share of the image is drawn from Beta(beta, beta).

    Returns
    -------
    (count, H, W) bool on the CPU, True inside the box; boxes are cut off at the border.
    """
    height, width = size
    # The median of 2β − 1 uniform numbers is a Beta(β, β) variate.
    share = torch.rand(count, 2 * beta - 1, generator=generator).median(dim=1).values
    side = share.sqrt()[:, None]
    centre = torch.rand(2, count, 1, generator=generator)
    y, x = torch.arange(height)[None] + 0.5, torch.arange(width)[None] + 0.5
    inside_y = (y - centre[0] * height).abs() <= side * height / 2
    inside_x = (x - centre[1] * width).abs() <= side * width / 2
    return inside_y[:, :, None] & inside_x[:, None, :]


def paste(values: Tensor, box: Tensor) -> Tensor:
    """Paste each sample's box from the sample before it, in (B, C, H, W)."""
    return torch.where(box[:, None], values.roll(1, dims=0), values)


def plain_step(student: models.Student, label: str, generator: torch.Generator) -> train.Step:
    """Make the step of a student without a teacher: cross-entropy on one label per pixel."""

    def step(batch: Batch, iteration: int) -> train.Terms:
        batch = samples.flip(batch, generator)
        target = batch[label]
        everywhere = torch.ones_like(target, dtype=torch.bool)
        return {"loss": partial_cross_entropy(student(batch["image"]).logits, target, everywhere)}

    return step


def distillation_step(
    student: models.Student,
    teacher: models.Teacher,
    settings: StudentSettings,
    generator: torch.Generator,
) -> train.Step:
    """Make the student's step: gaze loss under DARM, AFC, and CWC on a perturbed view."""

    def step(batch: Batch, iteration: int) -> train.Terms:
        batch = samples.flip(batch, generator)
        image, broad = batch["image"], batch["broad"]
        with torch.no_grad():
            taught = teacher(image, batch["text"])
            target = taught.logits.softmax(dim=1)
            own = student(image).logits.argmax(dim=1)
            disagreement = own != target.argmax(dim=1)
            masked = disagreement_mask(
                disagreement.cpu(),
                ratio=settings.darm_ratio,
                block=settings.darm_block,
                generator=generator,
            ).to(image.device)
            noise = torch.rand(image.shape, generator=generator) * 2 - 1
            box = cut_boxes(image.shape[2:], len(image), settings.cutmix_beta, generator)
            box = box.to(image.device)
            perturbed = paste(image + settings.noise * noise.to(image.device), box)

        seen = student(image * ~masked[:, None], align=True)
        gaze = partial_cross_entropy(seen.logits, broad, ~masked)
        afc = feature_alignment(seen.features, taught.features)
        cwc = confidence_weighted_consistency(
            student(perturbed).logits, paste(target, box), settings.cwc_threshold
        )
        ramp = ramp_up(iteration, settings.ramp_iterations)
        loss = gaze + ramp * (settings.afc_weight * afc + settings.cwc_weight * cwc)
        return {
            "loss": loss,
            "gaze": gaze,
            "afc": afc,
            "cwc": cwc,
            "disagreement": disagreement.float().mean(),
            "masked": masked.float().mean(),
        }

    return step


def train_student(
    prepared: Path,
    output: Path,
    history: Path,
    settings: StudentSettings,
    seed: int,
    threads: int,
    gpus: int,
    gaze: Path | None = None,
    quality: Path | None = None,
    explanations: Path | None = None,
    teacher: Path | None = None,
) -> None:
    """Train a student.

    With `settings.distil` it needs gaze, explanations and teacher; with labels "pseudomask" the
    gaze, less the samples that `quality` leaves out; with labels "mask" neither.
    """
    device = train.start(threads, gpus)
    index, data = samples.load_images(prepared, ("train",))
    inputs = {"prepared": prepared}
    guide = None
    if settings.distil:
        assert teacher is not None and explanations is not None
        inputs |= {"explanations": explanations, "teacher": teacher}
        samples.add_text(data, prepared, explanations, index)
        guide = models.load(teacher, "teacher").to(device)
    if settings.labels == "mask":
        samples.add_masks(data, prepared, index)
        data = samples.keep(
            data,
            data["has_mask"],
            prepared,
            "a mask",
            "add masks, or leave this experiment out of the data set's `experiments`",
        )
    else:
        assert gaze is not None
        inputs |= {"gaze": gaze} | ({"quality": quality} if quality else {})
        samples.add_pseudomasks(data, prepared, gaze, quality, index)
        data = samples.keep_looked_at(data, gaze)
    index, val = samples.load_images(prepared, ("val",))
    samples.add_masks(val, prepared, index)
    data, val = ({k: v.to(device) for k, v in batch.items()} for batch in (data, val))

    architecture = models.Architecture(
        role="student",
        channels=data["image"].shape[1],
        size=data["image"].shape[2:],
        widths=settings.widths,
        head_width=settings.head_width,
        teacher_widths=guide.architecture.widths[1:5] if guide else (),
    )
    model = cast(models.Student, models.build(architecture, seed)).to(device).train()
    generator = torch.Generator().manual_seed(seed)
    if guide is not None:
        step = distillation_step(model, guide, settings, generator)
    else:
        step = plain_step(model, "mask" if settings.labels == "mask" else "broad", generator)

    @torch.no_grad()
    def predict(batch: Batch) -> Tensor:
        logits: Tensor = model(batch["image"]).logits
        return logits[:, 1] > logits[:, 0]

    def validate() -> float:
        return train.validation_dice(predict, val, settings.batch_size)

    rows = train.fit(model, step, data, validate, settings, generator, "student")
    made = io.provenance("student", inputs, settings.model_dump(mode="json") | {"seed": seed})
    models.save(model, output, made)
    io.write_csv(rows, history)


if __name__ == "__main__":
    cli.run(train_student)
