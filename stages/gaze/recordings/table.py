"""Delimited text as eye trackers and spreadsheets write it, read column by column."""

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
from stages.gaze.recordings.decimals import MISSING, Numbers

# Bounds the memory of what is text, whatever the length of the file.
CHUNK_ROWS = 500_000
_MARKS = {b"\xff\xfe": "utf-16", b"\xfe\xff": "utf-16", b"\xef\xbb\xbf": "utf-8-sig"}
_QUOTED = r'^\s*"(.*)"\s*$'


class Table(NamedTuple):
    """A file's form, from its first line."""

    file: Path
    encoding: str
    separator: str
    columns: list[str]


class Columns(NamedTuple):
    """Names of the columns of a recording that are read."""

    image: str
    x: str
    y: str
    time: str
    duration: str


def _no_table(file: Path, error: Exception) -> BadInput:
    if isinstance(error, PermissionError):
        return BadInput(
            file,
            "file",
            found=error,
            expected="a table that can be read",
            mend="let this user read it",
        )
    return BadInput(
        file,
        "file",
        found=error,
        expected="a table in UTF-8 or UTF-16, with tabs, commas or semicolons between its columns",
        mend="export it again as text; from a spreadsheet, as CSV in UTF-8",
    )


def _split(file: Path, separator: str, lines: list[str], number: int) -> Iterator[list[str]]:
    """Part lines, of which the first has this number, into their values."""
    if separator == "\t":
        for line in lines:
            yield [re.sub(_QUOTED, r"\1", value) for value in line.rstrip("\r\n").split("\t")]
        return
    rows = csv.reader(lines, delimiter=separator, strict=True)
    try:
        for done, row in enumerate(rows):
            if rows.line_num > done + 1:
                raise csv.Error("a value goes on in the next line")
            yield row
            number += 1
    except csv.Error as error:
        raise BadInput(
            file,
            f"line {number}",
            found="a quotation mark without its partner",
            expected="quotation marks in pairs around a value, both on one line",
            mend="delete the mark, or the line break behind it",
        ) from error


def open_table(file: Path) -> Table:
    """Find out encoding, separator and columns.

    UTF-16 is known by its byte order mark; the separator is the tab, semicolon or comma that the
    first line has most of. Between tabs a quotation mark is a character like others, save for a
    pair around the whole value: eye trackers write notes as they were typed.

    Raises
    ------
    BadInput
        The file cannot be read, is empty or no text, or names a column twice.
    """
    try:
        with file.open("rb") as raw:
            start = raw.read(3)
        encoding = next((e for mark, e in _MARKS.items() if start.startswith(mark)), "utf-8")
        with file.open(encoding=encoding) as text:
            first = text.readline().rstrip("\r\n")
        if not first.strip():
            raise ValueError("No columns in the first line")
    except (OSError, ValueError) as error:
        raise _no_table(file, error) from error
    separator = max("\t;,", key=first.count)
    columns = [name.strip() for name in next(_split(file, separator, [first], 1))]
    if twice := sorted({name for name in columns if name and columns.count(name) > 1}):
        raise BadInput(
            file,
            "line 1",
            found=f"twice the column {twice[0]!r}",
            expected="each column once",
            mend="delete or rename one of the two",
        )
    return Table(file, encoding, separator, columns)


def require(table: Table, columns: Collection[str], mend: str) -> None:
    """Stop where a column is absent.

    Raises
    ------
    BadInput
        With all the absent columns, and those that are there.
    """
    if absent := [name for name in columns if name not in table.columns]:
        raise BadInput(
            table.file,
            "columns",
            found=table.columns,
            expected=f"also {absent}",
            mend=mend,
        )


