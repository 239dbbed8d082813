"""Numbers as people write them: with decimal points, or with decimal commas."""

from pathlib import Path

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from stages.core.cli import BadInput

# What stands for a number that is not there.
MISSING = ("", ".", "NaN", "nan", "NA", "-", "NULL", "null")
# A comma that may as well stand between thousands.
_THOUSANDS = r"[+-]?[1-9]\d{0,2},\d{3}"


class Numbers:
    """A column of numbers, read part by part, in which one sign is before the decimals."""

    def __init__(self, name: str) -> None:
        self.name = name
        # Line and text of the first value with a decimal point, and of the first with a comma.
        self._point: tuple[int, str] | None = None
        self._comma: tuple[int, str] | None = None
        self._whole = False
        self._all_thousands = True

    def read(self, column: pd.Series) -> NDArray[np.float64]:
        """Read a part of the column.

        Parameters
        ----------
        column
            (R,) numbers, or text where not all are numbers; the index is the line.

        Returns
        -------
        (R,) float64: NaN where there is none, infinite where a text is no number.
        """
        if column.dtype.kind in "iuf":
            values = column.to_numpy(np.float64)
            known = np.isfinite(values)
            point = known & (values != np.round(values))
            text, comma = column, np.zeros(len(column), bool)
        else:
            text = column.astype("str").str.strip()
            numbers = pd.to_numeric(text.str.replace(",", ".", regex=False), errors="coerce")
            values = numbers.to_numpy(np.float64, na_value=np.nan, copy=True)
            known = np.isfinite(values)
            absent = column.isna() | text.isin(MISSING)
            values[np.isnan(values) & ~absent.to_numpy()] = np.inf
            point = known & text.str.contains(".", regex=False).to_numpy(bool)
            comma = known & text.str.contains(",", regex=False).to_numpy(bool)
            self._all_thousands &= bool(text[comma].str.fullmatch(_THOUSANDS).all())
        self._whole |= bool((known & ~point & ~comma).any())
        self._point = self._point or _first(text, point)
        self._comma = self._comma or _first(text, comma)
        return values

    @property
    def has_point(self) -> bool:
        """Whether a value has decimals behind a point."""
        return self._point is not None

    @property
    def has_sure_comma(self) -> bool:
        """Whether a value has a comma that cannot stand between thousands, as in 1171,835."""
        return not self._all_thousands

    def check(self, file: Path, *, points_elsewhere: bool, commas_elsewhere: bool) -> None:
        """Stop where a comma in the column has no sure meaning.

        Parameters
        ----------
        file
            The table, for the message.
        points_elsewhere
            Whether another column of it has decimal points.
        commas_elsewhere
            Whether another column of it has commas that are decimal for sure.

        Raises
        ------
        BadInput
            Some values have decimal points and others commas. Or all commas are followed by three
            digits, as between thousands, while there are decimal points elsewhere, or values beside
            have no comma and no comma elsewhere is decimal for sure.
        """
        if self._comma is None:
            return
        line, text = self._comma
        if self._point is not None:
            raise BadInput(
                file,
                f"column {self.name}, line {line}",
                found=f"{text!r}, while line {self._point[0]} has {self._point[1]!r}",
                expected="one decimal sign in a column, and none between thousands",
                mend="write all decimals with points, or all with commas",
            )
        if self._all_thousands and (points_elsewhere or (self._whole and not commas_elsewhere)):
            raise BadInput(
                file,
                f"column {self.name}, line {line}",
                found=f"{text!r}, which may mean {text.replace(',', '')} or "
                f"{text.replace(',', '.')}",
                expected="no sign between thousands",
                mend="take it out; where it is a decimal comma, write decimals with points",
            )


def _first(text: pd.Series, chosen: NDArray[np.bool_]) -> tuple[int, str] | None:
    if not chosen.any():
        return None
    row = int(chosen.argmax())
    return int(text.index[row]), str(text.iloc[row])
