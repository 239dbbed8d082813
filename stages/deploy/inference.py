"""Images of any size → foreground probability and uncertainty, by one student or several."""

from collections.abc import Iterable, Iterator, Sequence
from itertools import islice
from typing import Any, NamedTuple, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from stages.core.resize import resize, resize_keep_dtype
from stages.networks import models
from stages.training.samples import normalise

Key = TypeVar("Key")
# Axes of (B, C, H, W) to turn over, for each view of an image at test time.
FLIPS = ((), (3,), (2,), (2, 3))


class Maps(NamedTuple):
    """What students say about one image, at their working size.

    Attributes
    ----------
    probability
        (H, W) float16 in [0, 1]: the mean over students and views. predictions.h5 has the same
        rounding, so that a mask is exactly the one that `evaluate` scores.
    uncertainty
        (H, W) float32 in [0, 0.5]: the standard deviation (of the population) over students and
        views. None if it was not requested.
    """

    probability: NDArray[np.float16]
    uncertainty: NDArray[np.float32] | None


class Ensemble:
    """Students that read the same kind of images; often only one.

    Parameters
    ----------
    students
        Networks with the same channels and the same working size, on one device.
    uncertainty
        Let each student see four views of an image: as it is, and flipped left to right, top to
        bottom, and both. Probabilities are turned back before their mean and deviation.

    Raises
    ------
    ValueError
        The students differ in channels or size.
    """

    def __init__(self, students: Sequence[models.Student], *, uncertainty: bool = False) -> None:
        inputs = {(s.architecture.channels, s.architecture.size) for s in students}
        if len(inputs) != 1:
            raise ValueError(f"students with other channels or another size: {sorted(inputs)}")
        ((self.channels, self.size),) = inputs
        self.students, self.uncertainty = students, uncertainty

    def shrink(self, image: NDArray[Any]) -> NDArray[Any]:
        """Resize an image to the working size, and keep its dtype.

        Parameters
        ----------
        image
            (H, W, 3) uint8 RGB, or (H, W, 1) float32 for MR, CT and other grey images of more than
            8 bits; any size.

        Raises
        ------
        ValueError
            The students were trained on images with other channels or another dtype.
        """
        dtype = np.uint8 if self.channels == 3 else np.float32
        if image.ndim != 3 or image.shape[2] != self.channels or image.dtype != dtype:
            raise ValueError(
                f"image must be (H, W, {self.channels}) {dtype.__name__}, "
                f"found {image.shape} {image.dtype}"
            )
        return resize_keep_dtype(image, self.size)

    @torch.no_grad()
    def predict(self, batch: Tensor) -> list[Maps]:
        """Predict the maps of a batch (B, C, H, W), as `shrink` returns its images."""
        image = normalise(batch)
        views = FLIPS if self.uncertainty else FLIPS[:1]
        probabilities = torch.stack(
            [
                student(image.flip(axes)).log_odds.sigmoid().flip([axis - 1 for axis in axes])
                for student in self.students
                for axes in views
            ]
        )
        mean = probabilities.mean(dim=0).cpu().numpy().astype(np.float16)
        if not self.uncertainty:
            return [Maps(probability, None) for probability in mean]
        deviation = probabilities.std(dim=0, correction=0).cpu().numpy()
        return [Maps(*maps) for maps in zip(mean, deviation, strict=True)]

    def stream(
        self, images: Iterable[tuple[Key, NDArray[Any]]], batch_size: int
    ) -> Iterator[tuple[Key, Maps]]:
        """Yield key and maps of each (key, image as from `shrink`), in their order."""
        device = next(self.students[0].parameters()).device
        rest = iter(images)
        while batch := list(islice(rest, batch_size)):
            stacked = torch.from_numpy(np.stack([image for _, image in batch]))
            maps = self.predict(stacked.permute(0, 3, 1, 2).contiguous().to(device))
            yield from zip((key for key, _ in batch), maps, strict=True)


def segment(student: models.Student, image: NDArray[Any]) -> NDArray[np.float32]:
    """Predict the foreground probability of each pixel of an image.

    The result equals the pipeline's own prediction, resized to the image as `evaluate` does it. A
    pixel of `evaluate.THRESHOLD` (0.5) or more is foreground.

    Parameters
    ----------
    image
        As for `Ensemble.shrink`; `read_image` of `stages.data.datasets.files` and of `dicom` return
        such arrays.

    Returns
    -------
    (H, W) float32 in [0, 1].

    Raises
    ------
    ValueError
        As in `Ensemble.shrink`.
    """
    ensemble = Ensemble([student])
    (((), maps),) = ensemble.stream([((), ensemble.shrink(image))], 1)
    return resize(maps.probability, image.shape[:2])
