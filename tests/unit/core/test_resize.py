"""Resizing: value ranges, constant images, and masks."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from stages.core.resize import resize

sides = st.integers(1, 40)


@given(sides, sides, st.integers(0, 1000))
def test_float_images_keep_constants_and_stay_in_range(height, width, seed):
    flat = np.full((height, width, 2), 7.5, np.float32)
    assert np.allclose(resize(flat, (16, 32)), 7.5)
    image = np.random.default_rng(seed).uniform(-3, 5, (height, width)).astype(np.float32)
    resized = resize(image, (16, 32))
    assert (resized.shape, resized.dtype) == ((16, 32), np.float32)
    assert image.min() - 1e-4 <= resized.min() <= resized.max() <= image.max() + 1e-4


@given(sides, sides, st.data())
def test_uint8_images_stay_whole_numbers_close_to_the_exact_result(height, width, data):
    image = data.draw(arrays(np.uint8, (height, width, 3)))
    resized = resize(image, (16, 32))
    assert np.array_equal(resized, np.rint(resized))
    # Both passes, along rows and columns, round.
    assert abs(resized - resize(image.astype(np.float32), (16, 32))).max() <= 1.01


@given(sides, sides, st.data())
def test_a_mask_becomes_the_share_of_its_foreground(height, width, data):
    mask = data.draw(arrays(np.bool_, (height, width)))
    share = resize(mask, (16, 32))
    assert 0 <= share.min() <= share.max() <= 1
    assert abs(share - resize(mask.astype(np.float32), (16, 32))).max() <= 1.01 / 255
    assert (resize(np.full((height, width), True), (16, 32)) == 1).all()


def test_halving_weights_four_pixels_with_a_triangle_filter():
    # Bilinear with anti-aliasing at half the size: weights 1/8, 3/8, 3/8, 1/8 around each centre.
    row = np.array([[0, 0, 0, 8, 0, 0, 0, 0]], np.float32)
    assert resize(row, (1, 4))[0].tolist() == pytest.approx([0, 3, 1, 0])
