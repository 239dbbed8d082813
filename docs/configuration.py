"""Write the configuration reference from the models that validate config.yaml."""

import inspect
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from types import UnionType
from typing import Annotated, Any, Union, get_args, get_origin

from pydantic import BaseModel
from pydantic_core import PydanticUndefined

from stages.core.config import Config, DatasetSettings, Defaults, Experiment, Table
from stages.settings.base import InputPath
from stages.settings.training import OptimisationSettings, TeacherSettings

INTRODUCTION = """\
# Configuration

`config.yaml` holds every choice. A value comes from three places, each overriding the one before:
`defaults`, the data set and, for `teacher` and `student`, the experiment. A setting that is in none
of them has the default below. An unknown key, a wrong type or a value out of range stops the run
before any job. `workflow/schemas/config.schema.json` tells the same to your editor.

A file of your own lies over `config.yaml` (`--configfile mine.yaml`) and needs only what differs:

```yaml
datasets:
  kvasir:
    student: { darm_ratio: 0.2 }
```

This page is generated from the models that validate the configuration (`make schema`).
"""
_PATH = get_args(InputPath)[1]
_UNITS = {
    "_ms": "ms", "_s": "s", "_mm": "mm", "_hz": "Hz", "_mb": "MB", "mask_seconds": "s",
    "iterations": "steps",
}  # fmt: skip
_UNIT_WORDS = re.compile(r", (px|ms|mm|s|MB|tokens|degrees per second|degrees|8-bit grey levels)\b")
_SHARE = re.compile(
    r"^(\w+: )?(largest |smallest )?(share|probability)\b|as a share of|this share of"
)
# Fields of `Defaults` that have sections of their own.
_PARTS = tuple(Defaults.model_fields)


def _model(annotation: Any) -> type[BaseModel] | None:
    """Return the settings class in an annotation such as `X | None`, if there is one."""
    if inspect.isclass(annotation) and issubclass(annotation, BaseModel):
        return annotation
    if get_origin(annotation) in (Union, UnionType, Annotated):
        return next(filter(None, map(_model, get_args(annotation))), None)
    return None


def _code(value: Any) -> str:
    """Write a value as YAML has it."""
    if value is None:
        return "`null`"
    if isinstance(value, bool):
        return f"`{str(value).lower()}`"
    if isinstance(value, BaseModel):
        changed = value.model_dump(exclude_unset=True)
        inner = ", ".join(f"{key}: {_plain(part)}" for key, part in changed.items())
        return f"`{{ {inner} }}`" if inner else "its defaults"
    if value == "":
        return "empty"
    return f"`{_plain(value)}`"


def _plain(value: Any) -> str:
    if isinstance(value, list | tuple):
        return f"[{', '.join(map(_plain, value))}]"
    if isinstance(value, dict):
        return "{}" if not value else str(value)
    return "null" if value is None else f"{value:g}" if isinstance(value, float) else str(value)


def _range(schema: dict[str, Any]) -> str:
    """Describe the limits of a number or the length of a list."""
    parts = [
        f"{words} {schema[key]}"
        for key, words in (
            ("minimum", "≥"), ("exclusiveMinimum", ">"), ("maximum", "≤"),
            ("exclusiveMaximum", "<"), ("multipleOf", "in steps of"),
        )
        if key in schema
    ]  # fmt: skip
    return " and ".join(parts)


def _kind(schema: dict[str, Any], definitions: dict[str, Any]) -> str:
    """Describe type and range, from the JSON Schema of a field."""
    if "$ref" in schema:
        return _kind(definitions[schema["$ref"].rpartition("/")[2]], definitions)
    if options := schema.get("anyOf"):
        kinds = [_kind(option, definitions) for option in options]
        return " or ".join(dict.fromkeys(kinds))
    if "enum" in schema:
        return ", ".join(f"`{value}`" for value in schema["enum"])
    if "const" in schema:
        return f"`{schema['const']}`"
    if "prefixItems" in schema:
        kinds = [_kind(item, definitions) for item in schema["prefixItems"]]
        if len(set(kinds)) == 1:
            return f"list of {len(kinds)}: each {kinds[0]}"
        return f"list of {len(kinds)}: {', '.join(kinds)}"
    name = {
        "integer": "whole number", "number": "number", "boolean": "true or false",
        "string": "text", "null": "null", "array": "list", "object": "settings",
    }[schema["type"]]  # fmt: skip
    if "additionalProperties" in schema and not schema.get("properties"):
        return "mapping of names"
    if schema["type"] == "array":
        least = f", {schema['minItems']} or more" if "minItems" in schema else ""
        return f"list{least}: each {_kind(schema['items'], definitions)}"
    return f"{name} {limits}" if (limits := _range(schema)) else name


