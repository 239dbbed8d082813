"""Read whether the eye was seen."""

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from stages.core.cli import BadInput
from stages.gaze.recordings.table import Table

_BOOLEAN_WORDS = {"true": "1", "false": "0"}


def is_lost(table: Table, column: str, valid: pd.Series) -> NDArray[np.bool_]:
    """Return (R,) whether the eye was lost, from a column of flags.

    Parameters
    ----------
    table, column
        For the message.
    valid
        (R,) categorical text: 1 or true; 0 or false where the eye was lost.

    Raises
    ------
    BadInput
        A value is none of these.
    """
    words = [word.strip().lower().replace(",", ".") for word in valid.cat.categories]
    numbers = pd.to_numeric(
        pd.Series([_BOOLEAN_WORDS.get(word, word) for word in words]), errors="coerce"
    )
    number = numbers.to_numpy(np.float64, na_value=np.nan)[valid.cat.codes.to_numpy()]
    # Other numbers are rejected: some trackers grade validity, with 0 as the best grade.
    wrong = ~np.isin(number, [0, 1])
    if wrong.any():
        row = int(wrong.argmax())
        raise BadInput(
            table.file,
            f"column {column}, line {valid.index[row]}",
            found=repr(valid.iloc[row]),
            expected="1 or true, or 0 or false where the eye was lost",
            mend="convert the tracker's own words or numbers to these values",
        )
    lost: NDArray[np.bool_] = number == 0
    return lost
