import io as streams
import logging
import platform
import re
import subprocess
import sys
from pathlib import Path
from typing import Literal

import pytest

from stages.core import cli, job_log
from stages.settings.base import Settings

ROOT = Path(__file__).parents[3]


class Brush(Settings):
    width: int = 3
    colour: str = "red"


def paint(
    canvas: Path,
    layers: list[Path],
    coats: int,
    settings: Brush,
    frame: Path | None = None,
    scale: float | None = None,
) -> None:
    """Paint 100 % of a canvas."""
    CALLS.append((canvas, layers, coats, settings, frame, scale))


CALLS: list[tuple[object, ...]] = []
NEEDED = "--canvas c --layers a --coats 2 --settings {}"


@pytest.fixture(autouse=True)
def fresh():
    """Reset the calls; restore the root logger, whose handlers `run` replaces."""
    CALLS.clear()
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    yield
    root.handlers[:], root.level = handlers, level


def call(line, extra=()):
    cli.run(paint, [*line.split(), *extra])
    (options,) = CALLS
    return options


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        (NEEDED, (Path("c"), [Path("a")], 2, Brush(), None, None)),
        ("--coats 2 --settings {} --layers a b --canvas c",
            (Path("c"), [Path("a"), Path("b")], 2, Brush(), None, None)),
        ("--canvas c --layers --coats 2 --settings {}", (Path("c"), [], 2, Brush(), None, None)),
        (f"{NEEDED} --frame f --scale 0.5", (Path("c"), [Path("a")], 2, Brush(), Path("f"), 0.5)),
        (f"{NEEDED} --frame --scale", (Path("c"), [Path("a")], 2, Brush(), None, None)),
    ],
)  # fmt: skip
def test_parameters_are_command_line_options(line, expected):
    assert call(line) == expected


def test_an_optional_input_may_be_an_empty_string():
    assert call(NEEDED, ["--frame", "", "--scale", ""])[-2:] == (None, None)


def test_settings_are_json_and_paths_may_contain_any_characters():
    options = call(
        "--layers --coats 2",
        ["--settings", '{"width": 5, "colour": "a \'b\'"}', "--canvas", "a b/ü;$x"],
    )
    assert options[3] == Brush(width=5, colour="a 'b'")
    assert options[0] == Path("a b/ü;$x")


def test_underscores_become_hyphens():
    found = []

    def stage(output_folder: Path) -> None:
        found.append(output_folder)

    cli.run(stage, ["--output-folder", "x"])
    assert found == [Path("x")]


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("--canvas c --layers a --settings {}", "--coats"),
        (NEEDED.replace("--coats 2", "--coats two"), "--coats: invalid int value: 'two'"),
        (f"{NEEDED} --glaze", "--glaze"),
        (NEEDED.replace("{}", "{"), "--settings"),
        (NEEDED.replace("{}", '{"width":"wide"}'), "width"),
        (NEEDED.replace("{}", '{"widht":1}'), "widht"),
    ],
)
def test_a_wrong_command_line_is_status_2_and_names_the_option(line, message, capsys):
    with pytest.raises(SystemExit) as caught:
        call(line)
    assert caught.value.code == 2
    assert not CALLS
    assert message in capsys.readouterr().err


def test_a_wrong_setting_says_what_was_expected(capsys):
    with pytest.raises(SystemExit):
        call(NEEDED.replace("{}", '{"width":"wide"}'))
    error = capsys.readouterr().err
    assert "valid integer" in error and "wide" in error


def test_the_message_for_a_wrong_optional_number_names_its_type(capsys):
    with pytest.raises(SystemExit):
        call(f"{NEEDED} --scale wide")
    assert "--scale: invalid float value: 'wide'" in capsys.readouterr().err


def test_help_shows_the_docstring(capsys):
    with pytest.raises(SystemExit) as caught:
        cli.run(paint, ["--help"])
    assert caught.value.code == 0
    assert "Paint 100 % of a canvas." in capsys.readouterr().out


