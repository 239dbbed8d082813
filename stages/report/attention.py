"""Where the teacher reads each sentence: cross-attention in the report."""

from collections.abc import Sequence
from pathlib import Path

import h5py
import numpy as np
from numpy.typing import NDArray

from stages.core import io
from stages.core.images import to_rgb8
from stages.core.resize import resize
from stages.report import figures
from stages.report.page import Picture, Shown
from stages.settings.predict import ATTENTION
from stages.settings.report import Training

_SPLITS = {"val": "validation", "test": "test"}


def against_even(
    maps: Sequence[NDArray[np.floating]], size: tuple[int, int]
) -> NDArray[np.float64]:
    """Compare the attention to one sample's text with an even one.

    Parameters
    ----------
    maps
        One (K, h, w) per scale: the share of each of K text tokens at a position, with sum 1.
    size
        Height and width to bring the scales to.

    Returns
    -------
    (K, H, W) in [0, K]: K times the mean of the shares over the scales; 1 where a token is read as
    much as the others on average.
    """
    scales = [[resize(share, size) for share in shares] for shares in maps]
    ratios: NDArray[np.float64] = len(maps[0]) * np.array(scales, np.float64).mean(axis=0)
    return ratios


def _show(
    prepared: h5py.File, gaze: h5py.File, explanations: h5py.File, predictions: h5py.File, k: int
) -> Shown:
    sample_id = predictions["sample_id"].asstr()[k]
    found = f"{sample_id!r}, which {prepared.filename} lacks"
    i = io.find_sample(prepared, sample_id, where=predictions.filename, found=found)
    fields = [
        name.replace("_", " ") or f"token {number}"
        for number, name in enumerate(explanations.attrs["fields"], start=1)
    ]
    ratios = against_even([predictions[name][k] for name in ATTENTION], prepared["mask"].shape[1:])
    png = figures.attention_strip(
        to_rgb8(prepared["image"][i]), ratios, fields, gaze["pseudomask"][i, -1] > 0
    )
    sentences = [
        f"{field.capitalize()}: {text}"
        for field, text in zip(fields, explanations["text"].asstr()[i], strict=True)
        if text
    ]
    alt = f"for each of {', '.join(fields)}: where the teacher reads it"
    split = _SPLITS[predictions["split"].asstr()[k]]
    return Shown(sample_id, f"{split} image", Picture(png, alt), sentences)


def attention(
    prepared: h5py.File, gaze: h5py.File, explanations: h5py.File, trained: Training, file: Path
) -> tuple[list[Shown], str]:
    """Show where one training's teacher reads the text of up to two predicted images.

    Parameters
    ----------
    prepared, gaze, explanations
        Files of one data set.
    trained, file
        The training, and its predictions.h5, with attention.

    Returns
    -------
    The first and the last image with text, and the caption.

    Raises
    ------
    BadInput
        The predictions are of other samples.
    """
    with io.open_h5(file, "sample_id", "split", *ATTENTION) as predictions:
        coarsest = predictions[ATTENTION[-1]]
        tokens = coarsest.shape[1]
        if tokens == 1:
            return [], "An image's text is one token, and every position reads all of it."
        told = np.flatnonzero(coarsest[()].any(axis=(1, 2, 3)))
        if not len(told):
            return [], "No validation or test image has a text to read."
        chosen = sorted({int(told[0]), int(told[-1])})
        shown = [_show(prepared, gaze, explanations, predictions, k) for k in chosen]
    which = "first and last" if len(shown) > 1 else "only"
    return shown, (
        f"The {which} of the {len(told)} validation and test images with text. In each panel, "
        f"where the teacher of “{trained.experiment}” (seed {trained.seed}) reads one sentence: "
        "its share of the cross-attention, averaged over heads and the four scales, against an "
        f"even share of 1/{tokens}. Orange: read more; purple: less; no colour: as much; the full "
        "colour is the image's largest deviation. At a position the shares of all sentences sum "
        "to 1. Attention tells what is read, not what the answer rests on."
    )
