"""From fixations to pseudomasks: the map, the levels, and the file that a training reads."""

import json
import math

import h5py
import numpy as np
import pytest
from conftest import disc
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from scipy import ndimage

from stages import io
from stages.cli import BadInput
from stages.gaze import CANVAS, cut_levels, draw_heatmap, make_gaze
from stages.prepare import prepare
from stages.settings.gaze import GazeSettings
from stages.settings.prepare import PrepareSettings
from stages.settings.scanpath import ScanSettings

SIZE = (32, 48)


def fixations(*rows):
    """Rows of x, y, duration."""
    return np.array([[*row, 0] for row in rows], float).reshape(-1, 4)


# Heatmap


def test_one_fixation_is_a_gaussian_at_the_pixel_centres():
    # Four pixels a side and a std of one of them. The centres lie 0.5 and 1.5 std off the fixation
    # along each axis: a = exp(−0.5³) = exp(−1/8), b = exp(−9/8) = a / e. Inner pixels have a²,
    # edges ab, corners b². Normalised, an edge has (ab − b²) / (a² − b²) = b / (a + b) or
    # 1 / (1 + e).
    edge = 1 / (1 + math.e)
    expected = [[0, edge, edge, 0], [edge, 1, 1, edge], [edge, 1, 1, edge], [0, edge, edge, 0]]
    heat = draw_heatmap(fixations((0.5, 0.5, 123)), (4, 4), CANVAS / 4)
    assert heat.dtype == np.float32
    assert heat == pytest.approx(np.array(expected), abs=1e-6)


def test_x_runs_along_the_width_and_y_along_the_height():
    heat = draw_heatmap(fixations((0.9, 0.2, 100)), (20, 30), 70)
    assert np.unravel_index(heat.argmax(), heat.shape) in {(3, 26), (3, 27), (4, 26), (4, 27)}


@pytest.mark.parametrize(("x", "nearest"), [(0.0, 0), (1.0, -1)])
def test_a_fixation_on_the_border_does_not_wrap_to_the_opposite_one(x, nearest):
    heat = draw_heatmap(fixations((x, 0.5, 100)), (9, 12), 70)
    along = heat[4] if nearest == 0 else heat[4, ::-1]
    assert along[0] == 1
    assert (np.diff(along) < 0).all()
    assert along[-1] < 1e-6


def test_a_fixation_weighs_what_it_lasts():
    # 0.6 of 768 px apart, 6.6 std: neither reaches the other.
    heat = draw_heatmap(fixations((0.2, 0.5, 100), (0.8, 0.5, 300)), (50, 50), 70)
    assert heat.max() == heat[24:26, 39:41].max() == 1
    assert heat[24:26, 9:11].max() == pytest.approx(1 / 3, rel=1e-3)


def test_one_long_fixation_is_many_short_ones_at_the_place():
    long = draw_heatmap(fixations((0.3, 0.4, 600), (0.7, 0.6, 150)), (20, 20), 70)
    short = draw_heatmap(fixations(*[(0.3, 0.4, 200)] * 3, (0.7, 0.6, 150)), (20, 20), 70)
    assert long == pytest.approx(short, abs=1e-6)


@pytest.mark.parametrize(
    ("rows", "sigma"),
    [([], 70), ([(0.5, 0.5, 0)], 70), ([(0.5, 0.5, 200)], 1e12)],
    ids=["empty", "no duration", "constant"],
)
def test_a_map_without_any_difference_is_empty(rows, sigma):
    heat = draw_heatmap(fixations(*rows), (5, 7), sigma)
    assert heat.dtype == np.float32
    assert heat.shape == (5, 7)
    assert (heat == 0).all()


points = st.tuples(st.floats(0, 1), st.floats(0, 1), st.floats(50, 5000))


@settings(deadline=None)
@given(st.lists(points, min_size=1, max_size=6), st.integers(2, 20), st.floats(20, 300))
def test_any_map_runs_from_0_to_1_and_is_mirrored_with_its_fixations(rows, side, sigma):
    scan = fixations(*rows)
    heat = draw_heatmap(scan, (side, 2 * side), sigma)
    assert (heat.min(), heat.max()) == (0, 1)
    mirrored = scan * [-1, 1, 1, 1] + [1, 0, 0, 0]
    assert draw_heatmap(mirrored, (side, 2 * side), sigma) == pytest.approx(heat[:, ::-1], abs=1e-6)


