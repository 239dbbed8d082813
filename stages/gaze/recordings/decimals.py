"""Read numbers with decimal points or decimal commas."""

from pathlib import Path

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from stages.core.cli import BadInput

# Texts that mean a missing number.
MISSING_VALUES = ("", ".", "NaN", "nan", "NA", "-", "NULL", "null")
# A number whose comma may also be a thousands separator.
_THOUSANDS_PATTERN = r"[+-]?[1-9]\d{0,2},\d{3}"


class NumberColumn:
    """A column of numbers with one decimal sign (point or comma), read in several parts."""

    def __init__(self, name: str) -> None:
        self.name = name
        # Line and text of the first value with a decimal point, and of the first with a comma.
        self._first_point: tuple[int, str] | None = None
        self._first_comma: tuple[int, str] | None = None
        self._has_whole_numbers = False
        self._all_commas_ambiguous = True

    def read(self, column: pd.Series) -> NDArray[np.float64]:
        """Read one part of the column.

        Parameters
        ----------
        column
            (R,) numbers, or text if not all values are numbers; the index is the line.

        Returns
        -------
        (R,) float64: NaN for a missing value, infinite for a text that is not a number.
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
            absent = column.isna() | text.isin(MISSING_VALUES)
            values[np.isnan(values) & ~absent.to_numpy()] = np.inf
            point = known & text.str.contains(".", regex=False).to_numpy(bool)
            comma = known & text.str.contains(",", regex=False).to_numpy(bool)
            self._all_commas_ambiguous &= bool(text[comma].str.fullmatch(_THOUSANDS_PATTERN).all())
        self._has_whole_numbers |= bool((known & ~point & ~comma).any())
        self._first_point = self._first_point or _first_match(text, point)
        self._first_comma = self._first_comma or _first_match(text, comma)
        return values

    @property
    def has_point(self) -> bool:
        """Whether a value has a decimal point."""
        return self._first_point is not None

    @property
    def has_unambiguous_comma(self) -> bool:
        """Whether a value has a comma that cannot separate thousands, as in 1171,835."""
        return not self._all_commas_ambiguous

    def check(self, file: Path, *, points_elsewhere: bool, commas_elsewhere: bool) -> None:
        """Check that no comma in the column is ambiguous.

        Parameters
        ----------
        file
            The table, for the message.
        points_elsewhere
            Whether another column of the table has decimal points.
        commas_elsewhere
            Whether another column of the table has a comma that is certainly decimal.

        Raises
        ------
        BadInput
            Some values have decimal points and others have commas. Or three digits follow each
            comma, as between thousands, and either another column has decimal points, or some
            values are whole numbers and no comma in another column is certainly decimal.
        """
        if self._first_comma is None:
            return
        line, text = self._first_comma
        if self._first_point is not None:
            raise BadInput(
                file,
                f"column {self.name}, line {line}",
                found=f"{text!r}, while line {self._first_point[0]} has {self._first_point[1]!r}",
                expected="one decimal sign per column, and no thousands separators",
                mend="write all decimals with points, or all with commas",
            )
        if self._all_commas_ambiguous and (
            points_elsewhere or (self._has_whole_numbers and not commas_elsewhere)
        ):
            raise BadInput(
                file,
                f"column {self.name}, line {line}",
                found=f"{text!r}, which may mean {text.replace(',', '')} or "
                f"{text.replace(',', '.')}",
                expected="no thousands separators",
                mend="remove the comma; if it is a decimal comma, write decimals with points",
            )


def _first_match(text: pd.Series, mask: NDArray[np.bool_]) -> tuple[int, str] | None:
    if not mask.any():
        return None
    row = int(mask.argmax())
    return int(text.index[row]), str(text.iloc[row])
