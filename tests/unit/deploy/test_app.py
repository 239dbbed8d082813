"""The app: what it serves, to whom, and that its files are those of the command `segment`."""

import http.client
import io
import json
import os
import re
import signal
import socket
import subprocess
import sys
import threading
import zipfile
from types import SimpleNamespace

import h5py
import numpy as np
import pydicom
import pytest
from conftest import write_kvasir
from PIL import Image
from test_formats import write_clinical_series
from test_segment import SIZE, make_student

from stages.core.cli import BadInput
from stages.data.prepare import prepare
from stages.deploy import app, case, views
from stages.deploy.segment import load_students, segment_images
from stages.gaze.pseudomasks import make_pseudomasks
from stages.settings.gaze import GazeSettings
from stages.settings.prepare import PrepareSettings
from tests.chromium import find_chromium, open_tab
from tests.workspace import ROOT


class Client:
    """Requests to an app, by default as its page sends them."""

    def __init__(self, server):
        self.server = server
        self.host = f"127.0.0.1:{server.server_port}"

    def ask(self, path="", *, method="GET", body=None, prefix=None, **headers):
        prefix = f"/{self.server.token}/" if prefix is None else prefix
        connection = http.client.HTTPConnection(self.host, timeout=60)
        connection.putrequest(method, prefix + path, skip_host=True)
        headers = {"Host": self.host, **headers}
        if body is not None:
            headers.setdefault("Content-Length", str(len(body)))
        for name, value in headers.items():
            if value is not None:
                connection.putheader(name.replace("_", "-"), value)
        connection.endheaders(body)
        answer = connection.getresponse()
        found = SimpleNamespace(status=answer.status, headers=answer.headers, body=answer.read())
        connection.close()
        return found

    def post(self, path, files, **options):
        """Upload (name, content) of files; return status and text."""
        listed = [{"name": name, "size": len(content)} for name, content in files]
        line = json.dumps({"files": listed, **options}).encode() + b"\n"
        body = b"".join([line, *(content for _, content in files)])
        answer = self.ask(path, method="POST", body=body)
        return answer.status, answer.body.decode()

    def upload(self, *paths, to="segment", **options):
        status, text = self.post(to, [(p.name, p.read_bytes()) for p in paths], **options)
        assert status == 200, text
        return self.case()

    def case(self):
        return json.loads(self.ask("case").body)

    def view(self, name, item=0, number=0):
        answer = self.ask(f"{self.case()['id']}/view/{item}/{number}/{name}")
        assert answer.status == 200
        return np.asarray(Image.open(io.BytesIO(answer.body)))

    def files(self):
        """Return name → content of all files to take away."""
        answer = self.ask(f"{self.case()['id']}/all.zip")
        with zipfile.ZipFile(io.BytesIO(answer.body)) as archive:
            return {name: archive.read(name) for name in archive.namelist()}


@pytest.fixture
def start(tmp_path):
    """Return a function that starts the app with a student of colour or grey images."""
    servers = []

    def start(channels=3):
        student = make_student(tmp_path, channels)
        students = load_students([student], uncertainty=True, threads=1, gpus=0)
        folder = tmp_path / "private"
        folder.mkdir()
        server = app._open_server(0, case.Case(students, folder, "polyp", GazeSettings()))
        thread = threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True)
        thread.start()
        servers.append((server, thread))
        return Client(server)

    yield start
    for server, thread in servers:
        server.shutdown()
        thread.join()
        server.close()


@pytest.fixture
def frames(tmp_path):
    write_kvasir(tmp_path / "kvasir")
    return sorted((tmp_path / "kvasir/images").iterdir())


def segment(tmp_path, images, **options):
    """Return name → content of the files of the command."""
    output = tmp_path / "masks"
    segment_images(
        [tmp_path / "student.safetensors"], images, output,
        probability=True, uncertainty=True, label="polyp", **options,
    )  # fmt: skip
    return {p.relative_to(output).as_posix(): p.read_bytes() for p in output.rglob("*.*")}


def test_the_files_of_pictures_are_those_of_the_command(start, frames, tmp_path):
    client = start()
    described = client.upload(*frames[:3])
    expected = segment(tmp_path, frames[:3])
    assert len(expected) == described["files"] == 9
    assert client.files() == expected
    assert [item["name"] for item in described["items"]] == ["frame 0", "frame 1", "frame 2"]
    for item in described["items"]:
        for content, name in item["files"].items():
            answer = client.ask(f"{described['id']}/file/{name.replace(' ', '%20')}")
            assert answer.body == expected[name], content
            quoted = name.replace(" ", "%20")
            assert answer.headers["Content-Disposition"].endswith(f"filename*=UTF-8''{quoted}")


