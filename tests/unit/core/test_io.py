import hashlib
import json
import os
import platform
import signal
import subprocess
import sys
import time
from pathlib import Path

import h5py
import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from stages.core import io
from stages.core.cli import BadInput
from stages.settings.parts import CrfSettings

ROOT = Path(__file__).parents[3]


def write(path, ids=("a", "b"), source=None, value=1):
    with io.create_h5(path, "stage", {"source": source} if source else {}, CrfSettings()) as file:
        io.write_strings(file, "sample_id", ids)
        image = io.create_sample_dataset(file, "image", (len(ids), 4, 5), np.float32)
        image[:] = value
    return path


# Atomic writes


def test_a_file_appears_only_when_it_is_complete(tmp_path):
    path = tmp_path / "new folder/file"
    with io.atomic_file(path) as temporary:
        temporary.write_text("half")
        assert not path.exists()
        assert temporary.parent.parent == path.parent  # a rename across file systems is not atomic
    assert path.read_text() == "half"
    assert list(path.parent.iterdir()) == [path]


@pytest.mark.parametrize("failure", [ValueError, KeyboardInterrupt, SystemExit])
@pytest.mark.parametrize("before", [None, "old"])
def test_a_failure_leaves_the_old_file_and_nothing_else(failure, before, tmp_path):
    path = tmp_path / "file"
    if before:
        path.write_text(before)
    with pytest.raises(failure), io.atomic_file(path) as temporary:
        temporary.write_text("half")
        raise failure
    assert [p.name for p in tmp_path.iterdir()] == (["file"] if before else [])
    assert not before or path.read_text() == before


def test_a_failure_before_the_first_byte(tmp_path):
    with pytest.raises(ValueError, match="early"), io.atomic_file(tmp_path / "file"):
        raise ValueError("early")
    assert not list(tmp_path.iterdir())


def test_a_failed_hdf5_file_leaves_the_old_one(tmp_path):
    path = write(tmp_path / "file.h5", value=1)
    with pytest.raises(ValueError, match="mid"), io.create_h5(path, "stage", {}, {}) as file:
        file["half"] = 1
        raise ValueError("mid")
    with io.open_h5(path, "image") as file:
        assert (file["image"][()] == 1).all()
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize("before", [False, True])
def test_a_killed_process_leaves_no_partial_file_under_the_name(before, tmp_path):
    path = tmp_path / "file.h5"
    if before:
        write(path)
    old = path.read_bytes() if before else None
    script = (
        "import sys, time\nfrom pathlib import Path\nfrom stages.core import io\n"
        "with io.create_h5(Path(sys.argv[1]), 's', {}, {}) as file:\n"
        "    file['half'] = range(100_000)\n"
        "    file.flush()\n"
        "    print('writing', flush=True)\n"
        "    time.sleep(60)\n"
    )
    child = subprocess.Popen(
        [sys.executable, "-c", script, str(path)], cwd=ROOT, stdout=subprocess.PIPE, text=True
    )
    assert child.stdout is not None
    try:
        assert child.stdout.readline() == "writing\n"
    finally:
        child.send_signal(signal.SIGKILL)
        child.wait()
        child.stdout.close()
    assert path.exists() == before
    assert not before or path.read_bytes() == old
    # The killed process left a hidden file, which the next run deletes.
    (leftover,) = (p for p in tmp_path.iterdir() if p != path)
    assert leftover.name.startswith(".")
    write(path)
    with io.open_h5(path, "image"):
        pass
    assert list(tmp_path.iterdir()) == [path]


def test_the_temporary_file_of_a_running_process_is_kept(tmp_path):
    other = subprocess.Popen(["sleep", "60"])
    try:
        theirs = tmp_path / f".file.{platform.node()}.{other.pid}.tmp"
        theirs.write_text("half")
        with io.atomic_file(tmp_path / "file") as ours:
            ours.write_text("ours")
        assert theirs.read_text() == "half"
        with io.atomic_folder(tmp_path / "folder") as ours:
            (ours / "a").write_text("ours")
    finally:
        other.kill()
        other.wait()
    with io.atomic_file(tmp_path / "file") as ours:
        ours.write_text("ours again")
    assert sorted(p.name for p in tmp_path.iterdir()) == ["file", "folder"]


def test_atomic_folder_replaces_the_whole_old_folder(tmp_path):
    path = tmp_path / "a/folder"
    for name in ("first", "second"):
        with io.atomic_folder(path) as folder:
            (folder / name).write_text(name)
            assert not (path / name).exists()
    assert [p.name for p in path.iterdir()] == ["second"]
    with pytest.raises(ValueError, match="mid"), io.atomic_folder(path) as folder:
        raise ValueError("mid")
    assert [p.name for p in path.iterdir()] == ["second"]
    assert list(path.parent.iterdir()) == [path]


