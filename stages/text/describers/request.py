"""A question → a chat request, whose fields an endpoint may have under other names, or refuse."""

import base64
import io
import json
import re
from collections.abc import Mapping
from typing import Any

from PIL import Image

from stages.core.contents import parse_json
from stages.settings.explain import ExplainSettings
from stages.text.describers.asking import Question

# Field → its name in a request; empty: it is left out.
Names = Mapping[str, str]
# The limit of an answer's length has two names, and is never left out without being told.
_OTHER_NAMES = {"max_tokens": "max_completion_tokens", "max_completion_tokens": "max_tokens"}
# Words about the value of a field, which another name does not correct.
_REFUSES_VALUE = re.compile(
    "too (large|small|high|low|long|big)|must be|at (most|least)|(less|greater) than|between|range"
    "|exceed|(above|below)_m|maximum|minimum"
)


def make_names(settings: ExplainSettings) -> Names:
    """Return the names that the settings ask for."""
    response_format = "response_format" if settings.json_schema else ""
    return settings.names.model_dump() | {"response_format": response_format}


def make_message(question: Question) -> dict[str, Any]:
    """Make the message of one user: the text, and the picture as PNG in a data URL."""
    png = io.BytesIO()
    Image.fromarray(question.picture).save(png, "PNG")
    url = "data:image/png;base64," + base64.b64encode(png.getvalue()).decode("ascii")
    content = [
        {"type": "text", "text": question.text},
        {"type": "image_url", "image_url": {"url": url}},
    ]
    return {"role": "user", "content": content}


def make_body(
    message: Mapping[str, Any],
    settings: ExplainSettings,
    attempt: int,
    schema: dict[str, Any],
    names: Names,
) -> bytes:
    """Make the body of a request.

    Parameters
    ----------
    message
        As `make_message` returns it.
    attempt
        Counts from 0; it is added to the seed.
    schema
        JSON schema of the answers, for the field `response_format`.
    """
    json_schema = {"name": "explanation", "strict": True, "schema": schema}
    values = {
        "temperature": settings.temperature,
        "max_tokens": settings.max_tokens,
        "seed": settings.seed + attempt,
        "response_format": {"type": "json_schema", "json_schema": json_schema},
    }
    fields: dict[str, Any] = {"model": settings.model, "messages": [message]}
    fields |= {names[field]: value for field, value in values.items() if names[field]}
    return json.dumps(fields).encode()


def find_refused_words(body: bytes) -> set[str]:
    """Return the words of a refusal that may name a field of the request.

    They come from the places that are meant for it (`param`, or `loc` under `detail`), and from the
    messages if these are empty; never from a part of the request that the endpoint repeats. A
    refused value names none: its field is not the cause.
    """
    text = body[:2000].decode("utf-8", "replace")
    try:
        content = parse_json(body)
    except ValueError:
        content = text
    error = content.get("error") or content if isinstance(content, dict) else content
    details = error.get("detail") if isinstance(error, dict) else None
    parts = [error, *(details if isinstance(details, list) else [details])]
    parts = [part if isinstance(part, dict) else {"message": part} for part in parts if part]
    said = [part.get(key) for part in parts for key in ("message", "msg", "code", "type")]
    messages = " ".join(str(words) for words in said if words)
    if _REFUSES_VALUE.search(messages.lower()):
        return set()
    places = [part.get(key) for part in parts for key in ("param", "loc")]
    named = " ".join(str(place) for place in places if place)
    return set(re.findall(r"[\w-]+", named or messages))


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
