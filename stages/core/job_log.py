"""Write facts about a job to its log, and read them back: host, code, commit, device, sources."""

import json
import logging
import platform
import re
import subprocess
from pathlib import Path
from typing import Any

# Not imported from stages.core.cli, which imports this module.
log = logging.getLogger("stages")
ROOT = Path(__file__).parents[2]
_LINE = re.compile(r"\S+ \S+ (host|code|commit|device|made from|taken from): (.*)")


def current_commit() -> str:
    """Return the checked-out commit, with "-dirty" if files differ from it; "" without one."""
    if not (ROOT / ".git").exists():
        return ""
    # Without locks, so that a commit of the user at the same time succeeds.
    command = ["git", "--no-optional-locks", "-C", str(ROOT)]
    command += ["describe", "--always", "--dirty", "--abbrev=12"]
    try:
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        return ""


def log_start(code: str) -> None:
    """Log the host, the fingerprint of the code, and the commit if there is one."""
    log.info("host: %s", platform.node())
    log.info("code: %s", code)
    if commit := current_commit():
        log.info("commit: %s", commit)


def log_provenance(provenance: dict[str, Any]) -> None:
    """Log the provenance of a result that cannot hold it itself, such as a table."""
    log.info("made from: %s", json.dumps(provenance))


def log_reuse(source: Path) -> None:
    """Log that the result, or all of its parts, come from the files of an earlier job."""
    log.info("taken from: %s", source)


def read_log(file: Path) -> dict[str, str]:
    """Return a log's values of `host`, `code`, `commit`, `device`, `made from`, `taken from`."""
    lines = file.read_text("utf-8", errors="replace").splitlines() if file.exists() else []
    matches = (_LINE.fullmatch(line) for line in lines)
    return {match[1]: match[2] for match in matches if match}
