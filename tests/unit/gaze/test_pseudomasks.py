"""From fixations to gaze.h5: heatmaps, refined maps and pseudomasks."""

import json

import h5py
import numpy as np
import pytest
import torch
from conftest import disc
from PIL import Image

from stages.core import io
from stages.core.cli import BadInput
from stages.data.prepare import prepare
from stages.gaze import pseudomasks as stage
from stages.gaze.area import estimate_areas, spread_area
from stages.gaze.features import vote
from stages.gaze.heatmap import draw_heatmap, draw_published_heatmap
from stages.gaze.levels import cut_levels
from stages.settings.gaze import FeatureSettings, GazeSettings
from stages.settings.parts import EncoderSettings
from stages.settings.prepare import PrepareSettings
from stages.settings.scanpath import ScanSettings
from stages.training.encoder import prepare_encoder

SIZE = (32, 48)


def make_pseudomasks(prepared, output, settings, fixations=None, threads=2):
    stage.make_pseudomasks(prepared, output, settings, threads, 0, fixations)


# The stage


@pytest.fixture
def prepared(kvasir, tmp_path):
    """prepared.h5: frames 0 to 3 for training and validation, 4 and 5 for test."""
    prepare(kvasir, tmp_path / "prepared.h5", PrepareSettings(layout="kvasir", size=SIZE), 1)
    return tmp_path / "prepared.h5"


@pytest.fixture
def gaze(prepared, kvasir, tmp_path):
    make_pseudomasks(prepared, tmp_path / "gaze.h5", GazeSettings(), kvasir / "fixations.csv")
    return tmp_path / "gaze.h5"


