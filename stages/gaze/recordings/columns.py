"""Find the header and the columns of a table by their names; read units and flags.

Names of columns match in upper and lower case, and with or without a unit in brackets:
`FixationPointX` finds `FixationPointX (MCSpx)`, unless another column differs only in its unit.
"""

import csv
import re
import unicodedata
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from stages.core.cli import BadInput, Problems
from stages.gaze.recordings.decimals import MISSING_VALUES
from stages.gaze.recordings.table import (
    Columns,
    Table,
    detect_encoding,
    open_table,
    unreadable_table,
)

# A header is looked for in this number of lines.
_MAX_HEADER_LINE = 2000
_SEPARATORS = "\t;,"
# Lines between which iMotions describes the columns, in rows that begin with their names.
_BEFORE_DATA = ("#HEADER", "#METADATA")
_DATA_MARK = "#DATA"
# A line that spreadsheets write to state the separator.
_SEPARATOR_LINE = re.compile(r'"?sep=(.)"?\s*')
_BOOLEAN_WORDS = {"true": "1", "false": "0"}
# Spelling of a unit of time in a header → one unit, ms.
_TIME_UNITS = {"ms": 1.0, "s": 1000.0, "μs": 0.001, "us": 0.001, "ns": 0.000001}


def split_header(name: str) -> tuple[str, str]:
    """Split a header into its name in lower case and its unit without brackets and spaces."""
    # NFKC unifies the two characters that look like the Greek letter of microseconds.
    match = re.fullmatch(
        r"(.*?)\s*(?:[\[(]([^\])]*)[\])])?", unicodedata.normalize("NFKC", name.strip())
    )
    if match is None:
        return name.lower(), ""
    return match[1].lower(), (match[2] or "").replace(" ", "")


def matching_columns(columns: Sequence[str], name: str) -> list[str]:
    """Return the columns that a name may mean: the closest matches, or none."""
    if not name:
        return []
    if exact := [column for column in columns if column == name]:
        return exact
    base, unit = split_header(name)
    headers = [(column, *split_header(column)) for column in columns if column]
    same = [c for c, other, other_unit in headers if (other, other_unit) == (base, unit)]
    if same or unit:
        return same
    return [column for column, other, _ in headers if other == base]


def require_column(table: Table, name: str) -> str:
    """Return the column of a table that a name means.

    Raises
    ------
    BadInput
        There is none, or several.
    """
    found = matching_columns(table.columns, name)
    if len(found) == 1:
        return found[0]
    field = f"line {table.header}"
    if not found:
        raise BadInput(
            table.file,
            field,
            found=table.columns,
            expected=f"also {[name]}",
            mend="correct the name in recording.columns or recording.rows",
        )
    if len(set(found)) == 1:
        raise BadInput(
            table.file,
            field,
            found=f"the column {found[0]!r} twice",
            expected="each column once",
            mend="delete or rename one of the two",
        )
    raise BadInput(
        table.file,
        field,
        found=f"the columns {found}",
        expected=f"one column with the name {name!r}",
        mend="write the name with the unit in its brackets in recording.columns",
    )


def _split(line: str, separator: str) -> list[str]:
    if separator == "\t":
        values = [re.sub(r'^\s*"(.*)"\s*$', r"\1", value) for value in line.split("\t")]
    else:
        try:
            values = next(csv.reader([line], delimiter=separator), [])
        except csv.Error:
            values = line.split(separator)
    return [value.strip() for value in values]


def find_header(file: Path, kinds: Sequence[Collection[str]]) -> tuple[Table, int | None]:
    """Find the header of a table, which may stand below a preamble.

    Parameters
    ----------
    file
        The table.
    kinds
        For each possible kind of table the names of its columns.

    Returns
    -------
    The table, whose header is the first line that holds all names of a kind, and the position of
    this kind. If no line does: the table whose header holds most names, and None.

    Raises
    ------
    BadInput
        The file is unreadable, empty or not text.
    """
    best: tuple[int, Table] | None = None
    in_preamble = False
    # Most lines hold none of the names.
    bases = {split_header(name)[0] for names in kinds for name in names}
    try:
        encoding, separators = detect_encoding(file), _SEPARATORS
        with file.open(encoding=encoding) as lines:
            for number, line in enumerate(lines, 1):
                if number > _MAX_HEADER_LINE:
                    break
                line = line.rstrip("\r\n")
                mark = line.rstrip(_SEPARATORS)
                if mark in _BEFORE_DATA or mark == _DATA_MARK:
                    in_preamble = mark != _DATA_MARK
                if in_preamble:
                    continue
                if stated := _SEPARATOR_LINE.fullmatch(line):
                    separators = stated[1]
                    continue
                normal = unicodedata.normalize("NFKC", line).lower()
                if not any(base in normal for base in bases):
                    continue
                # The most frequent character separates the columns, if several are possible.
                for separator in sorted(set(separators) & set(line), key=line.count, reverse=True):
                    columns = _split(line, separator)
                    table = Table(file, encoding, separator, columns, number)
                    for position, names in enumerate(kinds):
                        count = sum(bool(matching_columns(columns, name)) for name in names)
                        if count == len(names):
                            return table, position
                        if count > (best[0] if best else 0):
                            best = count, table
    except (OSError, ValueError) as error:
        raise unreadable_table(file, error) from error
    # A table of another kind: its first line is its header.
    return best[1] if best else open_table(file), None


