"""Describers: samples (image, heatmap, pseudomasks) in, one structured explanation each out.

Start reading at `Explanation` and `Describer`, the interface of a backend. Each backend has a
module with a function `make`: `measured.py` (no model), `imported.py` (texts from a table),
`local.py` and `endpoint.py` (vision-language models; `asking.py` asks them with a prompt of
`prompts.py`).

The embedded sentences name no direction: training flips images, and "left" would be wrong for a
flipped image. The values of an explanation keep the place of the region instead. Sentences about a
size, a distance from the centre or an orientation are embedded and marked (`claims.py`): training
hides them where it changes these.
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
    """A description of the region that was looked at: one sentence per field, and its values.

    If known, `values` holds `area` (share of the image, 0 to 1) and `place` (one of
    "upper left", "upper centre", "upper right", "middle left", "middle centre", "middle right",
    "lower left", "lower centre", "lower right"); both can be compared with the gaze.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    location: str
    boundary: str
    characteristics: str
    area_percentage: str
    confidence: str
    remarks: str
    values: dict[str, float | str] = Field(description="what the sentences are made from")

    def sentences(self) -> list[str]:
        """Return the text of each of `FIELDS`."""
        return [getattr(self, field) for field in FIELDS]


class Sample(NamedTuple):
    """The part of a sample that a backend gets.

    Attributes
    ----------
    image
        (H, W, 3) uint8.
    heatmap
        (H, W) floating point in [0, 1].
    pseudomasks
        (L, H, W) uint8 in {0, 1}, from precise to broad.
    """

    sample_id: str
    image: NDArray[np.uint8]
    heatmap: NDArray[np.floating]
    pseudomasks: NDArray[np.uint8]


class Answer(BaseModel):
    """The result of asking a backend about one sample.

    Attributes
    ----------
    explanation
        None if the gaze marks nothing (`problem` is empty) or if the backend failed.
    problem
        Why the backend failed; empty if it did not.
    raw
        The model's answers, one text per attempt, of which the ends of far too long ones are
        missing (`asking.MAX_STORED_CHARS`); empty for backends without a model.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    explanation: Explanation | None
    problem: str = ""
    raw: tuple[str, ...] = ()


@dataclass(frozen=True)
class Setup:
    """The argument of each backend's `make`, which uses the parts it needs.

    Attributes
    ----------
    prompt
        Prompt file; None for a backend that asks no model.
    source
        File of the texts to import; None for other backends.
    threads, gpus
        For a model that runs on this machine.
    """

    settings: ExplainSettings
    endpoint: EndpointSettings
    prompt: Path | None
    source: Path | None
    threads: int
    gpus: int


class BatchRefused(BadInput):
    """A backend refused all samples of a batch, because of its settings or of these samples."""


class Describer(Protocol):
    """A backend: a vision-language model, imported texts, or measurements.

    Attributes
    ----------
    model, revision
        The model's name and revision; empty for a backend without a model.
    """

    model: str

    @property
    def revision(self) -> str: ...

    def describe(self, samples: Sequence[Sample]) -> list[Answer]:
        """Explain each sample of a batch; return one answer per sample, in the same order.

        If one sample fails, its answer has a `problem`. An error that concerns all samples (no
        model, no network, a wrong key) is raised.

        Raises
        ------
        BatchRefused
            The backend refused each sample and has not answered any before.
        """
