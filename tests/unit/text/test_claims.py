from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stages.text.describers.claims import false_if_moved, false_if_turned
from stages.text.describers.prompts import load_prompt

PROMPTS = sorted((Path(__file__).parents[3] / "workflow/prompts").glob("*.yaml"))


@pytest.mark.parametrize(
    "text",
    [
        "It is small and covers about 3 percent of the image.", "It covers less than 1 percent.",
        "LARGE", "A larger one", "the largest", "a tiny bud", "huge", "a medium-sized polyp", "big",
        "its size is 5", "About 0.5 cm", "12mm", "a 3\nmm nodule", "30 %", "30%", "30\uff05",
        "two centimetres", "an enlarged gland", "extensive redness", "It occupies the lumen.",
        "half of the image", "most of this dark frame", "the whole image", "diameter", "diminutive",
        "40 px wide", "per cent", "\uff53\uff4d\uff41\uff4c\uff4c",
    ],
)  # fmt: skip
def test_sizes_are_recognised(text):
    assert false_if_moved(text)


@pytest.mark.parametrize(
    "text",
    [
        "The region lies in the centre of the image.", "off the center", "off-centre", "centrally",
        "near the border", "reaching the border of the frame", "touches the edge", "in a corner",
        "in the middle", "peripherally", "at the periphery", "at the image border", "eccentric",
        "cut off", "partly outside the frame", "out of view", "The gaze dwelt on a single region.",
        "The gaze dwelt on 2 separate regions.", "in several parts", "one of several lesions",
        "two polyps",
    ],
)  # fmt: skip
def test_places_and_numbers_of_regions_are_recognised(text):
    assert false_if_moved(text)


@pytest.mark.parametrize(
    "text",
    [
        "", "Its boundary is irregular and well-defined.", "Its border is even.",
        "It is dark reddish brown, much darker than its whitish surroundings, of coarse texture.",
        "The confidence in its extent is low.", "There is no further remark.", "red", "oval",
        "covered with mucus", "with a bright rim", "merging with its neighbours", "smallpox",
        "structureless areas", "of several colours", "sessile", "displaced", "commonly seen",
        "peripheral and transition zone told apart", "on normal mucosa", "in two axes", "5 m",
        "clinging", "a percept", "at its edge",
    ],
)  # fmt: skip
def test_other_texts_stay_true_after_scaling_and_shifts(text):
    assert not false_if_moved(text)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("wider than high", True), ("Taller than wide", True), ("as broad as long", False),
        ("as wide as high", False), ("twice as wide as high", True),
        ("higher\nthan wide", True), ("its width", True),
        ("transversely", True), ("bilateral", True), ("laterality", True), ("medially", True),
        ("laterally spreading", False), ("lateral spreading", False), ("a higher signal", False),
        ("collateral", False), ("round", False), ("small", False), ("", False),
    ],
)  # fmt: skip
def test_axes_are_recognised(text, expected):
    assert false_if_turned(text) == expected


@pytest.mark.parametrize("path", PROMPTS, ids=lambda path: path.stem)
def test_of_the_answers_to_a_shipped_prompt_few_terms_are_marked(path):
    """What a model may answer: size and place are marked, colour, texture and shape are not."""
    prompt = load_prompt(path)
    words = [
        *prompt.boundary,
        *(word for group in prompt.characteristics.values() for word in group),
    ]
    moved = {word for word in words if false_if_moved(f"{word}.")}
    assert moved <= {
        "reaching the border of the image", "reaching the border of the frame", "in several parts",
        "one of several lesions", "bright rim around a darker middle",
    }  # fmt: skip
    turned = {word for word in words if false_if_turned(f"{word}.")}
    assert turned <= {"wider than high"}


@given(st.text())
def test_any_text_can_be_asked_about(text):
    assert false_if_moved(f"It is small. {text}")
    assert false_if_turned(f"{text} - its width")
    assert isinstance(false_if_moved(text), bool)
