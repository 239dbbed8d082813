"""Read columns of delimited text files from eye trackers and spreadsheets."""

import csv
import re
from collections.abc import Collection, Iterator, Sequence
from itertools import islice
from pathlib import Path
from typing import NamedTuple, TextIO, cast

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from stages.core.cli import BadInput, Problems
from stages.gaze.recordings.decimals import MISSING_VALUES, NumberColumn

# Number of rows that are read at once; limits the memory for text columns.
CHUNK_ROWS = 500_000
_BYTE_ORDER_MARKS = {b"\xff\xfe": "utf-16", b"\xfe\xff": "utf-16", b"\xef\xbb\xbf": "utf-8-sig"}
_QUOTED_VALUE = r'^\s*"(.*)"\s*$'


class Table(NamedTuple):
    """The form of a table file: encoding, separator and column names, from its first line."""

    file: Path
    encoding: str
    separator: str
    columns: list[str]


class Columns(NamedTuple):
    """Names of the columns to read from a recording."""

    image: str
    x: str
    y: str
    time: str
    duration: str


def _unreadable_table(file: Path, error: Exception) -> BadInput:
    if isinstance(error, PermissionError):
        return BadInput(
            file,
            "file",
            found=error,
            expected="a table that can be read",
            mend="give this user permission to read it",
        )
    return BadInput(
        file,
        "file",
        found=error,
        expected="a table in UTF-8 or UTF-16, with tabs, commas or semicolons between its columns",
        mend="export it again as text (from a spreadsheet: as CSV in UTF-8)",
    )


def _split_lines(file: Path, separator: str, lines: list[str], number: int) -> Iterator[list[str]]:
    """Split lines into their values; `number` is the line number of the first one."""
    if separator == "\t":
        for line in lines:
            yield [re.sub(_QUOTED_VALUE, r"\1", value) for value in line.rstrip("\r\n").split("\t")]
        return
    rows = csv.reader(lines, delimiter=separator, strict=True)
    try:
        for done, row in enumerate(rows):
            if rows.line_num > done + 1:
                raise csv.Error("a value continues on the next line")
            yield row
            number += 1
    except csv.Error as error:
        raise BadInput(
            file,
            f"line {number}",
            found="a quotation mark without a closing one",
            expected="quotation marks in pairs around a value, both on one line",
            mend="delete the mark, or the line break after it",
        ) from error


def open_table(file: Path) -> Table:
    """Detect the encoding, the separator and the columns of a table.

    A byte order mark identifies UTF-16. The separator is the most frequent of tab, semicolon and
    comma in the first line. In a table with tabs, only a pair of quotation marks around a whole
    value has a meaning: eye trackers write notes exactly as they were typed.

    Raises
    ------
    BadInput
        The file is unreadable, empty or not text, or has two columns of one name.
    """
    try:
        with file.open("rb") as raw:
            start = raw.read(3)
        encoding = next(
            (e for mark, e in _BYTE_ORDER_MARKS.items() if start.startswith(mark)), "utf-8"
        )
        with file.open(encoding=encoding) as text:
            first = text.readline().rstrip("\r\n")
        if not first.strip():
            raise ValueError("No columns in the first line")
    except (OSError, ValueError) as error:
        raise _unreadable_table(file, error) from error
    separator = max("\t;,", key=first.count)
    columns = [name.strip() for name in next(_split_lines(file, separator, [first], 1))]
    if repeated := sorted({name for name in columns if name and columns.count(name) > 1}):
        raise BadInput(
            file,
            "line 1",
            found=f"the column {repeated[0]!r} twice",
            expected="each column once",
            mend="delete or rename one of the two",
        )
    return Table(file, encoding, separator, columns)


def require_columns(table: Table, columns: Collection[str], mend: str) -> None:
    """Require columns of a table; `mend` is the advice of the message.

    Raises
    ------
    BadInput
        Columns are absent. The message lists them and the columns of the table.
    """
    if absent := [name for name in columns if name not in table.columns]:
        raise BadInput(
            table.file,
            "columns",
            found=table.columns,
            expected=f"also {absent}",
            mend=mend,
        )


class _CheckedLines:
    """A file object for pandas: checks each line, and replaces the header by column numbers.

    Without the checks, pandas would continue an unclosed quotation on the next lines, and would
    silently drop values after the last column.
    """

    def __init__(self, table: Table, file: TextIO) -> None:
        self._table, self._file = table, file
        self._header = table.separator.join(map(str, range(len(table.columns)))) + "\n"
        file.readline()
        self._number = 1

    def _check(self, lines: list[str], text: str) -> None:
        file, _, separator, columns = self._table
        limit, first = len(columns), self._number + 1
        self._number += len(lines)
        rows: Iterator[list[str]]
        if separator == "\t" or '"' not in text:
            rows = (s.split(separator) if s.count(separator) >= limit else [] for s in lines)
        else:
            rows = _split_lines(file, separator, lines, first)
        for number, row in enumerate(rows, first):
            if len(row) > limit and any(value.strip() for value in row[limit:]):
                raise BadInput(
                    file,
                    f"line {number}",
                    found="more values than columns",
                    expected=f"at most {limit} values, the number of columns in line 1",
                    mend="put values that contain the separator, such as 0,5, in quotation marks, "
                    "or correct the line",
                )

    def read(self, size: int) -> str:
        header, self._header = self._header, ""
        lines = self._file.readlines(size)
        text = "".join(lines)
        self._check(lines, text)
        return header + text

    def __iter__(self) -> Iterator[str]:
        # pandas requires `__iter__` of a file object, but calls `read`.
        return iter(self._file)


