"""Read columns of delimited text files from eye trackers and spreadsheets."""

import csv
import re
from collections.abc import Collection, Iterator, Mapping, Sequence
from itertools import islice
from pathlib import Path
from types import MappingProxyType
from typing import NamedTuple, TextIO, cast

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from stages.core.cli import BadInput, Problems, list_names
from stages.gaze.recordings.decimals import MISSING_VALUES, NumberColumn

# Number of rows that are read at once; limits the memory for text columns.
CHUNK_ROWS = 500_000
_BYTE_ORDER_MARKS = {b"\xff\xfe": "utf-16", b"\xfe\xff": "utf-16", b"\xef\xbb\xbf": "utf-8-sig"}
# Largest numbers of values that a message counts, and that it shows.
_MAX_VALUES = 1000
_MAX_SHOWN = 6
_QUOTED_VALUE = r'^\s*"(.*)"\s*$'


class Table(NamedTuple):
    """The form of a table file: encoding, separator and column names.

    Attributes
    ----------
    header
        Number of the line with the column names, from 1.
    rows
        Column → values: only rows with one of these values in each column belong to the table. Rows
        of other kinds may have more or fewer values than there are columns.
    """

    file: Path
    encoding: str
    separator: str
    columns: list[str]
    header: int = 1
    rows: Mapping[str, Sequence[str]] = MappingProxyType({})


class Columns(NamedTuple):
    """Names of the columns to read from a recording; an empty name means no such column.

    Attributes
    ----------
    number
        Column with the number of the fixation, if a fixation has several rows.
    image_name
        Name of the image of all rows, if no column names it.
    duration_ms, time_ms
        One unit of the columns `duration` and `time`, ms.
    """

    image: str
    x: str
    y: str
    time: str
    duration: str
    reader: str = ""
    number: str = ""
    valid: str = ""
    pupil: str = ""
    image_name: str = ""
    duration_ms: float = 1.0
    time_ms: float = 1.0


def unreadable_table(file: Path, error: Exception) -> BadInput:
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


def split_lines(file: Path, separator: str, lines: list[str], number: int) -> Iterator[list[str]]:
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


def detect_encoding(file: Path) -> str:
    """Return the encoding that a byte order mark states, otherwise UTF-8."""
    with file.open("rb") as raw:
        start = raw.read(3)
    return next((e for mark, e in _BYTE_ORDER_MARKS.items() if start.startswith(mark)), "utf-8")


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
        encoding = detect_encoding(file)
        with file.open(encoding=encoding) as text:
            first = text.readline().rstrip("\r\n")
        if not first.strip():
            raise ValueError("No columns in the first line")
    except (OSError, ValueError) as error:
        raise unreadable_table(file, error) from error
    separator = max("\t;,", key=first.count)
    columns = [name.strip() for name in next(split_lines(file, separator, [first], 1))]
    if repeated := sorted({name for name in columns if name and columns.count(name) > 1}):
        raise BadInput(
            file,
            "line 1",
            found=f"the column {repeated[0]!r} twice",
            expected="each column once",
            mend="delete or rename one of the two",
        )
    return Table(file, encoding, separator, columns)


class _Filter(NamedTuple):
    """Accepts rows by the value in one column."""

    position: int
    values: frozenset[str]

    def accepts(self, cell: str) -> bool:
        """Return whether a cell has one of the values, as text or as a number (1, 1.0)."""
        if cell in self.values:
            return True
        try:
            number = float(cell)
        except ValueError:
            return False
        return any(value == number for value in map(_to_number, self.values))


def _to_number(text: str) -> float | None:
    try:
        return float(text)
    except ValueError:
        return None


class _CheckedLines:
    """A file object for pandas: checks each line, and replaces the header by column numbers.

    Without the checks, pandas would continue an unclosed quotation on the next lines, and would
    silently drop values after the last column. Rows that do not belong to the table become blank
    lines.
    """

    def __init__(self, table: Table, file: TextIO) -> None:
        self._table, self._file = table, file
        self._header = table.separator.join(map(str, range(len(table.columns)))) + "\n"
        for _ in range(table.header):
            file.readline()
        self._number = table.header
        self._filters = [
            _Filter(table.columns.index(name), frozenset(values))
            for name, values in table.rows.items()
        ]
        self._found_values: list[dict[str, None]] = [{} for _ in self._filters]
        self._count = 0

    def _select(self, lines: list[str]) -> list[str]:
        """Replace the rows that do not belong to the table by blank lines."""
        file, separator = self._table.file, self._table.separator
        selected = []
        for number, line in enumerate(lines, self._number + 1):
            if not line.strip():
                selected.append(line)
                continue
            if separator == "\t" or '"' not in line:
                values = line.rstrip("\r\n").split(separator)
            else:
                values = next(split_lines(file, separator, [line], number))
            cells = [values[f.position] if f.position < len(values) else "" for f in self._filters]
            cells = [re.sub(_QUOTED_VALUE, r"\1", cell).strip() for cell in cells]
            for found, cell in zip(self._found_values, cells, strict=True):
                if len(found) < _MAX_VALUES:
                    found.setdefault(cell)
            belongs = all(map(_Filter.accepts, self._filters, cells))
            self._count += belongs
            selected.append(line if belongs else "\n")
        return selected

    def check_rows(self) -> None:
        """Require that a row belongs to the table.

        Raises
        ------
        BadInput
            None does.
        """
        if self._count or not self._filters:
            return
        names = list(self._table.rows)
        raise BadInput(
            self._table.file,
            f"columns {', '.join(names)}" if len(names) > 1 else f"column {names[0]}",
            found="; and ".join(
                list_names([repr(value) for value in found], _MAX_SHOWN)
                for found in self._found_values
            )
            or "no row",
            expected="a row with "
            + " and ".join(
                f"{' or '.join(map(repr, values))} in {name}"
                for name, values in self._table.rows.items()
            ),
            mend="set recording.rows to the values of the rows that are fixations",
        )

    def _check(self, lines: list[str], text: str) -> None:
        file, separator, columns = self._table.file, self._table.separator, self._table.columns
        limit, first = len(columns), self._number + 1
        self._number += len(lines)
        rows: Iterator[list[str]]
        if separator == "\t" or '"' not in text:
            rows = (s.split(separator) if s.count(separator) >= limit else [] for s in lines)
        else:
            rows = split_lines(file, separator, lines, first)
        for number, row in enumerate(rows, first):
            if len(row) > limit and any(value.strip() for value in row[limit:]):
                raise BadInput(
                    file,
                    f"line {number}",
                    found="more values than columns",
                    expected=f"at most {limit} values, the number of columns in line "
                    f"{self._table.header}",
                    mend="put values that contain the separator, such as 0,5, in quotation marks, "
                    "or correct the line",
                )

    def read(self, size: int) -> str:
        header, self._header = self._header, ""
        lines = self._file.readlines(size)
        if self._filters:
            lines = self._select(lines)
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
            lines = _CheckedLines(table, file)
            for part in pd.read_csv(
                cast(TextIO, lines),
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
            lines.check_rows()
    except (OSError, ValueError) as error:
        raise unreadable_table(table.file, error) from error


def _read_cell(table: Table, column: str, line: int) -> str:
    with table.file.open(encoding=table.encoding, newline="") as file:
        text = next(islice(file, line - 1, None))
    values = next(split_lines(table.file, table.separator, [text], line))
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
        part.index = part.index + table.header + 1
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
