import errno
import os

import pytest

from stages.core.contents import contents, refusal


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "series/case1").mkdir(parents=True)
    (tmp_path / "a.png").write_bytes(b"one")
    (tmp_path / "series/case1/1.dcm").write_bytes(b"two")
    return tmp_path


def digest(folder):
    contents.cache_clear()
    return contents(folder)


def replace(file):
    """Write as many other bytes, under the same name; the folder's time stays as it is."""
    about = file.stat()
    file.write_bytes(file.read_bytes()[::-1])
    os.utime(file, ns=(about.st_atime_ns, about.st_mtime_ns + 1))


@pytest.mark.parametrize(
    "change",
    [
        lambda folder: replace(folder / "a.png"),
        lambda folder: replace(folder / "series/case1/1.dcm"),
        lambda folder: (folder / "a.png").rename(folder / "b.png"),
        lambda folder: (folder / "series/case1/2.dcm").touch(),
        lambda folder: (folder / "series/case1/1.dcm").unlink(),
    ],
    ids=["replaced", "replaced deep inside", "renamed", "added", "deleted"],
)
def test_what_changes_in_a_folder_changes_its_digest(folder, change):
    before = digest(folder)
    change(folder)
    assert digest(folder) != before


def test_hidden_files_dead_links_and_the_folders_own_time_do_not_count(folder):
    before = digest(folder)
    (folder / ".DS_Store").touch()
    (folder / "Thumbs.db").touch()
    (folder / "series/.cache").mkdir()
    (folder / "series/.cache/x").touch()
    (folder / "gone.png").symlink_to(folder / "nowhere")
    os.utime(folder, (1, 1))
    assert digest(folder) == before


def test_what_a_link_leads_to_counts(folder, tmp_path_factory):
    elsewhere = tmp_path_factory.mktemp("elsewhere") / "b.png"
    elsewhere.write_bytes(b"abc")
    (folder / "b.png").symlink_to(elsewhere)
    before = digest(folder)
    replace(elsewhere)
    assert digest(folder) != before


def test_a_ring_of_links_is_named(folder):
    (folder / "a").symlink_to(folder / "b")
    (folder / "b").symlink_to(folder / "a")
    with pytest.raises(OSError) as caught:
        digest(folder)
    said = refusal(caught.value)
    assert said.startswith((f"{folder}/a: ", f"{folder}/b: "))
    assert said.endswith(": mend it, or take it away")


def test_what_this_user_may_not_read_is_not_to_be_taken_away():
    said = refusal(PermissionError(errno.EACCES, "Permission denied", "data/ours/images"))
    assert said.startswith("data/ours/images: Permission denied: let this user read it")