def test_the_pictures_of_a_slice_show_the_mask(start, frames, tmp_path):
    client = start()
    client.upload(frames[0])
    expected = segment(tmp_path, frames[:1])
    mask = np.asarray(Image.open(io.BytesIO(expected["frame 0.png"]))) > 0
    drawn = client.view("mask")
    np.testing.assert_array_equal(drawn, views.draw_outlines([mask], [views.MASK_COLOUR]))
    assert drawn[..., 3].any()
    with Image.open(frames[0]) as image:
        np.testing.assert_array_equal(client.view("image"), np.asarray(image))
    for name in ("probability", "uncertainty"):
        assert client.view(name).shape == (*mask.shape, 3)
    case_id = client.case()["id"]
    for path in ("view/0/0/heatmap", "view/0/1/mask", "view/1/0/mask", "view/0/-1/mask"):
        assert client.ask(f"{case_id}/{path}").status == 404


def test_a_volume_is_shown_slice_by_slice_and_its_files_are_those_of_the_command(
    start, own_volumes, tmp_path
):
    client = start(channels=1)
    volume = own_volumes / "images/case1.nii.gz"
    (item,) = client.upload(volume)["items"]
    assert [one["name"] for one in item["slices"]] == ["case1_1", "case1_2", "case1_3"]
    assert set(item["files"].values()) == set(segment(tmp_path, [volume]))
    assert client.files() == segment(tmp_path, [volume])
    assert client.view("image", 0, 2).shape == (48, 64, 3)


@pytest.mark.parametrize("format", ["source", "png"])
def test_a_dicom_series_has_one_segmentation_or_pictures(format, start, tmp_path):
    client = start(channels=1)
    images = write_clinical_series(tmp_path / "scans")
    described = client.upload(*images, format=format)
    found, expected = client.files(), segment(tmp_path, images, format=format)
    assert set(found) == set(expected)
    pictures = [name for name in found if name.endswith(".png")]
    assert all(found[name] == expected[name] for name in pictures)
    if format == "source":
        assert described["items"][0]["files"] == {"mask": "1.2.4.dcm"}
        ours, theirs = (
            pydicom.dcmread(io.BytesIO(files["1.2.4.dcm"])) for files in (found, expected)
        )
        np.testing.assert_array_equal(ours.pixel_array, theirs.pixel_array)
        assert ours.SegmentSequence[0].SegmentLabel == "polyp"


def test_a_recording_gives_the_pseudomasks_of_the_pipeline(start, frames, tmp_path):
    client = start()
    root, prepared, gaze = tmp_path / "kvasir", tmp_path / "prepared.h5", tmp_path / "gaze.h5"
    prepare(root, prepared, PrepareSettings(layout="kvasir", size=SIZE), 1)
    make_pseudomasks(prepared, gaze, GazeSettings(), 1, 0, root / "fixations.csv")
    client.upload(*frames[:2])
    before = client.files()
    described = client.upload(
        root / "fixations.csv", to="recording", settings=client.case()["settings"]
    )
    assert client.files() == before
    assert described["items"][0]["slices"][0]["gaze"] == "3 fixations, 0.8 s"
    with h5py.File(gaze) as file:
        levels = file["pseudomask"][0]
    with Image.open(frames[0]) as image:
        enlarged = [
            np.asarray(Image.fromarray(m).resize(image.size, Image.Resampling.NEAREST)) > 0
            for m in levels[::-1]
        ]
    expected = views.draw_outlines(enlarged, views.LEVEL_COLOURS[::-1])
    np.testing.assert_array_equal(client.view("pseudomasks"), expected)
    opacity = client.view("heatmap")[..., 3]
    assert opacity.max() == pytest.approx(255 * views.GAZE_OPACITY, abs=3)
    assert opacity[0, -1] == 0


