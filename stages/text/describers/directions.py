"""Direction words, which are wrong for a flipped image: find and remove sentences with them."""

import re
import unicodedata

# A letter of any alphabet: the R of "Röntgen" is not a side.
_LETTER = r"[^\W\d_]"
# Anatomical directions and rotations (clockwise, at 3 o'clock) count too.
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
# Abbreviations of reports, in any case: quadrants and lobes (RUQ, RML, RUZ), quadrants of a breast
# (UOQ, RLIQ), Rt and Lt; with a full stop also r., l., ant., post., sup. and inf., but no 5 l.
_ABBREVIATION = re.compile(
    rf"""(?<!{_LETTER})(?:
        (?:[rl]\.?[uml]\.?[qlz]|(?:[rl]\.?)?[ul]\.?[oi]\.?q)s?
        |[rl]t
        |(?:(?<!\d)(?<!\d\s)[rl]|ant|post|sup|inf)(?=\.)
    )(?!{_LETTER})""",
    re.VERBOSE,
)
# Directions only in capital letters: sides, compass points (NE), corners (UL), limbs (RUE), iliac
# fossae (LIF), ventricles (LVEF), coronary arteries and oblique mammograms.
_CAPITALS = re.compile(
    rf"""(?<!{_LETTER})(?:
        [LR]|[NS][EW]|[UL][LR]|[LR][UL]E|[LR]IF|[LR]V(?:EF|H|OT)?|LAD|LCX|RCA|[LR]MLO
    )(?!{_LETTER})""",
    re.VERBOSE,
)
# A full stop after one of these abbreviations ends no sentence.
_SENTENCE_END = re.compile(
    r"(?<=[.!?;])(?<!\b[rl]\.)(?<!\b[rl]t\.)(?<!\b(?:ant|sup|inf)\.)(?<!\bpost\.)\s+", re.IGNORECASE
)


def names_direction(text: str) -> bool:
    """Return whether an English text names a direction, which is wrong after a flip."""
    plain = unicodedata.normalize("NFKC", text)
    folded = plain.casefold()
    return bool(
        _CAPITALS.search(plain) or _ABBREVIATION.search(folded) or _DIRECTION_WORD.search(folded)
    )


def remove_directional_sentences(text: str, max_chars: int | None = None) -> str:
    """Return an English text without the sentences that name a direction.

    Parameters
    ----------
    max_chars
        Most characters to keep; a sentence that would exceed them is also removed. None: no limit.
    """
    kept: list[str] = []
    # Of the kept sentences, with a space before each.
    length = 0
    # Join lines first, because a line break may split "3 o'clock".
    for sentence in _SENTENCE_END.split(" ".join(text.split())):
        fits = max_chars is None or length + len(sentence) <= max_chars
        if sentence and fits and not names_direction(sentence):
            kept.append(sentence)
            length += len(sentence) + 1
    return " ".join(kept)
