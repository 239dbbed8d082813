"""The rules read each layout of raw data, with gaze in a real file format."""

import shutil
from collections.abc import Callable
from typing import NamedTuple

import h5py
import numpy as np
import pandas as pd
import pytest
from PIL import Image

from stages.core import io
from tests.workspace import Workspace, tiny_config

SIZE = (48, 64)
# An image of 48 × 64 fits a screen of 1920 × 1080 as 1080 × 1440, 240 px from its left edge.
SCREEN, SCALE, LEFT = (1920, 1080), 22.5, 240
# Three fixations around a target: offsets as fractions of the image, durations and starts in ms.
OFFSETS = np.array([(-0.02, 0.01), (0.02, 0.01), (0, -0.02)])
DURATIONS, STARTS = (200, 300, 250), (0, 250, 600)

Targets = dict[str, tuple[float, float]]


def make_fixations(targets):
    """Yield (sample id, number, x, y, duration, start) of each fixation; x and y are in [0, 1]."""
    for name, target in targets.items():
        for i, place in enumerate(np.array(target) + OFFSETS):
            yield name, i, *place, DURATIONS[i], STARTS[i]


def on_screen(x, y):
    return LEFT + x * 64 * SCALE, y * 48 * SCALE


def size_of(name):
    """Return height and width of an image of the fixtures."""
    frame = int(name.removeprefix("frame ")) if name.startswith("frame") else None
    return (48.0, 64.0) if frame is None else (60.0 + 4 * frame, 80.0 + 2 * frame)


def gazemedseg(file, targets):
    rows = [
        {
            "IMAGE": f"{name}.jpg", "CURRENT_FIX_INDEX": i + 1, "CURRENT_FIX_X": x,
            "CURRENT_FIX_Y": y, "CURRENT_FIX_DURATION": duration, "CURRENT_FIX_PUPIL": 900,
            "CURRENT_FIX_START": start, "IMAGE_HEIGHT": size_of(name)[0],
            "IMAGE_WIDTH": size_of(name)[1],
        }
        for name, i, x, y, duration, start in make_fixations(targets)
    ]  # fmt: skip
    pd.DataFrame(rows).to_csv(file, index=False)


def eyelink(file, targets):
    """Write a table like Data Viewer: tabs, UTF-16, dots for missing values, decimal commas."""
    lines = [
        "RECORDING_SESSION_LABEL\tTRIAL_INDEX\tCURRENT_FIX_INDEX\tCURRENT_FIX_X\tCURRENT_FIX_Y\t"
        "CURRENT_FIX_DURATION\tCURRENT_FIX_START\tCURRENT_FIX_PUPIL\timage_file"
    ]
    for name, i, x, y, duration, start in make_fixations(targets):
        x_px, y_px = (f"{value:.1f}".replace(".", ",") for value in on_screen(x, y))
        lines.append(f"p1\t1\t{i + 1}\t{x_px}\t{y_px}\t{duration}\t{start}\t.\t{name}.dcm")
    file.write_text("\n".join(lines) + "\n", "utf-16")


def tobii(file, targets):
    """Write a table like Pro Lab: a row per sample, saccades between fixations, UTF-8 with BOM."""
    lines = [
        "Recording timestamp [ms]\tParticipant name\tRecording name\tPresented Stimulus name\t"
        "Eye movement type\tGaze event duration [ms]\tEye movement type index\t"
        "Fixation point X [DACS px]\tFixation point Y [DACS px]"
    ]
    for name, i, x, y, duration, start in make_fixations(targets):
        x_px, y_px = on_screen(x, y)
        where = f"p1\trecording1\t{name}"
        for time in range(start, start + duration, 10):
            lines.append(f"{time}\t{where}\tFixation\t{duration}\t{i + 1}\t{x_px:.0f}\t{y_px:.0f}")
        lines.append(f"{start + duration}\t{where}\tSaccade\t20\t{i + 1}\t\t")
    file.write_text("\n".join(lines) + "\n", "utf-8-sig")


def samples(file, targets):
    """Write 250 samples per second; the eye rests in each fixation and jumps to the next one."""
    rows = []
    for name, target in targets.items():
        places = np.array(target) + 3 * OFFSETS
        path = np.repeat(places, [50, 75, 62], axis=0)
        for i, (x, y) in enumerate(path):
            rows.append((name, 4 * i, *on_screen(x, y)))
    pd.DataFrame(rows, columns=["image", "time_ms", "x", "y"]).to_csv(file, index=False)


