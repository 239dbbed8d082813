"""What a network trains on: rows of the data sets' HDF5 files, as batches of tensors."""

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
from stages.gaze.exclusion import left_out
from stages.gaze.levels import cut_levels, spaced_thresholds

Batch = dict[str, Tensor]
Rows = NDArray[np.int64]

# ImageNet's mean and standard deviation per channel, as the published loaders use them for colour.
_MEAN, _STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


class Column(NamedTuple):
    """A data set of a file, one row per sample.

    Attributes
    ----------
    thresholds
        Of a data set of maps: the levels at which they are cut as they are read.
    """

    path: Path
    name: str
    thresholds: tuple[float, ...] = ()

    def read(self, file: h5py.File, rows: Rows) -> NDArray[Any]:
        """Read rows from its opened file."""
        stored = file[self.name]
        values = np.empty((len(rows), *stored.shape[1:]), stored.dtype)
        # One by one: a list of rows takes HDF5 ten times as long.
        for i, row in enumerate(rows):
            values[i] = stored[row]
        return cut_levels(values, self.thresholds) if self.thresholds else values


def pseudomasks(gaze: Path, levels: int | None) -> Column:
    """Find a gaze file's own pseudomasks or, with `levels`, that many cut from its refined maps.

    Raises
    ------
    BadInput
        The file has one threshold, and nothing lies between.
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


def texts(explanations: Path | None, *, read: bool) -> dict[str, Column]:
    """Find the column `text`, for a network that reads it.

    Raises
    ------
    BadInput
        It reads text, and there is no file.
    """
    if not read:
        return {}
    if explanations is None:
        raise BadInput(
            "--explanations", "option", found="none", expected="a file, for a teacher with text",
            mend="name it, as in --explanations results/kvasir/explanations.h5",
        )  # fmt: skip
    return {"text": Column(explanations, "embedding")}


def rows_of(prepared: Path, *splits: str) -> Rows:
    """Rows of the samples of the named splits."""
    with io.open_h5(prepared, "split") as file:
        return np.flatnonzero(np.isin(io.read_strings(file, "split"), splits))


def with_mask(prepared: Path, rows: Rows) -> Rows:
    """Those of `rows` that have a mask."""
    with io.open_h5(prepared, "has_mask") as file:
        chosen: Rows = rows[file["has_mask"][()][rows]]
        return chosen


def with_gaze(prepared: Path, gaze: Path, quality: Path | None, rows: Rows) -> Rows:
    """Those of `rows` that have gaze and that the table `quality`, if given, does not leave out.

    Raises
    ------
    BadInput
        There is none, or the two files hold other samples.
    """
    with (
        io.open_h5(prepared, "sample_id") as first,
        io.open_h5(gaze, "has_gaze", "sample_id") as file,
    ):
        io.check_same_samples(first, file)
        chosen = file["has_gaze"][()] & ~left_out(quality, io.read_strings(file, "sample_id"))
    mend = "check where the gaze comes from, and the limits under `quality`"
    return at_least_one(rows[chosen[rows]], gaze, "gaze", mend)


def at_least_one(rows: Rows, where: Path, wanted: str, mend: str) -> Rows:
    """Pass `rows` on.

    Raises
    ------
    BadInput
        There is none.
    """
    if not len(rows):
        raise BadInput(
            where,
            "training split",
            found=f"no sample with {wanted}",
            expected="at least one",
            mend=mend,
        )
    return rows


class Samples:
    """Rows of several columns: on the device if they fit, else read as they are asked for.

    Parameters
    ----------
    columns
        Name in a batch → column; "image" is one of them. Their files hold the same samples.
    rows
        Which samples, ascending.
    device
        Where batches are.
    resident_mb
        What may stay on the device, in MB. Values stay in their file's type: a colour image takes
        3 bytes a pixel.

    Raises
    ------
    BadInput
        A file lacks its column or holds other samples than the first.
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
                    none = column.read(file, rows[:0])
                    self._shapes[name] = shape = none.shape[1:]
                    size += len(rows) * none.dtype.itemsize * math.prod(shape)
        self.resident = size <= resident_mb * 1e6
        self._values: Batch = {}
        if self.resident:
            self._values = {name: v.to(device) for name, v in self._read(rows).items()}
        else:
            log.info("%d MB of samples are read as they are needed", size // 1_000_000)

    def __len__(self) -> int:
        return len(self.rows)

    def shape(self, name: str) -> tuple[int, ...]:
        """Shape of one sample's values; of an image (C, H, W)."""
        shape = self._shapes[name]
        return (shape[2], *shape[:2]) if name == "image" else shape

    def _read(self, rows: Rows) -> Batch:
        """Read rows."""
        batch = {}
        for name, column in self._columns.items():
            with h5py.File(column.path, "r") as file:
                values = torch.from_numpy(column.read(file, rows))
            # What is done to a batch before the networks is fastest with the channels apart.
            batch[name] = values.permute(0, 3, 1, 2).contiguous() if name == "image" else values
        return batch

    def __getitem__(self, index: Tensor) -> Batch:
        """Batch of the samples `index` (B,) int64, on the CPU, counted among `rows`.

        `image` is (B, C, H, W), uint8 or float32, not yet normalised.
        """
        if self.resident:
            index = index.to(self.device)
            return {name: v.index_select(0, index) for name, v in self._values.items()}
        batch = self._read(self.rows[index.numpy()])
        return {name: values.to(self.device) for name, values in batch.items()}

    def batches(self, indices: Iterable[Tensor]) -> Iterator[Batch]:
        """Batches of many `indices`; what is not on the device is read ahead."""
        if self.resident:
            return (self[index] for index in indices)
        return parallel.ordered(self.__getitem__, indices, threads=1)


def normalise(images: Tensor) -> Tensor:
    """Normalise (B, C, H, W) images to float32 for the networks.

    uint8 colour: ImageNet's mean and std. float32: z-score per image; a constant one becomes 0.

    Raises
    ------
    ValueError
        Colour that is not uint8: it would be taken for grey levels.
    """
    if images.dtype == torch.uint8:
        mean, std = (
            torch.tensor(v, device=images.device)[:, None, None] * 255 for v in (_MEAN, _STD)
        )
        return (images - mean) / std
    if images.shape[1] == 3:
        raise ValueError(f"images of three channels must be uint8, found {images.dtype}")
    std, mean = torch.std_mean(images, dim=(1, 2, 3), correction=0, keepdim=True)
    return (images - mean) / torch.where(std > 0, std, 1)
