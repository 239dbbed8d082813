"""The teacher's cross-attention to each sentence, as figures of the report."""

from collections.abc import Sequence
from pathlib import Path

import h5py
import numpy as np
from numpy.typing import NDArray

from stages.core import io
from stages.core.images import to_rgb8
from stages.core.resize import resize
from stages.report import figures
from stages.report.page import Picture, SampleFigure
from stages.settings.predict import ATTENTION_DATASETS
from stages.settings.report import ReportTraining

_SPLIT_NAMES = {"val": "validation", "test": "test"}


def relative_attention(
    maps: Sequence[NDArray[np.floating]], size: tuple[int, int]
) -> NDArray[np.float64]:
    """Return the attention to the text of one sample, relative to even attention.

    Parameters
    ----------
    maps
        One (K, h, w) per scale: the weights of K text tokens, with sum 1 at each position.
    size
        Height H and width W to which the scales are resized.

    Returns
    -------
    (K, H, W) in [0, K]: K times the mean weight over the scales. It is 1 where the weight of a
    token is 1/K.
    """
    scales = [[resize(weight, size) for weight in weights] for weights in maps]
    ratios: NDArray[np.float64] = len(maps[0]) * np.array(scales, np.float64).mean(axis=0)
    return ratios


def _sample_figure(
    prepared: h5py.File, gaze: h5py.File, explanations: h5py.File, predictions: h5py.File, k: int
) -> SampleFigure:
    sample_id = predictions["sample_id"].asstr()[k]
    found = f"{sample_id!r}, which {prepared.filename} lacks"
    i = io.find_sample_index(prepared, sample_id, where=predictions.filename, found=found)
    fields = [
        name.replace("_", " ") or f"token {number}"
        for number, name in enumerate(explanations.attrs["fields"], start=1)
    ]
    ratios = relative_attention(
        [predictions[name][k] for name in ATTENTION_DATASETS], prepared["mask"].shape[1:]
    )
    png = figures.draw_attention_strip(
        to_rgb8(prepared["image"][i]), ratios, fields, gaze["pseudomask"][i, -1] > 0
    )
    sentences = [
        f"{field.capitalize()}: {text}"
        for field, text in zip(fields, explanations["text"].asstr()[i], strict=True)
        if text
    ]
    alt = f"attention of the teacher to each of: {', '.join(fields)}"
    split = _SPLIT_NAMES[predictions["split"].asstr()[k]]
    return SampleFigure(sample_id, f"{split} image", Picture(png, alt), sentences)


def attention_figures(
    prepared: h5py.File,
    gaze: h5py.File,
    explanations: h5py.File,
    training: ReportTraining,
    file: Path,
) -> tuple[list[SampleFigure], str]:
    """Draw the attention of a training's teacher to the text of up to two predicted images.

    Parameters
    ----------
    prepared, gaze, explanations
        The files of one data set.
    training, file
        A training and its predictions.h5, which holds attention.

    Returns
    -------
    The first and the last image with text, and a caption.

    Raises
    ------
    BadInput
        prepared.h5 lacks a predicted sample.
    """
    with io.open_h5(file, "sample_id", "split", *ATTENTION_DATASETS) as predictions:
        coarsest = predictions[ATTENTION_DATASETS[-1]]
        tokens = coarsest.shape[1]
        if tokens == 1:
            return (
                [],
                "The text of an image is a single token: all attention is on it.",
            )
        # Row by row: the maps of all images may not fit into memory.
        with_text = np.flatnonzero([coarsest[k].any() for k in range(len(coarsest))])
        if not len(with_text):
            return [], "No validation or test image has a text."
        chosen = sorted({int(with_text[0]), int(with_text[-1])})
        samples = [_sample_figure(prepared, gaze, explanations, predictions, k) for k in chosen]
    images = (
        f"The first and last of the {len(with_text)} validation and test images with text."
        if len(samples) > 1
        else "The only validation or test image with text."
    )
    return samples, (
        f"{images} Each panel shows the cross-attention of the teacher of “{training.experiment}” "
        f"(seed {training.seed}) to one sentence, averaged over heads and the four scales, "
        f"relative to an even weight of 1/{tokens}. Orange: above; purple: below; no colour: "
        "equal; the full colour is the largest deviation in the image. At each position, the "
        "weights of all sentences sum to 1. Attention shows what the teacher reads, not what its "
        "prediction depends on."
    )
