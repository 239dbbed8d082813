"""What a job's log says of the job: where and by which code it ran, and what it made."""

import json
import logging
import platform
import re
import subprocess
from pathlib import Path
from typing import Any

# Not of stages.core.cli, which writes to the log of a job through here.
log = logging.getLogger("stages")
ROOT = Path(__file__).parents[2]
_LINE = re.compile(r"\S+ \S+ (host|code|commit|device|made from|taken from): (.*)")


def commit() -> str:
    """Name the commit that is checked out, and whether files differ from it; "": none is."""
    if not (ROOT / ".git").exists():
        return ""
    # Without locks: the user may be committing.
    command = ["git", "--no-optional-locks", "-C", str(ROOT)]
    command += ["describe", "--always", "--dirty", "--abbrev=12"]
    try:
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        return ""


def begin(code: str) -> None:
    """Say where a job runs and by which code: its fingerprint, and the commit if there is one."""
    log.info("host: %s", platform.node())
    log.info("code: %s", code)
    if found := commit():
        log.info("commit: %s", found)


def made_from(provenance: dict[str, Any]) -> None:
    """Say what a result was made from that cannot hold it itself: a table."""
    log.info("made from: %s", json.dumps(provenance))


def taken_from(kept: Path) -> None:
    """Say that an earlier job made the result, or all that it is made of."""
    log.info("taken from: %s", kept)


def read(file: Path) -> dict[str, str]:
    """Return what a log says of `host`, `code`, `commit`, `device`, `made from`, `taken from`."""
    lines = file.read_text("utf-8", errors="replace").splitlines() if file.exists() else []
    found = (_LINE.fullmatch(line) for line in lines)
    return {line[1]: line[2] for line in found if line}
