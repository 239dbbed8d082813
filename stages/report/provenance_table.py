"""provenance.json → a table on the report's page."""

from pathlib import Path
from typing import Any

from stages.core.cli import BadInput
from stages.core.contents import parse_json
from stages.report.page import MISSING, ProvenanceTable


def _read(file: Path) -> dict[str, dict[str, Any]]:
    try:
        return dict(parse_json(file.read_text("utf-8")))
    except (OSError, ValueError, TypeError) as error:
        raise BadInput(
            file,
            "file",
            found=error,
            expected="a provenance.json",
            mend="delete it and run snakemake again: the rule that makes it will rerun",
        ) from error


def _format_number(value: float | None, digits: int = 0) -> str:
    return MISSING if value is None else f"{value:,.{digits}f}"


def _summarise_jobs(results: dict[str, dict[str, Any]]) -> str:
    """Return one sentence about all jobs: number, hosts, devices, time and memory."""
    jobs = {entry["log"]: entry for entry in results.values()}.values()
    seconds = sum(entry["seconds"] or 0 for entry in jobs)
    memory = max((entry["peak_mb"] or 0 for entry in jobs), default=0)
    hosts = sorted({entry["host"] for entry in jobs if entry["host"]})
    devices = sorted({entry["device"] for entry in jobs if entry["device"]})
    parts = [f"{len(results)} results of {len(jobs)} jobs"]
    if hosts:
        parts.append(f"on {', '.join(hosts)} ({', '.join(devices)})")
    if seconds:
        parts.append(f"{_format_number(seconds / 60, 1)} minutes in all")
    if memory:
        parts.append(f"at most {_format_number(memory)} MB of memory")
    return ", ".join(parts) + "."


def provenance_table(file: Path) -> ProvenanceTable:
    """Format a provenance.json as a table.

    Raises
    ------
    BadInput
        The file is no provenance.json.
    """
    results = _read(file)
    versions_text = {
        name: ", ".join(f"{package} {version}" for package, version in versions.items())
        for name, entry in results.items()
        if (versions := entry["versions"])
    }
    version_sets = list(dict.fromkeys(versions_text.values()))
    rows = [
        [
            name.removeprefix("results/"),
            entry["code"] or MISSING,
            entry["commit"] or MISSING,
            _format_number(entry["seconds"], 1) + " *" * (entry["taken_from"] is not None),
            _format_number(entry["peak_mb"]),
            entry["host"] or MISSING,
            entry["device"] or MISSING,
            str(version_sets.index(versions_text[name]) + 1) if name in versions_text else MISSING,
            entry["sha256"][:16],
        ]
        for name, entry in results.items()
    ]
    return ProvenanceTable(_summarise_jobs(results), rows, version_sets)
