"""Direction words, which are wrong for a flipped image: find and remove sentences with them."""

import re
import unicodedata

# A letter of any alphabet: the R of "Röntgen" is not a side.
_LETTER = r"[^\W\d_]"
# Anatomical directions and rotations (clockwise, at 3 o'clock) count too. L, R and compass points
# (NE) are directions only in capital letters.
_DIRECTION_WORD = re.compile(
    rf"""(?<!{_LETTER})(?:
        left\w*|right\w*|upper\w*|lower\w*|lowest|bottom\w*|top(?:s|most|side|left|right)?
        |up|down|(?:up|down)(?:ward|wards|side|right|most|hill|per|stream)
        |above|below|beneath|underneath|underside\w*|overhead|overl(?:y|ies|ying)|underl(?:y|ies|ying)
        |super(?:o|ior)\w*|infer(?:o|ior)\w*|anter(?:o|ior)\w*|poster(?:o|ior)\w*
        |(?:north|south)\w*|(?:east|west)(?:ern|ward|wards)?
        |crani(?:al|ally|ad)|cephal(?:ad|ic)|caud(?:al|ally|ad)|rostr(?:al|ally|ad)
        |ventral\w*|dorsal\w*|dextral\w*|sinistral\w*
        |horizontal\w*|vertical\w*
    )(?!{_LETTER})|clock|quadrant""",
    re.VERBOSE,
)
_ABBREVIATION = re.compile(rf"(?<!{_LETTER})(?:[LR]|[NS][EW])(?!{_LETTER})")


def names_direction(text: str) -> bool:
    """Return whether an English text names a direction, which is wrong after a flip."""
    plain = unicodedata.normalize("NFKC", text)
    return bool(_ABBREVIATION.search(plain) or _DIRECTION_WORD.search(plain.casefold()))


def remove_directional_sentences(text: str, max_chars: int | None = None) -> str:
    """Return an English text without the sentences that name a direction.

    Parameters
    ----------
    max_chars
        Most characters to keep; a sentence that would exceed them is also removed. None: no limit.
    """
    kept = ""
    # Join lines first, because a line break may split "3 o'clock".
    for sentence in re.split(r"(?<=[.!?;])\s+", " ".join(text.split())):
        longer = f"{kept} {sentence}".strip()
        if not names_direction(sentence) and (max_chars is None or len(longer) <= max_chars):
            kept = longer
    return kept
