"""Compare two masks of one image: Dice, IoU and surface distances."""

import math
from typing import Any, NamedTuple

import numpy as np
from medpy.metric import binary
from numpy.typing import NDArray

Mask = NDArray[np.bool_]
# Height and width of a pixel.
Spacing = tuple[float, float]


class Scores(NamedTuple):
    """Scores of one prediction against the true mask; distances that do not exist are NaN."""

    dice: float
    iou: float
    hd95: float
    asd: float
    note: str


def dice(truth: Mask, prediction: Mask) -> float:
    """Return the Dice coefficient 2 |T ∩ P| / (|T| + |P|), in [0, 1]; 1 if both masks are empty."""
    total = np.count_nonzero(truth) + np.count_nonzero(prediction)
    return float(2 * np.count_nonzero(truth & prediction) / total) if total else 1.0


def iou(truth: Mask, prediction: Mask) -> float:
    """Return intersection over union |T ∩ P| / |T ∪ P|, in [0, 1]; 1 if both masks are empty."""
    union = np.count_nonzero(truth | prediction)
    return float(np.count_nonzero(truth & prediction) / union) if union else 1.0


def surface_distances(truth: Mask, prediction: Mask, spacing: Spacing) -> tuple[float, float]:
    """Return the 95th percentile (HD95) and the mean (ASD) of distances between two surfaces.

    The surface of a mask is its pixels with a background pixel among their four neighbours (the
    outside of the image is background). For each surface pixel of each mask the distance to the
    nearest surface pixel of the other mask is measured, between pixel centres, and the distances
    of both directions are pooled. HD95 is their 95th percentile (`medpy.metric.binary.hd95`; other
    tools take the larger of one percentile per direction), ASD their mean. So ASD is medpy's
    symmetric `assd`, not its one-directional `asd`.

    Parameters
    ----------
    truth, prediction
        (H, W) bool.
    spacing
        Height and width of a pixel; (1, 1) for distances in pixels.

    Returns
    -------
    HD95 and ASD in the unit of `spacing`; both are 0 if both masks are empty, NaN if one is.
    """
    if truth.any() != prediction.any():
        return math.nan, math.nan
    if not truth.any():
        return 0.0, 0.0
    # Crop to both masks: the distance transforms are slow, and pixels outside change nothing.
    box = _bounding_box(truth | prediction)
    pair = (prediction[box], truth[box])
    return (
        float(binary.hd95(*pair, voxelspacing=spacing)),
        float(binary.assd(*pair, voxelspacing=spacing)),
    )


def _bounding_box(mask: Mask) -> tuple[slice, ...]:
    """Return the row and column slices of the bounding box of a mask that is not empty."""
    occupied = (np.flatnonzero(mask.any(axis=axis)) for axis in (1, 0))
    return tuple(slice(int(where[0]), int(where[-1]) + 1) for where in occupied)


def score(truth: Mask, prediction: Mask, spacing: Spacing = (1.0, 1.0)) -> Scores:
    """Return all scores of one image.

    ========== =============== ========= ============ ==================
    truth      prediction      Dice, IoU HD95, ASD    note
    ========== =============== ========= ============ ==================
    some       some            in [0, 1] ≥ 0          (empty)
    none       none            1         0            "both empty"
    none       some            0         NaN          "empty truth"
    some       none            0         NaN          "empty prediction"
    ========== =============== ========= ============ ==================

    Parameters
    ----------
    truth, prediction
        (H, W) bool, at the original resolution.
    spacing
        Height and width of a pixel, in the unit of the returned distances.

    Raises
    ------
    ValueError
        The masks have different shapes.
    """
    if truth.shape != prediction.shape:
        raise ValueError(f"truth {truth.shape} and prediction {prediction.shape} differ in shape")
    notes = {
        (True, True): "",
        (False, False): "both empty",
        (False, True): "empty truth",
        (True, False): "empty prediction",
    }
    note = notes[bool(truth.any()), bool(prediction.any())]
    hd95, asd = surface_distances(truth, prediction, spacing)
    return Scores(dice(truth, prediction), iou(truth, prediction), hd95, asd, note)


def image_diagonal(shape: tuple[int, ...], spacing: Spacing) -> float:
    """Return the length of the image diagonal, the penalty for a distance that does not exist."""
    return math.hypot(shape[0] * spacing[0], shape[1] * spacing[1])


def spacing_and_unit(spacing_mm: NDArray[Any]) -> tuple[Spacing, str]:
    """Return spacing and unit of distances: ``(y, x), "mm"`` if known, else ``(1, 1), "px"``."""
    if np.isfinite(spacing_mm).all():
        return (float(spacing_mm[0]), float(spacing_mm[1])), "mm"
    return (1.0, 1.0), "px"