def maps(ending):
    """Write an 8-bit map per sample, brightest at the target."""

    def write(folder, targets):
        folder.mkdir(parents=True)
        y, x = (np.mgrid[:48, :64].T + 0.5).T
        for name, (u, v) in targets.items():
            bell = np.exp(-0.5 * ((x / 64 - u) ** 2 + (y / 48 - v) ** 2) / 0.1**2)
            Image.fromarray((255 * bell).astype(np.uint8)).save(folder / f"{name}{ending}")

    return write


def fgi_folder(root):
    """Turn the download of the ISIC challenge into the folder of the FGI release."""
    (root / "images").mkdir()
    (root / "labels").mkdir()
    for part, split in (("Training", "train"), ("Test", "test")):
        images = sorted((root / f"ISIC2018_Task1-2_{part}_Input").glob("*.jpg"))
        (root / f"{split}.txt").write_text("".join(f"{path.stem}\n" for path in images))
        for path in images:
            shutil.move(path, root / "images")
        for path in (root / f"ISIC2018_Task1_{part}_GroundTruth").glob("*.png"):
            shutil.move(path, root / "labels")


def official_download(root):
    """Turn the folder into the official download of Kvasir-SEG, which has no split files."""
    (root / "train.txt").unlink()
    (root / "test.txt").unlink()
    (root / "kavsir_bboxes.json").write_text("{}")


class Case(NamedTuple):
    """A raw folder, its gaze, and the target of the gaze in each image."""

    fixture: str
    layout: str
    targets: Targets
    write: Callable[..., None] | None
    fixations: str | None
    recording: dict
    prepare: dict = {}  # noqa: RUF012
    arrange: Callable[..., None] = lambda root: None


SHOWN = {"unit": "px", "screen": {"size": list(SCREEN)}}
DETECTION = {"rate_hz": 250, "screen_mm": [510, 287], "distance_mm": 600}
KVASIR = {f"frame {i}": (0.3, 0.5) for i in range(6)}
SLICES = {
    f"case{case}_{number}": ((20.5 + 2 * (case - 1) + i) / 64, 24.5 / 48)
    for case in (1, 2, 3)
    for i, number in enumerate((1, 11))
}
# Slices 1 to 3 of the series, numbered from 1, show prostate.
SERIES = {
    f"{case}_{i + 1}": ((25.5 + i) / 64, (20.5 + i) / 48)
    for case in ("Prostate3T-01-0001", "ProstateDx-01-0055")
    for i in (1, 2, 3)
}
ISIC = {f"ISIC_{i:07d}": ((20.5 + 3 * i) / 64, 24.5 / 48) for i in range(4)}
PICTURES = {f"scan {i}": ((20.5 + 3 * i) / 64, 24.5 / 48) for i in range(8)}
VOLUMES = {f"case{i}_{z}": ((20.5 + i) / 64, 24.5 / 48) for i in range(1, 5) for z in (1, 2, 3)}