def test_write_csv_rounds_quotes_and_leaves_missing_values_empty(tmp_path):
    path = tmp_path / "table.csv"
    table = pd.DataFrame({"id": ["ü,", "b"], "x": [1 / 3, np.nan], "n": [1_234_567, 2]})
    io.write_csv(table, path)
    assert path.read_bytes() == 'id,x,n\n"ü,",0.333333,1234567\nb,,2\n'.encode()
    assert list(tmp_path.iterdir()) == [path]


# HDF5 and provenance


def test_provenance_has_stage_inputs_settings_and_versions(tmp_path):
    source = tmp_path / "elsewhere/source.csv"
    source.parent.mkdir()
    source.write_text("x")
    with h5py.File(write(tmp_path / "file.h5", source=source)) as file:
        attributes = dict(file.attrs)
    assert attributes["schema_version"] == io.SCHEMA_VERSION
    assert attributes["stage"] == "stage"
    assert json.loads(attributes["inputs"]) == {"source": hashlib.sha256(b"x").hexdigest()}
    assert CrfSettings.model_validate_json(attributes["params"]) == CrfSettings()
    versions = json.loads(attributes["versions"])
    assert versions["h5py"] == h5py.__version__ and versions["numpy"] == np.__version__
    assert "elsewhere" not in str(attributes)  # no path is stored: two clones write the same bytes


def test_the_same_content_gives_the_same_bytes(tmp_path):
    first = write(tmp_path / "first.h5").read_bytes()
    time.sleep(1.1)  # HDF5's own time stamps count seconds
    assert write(tmp_path / "other/second.h5").read_bytes() == first


def test_all_data_sets_and_attributes_have_plain_types(tmp_path):
    kinds = {}
    with h5py.File(write(tmp_path / "file.h5")) as file:
        file.visititems(lambda name, item: kinds.update({name: item.dtype}))
        assert file["image"].chunks == (1, 4, 5)
        assert h5py.check_string_dtype(kinds.pop("sample_id")).encoding == "utf-8"
        assert kinds == {"image": np.dtype(np.float32)}
        for name in file.attrs:
            kind = file.attrs.get_id(name).dtype
            assert kind == np.int64 or h5py.check_string_dtype(kind) is not None


@pytest.mark.parametrize(
    "values", [["a", "ü", ""], [["a", "b"], ["日本", "d"]], [], np.array(["x"], object)]
)
def test_strings_survive_writing_and_reading(values, tmp_path):
    with io.create_h5(tmp_path / "file.h5", "stage", {}, {}) as file:
        io.write_strings(file, "text", values)
    with io.open_h5(tmp_path / "file.h5", "text") as file:
        found = io.read_strings(file, "text")
    assert found.tolist() == np.asarray(values, object).tolist()
    assert all(isinstance(text, str) for text in found.flat)


def absent(path):
    pass


def no_hdf5(path):
    path.write_text("a,b\n")


def truncated(path):
    write(path)
    os.truncate(path, 700)


def other_version(path):
    write(path)
    with h5py.File(path, "a") as file:
        file.attrs["schema_version"] = 99


def without_provenance(path):
    with h5py.File(path, "w") as file:
        file["image"] = 1


def without_data_sets(path):
    with io.create_h5(path, "stage", {}, {}) as file:
        file["sample_id"] = 1


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (absent, "No such file"),
        (no_hdf5, "expected: a readable HDF5 file"),
        (truncated, "expected: a readable HDF5 file"),
        (other_version, "found:    99\n  expected: 1"),
        (without_provenance, "attribute schema_version\n  found:    None"),
        (without_data_sets, "found:    ['sample_id']\n  expected: also ['image', 'mask']"),
    ],
)
def test_an_unusable_hdf5_file_is_reported_with_what_to_do(make, message, tmp_path):
    path = tmp_path / "file.h5"
    make(path)
    with pytest.raises(BadInput) as caught, io.open_h5(path, "sample_id", "image", "mask"):
        pass
    text = str(caught.value)
    assert text.startswith(f"{path}: ") and message in text
    assert "to mend:  delete it and run snakemake again" in text


def test_an_error_of_the_caller_while_a_file_is_open_is_raised_unchanged(tmp_path):
    with (
        pytest.raises(OSError, match="mine"),
        io.open_h5(write(tmp_path / "file.h5")) as file,
    ):
        raise OSError("mine")
    assert not file  # closed


@pytest.mark.parametrize(
    ("ids", "same"),
    [(["a", "b"], True), (["b", "a"], False), (["a"], False), (["a", "b", "c"], False)],
)
def test_two_files_must_hold_the_same_samples_in_the_same_order(ids, same, tmp_path):
    first = write(tmp_path / "first.h5")
    second = write(tmp_path / "second.h5", ids)
    with io.open_h5(first) as one, io.open_h5(second) as other:
        io.check_same_samples(one, one)
        if same:
            io.check_same_samples(one, other)
            return
        with pytest.raises(BadInput) as caught:
            io.check_same_samples(one, one, other)
    assert str(second) in str(caught.value) and str(first) in str(caught.value)


