"""The picture of an image and its gaze that a vision-language model gets, and its caption."""

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from stages.core.resize import resize
from stages.settings.explain import ViewSettings
from stages.text.describers import Sample

RgbImage = NDArray[np.uint8]

# Tissue and grey scans do not have these colours.
_GAZE_COLOUR, _LINE_COLOUR, _RIM_COLOUR = (255, 225, 0), (0, 255, 255), (0, 0, 0)
# Opacity where the gaze was longest; low, because the model must see the colours under the tint.
_GAZE_OPACITY = 0.2
# A crop has at least this share of the image's height and width: a few pixels alone are too little
# for a description.
_MIN_CROP_SHARE = 1 / 8


class _Box(NamedTuple):
    """A part of an image: start (inclusive) and end (exclusive), px."""

    rows: tuple[int, int]
    columns: tuple[int, int]

    def crop(self, array: NDArray[np.uint8]) -> NDArray[np.uint8]:
        return array[slice(*self.rows), slice(*self.columns)]


def _find_bounds(marked: NDArray[np.bool_], margin: float) -> tuple[int, int]:
    """Return start and end of the True values, with a margin, within the array."""
    side = len(marked)
    first, last = np.flatnonzero(marked)[[0, -1]].tolist()
    padding = round(margin * (last + 1 - first))
    start, end = max(first - padding, 0), min(last + 1 + padding, side)
    length = max(end - start, round(_MIN_CROP_SHARE * side))
    start = min(max(start - (length - (end - start)) // 2, 0), side - length)
    return start, start + length


def _find_visible_box(sample: Sample, settings: ViewSettings) -> _Box:
    """Return the part of the image that the picture shows."""
    broad = sample.pseudomasks[-1] > 0
    if settings.show != "crop" or not broad.any():
        return _Box((0, broad.shape[0]), (0, broad.shape[1]))
    return _Box(
        _find_bounds(broad.any(axis=1), settings.margin),
        _find_bounds(broad.any(axis=0), settings.margin),
    )


def _select_outlined_region(sample: Sample, settings: ViewSettings) -> NDArray[np.uint8] | None:
    """Return the pseudomask whose outline is drawn, (H, W), or None."""
    if settings.show == "image":
        return None
    levels = sample.pseudomasks if settings.show == "overlay" else sample.pseudomasks[-1:]
    return next((level for level in levels if level.any()), None)


def _draw_outline(picture: RgbImage, region: NDArray[np.bool_]) -> RgbImage:
    """Draw a line around `region`, and inside it along the picture's border."""
    width = max(1, round(max(region.shape) / 224))
    distance = ndimage.distance_transform_edt(~region)
    frame = np.ones_like(region)
    frame[width:-width, width:-width] = False
    line = ((distance > 0) & (distance <= width)) | (region & frame)
    drawn = picture.copy()
    # The rim keeps the line visible on a bright background.
    drawn[(distance > width) & (distance <= width + 1)] = _RIM_COLOUR
    drawn[line] = _LINE_COLOUR
    return drawn


def draw_view(sample: Sample, settings: ViewSettings) -> RgbImage:
    """Draw the picture of `sample` that a model sees.

    overlay: the whole image, with a yellow tint that is stronger where the gaze was longer, and a
    cyan line around the precise pseudomask, or if that is empty around the next broader one.
    crop: the part of the image around the broad pseudomask with `settings.margin`, at least an
    eighth of the image's height and width, and a cyan line around that pseudomask; the whole image
    if the pseudomask is empty. image: the image alone.

    A line lies just outside of its region, so that the edge itself stays visible. Where the region
    reaches the border of the image, the line follows the border. If the region is the whole image,
    the line is a frame.

    Returns
    -------
    (h, w, 3) uint8; the longer side has `settings.side` px, the aspect ratio is kept.
    """
    box = _find_visible_box(sample, settings)
    image = box.crop(sample.image)
    scale = settings.side / max(image.shape[:2])
    height, width = (max(1, round(side * scale)) for side in image.shape[:2])
    picture = resize(image, (height, width))
    if settings.show == "overlay":
        heat = resize(sample.heatmap.astype(np.float32), (height, width))[..., None]
        picture += (np.array(_GAZE_COLOUR, np.float32) - picture) * heat.clip(0, 1) * _GAZE_OPACITY
    drawn = np.rint(picture).astype(np.uint8)
    region = _select_outlined_region(sample, settings)
    if region is None:
        return drawn
    coverage = resize(box.crop(region).astype(np.float32), (height, width))
    # A region of a few pixels must not vanish if the picture is smaller than the image.
    return _draw_outline(drawn, coverage >= min(0.5, coverage.max()))


def caption(sample: Sample, settings: ViewSettings) -> str:
    """Return a text for the model that explains the picture of `draw_view`."""
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
    box = _find_visible_box(sample, settings)
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
