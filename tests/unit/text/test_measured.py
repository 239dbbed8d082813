"""The sentences of the measuring backend: correct on a disc, and valid for a flipped image."""

import re

import numpy as np
import pytest
from conftest import disc
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import ndimage

from stages.text.describers.measured import describe_region

DIRECTIONS = {
    "left", "right", "upper", "lower", "up", "down", "above", "below", "top", "bottom", "middle",
    "superior", "inferior", "north", "south", "east", "west", "horizontal", "vertical",
}  # fmt: skip
GREY, RED = (100, 100, 100), (180, 40, 40)


def scene(region, inside=RED, outside=GREY):
    image = np.empty((*region.shape, 3), np.uint8)
    image[:], image[region] = outside, inside
    return image


def levels(*regions):
    return np.stack(regions).astype(np.uint8)


@pytest.fixture
def target():
    """A disc of 1,264 px in 100 × 100, and a precise one of 716 px in it."""
    precise, broad = disc((100, 100), (49.5, 49.5), 15), disc((100, 100), (49.5, 49.5), 20)
    assert (precise.sum(), broad.sum()) == (716, 1264)
    return levels(precise, broad)


def words(explanation):
    return set(re.findall(r"[a-z]+", " ".join(explanation.sentences()).lower()))


# Measurement


def test_a_red_disc_on_grey(target):
    # Grey is the mean of R, G, B: 260 / 3 inside, 100 around. Red's hue is 0°, its saturation
    # 140 / 180; 100 / 255 without saturation is a dark grey.
    explanation = describe_region(scene(target[1] > 0), target)
    assert explanation.sentences() == [
        "The region lies in the centre of the image.",
        "Its boundary is regular and well-defined.",
        "It is red, darker than its dark grey surroundings, of smooth texture.",
        "It is medium-sized and covers about 13 percent of the image.",
        "The confidence in its extent is moderate.",
        "The gaze dwelt on a single region.",
    ]
    values = explanation.values
    assert values["area"] == pytest.approx(0.1264)
    assert values["contrast"] == pytest.approx((260 / 3 - 100) / 255)
    assert values["precise_share"] == pytest.approx(716 / 1264)
    assert (values["centre_y"], values["centre_x"]) == pytest.approx((0.5, 0.5))
    # 4π · area / perimeter² is 1 for a disc, and here less by what pixels make of its outline.
    assert values["compactness"] == pytest.approx(1, abs=0.1)


@pytest.mark.parametrize(
    ("inside", "outside", "sentence"),
    [
        ((10, 10, 10), (128, 128, 128), "It is black, much darker than its grey"),
        ((240, 240, 240), (200, 150, 110), "It is whitish, much brighter than its reddish brown"),
        ((100, 50, 30), (220, 180, 170), "It is dark reddish brown, much darker than its red"),
        ((100, 120, 200), (140, 140, 140), "It is blue, as bright as its grey"),
        ((120, 120, 120), (110, 110, 110), "It is grey, brighter than its dark grey"),
    ],
)
def test_colour_and_contrast_are_named(target, inside, outside, sentence):
    # Hue and saturation: (200, 150, 110) 27°, 0.45; (100, 50, 30) 17°, value 0.39;
    # (220, 180, 170) 12°; (100, 120, 200) 228°. Contrast of the blue: 140 − 140 = 0.
    # 120 / 255 = 0.47 is grey from 0.45 on; 10 / 255 = 0.039 is brighter from 0.03 on.
    text = describe_region(scene(target[1] > 0, inside, outside), target).characteristics
    assert text.startswith(sentence)


@pytest.mark.parametrize(
    ("height", "width", "sentence"),
    [
        (10, 20, "It is small and covers about 2 percent of the image."),
        (25, 40, "It is medium-sized and covers about 10 percent of the image."),
        (40, 50, "It is large and covers about 20 percent of the image."),
        (60, 64, "It is very large and covers about 38 percent of the image."),
    ],
)
def test_the_size_is_that_of_the_broad_pseudomask(height, width, sentence):
    region = np.zeros((100, 100), bool)
    region[5 : 5 + height, 7 : 7 + width] = True
    explanation = describe_region(scene(region), levels(region & False, region))
    assert explanation.area_percentage == sentence
    assert explanation.values["area"] == height * width / 10_000
    # The precise pseudomask is empty.
    assert explanation.confidence == "The confidence in its extent is low."


