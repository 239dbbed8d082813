"""Words that are false of a flipped image: which text holds one, and what is left without it."""

import re
import unicodedata

# Of any alphabet: the R of "Röntgen" is no side.
_LETTER = r"[^\W\d_]"
# Anatomical directions count: in a picture they are one. What turns (clockwise, at 3 o'clock) does
# too. L, R and the corners of a compass (NE) are directions in capitals only.
_DIRECTION = re.compile(
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
_SIDE = re.compile(rf"(?<!{_LETTER})(?:[LR]|[NS][EW])(?!{_LETTER})")


def names_direction(text: str) -> bool:
    """Whether English `text` names a direction, which flipping its image would make false."""
    plain = unicodedata.normalize("NFKC", text)
    return bool(_SIDE.search(plain) or _DIRECTION.search(plain.casefold()))


def without_directions(text: str, longest: int | None = None) -> str:
    """Keep the sentences of an English text that name no direction.

    Parameters
    ----------
    longest
        Characters that may be kept; a sentence that would exceed them is left out, too. None: any
        number.
    """
    kept = ""
    # Across line breaks "3 o'clock" must be read as one.
    for sentence in re.split(r"(?<=[.!?;])\s+", " ".join(text.split())):
        longer = f"{kept} {sentence}".strip()
        if not names_direction(sentence) and (longest is None or len(longer) <= longest):
            kept = longer
    return kept
