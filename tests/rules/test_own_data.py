"""The rules read a user's own files in a published layout."""

import re
import shutil

import h5py
import numpy as np
import pandas as pd
import pytest
from conftest import disc

from stages.core import io
from tests.workspace import Workspace, own_data_settings, tiny_config

GAZE = "results/mine/gaze.h5"


@pytest.fixture
def workspace(tmp_path, kvasir):
    config = tiny_config()
    # A shell would split this folder name; the ids also contain a space.
    shutil.move(kvasir, tmp_path / "clone/data/my polyps")
    config["datasets"]["mine"] = own_data_settings(config, "data/my polyps")
    return Workspace(tmp_path / "clone", config)


def test_a_changed_raw_file_reruns_what_reads_it(workspace):
    workspace.must_run(GAZE)
    with h5py.File(workspace.folder / GAZE) as file:
        assert file.attrs["gaze_origin"] == "recorded"
        assert file["fixation_count"][()].tolist() == [3, 3, 3, 3, 0, 0]
    assert "Nothing to be done" in workspace.must_run(GAZE)

    root = workspace.folder / "data/my polyps"
    table = (root / "fixations.csv").read_text()
    (root / "fixations.csv").write_text(table)
    assert workspace.planned_rules(GAZE) == set()  # touched, not changed
    (root / "fixations.csv").write_text(table.replace(",200,", ",210,"))
    assert workspace.planned_rules(GAZE) == {"pseudomasks"}

    (root / "train.txt").write_text("frame 1\nframe 0\nframe 2\n")
    assert workspace.planned_rules(GAZE) == {"prepare", "pseudomasks"}
    workspace.must_run(GAZE)
    with h5py.File(workspace.folder / GAZE) as file:
        assert io.read_strings(file, "sample_id").tolist() == [
            "frame 1", "frame 0", "frame 2", "frame 4", "frame 5",
        ]  # fmt: skip


def test_data_without_masks_are_trained_and_predicted(workspace):
    shutil.rmtree(workspace.folder / "data/my polyps/masks")
    workspace.config["datasets"]["mine"]["experiments"] = ["full", "gaze_only"]
    workspace.config["datasets"]["mine"]["prepare"]["layout"] = "folder"
    workspace.save_config()
    workspace.must_run("mine")
    summary = (workspace.folder / "results/mine/summary.csv").read_text().splitlines()
    header = summary[0].split(",")
    rows = [dict(zip(header, line.split(","), strict=True)) for line in summary[1:]]
    assert {row["experiment"] for row in rows} == {"full", "gaze_only"}
    assert {(row["n"], row["dice_mean"]) for row in rows} == {("0", "")}
    with h5py.File(workspace.folder / "results/mine/full/seed0/predictions.h5") as file:
        assert file["probability"].shape == (3, 32, 48)
    metrics = workspace.folder / "results/mine/full/seed0/metrics.csv"
    assert metrics.read_text().count("no mask") == 9
    log = (metrics.parent / "logs/evaluate.log").read_text()
    assert "no sample has a mask: nothing to evaluate against" in log
    quality = (workspace.folder / "results/mine/gaze_quality.csv").read_text()
    assert "dice_0.5" in quality.splitlines()[0]
    report = (workspace.folder / "results/mine/report.html").read_text()
    assert "no masks" in report.lower()


def test_flagged_samples_are_excluded_only_with_leave_out(workspace):
    mine = workspace.config["datasets"]["mine"]
    mine["experiments"] = ["gaze_only"]
    table = workspace.folder / "data/my polyps/fixations.csv"
    lines = table.read_text().splitlines()
    table.write_text(
        "\n".join(line for line in lines if not line.startswith("frame 0.jpg,3")) + "\n"
    )
    student = "results/mine/gaze_only/seed0/student.safetensors"
    workspace.must_run(student, "results/mine/gaze_quality.csv")
    quality = (workspace.folder / "results/mine/gaze_quality.csv").read_text()
    assert "fewer than 3 fixations (2)" in quality and "True" not in quality

    # Another limit reruns only the quality check.
    mine["quality"] = {"min_dwell_ms": 460}
    workspace.save_config()
    assert workspace.planned_rules(student, "results/mine/gaze_quality.csv") == {"quality"}
    mine["quality"]["leave_out"] = True
    workspace.save_config()
    assert workspace.planned_rules(student) == {"quality", "student"}
    workspace.must_run(student)
    assert (
        "fewer than 3 fixations (2); dwell below 460"
        in (workspace.folder / "results/mine/gaze_quality.csv").read_text()
    )


