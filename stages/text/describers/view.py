"""What a vision-language model sees of an image and of the gaze on it."""

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from stages.core.resize import resize
from stages.settings.explain import ViewSettings
from stages.text.describers import Sample

Rgb = NDArray[np.uint8]

# Colours that neither tissue nor a grey scan has.
_GAZE, _LINE, _RIM = (255, 225, 0), (0, 255, 255), (0, 0, 0)
# Where the gaze was longest; a model is asked for the colour of what lies under the tint.
_OPACITY = 0.2
# A part of the image has at least this share of its height and width: a few pixels alone could
# not be described.
_SMALLEST = 1 / 8


class _Box(NamedTuple):
    """A part of an image, px, the ends not included."""

    rows: tuple[int, int]
    columns: tuple[int, int]

    def cut(self, array: NDArray[np.uint8]) -> NDArray[np.uint8]:
        return array[slice(*self.rows), slice(*self.columns)]


def _stretch(marked: NDArray[np.bool_], margin: float) -> tuple[int, int]:
    """Where `marked` has its first and behind its last True, with a margin, within the array."""
    side = len(marked)
    first, last = np.flatnonzero(marked)[[0, -1]].tolist()
    pad = round(margin * (last + 1 - first))
    start, end = max(first - pad, 0), min(last + 1 + pad, side)
    length = max(end - start, round(_SMALLEST * side))
    start = min(max(start - (length - (end - start)) // 2, 0), side - length)
    return start, start + length


def _box(sample: Sample, settings: ViewSettings) -> _Box:
    """Where the part of the image that is shown lies."""
    broad = sample.regions[-1] > 0
    if settings.show != "crop" or not broad.any():
        return _Box((0, broad.shape[0]), (0, broad.shape[1]))
    return _Box(
        _stretch(broad.any(axis=1), settings.margin), _stretch(broad.any(axis=0), settings.margin)
    )


def _outlined(sample: Sample, settings: ViewSettings) -> NDArray[np.uint8] | None:
    """Find the pseudomask whose outline is drawn, (H, W), if one is."""
    if settings.show == "image":
        return None
    levels = sample.regions if settings.show == "overlay" else sample.regions[-1:]
    return next((level for level in levels if level.any()), None)


def _draw(picture: Rgb, region: NDArray[np.bool_]) -> Rgb:
    """Draw a line around `region`, where it reaches the picture's border inside it."""
    width = max(1, round(max(region.shape) / 224))
    distance = ndimage.distance_transform_edt(~region)
    frame = np.ones_like(region)
    frame[width:-width, width:-width] = False
    line = ((distance > 0) & (distance <= width)) | (region & frame)
    drawn = picture.copy()
    # The rim keeps the line visible on a bright ground.
    drawn[(distance > width) & (distance <= width + 1)] = _RIM
    drawn[line] = _LINE
    return drawn


def show(sample: Sample, settings: ViewSettings) -> Rgb:
    """Draw what a model is shown of `sample`.

    overlay: the whole image, tinted yellow where the gaze was, the more the longer, and a cyan line
    around the precise pseudomask, or where that is empty around the next broader one that is not.
    crop: the part of the image around the broad pseudomask with `settings.margin`, at least an
    eighth of the image's height and width, and a cyan line around that pseudomask; the whole image
    where it is empty. image: the image alone.

    A line lies just outside of its region, so that the edge itself stays visible; where the region
    reaches the border, along the border. A region that is the whole image is framed.

    Returns
    -------
    (h, w, 3) uint8, the longer side of `settings.side`, in the shape of what is shown.
    """
    box = _box(sample, settings)
    image = box.cut(sample.image)
    scale = settings.side / max(image.shape[:2])
    height, width = (max(1, round(side * scale)) for side in image.shape[:2])
    picture = resize(image, (height, width))
    if settings.show == "overlay":
        heat = resize(sample.heatmap.astype(np.float32), (height, width))[..., None]
        picture += (np.array(_GAZE, np.float32) - picture) * heat.clip(0, 1) * _OPACITY
    drawn = np.rint(picture).astype(np.uint8)
    region = _outlined(sample, settings)
    if region is None:
        return drawn
    share = resize(box.cut(region).astype(np.float32), (height, width))
    # A region of a few pixels must not vanish where the picture is smaller than the image.
    return _draw(drawn, share >= min(0.5, share.max()))


def caption(sample: Sample, settings: ViewSettings) -> str:
    """Say in words for a model what `show` draws."""
    if settings.show == "image":
        return (
            "Nothing is marked in the picture. Describe the region that a clinician would look at "
            "longest."
        )
    line = "The cyan line was drawn around the region that you are to describe."
    if settings.show == "overlay":
        return (
            "A clinician looked at the image. The picture is tinted yellow where the gaze was, the "
            f"more the longer. {line} Tint and line are not part of the image: describe the "
            "colours as they are without them."
        )
    box = _box(sample, settings)
    (top, bottom), (left, right) = (
        (round(100 * first / side), round(100 * last / side))
        for (first, last), side in zip(box, sample.image.shape)
    )
    return (
        "The picture is the part of an image at which a clinician looked. It spans from "
        f"{left} to {right} percent of the image's width, counted from the left, and from {top} to "
        f"{bottom} percent of its height, counted from the top. {line} The line is not part of the "
        "image. Location and Area Percentage are asked of the whole image, not of this part."
    )
