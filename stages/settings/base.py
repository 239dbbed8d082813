"""What all settings share: frozen, finite, and closed to keys that do not exist."""

from typing import Annotated, Any, Self

from pydantic import AfterValidator, BaseModel, ConfigDict, ValidationInfo


def _without_braces(path: str) -> str:
    if "{" in path or "}" in path:
        raise ValueError(f"found {path!r}; allowed: a path without {{ and }}")
    return path


# Snakemake, which reads it as a rule's input, would take {name} for a wildcard.
InputPath = Annotated[str, AfterValidator(_without_braces)]


class Settings(BaseModel):
    """Base of every settings model. A stage receives exactly one, as JSON.

    A check that concerns several fields passes where the validation's context says that the values
    are only a part of the whole: what one place of config.yaml sets may be impossible alone.
    """

    # JSON, in which a stage receives its settings, knows no NaN and no infinity.
    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    def unread(self) -> set[str]:
        """Name the fields that say nothing beside the others, as those of another method do."""
        return set()

    def without_unread(self) -> Self:
        """Give each such field, here and in what this holds, its default.

        A stage gets the result: a change of what it does not read is then no change.
        """
        unread, fields = self.unread(), type(self).model_fields
        plain = {name: fields[name].get_default() for name in unread}
        parts = {
            name: value.without_unread()
            for name, value in self
            if isinstance(value, Settings) and name not in unread
        }
        return self.model_copy(update=plain | parts)


def is_part(info: ValidationInfo[Any]) -> bool:
    """Whether what is validated is only a part of the whole."""
    return bool(info.context and info.context["part"])
