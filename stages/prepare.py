"""Raw images and masks → prepared.h5: one working size, one order, splits by subject."""

import importlib
from pathlib import Path
from typing import Any, cast

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from stages import cli, io
from stages.datasets import Adapter, Pixels, Record
from stages.settings.prepare import PrepareSettings


def resize(image: NDArray[Any], size: tuple[int, int]) -> NDArray[np.float32]:
    """Resize a (H, W) or (H, W, C) array to `size` (height, width), bilinear, anti-aliased.

    Returns
    -------
    float32 array of the same number of axes, within the range of `image`.
    """
    planes = image.reshape(*image.shape[:2], -1).astype(np.float32)
    height, width = size
    resized = [
        np.asarray(
            Image.fromarray(planes[..., c]).resize((width, height), Image.Resampling.BILINEAR)
        )
        for c in range(planes.shape[-1])
    ]
    return np.stack(resized, axis=-1).reshape(*size, *image.shape[2:])


def draw_validation(records: list[Record], fraction: float, seed: int) -> list[str]:
    """Split of each record, with some training subjects moved to validation.

    Parameters
    ----------
    records
        Samples with the published split.
    fraction
        Share of the training subjects to move, rounded; at least one where `fraction` > 0 and
        there are two to choose from.
    seed
        Of the draw.

    Returns
    -------
    "train", "val" or "test" per record; all samples of a subject are in one split.
    """
    subjects = sorted({r.subject_id for r in records if r.split == "train"})
    count = round(fraction * len(subjects))
    if fraction > 0 and len(subjects) > 1:
        count = max(count, 1)
    chosen = set(np.random.default_rng(seed).permutation(np.array(subjects, object))[:count])
    return ["val" if r.split == "train" and r.subject_id in chosen else r.split for r in records]


def _check(records: list[Record], root: Path) -> None:
    if not records:
        raise cli.BadInput(
            root, "samples", found="none", expected="at least one", mend="fill train.txt"
        )
    seen: set[str] = set()
    for record in records:
        io.check_sample_id(record.sample_id, record.image)
        if record.sample_id in seen:
            raise cli.BadInput(
                root,
                "sample ids",
                found=f"{record.sample_id!r} twice",
                expected="each once",
                mend="delete one of the two lines of the split files",
            )
        seen.add(record.sample_id)


def _same_kind(pixels: Pixels, kind: tuple[Any, int], record: Record) -> None:
    found = (pixels.image.dtype, pixels.image.shape[2])
    if found != kind:
        raise cli.BadInput(
            record.image,
            "pixels",
            found=f"{found[0]} with {found[1]} channels",
            expected=f"{kind[0]} with {kind[1]} channels, as the first image",
            mend="convert the images to one kind",
        )


def prepare(raw: Path, output: Path, settings: PrepareSettings) -> None:
    """Read every sample of the raw folder and write prepared.h5.

    Masks are resized bilinearly and cut at one half. The full-resolution masks are kept, one data
    set per sample, for the evaluation.
    """
    adapter = cast(Adapter, importlib.import_module(f"stages.datasets.{settings.layout}"))
    records = adapter.index(raw)
    _check(records, raw)
    n, (height, width) = len(records), settings.size
    first = adapter.read(records[0]).image
    kind = (first.dtype, first.shape[2])

    with io.create_h5(output, "prepare", {"raw": raw}, settings) as file:
        io.write_strings(file, "sample_id", [r.sample_id for r in records])
        io.write_strings(file, "subject_id", [r.subject_id for r in records])
        split = draw_validation(records, settings.val_fraction, settings.split_seed)
        io.write_strings(file, "split", split)
        image = io.sample_dataset(file, "image", (n, height, width, kind[1]), kind[0])
        mask = io.sample_dataset(file, "mask", (n, height, width), np.uint8)
        has_mask = np.zeros(n, bool)
        original_size = np.zeros((n, 2), np.int32)
        spacing = np.full((n, 2), np.nan, np.float32)
        original = file.create_group("original_mask")

        for i, record in enumerate(cli.progress(records, "prepare")):
            pixels = adapter.read(record)
            _same_kind(pixels, kind, record)
            resized = resize(pixels.image, settings.size)
            image[i] = np.rint(resized).astype(kind[0]) if kind[0] == np.uint8 else resized
            original_size[i] = pixels.image.shape[:2]
            spacing[i] = pixels.spacing_mm
            if pixels.mask is not None:
                has_mask[i] = True
                mask[i] = resize(pixels.mask, settings.size) >= 0.5
                original.create_dataset(
                    record.sample_id,
                    data=pixels.mask.astype(np.uint8),
                    compression="gzip",
                    compression_opts=1,
                    chunks=pixels.mask.shape,
                )
        if lacking := [r.sample_id for r, known in zip(records, has_mask) if not known]:
            cli.log.warning(
                "%d of %d samples have no mask, such as %s", len(lacking), n, lacking[0]
            )
        file["has_mask"] = has_mask
        file["original_size"] = original_size
        file["spacing_mm"] = spacing


if __name__ == "__main__":
    cli.run(prepare)
