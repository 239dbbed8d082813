"""Text encoders: what turns the sentences of an explanation into vectors."""

from collections.abc import Sequence
from typing import Protocol

import numpy as np
from numpy.typing import NDArray


class Encoder(Protocol):
    """A text encoder with its weights.

    Attributes
    ----------
    name, version
        Which encoder it is, and a version, commit or hash that changes with its weights.
    width
        Length D of a vector.
    """

    name: str
    version: str
    width: int

    def encode(self, sentences: Sequence[str]) -> NDArray[np.float32]:
        """Encode a batch of at least one sentence.

        Returns
        -------
        (len(sentences), width) float32, each row of length 1; which sentences share a batch
        changes no more than the rounding.
        """

    def count_cut(self, sentences: Sequence[str]) -> int:
        """Return how many sentences are longer than what the encoder reads of one."""