def _read_chunks(
    table: Table, text: Sequence[str], numbers: Sequence[str]
) -> Iterator[pd.DataFrame]:
    position = {name: str(table.columns.index(name)) for name in (*text, *numbers)}
    names = {number: name for name, number in position.items()}
    tabs = table.separator == "\t"
    try:
        with table.file.open(encoding=table.encoding, newline="") as file:
            for part in pd.read_csv(
                cast(TextIO, _CheckedLines(table, file)),
                sep=table.separator,
                usecols=list(names),
                index_col=False,
                # Not "category": pandas would then read names that are all digits as numbers.
                dtype={position[name]: "str" for name in text},
                keep_default_na=False,
                na_values={position[name]: MISSING_VALUES for name in numbers},
                quoting=csv.QUOTE_NONE if tabs else csv.QUOTE_MINIMAL,
                skip_blank_lines=False,
                low_memory=False,
                chunksize=CHUNK_ROWS,
            ):
                for number, column in part.items():
                    if (
                        tabs
                        and column.dtype == "str"
                        and column.str.contains('"', regex=False).any()
                    ):
                        part[number] = column.str.replace(_QUOTED_VALUE, r"\1", regex=True)
                yield part.rename(columns=names)
    except (OSError, ValueError) as error:
        raise _unreadable_table(table.file, error) from error


def _read_cell(table: Table, column: str, line: int) -> str:
    with table.file.open(encoding=table.encoding, newline="") as file:
        text = next(islice(file, line - 1, None))
    values = next(_split_lines(table.file, table.separator, [text], line))
    position = table.columns.index(column)
    # A line may end before the column.
    return values[position] if position < len(values) else ""


def read_columns(
    table: Table,
    text: Sequence[str],
    numbers: Sequence[str],
    optional: Collection[str],
    problems: Problems,
) -> Iterator[pd.DataFrame]:
    """Yield the rows in parts of limited size.

    Parameters
    ----------
    table
        As `open_table` returns it.
    text, numbers
        Columns to read; all must exist. Each column of numbers has either decimal points or decimal
        commas.
    optional
        Columns of `numbers` in which a value may be missing; it becomes NaN.
    problems
        Collects the first value of each column that is not a number, and at the end ambiguous
        commas. Rows with such values, and blank lines, are skipped.

    Yields
    ------
    Frame of `text` as categories and `numbers` as float64, in that order; its index is the line.

    Raises
    ------
    BadInput
        The file is not a table, or a line has more values than there are columns, or a quotation
        mark has no closing one on its line.
    """
    columns = {name: NumberColumn(name) for name in numbers}
    reported: set[str] = set()
    for part in _read_chunks(table, text, numbers):
        part.index = part.index + 2
        for name, column in columns.items():
            part[name] = column.read(part[name])
        for name in text:
            part[name] = part[name].astype("category")
        blank = np.ones(len(part), bool)
        for name in (*text, *numbers):
            blank &= (part[name].isna() if name in numbers else part[name] == "").to_numpy()
        bad = np.zeros(len(part), bool)
        for name in numbers:
            values = part[name].to_numpy()
            wrong = (np.isinf(values) if name in optional else ~np.isfinite(values)) & ~blank
            bad |= wrong
            if wrong.any() and name not in reported:
                reported.add(name)
                line = int(part.index[int(wrong.argmax())])
                problems.append(
                    BadInput(
                        table.file,
                        f"column {name}, line {line}",
                        found=repr(_read_cell(table, name, line)),
                        expected="a number",
                        mend="correct or delete the line",
                    )
                )
        yield part.loc[~(blank | bad), [*text, *numbers]]
    for column in columns.values():
        with problems.collect():
            others = [other for other in columns.values() if other is not column]
            column.check(
                table.file,
                points_elsewhere=any(other.has_point for other in others),
                commas_elsewhere=any(other.has_unambiguous_comma for other in others),
            )


def encode_names(names: pd.Series, known: dict[str, int]) -> NDArray[np.int64]:
    """Encode names as numbers.

    Parameters
    ----------
    names
        (R,) categorical text.
    known
        Name → number; new names are added with the next number.

    Returns
    -------
    (R,) int64
    """
    numbers = [known.setdefault(name, len(known)) for name in names.cat.categories]
    return np.array(numbers, np.int64)[names.cat.codes.to_numpy()]
