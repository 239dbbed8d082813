"""What a network trains on, as tensors, and the augmentation of a batch."""

from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from stages import io
from stages.cli import BadInput
from stages.exclusion import left_out
from stages.images import normalise

Batch = dict[str, Tensor]


def load_images(prepared: Path, split: tuple[str, ...]) -> tuple[np.ndarray, Batch]:
    """Read the samples of the named splits.

    Returns
    -------
    Their indices in the file, and `image` (n, C, H, W) float32, normalised.
    """
    with io.open_h5(prepared, "image", "split") as file:
        index = np.flatnonzero(np.isin(io.read_strings(file, "split"), split))
        return index, {"image": torch.from_numpy(normalise(file["image"][index]))}


def add_masks(batch: Batch, prepared: Path, index: np.ndarray) -> None:
    """Add `mask` (n, H, W) uint8 and `has_mask` (n,) bool."""
    with io.open_h5(prepared, "mask", "has_mask") as file:
        batch["mask"] = torch.from_numpy(file["mask"][index])
        batch["has_mask"] = torch.from_numpy(file["has_mask"][index])


def add_pseudomasks(
    batch: Batch, prepared: Path, gaze: Path, quality: Path | None, index: np.ndarray
) -> None:
    """Add `precise` and `broad` (n, H, W) uint8 and `has_gaze` (n,) bool.

    `has_gaze` is false, too, for the samples that the table `quality`, if given, leaves out.
    """
    names = ("pseudomask", "has_gaze", "sample_id")
    with io.open_h5(prepared, "sample_id") as source, io.open_h5(gaze, *names) as file:
        io.check_same_samples(source, file)
        levels = file["pseudomask"][index]
        has_gaze = file["has_gaze"][index]
        has_gaze &= ~left_out(quality, io.read_strings(file, "sample_id")[index])
    batch["precise"] = torch.from_numpy(levels[:, 0].copy())
    batch["broad"] = torch.from_numpy(levels[:, -1].copy())
    batch["has_gaze"] = torch.from_numpy(has_gaze)


def add_text(batch: Batch, prepared: Path, explanations: Path, index: np.ndarray) -> None:
    """Add `text` (n, K, D) float32, zeros where a sample has none."""
    with (
        io.open_h5(prepared, "sample_id") as source,
        io.open_h5(explanations, "embedding", "sample_id") as file,
    ):
        io.check_same_samples(source, file)
        batch["text"] = torch.from_numpy(file["embedding"][index])


def keep(batch: Batch, chosen: Tensor, where: Path, wanted: str, mend: str) -> Batch:
    """Keep the `chosen` (n,) samples, at least one.

    Raises
    ------
    BadInput
        None is chosen.
    """
    if not chosen.any():
        raise BadInput(
            where,
            "training split",
            found=f"no sample with {wanted}",
            expected="at least one",
            mend=mend,
        )
    return {name: values[chosen] for name, values in batch.items()}


def keep_looked_at(batch: Batch, gaze: Path) -> Batch:
    """`keep` the samples of `add_pseudomasks` that have gaze."""
    mend = "check where the gaze comes from, and the limits under `quality`"
    return keep(batch, batch["has_gaze"], gaze, "gaze", mend)


def flip(batch: Batch, generator: torch.Generator) -> Batch:
    """Flip each sample with its labels, horizontally and vertically, each with probability ½.

    The text of an explanation names no direction, so it stays true.
    """
    flipped = dict(batch)
    for axis in (-1, -2):
        coin = torch.rand(len(batch["image"]), generator=generator) < 0.5
        for name, values in flipped.items():
            if values.dim() >= 3 and name != "text":
                where = coin.reshape(-1, *[1] * (values.dim() - 1)).to(values.device)
                flipped[name] = torch.where(where, values.flip(axis), values)
    return flipped
