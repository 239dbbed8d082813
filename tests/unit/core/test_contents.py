import errno
import os

import pytest

from stages.core.contents import describe_os_error, folder_digest


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "series/case1").mkdir(parents=True)
    (tmp_path / "a.png").write_bytes(b"one")
    (tmp_path / "series/case1/1.dcm").write_bytes(b"two")
    return tmp_path


def digest(folder):
    folder_digest.cache_clear()
    return folder_digest(folder)


def replace(file):
    """Replace the content by other bytes of the same length; the folder's time stays the same."""
    status = file.stat()
    file.write_bytes(file.read_bytes()[::-1])
    os.utime(file, ns=(status.st_atime_ns, status.st_mtime_ns + 1))


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
def test_a_change_in_a_folder_changes_its_digest(folder, change):
    before = digest(folder)
    change(folder)
    assert digest(folder) != before


def test_hidden_files_dead_links_and_the_folders_own_time_are_ignored(folder):
    before = digest(folder)
    (folder / ".DS_Store").touch()
    (folder / "Thumbs.db").touch()
    (folder / "series/.cache").mkdir()
    (folder / "series/.cache/x").touch()
    (folder / "gone.png").symlink_to(folder / "nowhere")
    os.utime(folder, (1, 1))
    assert digest(folder) == before


def test_the_target_of_a_link_counts(folder, tmp_path_factory):
    elsewhere = tmp_path_factory.mktemp("elsewhere") / "b.png"
    elsewhere.write_bytes(b"abc")
    (folder / "b.png").symlink_to(elsewhere)
    before = digest(folder)
    replace(elsewhere)
    assert digest(folder) != before


def test_a_cycle_of_links_is_reported_with_its_path(folder):
    (folder / "a").symlink_to(folder / "b")
    (folder / "b").symlink_to(folder / "a")
    with pytest.raises(OSError) as caught:
        digest(folder)
    message = describe_os_error(caught.value)
    assert message.startswith((f"{folder}/a: ", f"{folder}/b: "))
    assert message.endswith(": mend it, or remove it")


def test_an_unreadable_folder_is_reported_with_the_missing_permission():
    message = describe_os_error(
        PermissionError(errno.EACCES, "Permission denied", "data/ours/images")
    )
    assert message.startswith(
        "data/ours/images: Permission denied: give this user permission to read it"
    )
