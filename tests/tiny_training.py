"""Trainings of seconds: twelve tiny images, and the two stages called on them."""

import numpy as np
import pandas as pd
import torch
from conftest import disc
from safetensors.torch import load_file

from stages.core import io
from stages.settings.training import PseudolabelSettings, StudentSettings, TeacherSettings
from stages.training.pseudolabels import make_pseudolabels
from stages.training.student import train_student
from stages.training.teacher import train_teacher

SIZE = (32, 32)
SPLIT = ["train"] * 8 + ["val"] * 2 + ["test"] * 2
# The first sample, validation and test have no gaze.
HAS_GAZE = np.array([0] + [1] * 7 + [0] * 4)
TINY = {
    "widths": (8,) * 6, "head_width": 8, "iterations": 3, "batch_size": 2, "log_every": 1,
    "validate_every": 2, "precision": "fp32",
}  # fmt: skip


def make_files(folder):
    """Make twelve images with a brighter disc, gaze on seven of them, two words of text each."""
    rng = np.random.default_rng(0)
    n, ids = len(SPLIT), [f"sample {i}" for i in range(len(SPLIT))]
    discs = [[disc(SIZE, (16, 10 + i), radius) for radius in (4, 6, 8)] for i in range(n)]
    precise, mask, broad = (np.array(masks, np.uint8) for masks in zip(*discs))
    paths = {name: folder / f"{name}.h5" for name in ("prepared", "gaze", "explanations")}
    with io.create_h5(paths["prepared"], "prepare", {}, {}) as file:
        image = io.create_sample_dataset(file, "image", (n, *SIZE, 3), np.uint8)
        image[...] = rng.integers(60, 100, (n, *SIZE, 3)) + 90 * mask[..., None]
        file["mask"], file["has_mask"] = mask, np.ones(n, bool)
        file["original_size"] = np.full((n, 2), 2 * np.array(SIZE))
        original = file.create_group("original_mask")
        for name, own in zip(ids, mask.repeat(2, axis=1).repeat(2, axis=2)):
            original[name] = own
        file["spacing_mm"] = np.full((n, 2), np.nan, np.float32)
        io.write_strings(file, "split", SPLIT)
        for name in ("sample_id", "subject_id"):
            io.write_strings(file, name, ids)
    with io.create_h5(paths["gaze"], "gaze", {}, {}) as file:
        file["pseudomask"] = np.stack([precise, broad], 1) * HAS_GAZE[:, None, None, None]
        refined = (0.3125 * broad + 0.125 * mask + 0.125 * precise) * HAS_GAZE[:, None, None]
        file["refined"] = refined.astype(np.float16)
        file["threshold"] = np.array([0.5, 0.3], np.float32)
        file["has_gaze"] = HAS_GAZE > 0
        io.write_strings(file, "sample_id", ids)
    with io.create_h5(paths["explanations"], "embed", {}, {}) as file:
        text = rng.normal(size=(n, 2, 16)) * HAS_GAZE[:, None, None]
        file["embedding"] = text.astype(np.float32)
        # The second word states a size.
        file["false_if_moved"] = np.tile([False, True], (n, 1))
        file["false_if_turned"] = np.zeros((n, 2), bool)
        io.write_strings(file, "sample_id", ids)
    return paths


def train_tiny_teacher(files, folder, seed=0, threads=1, gpus=0, **changes):
    """Train a teacher; return its weights file."""
    output = folder / "teacher.safetensors"
    train_teacher(
        **files,
        output=output,
        history=folder / "teacher_history.csv",
        settings=TeacherSettings(**TINY | changes),
        seed=seed,
        work=folder / "work",
        threads=threads,
        gpus=gpus,
        resident_mb=100,
    )
    return output


def make_tiny_pseudolabels(files, folder, teacher, crf):
    """Write the pseudolabels of a teacher; return their file."""
    output = folder / "pseudolabels.h5"
    named = {name: files[name] for name in ("prepared", "explanations") if name in files}
    make_pseudolabels(
        **named,
        teacher=teacher,
        output=output,
        settings=PseudolabelSettings(crf=crf),
        threads=1,
        gpus=0,
    )
    return output


def train_tiny_student(files, folder, teacher=None, seed=0, **changes):
    """Train a student, distilled if there is a `teacher`; return its weights file."""
    output = folder / "student.safetensors"
    method = "single" if teacher is None else "distilled"
    options = StudentSettings(**TINY | {"method": method} | changes)
    inputs = {"prepared": files["prepared"]}
    if options.labels == "pseudomask":
        inputs["gaze"] = files["gaze"]
    if options.needs_teacher or options.trains_teacher_jointly:
        inputs["explanations"] = files.get("explanations")
    if "encoder" in files:
        inputs["encoder"] = files["encoder"]
    if teacher is not None:
        inputs["teacher"] = teacher
    if options.reads_pseudolabels:
        inputs["pseudolabels"] = make_tiny_pseudolabels(files, folder, teacher, options.target_crf)
    train_student(
        **inputs,
        output=output,
        history=folder / "student_history.csv",
        settings=options,
        seed=seed,
        work=folder / "work",
        threads=1,
        gpus=0,
        resident_mb=100,
    )
    return output


def read_history(weights):
    return pd.read_csv(weights.with_name(f"{weights.stem}_history.csv"))


def same_weights(first, second):
    one, two = load_file(first), load_file(second)
    return all(torch.equal(one[name], two[name]) for name in one | two)
