"""The server of commands, and the table of what was tried, at the end of the run."""

import pytest

from tests.faults.server import Server, stages_with_command

NUMBERS = ("tried", "survived", "tracebacks", "bytes lost")


@pytest.fixture(scope="session")
def forks():
    """A process that runs commands in forks of itself."""
    server = Server(["snakemake.cli", *stages_with_command()])
    yield server
    server.close()


@pytest.fixture
def tally(record_property):
    """The row of this test in the table; the test names it, and counts in it."""
    row = dict.fromkeys(("name", *NUMBERS), 0)
    # A property also reaches the process that prints, if several run tests.
    record_property("faults", row)
    return row


def pytest_terminal_summary(terminalreporter):
    rows = {}
    for outcome in ("passed", "failed"):
        for report in terminalreporter.getreports(outcome):
            for key, found in report.user_properties if report.when == "call" else ():
                if key == "faults":
                    row = rows.setdefault(found["name"], dict.fromkeys(NUMBERS, 0))
                    for number in NUMBERS:
                        row[number] += found[number]
    if not rows:
        return
    total = {number: sum(row[number] for row in rows.values()) for number in NUMBERS}
    terminalreporter.section("faults")
    terminalreporter.line(f"{'':40}" + "".join(f"{number:>12}" for number in NUMBERS))
    for name, row in [*sorted(rows.items()), ("all", total)]:
        numbers = "".join(f"{row[number]:>12}" for number in NUMBERS)
        terminalreporter.line(f"{name:40}{numbers}")
