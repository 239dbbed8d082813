"""Who explains an image: the structured explanation, and the backends that write one.

The embedded text names no direction. Flips are part of the training's augmentation, and "left"
would be false of a flipped image; where a region lies is kept in the values instead.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field

from stages.core.cli import BadInput
from stages.settings.explain import EndpointSettings, ExplainSettings

# The fields of an explanation, in the order of the text tokens.
FIELDS = ("location", "boundary", "characteristics", "area_percentage", "confidence", "remarks")


class Explanation(BaseModel):
    """Why the looked-at region matters, one sentence per field, and the values behind them.

    `values` holds, where they are known, `area` (share of the image, 0 to 1) and `place` (one of
    "upper left", "upper centre", "upper right", "middle left", "middle centre", "middle right",
    "lower left", "lower centre", "lower right"), which can be checked against the gaze.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    location: str
    boundary: str
    characteristics: str
    area_percentage: str
    confidence: str
    remarks: str
    values: dict[str, float | str] = Field(description="what the sentences rest on")

    def sentences(self) -> list[str]:
        """Return the text of each of `FIELDS`."""
        return [getattr(self, field) for field in FIELDS]


class Sample(NamedTuple):
    """What a backend is shown of one sample.

    Attributes
    ----------
    image
        (H, W, 3) uint8.
    heatmap
        (H, W) floating point in [0, 1].
    regions
        (L, H, W) uint8 in {0, 1}, the pseudomasks, from precise to broad.
    """

    sample_id: str
    image: NDArray[np.uint8]
    heatmap: NDArray[np.floating]
    regions: NDArray[np.uint8]


class Answer(BaseModel):
    """What came of asking about one sample.

    Attributes
    ----------
    explanation
        None where there is none: the gaze marks nothing (`problem` is empty), or it failed.
    problem
        Why it failed; empty where it did not.
    raw
        What a model said, one text per attempt; empty for backends without a model.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    explanation: Explanation | None
    problem: str = ""
    raw: tuple[str, ...] = ()


@dataclass(frozen=True)
class Setup:
    """What the `make` of each backend's module is given, to take what it needs.

    Attributes
    ----------
    prompt
        File of what a model is asked; a backend that asks has one.
    source
        File of the texts to import; only that backend has one.
    threads, gpus
        For a model that runs here.
    """

    settings: ExplainSettings
    endpoint: EndpointSettings
    prompt: Path | None
    source: Path | None
    threads: int
    gpus: int


class Refused(BadInput):
    """A backend refused all that it was asked: its settings are at fault, or these samples."""


class Describer(Protocol):
    """A backend: a vision-language model, texts that were written elsewhere, or a measurement.

    Attributes
    ----------
    model, revision
        Which model it is, and of which revision; empty where there is none.
    """

    model: str

    @property
    def revision(self) -> str: ...

    def describe(self, samples: Sequence[Sample]) -> list[Answer]:
        """Explain each sample of a batch; one answer per sample, in their order.

        A sample that fails has an answer that says so; what concerns all of them (no model, no
        network, a wrong key) raises.

        Raises
        ------
        Refused
            Each sample was refused, and none was answered before.
        """
