"""Texts that were written elsewhere: by people, or by a model that was asked elsewhere."""

import json
import warnings
from collections.abc import Sequence
from pathlib import Path

import pandas as pd

from stages.core.cli import BadInput, log
from stages.data.datasets.listing import as_id
from stages.gaze.recordings.images import split_name, stems
from stages.gaze.recordings.table import open_table
from stages.text.describers import FIELDS, Answer, Explanation, Sample, Setup
from stages.text.describers.directions import without_directions


def _read_rows(source: Path) -> pd.DataFrame:
    """Read a table, text in every cell; what is not there is empty."""
    try:
        if source.suffix.lower() in (".jsonl", ".ndjson"):
            lines = source.read_text("utf-8-sig").split("\n")
            rows = [json.loads(line) for line in lines if line.strip()]
            return pd.DataFrame(rows).fillna("").astype(str)
        form = open_table(source)
        with warnings.catch_warnings():
            # Else a value too many in a line would be dropped.
            warnings.simplefilter("error", pd.errors.ParserWarning)
            return pd.read_csv(
                source, sep=form.separator, encoding=form.encoding, dtype=str,
                keep_default_na=False, index_col=False,
            )  # fmt: skip
    except (OSError, ValueError, AttributeError, pd.errors.ParserWarning) as error:
        raise BadInput(
            source,
            "file",
            found=error,
            expected="a table with tabs, semicolons or commas between its columns, or an object "
            "per line in a file ending in .jsonl, in UTF-8",
            mend="export the texts again, those that hold the separator in quotation marks",
        ) from error


def read_texts(source: Path) -> dict[str, Explanation]:
    """Read a table of texts.

    Parameters
    ----------
    source
        CSV or JSONL with `sample_id` and any of the six fields of an explanation, or one `text`,
        which then stands for `characteristics`. Sentences that name a direction are kept in the
        values, and left out of what is embedded: training flips images. The texts are English: only
        its directions are known.

    Raises
    ------
    BadInput
        It is no table, lacks the columns, has both `text` and fields, or an id twice.
    """
    table = _read_rows(source)
    if "sample_id" in table:
        table["sample_id"] = [as_id(name.strip()) for name in table["sample_id"]]
    known = [name for name in FIELDS if name in table]
    if "sample_id" not in table or not (known or "text" in table):
        raise BadInput(
            source,
            "columns",
            found=list(table.columns),
            expected=f"sample_id, and text or any of {', '.join(FIELDS)}",
            mend="rename the columns",
        )
    if known and "text" in table:
        raise BadInput(
            source,
            "columns",
            found=f"text beside {', '.join(known)}",
            expected="one text, or fields",
            mend="rename `text` to the field that it belongs to, or take it out",
        )
    unread = [name for name in table if name not in ("sample_id", "text", *FIELDS)]
    if unread:
        log.warning("%s: columns that none reads: %s", source, ", ".join(map(str, unread)))
    if not known:
        table = table.rename(columns={"text": "characteristics"})
        known = ["characteristics"]
    if (twice := table["sample_id"].duplicated()).any():
        raise BadInput(
            source,
            "column sample_id",
            found=f"{table['sample_id'][twice].iloc[0]!r} twice",
            expected="one row per sample",
            mend="join its texts in one row",
        )
    return {
        row["sample_id"]: Explanation(
            **{name: without_directions(row[name]) if name in known else "" for name in FIELDS},
            values={name: row[name] for name in known},
        )
        for _, row in table.iterrows()
    }


class Imported:
    """The describer that looks texts up by the sample's id."""

    revision = ""

    def __init__(self, source: Path) -> None:
        self.model = source.name
        texts = read_texts(source)
        # A row may name its image's file, as a recording may.
        named = {stem: texts[name] for name in texts for stem in stems(split_name(name)[1])}
        self._texts = named | texts

    def describe(self, samples: Sequence[Sample]) -> list[Answer]:
        """Look each sample up; one without a row, or without any text, has a problem."""
        return [self._answer(sample.sample_id) for sample in samples]

    def _answer(self, sample_id: str) -> Answer:
        explanation = self._texts.get(sample_id)
        if explanation is None:
            return Answer(explanation=None, problem=f"no row of it in {self.model}")
        if any(explanation.sentences()):
            return Answer(explanation=explanation)
        problem = f"no text in its row of {self.model}"
        if any(explanation.values.values()):
            problem = (
                f"each sentence of its row in {self.model} names a direction, which is false of a "
                "flipped image: say what else there is in sentences of their own"
            )
        return Answer(explanation=None, problem=problem)


def make(setup: Setup) -> Imported:
    """Read the texts."""
    assert setup.source is not None
    return Imported(setup.source)
