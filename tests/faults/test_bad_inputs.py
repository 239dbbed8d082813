"""Bad input of every kind, through the commands that a user runs: a message each, and no harm.

Each case changes one thing in a workspace with results, runs one command, and names the words of
its message: the file, the field, what was found, what is expected and how to mend it. A case with
the status 0 is a tolerance, and its words, if any, are in the log. All other files, among them the
results of another data set, stay as they are.

A file that `--configfile` names is not tried: Snakemake reads it before any line of the workflow.
"""

import gzip
import json
import os
import shutil
import struct
import subprocess
from collections.abc import Callable
from io import BytesIO
from pathlib import Path
from typing import Any, NamedTuple

import h5py
import numpy as np
import pytest
import yaml
from conftest import write_kvasir
from PIL import Image
from safetensors import safe_open
from safetensors.torch import save_file

from tests.faults import segmentations
from tests.faults.folders import lost_bytes, read_folder, write_folder
from tests.faults.pipeline import Pipeline, plan
from tests.faults.segmentations import RTSTRUCT, SCANS, SEG
from tests.workspace import Workspace, own_data_settings, tiny_config

RAW, RESULTS = "data/mine", "results/mine"
RUN = f"{RESULTS}/full/seed0"
OTHER = "results/other/full/seed0"
IMAGES, MASKS, GAZE = f"{RAW}/images", f"{RAW}/masks", f"{RAW}/fixations.csv"
IMAGE, MASK = f"{IMAGES}/frame 1.jpg", f"{MASKS}/frame 1.jpg"
REMAKE = "delete it and run snakemake again"
Make = Callable[[Path], object]


class Case(NamedTuple):
    """A change of the workspace, the command that meets it, and what the command prints.

    Attributes
    ----------
    command
        A stage, with options that replace the planned ones; or targets of Snakemake.
    settings
        Values that replace those in the settings of the stage.
    """

    kind: str
    name: str
    make: Make
    command: str
    words: tuple[str, ...]
    status: int = 1
    options: dict[str, str] = {}  # noqa: RUF012
    settings: dict[str, Any] = {}  # noqa: RUF012


def put(path: str, content: bytes | str) -> Make:
    """Replace a file, or whatever is there."""

    def make(folder: Path) -> None:
        remove(path)(folder)
        target = Path(os.fsdecode(os.fsencode(folder) + b"/" + os.fsencode(path)))
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(content.encode() if isinstance(content, str) else content)

    return make


def edit(path: str, change: Callable[[bytes], bytes]) -> Make:
    """Change the content of a file."""
    return lambda folder: (folder / path).write_bytes(change((folder / path).read_bytes()))


def swap(path: str, old: str, new: str, count: int = -1) -> Make:
    """Replace text in a file, where there must be some to replace."""

    def change(content: bytes) -> bytes:
        assert old.encode() in content
        return content.replace(old.encode(), new.encode(), count)

    return edit(path, change)


def remove(path: str) -> Make:
    def make(folder: Path) -> None:
        target = folder / path
        if target.is_dir() and not target.is_symlink():
            shutil.rmtree(target)
        else:
            target.unlink(missing_ok=True)

    return make


def link(path: str, target: str) -> Make:
    def make(folder: Path) -> None:
        remove(path)(folder)
        (folder / path).symlink_to(target)

    return make


def folder_at(path: str) -> Make:
    def make(folder: Path) -> None:
        remove(path)(folder)
        (folder / path).mkdir()

    return make


def both(*makes: Make) -> Make:
    return lambda folder: [make(folder) for make in makes]


def picture(path: str, array: Any, **options: Any) -> Make:
    """Write a picture in the format of its ending, or in `format`."""

    def make(folder: Path) -> None:
        remove(path)(folder)
        Image.fromarray(np.asarray(array)).save(folder / path, **options)

    return make


def pages(folder: Path) -> None:
    one, two = (Image.new("L", (82, 64), level) for level in (10, 20))
    one.save(folder / IMAGE, format="TIFF", save_all=True, append_images=[two])


def turned(folder: Path) -> None:
    image = Image.open(folder / IMAGE)
    exif = image.getexif()
    exif[0x0112] = 6
    image.save(folder / IMAGE, exif=exif)


def huge_png(width: int, height: int) -> bytes:
    """Return a PNG that claims a size, and has no pixels."""
    small = BytesIO()
    Image.new("L", (1, 1)).save(small, "PNG")
    content = small.getvalue()
    return content[:16] + struct.pack(">II", width, height) + content[24:]


def edit_h5(path: str, change: Callable[[h5py.File], object]) -> Make:
    def make(folder: Path) -> None:
        with h5py.File(folder / path, "r+") as file:
            change(file)

    return make


def damage_chunk(path: str, name: str) -> Make:
    """Overwrite the compressed values of the first chunk of a data set."""

    def make(folder: Path) -> None:
        with h5py.File(folder / path) as file:
            chunk = file[name].id.get_chunk_info(0)
        with (folder / path).open("r+b") as stream:
            stream.seek(chunk.byte_offset)
            stream.write(b"\xff" * chunk.size)

    return make


def edit_weights(path: str, change: Callable[[dict[str, Any], dict[str, Any]], object]) -> Make:
    """Change the tensors of a network, and what its file says about it."""

    def make(folder: Path) -> None:
        with safe_open(folder / path, "pt") as file:
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
            about = json.loads(file.metadata()["about"])
        change(tensors, about)
        save_file(tensors, folder / path, {"about": json.dumps(about)})

    return make


def edit_config(path: str, value: Any) -> Make:
    """Set a value of config.yaml; a dot separates the keys."""

    def make(folder: Path) -> None:
        config = yaml.safe_load((folder / "config.yaml").read_text())
        part = config
        *keys, last = path.split(".")
        for key in keys:
            part = part.setdefault(key, {})
        part[last] = value
        (folder / "config.yaml").write_text(yaml.safe_dump(config, sort_keys=False))

    return make