def test_a_recording_that_does_not_fit_is_explained_and_the_masks_stay(start, frames, tmp_path):
    client = start()
    table = ("gaze.csv", b"image,x,y,duration\nother.png,0.5,0.5,200\n")
    status, text = client.post("recording", [table], settings="format: gazemedseg")
    assert (status, "choose the images on which" in text) == (400, True)
    client.upload(frames[0])
    columns = "columns: {x: x, y: y, duration: duration, image: image}\nunit: fraction"
    for settings, expected in (
        ("format: [", "line 1: found"),
        ("format: gazemedsec", "format: found \"gazemedsec\"; allowed: 'gazemedseg'"),
        ("format: fixations", "recording.unit must be set"),
        ("format: gazemedseg", "gaze.csv: columns\n"),
        (f"format: fixations\n{columns}\ntime_unit: ms", "['other.png']\n"),
    ):
        status, text = client.post("recording", [table], settings=settings)
        assert (status, expected in text) == (400, True), text
        assert str(tmp_path) not in text
    described = client.case()
    assert (described["files"], described["items"][0]["slices"][0]["gaze"]) == (3, "")
    status, text = client.post("recording", [table, table], settings="format: gazemedseg")
    assert "found:    2\n" in text


def test_maps_are_a_recording_too(start, frames):
    client = start()
    client.upload(frames[0])
    heat = io.BytesIO()
    with Image.open(frames[0]) as image:
        Image.linear_gradient("L").resize(image.size).save(heat, "PNG")
    status, _ = client.post(
        "recording", [("frame 0.png", heat.getvalue())], settings="format: heatmaps"
    )
    assert (status, client.case()["items"][0]["slices"][0]["gaze"]) == (200, "a map")
    assert client.view("pseudomasks")[..., 3].any()


def test_a_bad_file_is_explained_without_a_path_and_the_others_are_shown(start, frames, tmp_path):
    client = start()
    bad = ("<b>broken.png", b"no picture")
    status, text = client.post("segment", [bad])
    assert status == 400
    assert text.startswith("<b>broken.png: file\n  found: ")
    assert "to mend:" in text
    good = (frames[0].name, frames[0].read_bytes())
    status, text = client.post("segment", [bad, good, (".DS_Store", b"hidden"), ("a.txt", b"")])
    described = client.case()
    assert (status, [item["name"] for item in described["items"]]) == (200, ["frame 0"])
    for name in ("<b>broken.png", "a.txt"):
        assert f"{name}: file" in described["problems"]
    assert "DS_Store" not in described["problems"]
    assert str(tmp_path) not in text + described["problems"]
    for nothing in ([], [(".DS_Store", b"hidden")]):
        status, text = client.post("segment", nothing)
        assert (status, "found:    no file\n" in text) == (400, True)


def test_only_the_own_host_is_served(start):
    client = start()
    port = client.server.server_port
    assert client.ask().status == 200
    assert client.ask(Host=f"localhost:{port}").status == 200
    for host in (None, "127.0.0.1", f"evil.example:{port}", f"127.0.0.1:{port + 1}", ""):
        for method in ("GET", "POST"):
            assert client.ask("case", method=method, Host=host).status == 403


def test_nothing_is_served_without_the_secret_word(start):
    client = start()
    token = client.server.token
    for prefix in ("/", f"/{token[:-1]}/", "//", f"/x{token}/", "/%00/", f"/{token}x/"):
        for path in ("", "case", "segment"):
            for method in ("GET", "POST"):
                answer = client.ask(path, method=method, prefix=prefix, body=b"")
                assert answer.status == 403
                assert token.encode() not in answer.body
    assert client.ask("segment", method="PUT").status == 501


def test_uploads_have_bounds(start, monkeypatch):
    client = start()
    huge = client.ask("segment", method="POST", Content_Length=str(app.MAX_BYTES + 1))
    assert huge.status == 413
    assert b"use the command `gaze-to-insight segment`" in huge.body
    for length in (None, "-1", "1e3", "٣"):
        sent = length and length.encode()
        assert client.ask("segment", method="POST", Content_Length=sent).status == 411
    for body in (b"", b"\n", b"{}\n", b"[1]", b"\xff\n", b'{"files": [{"name": "a", "size": -1}]}'):
        assert client.ask("segment", method="POST", body=body).status == 400
    line = b'{"files": [{"name": "a.png", "size": 5}]}\n'
    assert client.ask("segment", method="POST", body=line + b"1234").status == 400
    assert client.ask("elsewhere", method="POST", body=line).status == 404
    monkeypatch.setattr(app, "MAX_HEADER", 10)
    assert client.ask("segment", method="POST", body=line + b"12345").status == 400