def test_it_is_the_published_map_but_for_the_border():
    rows = [(0.4, 0.5, 300), (0.55, 0.45, 500), (0.5, 0.6, 200)]
    canvas = np.zeros((CANVAS, CANVAS), np.float32)
    for x, y, duration in rows:
        canvas[round(y * CANVAS) - 1, round(x * CANVAS) - 1] += duration
    canvas = ndimage.gaussian_filter(canvas, 70, mode="constant")
    # The centre of a pixel of 12 lies between the canvas's sixth and seventh.
    near = [canvas[i::12, j::12] for i in (5, 6) for j in (5, 6)]
    published = sum(near) / 4
    published = (published - published.min()) / np.ptp(published)
    # The published index is half a canvas pixel off, and its kernel is cut at four std.
    assert draw_heatmap(fixations(*rows), (64, 64), 70) == pytest.approx(published, abs=0.01)


# Levels


def test_a_level_holds_what_reaches_its_threshold_and_the_highest_comes_first():
    refined = np.array([[0.125, 0.25, 0.375, 0.5, 1.0]], np.float16)
    levels = cut_levels(refined, (0.25, 0.5))
    assert levels.dtype == np.uint8
    assert levels.tolist() == [[[0, 0, 0, 1, 1]], [[0, 1, 1, 1, 1]]]


@given(
    arrays(np.float16, (5, 6), elements=st.floats(0, 1, width=16)),
    st.lists(st.floats(0.01, 0.99), min_size=2, max_size=5, unique=True),
)
def test_levels_are_nested_for_any_map(refined, thresholds):
    levels = cut_levels(refined, tuple(thresholds))
    assert levels.shape == (len(thresholds), 5, 6)
    assert set(np.unique(levels)) <= {0, 1}
    assert (np.diff(levels.astype(int), axis=0) >= 0).all()


# The stage


@pytest.fixture
def prepared(kvasir, tmp_path):
    """Frames 0 to 3 for training, one of them for validation, 4 and 5 for test."""
    prepare(kvasir, tmp_path / "prepared.h5", PrepareSettings(layout="kvasir", size=SIZE))
    return tmp_path / "prepared.h5"


@pytest.fixture
def gaze(prepared, kvasir, tmp_path):
    make_gaze(prepared, tmp_path / "gaze.h5", GazeSettings(), kvasir / "fixations.csv")
    return tmp_path / "gaze.h5"


def test_the_contract(gaze, prepared, kvasir):
    with h5py.File(gaze) as file:
        assert {name: (file[name].shape, file[name].dtype.str) for name in file} == {
            "heatmap": ((6, 32, 48), "<f2"),
            "refined": ((6, 32, 48), "<f2"),
            "pseudomask": ((6, 2, 32, 48), "|u1"),
            "threshold": ((2,), "<f4"),
            "sample_id": ((6,), "|O"),
            "fixation": ((12, 4), "<f4"),
            "fixation_offset": ((7,), "<i8"),
            "fixation_count": ((6,), "<i4"),
            "dwell_ms": ((6,), "<f4"),
            "span_ms": ((6,), "<f4"),
        }
        assert h5py.check_string_dtype(file["sample_id"].dtype).encoding == "utf-8"
        for name in ("heatmap", "refined", "pseudomask"):
            assert file[name].chunks == (1, *file[name].shape[1:])
        assert dict(file.attrs) | {"versions": ""} == {
            "schema_version": io.SCHEMA_VERSION,
            "stage": "gaze",
            "inputs": json.dumps(
                {
                    "fixations": io.sha256(kvasir / "fixations.csv"),
                    "prepared": io.sha256(prepared),
                }
            ),
            "params": json.dumps(GazeSettings().model_dump(mode="json"), sort_keys=True),
            "versions": "",
            "gaze_origin": "recorded",
        }
        with h5py.File(prepared) as source:
            assert file["sample_id"][()].tolist() == source["sample_id"][()].tolist()


