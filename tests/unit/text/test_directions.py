import pytest
from hypothesis import given
from hypothesis import strategies as st

from stages.text.describers.directions import names_direction, without_directions


@pytest.mark.parametrize(
    "text",
    [
        "On the left.", "LEFT", "left-sided", "leftmost", "upper_left", "UpperLeft", "rightward",
        "to the right", "the upper third", "lowermost", "at the top", "topmost", "Bottom edge",
        "above the fold", "below it", "superior part", "inferolateral", "antero-lateral",
        "posteriorly", "up to the fold", "going downwards", "northwest", "to the east",
        "at 3 o'clock", "at 12 o’clock", "seen clockwise", "second quadrant", "quadrants",
        "a vertical streak", "runs horizontally", "dorsal", "cranially", "the L side", "(R)",
        "\uff4c\uff45\uff46\uff54", "overlying vessels", "2left",
        "the lowest part", "its underside", "rostral to it", "dextral", "sinistrally", "in the NW",
    ],
)  # fmt: skip
def test_a_direction_is_seen_however_it_is_spelled(text):
    assert names_direction(text)


@pytest.mark.parametrize(
    "text",
    [
        "A bright rim.", "in the middle", "topical gel", "stop", "bilateral", "lateral spreading",
        "near the border", "centre", "yeast", "supper", "cleft", "a 5 l tank",
        "flow", "slower", "behind a fold", "deep and superficial", "12 percent",
        "Blue-white veil", "", "Röntgen, Läsion", "Lésion rouge", "Ro\u0308ntgen", "LÉSION",
        "topà", "nose", "we", "slowest", "rostrum",
    ],
)  # fmt: skip
def test_other_words_are_let_pass(text):
    assert not names_direction(text)


def test_sentences_with_a_direction_are_left_out_and_the_others_kept_as_they_are():
    text = (
        "Sessile polyp.  It lies on\nthe left! About 0.5 cm; pale.\nSeen at 3\no'clock. Is it wet?"
    )
    assert without_directions(text) == "Sessile polyp. About 0.5 cm; pale. Is it wet?"


def test_sentences_beyond_the_limit_are_left_out():
    assert without_directions("One two. Three four. Five.", 14) == "One two. Five."
    assert without_directions("One two. Five.", 13) == "One two."
    assert without_directions("No sentence is this short", 10) == ""


@given(st.text())
def test_text_without_sentences_that_name_one_names_none(text):
    assert not names_direction(without_directions(text))


@given(st.lists(st.sampled_from(["It is pale.", "It is on the left.", "Is it wet?"])))
def test_exactly_the_sentences_with_a_direction_are_dropped(sentences):
    expected = " ".join(sentence for sentence in sentences if "left" not in sentence)
    assert without_directions("\n".join(sentences)) == expected
