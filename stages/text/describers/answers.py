"""Parsing a vision-language model's answer: tolerant of its form, strict about its content.

Each function raises ValueError; the message can be sent back to the model. The time is bounded for
any text, also for one that a broken or hostile endpoint makes up: braces, tags and words may occur
in millions.
"""

import json
import re
import textwrap
from collections.abc import Mapping, Sequence
from typing import Any

_BRITISH_SPELLINGS = {"center": "centre", "gray": "grey", "color": "colour"}
# Longest answer, characters, without the model's reasoning; the six fields need a few hundred.
MAX_ANSWER_CHARS = 100_000
# Each brace that opens no object costs time up to the length of the answer.
_MAX_STRAY_BRACES = 300
_PERCENT = re.compile(
    r"(?:about|around|approximately|approx\.?|ca\.?|~|≈)?\s*(\d{1,9}(?:\.\d{1,9})?)"
    r"\s*(?:%|percent|per cent)?\.?",
    re.ASCII,
)
# Tags around a model's reasoning: <think>, <reasoning>, <|begin_of_thought|>, [THINK], ◁think▷,
# MedGemma's <unused94> … <unused95>, and gpt-oss's <|channel|>analysis … <|channel|>final.
# Nothing is tried twice (`*+`), and a prefix is short: else the time grows with the square of the
# length of a tag.
_REASONING = (
    r"(?:think|thought|reason|reflect|analy[sz]|rationale|scratch|monologue|deliberat|draft)\w*+"
)
_PREFIX = r"(?:\w{1,40}[:_])?"
_REASONING_TAG = re.compile(
    rf"(?P<closes><\|?(?:/|end_(?:of_)?){_PREFIX}{_REASONING}\s*\|?>"
    r"|\[/THINK\]|◁/think▷|<unused95>|<\|channel\|>\s*final)"
    rf"|<\|?(?:(?:begin|start)_(?:of_)?)?{_PREFIX}{_REASONING}[^<>/]*+>"
    r"|\[THINK\]|◁think▷|<unused94>|<\|channel\|>\s*(?:analysis|commentary)",
    re.IGNORECASE,
)


def normalise_spelling(text: str) -> str:
    """Return one common spelling of the same words.

    It ignores case, hyphens, underscores, spaces, a final full stop and American spelling.
    """
    words = re.sub(r"[\s_-]+", " ", text.casefold()).strip(" .")
    return " ".join(_BRITISH_SPELLINGS.get(word, word) for word in words.split(" "))


def _quote(value: object) -> str:
    """Quote a value of an answer, in ASCII: a JSON escape can be half of a surrogate pair."""
    if isinstance(value, str):
        beginning = " ".join(value.split())[:100]
        return json.dumps(textwrap.shorten(beginning, 60, placeholder="..."))
    return "empty" if value is None else f"a {type(value).__name__}"


def _remove_reasoning(text: str) -> str:
    """Remove a model's reasoning, which may hold drafts of the answer.

    What precedes an end without a beginning is reasoning, too: the beginning may be in the prompt.

    Raises
    ------
    ValueError
        A reasoning has no end.
    """
    kept, start = "", 0
    # The names of the open tags; a name that is opened again closes with its first tag.
    opened: dict[str, None] = {}
    for tag in _REASONING_TAG.finditer(text):
        kept += "" if opened else text[start : tag.start()]
        start = tag.end()
        name = "".join(re.findall(_REASONING, tag[0].casefold()))
        if not tag["closes"]:
            opened.setdefault(name)
        elif name in opened:
            while opened.popitem()[0] != name:
                pass
        else:
            kept, opened = "", {}
    if opened:
        raise ValueError("it ends within its reasoning, before the answer")
    return kept + text[start:]