def test_values_are_those_of_the_fixations(gaze):
    with h5py.File(gaze) as file:
        assert file["fixation_count"][()].tolist() == [3, 3, 3, 3, 0, 0]
        assert file["fixation_offset"][()].tolist() == [0, 3, 6, 9, 12, 12, 12]
        # 200 + 250 + 300 ms; from 0 to 600 + 300 ms.
        assert file["dwell_ms"][()].tolist() == [750] * 4 + [0] * 2
        assert file["span_ms"][()].tolist() == [900] * 4 + [0] * 2
        scan = file["fixation"][3:6]
        assert scan[:, 2:].tolist() == [[200, 0], [250, 300], [300, 600]]
        assert file["threshold"][()].tolist() == pytest.approx([0.5, 0.3])
        heat = draw_heatmap(scan, SIZE, 70)
        assert file["heatmap"][1] == pytest.approx(heat, abs=1e-3)


def test_maps_lie_in_0_to_1_and_pseudomasks_are_their_levels(gaze):
    with h5py.File(gaze) as file:
        for name in ("heatmap", "refined"):
            maps = file[name][()]
            assert 0 <= maps.min() <= maps.max() <= 1
        for refined, levels in zip(file["refined"], file["pseudomask"]):
            assert np.array_equal(levels, cut_levels(refined, (0.3, 0.5)))


def test_samples_that_nobody_looked_at_stay_empty(gaze):
    with h5py.File(gaze) as file:
        for name in ("heatmap", "refined", "pseudomask"):
            touched = file[name][()].reshape(6, -1).any(axis=1)
            assert touched.tolist() == [True] * 4 + [False] * 2


def test_the_pseudomask_covers_what_was_looked_at(gaze, prepared):
    with h5py.File(gaze) as file, h5py.File(prepared) as source:
        for broad, mask in zip(file["pseudomask"][:4, -1], source["mask"][:4]):
            assert 2 * (broad & mask).sum() / (broad.sum() + mask.sum()) > 0.6


def test_more_levels_are_stored_from_precise_to_broad(prepared, kvasir, tmp_path):
    several = GazeSettings(thresholds=(0.5, 0.3, 0.4))
    make_gaze(prepared, tmp_path / "gaze.h5", several, kvasir / "fixations.csv")
    with h5py.File(tmp_path / "gaze.h5") as file:
        assert file["threshold"][()].tolist() == pytest.approx([0.5, 0.4, 0.3])
        area = file["pseudomask"][:4].sum(axis=(2, 3))
        assert (np.diff(area.astype(int), axis=1) >= 0).all()


def test_the_crfs_reach_is_the_same_part_of_the_image_at_any_working_size(
    prepared, kvasir, tmp_path, monkeypatch
):
    seen = []

    monkeypatch.setattr(
        "stages.gaze.crf.refine", lambda image, heat, *, sxy, **_: seen.append(sxy) or heat
    )
    make_gaze(prepared, tmp_path / "gaze.h5", GazeSettings(), kvasir / "fixations.csv")
    # Frame 2 is 68 × 84; its 80 px are 80 · 32 / 68 and 80 · 48 / 84 at the working size.
    assert seen[2] == pytest.approx((80 * 32 / 68, 80 * 48 / 84))


def test_short_fixations_are_left_out_of_the_map_and_of_the_dwell_time(prepared, kvasir, tmp_path):
    shortest = GazeSettings(min_fixation_ms=250)
    make_gaze(prepared, tmp_path / "gaze.h5", shortest, kvasir / "fixations.csv")
    with h5py.File(tmp_path / "gaze.h5") as file:
        assert file["fixation_count"][0] == 2
        assert file["dwell_ms"][0] == 550
        assert file["span_ms"][0] == 600  # 300 to 900