def read_preamble(table: Table, beginning: str) -> str:
    """Return what follows `beginning` on a line above the header; empty if no line begins so."""
    with table.file.open(encoding=table.encoding) as lines:
        for number, line in enumerate(lines, 1):
            if number >= table.header:
                break
            if line.startswith(beginning):
                return line.removeprefix(beginning).strip()
    return ""


def ms_per_unit(
    table: Table, column: str, stated: str | None, usual: str | None, setting: str
) -> float:
    """Return how many ms one unit of a column of times is.

    Parameters
    ----------
    table, column
        The column; its name may hold the unit in brackets.
    stated
        The unit that the settings state; None: they do not.
    usual
        The unit if neither the settings nor the name state it; None: it is unknown.
    setting
        Name of the setting, for the message.

    Raises
    ------
    BadInput
        The name of the column and the settings state two units, or the unit is unknown.
    """
    header = _TIME_UNITS.get(split_header(column)[1])
    value = _TIME_UNITS[stated] if stated else header
    if value is None and usual:
        value = _TIME_UNITS[usual]
    if value is None:
        raise BadInput(
            table.file,
            f"column {column}",
            found="no unit of time in its name",
            expected="a unit of time",
            mend=f"set {setting}: ms, s, us or ns",
        )
    if header not in (None, value):
        raise BadInput(
            table.file,
            f"column {column}",
            found=f"another unit than {setting}: {stated}",
            expected="one unit of time",
            mend=f"remove {setting}, or correct it",
        )
    return value


def as_row_values(rows: Mapping[str, object]) -> dict[str, tuple[str, ...]]:
    """Return the setting `rows` as column → texts of its values."""
    values: dict[str, tuple[str, ...]] = {}
    for column, value in rows.items():
        cells = value if isinstance(value, list | tuple) else [value]
        texts: list[str] = []
        for cell in cells:
            texts += ["true", "True", "TRUE"] if cell is True else []
            texts += ["false", "False", "FALSE"] if cell is False else []
            texts += [str(cell)] if not isinstance(cell, bool) else []
        values[column] = tuple(texts)
    return values


def find_lost(
    table: Table,
    columns: Columns,
    part: pd.DataFrame,
    valid_range: tuple[float, float] | None,
    problems: Problems,
) -> NDArray[np.bool_]:
    """Return (R,) whether the eye was lost in each row, as the columns `valid` and `pupil` say.

    Parameters
    ----------
    table, columns
        The table.
    part
        (R) rows of it.
    valid_range
        As `recording.valid_range`.
    problems
        Collects a value of `valid` that is no flag or grade.
    """
    lost = np.zeros(len(part), bool)
    if columns.valid:
        with problems.collect():
            lost |= _is_invalid(table, columns.valid, part[columns.valid], valid_range)
    if columns.pupil:
        lost |= ~(part[columns.pupil].to_numpy() > 0)
    return lost


def _is_invalid(
    table: Table, column: str, valid: pd.Series, seen: tuple[float, float] | None
) -> NDArray[np.bool_]:
    """Return (R,) whether the eye was lost, from a column of flags or grades.

    Parameters
    ----------
    table, column
        For the message.
    valid
        (R,) categorical text: 1 or true; 0 or false where the eye was lost.
    seen
        Lowest and highest value where the eye was seen, for a column of grades; a missing value
        means that it was lost.

    Raises
    ------
    BadInput
        A value is none of these.
    """
    words = [word.strip().lower().replace(",", ".") for word in valid.cat.categories]
    numbers = pd.to_numeric(
        pd.Series([_BOOLEAN_WORDS.get(word, word) for word in words], dtype="str"), errors="coerce"
    )
    number = numbers.to_numpy(np.float64, na_value=np.nan)[valid.cat.codes.to_numpy()]
    if seen is None:
        # Other numbers are rejected: some trackers grade validity, with 0 as the best grade.
        wrong = ~np.isin(number, [0, 1])
    else:
        wrong = np.isnan(number) & ~valid.isin(MISSING_VALUES).to_numpy()
    if wrong.any():
        row = int(wrong.argmax())
        raise BadInput(
            table.file,
            f"column {column}, line {valid.index[row]}",
            found=repr(valid.iloc[row]),
            expected="1 or true, or 0 or false where the eye was lost"
            if seen is None
            else "a number",
            mend="set recording.valid_range to the lowest and highest value where the eye was "
            "seen; or convert the tracker's own words to 1 and 0"
            if seen is None
            else "correct or delete the line",
        )
    low, high = seen or (1, 1)
    lost: NDArray[np.bool_] = ~((number >= low) & (number <= high))
    return lost