class _Lines:
    """A table's lines, each checked, below a header of the columns' numbers.

    pandas would read on over the ends of lines for the partner of a quotation mark, and drop what
    a line has beyond the last column.
    """

    def __init__(self, table: Table, file: TextIO) -> None:
        self._table, self._file = table, file
        self._header = table.separator.join(map(str, range(len(table.columns)))) + "\n"
        file.readline()
        self._number = 1

    def _check(self, lines: list[str], text: str) -> None:
        file, _, separator, columns = self._table
        most, first = len(columns), self._number + 1
        self._number += len(lines)
        rows: Iterator[list[str]]
        if separator == "\t" or '"' not in text:
            rows = (s.split(separator) if s.count(separator) >= most else [] for s in lines)
        else:
            rows = _split(file, separator, lines, first)
        for number, row in enumerate(rows, first):
            if len(row) > most and any(value.strip() for value in row[most:]):
                raise BadInput(
                    file,
                    f"line {number}",
                    found="more values than columns",
                    expected=f"{most} values, as line 1 has names",
                    mend="put values with a separator inside, such as 0,5, into quotes, or "
                    "correct the line",
                )

    def read(self, size: int) -> str:
        header, self._header = self._header, ""
        lines = self._file.readlines(size)
        text = "".join(lines)
        self._check(lines, text)
        return header + text

    def __iter__(self) -> Iterator[str]:
        # pandas takes for a file what has it, and then calls `read`.
        return iter(self._file)


def _chunks(table: Table, text: Sequence[str], numbers: Sequence[str]) -> Iterator[pd.DataFrame]:
    place = {name: str(table.columns.index(name)) for name in (*text, *numbers)}
    names = {number: name for name, number in place.items()}
    tabs = table.separator == "\t"
    try:
        with table.file.open(encoding=table.encoding, newline="") as file:
            for part in pd.read_csv(
                cast(TextIO, _Lines(table, file)),
                sep=table.separator,
                usecols=list(names),
                index_col=False,
                # As categories, pandas would read names that are all digits as numbers.
                dtype={place[name]: "str" for name in text},
                keep_default_na=False,
                na_values={place[name]: MISSING for name in numbers},
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
                        part[number] = column.str.replace(_QUOTED, r"\1", regex=True)
                yield part.rename(columns=names)
    except (OSError, ValueError) as error:
        raise _no_table(table.file, error) from error


def _text_at(table: Table, column: str, line: int) -> str:
    with table.file.open(encoding=table.encoding, newline="") as file:
        text = next(islice(file, line - 1, None))
    values = next(_split(table.file, table.separator, [text], line))
    place = table.columns.index(column)
    # A line may end before the column.
    return values[place] if place < len(values) else ""


def read_columns(
    table: Table,
    text: Sequence[str],
    numbers: Sequence[str],
    optional: Collection[str],
    problems: Problems,
) -> Iterator[pd.DataFrame]:
    """Yield the rows in parts of bounded size.

    Parameters
    ----------
    table
        As `open_table` returns it.
    text, numbers
        Columns to read; all are there. Decimals may be behind points or commas, in one column
        behind either.
    optional
        Those of `numbers` in which a value may be missing; it is NaN.
    problems
        Takes the first value of each column that is no number; rows with such values are left
        out, and so are blank lines. At the end it takes commas without a sure meaning.

    Yields
    ------
    Frame of `text` as categories and `numbers` as float64, in that order; its index is the line.

    Raises
    ------
    BadInput
        The file is no table, or a line has more values than the first one has names, or a
        quotation mark whose partner is not on it.
    """
    columns = {name: Numbers(name) for name in numbers}
    reported: set[str] = set()
    for part in _chunks(table, text, numbers):
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
                        found=repr(_text_at(table, name, line)),
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
                commas_elsewhere=any(other.has_sure_comma for other in others),
            )


def codes(names: pd.Series, known: dict[str, int]) -> NDArray[np.int64]:
    """Look up each row's name in `known`, to which new names are added with the next number.

    Parameters
    ----------
    names
        (R,) categories.
    """
    number = [known.setdefault(name, len(known)) for name in names.cat.categories]
    return np.array(number, np.int64)[names.cat.codes.to_numpy()]