def test_file_has_the_documented_datasets_and_attributes(gaze, prepared, kvasir):
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
            "off_image_count": ((6,), "<i4"),
            "short_count": ((6,), "<i4"),
            "dwell_ms": ((6,), "<f4"),
            "has_gaze": ((6,), "|b1"),
        }
        assert h5py.check_string_dtype(file["sample_id"].dtype).encoding == "utf-8"
        for name in ("heatmap", "refined", "pseudomask"):
            assert file[name].chunks == (1, *file[name].shape[1:])
        assert dict(file.attrs) | {"versions": ""} == {
            "schema_version": io.SCHEMA_VERSION,
            "stage": "pseudomasks",
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


def test_stored_values_match_the_fixations(gaze):
    with h5py.File(gaze) as file:
        assert file["fixation_count"][()].tolist() == [3, 3, 3, 3, 0, 0]
        assert file["fixation_offset"][()].tolist() == [0, 3, 6, 9, 12, 12, 12]
        assert file["has_gaze"][()].tolist() == [True] * 4 + [False] * 2
        # 200 + 250 + 300 ms.
        assert file["dwell_ms"][:4].tolist() == [750] * 4
        assert np.isnan(file["dwell_ms"][4:]).all()
        scan = file["fixation"][3:6]
        assert scan[:, 2:].tolist() == [[200, 0], [250, 300], [300, 600]]
        assert file["threshold"][()].tolist() == pytest.approx([0.5, 0.3])
        heat = draw_heatmap(scan, SIZE, original_size=(64, 82), sigma=70)
        assert file["heatmap"][1] == pytest.approx(heat, abs=1e-3)


def test_maps_lie_in_0_to_1_and_pseudomasks_are_their_levels(gaze):
    with h5py.File(gaze) as file:
        for name in ("heatmap", "refined"):
            maps = file[name][()]
            assert 0 <= maps.min() <= maps.max() <= 1
        for refined, levels in zip(file["refined"], file["pseudomask"]):
            assert np.array_equal(levels, cut_levels(refined, (0.3, 0.5)))


def test_samples_without_gaze_have_empty_maps(gaze):
    with h5py.File(gaze) as file:
        for name in ("heatmap", "refined", "pseudomask"):
            touched = file[name][()].reshape(6, -1).any(axis=1)
            assert touched.tolist() == [True] * 4 + [False] * 2


def test_pseudomask_overlaps_the_fixated_mask(gaze, prepared):
    with h5py.File(gaze) as file, h5py.File(prepared) as source:
        for broad, mask in zip(file["pseudomask"][:4, -1], source["mask"][:4]):
            assert 2 * (broad & mask).sum() / (broad.sum() + mask.sum()) > 0.6


def test_levels_follow_the_spread_of_the_fixations(prepared, kvasir, tmp_path, gaze):
    by_area = GazeSettings(levels="area", thresholds=(0.7, 0.5))
    make_pseudomasks(prepared, tmp_path / "area.h5", by_area, kvasir / "fixations.csv")
    with h5py.File(tmp_path / "area.h5") as file, h5py.File(prepared) as source:
        areas = [
            spread_area(file["fixation"][3 * i : 3 * i + 3], tuple(source["original_size"][i]))
            for i in range(4)
        ]
        training = source["split"][:4] == b"train"
        expected = estimate_areas(np.array(areas), np.full(4, 3), training)
        for i, area in enumerate(expected):
            # float16 and the flat parts of the CRF's map join pixels at the cut.
            assert file["pseudomask"][i, -1].mean() == pytest.approx(area, abs=0.1)
            with h5py.File(gaze) as plain:
                order = np.argsort(plain["refined"][i], axis=None)
            assert (np.diff(file["refined"][i].ravel()[order].astype(float)) >= -2e-3).all()


def test_the_classifiers_vote_is_a_part_of_the_refined_map(prepared, kvasir, tmp_path, monkeypatch):
    # Four subjects of one frame each are the training split.
    with h5py.File(prepared, "r+") as file:
        file["split"][:4] = "train"
    features = FeatureSettings(encoder="test_efficientnet", side=64, weight=0.25)
    settings = GazeSettings(levels="area", features=features)
    encoder = tmp_path / "encoder.safetensors"
    prepare_encoder(encoder, EncoderSettings(encoder=features.encoder, weights="none"))
    stage.make_pseudomasks(
        prepared, tmp_path / "gaze.h5", settings, 2, 0, kvasir / "fixations.csv", encoder
    )
    with h5py.File(tmp_path / "gaze.h5") as file, h5py.File(prepared) as source:
        votes = vote(
            lambda i: source["image"][i], lambda i: file["aligned"][i] >= 0.5,
            source["subject_id"].asstr()[:4].tolist(), np.ones(4, bool), encoder, features,
            torch.device("cpu"), 1,
        )  # fmt: skip
        for i, probability in enumerate(votes):
            expected = 0.25 * probability + 0.75 * file["aligned"][i].astype(np.float32)
            assert file["refined"][i] == pytest.approx(expected, abs=1e-3)
            levels = cut_levels(file["refined"][i], settings.thresholds)
            assert np.array_equal(file["pseudomask"][i], levels)
        assert not file["refined"][4:].any()
        inputs = json.loads(file.attrs["inputs"])
        assert inputs["encoder"] == io.sha256(encoder)


def test_more_levels_are_stored_from_precise_to_broad(prepared, kvasir, tmp_path):
    several = GazeSettings(thresholds=(0.5, 0.3, 0.4))
    make_pseudomasks(prepared, tmp_path / "gaze.h5", several, kvasir / "fixations.csv")
    with h5py.File(tmp_path / "gaze.h5") as file:
        assert file["threshold"][()].tolist() == pytest.approx([0.5, 0.4, 0.3])
        area = file["pseudomask"][:4].sum(axis=(2, 3))
        assert (np.diff(area.astype(int), axis=1) >= 0).all()


def test_crf_std_scales_with_the_working_size(prepared, kvasir, tmp_path, monkeypatch):
    seen = []

    monkeypatch.setattr(
        "stages.gaze.crf.refine", lambda image, heat, *, sxy, **_: seen.append(sxy) or heat
    )
    make_pseudomasks(prepared, tmp_path / "gaze.h5", GazeSettings(), kvasir / "fixations.csv")
    # Frame 2 is 68 × 84; its 80 px are 80 · 32 / 68 and 80 · 48 / 84 at the working size.
    assert (80 * 32 / 68, 80 * 48 / 84) in [pytest.approx(sxy) for sxy in seen]


def test_short_fixations_do_not_count_for_map_and_dwell_time(prepared, kvasir, tmp_path):
    shortest = GazeSettings(min_fixation_ms=250)
    make_pseudomasks(prepared, tmp_path / "gaze.h5", shortest, kvasir / "fixations.csv")
    with h5py.File(tmp_path / "gaze.h5") as file:
        assert file["fixation_count"][0] == 2
        assert file["short_count"][0] == 1
        assert file["dwell_ms"][0] == 550


def test_bad_fixations_leave_no_file(prepared, tmp_path):
    (tmp_path / "bad.csv").write_text("IMAGE\n")
    with pytest.raises(BadInput, match=r"bad\.csv"):
        make_pseudomasks(prepared, tmp_path / "out/gaze.h5", GazeSettings(), tmp_path / "bad.csv")
    assert not list((tmp_path / "out").glob("*"))


def test_one_thread_and_four_write_the_same_bytes(prepared, kvasir, tmp_path):
    for name, threads in (("a.h5", 1), ("b.h5", 4)):
        make_pseudomasks(
            prepared, tmp_path / name, GazeSettings(), kvasir / "fixations.csv", threads
        )
    assert (tmp_path / "a.h5").read_bytes() == (tmp_path / "b.h5").read_bytes()


def test_published_canvas_can_be_selected(prepared, kvasir, tmp_path):
    published = GazeSettings(canvas="published")
    make_pseudomasks(prepared, tmp_path / "gaze.h5", published, kvasir / "fixations.csv")
    with h5py.File(tmp_path / "gaze.h5") as file:
        heat = draw_published_heatmap(
            file["fixation"][:3].astype(float), SIZE, original_size=(60, 80), sigma=70
        )
        assert file["heatmap"][0] == pytest.approx(heat, abs=2 / 255)


def drop_gaze(kvasir, name):
    table = kvasir / "fixations.csv"
    kept = [line for line in table.read_text().splitlines() if not line.startswith(name)]
    table.write_text("\n".join(kept) + "\n")


def test_training_images_need_gaze_unless_partial_is_set(kvasir, tmp_path):
    whole = PrepareSettings(layout="kvasir", size=SIZE, val_fraction=0)
    prepare(kvasir, tmp_path / "prepared.h5", whole, 1)
    drop_gaze(kvasir, "frame 2")
    table = kvasir / "fixations.csv"
    with pytest.raises(BadInput) as error:
        make_pseudomasks(tmp_path / "prepared.h5", tmp_path / "gaze.h5", GazeSettings(), table)
    for words in (str(table), "none for 1 of 4: frame 2", "record them", "gaze.partial: true"):
        assert words in str(error.value)
    partial = GazeSettings(partial=True)
    make_pseudomasks(tmp_path / "prepared.h5", tmp_path / "gaze.h5", partial, table)
    with h5py.File(tmp_path / "gaze.h5") as file:
        assert file["has_gaze"][:4].tolist() == [True, True, False, True]
    for name in ("frame 0", "frame 1", "frame 3"):
        drop_gaze(kvasir, name)
    with table.open("a") as file:
        file.write("frame 4.jpg,1,0.5,0.5,200,900,0\n")
    with pytest.raises(BadInput, match="none for 4 of 4") as error:
        make_pseudomasks(tmp_path / "prepared.h5", tmp_path / "gaze.h5", partial, table)
    assert "gaze.partial" not in str(error.value)


def test_message_counts_dropped_fixations_of_samples_without_gaze(kvasir, tmp_path):
    whole = PrepareSettings(layout="kvasir", size=SIZE, val_fraction=0)
    prepare(kvasir, tmp_path / "prepared.h5", whole, 1)
    drop_gaze(kvasir, "frame 0")
    drop_gaze(kvasir, "frame 2")
    table = kvasir / "fixations.csv"
    settings = GazeSettings(min_fixation_ms=100, recording={"max_off_image": 1})

    def message():
        with pytest.raises(BadInput) as error:
            make_pseudomasks(tmp_path / "prepared.h5", tmp_path / "gaze.h5", settings, table)
        return str(error.value)

    with table.open("a") as file:
        file.write("frame 2.jpg,1,9,9,200,900,0\nframe 2.jpg,1,9,9,200,900,300\n")
    text = message()
    assert "none for 2 of 4: frame 0, frame 2 (dropped: 2 off the image)\n" in text
    assert "to mend:  check unit, origin and screen of gaze.recording; or record them" in text
    with table.open("a") as file:
        file.write("frame 2.jpg,1,0.5,0.5,20,900,600\n")
    text = message()
    assert "frame 2 (dropped: 2 off the image, 1 too short)\n" in text
    assert "screen of gaze.recording, and gaze.min_fixation_ms; or record them" in text


# Maps from other software


@pytest.fixture
def maps(kvasir):
    """One map per training frame: a ramp from 0 at the left to 1 at the right."""
    folder = kvasir / "maps"
    folder.mkdir()
    for i in range(4):
        ramp = np.tile(np.linspace(0, 255, 80 + 2 * i), (60 + 4 * i, 1)).round().astype(np.uint8)
        Image.fromarray(ramp).save(folder / f"frame {i}.png")
    return folder


def test_refined_maps_are_only_cut(prepared, maps, tmp_path):
    refined = GazeSettings(recording={"format": "refined"})
    make_pseudomasks(prepared, tmp_path / "gaze.h5", refined, maps)
    with h5py.File(tmp_path / "gaze.h5") as file:
        assert file["has_gaze"][()].tolist() == [True] * 4 + [False] * 2
        assert file["fixation_count"][()].tolist() == [0] * 6
        assert np.isnan(file["dwell_ms"][()]).all()
        assert not file["heatmap"][()].any()
        # Bilinear between pixel centres of 80 and 48 columns keeps the ramp.
        column = np.interp((np.arange(48) + 0.5) * 80 / 48 - 0.5, np.arange(80), np.arange(80) / 79)
        assert file["refined"][0, 16] == pytest.approx(column, abs=0.01)
        assert np.array_equal(file["pseudomask"][0], cut_levels(file["refined"][0], (0.5, 0.3)))


def test_heatmaps_are_refined_and_cut(prepared, maps, tmp_path):
    heatmaps = GazeSettings(recording={"format": "heatmaps"})
    make_pseudomasks(prepared, tmp_path / "gaze.h5", heatmaps, maps)
    with h5py.File(tmp_path / "gaze.h5") as file:
        assert file["heatmap"][0].max() == pytest.approx(0.995, abs=0.001)
        changed = abs(file["refined"][0].astype(float) - file["heatmap"][0]).mean()
        assert changed > 0.01
        assert file["has_gaze"][()].tolist() == [True] * 4 + [False] * 2


# Simulation


def simulate(prepared, output, **changes):
    make_pseudomasks(prepared, output, GazeSettings(**{"simulate": ScanSettings()} | changes))
    return output


def values(path):
    with h5py.File(path) as file:
        return {name: file[name][()] for name in file}


def scans(path):
    """Return sample id → fixations."""
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
        np.testing.assert_array_equal(after[name], expected, name)


def test_simulation_needs_masks_of_training_images(kvasir, tmp_path):
    (kvasir / "masks/frame 1.jpg").unlink()
    whole = PrepareSettings(layout="kvasir", size=SIZE, val_fraction=0)
    prepare(kvasir, tmp_path / "prepared.h5", whole, 1)
    with pytest.raises(BadInput, match=r"none for 1 of 4: frame 1\n.*\n.*draw them"):
        simulate(tmp_path / "prepared.h5", tmp_path / "gaze.h5")
    path = simulate(tmp_path / "prepared.h5", tmp_path / "gaze.h5", partial=True)
    assert [bool(scan) for scan in scans(path).values()] == [True, False, True, True, False, False]
    for i in (0, 2, 3):
        (kvasir / f"masks/frame {i}.jpg").unlink()
    prepare(kvasir, tmp_path / "prepared.h5", whole, 1)
    with pytest.raises(BadInput, match=r"none for 4 of 4: .*\n.*\n.*draw masks") as error:
        simulate(tmp_path / "prepared.h5", tmp_path / "gaze.h5")
    assert "use recorded gaze: set `fixations` and remove gaze.simulate" in str(error.value)
    assert "gaze.partial" not in str(error.value)


def test_same_seed_gives_same_bytes_and_another_seed_other_gaze(prepared, tmp_path):
    first = simulate(prepared, tmp_path / "a.h5", seed=1)
    second = simulate(prepared, tmp_path / "b.h5", seed=1)
    assert first.read_bytes() == second.read_bytes()
    assert scans(first) != scans(simulate(prepared, tmp_path / "c.h5", seed=2))


def test_simulated_gaze_does_not_depend_on_other_images(kvasir, tmp_path):
    whole = PrepareSettings(layout="kvasir", size=SIZE, val_fraction=0)
    prepare(kvasir, tmp_path / "all.h5", whole, 1)
    (kvasir / "train.txt").write_text("frame 3\nframe 1\n")
    prepare(kvasir, tmp_path / "some.h5", whole, 1)
    of_all = scans(simulate(tmp_path / "all.h5", tmp_path / "a.h5"))
    of_some = scans(simulate(tmp_path / "some.h5", tmp_path / "b.h5"))
    assert of_some["frame 1"] == of_all["frame 1"] != of_all["frame 3"] == of_some["frame 3"]


def test_simulated_fixations_have_the_minimum_duration(prepared, tmp_path):
    found = values(simulate(prepared, tmp_path / "gaze.h5", min_fixation_ms=300))
    assert len(found["fixation"]) > 0
    assert found["fixation"][:, 2].min() >= 300


def test_simulation_works_on_float_images_of_one_channel(nci_isbi, tmp_path):
    prepare(nci_isbi, tmp_path / "prepared.h5", PrepareSettings(layout="nci_isbi", size=SIZE), 1)
    found = values(simulate(tmp_path / "prepared.h5", tmp_path / "gaze.h5"))
    looked = found["fixation_count"] > 0
    assert looked.sum() == 2
    assert (found["pseudomask"][looked].sum(axis=(2, 3)) > 0).all()
