"""The fields of a chat request that an endpoint may have under other names, or refuse."""

import json
import re
from collections.abc import Mapping

# Field → its name in a request; empty: it is left out.
Names = Mapping[str, str]
# The limit of an answer's length has two names, and is never left out without being told.
_OTHER_NAMES = {"max_tokens": "max_completion_tokens", "max_completion_tokens": "max_tokens"}
# Words about the value of a field, which another name does not correct.
_REFUSES_VALUE = re.compile(
    "too (large|small|high|low|long|big)|must be|at (most|least)|(less|greater) than|between|range"
    "|exceed|(above|below)_m|maximum|minimum"
)


def find_refused_words(body: bytes) -> set[str]:
    """Return the words of a refusal that may name a field of the request.

    They come from the places that are meant for it (`error.param`, or `loc` under `detail`), and
    from the whole text if these are empty. A refused value names none: its field is not the cause.
    """
    text = body[:2000].decode("utf-8", "replace")
    if _REFUSES_VALUE.search(text.lower()):
        return set()
    try:
        content = json.loads(body)
    except (ValueError, RecursionError):
        content = None
    error = content if isinstance(content, dict) else {}
    error = error["error"] if isinstance(error.get("error"), dict) else error
    details = error["detail"] if isinstance(error.get("detail"), list) else []
    places = [error.get("param"), *(d.get("loc") for d in details if isinstance(d, dict))]
    named = " ".join(str(place) for place in places if place)
    return set(re.findall(r"[\w-]+", named or text))


def avoid_names(names: Names, refused: set[str]) -> Names | None:
    """Return names without the refused ones: another name of the field, or the field left out.

    None if there are no such names: the limit of the length is refused under each of its own.
    """
    changed = dict(names)
    for field, name in names.items():
        if name in refused:
            changed[field] = _OTHER_NAMES.get(name, "")
            if changed[field] in refused or (field == "max_tokens" and not changed[field]):
                return None
    return changed
