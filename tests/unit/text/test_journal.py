"""A journal survives its job, and a line that a kill cut short does no harm."""

import resource
import signal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stages.text.journal import Journal

ENTRIES = {"a": {"text": "ä\n\u2028"}, "b": {"text": ""}, "c": {"text": '"'}}


def test_the_next_job_finds_all_entries(tmp_path):
    first = Journal(tmp_path / "new", "0of1")
    first.add({"a": ENTRIES["a"]})
    first.add({name: ENTRIES[name] for name in "bc"})
    assert first.entries == ENTRIES
    assert Journal(tmp_path / "new", "0of1").entries == ENTRIES


def test_another_number_of_jobs_finds_all_entries(tmp_path):
    for writer, name in (("0of2", "a"), ("1of2", "b")):
        Journal(tmp_path, writer).add({name: ENTRIES[name]})
    third = Journal(tmp_path, "0of1")
    third.add({"c": ENTRIES["c"]})
    assert Journal(tmp_path, "3of4").entries == ENTRIES


def test_the_last_entry_of_a_name_is_kept(tmp_path):
    journal = Journal(tmp_path, "0of1")
    journal.add({"a": 1})
    journal.add({"a": 2})
    assert Journal(tmp_path, "0of1").entries == {"a": 2}


@pytest.fixture(scope="module")
def content(tmp_path_factory):
    folder = tmp_path_factory.mktemp("journal")
    for name, entry in ENTRIES.items():
        Journal(folder, "0of1").add({name: entry})
    return (folder / "0of1.jsonl").read_bytes()


@given(cut=st.integers(0, 200))
def test_a_truncated_journal_keeps_its_complete_lines(content, tmp_path_factory, cut):
    folder = tmp_path_factory.mktemp("cut")
    (folder / "0of1.jsonl").write_bytes(content[:cut])
    whole = content[:cut].count(b"\n")
    again = Journal(folder, "0of1")
    assert list(again.entries) == list(ENTRIES)[:whole]
    again.add({"d": 4})
    assert list(Journal(folder, "0of1").entries) == [*list(ENTRIES)[:whole], "d"]


def test_a_line_that_is_nested_too_deeply_is_dropped(content, tmp_path, caplog):
    (tmp_path / "0of1.jsonl").write_bytes(content + b"[" * 100_000 + b"\n")
    assert list(Journal(tmp_path, "0of1").entries) == list(ENTRIES)
    assert "is dropped" in caplog.text


def test_a_partial_write_on_a_full_disk_raises_and_keeps_the_journal_readable(tmp_path):
    journal = Journal(tmp_path, "0of1")
    journal.add({"a": 1})
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    ignored = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (20, before[1]))
    try:
        with pytest.raises(OSError, match="large"):
            journal.add({"b": "y" * 100})
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
        signal.signal(signal.SIGXFSZ, ignored)
    again = Journal(tmp_path, "0of1")
    again.add({"c": 2})
    assert Journal(tmp_path, "0of1").entries == {"a": 1, "c": 2}