def npy(array: Any) -> bytes:
    stream = BytesIO()
    np.save(stream, array)
    return stream.getvalue()


def text_cases() -> list[Case]:
    """Cases of a config.yaml that is no text, no YAML, or no mapping."""

    def case(name: str, change: Callable[[bytes], bytes], *words: str, status: int = 1) -> Case:
        words = (() if status == 0 else ("config.yaml cannot be used", "found")) + words
        return Case("config.yaml", name, edit("config.yaml", change), "snakemake", words, status)

    umlaut = "# für Kraków\n"
    return [
        case("UTF-16", lambda c: c.decode().encode("utf-16"), "UTF-16", "allowed: text in UTF-8"),
        case("UTF-32", lambda c: c.decode().encode("utf-32"), "UTF-32", "Save the file again"),
        case("UTF-16 without a mark", lambda c: c.decode().encode("utf-16-le"), "line 1"),
        case("Latin-1", lambda c: umlaut.encode("latin-1") + c, "byte 0xfc in line 1"),
        case("no text", lambda c: bytes(range(256)), "byte 0x80 in line 2"),
        case("NUL", lambda c: c + b"\0", "the character '\\x00'"),
        case("escape character", lambda c: c + b"\x1b[0m", "the character '\\x1b'"),
        case("empty", lambda c: b"", "found nothing; allowed: keys with values"),
        case("only comments", lambda c: b"# nothing\n", "found nothing"),
        case("a list", lambda c: b"- a\n", "found a list"),
        case("a word", lambda c: b"kvasir\n", "found a single value"),
        case("tab", lambda c: c + b"seeds:\n\t- 1\n", "a tab in place of spaces"),
        case("open bracket", lambda c: c + b"cache: [\n", "a missing bracket"),
        case("open quote", lambda c: c + b"cache: 'a\n", "found unexpected end of stream"),
        case("no colon", lambda c: b"seeds\n" + c, "line 2"),
        case("unknown alias", lambda c: c + b"cache: *a\n", "undefined alias 'a'"),
        case("alias in itself", lambda c: b"seeds: &a [*a]\n", "seeds[0]", "what contains it"),
        case("alias above itself", lambda c: b"datasets: &a {b: {c: *a}}\n", "datasets.b.c"),
        case("tag", lambda c: c + b"cache: !!python/name:os.system\n", "tag:yaml.org"),
        case("list as a key", lambda c: c + b"? [a, b]\n: 1\n", "unhashable key"),
        case("45th of May", lambda c: c + b"cache: 2024-05-45\n", "cache: found '2024-05-45' in"),
        case("5000 digits", lambda c: c + b"cache: " + b"1" * 5000 + b"\n", "cache: found '111"),
        case("two documents", lambda c: c + b"---\na: 1\n", "another document"),
        case("2000 brackets", lambda c: b"seeds: " + b"[" * 2000, "too many levels"),
        case("key twice", lambda c: c + b"seeds: [1]\nseeds: [2]\n", "seeds: found twice, in line"),
        case("merge of a list", lambda c: c + b"more:\n  <<: [1]\n", "expected a mapping"),
        case("UTF-8 with a mark", lambda c: b"\xef\xbb\xbf" + c, status=0),
        case("Windows lines", lambda c: c.replace(b"\n", b"\r\n"), status=0),
        case("umlauts", lambda c: umlaut.encode() + c, status=0),
        case(
            "JSON with tabs",
            lambda c: json.dumps(yaml.safe_load(c), indent="\t").encode(),
            status=0,
        ),
    ]


def value_cases() -> list[Case]:
    """Cases of values in config.yaml."""

    def case(path: str, value: Any, *words: str, status: int = 1, field: str = "") -> Case:
        words = (() if status == 0 else (field or path,)) + words
        name, make = f"{path}: {value!r:.20}", edit_config(path, value)
        return Case("settings", name, make, "snakemake", words, status)

    mine = "datasets.mine"
    return [
        case("defaults.student.learning_rte", 1, "did you mean 'learning_rate'?"),
        case("defaults.student.learning_rate", "fast", 'found "fast"', "allowed: a number"),
        case("defaults.student.learning_rate", float("nan"), "allowed: a finite number"),
        case("defaults.gaze.thresholds", [0.5, 0.5], "thresholds must differ",
             field="defaults.gaze"),
        case("seeds", [-1], "found -1; allowed: a number of at least 0"),
        case("seeds", [10**40], "allowed: a number below 4294967296"),
        case("seeds", 3, "found 3; allowed: a list"),
        case("summary", ["nobody"], "found 'nobody'; allowed: "),
        case(f"{mine}.prepare.size", [32], "found [32]; allowed: 2 entries"),
        case(f"{mine}.prepare.size", [8, 8], "allowed: a number of at least 32"),
        case(f"{mine}.prepare.layout", "kvasr", 'found "kvasr"; allowed: '),
        case(f"{mine}.prepare.subject", "(", "a regular expression"),
        case(f"{mine}.experiments", ["ful"], "did you mean 'full'?"),
        case(f"{mine}.root", "data/{mine}", "allowed: a path without { and }"),
        case(f"{mine}.root", "data/none", "the folder data/none is missing", "get it from"),
        case(f"{mine}.root", "data/a\nb", "is missing"),
        case(f"{mine}.root", "data/$(touch x); 'a\" b", "is missing"),
        case(f"{mine}.root", "~/mine", "~ is not expanded: write the full path"),
        case(f"{mine}.root", f"{RAW}/train.txt", "is missing"),
        case(f"{mine}.fixations", f"{RAW}/gaze.csv", f"missing: {RAW}/gaze.csv",
             field="data set mine"),
        case(f"{mine}.title", "a\n\"b' $(touch x); <b>", status=0),
        case("datasets.a b", {}, "found \"a b\"; allowed: a lower-case letter, then"),
        case("datasets.a;b", {}, "allowed: a lower-case letter, then"),
        case("datasets.teacher", {"title": "a", "root": "b", "prepare": {"layout": "folder"}},
             "the name is a target of the workflow; choose another"),
    ]  # fmt: skip


