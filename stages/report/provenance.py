"""Results, and the logs and benchmarks of their jobs → provenance.json: how each came to be.

Host, device, time and memory differ between two runs that write the same bytes: they are here, and
not in the results.
"""

import json
from pathlib import Path
from typing import Any

import pandas as pd

from stages.core import cli, io, job_log

# Of `io.provenance`, what differs between results.
_MADE = ("stage", "inputs", "params", "versions")
# Name → column of a benchmark.
MEASURED = {"seconds": "s", "peak_mb": "max_rss"}


def _made_from(result: Path, said: dict[str, str]) -> dict[str, Any]:
    """Return what a result was made from: HDF5 says it itself, of others their job's log does."""
    if result.suffix != ".h5":
        return dict(json.loads(said.get("made from", "{}")))
    with io.open_h5(result) as file:
        return {name: file.attrs[name] for name in _MADE}


def measured(benchmark: Path) -> dict[str, float | None]:
    """Seconds and peak memory of a job; None where Snakemake could not measure them."""
    if not benchmark.exists():
        return dict.fromkeys(MEASURED)
    row = pd.read_csv(benchmark, sep="\t").iloc[-1]
    # A job over before it was looked at has words in place of numbers, or a memory of nothing.
    found = {name: pd.to_numeric(row[column], errors="coerce") for name, column in MEASURED.items()}
    return {name: float(value) if value > 0 else None for name, value in found.items()}


def describe(result: Path, log: Path) -> dict[str, Any]:
    """Tell of one result what it is, what it was made from, and how its job went.

    Returns
    -------
    `job`, the name of its log; `sha256`; `code`, `commit`, `host`, `device` and `taken_from` as in
    `job_log`; `seconds` and `peak_mb`; `stage`, `inputs`, `params` and `versions` as in
    `io.provenance`. None: unknown.
    """
    said = job_log.read(log)
    made = _made_from(result, said)
    benchmark = log.parents[1] / "benchmarks" / f"{log.stem}.tsv"
    return {
        "job": log.stem,
        "log": log.as_posix(),
        "sha256": io.sha256(result),
        **{name: said.get(name) for name in ("code", "commit", "host")},
        # A stage that computes no tensors says nothing of it.
        "device": said.get("device", "cpu") if said else None,
        "taken_from": said.get("taken from"),
        **measured(benchmark),
        "stage": made.get("stage"),
        **{name: json.loads(made.get(name, "null")) for name in ("inputs", "params", "versions")},
    }


def provenance(results: list[Path], logs: list[Path], output: Path) -> None:
    """Write provenance.json: each result's path → what `describe` tells of it.

    `logs` holds the log of each result's job. A job that was cut off and went on counts from where
    it did.
    """
    files = list(zip(results, logs, strict=True))
    told = {
        result.as_posix(): describe(result, log)
        for result, log in cli.progress(files, "provenance")
    }
    with io.atomic(output) as temporary:
        temporary.write_text(json.dumps(told, indent=1, ensure_ascii=False) + "\n", "utf-8")


if __name__ == "__main__":
    cli.run(provenance)
