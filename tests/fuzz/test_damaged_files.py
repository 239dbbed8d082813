"""Damaged files of every kind that a user can bring: an error that says what is wrong, or a result.

Each test damages small files of the real forms (`mutations.damaged`). Reading one may end only with
`BadInput`, or with values in their stated ranges. `make fuzz` tries thousands of new damages, and
prints how to repeat a failure.
"""

import contextlib
import io as bytes_io
import itertools
import json
import tempfile
import warnings
from pathlib import Path

import numpy as np
import pytest
import yaml
from hypothesis import HealthCheck, given, settings
from PIL import Image

from stages.core import config, io
from stages.core.cli import BadInput, Problems
from stages.data.datasets import dicom, folder, published
from stages.data.datasets.segmentations import matching
from stages.gaze.recordings import read_scanpaths
from stages.networks import models
from stages.settings.recording import RecordingSettings
from stages.text.describers import answers
from stages.text.describers.completions import Completion
from stages.text.describers.imported import read_texts
from tests.conftest import write_dicom, write_nifti, write_nrrd
from tests.fuzz.mutations import damaged
from tests.segmentations_on_disk import SIZE, write_rtstruct, write_seg, write_slices
from tests.unit.gaze.test_recordings_asc import EYELINK, FIXATIONS, HEADER, trial
from tests.unit.gaze.test_recordings_exports import (
    FORMATS,
    GAZEPOINT,
    NAMED,
    RAW,
    ROWS,
    SIZES,
    mapped_rows,
    raw_rows,
)
from tests.unit.gaze.test_recordings_exports import HEADER as NAMED_HEADER

pytestmark = pytest.mark.slow
# The profile sets the number of examples.
fuzz = settings(
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large], print_blob=True
)


def lines(*rows):
    return "\n".join([*rows, ""]).encode()


RECORDINGS = {
    "fixations": (NAMED, lines(NAMED_HEADER, *ROWS)),
    "gazemedseg": (
        {"format": "gazemedseg"},
        lines(
            "IMAGE,CURRENT_FIX_INDEX,CURRENT_FIX_X,CURRENT_FIX_Y,CURRENT_FIX_DURATION,"
            "CURRENT_FIX_START,IMAGE_HEIGHT,IMAGE_WIDTH",
            "scene_a.jpg,1,0.48,0.45,455,7,500,1000",
            "scene_a.jpg,2,0.23,0.47,181,512,500,1000",
            "scene_b.jpg,1,0.5,0.5,200,7,500,1000",
        ),
    ),
    "gazepoint": (
        {"format": "gazepoint"},
        lines(GAZEPOINT, "0,scene_a,14,0.2,0.25,0.5,0.0,0.2,2,1,0.1,",
              "1,scene_b,30,0.9,0.75,0.8,0.5,0.3,4,1,0.1,"),
    ),
    "pupil": ({"format": "pupil", "image": "scene_a"}, lines(*FORMATS["pupil"])),
    "smi": ({"format": "smi"}, lines(*FORMATS["smi"])),
    "tobii": ({"format": "tobii", "unit": "px"}, lines(*FORMATS["tobii"])),
    "tobii mapped": (
        {"format": "tobii", "unit": "px"},
        lines(*mapped_rows((0, 200, ["Fixation", 1, 250, 250]), names=["scene_a"])),
    ),
    "eyelink asc": (EYELINK, lines(*HEADER, *trial(1000, "scene_a", *FIXATIONS))),
    "samples": (
        {"format": "gazepoint", **RAW},
        lines(
            "MEDIA_ID,MEDIA_NAME,TIME(2024/02/03),BPOGX,BPOGY,BPOGV,FPOGX,FPOGY,FPOGS,FPOGD,FPOGV,",
            *raw_rows("0,scene_a,{t:.3f},{x},{y},{v},1,2,3,4,0,", lost=0, seen=1, scale=1e-3,
                      px=False),
        ),
    ),
}  # fmt: skip


def read_recording(form, content, path):
    path.write_bytes(content)
    problems = Problems()
    found = read_scanpaths(
        path, SIZES, RecordingSettings.model_validate(RECORDINGS[form][0]), 50, problems
    )
    problems.raise_all()
    for name, scan in found.items():
        assert name in SIZES
        position, duration = scan.fixations[:, :2], scan.fixations[:, 2]
        assert ((position >= 0) & (position <= 1)).all()
        assert np.isfinite(duration).all()
        assert (duration >= 50).all()
        # One person does not look at an image for longer than the recording can be: a day.
        assert duration.sum() < 86_400_000
        start = scan.fixations[:, 3]
        assert (np.isfinite(start) | np.isnan(start)).all()


@pytest.fixture(scope="module")
def file():
    with tempfile.TemporaryDirectory() as temporary:
        yield Path(temporary) / "file"


