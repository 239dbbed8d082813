"""Base class of all settings: frozen, without unknown keys, NaN or infinity."""

from typing import Annotated, Any, Self

from pydantic import AfterValidator, BaseModel, ConfigDict, ValidationInfo


def _check_no_braces(path: str) -> str:
    if "{" in path or "}" in path:
        raise ValueError(f"found {path!r}; allowed: a path without {{ and }}")
    return path


# A path that becomes the input of a rule: Snakemake would read {name} as a wildcard.
InputPath = Annotated[str, AfterValidator(_check_no_braces)]


class Settings(BaseModel):
    """Base class of all settings. A stage receives exactly one settings object, as JSON.

    Checks of several fields together are skipped if the validation context marks the values as
    partial: the values of one place of config.yaml may be impossible alone, but valid when merged.
    """

    # A stage receives its settings as JSON, which has no NaN and no infinity.
    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    def unused_fields(self) -> set[str]:
        """Return the fields that have no effect, given the others: those of another method."""
        return set()

    def reset_unused_fields(self) -> Self:
        """Return a copy in which all unused fields, also nested ones, have their defaults.

        A stage receives this copy, so a change of an unused field does not rerun it.
        """
        unused, fields = self.unused_fields(), type(self).model_fields
        defaults = {name: fields[name].get_default() for name in unused}
        parts = {
            name: value.reset_unused_fields()
            for name, value in self
            if isinstance(value, Settings) and name not in unused
        }
        return self.model_copy(update=defaults | parts)


def is_partial(info: ValidationInfo[Any]) -> bool:
    """Return whether the validated values are from only one place of config.yaml."""
    return bool(info.context and info.context["partial"])
