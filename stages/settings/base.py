"""What all settings share: frozen, finite, and closed to keys that do not exist."""

from typing import Any

from pydantic import BaseModel, ConfigDict, ValidationInfo


class Settings(BaseModel):
    """Base of every settings model. A stage receives exactly one, as JSON.

    A check that concerns several fields passes where the validation's context says that the values
    are only a part of the whole: what one place of config.yaml sets may be impossible alone.
    """

    # JSON, in which a stage receives its settings, knows no NaN and no infinity.
    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


def is_part(info: ValidationInfo[Any]) -> bool:
    """Whether what is validated is only a part of the whole."""
    return bool(info.context and info.context["part"])
