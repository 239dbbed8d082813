"""Delimited text as eye trackers and spreadsheets write it, read column by column."""

import csv
from collections.abc import Collection, Iterator, Sequence
from io import StringIO
from itertools import islice
from pathlib import Path
from typing import NamedTuple, TextIO, cast

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from stages.cli import BadInput, Problems

# Bounds the memory of what is text, whatever the length of the file.
CHUNK_ROWS = 500_000
# What stands for a number that is not there.
MISSING = ("", ".", "NaN", "nan", "NA", "-")
# Takes what a line has beyond its header; no header can hold a tab inside a name.
_BEYOND = "beyond\tthe header"
_MARKS = {b"\xff\xfe": "utf-16", b"\xfe\xff": "utf-16", b"\xef\xbb\xbf": "utf-8-sig"}


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
    return BadInput(
        file,
        "file",
        found=error,
        expected="a table in UTF-8 or UTF-16, with tabs, commas or semicolons between its columns",
        mend="export it again as text; from a spreadsheet, as CSV in UTF-8",
    )


def open_table(file: Path) -> Table:
    """Find out encoding, separator and columns.

    UTF-16 is known by its byte order mark; the separator is the tab, semicolon or comma that the
    first line has most of.

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
    columns = [name.strip() for name in next(csv.reader([first], delimiter=separator))]
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


class _Headed:
    """A file's text, its first line made good: no name empty, and one for what lies beyond."""

    def __init__(self, table: Table, file: TextIO) -> None:
        names = [name or f"\t{place}" for place, name in enumerate(table.columns)]
        self._header = StringIO()
        csv.writer(self._header, delimiter=table.separator).writerow([*names, _BEYOND])
        self._header.seek(0)
        self._file = file
        file.readline()

    def read(self, size: int) -> str:
        return self._header.read(size) or self._file.read(size)

    def __iter__(self) -> Iterator[str]:
        # pandas takes for a file what has it, and then calls `read`.
        return iter(self._file)


def _chunks(table: Table, text: Sequence[str], numbers: Sequence[str]) -> Iterator[pd.DataFrame]:
    try:
        with table.file.open(encoding=table.encoding, newline="") as file:
            yield from pd.read_csv(
                cast(TextIO, _Headed(table, file)),
                sep=table.separator,
                usecols=[*text, *numbers, _BEYOND],
                index_col=False,
                # As categories, pandas would read names that are all digits as numbers.
                dtype=dict.fromkeys((*text, _BEYOND), "str"),
                keep_default_na=False,
                na_values=dict.fromkeys(numbers, MISSING),
                skip_blank_lines=False,
                low_memory=False,
                chunksize=CHUNK_ROWS,
            )
    except (OSError, ValueError) as error:
        raise _no_table(table.file, error) from error


def _numbers(column: pd.Series) -> NDArray[np.float64]:
    if column.dtype.kind in "iuf":
        return column.to_numpy(np.float64)
    # Not all are numbers, or their decimals are behind commas.
    text = column.astype("str").str.strip().str.replace(",", ".", regex=False)
    # Infinite: a text that is no number, unlike one that is not there.
    numbers = pd.to_numeric(text, errors="coerce").to_numpy(np.float64, na_value=np.nan, copy=True)
    numbers[(np.isnan(numbers) & column.notna().to_numpy())] = np.inf
    return numbers


def _text_at(table: Table, column: str, line: int) -> str:
    with table.file.open(encoding=table.encoding, newline="") as file:
        rows = csv.reader(file, delimiter=table.separator)
        return next(islice(rows, line - 1, None))[table.columns.index(column)]


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
        Columns to read; all are there. Decimals may be behind points or commas.
    optional
        Those of `numbers` in which a value may be missing; it is NaN.
    problems
        Takes the first value of each column that is no number; rows with such values are left
        out, and so are blank lines.

    Yields
    ------
    Frame of `text` as categories and `numbers` as float64, in that order; its index is the line.

    Raises
    ------
    BadInput
        The file is no table, or a line has more values than the first one has names.
    """
    reported: set[str] = set()
    for part in _chunks(table, text, numbers):
        part.index = part.index + 2
        beyond = part.pop(_BEYOND)
        if (beyond != "").any():
            line = int(part.index[int((beyond != "").to_numpy().argmax())])
            raise BadInput(
                table.file,
                f"line {line}",
                found="more values than columns",
                expected=f"{len(table.columns)} values, as line 1 has names",
                mend="put values with a separator inside, such as 0,5, into quotes, or correct "
                "the line",
            )
        for name in numbers:
            part[name] = _numbers(part[name])
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


def codes(names: pd.Series, known: dict[str, int]) -> NDArray[np.int64]:
    """Look up each row's name in `known`, to which new names are added with the next number.

    Parameters
    ----------
    names
        (R,) categories.
    """
    number = [known.setdefault(name, len(known)) for name in names.cat.categories]
    return np.array(number, np.int64)[names.cat.codes.to_numpy()]