def _unit(name: str, description: str) -> str:
    for ending, unit in _UNITS.items():
        if name.endswith(ending):
            return unit
    if found := _UNIT_WORDS.search(description):
        return found[1]
    return "share" if _SHARE.search(description) else ""


def _anchor(heading: str) -> str:
    return re.sub(r"[^\w\s-]", "", heading).lower().replace(" ", "-")


def _rows(
    model: type[BaseModel], names: list[str], headings: dict[type[BaseModel], str]
) -> Iterator[str]:
    schema = model.model_json_schema()
    definitions = schema.get("$defs", {})
    yield "| setting | type and range | unit | default | meaning |"
    yield "|---|---|---|---|---|"
    for name in names:
        field = model.model_fields[name]
        nested = _model(field.annotation)
        kind = _kind(schema["properties"][name], definitions)
        if field.metadata and any(part is _PATH for part in field.metadata):
            kind = "path"
        elif any(_PATH in get_args(part) for part in get_args(field.annotation)):
            kind = "path or null"
        default = field.get_default(call_default_factory=True)
        shown = "required" if default is PydanticUndefined else _code(default)
        words = field.description or ""
        if nested and not words:
            words = _sentences(nested)[0]
        if nested in headings:
            kind = kind.replace("settings", f"[settings](#{_anchor(headings[nested])})")
        if kind == "mapping of names" and f"{name}.NAME" in headings.values():
            kind = f"[{kind}](#{_anchor(f'{name}.NAME')})"
            words = words or _sentences(get_args(field.annotation)[1])[0]
        unit = "" if nested or "settings" in kind else _unit(name, words)
        if kind in ("true or false", "text", "path") or kind.startswith("`"):
            unit = ""
        cells = (f"`{name}`", kind, unit, shown, words.replace("<", "&lt;"))
        yield "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |"


def _sentences(model: type[BaseModel]) -> list[str]:
    """Return the paragraphs of a docstring, each on one line."""
    paragraphs = inspect.cleandoc(model.__doc__ or "").split("\n\n")
    return [" ".join(part.split()) for part in paragraphs if "\n---" not in part]


def _places() -> dict[type[BaseModel], list[str]]:
    """Find where each settings class occurs in the entry of a data set, outermost first."""
    places: dict[type[BaseModel], list[str]] = {}

    def collect(model: type[BaseModel], path: str) -> None:
        # What only a data set has comes first.
        for name in sorted(model.model_fields, key=lambda name: name in _PARTS):
            nested = _model(model.model_fields[name].annotation)
            place = f"{path}.{name}".lstrip(".")
            if nested and place not in places.setdefault(nested, []):
                places[nested].append(place)
                collect(nested, place)

    collect(DatasetSettings, "")
    return places


def _sections() -> Iterator[tuple[str, type[BaseModel], list[str]]]:
    """Yield the heading, the model and the fields of each section."""
    yield "The file", Config, list(Config.model_fields)
    own = [name for name in DatasetSettings.model_fields if name not in _PARTS]
    yield "datasets.NAME", DatasetSettings, own
    yield "experiments.NAME", Experiment, list(Experiment.model_fields)
    yield "tables.NAME", Table, list(Table.model_fields)
    shared = list(OptimisationSettings.model_fields)
    for model, paths in _places().items():
        fields = list(model.model_fields)
        if model is TeacherSettings:
            yield "teacher and student", OptimisationSettings, shared
        if issubclass(model, OptimisationSettings):
            fields = [name for name in fields if name not in shared]
        yield ", ".join(paths), model, fields


def page() -> str:
    """Return the text of docs/configuration.md."""
    sections = list(_sections())
    headings = {model: heading for heading, model, _ in sections}
    parts = [INTRODUCTION]
    for heading, model, fields in sections:
        parts.append(f"## {heading}\n")
        if model is not Config:
            parts += [f"{sentence}\n" for sentence in _sentences(model)]
        parts.append("\n".join(_rows(model, fields, headings)) + "\n")
    return "\n".join(parts)


if __name__ == "__main__":
    Path(sys.argv[1]).write_text(page(), encoding="utf-8")