def test_the_surroundings_reach_4_percent_of_the_side(target):
    image = scene(disc((100, 100), (49.5, 49.5), 25), GREY, (250, 250, 250))
    image[target[1] > 0] = RED
    values = describe_region(image, target).values
    assert values["contrast"] == pytest.approx((260 / 3 - 100) / 255)


def test_outline_regularity_and_sharpness():
    comb = np.zeros((100, 100), bool)
    comb[20:80, 20:80:8], comb[48:52, 20:80] = True, True
    explanation = describe_region(scene(comb), levels(comb, comb))
    assert explanation.boundary == "Its boundary is irregular and well-defined."
    region = disc((100, 100), (49.5, 49.5), 20)
    noise = np.random.default_rng(0).integers(0, 255, (100, 100, 3)).astype(np.uint8)
    explanation = describe_region(noise, levels(region, region))
    assert explanation.boundary == "Its boundary is regular and moderately defined."
    assert "coarse texture" in explanation.characteristics
    # A ramp from dark to bright is as steep on the outline as anywhere.
    ramp = np.broadcast_to(2 * np.arange(100, dtype=np.uint8)[:, None], (100, 100, 3))
    explanation = describe_region(ramp, levels(region, region))
    assert explanation.boundary == "Its boundary is regular and moderately defined."


def test_regions_are_counted_and_placed_by_their_distance_from_the_centre():
    two = disc((100, 100), (20, 20), 8) | disc((100, 100), (80, 80), 8)
    explanation = describe_region(scene(two), levels(two, two))
    assert explanation.remarks == "The gaze dwelt on 2 separate regions."
    corner = disc((100, 100), (15, 80), 8)
    explanation = describe_region(scene(corner), levels(corner, corner))
    assert explanation.location == "The region lies near the border of the image."
    # Only the values, which no network reads, keep the direction.
    assert explanation.values["place"] == "upper right"


@pytest.mark.parametrize("everything", [False, True])
def test_an_empty_or_full_pseudomask_has_no_explanation(everything):
    region = np.full((20, 20), everything)
    assert describe_region(scene(region), levels(region, region)) is None


@pytest.mark.parametrize("place", [(0, 0), (19, 10), (7, 7)])
def test_one_pixel_is_enough(place):
    region = np.zeros((20, 20), bool)
    region[place] = True
    explanation = describe_region(scene(region), levels(region, region))
    assert explanation.values["area"] == pytest.approx(1 / 400)
    assert all(np.isfinite(v) for v in explanation.values.values() if isinstance(v, float))


@settings(max_examples=60)
@given(
    seed=st.integers(0, 2**32),
    size=st.tuples(st.integers(12, 40), st.integers(12, 40)),
    grain=st.floats(0.5, 4),
    share=st.floats(0.02, 0.9),
)
def test_the_sentences_are_the_same_for_the_flipped_image_and_name_no_direction(
    seed, size, grain, share
):
    rng = np.random.default_rng(seed)
    image = rng.integers(0, 256, (*size, 3)).astype(np.uint8)
    image = ndimage.uniform_filter(image, (3, 3, 1))
    field = ndimage.gaussian_filter(rng.normal(size=size), grain)
    cuts = np.quantile(field, [1 - share / 2, 1 - share])
    regions = levels(*(field >= cut for cut in cuts))
    explanation = describe_region(image, regions)
    assert not words(explanation) & DIRECTIONS
    for axes in (0, 1, (0, 1)):
        flipped = np.flip(regions, np.atleast_1d(axes) + 1)
        again = describe_region(np.flip(image, axes), flipped)
        assert again.sentences() == explanation.sentences()