def test_an_upload_that_ends_early_leaves_the_app_working(start, frames):
    client = start()
    line = b'{"files": [{"name": "a.png", "size": 100}]}\n'
    with socket.create_connection(("127.0.0.1", client.server.server_port)) as connection:
        head = f"POST /{client.server.token}/segment HTTP/1.0\r\nHost: {client.host}\r\n"
        head += f"Content-Length: {len(line) + 100}\r\n\r\n"
        connection.sendall(head.encode() + line + b"1234")
        connection.shutdown(socket.SHUT_WR)
        assert connection.recv(1) == b""
    assert client.upload(frames[0])["files"] == 3


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("../../etc/a.png", "a.png"), ("..\\..\\a.png", "a.png"), ("/a.png", "a.png"),
        ("..", "file"), ("", "file"), ("a/", "file"), (".", "file"), ("a\0b\n.png", "a_b_.png"),
        ("Ünder 1 (2).nii.gz", "Ünder 1 (2).nii.gz"), ("a\u202egnp.exe", "a_gnp.exe"),
    ],
)  # fmt: skip
def test_names_of_uploads_are_confined(name, expected):
    assert app.confine_name(name) == expected


def test_no_path_leads_out_of_the_folder(start, frames, tmp_path):
    client = start()
    content = frames[0].read_bytes()
    before = {path for path in tmp_path.rglob("*") if "private" not in path.parts}
    names = ["../../out.jpg", "a/../../out.jpg", str(tmp_path / "out.jpg"), "..\\out.jpg"]
    status, _ = client.post("segment", [(name, content) for name in names])
    assert status == 200
    found = sorted(path.name for path in (tmp_path / "private/images").iterdir())
    assert found == ["2_out.jpg", "3_out.jpg", "4_out.jpg", "out.jpg"]
    assert {path for path in tmp_path.rglob("*") if "private" not in path.parts} == before
    case_id = client.case()["id"]
    for path in ("../images/out.jpg", "%2e%2e/images/out.jpg", "../../student.safetensors", ""):
        assert client.ask(f"{case_id}/file/{path}").status == 404


def test_a_new_upload_replaces_the_one_before(start, frames, tmp_path):
    client = start()
    first = client.upload(frames[0])
    client.upload(frames[1])
    for path in ("file/frame%200.png", "view/0/0/mask", "all.zip"):
        assert client.ask(f"{first['id']}/{path}").status == 404
    assert not list((tmp_path / "private").rglob("frame 0*"))


def test_the_server_listens_on_loopback_only(start):
    server = start().server
    assert server.socket.getsockname()[0] == "127.0.0.1"
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection(("127.0.0.2", server.server_port), timeout=10)


def test_the_page_names_nothing_elsewhere_and_is_kept_nowhere(start):
    answer = start().ask()
    page, policy = answer.body.decode(), answer.headers["Content-Security-Policy"]
    assert not re.search("https?:|//[a-z]|@import|url\\(|style=| on[a-z]+=", page)
    assert "default-src 'none'" in policy
    assert "unsafe" not in policy
    (nonce,) = set(re.findall("nonce-([^']+)'", policy))
    assert page.count(f'nonce="{nonce}"') == page.count("<script") + page.count("<style") == 2
    assert answer.headers["Cache-Control"] == "no-store"
    assert answer.headers["X-Content-Type-Options"] == "nosniff"
    assert answer.headers["Referrer-Policy"] == "no-referrer"
    colours = [*views.SCALE, views.MASK_COLOUR, *views.LEVEL_COLOURS]
    assert all(f"rgb({' '.join(map(str, colour))})" in page for colour in colours)


def test_outlines_follow_the_inner_border():
    mask = np.zeros((6, 6), bool)
    mask[1:5, 0:4] = True
    drawn = views.draw_outlines([mask], [(1, 2, 3)])
    inside = np.zeros((6, 6), bool)
    inside[2:4, 1:3] = True
    np.testing.assert_array_equal(drawn[..., 3] == 255, mask & ~inside)
    assert drawn[1, 0].tolist() == [1, 2, 3, 255]


def test_large_images_are_shown_smaller():
    image = np.zeros((3 * views.MAX_SIDE, 600, 1), np.float32)
    maps = case.Maps(np.zeros(SIZE, np.float16), None)
    drawn = views.draw_views(image, maps, None, (0.5,))
    assert set(drawn) == {"image", "mask", "probability"}
    assert Image.open(io.BytesIO(drawn["image"])).size == (200, views.MAX_SIDE)


@pytest.mark.parametrize(
    "options",
    [
        {"port": 70000}, {"label": ""}, {"gaze": GazeSettings(levels="area")},
        {"gaze": GazeSettings(features={})}, {"gaze": GazeSettings(simulate={})},
    ],
)  # fmt: skip
def test_options_are_checked_first(options, tmp_path):
    with pytest.raises(BadInput, match="to mend"):
        app.app([tmp_path / "student.safetensors"], **options)


