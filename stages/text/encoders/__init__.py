"""Text encoders: sentences in, vectors of length 1 out.

Start reading at `Encoder`, the interface. Each module here has a function `make` that returns an
encoder; `imported.py` reads finished vectors from files instead.
"""

from collections.abc import Sequence
from typing import Protocol

import numpy as np
from numpy.typing import NDArray


class Encoder(Protocol):
    """A text encoder with its weights.

    Attributes
    ----------
    name, version
        The encoder's name, and a version, commit or hash that changes with its weights.
    embedding_dim
        Number of elements D of a vector.
    """

    name: str
    version: str
    embedding_dim: int

    def encode(self, sentences: Sequence[str]) -> NDArray[np.float32]:
        """Encode a batch of at least one sentence.

        Returns
        -------
        (len(sentences), embedding_dim) float32, each row of length 1. Apart from rounding, a vector
        does not depend on the other sentences of the batch.
        """

    def count_truncated(self, sentences: Sequence[str]) -> int:
        """Return how many sentences are too long for the encoder, which ignores their ends."""
