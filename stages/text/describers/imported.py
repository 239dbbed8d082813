"""The backend for texts from a table, written by people or by another program."""

import warnings
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path

import pandas as pd

from stages.core import io
from stages.core.cli import BadInput, list_names, log
from stages.core.contents import parse_json
from stages.data.datasets.listing import normalise_id
from stages.gaze.recordings.images import possible_ids, split_folder
from stages.gaze.recordings.table import open_table
from stages.text.describers import FIELDS, Answer, Explanation, Sample, Setup
from stages.text.describers.directions import remove_directional_sentences

# Largest number of samples in a message.
_MAX_SHOWN = 3


def _read_table(source: Path) -> pd.DataFrame:
    """Read a table with text in every cell; a missing cell is empty."""
    try:
        if source.suffix.lower() in (".jsonl", ".ndjson"):
            lines = source.read_text("utf-8-sig").split("\n")
            rows = [parse_json(line) for line in lines if line.strip()]
            if not all(isinstance(row, dict) for row in rows):
                raise ValueError("a line that is no object")
            return pd.DataFrame(rows).fillna("").astype(str)
        table_format = open_table(source)
        with warnings.catch_warnings():
            # Without this, pandas would drop an additional value in a line.
            warnings.simplefilter("error", pd.errors.ParserWarning)
            return pd.read_csv(
                source, sep=table_format.separator, encoding=table_format.encoding, dtype=str,
                keep_default_na=False, index_col=False,
            )  # fmt: skip
    except (OSError, ValueError, AttributeError, pd.errors.ParserWarning) as error:
        raise BadInput(
            source,
            "file",
            found=error,
            expected="a table with tabs, semicolons or commas between its columns, or a .jsonl "
            "file with one object per line, in UTF-8",
            mend="export the texts again, with quotation marks around those with the separator",
        ) from error


def read_texts(source: Path) -> dict[str, Explanation]:
    """Read a table of texts.

    Parameters
    ----------
    source
        CSV or JSONL with `sample_id` and any of the six fields of an explanation, or with `text`,
        which becomes `characteristics`. Sentences that name a direction stay in the values, but are
        not embedded, because training flips images. The texts must be English: directions in other
        languages are not recognised.

    Raises
    ------
    BadInput
        The file is not a table, has missing columns, both `text` and fields, an id twice, or text
        that no file can hold.
    """
    table = _read_table(source)
    if "sample_id" in table:
        table["sample_id"] = [normalise_id(name.strip()) for name in table["sample_id"]]
    fields = [name for name in FIELDS if name in table]
    if "sample_id" not in table or not (fields or "text" in table):
        raise BadInput(
            source,
            "columns",
            found=list(table.columns),
            expected=f"sample_id, and text or any of {', '.join(FIELDS)}",
            mend="rename the columns",
        )
    if fields and "text" in table:
        raise BadInput(
            source,
            "columns",
            found=f"both text and {', '.join(fields)}",
            expected="either text or fields of an explanation",
            mend="rename `text` to the field that it belongs to, or remove it",
        )
    unused = [name for name in table if name not in ("sample_id", "text", *FIELDS)]
    if unused:
        log.warning("%s: unused columns: %s", source, ", ".join(map(str, unused)))
    if not fields:
        table = table.rename(columns={"text": "characteristics"})
        fields = ["characteristics"]
    if (duplicated := table["sample_id"].duplicated()).any():
        raise BadInput(
            source,
            "column sample_id",
            found=f"{table['sample_id'][duplicated].iloc[0]!r} twice",
            expected="one row per sample",
            mend="join its texts in one row",
        )
    for _, row in table.iterrows():
        for name in fields:
            io.check_text(row[name], source, f"{name} of {row['sample_id']!r}", "write it again")
    return {
        row["sample_id"]: Explanation(
            **{
                name: remove_directional_sentences(row[name]) if name in fields else ""
                for name in FIELDS
            },
            values={name: row[name] for name in fields},
        )
        for _, row in table.iterrows()
    }


class ImportedTextDescriber:
    """The describer that looks texts up by the sample's id.

    A row may hold the image's file name instead of the id, as a gaze recording may.
    """

    revision = ""

    def __init__(self, source: Path) -> None:
        self.model = source.name
        self._source = source
        self._texts = read_texts(source)
        # Sample id → the names that may mean it.
        self._names: dict[str, list[str]] = defaultdict(list)
        for name in self._texts:
            for sample_id in possible_ids(split_folder(name)[1]):
                self._names[sample_id].append(name)

    def describe(self, samples: Sequence[Sample]) -> list[Answer]:
        """Look up each sample; an answer without a row or a text has a problem.

        Raises
        ------
        BadInput
            Two rows mean one sample: in two folders, or with and without an ending.
        """
        names = {sample.sample_id: self._names.get(sample.sample_id, []) for sample in samples}
        if ambiguous := [sample_id for sample_id in names if len(names[sample_id]) > 1]:
            found = [
                f"{' and '.join(map(repr, names[sample_id]))} for the sample {sample_id!r}"
                for sample_id in ambiguous
            ]
            raise BadInput(
                self._source,
                "column sample_id",
                found=list_names(found, _MAX_SHOWN),
                expected="one row per sample: files of two names may be different images",
                mend="delete the rows of the other images; if the images are the same, join their "
                "texts in one row",
            )
        return [self._look_up(names[sample.sample_id]) for sample in samples]

    def _look_up(self, names: list[str]) -> Answer:
        if not names:
            return Answer(explanation=None, problem=f"{self.model} has no row for this sample")
        explanation = self._texts[names[0]]
        if any(explanation.sentences()):
            return Answer(explanation=explanation)
        problem = f"its row in {self.model} has no text"
        if any(explanation.values.values()):
            problem = (
                f"each sentence of its row in {self.model} names a direction, which is wrong for "
                "a flipped image: write the rest in separate sentences"
            )
        return Answer(explanation=None, problem=problem)


def make(setup: Setup) -> ImportedTextDescriber:
    """Return the describer that looks texts up in `setup.source`."""
    assert setup.source is not None
    return ImportedTextDescriber(setup.source)