def try_reading(read, *arguments):
    """Call `read`; only `BadInput` may leave it."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            read(*arguments)
        except BadInput as error:
            assert "to mend" in str(error)


@pytest.mark.parametrize("form", RECORDINGS)
def test_recordings(form, file):
    @fuzz
    @given(damaged([RECORDINGS[form][1]]))
    def check(content):
        try_reading(read_recording, form, content, file)

    check()


def dicom_bytes(path, **tags):
    write_dicom(path, np.arange(48).reshape(6, 8), (0.5, 0.75), PatientID="P1", **tags)
    return path.read_bytes()


def volume_bytes(write, path, *arguments):
    write(path, np.arange(3 * 8 * 6, dtype=np.int16).reshape(8, 6, 3), *arguments)
    return path.read_bytes()


@pytest.fixture(scope="module")
def images(tmp_path_factory):
    """Return ending → images of that kind, as bytes."""
    root = tmp_path_factory.mktemp("images")
    picture = Image.fromarray(np.arange(6 * 8 * 3, dtype=np.uint8).reshape(6, 8, 3))
    kinds = {
        ".dcm": [
            dicom_bytes(root / "a.dcm"),
            dicom_bytes(root / "b.dcm", WindowCenter=20, WindowWidth=30, RescaleSlope=2,
                        RescaleIntercept=-5, PhotometricInterpretation="MONOCHROME1"),
        ],
        ".nii": [volume_bytes(write_nifti, root / "a.nii", np.diag([-0.75, -0.5, 4.0, 1]))],
        ".nii.gz": [volume_bytes(write_nifti, root / "a.nii.gz", np.diag([-0.75, -0.5, 4.0, 1]))],
        ".nrrd": [volume_bytes(write_nrrd, root / "a.nrrd", np.diag([0.75, 0.5, 4.0]))],
    }  # fmt: skip
    for ending in (".png", ".jpg", ".tif", ".bmp"):
        buffer = bytes_io.BytesIO()
        picture.save(buffer, Image.registered_extensions()[ending])
        kinds[ending] = [buffer.getvalue()]
    return kinds


def read_image(path, as_mask):
    """Read a file as an own image, or as the mask of a sound one; check what comes out."""
    image = path if not as_mask else path.with_name("sound.png")
    for record in folder.list_file("a", image, path if as_mask else None):
        sample = folder.read(record)
        assert sample.image.ndim == 3
        assert sample.image.dtype in (np.uint8, np.float32)
        assert np.isfinite(sample.image).all()
        assert sample.mask is None or sample.mask.dtype == bool
        spacing = np.asarray(sample.spacing_mm)
        assert (np.isnan(spacing) | (spacing > 0)).all()


@pytest.mark.parametrize("as_mask", [False, True], ids=["image", "mask"])
@pytest.mark.parametrize(
    "ending", [".dcm", ".nii", ".nii.gz", ".nrrd", ".png", ".jpg", ".tif", ".bmp"]
)
def test_images(ending, as_mask, images, tmp_path):
    Image.fromarray(np.zeros((6, 8, 3), np.uint8)).save(tmp_path / "sound.png")
    path = tmp_path / f"damaged{ending}"

    @fuzz
    @given(damaged(images[ending]))
    def check(content):
        path.write_bytes(content)
        try_reading(read_image, path, as_mask)

    check()


def read_mask_of_many(path, image):
    """Read a file as a segmentation of `image`; the result is a mask, or says nothing about it."""
    if matching.is_segmentation(path):
        records, problems = folder.list_file("a", image, None), Problems()
        matching.join([records], [dicom.read_header(image)], [path], problems)
        problems.raise_all()
        mask = folder.read(records[0]).mask
        assert mask is None or (mask.shape == SIZE and mask.dtype == bool)


@pytest.mark.parametrize("kind", ["BINARY", "FRACTIONAL", "LABELMAP", "RTSTRUCT"])
def test_segmentations(kind, tmp_path):
    images = write_slices(tmp_path / "images", 2)
    mask = np.zeros((2, *SIZE), bool)
    mask[:, 3:9, 5:15] = True
    square = np.array([[3, 5], [3, 14], [8, 14], [8, 5]], float)
    path = tmp_path / "sound.dcm"
    if kind == "RTSTRUCT":
        write_rtstruct(path, images, {1: ("Prostate", [(0, square), (1, square / 2)])})
    else:
        write_seg(path, images, {1: ("Prostate", mask)}, kind)
    read_mask_of_many(path, images[0])
    original = path.read_bytes()
    numbers = itertools.count()

    @fuzz
    @given(damaged([original]))
    def check(content):
        # Readers remember files by name.
        damaged_path = tmp_path / f"{next(numbers)}.dcm"
        damaged_path.write_bytes(content)
        try_reading(read_mask_of_many, damaged_path, images[0])
        damaged_path.unlink()

    check()


def read_split(root):
    problems = Problems()
    found = published.read_splits(root, problems)
    problems.raise_all()
    assert found is not None
    assert all(name.strip() and split in ("train", "val", "test") for name, split in found)


def test_split_files(tmp_path):
    (tmp_path / "test.txt").write_text("c\n")

    @fuzz
    @given(damaged([b"a\nb\n", b"a.png\r\nb.png\r\n", "\ufeffä\n".encode()]))
    def check(content):
        (tmp_path / "train.txt").write_bytes(content)
        try_reading(read_split, tmp_path)

    check()


ANSWER = json.dumps(
    {"area": "12 %", "shape": "round", "location": ["upper left"], "remarks": "A pale polyp."}
)


def read_answer(text):
    """Read an answer as the describers do; ValueError is sent back to the model."""
    try:
        fields = answers.read_json_object(text, ["area", "shape"])
        area = answers.read_area(fields["area"])
        term = answers.read_term(fields["shape"], "shape", ["round", "oval"])
        remarks = answers.read_remarks(fields.get("remarks"))
    except ValueError:
        return
    assert 0 <= area <= 1
    assert term in ("round", "oval")
    remarks.encode()


def test_answers_of_a_model():
    @fuzz
    @given(damaged([ANSWER.encode(), f"<think>a draft</think>```json\n{ANSWER}\n```".encode()]))
    def check(content):
        read_answer(content.decode("utf-8", "surrogateescape"))
        read_answer(content.decode("latin-1"))

    check()


COMPLETIONS = [
    {"choices": [{"message": {"content": ANSWER}, "finish_reason": "stop"}]},
    {"choices": [{"message": {"content": [{"type": "text", "text": ANSWER}]}}], "id": "1"},
]


def test_bodies_of_an_endpoint():
    @fuzz
    @given(damaged([json.dumps(body).encode() for body in COMPLETIONS]))
    def check(content):
        try:
            Completion.model_validate_json(content)
        except ValueError:
            return

    check()


def read_table_of_texts(path):
    for explanation in read_texts(path).values():
        assert 0 <= explanation.values.get("area", 0) <= 1
        explanation.model_dump_json().encode()


@pytest.mark.parametrize("ending", [".csv", ".jsonl"])
def test_imported_texts(ending, tmp_path):
    path = tmp_path / f"texts{ending}"
    tables = {
        ".csv": lines("sample_id,text", 'a.png,"A red, raised area."', "b.png,A flat area."),
        ".jsonl": lines('{"sample_id": "a", "area": 0.12, "shape": "round"}',
                        '{"sample_id": "b", "area": "3 %"}'),
    }  # fmt: skip

    @fuzz
    @given(damaged([tables[ending]]))
    def check(content):
        path.write_bytes(content)
        try_reading(read_table_of_texts, path)

    check()


CONFIG = yaml.safe_dump(
    {
        "seeds": [0],
        "summary": ["mine"],
        "datasets": {
            "mine": {
                "title": "Mine",
                "root": "data/mine",
                "fixations": "data/mine/gaze.csv",
                "prepare": {"layout": "folder", "size": [64, 64]},
                "gaze": {"thresholds": [0.5, 0.3], "recording": {"format": "pupil"}},
                "student": {"iterations": 10, "learning_rate": 0.01, "augment": {"flips": True}},
            }
        },
    }
).encode()


def test_configurations():
    @fuzz
    @given(damaged([CONFIG]))
    def check(content):
        try:
            raw = yaml.safe_load(content)
        except (yaml.YAMLError, UnicodeDecodeError, ValueError, RecursionError):
            return  # Snakemake reads the file
        if isinstance(raw, dict):
            with contextlib.suppress(config.ConfigError):
                config.parse(raw)

    check()


def read_h5(path):
    with io.open_h5(path, "sample_id", "image") as file:
        io.read_strings(file, "sample_id")


def test_files_of_the_pipeline(tmp_path):
    path = tmp_path / "file.h5"
    with io.create_h5(path, "prepare", {}, {}) as file:
        io.write_strings(file, "sample_id", ["a", "b"])
        file["image"] = np.zeros((2, 4, 4, 3), np.uint8)
    original = path.read_bytes()
    assert len(original) < 50_000

    @fuzz
    @given(damaged([original]))
    def check(content):
        path.write_bytes(content)
        try_reading(read_h5, path)

    check()


def test_weights(tmp_path):
    path = tmp_path / "student.safetensors"
    architecture = models.Architecture(
        role="student", channels=3, size=(16, 16), widths=(4, 4, 4, 4, 4, 4), head_width=4
    )
    models.save(models.build(architecture, seed=0), path, {})
    original = path.read_bytes()

    @fuzz
    @given(damaged([original]))
    def check(content):
        path.write_bytes(content)
        try_reading(models.load, path, "student")

    check()
