"""How the results behind a page came to be: provenance.json as a table."""

import json
from pathlib import Path
from typing import Any

from stages.core.cli import BadInput
from stages.report.page import MISSING, Provenance


def _read(file: Path) -> dict[str, dict[str, Any]]:
    try:
        return dict(json.loads(file.read_text("utf-8")))
    except (OSError, ValueError) as error:
        raise BadInput(
            file,
            "file",
            found=error,
            expected="a provenance.json",
            mend="delete it and run snakemake again: the rule that makes it will rerun",
        ) from error


def _number(value: float | None, digits: int = 0) -> str:
    return MISSING if value is None else f"{value:,.{digits}f}"


def _tell(found: dict[str, dict[str, Any]]) -> str:
    """Sum the jobs up."""
    jobs = {entry["log"]: entry for entry in found.values()}.values()
    seconds = sum(entry["seconds"] or 0 for entry in jobs)
    memory = max((entry["peak_mb"] or 0 for entry in jobs), default=0)
    hosts = sorted({entry["host"] for entry in jobs if entry["host"]})
    devices = sorted({entry["device"] for entry in jobs if entry["device"]})
    told = [f"{len(found)} results of {len(jobs)} jobs"]
    if hosts:
        told.append(f"on {', '.join(hosts)} ({', '.join(devices)})")
    if seconds:
        told.append(f"{_number(seconds / 60, 1)} minutes in all")
    if memory:
        told.append(f"at most {_number(memory)} MB of memory")
    return ", ".join(told) + "."


def describe(file: Path) -> Provenance:
    """Describe a provenance.json.

    Raises
    ------
    BadInput
        It is none.
    """
    found = _read(file)
    texts = {
        name: ", ".join(f"{package} {version}" for package, version in versions.items())
        for name, entry in found.items()
        if (versions := entry["versions"])
    }
    sets = list(dict.fromkeys(texts.values()))
    rows = [
        [
            name.removeprefix("results/"),
            entry["code"] or MISSING,
            entry["commit"] or MISSING,
            _number(entry["seconds"], 1) + " *" * (entry["taken_from"] is not None),
            _number(entry["peak_mb"]),
            entry["host"] or MISSING,
            entry["device"] or MISSING,
            str(sets.index(texts[name]) + 1) if name in texts else MISSING,
            entry["sha256"][:16],
        ]
        for name, entry in found.items()
    ]
    return Provenance(_tell(found), rows, sets)
