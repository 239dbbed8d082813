import pytest
from hypothesis import given
from hypothesis import strategies as st

from stages.text.describers.directions import names_direction, remove_directional_sentences


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
        "Opacity in the RLL.", "RUQ pain", "LUQ", "rlq", "LLQ", "RUL/RML nodules", "LUL",
        "both LLLs", "LUZ", "UOQ", "UIQ of it", "LOQ", "liq", "R.U.Q. mass", "u.o.q.", "LUOQ",
        "Rt hilum", "Lt side", "rt. lung", "lt.", "RT", "r. hilum", "the l. lung",
        "ant. wall", "post. part", "Sup. pole", "inf.", "UL corner", "LR", "the RUE", "LIF",
        "dilated LV", "LVEF", "the LAD", "RMLO",
        "the lowest part", "its underside", "rostral to it", "dextral", "sinistrally", "in the NW",
    ],
)  # fmt: skip
def test_directions_are_recognised_in_all_spellings(text):
    assert names_direction(text)


@pytest.mark.parametrize(
    "text",
    [
        "A bright rim.", "in the middle", "topical gel", "stop", "bilateral", "lateral spreading",
        "near the border", "centre", "yeast", "supper", "cleft", "a 5 l tank",
        "flow", "slower", "behind a fold", "deep and superficial", "12 percent",
        "Blue-white veil", "", "Röntgen, Läsion", "Lésion rouge", "Ro\u0308ntgen", "LÉSION",
        "a 5 l. tank", "post biopsy", "ant", "info", "art", "alter", "pult", "small", "ill-defined",
        "ruler", "full", "PZ", "MRI", "CT", "RNA", "ULN", "DLL", "lle", "rue", "LA grade B",
        "0.5 l.", "topà", "nose", "we", "slowest", "rostrum",
    ],
)  # fmt: skip
def test_other_words_are_not_directions(text):
    assert not names_direction(text)


def test_sentences_with_a_direction_are_removed_and_others_kept():
    text = (
        "Sessile polyp.  It lies on\nthe left! About 0.5 cm; pale.\nSeen at 3\no'clock. Is it wet?"
    )
    assert remove_directional_sentences(text) == "Sessile polyp. About 0.5 cm; pale. Is it wet?"


def test_the_full_stop_of_an_abbreviation_ends_no_sentence():
    text = "Opacity in the RLL. Small nodule in the LUL. Rt. hilum enlarged. Ant. wall thick. Pale."
    assert remove_directional_sentences(text) == "Pale."
    assert remove_directional_sentences("Cyst in the UOQ. Seen in the r. lung. Flat.") == "Flat."
    assert remove_directional_sentences("Cyst of 5 l. Wet.") == "Cyst of 5 l. Wet."


def test_sentences_beyond_the_limit_are_removed():
    assert remove_directional_sentences("One two. Three four. Five.", 14) == "One two. Five."
    assert remove_directional_sentences("One two. Five.", 13) == "One two."
    assert remove_directional_sentences("No sentence is this short", 10) == ""


@given(st.text())
def test_the_remaining_text_names_no_direction(text):
    assert not names_direction(remove_directional_sentences(text))


@given(st.lists(st.sampled_from(["It is pale.", "It is on the left.", "Is it wet?"])))
def test_only_sentences_with_a_direction_are_removed(sentences):
    expected = " ".join(sentence for sentence in sentences if "left" not in sentence)
    assert remove_directional_sentences("\n".join(sentences)) == expected
