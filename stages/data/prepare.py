"""Raw images and masks → prepared.h5: one working size, one order, splits by subject."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from stages.core import cli, io
from stages.core.cli import BadInput, Problems
from stages.core.parallel import ordered
from stages.core.resize import as_seen, resize
from stages.data import splits
from stages.data.datasets import Adapter, Pixels, Record, adapter, layouts
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
    drawn = pixels.mask
    return Sample(
        as_seen(pixels.image, size),
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


def _kind(image: NDArray[Any]) -> str:
    return "colour" if image.shape[2] == 3 else "grey of more than 8 bits"


def _check_kinds(kinds: dict[str, list[str]], raw: Path) -> None:
    if len(kinds) > 1:
        found = (f"{len(names)} {kind}: {cli.name_some(names, 5)}" for kind, names in kinds.items())
        raise BadInput(
            raw,
            "images",
            found="; ".join(found),
            expected="one kind",
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

    kinds: dict[str, list[str]] = {}
    digests: list[str | None] = []
    for record, found in zip(records, ordered(read, records, threads), strict=True):
        sample = None
        with problems.collect():
            if isinstance(found, BadInput):
                raise found
            kinds.setdefault(_kind(found.image), []).append(record.sample_id)
            sample = found
        digests.append(sample.digest if sample else None)
        # What follows another kind cannot be stored with the first.
        yield sample if len(kinds) == 1 else None
    with problems.collect():
        _check_kinds(kinds, raw)
    splits.check_pixels(records, digests, settings, raw, problems)


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
    entries = layouts.present(settings.layout, raw, settings.split == "drawn")
    inputs = {entry.name: entry for entry in entries}
    with io.create_h5(output, "prepare", inputs, settings) as file:
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
                shape, dtype = sample.image.shape, sample.image.dtype
                image = io.sample_dataset(file, "image", (n, *shape), dtype)
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
        cli.log.info("%d of %d samples have a mask", has_mask.sum(), n)
        file["has_mask"] = has_mask
        file["original_size"] = original_size
        file["spacing_mm"] = spacing


if __name__ == "__main__":
    cli.run(prepare)