def bad_input(output: Path) -> None:
    raise cli.BadInput(
        output, "column x", found="'ü'", expected="a number", mend="correct the line"
    )


def unexpected(output: Path) -> None:
    raise ZeroDivisionError("no such number")


def test_bad_input_has_four_lines():
    with pytest.raises(cli.BadInput) as caught:
        bad_input(Path("a.csv"))
    assert str(caught.value).splitlines() == [
        "a.csv: column x",
        "  found:    'ü'",
        "  expected: a number",
        "  to mend:  correct the line",
    ]


@pytest.mark.parametrize(
    ("stage", "message", "traced"),
    [(bad_input, "expected: a number", False), (unexpected, "no such number", True)],
)
def test_a_failure_is_status_1_and_in_the_log(stage, message, traced, tmp_path, capsys):
    log = tmp_path / "new folder/stage.log"
    with pytest.raises(SystemExit) as caught:
        cli.run(stage, ["--output", "x", "--log", str(log)])
    assert caught.value.code == 1
    for text in (capsys.readouterr().err, log.read_text("utf-8")):
        assert message in text
        assert ("Traceback" in text) == traced


def test_the_cause_of_bad_input_is_not_in_the_log(tmp_path, capsys):
    def stage(output: Path) -> None:
        try:
            (tmp_path / "absent").read_text()
        except OSError as error:
            raise cli.BadInput(output, "f", found=error, expected="e", mend="m") from error

    with pytest.raises(SystemExit):
        cli.run(stage, ["--output", "x"])
    assert "Traceback" not in capsys.readouterr().err


def test_a_log_holds_the_last_run_only(tmp_path):
    def stage(output: Path) -> None:
        cli.log.info("wrote %s", output)

    log = tmp_path / "log"
    for name in ("first", "second"):
        cli.run(stage, ["--output", name, "--log", str(log)])
    assert "second" in log.read_text() and "first" not in log.read_text()


def test_a_log_begins_with_host_code_and_commit(tmp_path, monkeypatch):
    def stage(output: Path) -> None:
        cli.log.info("device: H100")
        cli.log.info("notes, device: none")
        job_log.log_provenance({"inputs": "{}"})

    monkeypatch.setattr(job_log, "current_commit", lambda: "cafe")
    log = tmp_path / "log"
    cli.run(stage, ["--output", "x", "--code", "0123", "--log", str(log)])
    assert job_log.read_log(log) == {
        "host": platform.node(),
        "code": "0123",
        "commit": "cafe",
        "device": "H100",
        "made from": '{"inputs": "{}"}',
    }
    assert job_log.read_log(tmp_path / "absent") == {}


@pytest.mark.parametrize(
    ("edit", "expected"), [(None, r"[0-9a-f]{12}"), ("changed", r"[0-9a-f]{12}-dirty")]
)
def test_current_commit_is_marked_dirty_if_files_differ(tmp_path, monkeypatch, edit, expected):
    monkeypatch.setattr(job_log, "ROOT", tmp_path)
    assert job_log.current_commit() == ""
    (tmp_path / "file").write_text("committed")
    who = ["-c", "user.name=a", "-c", "user.email=a@b"]
    for arguments in (["init"], ["add", "file"], [*who, "commit", "--message", "first"]):
        subprocess.run(["git", *arguments], cwd=tmp_path, check=True, capture_output=True)
    if edit:
        (tmp_path / "file").write_text(edit)
    assert re.fullmatch(expected, job_log.current_commit())


def test_bad_input_in_a_subprocess_exits_with_status_1():
    script = (
        "from pathlib import Path\nfrom stages.core import cli\n"
        "def stage(output: Path) -> None:\n"
        "    raise cli.BadInput(output, 'f', found=1, expected=2, mend='m')\n"
        "cli.run(stage)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", script, "--output", "x"], cwd=ROOT, capture_output=True, text=True
    )
    assert done.returncode == 1
    assert "to mend:  m" in done.stderr and "Traceback" not in done.stderr


class Terminal(streams.StringIO):
    def isatty(self):
        return True