def _find_json_object(raw: str) -> dict[str, Any]:
    """Find the one JSON object in a text, outside of its reasoning."""
    text = _remove_reasoning(raw)
    if len(text) > MAX_ANSWER_CHARS:
        raise ValueError(
            f"it has {len(text)} characters, and at most {MAX_ANSWER_CHARS} are wanted"
        )
    found: list[dict[str, Any]] = []
    decoder = json.JSONDecoder()
    start, stray = text.find("{"), 0
    while start >= 0:
        end = start + 1
        try:
            value, end = decoder.raw_decode(text, start)
            found.append(value)
        except (ValueError, RecursionError):
            # This brace does not open a complete JSON object.
            stray += 1
        if stray > _MAX_STRAY_BRACES:
            raise ValueError(f"it holds more than {_MAX_STRAY_BRACES} braces without an object")
        start = text.find("{", end)
    if not found:
        raise ValueError("it holds no valid JSON object")
    if len(found) > 1:
        raise ValueError(f"it holds {len(found)} JSON objects, and one is wanted")
    return found[0]


def read_json_object(raw: str, keys: Sequence[str]) -> dict[str, Any]:
    """Find the one JSON object in a text and return the values of `keys`; ignore other keys.

    Raises
    ------
    ValueError
        There is no object or more than one, or a key is missing or occurs in two spellings.
    """
    found: dict[str, Any] = {}
    by_spelling = _by_spelling(keys)
    for spelling, value in _find_json_object(raw).items():
        key = by_spelling.get(normalise_spelling(spelling))
        if key in found:
            raise ValueError(f"the key {key} is there more than once")
        if key is not None:
            found[key] = value
    if missing := [key for key in keys if key not in found]:
        raise ValueError(f"keys are missing: {', '.join(missing)}")
    return found


def read_area(value: object) -> float:
    """Read a percentage, a number or text such as "about 12 %", and return it as a share of 1."""
    percent = value
    if isinstance(value, str) and (match := _PERCENT.fullmatch(value.strip().casefold())):
        percent = float(match[1])
    if isinstance(percent, bool) or not isinstance(percent, int | float):
        raise ValueError(f"Area Percentage is {_quote(value)}, and should be a number")
    # NaN, which Python's JSON accepts, is in no interval.
    if not 0 <= percent <= 100:
        raise ValueError("Area Percentage should be from 0 to 100")
    return percent / 100


def _by_spelling(words: Sequence[str]) -> dict[str, str]:
    return {normalise_spelling(word): word for word in words}


def _find_term(value: object, key: str, by_spelling: Mapping[str, str]) -> str:
    if not isinstance(value, str):
        raise ValueError(f"{key} is {_quote(value)}, and should be text")
    term = by_spelling.get(normalise_spelling(value))
    if term is None:
        raise ValueError(f"{key} holds {_quote(value)}, which is not among the words for it")
    return term


def read_term(value: object, key: str, vocabulary: Sequence[str]) -> str:
    """Read one term of a vocabulary and return it in the vocabulary's spelling."""
    return _find_term(value, key, _by_spelling(vocabulary))


def read_grouped_terms(
    value: object, key: str, groups: Mapping[str, Sequence[str]]
) -> dict[str, list[str]]:
    """Read a list of terms, or terms between commas; return group → its terms in the answer.

    Raises
    ------
    ValueError
        The value is not a list, holds a term of no group, or holds none at all.
    """
    words = re.split(r"[,;]", value.strip(" ,;.")) if isinstance(value, str) else value
    if not isinstance(words, list):
        raise ValueError(f"{key} is {_quote(value)}, and should be a list")
    by_spelling = _by_spelling([word for group in groups.values() for word in group])
    chosen = {_find_term(word, key, by_spelling) for word in words if word != ""}
    if not chosen:
        raise ValueError(f"{key} holds none of the words for it")
    found = {group: [word for word in words if word in chosen] for group, words in groups.items()}
    return {group: words for group, words in found.items() if words}


def read_remarks(value: object) -> str:
    """Read free text; null becomes an empty text."""
    if value is not None and not isinstance(value, str):
        raise ValueError(f"Remarks is {_quote(value)}, and should be text")
    # UTF-8 and HDF5 cannot store every character that a JSON escape can stand for.
    return " ".join("".join(c if c.isprintable() else " " for c in value or "").split())
