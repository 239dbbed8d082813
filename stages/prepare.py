"""Raw images and masks → prepared.h5: one working size, one order, splits by subject."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from stages import cli, io, splits
from stages.cli import BadInput, Problems
from stages.datasets import Adapter, Pixels, Record, adapter
from stages.parallel import ordered
from stages.resize import resize
from stages.settings.prepare import PrepareSettings


@dataclass(frozen=True)
class Sample:
    """One sample as it goes into prepared.h5.

    Attributes
    ----------
    image
        (h, w, C) at the working size, uint8 or float32 as the raw image.
    mask
        (h, w) bool at the working size; None where there is none.
    original_mask
        (H, W) uint8 in {0, 1}; None where there is none.
    size
        H and W.
    spacing_mm
        Of the raw image's pixels, along y and x; NaN where unknown.
    digest
        Of the raw image's pixels; None for an image of one value.
    """

    image: NDArray[Any]
    mask: NDArray[np.bool_] | None
    original_mask: NDArray[np.uint8] | None
    size: tuple[int, int]
    spacing_mm: tuple[float, float]
    digest: str | None


def shrink(pixels: Pixels, size: tuple[int, int]) -> Sample:
    """Bring a sample to the working size; the mask is resized bilinearly and cut at one half."""
    image, drawn = resize(pixels.image, size), pixels.mask
    return Sample(
        image.astype(pixels.image.dtype),
        None if drawn is None else resize(drawn, size) >= 0.5,
        None if drawn is None else drawn.astype(np.uint8),
        pixels.image.shape[:2],
        pixels.spacing_mm,
        splits.digest(pixels),
    )


def list_samples(raw: Path, settings: PrepareSettings, problems: Problems) -> list[Record]:
    """List the samples of the raw folder, each with its subject and split.

    What is wrong goes to `problems`; the samples concerned may be missing in the list.
    """
    records = adapter(settings.layout).index(raw, problems)
    for record in records:
        with problems.collect():
            io.check_sample_id(record.sample_id, record.image)
    if not records and not problems:
        problems.append(
            BadInput(raw, "samples", found="none", expected="at least one", mend="add images")
        )
    return splits.place(records, settings, raw, problems)


def _kind(image: NDArray[Any]) -> tuple[Any, int]:
    return image.dtype, image.shape[2]


def _same_kind(image: NDArray[Any], kind: tuple[Any, int], record: Record) -> None:
    if (found := _kind(image)) != kind:
        raise BadInput(
            record.image,
            "pixels",
            found=f"{found[0]} with {found[1]} channels",
            expected=f"{kind[0]} with {kind[1]} channels, as the first image",
            mend="convert the images to one kind",
        )


def read_samples(
    raw: Path,
    records: list[Record],
    settings: PrepareSettings,
    threads: int,
    problems: Problems,
) -> Iterator[Sample | None]:
    """Read the samples, in their order; None where one cannot be used, which `problems` then holds.

    All images must be of one kind, and none in two splits: the latter is known after the last.
    """
    source: Adapter = adapter(settings.layout)

    def read(record: Record) -> Sample | BadInput:
        try:
            return shrink(source.read(record), settings.size)
        except BadInput as problem:
            return problem

    kind: tuple[Any, int] | None = None
    digests: list[str | None] = []
    for record, found in zip(records, ordered(read, records, threads), strict=True):
        sample = None
        with problems.collect():
            if isinstance(found, BadInput):
                raise found
            kind = kind or _kind(found.image)
            _same_kind(found.image, kind, record)
            sample = found
        digests.append(sample.digest if sample else None)
        yield sample
    splits.check_pixels(records, digests, raw, problems)


def prepare(raw: Path, output: Path, settings: PrepareSettings, threads: int) -> None:
    """Read every sample of the raw folder and write prepared.h5.

    The full-resolution masks are kept, one data set per sample, for the evaluation. Everything
    that is wrong with the folder is told at once, and nothing is then written.
    """
    problems = Problems()
    records = list_samples(raw, settings, problems)
    if not records:
        problems.stop()
    n, size = len(records), settings.size
    with io.create_h5(output, "prepare", {"raw": raw}, settings) as file:
        io.write_strings(file, "sample_id", [r.sample_id for r in records])
        io.write_strings(file, "subject_id", [r.subject_id for r in records])
        io.write_strings(file, "split", [r.split for r in records])
        mask = io.sample_dataset(file, "mask", (n, *size), np.uint8)
        has_mask = np.zeros(n, bool)
        original_size = np.zeros((n, 2), np.int32)
        spacing = np.full((n, 2), np.nan, np.float32)
        original = file.create_group("original_mask")

        samples = read_samples(raw, records, settings, threads, problems)
        for i, sample in enumerate(cli.progress(samples, "prepare", n)):
            if sample is None or problems:
                continue
            if i == 0:
                dtype, channels = _kind(sample.image)
                image = io.sample_dataset(file, "image", (n, *size, channels), dtype)
            image[i] = sample.image
            original_size[i] = sample.size
            spacing[i] = sample.spacing_mm
            if sample.mask is not None and sample.original_mask is not None:
                has_mask[i] = True
                mask[i] = sample.mask
                original.create_dataset(
                    records[i].sample_id,
                    data=sample.original_mask,
                    compression="gzip",
                    compression_opts=1,
                    chunks=sample.original_mask.shape,
                )
        problems.stop()
        if lacking := [r.sample_id for r, known in zip(records, has_mask) if not known]:
            cli.log.warning(
                "%d of %d samples have no mask, such as %s", len(lacking), n, lacking[0]
            )
        file["has_mask"] = has_mask
        file["original_size"] = original_size
        file["spacing_mm"] = spacing


if __name__ == "__main__":
    cli.run(prepare)