@pytest.mark.parametrize(("total", "lines"), [(0, 0), (1, 1), (5, 5), (10, 10), (100, 10)])
def test_progress_without_a_terminal_logs_about_ten_lines(total, lines, caplog):
    with caplog.at_level(logging.INFO, "stages"):
        assert list(cli.progress(range(total), "work")) == list(range(total))
    assert len(caplog.messages) == lines
    if lines:
        assert caplog.messages[-1] == f"work: {total} of {total}"


@pytest.mark.parametrize("total", [13, 19, 99, 1001])
def test_progress_logs_10_to_20_lines_and_always_the_last(total, caplog):
    with caplog.at_level(logging.INFO, "stages"):
        list(cli.progress(range(total), "work"))
    assert 10 <= len(caplog.messages) <= 20
    assert caplog.messages[-1] == f"work: {total} of {total}"


def test_progress_in_a_terminal_is_a_bar(monkeypatch, caplog):
    terminal = Terminal()
    monkeypatch.setattr(sys, "stderr", terminal)
    with caplog.at_level(logging.INFO, "stages"):
        assert list(cli.progress("cab", "work")) == ["c", "a", "b"]
    assert "work: 100%" in terminal.getvalue() and "3/3" in terminal.getvalue()
    assert caplog.messages == []


@pytest.mark.parametrize("terminal", [False, True])
def test_progress_takes_items_of_a_stream_one_by_one(terminal, monkeypatch):
    monkeypatch.setattr(sys, "stderr", Terminal() if terminal else streams.StringIO())
    taken = []
    stream = (taken.append(i) or i for i in range(4))
    for item in cli.progress(stream, "work", total=4):
        assert taken == list(range(item + 1))
    assert taken == [0, 1, 2, 3]


# Problems


def bad(number):
    return cli.BadInput(f"file {number}", "line 1", found=number, expected="less", mend="lower it")


def test_all_problems_are_raised_together():
    problems = cli.Problems()
    for number in (1, 2):
        with problems.collect():
            raise bad(number)
    with problems.collect():
        raise cli.BadInputGroup([bad(3), bad(4)])
    with pytest.raises(cli.BadInputGroup) as error:
        problems.raise_all()
    assert str(error.value) == "4 problems:\n" + "\n".join(f"{i}. {bad(i)}" for i in range(1, 5))
    assert [str(problem) for problem in error.value.problems] == [str(bad(i)) for i in range(1, 5)]


def test_a_repeated_problem_is_raised_once_without_a_group():
    problems = cli.Problems([bad(1), bad(1)])
    with pytest.raises(cli.BadInput) as error:
        problems.raise_all()
    assert str(error.value) == str(bad(1))


def test_no_problem_raises_nothing_and_other_errors_propagate():
    problems = cli.Problems()
    problems.raise_all()
    with pytest.raises(KeyError), problems.collect():
        raise KeyError("x")


def varnish(shade: Literal["clear", "amber"] = "clear", *, twice: bool = False) -> None:
    """Varnish 100 % of a canvas.

    It dries.

    Parameters
    ----------
    shade
        Its shade, up to
        50 % darker.
    twice
        Varnish again.

    Raises
    ------
    ValueError
        It is wet.
    """
    CALLS.append((shade, twice))


def test_words_and_switches_are_options():
    cli.run(varnish, [])
    cli.run(varnish, ["--shade", "amber", "--twice"])
    assert CALLS == [("clear", False), ("amber", True)]
    with pytest.raises(SystemExit):
        cli.run(varnish, ["--shade", "red"])


def test_help_shows_the_text_of_each_parameter(capsys):
    with pytest.raises(SystemExit):
        cli.run(varnish, ["--help"], "paint varnish")
    found = " ".join(capsys.readouterr().out.split())
    assert found.startswith("usage: paint varnish")
    for text in ("Varnish 100 % of a canvas. It dries.", "Its shade, up to 50 % darker."):
        assert text in found
    assert "--twice Varnish again. --log" in found
