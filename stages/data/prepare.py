"""Raw images and masks → prepared.h5: one working size, a fixed order, splits by subject."""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from stages.core import cli, io
from stages.core.cli import BadInput, Problems
from stages.core.parallel import ordered_map
from stages.core.resize import resize, resize_keep_dtype
from stages.data import splits
from stages.data.datasets import Adapter, RawSample, Record, layouts, load_adapter
from stages.data.datasets.labels import Labels
from stages.settings.prepare import PrepareSettings


@dataclass(frozen=True)
class PreparedSample:
    """One sample as prepared.h5 stores it.

    Attributes
    ----------
    image
        (h, w, C) at the working size, with the dtype of the raw image, uint8 or float32.
    mask
        (h, w) bool at the working size; None if the sample has no mask.
    original_mask
        (H, W) uint8 in {0, 1}; None if the sample has no mask.
    size
        Height and width of the raw image, H and W.
    spacing_mm
        Pixel spacing of the raw image along y and x, mm; NaN if unknown.
    pixel_digest
        Hash of the raw pixels; None for an image of one value.
    """

    image: NDArray[Any]
    mask: NDArray[np.bool_] | None
    original_mask: NDArray[np.uint8] | None
    size: tuple[int, int]
    spacing_mm: tuple[float, float]
    pixel_digest: str | None


def resize_sample(raw_sample: RawSample, size: tuple[int, int]) -> PreparedSample:
    """Resize a sample to the working size; the mask bilinearly, with a threshold of one half."""
    mask = raw_sample.mask
    return PreparedSample(
        resize_keep_dtype(raw_sample.image, size),
        None if mask is None else resize(mask, size) >= 0.5,
        None if mask is None else mask.astype(np.uint8),
        raw_sample.image.shape[:2],
        raw_sample.spacing_mm,
        splits.pixel_digest(raw_sample),
    )


def list_samples(raw: Path, settings: PrepareSettings, problems: Problems) -> list[Record]:
    """List the samples of the raw folder, each with its subject and split.

    `problems` receives all problems; their samples may be missing from the list.
    """
    records = []
    adapter, options = load_adapter(settings.layout), settings.layout_options()
    for record in adapter.list_records(raw, problems, **options):
        # No file can hold an id that is not valid text, so it goes no further.
        with problems.collect():
            io.check_sample_id(record.sample_id, record.image)
            records.append(record)
    if not records and not problems:
        problems.append(
            BadInput(raw, "samples", found="none", expected="at least one", mend="add images")
        )
    return splits.assign_splits(records, settings, raw, problems)


def _choose_labels(records: list[Record], settings: PrepareSettings) -> list[Record]:
    """Give each record the labels that count as foreground, unless its layout names them."""
    if settings.foreground is None:
        return records
    labels = Labels([label for label in settings.foreground if isinstance(label, int)])
    return [record if record.labels else replace(record, labels=labels) for record in records]


def _image_kind(image: NDArray[Any]) -> str:
    return "colour" if image.shape[2] == 3 else "grey of more than 8 bits"


def _check_one_kind(kinds: dict[str, list[str]], raw: Path) -> None:
    if len(kinds) > 1:
        found = (
            f"{len(names)} {kind}: {cli.list_names(names, 5)}" for kind, names in kinds.items()
        )
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
) -> Iterator[PreparedSample | None]:
    """Read the samples in order; yield None for a sample with a problem, which `problems` receives.

    All images must be of one kind, and none may be in two splits, and some mask must hold the
    foreground's labels, if these are chosen, which is checked after the last.
    """
    records = _choose_labels(records, settings)
    source: Adapter = load_adapter(settings.layout)

    def read(record: Record) -> PreparedSample | BadInput:
        try:
            return resize_sample(source.read(record), settings.size)
        except BadInput as problem:
            return problem

    kinds: dict[str, list[str]] = {}
    digests: list[str | None] = []
    for record, found in zip(records, ordered_map(read, records, threads), strict=True):
        sample = None
        with problems.collect():
            if isinstance(found, BadInput):
                raise found
            kinds.setdefault(_image_kind(found.image), []).append(record.sample_id)
            sample = found
        digests.append(sample.pixel_digest if sample else None)
        # Images of two kinds cannot be stored together.
        yield sample if len(kinds) == 1 else None
    with problems.collect():
        _check_one_kind(kinds, raw)
    for labels in {record.labels for record in records if record.labels}:
        with problems.collect():
            labels.check_found(raw)
    splits.check_duplicate_images(records, digests, settings, raw, problems)


def prepare(raw: Path, output: Path, settings: PrepareSettings, threads: int) -> None:
    """Read all samples of the raw folder and write prepared.h5.

    For the evaluation the file also holds the masks at full resolution, one dataset per sample.

    Raises
    ------
    BadInput
        All problems of the raw folder, in one message; no file is then written.
    """
    problems = Problems()
    records = list_samples(raw, settings, problems)
    if not records:
        problems.raise_all()
    n, size = len(records), settings.size
    entries = layouts.list_inputs(settings.layout, raw, settings.split == "drawn")
    inputs = {entry.name: entry for entry in entries}
    with io.create_h5(output, "prepare", inputs, settings) as file:
        io.write_strings(file, "sample_id", [r.sample_id for r in records])
        io.write_strings(file, "subject_id", [r.subject_id for r in records])
        io.write_strings(file, "split", [r.split for r in records])
        mask = io.create_sample_dataset(file, "mask", (n, *size), np.uint8)
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
                image = io.create_sample_dataset(file, "image", (n, *shape), dtype)
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
        problems.raise_all()
        cli.log.info("%d of %d samples have a mask", has_mask.sum(), n)
        file["has_mask"] = has_mask
        file["original_size"] = original_size
        file["spacing_mm"] = spacing


if __name__ == "__main__":
    cli.run(prepare)
