"""Samples for the networks: rows of HDF5 files, as batches of tensors."""

import math
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import h5py
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from stages.core import io, parallel
from stages.core.cli import BadInput, log
from stages.core.images import IMAGENET_MEAN, IMAGENET_STD
from stages.gaze.exclusion import excluded_samples
from stages.gaze.levels import cut_levels, spaced_thresholds
from stages.settings.training import AugmentSettings

Batch = dict[str, Tensor]
Rows = NDArray[np.int64]

# ImageNet's mean and standard deviation per channel, which the published loaders use for colour.


class Column(NamedTuple):
    """A data set of an HDF5 file, one row per sample.

    Attributes
    ----------
    thresholds
        If not empty, the data set holds maps, and reading cuts them at these thresholds.
    """

    path: Path
    name: str
    thresholds: tuple[float, ...] = ()

    def read(self, file: h5py.File, rows: Rows) -> NDArray[Any]:
        """Read rows from the opened file."""
        stored = file[self.name]
        values = np.empty((len(rows), *stored.shape[1:]), stored.dtype)
        # Row by row: HDF5 takes ten times as long for a list of rows.
        for i, row in enumerate(rows):
            values[i] = stored[row]
        return cut_levels(values, self.thresholds) if self.thresholds else values


def pseudomask_column(gaze: Path, levels: int | None) -> Column:
    """Return the column of pseudomasks: the stored ones or, with `levels`, cut from refined maps.

    Raises
    ------
    BadInput
        The file has only one threshold, so that no levels fit between two.
    """
    if levels is None:
        return Column(gaze, "pseudomask")
    with io.open_h5(gaze, "threshold", "refined") as file:
        thresholds = file["threshold"][()].tolist()
    try:
        return Column(gaze, "refined", spaced_thresholds(thresholds, levels))
    except ValueError as error:
        raise BadInput(
            gaze,
            "threshold",
            found=error,
            expected="a highest and a lowest threshold for `levels` to lie between",
            mend="list two or more under gaze.thresholds, or leave `levels` out",
        ) from None


def text_columns(explanations: Path | None, *, reads_text: bool) -> dict[str, Column]:
    """Return the column `text` if the network reads text, else nothing.

    Raises
    ------
    BadInput
        The network reads text, and there is no file.
    """
    if not reads_text:
        return {}
    if explanations is None:
        raise BadInput(
            "--explanations", "option", found="none", expected="a file: this teacher reads text",
            mend="add it, for example --explanations results/kvasir/explanations.h5",
        )  # fmt: skip
    return {"text": Column(explanations, "embedding")}


def text_mark_columns(explanations: Path, settings: AugmentSettings) -> dict[str, Column]:
    """Return the columns that mark the texts which the augmentation makes false, (K,) bool each.

    Raises
    ------
    BadInput
        The file has no such marks: an earlier version of this project wrote it.
    """
    names = settings.text_marks
    with io.open_h5(explanations) as file:
        if missing := [name for name in names if name not in file]:
            raise BadInput(
                explanations,
                "data sets",
                found=f"no {', '.join(missing)}",
                expected="marks of the texts that scale, shift or quarter_turns make false",
                mend="delete it and run snakemake again: an earlier version of this project wrote "
                "it; or set these three under `augment` to 0 and false",
            )
    return {name: Column(explanations, name) for name in names}


def rows_in_splits(prepared: Path, *splits: str) -> Rows:
    """Return the rows of the samples in the given splits."""
    with io.open_h5(prepared, "split") as file:
        return np.flatnonzero(np.isin(io.read_strings(file, "split"), splits))


def rows_with_mask(prepared: Path, rows: Rows) -> Rows:
    """Return those of `rows` that have a mask."""
    with io.open_h5(prepared, "has_mask") as file:
        usable: Rows = rows[file["has_mask"][()][rows]]
        return usable


def rows_with_gaze(prepared: Path, gaze: Path, quality: Path | None, rows: Rows) -> Rows:
    """Return those of `rows` that have gaze and that the table `quality` does not exclude.

    Raises
    ------
    BadInput
        No row is left, or the two files hold different samples.
    """
    with (
        io.open_h5(prepared, "sample_id") as first,
        io.open_h5(gaze, "has_gaze", "sample_id") as file,
    ):
        io.check_same_samples(first, file)
        usable = file["has_gaze"][()] & ~excluded_samples(
            quality, io.read_strings(file, "sample_id")
        )
    mend = "check the source of the gaze, and the limits under `quality`"
    return require_rows(rows[usable[rows]], gaze, "gaze", mend)