def raw_case(
    kind: str, name: str, make: Make, *words: str, stage: str = "gaze.verify", **more: Any
) -> Case:
    return Case(kind, name, make, stage, words, **more)


GREY = np.arange(64 * 82, dtype=np.uint8).reshape(64, 82)
READABLE = "expected: a readable PNG, JPEG, TIFF or BMP file"
HALF = np.where(np.arange(82) < 40, 0, 255) * np.ones((64, 1))
RAW_CASES = [
    raw_case("images", "cut short", edit(IMAGE, lambda c: c[:300]), f"{IMAGE}: file", READABLE),
    raw_case("images", "empty file", put(IMAGE, b""), f"{IMAGE}: file", READABLE),
    raw_case("images", "text", put(IMAGE, "no picture"), f"{IMAGE}: file", "to mend:  replace"),
    raw_case("images", "another format", put(IMAGE, b"GIF89a" + bytes(40)), READABLE),
    raw_case("images", "folder", folder_at(IMAGE), f"{IMAGE}: file", READABLE),
    raw_case("images", "16 bits per colour", put(IMAGE, b"P6 1 1 65535\n" + bytes(6)), READABLE),
    raw_case("images", "claims 60000 × 60000", put(IMAGE, huge_png(60000, 60000)), IMAGE, READABLE),
    raw_case("images", "claims 0 × 0", put(IMAGE, huge_png(0, 0)), f"{IMAGE}: file", READABLE),
    raw_case("images", "two pages", pages, f"{IMAGE}: pages", "found:    2", "save each page"),
    raw_case("images", "rotated by EXIF", turned, f"{IMAGE}: EXIF orientation", "found:    6"),
    raw_case("images", "transparent", picture(IMAGE, np.full((64, 82, 4), 9, np.uint8),
             format="PNG"), f"{IMAGE}: transparency", "to mend:  flatten the image"),
    raw_case("images", "grey of 16 bits among colours", picture(IMAGE, GREY.astype(np.uint16) * 99,
             format="PNG"), f"{RAW}: images", "expected: one kind"),
    raw_case("images", "floats with NaN", picture(IMAGE, np.full((64, 82), np.nan, np.float32),
             format="TIFF"), f"{IMAGE}: pixels", "values that are not finite"),
    raw_case("images", "missing", remove(IMAGE), "1 without an image: frame 1", "add the images"),
    raw_case("images", "no folder", remove(IMAGES), f"{IMAGES}: folder", "found:    nothing"),
    raw_case("images", "another ending", lambda folder: (folder / IMAGE).rename(
             (folder / IMAGE).with_suffix(".png")), f"{IMAGES}", "frame 1"),
    raw_case("images", "same pixels in two splits", lambda folder: shutil.copy(
             folder / IMAGES / "frame 5.jpg", folder / IMAGE), "size"),
    raw_case("images", "named pipe", both(remove(IMAGE), lambda folder: os.mkfifo(folder / IMAGE)),
             f"{IMAGE}", "found:"),
    raw_case("masks", "another size", picture(MASK, GREY[:10, :10]), f"{MASK}: size"),
    raw_case("masks", "grey levels", picture(MASK, GREY), f"{MASK}: mask", "levels near 0 and 255"),
    raw_case("masks", "dim", picture(MASK, (HALF // 5).astype(np.uint8)), f"{MASK}: mask",
             "levels up to 51", "save the mask with 0 outside and 255 inside"),
    raw_case("masks", "colours", picture(MASK, np.stack([GREY, GREY.T.reshape(64, 82), GREY], -1)),
             f"{MASK}"),
    raw_case("masks", "cut short", edit(MASK, lambda c: c[:200]), f"{MASK}: file", READABLE),
    raw_case("masks", "missing", remove(MASK), "no mask of 1 of 6 images: frame 1", status=0),
    raw_case("masks", "without an image", lambda folder: shutil.copy(
             folder / MASK, folder / MASKS / "ghost.jpg"), "ghost", status=1),
    raw_case("masks", "a file, not a folder", put(MASKS, "x"), f"{MASKS}: folder", "a file"),
    raw_case("splits", "unknown id", put(f"{RAW}/test.txt", "frame 4\nframe 9\n"),
             f"{RAW}/test.txt: ids", "1 without an image: frame 9"),
    raw_case("splits", "id with ending", put(f"{RAW}/test.txt", "frame 4.jpg\nframe 5\n"),
             "to mend:  write `frame 4` for `frame 4.jpg`"),
    raw_case("splits", "other case", put(f"{RAW}/test.txt", "Frame 4\nframe 5\n"),
             "write `frame 4` for `Frame 4`"),
    raw_case("splits", "id twice", put(f"{RAW}/test.txt", "frame 4\nframe 4\n"),
             "more than once: 'frame 4'"),
    raw_case("splits", "id in two splits", put(f"{RAW}/test.txt", "frame 0\nframe 4\n"),
             "frame 0"),
    raw_case("splits", "empty", put(f"{RAW}/train.txt", ""), f"{RAW}"),
    raw_case("splits", "Latin-1", put(f"{RAW}/test.txt", b"frame 4\n\xfcber\n"),
             f"{RAW}/test.txt: file", "expected: UTF-8 text", "save the file as UTF-8"),
    raw_case("splits", "UTF-16", put(f"{RAW}/test.txt", "frame 4\n".encode("utf-16")),
             f"{RAW}/test.txt: file", "UTF-8"),
    raw_case("splits", "NUL", put(f"{RAW}/test.txt", b"frame 4\0\nframe 5\n"), "test.txt: ids"),
    raw_case("splits", "path out of the folder", put(f"{RAW}/test.txt", "../../secret\n"),
             f"{RAW}/test.txt: ids", "../../secret"),
    raw_case("splits", "absolute path", put(f"{RAW}/test.txt", "/etc/passwd\n"), "/etc/passwd"),
    raw_case("splits", "folder", folder_at(f"{RAW}/test.txt"), f"{RAW}/test.txt"),
    raw_case("splits", "missing", remove(f"{RAW}/test.txt"), f"{RAW}/test.txt: file", "found:"),
    raw_case("splits", "Windows lines, mark, spaces", put(f"{RAW}/test.txt",
             b"\xef\xbb\xbfframe 4  \r\n\r\nframe 5\r\n"), status=0),
]  # fmt: skip


def segmentation_case(name: str, path: str, make: Make, *words: str, **more: Any) -> Case:
    kind = "SEG" if path == SEG else "RTSTRUCT"
    settings = {"layout": "folder", "split": "drawn", **more}
    return Case(kind, name, make, "data.prepare", (path, *words, "to mend:"), 1,
                {"raw": SCANS}, settings)  # fmt: skip


OF_NO_IMAGE = "frames or contours, of no image of the folder"


def segmentation_cases() -> list[Case]:
    found = []
    for path in (SEG, RTSTRUCT):
        found += [
            segmentation_case("empty file", path, segmentations.raw(path, lambda c: b""),
                              f"{path}: file", "no DICM"),
            segmentation_case("text", path, segmentations.raw(path, lambda c: b"no mask"),
                              f"{path}: file", "no DICM"),
            segmentation_case("cut short", path, segmentations.raw(path, lambda c: c[: len(c) // 2]
                              ), "expected: "),
            segmentation_case("damaged", path, segmentations.raw(path, lambda c: c[:1200] +
                              b"\xff" * 200 + c[1400:]), "expected: "),
            segmentation_case("wrong series", path, segmentations.of_others(path),
                              f"{path}: images", OF_NO_IMAGE, "add the images on which it was"),
            segmentation_case("other patient", path, segmentations.of_others(
                              path, PatientName="Planted^Two", StudyInstanceUID="1.2.3",
                              FrameOfReferenceUID="1.2.4"),
                              f"{path}: images", OF_NO_IMAGE),
            segmentation_case("no segments", path, segmentations.bad(
                              path, segmentations.forget_segments), "found:    "),
            segmentation_case("segment that no file has", path, segmentations.bad(
                              path, lambda dataset: None), "foreground", "1 'Prostate'",
                              foreground=[7]),
        ]  # fmt: skip
    return [
        *found,
        segmentation_case("wrong frame of reference", SEG, segmentations.bad(
                          SEG, segmentations.leave_the_frame_of_reference), f"{SEG}: images",
                          OF_NO_IMAGE),
        segmentation_case("unknown segment of a frame", SEG, segmentations.bad(
                          SEG, segmentations.name_unknown_segment), f"{SEG}: segment of frame 1",
                          "found:    7", "expected: a segment that the file describes"),
        segmentation_case("fewer pixels", SEG, segmentations.bad(
                          SEG, lambda dataset: setattr(dataset, "PixelData", b"\1\1")),
                          f"{SEG}: file", "expected: a readable DICOM segmentation"),
        segmentation_case("wrong frame of reference", RTSTRUCT, segmentations.bad(
                          RTSTRUCT, segmentations.move_contours),
                          "ReferencedFrameOfReferenceUID of contour 1 of ROI 1 'Prostate'",
                          ", that of the image t2 1.dcm"),
        segmentation_case("unknown ROI", RTSTRUCT, segmentations.bad(
                          RTSTRUCT, segmentations.name_unknown_roi), f"{RTSTRUCT}: file",
                          "contours of ROI 7, which StructureSetROISequence lacks"),
        segmentation_case("contour between two images", RTSTRUCT, segmentations.bad(
                          RTSTRUCT, segmentations.lift_contours), "plane of contour 1", "1.2 mm"),
        segmentation_case("open contour", RTSTRUCT, segmentations.bad(
                          RTSTRUCT, lambda dataset: None, kind="OPEN_PLANAR"),
                          "ContourGeometricType of contour 1", "found:    OPEN_PLANAR"),
    ]  # fmt: skip


def gaze_case(name: str, make: Make, *words: str, **more: Any) -> Case:
    words = words if more.get("status") == 0 else (GAZE, *words)
    return Case("recordings", name, make, "gaze.verify", words, **more)


def column(name: str, value: str, row: int = 1) -> Make:
    """Set a value in the gaze table."""

    def change(content: bytes) -> bytes:
        lines = [line.split(",") for line in content.decode().splitlines()]
        lines[row][lines[0].index(name)] = value
        return "\n".join(map(",".join, lines)).encode()

    return edit(GAZE, change)


def every(name: str, new: Callable[[float], object]) -> Make:
    """Change all values of a column of the gaze table."""

    def change(content: bytes) -> bytes:
        header, *lines = (line.split(",") for line in content.decode().splitlines())
        place = header.index(name)
        rows = [[*row[:place], str(new(float(row[place]))), *row[place + 1 :]] for row in lines]
        return "\n".join(map(",".join, [header, *rows])).encode()

    return edit(GAZE, change)


X, DURATION = "CURRENT_FIX_X", "CURRENT_FIX_DURATION"
GAZE_CASES = [
    gaze_case("empty", put(GAZE, b""), "No columns in the first line", "to mend:"),
    gaze_case("only a header", edit(GAZE, lambda c: c.splitlines()[0] + b"\n"), "found:"),
    gaze_case("missing column", swap(GAZE, X, "X"), "CURRENT_FIX_X"),
    gaze_case("column twice", swap(GAZE, "CURRENT_FIX_PUPIL", X), f"the column '{X}' twice"),
    gaze_case("text for a number", column(X, "left"), f"column {X}, line 2", "left"),
    gaze_case("infinite", column(X, "1e999"), X),
    gaze_case("hexadecimal", column(X, "0x1p-2"), X, "0x1p-2"),
    gaze_case("negative duration", column(DURATION, "-5"), f"column {DURATION}, line 2", "-5 ms"),
    gaze_case("no duration", column(DURATION, ""), f"column {DURATION}, line 2", "found:    ''"),
    gaze_case("seconds", every(DURATION, lambda v: v / 1000), "set recording.time_unit: s"),
    gaze_case("microseconds", every(DURATION, lambda v: v * 1000), "set recording.time_unit: us"),
    gaze_case("pixels for fractions", every(X, lambda v: v * 80), f"columns {X}"),
    gaze_case("all off their images", every(X, lambda v: v + 3), f"columns {X}"),
    gaze_case("other images", swap(GAZE, "frame ", "picture "), "column IMAGE", "picture "),
    gaze_case("other sizes", every("IMAGE_HEIGHT", lambda v: 999), "999"),
    gaze_case("row too long", edit(GAZE, lambda c: c.replace(b"\n", b"\n", 1) + b"a,1,2,3,4,5,6,7,"
              b"8,9,9\n"), "line"),
    gaze_case("row too short", edit(GAZE, lambda c: c + b"frame 1.jpg,9\n"), "line"),
    gaze_case("open quote", swap(GAZE, "frame 1.jpg", '"frame 1.jpg', 1), "quotation marks"),
    gaze_case("Latin-1", edit(GAZE, lambda c: c + b"\xfcber.jpg,1,.1,.1,200,9,0,60,80\n"), "UTF-8"),
    gaze_case("NUL", edit(GAZE, lambda c: c + b"\0\0\0\n"), "found:"),
    gaze_case("no text", put(GAZE, bytes(range(256)) * 9), "expected: a table in UTF-8"),
    gaze_case("compressed", edit(GAZE, gzip.compress), "expected: a table in UTF-8"),
    gaze_case("folder", folder_at(GAZE), "found:    a folder", "gaze.recording.format"),
    gaze_case("missing", remove(GAZE), "found:"),
    gaze_case("UTF-16", edit(GAZE, lambda c: c.decode().encode("utf-16")), status=0),
    gaze_case("semicolons and commas", edit(GAZE, lambda c: c.replace(b",", b";").replace(
              b";0.", b";0,")), status=0),
]  # fmt: skip


def text_case(name: str, content: bytes | str, *words: str, file: str = "texts.csv") -> Case:
    return Case(
        "texts", name, put(f"data/{file}", content), "text.explain", (f"data/{file}", *words),
        options={"source": f"data/{file}"}, settings={"backend": "import", "source": "x"},
    )  # fmt: skip


ANSWERS = f"{RESULTS}/texts/0of1.jsonl"
TEXT_CASES = [
    text_case("Latin-1", b"sample_id,text\nframe 1,\xfcber\n", "found:", "in UTF-8"),
    text_case("empty", "", "found:    No columns in the first line"),
    text_case("no ids", "name,text\na,b\n", ": columns", "expected: sample_id, and text or any of"),
    text_case("no texts", "sample_id,words\na,b\n", ": columns", "to mend:  rename the columns"),
    text_case("two kinds of text", "sample_id,text,location\na,b,c\n", "found:    both text and"),
    text_case("id twice", "sample_id,text\na,b\na,c\n", "'a' twice", "join its texts in one row"),
    text_case("NUL", "sample_id,text\nframe 1,a\0b\n", "found:"),
    text_case("value too many", "sample_id,text\nframe 1,a,b\n", ": file", "quotation marks"),
    text_case("no JSON", '{"sample_id": "a"\n', ": file", file="texts.jsonl"),
    text_case("JSON without objects", "[1, 2]\n3\n", ": ", "found:", file="texts.jsonl"),
    text_case("half of a pair", '{"sample_id": "frame 1", "text": "\\ud800"}\n',
              "surrogates not allowed", file="texts.jsonl"),
    Case("texts", "no file", lambda folder: None, "text.explain", ("data/none.csv", "found:"),
         options={"source": "data/none.csv"}, settings={"backend": "import", "source": "x"}),
    Case("texts", "answers of no sample", put(ANSWERS, '["", {}]\n'), "text.texts",
         (ANSWERS, "found:", REMAKE)),
    Case("texts", "answers cut short", edit(ANSWERS, lambda c: c[:-100] + b"\n"), "text.texts",
         (f"{ANSWERS}: file", REMAKE)),
    Case("texts", "no answers", put(ANSWERS, b""), "text.texts", (f"{ANSWERS}: file", REMAKE)),
    Case("texts", "answers in Latin-1", edit(ANSWERS, lambda c: c + b'["\xfc", {}]\n'),
         "text.texts", (f"{ANSWERS}: file", REMAKE)),
    Case("texts", "an answer missing", edit(ANSWERS, lambda c: b"".join(
         c.splitlines(keepends=True)[:-1])), "text.texts", ("samples", "forcerun explain")),
    Case("texts", "no prompt", lambda folder: None, "text.explain", ("none.yaml", "found:"),
         options={"prompt": "none.yaml"}, settings={"backend": "openai", "model": "m",
         "url": "http://localhost:9/v1", "prompt": "none.yaml"}),
]  # fmt: skip


def vector_case(name: str, content: bytes | None, *words: str) -> Case:
    """Make vectors of all samples, and one of them bad."""

    def make(folder: Path) -> None:
        (folder / "data/vectors").mkdir()
        for i in range(6):
            (folder / f"data/vectors/frame {i}.npy").write_bytes(npy(np.ones((2, 8), np.float32)))
        bad = folder / "data/vectors/frame 1.npy"
        bad.unlink() if content is None else bad.write_bytes(content)

    return Case(
        "embeddings", name, make, "text.embed", words, 1, {"source": "data/vectors"},
        {"encoder": "import", "source": "x"},
    )  # fmt: skip


VECTOR = "data/vectors/frame 1.npy"
SAVE_AGAIN = "to mend:  write it again with numpy.save"
VECTOR_CASES = [
    vector_case("missing", None, "data/vectors: files", "no frame 1.npy"),
    vector_case("empty", b"", f"{VECTOR}: file", SAVE_AGAIN),
    vector_case("text", b"1 2 3\n", f"{VECTOR}: file", SAVE_AGAIN),
    vector_case("cut short", npy(np.ones((2, 8), np.float32))[:-9], f"{VECTOR}: file", SAVE_AGAIN),
    vector_case("float64", npy(np.ones((2, 8))), f"{VECTOR}: dtype", "expected: float32"),
    vector_case("NaN", npy(np.full((2, 8), np.nan, np.float32)), f"{VECTOR}: values", "16 of 16"),
    vector_case("another width", npy(np.ones((2, 9), np.float32)), f"{VECTOR}: shape", "(2, 9)"),
    vector_case("three axes", npy(np.ones((1, 2, 8), np.float32)), f"{VECTOR}: shape", "(1, 2, 8)"),
    vector_case("no numbers", npy(np.ones((0, 8), np.float32)), f"{VECTOR}: shape"),
    vector_case("pickled", npy(np.array([{}], object)), f"{VECTOR}: file", "Object arrays cannot"),
    vector_case("header in Latin-1", b"\x93NUMPY\x01\x00\x10\x00\xfc" + bytes(15), VECTOR),
]


def h5_case(name: str, path: str, make: Make, stage: str, *words: str) -> Case:
    return Case("HDF5", name, make, stage, (path, *words))


PREPARED, GAZE_H5 = f"{RESULTS}/prepared.h5", f"{RESULTS}/gaze.h5"
TEXTS_H5, EXPLANATIONS = f"{RESULTS}/texts.h5", f"{RESULTS}/explanations.h5"
PREDICTIONS, METRICS = f"{RUN}/predictions.h5", f"{RUN}/metrics.csv"


def h5_cases() -> list[Case]:
    found = []
    for path, stage in (
        (PREPARED, "gaze.pseudomasks"), (GAZE_H5, "training.teacher"), (TEXTS_H5, "text.embed"),
        (EXPLANATIONS, "training.teacher"), (PREDICTIONS, "evaluation.evaluate"),
    ):  # fmt: skip
        name = Path(path).name
        found += [
            h5_case(f"{name} cut short", path, edit(path, lambda c: c[: len(c) // 2]), stage,
                    f"{path}: file", REMAKE),
            h5_case(f"{name} of another version", path, edit_h5(path, lambda file: file.attrs.
                    modify("schema_version", 99)), stage, "schema_version", "found:    99"),
            h5_case(f"{name} without samples", path, edit_h5(path, lambda file: file.pop(
                    "sample_id")), stage, "data sets", "sample_id", REMAKE),
        ]  # fmt: skip
    return [
        *found,
        h5_case("empty", GAZE_H5, put(GAZE_H5, b""), "gaze.quality", f"{GAZE_H5}: file", REMAKE),
        h5_case("zeros", GAZE_H5, put(GAZE_H5, bytes(5000)), "text.explain", REMAKE),
        h5_case("missing", GAZE_H5, remove(GAZE_H5), "text.texts", f"{GAZE_H5}: file", REMAKE),
        h5_case("folder", GAZE_H5, folder_at(GAZE_H5), "training.teacher", f"{GAZE_H5}: file"),
        h5_case("other samples", GAZE_H5, edit_h5(GAZE_H5, lambda file: file["sample_id"].
                write_direct(np.array([b"x"] * 6, object))), "training.teacher", "sample_id"),
        h5_case("damaged image", PREPARED, damage_chunk(PREPARED, "image"), "gaze.pseudomasks",
                "data set image", REMAKE),
        h5_case("damaged image in training", PREPARED, damage_chunk(PREPARED, "image"),
                "training.student", "data set image", REMAKE),
        h5_case("damaged vectors", EXPLANATIONS, damage_chunk(EXPLANATIONS, "embedding"),
                "training.teacher", "data set embedding", REMAKE),
        h5_case("damaged prediction", PREDICTIONS, damage_chunk(PREDICTIONS, "probability"),
                "evaluation.evaluate", "data set probability", REMAKE),
        Case("tables", "metrics cut short", edit(METRICS, lambda c: c[:50]),
             "evaluation.summarise", (f"{METRICS}: table", REMAKE)),
        Case("tables", "metrics without numbers", swap(METRICS, ",px,", ",0,0,px,"),
             "evaluation.summarise", (f"{METRICS}: table", REMAKE)),
        Case("tables", "metrics missing", remove(METRICS), "evaluation.summarise", (METRICS,)),
    ]  # fmt: skip


TEACHER, STUDENT = f"{RUN}/teacher.safetensors", f"{RUN}/student.safetensors"


def weights_case(name: str, path: str, make: Make, *words: str) -> Case:
    return Case("weights", name, make, "evaluation.predict", (path, *words))


WEIGHTS_CASES = [
    weights_case("cut short", STUDENT, edit(STUDENT, lambda c: c[:-100]), f"{STUDENT}: file"),
    weights_case("empty", STUDENT, put(STUDENT, b""), f"{STUDENT}: file", "to mend:  give a"),
    weights_case("text", TEACHER, put(TEACHER, "weights"), f"{TEACHER}: file"),
    weights_case("missing", TEACHER, remove(TEACHER), f"{TEACHER}: file", "found:"),
    weights_case("pickled", STUDENT, put(STUDENT, b"PK\3\4" + bytes(60)), f"{STUDENT}: file"),
    weights_case("teacher for student", STUDENT, lambda folder: shutil.copy(
                 folder / TEACHER, folder / STUDENT), f"{STUDENT}: role", "found:    teacher"),
    weights_case("no architecture", STUDENT, edit_weights(STUDENT, lambda t, a: a.pop(
                 "architecture")), f"{STUDENT}: file", "architecture"),
    weights_case("tensor missing", STUDENT, edit_weights(STUDENT, lambda t, a: t.popitem()),
                 f"{STUDENT}: architecture", "Missing key"),
    weights_case("tensor of another shape", STUDENT, edit_weights(STUDENT, lambda t, a: t.update(
                 {min(t): t[min(t)].flatten()[:1].clone()})), f"{STUDENT}: architecture"),
    Case("weights", "NaN", edit_weights(STUDENT, lambda t, a: [
         v.fill_(float("nan")) for v in t.values() if v.is_floating_point()]),
         "evaluation.predict", (f"{PREDICTIONS}: probability", "infinity or NaN")),
]  # fmt: skip


def odd_image(name: bytes) -> Make:
    """Add an image with an odd name to the folder, and to no split file."""
    return lambda folder: shutil.copy(
        folder / IMAGE, os.fsdecode(os.fsencode(folder / IMAGES) + b"/" + name)
    )


def name_case(name: str, image: bytes) -> Case:
    """List an image with an odd name in a split file; the id comes from the file's name."""
    listed = put(f"{RAW}/train.txt", b"frame 0\nframe 1\nframe 2\n" + image[:-4] + b"\n")
    return Case(
        "names", name, both(odd_image(image), listed), "gaze.verify",
        ("found:", "expected:", "to mend:"),
    )  # fmt: skip


FILE_SYSTEM_CASES = [
    *(name_case(name, image) for name, image in (
        ("semicolon", b"a;b.jpg"), ("quotes", b"a'b\".jpg"), ("command", b"$(touch x).jpg"),
        ("backslash", b"a\\b.jpg"), ("newline", b"a\nb.jpg"), ("not UTF-8", b"\xff\xfe.jpg"),
        ("HTML", b"<b>.jpg"), ("dots", b"...jpg"), ("glob", b"*.jpg"),
    )),
    Case("names", "unlisted images of any name", both(*map(odd_image, (b"\xff.jpg", b"a\nb.jpg"))),
         "gaze.verify", (), 0),
    Case("file system", "link out of the folder", both(
         lambda folder: (folder / IMAGE).rename(folder / "elsewhere.jpg"),
         link(IMAGE, "../../../elsewhere.jpg")), "data.prepare", (), 0),
    Case("file system", "link to nothing", link(IMAGE, "nowhere.jpg"), "gaze.verify",
         ("frame 1", "found:")),
    Case("file system", "link to itself", link(IMAGE, "frame 1.jpg"), "gaze.verify", ("frame 1",)),
    Case("file system", "log is a folder", folder_at(f"{RESULTS}/logs/prepare.log"),
         "data.prepare", ("prepare.log: file", "Is a directory", "to mend:")),
    Case("file system", "result is a folder", both(folder_at(PREPARED), put(f"{PREPARED}/a", "b")),
         "data.prepare", (f"{PREPARED}: file", "Is a directory", "to mend:")),
    Case("file system", "folder of results is a file", lambda folder: None, "data.prepare",
         ("file", "File exists", "to mend:"), options={"output": f"{GAZE_H5}/prepared.h5"}),
    Case("file system", "name too long", lambda folder: None, "data.prepare",
         ("File name too long", "to mend:  use shorter names"),
         options={"output": f"{RESULTS}/{'a' * 250}.h5"}),
    Case("file system", "damaged journal", lambda folder: [
         file.write_bytes(bytes(9) + b"\n" + file.read_bytes())
         for file in (folder / RESULTS / "work").rglob("*.jsonl")], "text.explain",
         ("line 1 is dropped",), 0),
]  # fmt: skip

CASES = [
    *text_cases(), *value_cases(), *RAW_CASES, *segmentation_cases(), *GAZE_CASES, *TEXT_CASES,
    *VECTOR_CASES, *h5_cases(), *WEIGHTS_CASES, *FILE_SYSTEM_CASES,
]  # fmt: skip


@pytest.fixture(scope="module")
def pipeline(tmp_path_factory, forks):
    config = tiny_config()
    mine = own_data_settings(config, RAW, experiments=["full"], threads=1)
    for network in ("teacher", "student"):
        mine[network] = mine[network] | {"iterations": 2, "log_every": 1, "validate_every": 1}
    config |= {"datasets": {"mine": mine}, "summary": ["mine"], "tables": {}}
    folder = Workspace(tmp_path_factory.mktemp("bad") / "clone", config).folder
    write_kvasir(folder / RAW)
    return Pipeline(forks, folder, plan(forks, folder, ["mine"]), {})


@pytest.fixture(scope="module")
def complete(pipeline):
    """The commands of a workspace, and its content with all results and those of another set."""
    for command in pipeline.commands:
        pipeline.step(command[0].removeprefix("stages."))
    shutil.copytree(pipeline.folder / RUN, pipeline.folder / OTHER)
    return pipeline, read_folder(pipeline.folder)


def command_of(pipeline: Pipeline, case: Case) -> list[str]:
    if case.command == "snakemake":
        return ["snakemake", "-n", "--quiet", "all", "--", "mine"]
    (command,) = (c for c in pipeline.commands if c[0] == f"stages.{case.command}")
    command = list(command)
    for option, value in case.options.items():
        command += [f"--{option}", value]
    if case.settings:
        place = command.index("--settings") + 1
        command[place] = json.dumps(json.loads(command[place]) | case.settings)
    return command


def has_traceback(printed: str, folder: Path) -> bool:
    """Return whether a message shows Python at work.

    Not counted: the lines of the workflow's own rules that Snakemake names with an error in them.
    """
    frames = (line for line in printed.splitlines() if line.strip().startswith('File "'))
    return "Traceback (most recent call last)" in printed or not all(
        f'File "{folder}/workflow/' in line for line in frames
    )


def is_log(path: Path) -> bool:
    return path.suffix == ".log" or ".snakemake" in path.parts


def test_there_are_more_than_a_hundred_cases():
    assert len({(case.kind, case.name) for case in CASES}) == len(CASES) > 100


# Unit tests read the messages about settings, too, without Snakemake.
@pytest.mark.parametrize(
    "case",
    [
        pytest.param(
            case,
            id=f"{case.kind}: {case.name}"[:60],
            marks=[pytest.mark.slow] if case.kind == "settings" else [],
        )
        for case in CASES
    ],
)
def test_bad_input_gives_a_message_and_does_no_harm(complete, tally, case):
    pipeline, content = complete
    tally["name"] = f"bad {case.kind}"
    write_folder(pipeline.folder, content)
    case.make(pipeline.folder)
    before = read_folder(pipeline.folder)
    tally["tried"] += 1
    status, printed = pipeline.run(command_of(pipeline, case))
    found = read_folder(pipeline.folder)
    tally["tracebacks"] += has_traceback(printed, pipeline.folder)
    kept = {path: values for path, values in before.items() if path.suffix != ".log"}
    if case.status == 0:  # the result may have changed, but not that of others
        kept = {path: values for path, values in kept.items() if path.parts[1:2] == ("other",)}
    tally["bytes lost"] += lost_bytes(kept, found)
    assert status == case.status, printed
    for word in case.words:
        assert word in printed, printed
    assert segmentations.PATIENT not in printed, printed
    assert not tally["tracebacks"] and not tally["bytes lost"], printed
    new = {path for path in found.keys() - before.keys() if not is_log(path)}
    assert not new or case.status == 0, new
    tally["survived"] += 1


@pytest.fixture
def small_disk(complete):
    """Mount a disk of the size and with the options that are asked for; return its folder."""
    pipeline, content = complete
    write_folder(pipeline.folder, content)
    mounted = pipeline.folder / "disk"

    def mount(options: str) -> Path:
        mounted.mkdir(exist_ok=True)
        command = ["mount", "-t", "tmpfs", "-o", options, "tmpfs", str(mounted)]
        if os.getuid() or subprocess.run(command, capture_output=True).returncode:
            pytest.skip("needs the right to mount a disk")
        return mounted

    yield mount
    subprocess.run(["umount", str(mounted)], capture_output=True)
    mounted.rmdir()


# Stage → its result, which does not fit the disk.
@pytest.mark.parametrize(
    ("stage", "option"),
    [
        ("data.prepare", "output"), ("gaze.pseudomasks", "output"), ("training.teacher", "output"),
        ("training.teacher", "history"), ("evaluation.predict", "output"), ("text.embed", "output"),
        ("report.report", "output"), ("gaze.verify", "output"), ("gaze.verify", "log"),
    ],
)  # fmt: skip
@pytest.mark.parametrize(
    ("options", "found"),
    [("size=4k", "No space left on device"), ("ro", "Read-only file system")],
)
def test_a_disk_without_space_or_permission_stops_a_stage(
    complete, small_disk, tally, stage, option, options, found
):
    pipeline, _ = complete
    tally["name"] = f"bad disk: {options}"
    disk = small_disk(options)
    if options != "ro":
        # One page is left for the names; what is there must stay.
        (disk / "kept").write_bytes(b"k" * 4000)
    before = read_folder(pipeline.folder)
    tally["tried"] += 1
    (command,) = (c for c in pipeline.commands if c[0] == f"stages.{stage}")
    status, printed = pipeline.run([*command, f"--{option}", f"disk/{option}"])
    kept = {path: values for path, values in before.items() if path.suffix != ".log"}
    left = read_folder(pipeline.folder)
    tally["tracebacks"] += has_traceback(printed, pipeline.folder)
    lost = {path: values for path, values in kept.items() if "mine" not in path.parts}
    tally["bytes lost"] += lost_bytes(lost, left)
    assert status == 1, printed
    assert f"disk/{option}: file\n  found:    {found}\n" in printed and "to mend:" in printed
    assert not tally["tracebacks"] and not tally["bytes lost"], printed
    assert not (disk / option).exists() or option == "log"
    assert not list(pipeline.folder.rglob("*.tmp"))
    tally["survived"] += 1


@pytest.mark.slow
def test_names_that_a_shell_would_read_stay_names(tmp_path, forks, tally):
    """Snakemake itself runs the commands, with such names in every path that a user chooses."""
    odd = "data/a 'b\" ;$(touch pwned)`touch pwned`&|*\\"
    tally |= {"name": "bad names in a shell", "tried": 1}
    config = tiny_config()
    config |= {"datasets": {"mine": own_data_settings(config, odd)}, "summary": [], "tables": {}}
    folder = Workspace(tmp_path / "clone", config).folder
    write_kvasir(folder / odd)
    status, printed = forks.run(
        ["snakemake", "verify_mine", "results/mine/gaze.h5", "--cores", "1"], folder
    )
    assert status == 0, printed
    assert not list(folder.rglob("pwned*"))
    tally["survived"] += 1
