"""What a vision-language model said → values: tolerant of form, strict about content.

Each reader raises ValueError with what is wrong, in words that can be sent back to the model.
"""

import json
import re
import textwrap
from collections.abc import Mapping, Sequence
from typing import Any

_AMERICAN = {"center": "centre", "gray": "grey", "color": "colour"}
_PERCENT = re.compile(
    r"(?:about|around|approximately|approx\.?|ca\.?|~|≈)?\s*(\d{1,9}(?:\.\d{1,9})?)"
    r"\s*(?:%|percent|per cent)?\.?",
    re.ASCII,
)


def plain(text: str) -> str:
    """Return what the spellings of the same words have in common.

    Case, hyphens, underscores, spaces, a final full stop and American spelling do not count.
    """
    words = re.sub(r"[\s_-]+", " ", text.casefold()).strip(" .")
    return " ".join(_AMERICAN.get(word, word) for word in words.split(" "))


def _quote(value: object) -> str:
    """Show a value of an answer; in ASCII, since an escape in JSON can be half a character."""
    if isinstance(value, str):
        return json.dumps(textwrap.shorten(value, 60, placeholder="..."))
    return "empty" if value is None else f"a {type(value).__name__}"


def _find_object(raw: str) -> dict[str, Any]:
    """Find the one JSON object in a text."""
    # What a reasoning model says to itself may hold drafts.
    text = raw.rpartition("</think>")[2]
    found: list[dict[str, Any]] = []
    decoder = json.JSONDecoder()
    start = text.find("{")
    while start >= 0:
        end = start + 1
        try:
            value, end = decoder.raw_decode(text, start)
            found.append(value)
        except (ValueError, RecursionError):
            # A brace that opens no JSON, or none that is complete.
            pass
        start = text.find("{", end)
    if not found:
        raise ValueError("it holds no valid JSON object")
    if len(found) > 1:
        raise ValueError(f"it holds {len(found)} JSON objects, and one is wanted")
    return found[0]


def read_object(raw: str, keys: Sequence[str]) -> dict[str, Any]:
    """Find the one JSON object in a text and return the values of `keys`; other keys are let pass.

    Raises
    ------
    ValueError
        There is no object, more than one, a key is missing, or is there in two spellings.
    """
    found: dict[str, Any] = {}
    spelled = {plain(key): key for key in keys}
    for spelling, value in _find_object(raw).items():
        key = spelled.get(plain(spelling))
        if key in found:
            raise ValueError(f"the key {key} is there more than once")
        if key is not None:
            found[key] = value
    if missing := [key for key in keys if key not in found]:
        raise ValueError(f"keys are missing: {', '.join(missing)}")
    return found


def read_area(value: object) -> float:
    """Read a percentage, a number or text such as "about 12 %", as a share of 1."""
    percent = value
    if isinstance(value, str) and (match := _PERCENT.fullmatch(value.strip().casefold())):
        percent = float(match[1])
    if isinstance(percent, bool) or not isinstance(percent, int | float):
        raise ValueError(f"Area Percentage is {_quote(value)}, and should be a number")
    # NaN, which Python's JSON lets through, is in no interval.
    if not 0 <= percent <= 100:
        raise ValueError("Area Percentage should be from 0 to 100")
    return percent / 100


def read_words(value: object, key: str, vocabulary: Sequence[str]) -> str:
    """Read words of a vocabulary, in the vocabulary's spelling."""
    if not isinstance(value, str):
        raise ValueError(f"{key} is {_quote(value)}, and should be text")
    spelled = {plain(word): word for word in vocabulary}
    if plain(value) not in spelled:
        raise ValueError(f"{key} holds {_quote(value)}, which is not among the words for it")
    return spelled[plain(value)]


def read_groups(
    value: object, key: str, groups: Mapping[str, Sequence[str]]
) -> dict[str, list[str]]:
    """Read a list of words, or words between commas: group → those named, in the groups' order.

    Raises
    ------
    ValueError
        It is no list, holds a word of no group, or none at all.
    """
    words = re.split(r"[,;]", value.strip(" ,;.")) if isinstance(value, str) else value
    if not isinstance(words, list):
        raise ValueError(f"{key} is {_quote(value)}, and should be a list")
    every = [word for group in groups.values() for word in group]
    named = {read_words(word, key, every) for word in words if word != ""}
    if not named:
        raise ValueError(f"{key} holds none of the words for it")
    found = {group: [word for word in words if word in named] for group, words in groups.items()}
    return {group: words for group, words in found.items() if words}


def read_remarks(value: object) -> str:
    """Read free text; null is none."""
    if value is not None and not isinstance(value, str):
        raise ValueError(f"Remarks is {_quote(value)}, and should be text")
    # Neither UTF-8 nor HDF5 takes every character that an escape in JSON can stand for.
    return " ".join("".join(c if c.isprintable() else " " for c in value or "").split())
