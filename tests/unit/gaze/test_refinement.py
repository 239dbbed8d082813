"""The CRF with the settings of the project."""

import numpy as np
import torch
from conftest import disc

from stages.gaze.refinement import refine_with_crf
from stages.settings.parts import CrfSettings

CPU = torch.device("cpu")


def test_small_region_grows_to_the_image_edge():
    truth = disc((48, 48), (24, 24), 14)
    found = disc((48, 48), (24, 24), 10)
    image = np.where(truth, 180, 60).astype(np.uint8)[..., None].repeat(3, axis=2)
    # High probability in the middle, 0.5 around it.
    probability = np.where(found, 0.8, np.where(disc((48, 48), (24, 24), 20), 0.5, 0.1))
    refined = refine_with_crf(
        image,
        probability.astype(np.float32),
        (48, 48),
        CrfSettings(sxy=8, srgb=25, compat=12),
        CPU,
    )
    assert refined.shape == (48, 48)
    assert np.mean((refined >= 0.5) == truth) > 0.99


def test_std_scales_with_the_working_size(monkeypatch):
    seen = []
    monkeypatch.setattr(
        "stages.gaze.crf.refine", lambda image, heat, *, sxy, **_: seen.append(sxy) or heat
    )
    image, heat = np.zeros((32, 48, 3), np.uint8), np.zeros((32, 48), np.float32)
    refine_with_crf(image, heat, (64, 192), CrfSettings(sxy=80), CPU)
    # Half the height and a quarter of the width.
    assert [float(v) for v in seen[0]] == [40, 20]


def test_grey_image_is_scaled_to_its_full_range():
    grey = np.where(disc((32, 32), (16, 16), 8), 3.5, -1.5).astype(np.float32)[..., None]
    colour = np.where(grey > 0, 255, 0).astype(np.uint8).repeat(3, axis=2)
    heat = np.random.default_rng(0).random((32, 32), np.float32)
    pair = [
        refine_with_crf(image, heat, (32, 32), CrfSettings(sxy=8), CPU) for image in (grey, colour)
    ]
    np.testing.assert_array_equal(*pair)