def require_rows(rows: Rows, path: Path, content: str, mend: str) -> Rows:
    """Return `rows` if there is at least one.

    Parameters
    ----------
    path
        File to name in the error message.
    content
        What the samples of `rows` have, as in "a mask".
    mend
        What the user can do, as an imperative sentence.

    Raises
    ------
    BadInput
        `rows` is empty.
    """
    if not len(rows):
        raise BadInput(
            path,
            "training split",
            found=f"no sample with {content}",
            expected="at least one",
            mend=mend,
        )
    return rows


class Samples:
    """Rows of several columns: kept on the device if they fit, else read when needed.

    Parameters
    ----------
    columns
        Name in a batch → column; one name is "image". All files must hold the same samples.
    rows
        Rows of the samples, ascending.
    device
        Device of the batches.
    resident_mb
        Largest memory on the device, in MB. Values keep their file's type: a colour image takes 3
        bytes per pixel.

    Raises
    ------
    BadInput
        A column is missing, or the files hold different samples.
    """

    def __init__(
        self,
        columns: Mapping[str, Column],
        rows: Rows,
        device: torch.device,
        resident_mb: float,
    ) -> None:
        self.rows, self.device = rows, device
        self._columns = columns
        self._shapes: dict[str, tuple[int, ...]] = {}
        size = 0
        with io.open_h5(columns["image"].path, "sample_id") as first:
            for name, column in columns.items():
                with io.open_h5(column.path, column.name, "sample_id") as file:
                    io.check_same_samples(first, file)
                    empty = column.read(file, rows[:0])
                    self._shapes[name] = shape = empty.shape[1:]
                    size += len(rows) * empty.dtype.itemsize * math.prod(shape)
        self.resident = size <= resident_mb * 1e6
        self._values: Batch = {}
        if self.resident:
            self._values = {name: v.to(device) for name, v in self._read(rows).items()}
        else:
            log.info("samples (%d MB) are read from the files when needed", size // 1_000_000)

    def names(self, indices: Tensor) -> list[str]:
        """Return the ids of samples."""
        with io.open_h5(self._columns["image"].path, "sample_id") as file:
            ids = io.read_strings(file, "sample_id")
        return [str(ids[row]) for row in self.rows[indices.numpy()]]

    def __len__(self) -> int:
        return len(self.rows)

    def shape(self, name: str) -> tuple[int, ...]:
        """Return the shape of one sample's values; for an image (C, H, W)."""
        shape = self._shapes[name]
        return (shape[2], *shape[:2]) if name == "image" else shape

    def _read(self, rows: Rows) -> Batch:
        """Read rows from the files."""
        batch = {}
        for name, column in self._columns.items():
            with io.open_h5(column.path, column.name) as file:
                values = torch.from_numpy(column.read(file, rows))
            # Augmentation is fastest with the channels first.
            batch[name] = values.permute(0, 3, 1, 2).contiguous() if name == "image" else values
        return batch

    def __getitem__(self, index: Tensor) -> Batch:
        """Return the batch of the samples `index`, positions in `rows`, (B,) int64 on the CPU.

        `image` is (B, C, H, W), uint8 or float32, not yet normalised.
        """
        if self.resident:
            index = index.to(self.device)
            return {name: v.index_select(0, index) for name, v in self._values.items()}
        batch = self._read(self.rows[index.numpy()])
        return {name: values.to(self.device) for name, values in batch.items()}

    def batches(self, indices: Iterable[Tensor]) -> Iterator[Batch]:
        """Return a batch per item of `indices`; if not on the device, the next is read ahead."""
        if self.resident:
            return (self[index] for index in indices)
        return parallel.ordered_map(self.__getitem__, indices, threads=1)


def normalise(images: Tensor) -> Tensor:
    """Normalise (B, C, H, W) images to float32 for the networks.

    uint8 colour: ImageNet's mean and std. float32: z-score per image; a constant image becomes 0.

    Raises
    ------
    ValueError
        A colour image is not uint8: it would be normalised like grey levels.
    """
    if images.dtype == torch.uint8:
        mean, std = (
            torch.tensor(v, device=images.device)[:, None, None] * 255
            for v in (IMAGENET_MEAN, IMAGENET_STD)
        )
        return (images - mean) / std
    if images.shape[1] == 3:
        raise ValueError(f"images of three channels must be uint8, found {images.dtype}")
    std, mean = torch.std_mean(images, dim=(1, 2, 3), correction=0, keepdim=True)
    return (images - mean) / torch.where(std > 0, std, 1)
