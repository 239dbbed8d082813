"""prepared.h5, gaze.h5 and, for distillation, a teacher → student.safetensors."""

import importlib
from pathlib import Path
from typing import cast

from torch import Tensor, nn

from stages.core import cli
from stages.networks import models
from stages.settings.modules import method_module
from stages.settings.training import StudentSettings
from stages.training import augment, loop, samples
from stages.training.encoder import load_encoder
from stages.training.methods import Method
from stages.training.samples import Batch, Column, Samples, normalise


def predict(model: nn.ModuleDict, batch: Batch) -> Tensor:
    """Return the predicted foreground (B, H, W) bool."""
    log_odds: Tensor = model["student"](normalise(batch["image"])).log_odds
    return log_odds > 0


def _check_inputs(inputs: dict[str, Path], settings: StudentSettings) -> None:
    required_inputs = {
        "gaze": settings.labels == "pseudomask",
        "explanations": settings.trains_teacher_jointly,
        "teacher": settings.needs_teacher,
        "pseudolabels": settings.reads_pseudolabels,
    }
    for name, required in required_inputs.items():
        if required and name not in inputs:
            raise cli.BadInput(
                f"--{name}", "option", found="none",
                expected=f"a file, for method: {settings.method}, labels: {settings.labels}",
                mend=f"add it, for example --{name} results/kvasir/{name}",
            )  # fmt: skip
    needs_widths = settings.trains_teacher_jointly and settings.encoder == "unet"
    if needs_widths and settings.teacher_widths is None:
        raise cli.BadInput(
            "--settings", "teacher_widths", found="none",
            expected=f"six numbers of channels, for method: {settings.method}",
            mend="copy `widths` of the experiment's `teacher`",
        )  # fmt: skip


def train_student(
    prepared: Path,
    output: Path,
    history: Path,
    settings: StudentSettings,
    seed: int,
    work: Path,
    threads: int,
    gpus: int,
    resident_mb: int,
    gaze: Path | None = None,
    quality: Path | None = None,
    explanations: Path | None = None,
    teacher: Path | None = None,
    pseudolabels: Path | None = None,
    encoder: Path | None = None,
) -> None:
    """Train a student by `settings.method`.

    Labels "mask" need no gaze. Labels "pseudomask" need `gaze`; the samples that `quality` excludes
    are not used. Some methods also need a `teacher`, its `pseudolabels` and, if the teacher reads
    text, `explanations`.
    """
    optional_inputs = {"gaze": gaze, "quality": quality, "explanations": explanations}
    optional_inputs |= {"teacher": teacher, "pseudolabels": pseudolabels, "encoder": encoder}
    inputs = {"prepared": prepared} | {name: path for name, path in optional_inputs.items() if path}
    _check_inputs(inputs, settings)
    pretrained = load_encoder(encoder, settings)
    device = loop.set_up_torch(threads, gpus)
    module = method_module(settings.method)
    modules = ("stages.training.student", module)
    run = loop.Run("student", inputs, settings, seed, device, output, history, work, modules)
    image, mask = Column(prepared, "image"), Column(prepared, "mask")
    columns = {"image": image}
    rows = samples.rows_in_splits(prepared, "train")
    if settings.labels == "mask":
        columns |= {"mask": mask}
        rows = samples.require_rows(
            samples.rows_with_mask(prepared, rows), prepared, "a mask",
            "add masks, or leave this experiment out of the data set's `experiments`",
        )  # fmt: skip
    else:
        columns |= {"pseudomask": samples.pseudomask_column(inputs["gaze"], settings.levels)}
        rows = samples.rows_with_gaze(prepared, inputs["gaze"], quality, rows)
    if explanations:
        columns |= {"text": Column(explanations, "embedding")}
        columns |= samples.text_mark_columns(explanations, settings.augment)
    if settings.reads_pseudolabels:
        columns |= {"pseudolabel": Column(inputs["pseudolabels"], "probability")}
    data = Samples(columns, rows, device, resident_mb)
    augment.check_size(settings.augment, data.shape("image")[1:], prepared)
    rows = samples.rows_with_mask(prepared, samples.rows_in_splits(prepared, "val"))
    val = Samples({"image": image, "mask": mask}, rows, device, resident_mb)

    architecture = models.Architecture(
        role="student",
        channels=data.shape("image")[0],
        size=data.shape("image")[1:],
        head_width=settings.head_width,
        **pretrained.architecture,
    )
    method = cast(Method, importlib.import_module(module))
    text_width = data.shape("text")[1] if explanations else 0
    model, step = method.make_model_and_step(
        settings, architecture, seed, device, teacher, text_width, pretrained.weights
    )
    model = model.to(device).train()
    table = loop.fit(run, model, step, predict, data, val)
    loop.save_results(run, cast(models.Student, model["student"]), table)


if __name__ == "__main__":
    cli.run(train_student)