def test_supervised_training_without_masks_is_an_error(workspace):
    shutil.rmtree(workspace.folder / "data/my polyps/masks")
    (workspace.folder / "data/my polyps/masks").mkdir()
    status, printed = workspace.run("results/mine/supervised/seed0/student.safetensors")
    assert status != 0
    assert "no sample with a mask" in printed and "add masks, or leave" in printed
    assert not list((workspace.folder / "results/mine/supervised").rglob("*.safetensors"))


def test_volumes_of_nnunet_train_a_student_with_simulated_gaze(tmp_path, nnunet):
    """The volumes have two channels, two labels, and a header in micron."""
    config = tiny_config()
    shutil.move(nnunet, tmp_path / "clone/data" / nnunet.name)
    prepare = {
        "layout": "nnunet", "size": [32, 48], "val_fraction": 0.25, "channel": "ADC",
        "foreground": ["whole"],
    }  # fmt: skip
    config["datasets"]["mine"] = own_data_settings(
        config, f"data/{nnunet.name}", fixations=None, prepare=prepare, gaze={"simulate": {}},
        experiments=["full"],
    )  # fmt: skip
    workspace = Workspace(tmp_path / "clone", config)
    results = workspace.folder / "results/mine"
    workspace.must_run("results/mine/full/seed0/metrics.csv")
    with h5py.File(results / "prepared.h5") as file:
        assert len(file["sample_id"]) == 18
        assert np.allclose(file["spacing_mm"][()], (0.5, 0.75))
        assert file["has_mask"][()].all()
        # All discs of the labels 1 and 2 together, of the radii 10, 11 and 12 (`nnunet_zones`).
        areas = {mask[()].sum() for mask in file["original_mask"].values()}
        assert areas == {disc((48, 64), (24, 30), radius).sum() for radius in (10, 11, 12)}
    assert (results / "full/seed0/student.safetensors").exists()
    rows = pd.read_csv(results / "full/seed0/metrics.csv")
    assert set(rows["unit"]) == {"mm"} and set(rows["split"]) == {"val", "test"}
    assert rows["diagonal"].unique().tolist() == [pytest.approx(53.6656)]  # 24 and 48 mm


def test_own_gaze_for_data_of_the_workflow_is_an_input(tmp_path):
    config = tiny_config()
    phantom = config["datasets"]["demo_kvasir"]
    config["datasets"] = {
        "demo_kvasir": phantom | {"fixations": "data/own.csv"},
        "lesions": own_data_settings(config, "data/lesions", fixations="data/own.csv")
        | {"prepare": {"layout": "lesions", "size": [32, 32]}},
    }
    config["summary"] = []
    workspace = Workspace(tmp_path, config)
    (workspace.folder / "data").mkdir()
    targets = [f"results/{name}/gaze.h5" for name in config["datasets"]]
    status, printed = workspace.run("-n", *targets)
    assert status != 0 and "data/own.csv" in printed
    (workspace.folder / "data/own.csv").write_text("IMAGE\n")
    printed = workspace.must_run("-n", *targets)
    assert len(re.findall(r"rule pseudomasks:\n +input: .*data/own\.csv", printed)) == 2


def test_fetching_scans_keeps_other_files_in_their_folder(tmp_path):
    config = tiny_config()
    config["datasets"]["lesions"] = own_data_settings(
        config, "data/lesions", fixations="data/lesions/gaze.csv"
    ) | {"prepare": {"layout": "lesions", "size": [32, 32]}}
    workspace = Workspace(tmp_path, config)
    folder = workspace.folder / "data/lesions"
    folder.mkdir(parents=True)
    (folder / "gaze.csv").write_text("IMAGE\n")
    # No server listens at this address.
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PIP_INDEX_URL", "http://127.0.0.1:9/simple")
        status, printed = workspace.run("results/lesions/prepared.h5")
    assert status != 0 and "pyradiomics" in printed
    assert (folder / "gaze.csv").exists()


def test_another_data_set_may_use_the_same_phantom(tmp_path):
    config = tiny_config()
    phantom = config["datasets"]["demo_kvasir"]
    variant = {key: value for key, value in phantom.items() if key != "demo"}
    variant["prepare"] = phantom["prepare"] | {"size": [48, 48]}
    config["datasets"]["variant"] = variant
    workspace = Workspace(tmp_path, config)
    workspace.must_run("data/demo/kvasir")
    assert workspace.planned_rules("results/variant/prepared.h5") == {"prepare"}
