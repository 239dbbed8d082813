import hashlib
import io as streams
import socket
import tarfile
import threading
from base64 import b64encode
from collections import Counter
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import numpy as np
import pytest
from conftest import write_nrrd

from stages.core.cli import BadInput, Problems
from stages.data import fetch_lesions as fetch
from stages.data.datasets import layouts, lesions

NAMES = tuple(layouts.LAYOUTS["lesions"].required)

# The adapter

# Patient axes of an array whose first axis runs to the left, the second to the back, the third to
# the head, as the volumes of the archive are stored.
STORED = np.diag([0.5, 0.75, 6.0])


def write_volumes(root, directions=STORED):
    """Write four volumes of (x, y, z) = (7, 6, 5); the value of a voxel is x + 10 y + 100 z."""
    root.mkdir(parents=True, exist_ok=True)
    x, y, z = np.indices((7, 6, 5))
    for number, volume in enumerate(lesions.SPLIT_OF_VOLUME):
        label = np.zeros((7, 6, 5), np.int32)
        label[4, 1, 2] = label[5, 1, 2] = 1
        label[2, 3, 3] = 1 if number % 2 else 0
        write_nrrd(root / f"{volume}_image.nrrd", (x + 10 * y + 100 * z).astype("i2"), directions)
        write_nrrd(root / f"{volume}_label.nrrd", label, directions)
    return root


def list_without_problems(root):
    problems = Problems()
    records = lesions.list_records(root, problems)
    problems.raise_all()
    return records


def test_slices_with_a_lesion_are_split_by_whole_volume(tmp_path):
    records = list_without_problems(write_volumes(tmp_path))
    assert [(r.sample_id, r.split) for r in records] == [
        ("brain1_002", "train"),
        ("lung2_002", "train"),
        ("lung2_003", "train"),
        ("brain2_002", "test"),
        ("lung1_002", "test"),
        ("lung1_003", "test"),
    ]
    for record in records:
        assert record.subject_id == record.sample_id.split("_")[0]
        assert record.image == tmp_path / f"{record.subject_id}_image.nrrd"
        assert record.mask == tmp_path / f"{record.subject_id}_label.nrrd"
    assert {r.subject_id[:-1] for r in records if r.split == "test"} == {"brain", "lung"}


def test_a_slice_is_y_by_x_with_its_spacing(tmp_path):
    pixels = lesions.read(list_without_problems(write_volumes(tmp_path))[0])
    assert pixels.image.shape == (6, 7, 1) and pixels.image.dtype == np.float32
    y, x = np.indices((6, 7))
    np.testing.assert_array_equal(pixels.image[..., 0], x + 10 * y + 200)
    assert pixels.mask.dtype == np.bool_
    assert np.argwhere(pixels.mask).tolist() == [[1, 4], [1, 5]]
    assert pixels.spacing_mm == (0.75, 0.5)


def test_head_first_slices_are_counted_from_the_feet(tmp_path):
    records = list_without_problems(write_volumes(tmp_path, np.diag([0.5, 0.75, -6.0])))
    assert {r.slice for r in records} == {1, 2}  # of five: 3 and 2 from the other end
    pixels = {r.slice: lesions.read(r).image for r in records}
    assert pixels[1].min() == 300 and pixels[2].min() == 200


def other_grid(path):
    write_nrrd(path, np.ones((7, 6, 4), "i2"), STORED)


def other_place(path):
    write_nrrd(path, np.ones((7, 6, 5), "i2"), STORED, origin=(0, 0, 6))


@pytest.mark.parametrize(
    "damage", [Path.unlink, lambda path: path.write_bytes(b""), other_grid, other_place]
)
def test_a_damaged_volume_is_reported_with_its_remedy_and_omitted(damage, tmp_path):
    path = write_volumes(tmp_path) / "brain1_label.nrrd"
    damage(path)
    problems = Problems()
    records = lesions.list_records(tmp_path, problems)
    assert {r.subject_id for r in records} == {"lung2", "brain2", "lung1"}
    (problem,) = problems
    assert str(problem).startswith(f"{path}: ")
    assert f"python -m stages.data.fetch_lesions --output {tmp_path}" in str(problem)


# Fetching


def make_archive(folder=f"{fetch.PACKAGE}-{fetch.VERSION}", extra=()):
    """Make a source archive like the real one: the wanted volumes, and other files."""
    stream = streams.BytesIO()
    with tarfile.open(fileobj=stream, mode="w:gz") as archive:
        files = {f"data/{name}": name.encode() for name in NAMES}
        files |= {"setup.py": b"raise SystemExit('run')", "data/breast1_image.nrrd": b"narrow"}
        for name, content in [*((f"{folder}/{k}", v) for k, v in files.items()), *extra]:
            member = tarfile.TarInfo(name)
            member.size = len(content)
            archive.addfile(member, streams.BytesIO(content))
    return stream.getvalue()


