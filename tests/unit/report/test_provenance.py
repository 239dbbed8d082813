"""provenance.json of a result, from the result itself, its job's log and its benchmark."""

import json

import pytest

from stages.core import io
from stages.report.provenance import provenance, read_benchmark

LOG = """\
2026-11-25 02:50:34,306 host: node7
2026-11-25 02:50:34,306 code: 0123456789abcdef
2026-11-25 02:50:34,519 device: H100
2026-11-25 02:50:34,520 made from: {made}
"""
HEAD = "s\th:m:s\tmax_rss\tmax_vms"


@pytest.fixture
def folder(tmp_path):
    """Write a table of the job `quality`, its log and its benchmark."""
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


def provenance_of(folder, name, log):
    provenance([folder / name], [folder / log], folder / "provenance.json")
    (item,) = json.loads((folder / "provenance.json").read_text()).items()
    assert item[0] == (folder / name).as_posix()
    return item[1]


def test_provenance_of_a_table_comes_from_the_log(folder):
    entry = provenance_of(folder, "gaze_quality.csv", "logs/quality.log")
    assert entry.pop("versions")["python"]
    assert entry == {
        "job": "quality", "log": f"{folder}/logs/quality.log",
        "sha256": io.sha256(folder / "gaze_quality.csv"), "code": "0123456789abcdef",
        "commit": None, "host": "node7", "device": "H100", "taken_from": None,
        "seconds": 2.5, "peak_mb": 123.4,
        "stage": "quality", "inputs": {"raw": io.sha256(folder / "raw.txt")},
        "params": {"limit": 3},
    }  # fmt: skip


def test_a_stage_that_logs_no_device_ran_on_the_cpu(folder):
    log = folder / "logs/quality.log"
    log.write_text(log.read_text().replace("device", "device of nobody"))
    assert provenance_of(folder, "gaze_quality.csv", "logs/quality.log")["device"] == "cpu"


def test_provenance_of_an_hdf5_file_comes_from_its_attributes(folder):
    with io.create_h5(folder / "gaze.h5", "gaze", {}, {"sigma": 2}):
        pass
    entry = provenance_of(folder, "gaze.h5", "logs/quality.log")
    assert (entry["stage"], entry["inputs"], entry["params"]) == ("gaze", {}, {"sigma": 2})
    assert entry["host"] == "node7"


def test_a_reused_result_names_its_source(folder):
    with (folder / "logs/quality.log").open("a") as log:
        log.write("2026-11-25 02:50:35,000 taken from: /shared/embed/0123.h5\n")
    entry = provenance_of(folder, "gaze_quality.csv", "logs/quality.log")
    assert entry["taken_from"] == "/shared/embed/0123.h5"


def test_without_log_and_benchmark_only_the_hash_is_known(folder):
    entry = provenance_of(folder, "gaze_quality.csv", "logs/absent.log")
    known = {name for name, value in entry.items() if value is not None}
    assert known == {"job", "log", "sha256"}


@pytest.mark.parametrize(
    ("row", "seconds", "peak_mb"),
    [("0.02\t0:00:00\tNA\tNA", 0.02, None), ("0.02\t0:00:00\t-\t-", 0.02, None),
     ("0.41\t0:00:00\t0.00\t0.00", 0.41, None),
     ("9.12\t0:00:09\t929.57\t4730.14", 9.12, 929.57)],
)  # fmt: skip
def test_a_job_too_short_to_measure_has_no_memory(tmp_path, row, seconds, peak_mb):
    (tmp_path / "job.tsv").write_text(f"{HEAD}\n{row}\n")
    assert read_benchmark(tmp_path / "job.tsv") == {"seconds": seconds, "peak_mb": peak_mb}
