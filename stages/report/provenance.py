"""Results, logs and benchmarks → provenance.json: how a job produced each result.

Host, device, time and memory differ between runs that write the same bytes. Therefore they are in
provenance.json and not in the results.
"""

import json
from pathlib import Path
from typing import Any

import pandas as pd

from stages.core import cli, io, job_log

# The fields of `io.provenance` that differ between results.
_PROVENANCE_FIELDS = ("stage", "inputs", "params", "versions")
# Field of provenance.json → column of a benchmark of Snakemake.
BENCHMARK_COLUMNS = {"seconds": "s", "peak_mb": "max_rss"}


def _result_provenance(result: Path, log_entries: dict[str, str]) -> dict[str, Any]:
    """Return the `io.provenance` of a result: from its HDF5 attributes, else from the job's log."""
    if result.suffix != ".h5":
        return dict(json.loads(log_entries.get("made from", "{}")))
    with io.open_h5(result) as file:
        return {name: file.attrs[name] for name in _PROVENANCE_FIELDS}


def read_benchmark(benchmark: Path) -> dict[str, float | None]:
    """Return seconds and peak memory (MB) of a job; None where Snakemake could not measure them."""
    if not benchmark.exists():
        return dict.fromkeys(BENCHMARK_COLUMNS)
    row = pd.read_csv(benchmark, sep="\t").iloc[-1]
    # If a job ends before Snakemake measures it, its memory is text ("NA", "-") or 0.
    values = {
        name: pd.to_numeric(row[column], errors="coerce")
        for name, column in BENCHMARK_COLUMNS.items()
    }
    return {name: float(value) if value > 0 else None for name, value in values.items()}


def describe_result(result: Path, log: Path) -> dict[str, Any]:
    """Return the content, the inputs and the job of one result.

    Returns
    -------
    ``job, log``
        Name of the job and path of its log.
    ``sha256``
        Hash of the result.
    ``code, commit, host, device, taken_from``
        As in `job_log`.
    ``seconds, peak_mb``
        Time and peak memory of the job.
    ``stage, inputs, params, versions``
        As in `io.provenance`.

    An unknown value is None.
    """
    log_entries = job_log.read_log(log)
    result_provenance = _result_provenance(result, log_entries)
    benchmark = log.parents[1] / "benchmarks" / f"{log.stem}.tsv"
    return {
        "job": log.stem,
        "log": log.as_posix(),
        "sha256": io.sha256(result),
        **{name: log_entries.get(name) for name in ("code", "commit", "host")},
        # A stage without tensors logs no device.
        "device": log_entries.get("device", "cpu") if log_entries else None,
        "taken_from": log_entries.get("taken from"),
        **read_benchmark(benchmark),
        "stage": result_provenance.get("stage"),
        **{
            name: json.loads(result_provenance.get(name, "null"))
            for name in ("inputs", "params", "versions")
        },
    }


def provenance(results: list[Path], logs: list[Path], output: Path) -> None:
    """Write provenance.json: path of each result → its `describe_result`.

    `logs` holds the log of the job of each result. For a job that was interrupted and resumed,
    time and memory start at the last resume.
    """
    files = list(zip(results, logs, strict=True))
    described = {
        result.as_posix(): describe_result(result, log)
        for result, log in cli.progress(files, "provenance")
    }
    with io.atomic_file(output) as temporary:
        temporary.write_text(json.dumps(described, indent=1, ensure_ascii=False) + "\n", "utf-8")


if __name__ == "__main__":
    cli.run(provenance)