def test_bad_fixations_leave_no_file(prepared, tmp_path):
    (tmp_path / "bad.csv").write_text("IMAGE\n")
    with pytest.raises(BadInput, match=r"bad\.csv"):
        make_gaze(prepared, tmp_path / "out/gaze.h5", GazeSettings(), tmp_path / "bad.csv")
    assert not list((tmp_path / "out").glob("*"))


# Simulation


def simulate(prepared, output, **changes):
    make_gaze(prepared, output, GazeSettings(simulate=ScanSettings(), **changes))
    return output


def values(path):
    with h5py.File(path) as file:
        return {name: file[name][()] for name in file}


def scans(path):
    """Sample id → its fixations."""
    found = values(path)
    parts = np.split(found["fixation"], found["fixation_offset"][1:-1])
    return {name.decode(): part.tolist() for name, part in zip(found["sample_id"], parts)}


def test_only_the_training_split_is_simulated(prepared, tmp_path):
    path = simulate(prepared, tmp_path / "gaze.h5")
    with h5py.File(prepared) as source, h5py.File(path) as file:
        training = source["split"].asstr()[()] == "train"
        assert training.sum() == 3
        assert ((file["fixation_count"][()] > 0) == training).all()
        assert file.attrs["gaze_origin"] == "simulated"
        assert json.loads(file.attrs["params"])["simulate"] is not None


def test_masks_of_the_other_splits_are_not_read(prepared, tmp_path):
    before = values(simulate(prepared, tmp_path / "a.h5"))
    with h5py.File(prepared, "r+") as file:
        for i in np.flatnonzero(file["split"].asstr()[()] != "train"):
            file["mask"][i] = disc(SIZE, (5, 5), 4)
    after = values(simulate(prepared, tmp_path / "b.h5"))
    for name, expected in before.items():
        assert np.array_equal(after[name], expected), name


def test_a_training_image_without_a_mask_is_not_looked_at(kvasir, tmp_path):
    (kvasir / "masks/frame 1.jpg").unlink()
    whole = PrepareSettings(layout="kvasir", size=SIZE, val_fraction=0)
    prepare(kvasir, tmp_path / "prepared.h5", whole)
    path = simulate(tmp_path / "prepared.h5", tmp_path / "gaze.h5")
    assert [bool(scan) for scan in scans(path).values()] == [True, False, True, True, False, False]


def test_a_seed_fixes_the_bytes_and_another_changes_the_gaze(prepared, tmp_path):
    first = simulate(prepared, tmp_path / "a.h5", seed=1)
    second = simulate(prepared, tmp_path / "b.h5", seed=1)
    assert first.read_bytes() == second.read_bytes()
    assert scans(first) != scans(simulate(prepared, tmp_path / "c.h5", seed=2))


def test_the_gaze_on_an_image_does_not_depend_on_which_others_there_are(kvasir, tmp_path):
    whole = PrepareSettings(layout="kvasir", size=SIZE, val_fraction=0)
    prepare(kvasir, tmp_path / "all.h5", whole)
    (kvasir / "train.txt").write_text("frame 3\nframe 1\n")
    prepare(kvasir, tmp_path / "some.h5", whole)
    of_all = scans(simulate(tmp_path / "all.h5", tmp_path / "a.h5"))
    of_some = scans(simulate(tmp_path / "some.h5", tmp_path / "b.h5"))
    assert of_some["frame 1"] == of_all["frame 1"] != of_all["frame 3"] == of_some["frame 3"]


def test_simulated_fixations_keep_to_the_shortest_duration(prepared, tmp_path):
    found = values(simulate(prepared, tmp_path / "gaze.h5", min_fixation_ms=300))
    assert len(found["fixation"]) > 0
    assert found["fixation"][:, 2].min() >= 300


def test_grey_scans_with_physical_intensities_are_looked_at_too(nci_isbi, tmp_path):
    prepare(nci_isbi, tmp_path / "prepared.h5", PrepareSettings(layout="nci_isbi", size=SIZE))
    found = values(simulate(tmp_path / "prepared.h5", tmp_path / "gaze.h5"))
    looked = found["fixation_count"] > 0
    assert looked.sum() == 2
    assert (found["pseudomask"][looked].sum(axis=(2, 3)) > 0).all()