@pytest.fixture
def index(monkeypatch):
    """Run a package index on the loopback; it serves `pages`, and lists the requests in `seen`."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self):
            server.seen.append((self.path, self.headers.get("Authorization")))
            content = server.pages.get(self.path)
            self.send_response(404 if content is None else 200)
            self.send_header("Content-Length", str(len(content or b"")))
            self.end_headers()
            self.wfile.write(content or b"")

        def log_message(self, *args):
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.pages, server.seen = {}, []
    server.url = f"http://127.0.0.1:{server.server_port}/simple"
    monkeypatch.setenv("PIP_INDEX_URL", server.url)
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    yield server
    server.shutdown()
    thread.join()
    server.server_close()


@pytest.fixture
def serve(index, monkeypatch):
    """Return a function that makes the index serve an archive, by default the expected one."""

    def serve(content, expected=None):
        known = content if expected is None else expected
        monkeypatch.setattr(fetch, "SHA256", hashlib.sha256(known).hexdigest())
        monkeypatch.setattr(fetch, "SIZE", len(known))
        links = (
            f'<a href="../../files/other-1.0.tar.gz">other-1.0.tar.gz</a><br/>'
            f'<a href="../../files/{fetch.ARCHIVE}#sha256=0">{fetch.ARCHIVE}</a>'
        )
        index.pages = {
            f"/simple/{fetch.PACKAGE}/": f"<html><body>{links}</body></html>".encode(),
            f"/files/{fetch.ARCHIVE}": content,
        }
        return index

    return serve


def fetch_error(output, **options):
    """Fetch, check that nothing was written, and return the error message."""
    with pytest.raises(BadInput) as caught:
        fetch.fetch_lesions(output, **options)
    assert not output.exists()
    text = str(caught.value)
    assert fetch.ARCHIVE in text and "phantom data sets" in text
    assert f"python -m stages.data.fetch_lesions --output {output} --archive " in text
    return text


def assert_fetched(output):
    assert sorted(p.name for p in output.iterdir()) == sorted(NAMES)
    assert all((output / name).read_bytes() == name.encode() for name in NAMES)


def test_only_the_volumes_are_unpacked(serve, tmp_path):
    serve(make_archive())
    fetch.fetch_lesions(tmp_path / "raw/lesions")
    assert_fetched(tmp_path / "raw/lesions")
    assert layouts.describe_missing("lesions", tmp_path / "raw/lesions") is None


def test_a_second_fetch_replaces_damaged_files(serve, tmp_path):
    serve(make_archive())
    fetch.fetch_lesions(tmp_path / "lesions")
    (tmp_path / "lesions" / NAMES[0]).write_bytes(b"damaged")
    (tmp_path / "lesions" / NAMES[1]).unlink()
    fetch.fetch_lesions(tmp_path / "lesions")
    assert_fetched(tmp_path / "lesions")


def test_a_local_archive_needs_no_index(serve, tmp_path):
    content = make_archive()
    (tmp_path / "archive").write_bytes(content)
    index = serve(content)
    fetch.fetch_lesions(tmp_path / "lesions", archive=tmp_path / "archive")
    assert_fetched(tmp_path / "lesions")
    assert index.seen == []


def test_no_path_of_the_archive_leaves_the_folder(serve, tmp_path):
    top = f"{fetch.PACKAGE}-{fetch.VERSION}"
    serve(
        make_archive(
            extra=[
                (f"{top}/data/../../../escaped.nrrd", b"x"),
                ("../escaped.nrrd", b"x"),
                (str(tmp_path / "escaped.nrrd"), b"x"),
            ]
        )
    )
    fetch.fetch_lesions(tmp_path / "deep/lesions")
    assert_fetched(tmp_path / "deep/lesions")
    assert sorted(p.name for p in tmp_path.rglob("*") if p.is_file()) == sorted(NAMES)


def test_another_archive_is_refused(serve, tmp_path):
    good, other = make_archive(), make_archive(extra=[("x", b"")])
    serve(other, expected=good)
    text = fetch_error(tmp_path / "lesions")
    assert hashlib.sha256(good).hexdigest() in text
    assert f"{len(other)} bytes with SHA-256 {hashlib.sha256(other).hexdigest()}" in text


def test_too_long_an_archive_is_cut_off(serve, tmp_path, monkeypatch):
    monkeypatch.setattr(fetch, "_BLOCK_BYTES", 2**10)
    good = make_archive()
    serve(good + bytes(10**6), expected=good)
    found = int(fetch_error(tmp_path / "lesions").split("found:    ")[1].split(" bytes")[0])
    assert len(good) <= found <= len(good) + 2**10


def test_an_incomplete_archive_is_refused(serve, tmp_path):
    good = make_archive()
    serve(good[:-100], expected=good)
    assert f"found:    {len(good) - 100} bytes" in fetch_error(tmp_path / "lesions")


def test_an_index_without_the_archive(serve, tmp_path):
    index = serve(make_archive())
    index.pages[f"/simple/{fetch.PACKAGE}/"] = b'<a href="x-1.whl">x</a>'
    assert f"no {fetch.ARCHIVE} among the 1 files of {index.url}" in fetch_error(
        tmp_path / "lesions"
    )


def test_an_index_without_the_package(index, tmp_path):
    text = fetch_error(tmp_path / "lesions")
    assert text.startswith(index.url) and "404" in text


def test_an_index_out_of_reach(tmp_path, monkeypatch):
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{free.getsockname()[1]}/simple"
    monkeypatch.setenv("PIP_INDEX_URL", url)
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    text = fetch_error(tmp_path / "lesions")
    assert text.startswith(url) and "refused" in text


def test_an_index_that_never_answers(tmp_path, monkeypatch):
    monkeypatch.setattr(fetch, "TIMEOUT_S", 0.2)
    with socket.create_server(("127.0.0.1", 0)) as silent:
        monkeypatch.setenv("PIP_INDEX_URL", f"http://127.0.0.1:{silent.getsockname()[1]}/simple")
        monkeypatch.setenv("no_proxy", "127.0.0.1")
        assert "timed out" in fetch_error(tmp_path / "lesions")


@pytest.mark.parametrize("url", ["no url", "file:///absent/simple", "https://"])
def test_a_url_that_is_not_an_index(url, tmp_path, monkeypatch):
    monkeypatch.setenv("PIP_INDEX_URL", url)
    fetch_error(tmp_path / "lesions")


def test_a_password_reaches_the_index_and_no_message(serve, tmp_path, monkeypatch):
    index = serve(make_archive())
    monkeypatch.setenv("PIP_INDEX_URL", index.url.replace("//", "//me:s%40cret@"))
    fetch.fetch_lesions(tmp_path / "lesions")
    assert {login for _, login in index.seen} == {f"Basic {b64encode(b'me:s@cret').decode()}"}
    index.pages = {}
    text = fetch_error(tmp_path / "again")
    assert "cret" not in text and text.startswith(index.url)


def test_a_missing_archive_is_reported(tmp_path):
    text = fetch_error(tmp_path / "lesions", archive=tmp_path / "none.tar.gz")
    assert text.startswith(str(tmp_path / "none.tar.gz"))


def test_pip_options_come_from_the_environment_or_its_file(tmp_path, monkeypatch):
    for name in ("PIP_INDEX_URL", "PIP_CERT"):
        monkeypatch.delenv(name, raising=False)
    (tmp_path / "pip.conf").write_text("[global]\nindex-url = https://mirror/simple\n")
    monkeypatch.setenv("PIP_CONFIG_FILE", str(tmp_path / "pip.conf"))
    assert fetch.pip_option("index-url") == "https://mirror/simple"
    assert fetch.pip_option("no-such-option") is None
    monkeypatch.setenv("PIP_INDEX_URL", "https://other/simple")
    assert fetch.pip_option("index-url") == "https://other/simple"


@pytest.mark.slow
def test_the_real_volumes(tmp_path):
    fetch.fetch_lesions(tmp_path)
    records = list_without_problems(tmp_path)
    counts = Counter((r.subject_id, r.split) for r in records)
    assert counts == {
        ("brain1", "train"): 7,
        ("lung2", "train"): 11,
        ("brain2", "test"): 3,
        ("lung1", "test"): 3,
    }
    # Foreground pixels and mm per pixel, from the headers and labels of the files.
    pixels = {r.sample_id: lesions.read(r) for r in records}
    for name, size, area, spacing in [
        ("brain1_016", 256, 984, 0.78125),
        ("brain2_010", 256, 41, 0.78125),
        ("lung1_032", 512, 161, 0.5703125),
        ("lung2_022", 512, 3412, 0.6269531),
    ]:
        found = pixels[name]
        assert found.image.shape == (size, size, 1)
        assert found.mask.sum() == area
        assert found.spacing_mm == pytest.approx((spacing, spacing))
    # A lung lesion is soft tissue (around 0 to 100 HU) in air: image and mask fit together.
    lung = pixels["lung2_020"]
    assert -100 < np.median(lung.image[lung.mask]) < 150
    # The table under the patient is at the bottom of the picture, air above it at the top.
    assert np.median(lung.image[:40]) < -900 < np.median(lung.image[-150:-100])