def test_a_port_in_use_is_explained(start):
    client = start()
    with pytest.raises(BadInput, match=r"--port: option\n.*in use"):
        app._open_server(client.server.server_port, client.server.case)


def test_the_command_shows_an_image_and_deletes_its_files_at_the_end(frames, tmp_path):
    student, temporary = make_student(tmp_path, channels=3), tmp_path / "temporary"
    temporary.mkdir()
    with subprocess.Popen(
        [sys.executable, "-m", "stages.deploy.main", "app", "--student", student, "--no-open",
         "--images", frames[0]],
        cwd=ROOT, env={**os.environ, "TMPDIR": str(temporary)}, stderr=subprocess.PIPE, text=True,
    ) as process:  # fmt: skip
        address = next(
            found for line in process.stderr if (found := re.search(r"http://(\S+?)(/\S+/)", line))
        )
        connection = http.client.HTTPConnection(address[1])
        connection.request("GET", f"{address[2]}case")
        described = json.loads(connection.getresponse().read())
        assert [item["name"] for item in described["items"]] == ["frame 0"]
        (folder,) = temporary.glob("gaze-to-insight-*/")
        assert folder.stat().st_mode & 0o777 == 0o700
        process.send_signal(signal.SIGTERM)
        assert "the uploaded files are deleted" in process.stderr.read()
    assert process.returncode == 0
    assert not list(temporary.glob("gaze-to-insight-*/"))


needs_chromium = pytest.mark.skipif(not find_chromium(), reason="no Chromium on this machine")
ALL_SHOWN = (
    "document.getElementById('status').textContent === 'Finished.' && [...document.images]"
    ".every(i => i.closest('[hidden]') || (i.complete && i.naturalWidth))"
)


@needs_chromium
def test_a_dropped_picture_and_its_recording_are_shown_in_a_browser(start, frames, tmp_path):
    client = start()
    with open_tab(tmp_path / "profile") as tab:
        tab.open(client.server.url, width=390)
        assert tab.run("document.getElementById('result').hidden")
        tab.drop(frames[0], tmp_path / "kvasir/fixations.csv")
        tab.wait_for(ALL_SHOWN)
        shown = "[...document.images].filter(i => !i.closest('[hidden]')).map(i => i.dataset.view)"
        assert tab.run(shown) == [
            "image", "mask", "probability", "uncertainty", "image", "heatmap", "image",
            "pseudomasks",
        ]  # fmt: skip
        # What the browser painted is the outline of the mask.
        painted = tab.run(
            "(() => { const image = document.querySelector('[data-view=mask]'), "
            "canvas = new OffscreenCanvas(image.naturalWidth, image.naturalHeight), "
            "context = canvas.getContext('2d'); context.drawImage(image, 0, 0); "
            "return [...context.getImageData(0, 0, canvas.width, canvas.height).data]; })()"
        )
        assert painted == client.view("mask").ravel().tolist()
        assert tab.run("document.documentElement.scrollWidth <= innerWidth")
        links = tab.run("[...document.querySelectorAll('#files a')].map(a => a.textContent)")
        assert links == ["mask", "probability", "uncertainty", "all 3 files (ZIP)"]
        assert tab.messages == []
        assert tab.requests
        assert all(url.startswith((client.server.url, "data:")) for url in tab.requests)


@needs_chromium
def test_a_volume_is_turned_over_by_keyboard_and_errors_are_read_out(start, own_volumes, tmp_path):
    client = start(channels=1)
    (tmp_path / "<img src=x>.png").write_bytes(b"no picture")
    with open_tab(tmp_path / "profile") as tab:
        tab.open(client.server.url)
        tab.drop(own_volumes / "images/case1.nii.gz", tmp_path / "<img src=x>.png")
        error = tab.wait_for("document.querySelector('[role=alert]').innerText")
        assert "<img src=x>.png: file" in error
        tab.wait_for(ALL_SHOWN)
        tab.run("document.getElementById('slice').focus()")
        for key in ("Home", "ArrowRight"):
            tab.call("Input.dispatchKeyEvent", type="keyDown", key=key, code=key,
                     windowsVirtualKeyCode={"Home": 36, "ArrowRight": 39}[key])  # fmt: skip
        text = tab.run("document.querySelector('label[for=slice]').innerText")
        assert text == "Slice 2 of 3: case1_2"
        assert tab.run("document.querySelector('[data-view=mask]').src").endswith("/view/0/1/mask")
