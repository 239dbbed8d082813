"""What all settings share: frozen, and closed to keys that do not exist."""

from pydantic import BaseModel, ConfigDict


class Settings(BaseModel):
    """Base of every settings model. A stage receives exactly one, as JSON."""

    model_config = ConfigDict(frozen=True, extra="forbid")
