"""What provenance.json tells of each result, from the result, its job's log and its benchmark."""

import json

import pytest

from stages.core import io
from stages.report.provenance import measured, provenance

LOG = """\
2026-11-25 02:50:34,306 host: node7
2026-11-25 02:50:34,306 code: 0123456789abcdef
2026-11-25 02:50:34,519 device: H100
2026-11-25 02:50:34,520 made from: {made}
"""
HEAD = "s\th:m:s\tmax_rss\tmax_vms"


@pytest.fixture
def folder(tmp_path):
    """A table of the job `quality`, its log and its benchmark."""
    (tmp_path / "raw.txt").write_text("raw")
    made = io.provenance("quality", {"raw": tmp_path / "raw.txt"}, {"limit": 3})
    for name, text in {
        "gaze_quality.csv": "a\n1\n",
        "logs/quality.log": LOG.format(made=json.dumps(made)),
        "benchmarks/quality.tsv": f"{HEAD}\n2.5\t0:00:02\t123.4\t9\n",
    }.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(text)
    return tmp_path


def tell(folder, name, log):
    provenance([folder / name], [folder / log], folder / "provenance.json")
    (told,) = json.loads((folder / "provenance.json").read_text()).items()
    assert told[0] == (folder / name).as_posix()
    return told[1]


def test_of_a_table_the_log_says_what_it_was_made_from(folder):
    told = tell(folder, "gaze_quality.csv", "logs/quality.log")
    assert told.pop("versions")["python"]
    assert told == {
        "job": "quality", "log": f"{folder}/logs/quality.log",
        "sha256": io.sha256(folder / "gaze_quality.csv"), "code": "0123456789abcdef",
        "commit": None, "host": "node7", "device": "H100", "taken_from": None,
        "seconds": 2.5, "peak_mb": 123.4,
        "stage": "quality", "inputs": {"raw": io.sha256(folder / "raw.txt")},
        "params": {"limit": 3},
    }  # fmt: skip


def test_a_stage_that_says_nothing_of_its_device_has_the_cpu(folder):
    log = folder / "logs/quality.log"
    log.write_text(log.read_text().replace("device", "device of nobody"))
    assert tell(folder, "gaze_quality.csv", "logs/quality.log")["device"] == "cpu"


def test_an_hdf5_file_says_itself_what_it_was_made_from(folder):
    with io.create_h5(folder / "gaze.h5", "gaze", {}, {"sigma": 2}):
        pass
    told = tell(folder, "gaze.h5", "logs/quality.log")
    assert (told["stage"], told["inputs"], told["params"]) == ("gaze", {}, {"sigma": 2})
    assert told["host"] == "node7"


def test_what_an_earlier_job_made_is_told(folder):
    with (folder / "logs/quality.log").open("a") as log:
        log.write("2026-11-25 02:50:35,000 taken from: /shared/embed/0123.h5\n")
    told = tell(folder, "gaze_quality.csv", "logs/quality.log")
    assert told["taken_from"] == "/shared/embed/0123.h5"


def test_without_log_and_benchmark_all_but_the_content_is_unknown(folder):
    told = tell(folder, "gaze_quality.csv", "logs/absent.log")
    known = {name for name, value in told.items() if value is not None}
    assert known == {"job", "log", "sha256"}


@pytest.mark.parametrize(
    ("row", "seconds", "peak_mb"),
    [("0.02\t0:00:00\tNA\tNA", 0.02, None), ("0.02\t0:00:00\t-\t-", 0.02, None),
     ("0.41\t0:00:00\t0.00\t0.00", 0.41, None),
     ("9.12\t0:00:09\t929.57\t4730.14", 9.12, 929.57)],
)  # fmt: skip
def test_a_job_too_short_to_be_looked_at_has_no_memory(tmp_path, row, seconds, peak_mb):
    (tmp_path / "job.tsv").write_text(f"{HEAD}\n{row}\n")
    assert measured(tmp_path / "job.tsv") == {"seconds": seconds, "peak_mb": peak_mb}