CASES = {
    "kvasir_released": Case("kvasir", "kvasir", KVASIR, gazemedseg, "fixations.csv", {}),
    "kvasir_official": Case(
        "kvasir", "kvasir", KVASIR, maps(".png"), "gaze/heatmap", {"format": "heatmaps"},
        {"split": "drawn", "test_fraction": 0.34}, official_download,
    ),
    "prostate_slices": Case(
        "nci_isbi", "nci_isbi", SLICES, eyelink, "report.txt",
        {"format": "eyelink", "image_column": "image_file", **SHOWN},
    ),
    "prostate_volumes": Case(
        "nci_isbi_volumes", "nci_isbi_volumes", SERIES, gazemedseg, "fixations.csv", {},
    ),
    "isic_fgi": Case(
        "isic_challenge", "isic", ISIC, maps(".jpg"), "gaze/crf_compat1", {"format": "refined"},
        arrange=fgi_folder,
    ),
    "isic_challenge": Case("isic_challenge", "isic_challenge", ISIC, None, None, {}),
    "own_pictures": Case(
        "own_folder", "folder", PICTURES, tobii, "export.tsv", {"format": "tobii", **SHOWN},
        {"split": "drawn", "test_fraction": 0.25},
    ),
    "own_volumes": Case(
        "own_volumes", "folder", VOLUMES, samples, "samples.csv",
        {"format": "samples", "detection": DETECTION, **SHOWN},
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", CASES)
def test_raw_data_of_each_layout_become_pseudomasks(name, request, tmp_path):
    case = CASES[name]
    found = request.getfixturevalue(case.fixture)
    root = tmp_path / "clone/data" / name
    root.parent.mkdir(parents=True)
    shutil.move(found, root)
    case.arrange(root)
    if case.write:
        case.write(root / case.fixations, case.targets)
    config = tiny_config()
    config["datasets"]["ours"] = {
        "title": name,
        "root": f"data/{name}",
        "fixations": case.fixations and f"data/{name}/{case.fixations}",
        "prepare": {"layout": case.layout, "size": list(SIZE), "val_fraction": 0.34} | case.prepare,
        "gaze": {"recording": case.recording} if case.fixations else {"simulate": {}},
        "gpus": 0,
        "threads": 2,
    }
    workspace = Workspace(tmp_path / "clone", config)
    folder = workspace.folder / "results/ours"
    workspace.must_run("verify_ours", "results/ours/gaze.h5", "results/ours/gaze_quality.csv")

    with h5py.File(folder / "prepared.h5") as prepared, h5py.File(folder / "gaze.h5") as gaze:
        sample_ids = io.read_strings(prepared, "sample_id").tolist()
        split = io.read_strings(prepared, "split")
        assert set(split) == {"train", "val", "test"}
        subjects = io.read_strings(prepared, "subject_id")
        assert all(len(set(split[subjects == subject])) == 1 for subject in subjects)
        training = np.flatnonzero(split == "train").tolist()
        assert gaze["has_gaze"][training].all()
        for i in training:
            target = case.targets[sample_ids[i]]
            strongest = gaze["heatmap" if gaze["heatmap"][i].any() else "refined"][i]
            peak = np.argwhere(strongest == strongest.max()).mean(axis=0) + 0.5
            if case.write:
                assert peak[::-1] / SIZE[::-1] == pytest.approx(target, abs=0.04), sample_ids[i]
            x, y = (int(part * length) for part, length in zip(target, SIZE[::-1]))
            assert gaze["pseudomask"][i, -1, y, x] == 1
            if prepared["has_mask"][i]:
                assert prepared["mask"][i, y, x] == 1
        recorded = "recorded" if case.fixations else "simulated"
        assert gaze.attrs["gaze_origin"] == recorded
        if name not in ("kvasir_official", "isic_fgi", "isic_challenge"):
            assert (gaze["fixation_count"][training] == 3).all()

    verified = pd.read_csv(folder / "verified.csv", dtype=str)
    assert verified["sample_id"].tolist() == sample_ids
    assert verified["split"].tolist() == split.tolist()
    quality = pd.read_csv(folder / "gaze_quality.csv", dtype={"sample_id": str})
    assert quality["sample_id"].tolist() == sample_ids

    if case.write and (root / case.fixations).is_dir():
        changed = next((root / case.fixations).iterdir())
        changed.write_bytes(changed.read_bytes() + b"\0")
        assert workspace.planned_rules("results/ours/gaze.h5") == {"pseudomasks"}


def test_data_exported_for_the_published_code_can_be_read_back(kvasir, tmp_path):
    root = tmp_path / "clone/data/polyps"
    root.parent.mkdir(parents=True)
    shutil.move(kvasir, root)
    for file in root.rglob("*"):  # the published code separates its lists with spaces
        if " " in file.name:
            file.rename(file.with_name(file.name.replace(" ", "")))
    for name in ("train.txt", "test.txt", "fixations.csv"):
        (root / name).write_text((root / name).read_text().replace("frame ", "frame"))
    config = tiny_config()
    shared = {"gpus": 0, "prepare": {"layout": "kvasir", "size": list(SIZE), "val_fraction": 0.25}}
    config["datasets"]["ours"] = shared | {
        "title": "Ours", "root": "data/polyps", "fixations": "data/polyps/fixations.csv",
    }  # fmt: skip
    config["datasets"]["exported"] = shared | {
        "title": "Exported", "root": "data/exported", "fixations": "data/exported/gaze/crf_compat1",
        "gaze": {"recording": {"format": "refined"}},
    }  # fmt: skip
    workspace = Workspace(tmp_path / "clone", config)
    workspace.must_run("export_published_ours")
    shutil.copytree(workspace.folder / "results/ours/export", root.parent / "exported")
    workspace.must_run("results/exported/gaze.h5")
    results = workspace.folder / "results"
    with h5py.File(results / "ours/gaze.h5") as ours, h5py.File(results / "exported/gaze.h5") as b:
        mine, back = (io.read_strings(file, "sample_id").tolist() for file in (ours, b))
        assert sorted(mine) == sorted(back)
        for i, name in enumerate(mine):
            # JPEG changes a map by up to 2 of 255 grey levels, which moves the pseudomasks' edges.
            differing = ours["pseudomask"][i] != b["pseudomask"][back.index(name)]
            assert differing.mean() < 0.02
            assert (ours["has_gaze"][i], i) == (b["has_gaze"][back.index(name)], i)


def plant_problems(root):
    """Plant problems of many kinds; return words that the message of each must contain."""
    images, masks = root / "images", root / "masks"
    (images / "scan 0.png").write_bytes((images / "scan 0.png").read_bytes()[:200])
    Image.new("L", (10, 10)).save(masks / "scan 1.png")
    Image.fromarray(np.arange(48 * 64, dtype=np.uint8).reshape(48, 64)).save(masks / "scan 2.png")
    shutil.copy(masks / "scan 3.png", masks / "ghost.png")
    shutil.copy(images / "scan 4.png", images / "scan 3.png")
    (images / "notes.txt").write_text("notes")
    turned = Image.open(images / "scan 5.jpg")
    exif = turned.getexif()
    exif[0x0112] = 6
    turned.save(images / "scan 5.jpg", exif=exif)
    shutil.copy(images / "scan 4.png", images / "copy.png")
    deep = np.arange(48 * 64, dtype=np.uint16).reshape(48, 64)
    Image.fromarray(deep).save(images / "deep.png")
    (images / "scan;8.png").write_bytes((images / "scan 6.tiff").read_bytes())
    (masks / "scan 7.png").write_bytes(b"no picture")
    (root / "train.txt").write_text(
        "".join(f"scan {i}\n" for i in range(8)) + "deep\nscan;8\nscan 99\n"
    )
    (root / "test.txt").write_text("scan 6\ncopy\n")
    lines = (root / "fixations.csv").read_text().splitlines()
    kept = [line for line in lines if not line.startswith(("scan 7", "scan 6"))]
    kept[4] = kept[4].replace(",200,", ",0.2 s,")
    (root / "fixations.csv").write_text("\n".join(kept) + "\n")
    return [
        "images/scan 0.png: file",
        "masks/scan 1.png: size",
        "masks/scan 2.png: mask",
        "masks: masks\n  found:    1 without an image: ghost",
        "images/scan 3.png: id 'scan 3'",
        "images/notes.txt: file",
        "images/scan 5.jpg: EXIF orientation",
        "'scan 4' (train) = 'copy' (test)",
        "1 grey of more than 8 bits: deep",
        "images/scan;8.png: sample id",
        "masks/scan 7.png: file",
        "train.txt: ids\n  found:    1 without an image: scan 99",
        "sample ids\n  found:    more than once: 'scan 6'",
        "subjects in two splits: scan 6",
        "fixations.csv: column CURRENT_FIX_DURATION, line 5",
        "fixations.csv: gaze of the training images",
    ]


@pytest.fixture
def own_data(own_folder, tmp_path):
    root = tmp_path / "clone/data/ours"
    root.parent.mkdir(parents=True)
    shutil.move(own_folder, root)
    gazemedseg(root / "fixations.csv", PICTURES | {"deep": (0.5, 0.5), "scan;8": (0.5, 0.5)})
    config = tiny_config()
    config["datasets"]["ours"] = {
        "title": "Ours", "root": "data/ours", "fixations": "data/ours/fixations.csv",
        "prepare": {"layout": "folder", "size": list(SIZE)}, "gpus": 0, "threads": 2,
    }  # fmt: skip
    return Workspace(tmp_path / "clone", config), root


def test_one_report_lists_all_problems(own_data):
    workspace, root = own_data
    expected = plant_problems(root)
    status, printed = workspace.run("verify_ours")
    assert status == 1
    log = (workspace.folder / "results/ours/logs/verify.log").read_text()
    for words in expected:
        assert words in log, log
        assert words.splitlines()[0] in printed
    assert f"{len(expected)} problems:" in log
    assert not (workspace.folder / "results/ours/verified.csv").exists()
    assert "Traceback" not in log


def test_problems_stop_the_run_before_any_training(own_data):
    workspace, root = own_data
    plant_problems(root)
    status, _ = workspace.run("ours")
    assert status == 1
    left = {path.name for path in (workspace.folder / "results/ours").rglob("*") if path.is_file()}
    assert left == {"verify.log", "prepare.log"}


def test_data_without_problems_pass(own_data):
    workspace, root = own_data
    (root / "train.txt").write_text("".join(f"scan {i}\n" for i in range(6)))
    (root / "test.txt").write_text("scan 6\nscan 7\n")
    workspace.must_run("verify_ours")
    assert "Nothing to be done" in workspace.must_run("verify_ours")