# Sample ids


@pytest.mark.parametrize(
    "sample_id",
    ["a", "cju0qkwl35piu0993l0dewei2", "Case 1 (T2)", "a.b-c_d+e@f", "Größe", "患者7", "x" * 200,
     # A combining accent, and scripts that write vowels as combining marks.
     "Zoe\u0301", "रोगी", "ผู้ป่วย", "مريض ١"],
)  # fmt: skip
def test_valid_ids_are_accepted(sample_id, tmp_path):
    assert io.check_sample_id(sample_id, tmp_path) == sample_id


@pytest.mark.parametrize(
    "sample_id",
    ["", " ", ".", "..", "../x", "a/b", "a\\b", "/a", ".hidden", "a.", " a", "a ", "a\0b", "a\n",
     "\na", "a\tb", "a\u2028b", "x" * 201, "x" * 300, "a:b", "a*", "a?b", "<b>", "a'b", 'a"b', "$a",
     "a;b", "a|b", "a`b", "~a", "{a}", "a%b", "a\u202eb", "a\u200bb", "a\u00a0b", "a\u2215b",
     "a\ufeffb", "a\ud800b", "a\ue000b", "a€b", "a\x7fb"],
)  # fmt: skip
def test_invalid_ids_are_refused_with_the_file_name(sample_id):
    with pytest.raises(BadInput) as caught:
        io.check_sample_id(sample_id, Path("images/odd.jpg"))
    text = str(caught.value)
    assert text.startswith("images/odd.jpg: sample id") and repr(sample_id) in text
    assert text.endswith(
        "to mend:  rename the image, and use the new name for its mask, its gaze and its line in a "
        "split file"
    )


@given(st.text(max_size=20))
def test_an_accepted_id_names_one_file_and_one_group(sample_id):
    try:
        io.check_sample_id(sample_id, Path("x"))
    except BadInput:
        return
    assert (Path("folder") / sample_id).parent == Path("folder")
    assert (Path("folder") / sample_id).name == sample_id
    assert sample_id.isprintable() and "/" not in sample_id


# Hashes


def test_sha256_of_a_file(tmp_path):
    path = tmp_path / "file"
    path.write_bytes(b"abc")
    # First test vector of FIPS 180-2.
    assert io.sha256(path) == "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"


def content(path, text):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)


@pytest.mark.parametrize(
    "change",
    [
        lambda f: content(f / "a", "other"),
        lambda f: (f / "a").rename(f / "c"),
        lambda f: (f / "a").unlink(),
        lambda f: content(f / "c", ""),
        lambda f: content(f / "sub/b", "other"),
        lambda f: (f / "sub").rename(f / "sup"),
        lambda f: ((f / "a").rename(f / "t"), (f / "d").rename(f / "a"), (f / "t").rename(f / "d")),
    ],
)
def test_sha256_of_a_folder_depends_on_names_and_contents(change, tmp_path):
    def fill(folder):
        content(folder / "a", "1")
        content(folder / "d", "2")
        content(folder / "sub/b", "3")
        return folder

    folder, twin = fill(tmp_path / "one"), fill(tmp_path / "two")
    before = io.sha256(folder)
    assert io.sha256(twin) == before
    os.utime(folder / "a", (1, 1))
    content(folder / ".snakemake_timestamp", "now")
    assert io.sha256(folder) == before
    change(folder)
    assert io.sha256(folder) != before


def test_sha256_follows_links_to_folders(tmp_path):
    content(tmp_path / "store/image", "1")
    (tmp_path / "raw").mkdir()
    (tmp_path / "raw/images").symlink_to(tmp_path / "store")
    before = io.sha256(tmp_path / "raw")
    content(tmp_path / "store/image", "2")
    assert io.sha256(tmp_path / "raw") != before


def test_sha256_of_a_folder_skips_hidden_files(tmp_path):
    (tmp_path / "model").write_text("1")
    before = io.sha256(tmp_path)
    # `git clone` creates such a hidden folder.
    content(tmp_path / ".git/config", "2")
    assert io.sha256(tmp_path) == before


def test_sha256_of_a_folder_skips_a_broken_link(tmp_path):
    before = io.sha256(tmp_path)
    (tmp_path / "link").symlink_to(tmp_path / "absent")
    assert io.sha256(tmp_path) == before


@pytest.mark.skipif(sys.platform == "darwin", reason="macOS file names are always Unicode")
def test_sha256_of_a_file_name_that_is_not_unicode(tmp_path):
    (tmp_path / os.fsdecode(b"caf\xe9")).write_text("1")
    assert len(io.sha256(tmp_path)) == 64


def test_a_data_set_without_samples_can_be_created(tmp_path):
    with io.create_h5(tmp_path / "none.h5", "test", {}, {}) as file:
        io.create_sample_dataset(file, "probability", (0, 32, 48), "float16")
    with h5py.File(tmp_path / "none.h5") as file:
        assert file["probability"].shape == (0, 32, 48)
