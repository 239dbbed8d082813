"""The whole DAG of the demo, run on tiny data: its files, and what reruns after a change."""

import json
import re
import time

import h5py
import numpy as np
import pandas as pd
import pytest
from safetensors import safe_open

from stages.core import io
from tests.workspace import DEMO_DATASETS, ROOT, Workspace, tiny_config

EXPERIMENTS = ("full", "gaze_only", "supervised")
# Images of the demo: 12 of train.txt, half of them moved to validation, and 6 of test.txt.
N, SIZE = 18, 32
PROVENANCE = {"schema_version", "stage", "inputs", "params", "versions"}


@pytest.fixture(scope="module")
def demo(tmp_path_factory):
    workspace = Workspace(tmp_path_factory.mktemp("demo"), tiny_config())
    workspace.must_run("demo")
    return workspace


def test_the_summary_has_a_row_for_each_data_set_experiment_model_and_split(demo):
    table = pd.read_csv(demo.folder / "results/summary.csv")
    found = set(table[["dataset", "experiment", "model", "split"]].itertuples(index=False))
    assert {tuple(row) for row in found} == {
        (dataset, experiment, model, split)
        for dataset in DEMO_DATASETS
        for experiment in EXPERIMENTS
        for model in (("student", "teacher", "ensemble") if experiment == "full" else ("student",))
        for split in ("val", "test")
    }
    assert (table["n"] == 6).all()
    assert table["dice_mean"].between(0, 1).all()
    # Nobody looked at a phantom.
    assert set(table.loc[table["experiment"] == "full", "gaze"]) == {"simulated"}


def test_the_report_is_one_page_without_external_files(demo):
    page = (demo.folder / "results/report.html").read_text()
    assert not re.search(r"""(src|href)=(?!"(data:|#))""", page)
    for name in DEMO_DATASETS:
        assert demo.config["datasets"][name]["title"] in page


@pytest.mark.parametrize("dataset", DEMO_DATASETS)
def test_the_content_of_the_hdf5_files(demo, dataset):
    image_shape = (N, SIZE, SIZE, 1) if dataset == "demo_prostate" else (N, SIZE, SIZE, 3)
    image_dtype = np.float32 if dataset == "demo_prostate" else np.uint8
    contracts = {
        "prepared.h5": {
            "image": (image_shape, image_dtype), "mask": ((N, SIZE, SIZE), np.uint8),
            "has_mask": ((N,), bool),
            "original_size": ((N, 2), np.int32), "spacing_mm": ((N, 2), np.float32),
            "sample_id": ((N,), str), "subject_id": ((N,), str), "split": ((N,), str),
        },
        "gaze.h5": {
            "heatmap": ((N, SIZE, SIZE), np.float16), "refined": ((N, SIZE, SIZE), np.float16),
            "pseudomask": ((N, 2, SIZE, SIZE), np.uint8), "threshold": ((2,), np.float32),
            "fixation_count": ((N,), np.int32), "dwell_ms": ((N,), np.float32),
            "has_gaze": ((N,), bool), "sample_id": ((N,), str),
        },
        "explanations.h5": {
            "text": ((N, 6), str), "attributes": ((N,), str),
            "embedding": ((N, 6, 384), np.float32), "sample_id": ((N,), str),
            "failed": ((N,), bool), "area_agrees": ((N,), np.int8),
            "false_if_moved": ((N, 6), bool), "false_if_turned": ((N, 6), bool),
        },
        "full/seed0/predictions.h5": {
            "probability": ((12, SIZE, SIZE), np.float16), "sample_id": ((12,), str),
            "split": ((12,), str),
        },
    }  # fmt: skip
    folder = demo.folder / "results" / dataset
    for name, contract in contracts.items():
        with h5py.File(folder / name) as file:
            assert set(file.attrs) >= PROVENANCE
            assert isinstance(json.loads(file.attrs["params"]), dict)
            for digest in json.loads(file.attrs["inputs"]).values():
                assert re.fullmatch(r"[0-9a-f]{64}", digest)
            for key, (shape, dtype) in contract.items():
                found = file[key]
                assert found.shape == shape, (name, key)
                if dtype is str:
                    assert h5py.check_string_dtype(found.dtype).encoding == "utf-8"
                else:
                    assert found.dtype == dtype, (name, key)
                if len(shape) > 2:
                    assert found.chunks == (1, *shape[1:])

            def no_object(path, item):
                if isinstance(item, h5py.Dataset):
                    # An object in HDF5 is text of variable length, or pickled data.
                    assert item.dtype.kind not in "OV" or h5py.check_string_dtype(item.dtype), path

            file.visititems(no_object)
    with h5py.File(folder / "prepared.h5") as first, h5py.File(folder / "gaze.h5") as second:
        io.check_same_samples(first, second)
        assert set(first["original_mask"]) == set(io.read_strings(first, "sample_id"))
        pseudomask = second["pseudomask"][()]
        assert (pseudomask[:, 0] <= pseudomask[:, 1]).all()
        spacing = first["spacing_mm"][()]
        assert (spacing == np.float32(0.6)).all() if dataset == "demo_prostate" else (
            np.isnan(spacing).all()
        )  # fmt: skip


def test_the_page_about_files_names_what_is_in_them_and_no_more(demo):
    page = (ROOT / "docs/files.md").read_text("utf-8")
    start, tables = page.index("## Inside the HDF5 files"), page.index("## Tables")
    rows = re.findall(r"^\| (.*?) \|", page[start:tables], re.MULTILINE)
    named = {name for row in rows for name in re.findall(r"`([\w.]+?)(?:/<sample_id>)?`", row)}
    folder = demo.folder / "results/demo_kvasir"
    found = set()
    for path in folder.rglob("*.h5"):
        with h5py.File(path) as file:
            found |= set(file)
    # Of three attention maps the page names the first and the last; these phantoms have no vote.
    assert found - {"attention_2", "attention_3"} == {
        name for name in named if not name.endswith(".h5")
    } - {"aligned"}
    columns = set(re.findall(r"`([\w.]+)`", page[tables:]))
    for path in [*folder.rglob("*.csv"), demo.folder / "results/summary.csv"]:
        names = {re.sub(r"^(area|dice)_[\d.]+$", "", name) for name in pd.read_csv(path)}
        assert {re.sub(r"_(mean|std)$", "", name) for name in names} - {""} <= columns, path


def test_a_weights_file_describes_its_network(demo):
    for role in ("teacher", "student"):
        with safe_open(demo.folder / f"results/demo_isic/full/seed0/{role}.safetensors", "np") as f:
            about = json.loads(f.metadata()["about"])
        assert set(about) == PROVENANCE | {"architecture"}
        assert about["architecture"]["role"] == role


def test_histories_have_a_row_per_logged_step(demo):
    run = demo.folder / "results/demo_kvasir/full/seed0"
    for role, terms in (("teacher", {"loss"}), ("student", {"loss", "gaze", "afc", "cwc"})):
        history = pd.read_csv(run / f"{role}_history.csv")
        assert history["iteration"].tolist() == [2, 4]
        assert set(history) >= terms | {"learning_rate", "seconds", "val_dice"}
        assert history["val_dice"].notna().all()


def test_provenance_describes_every_result(demo):
    records = json.loads((demo.folder / "results/provenance.json").read_text())
    folder = demo.folder / "results"
    made_files = {
        f"results/{path.relative_to(folder)}"
        for extension in ("h5", "csv", "jsonl", "safetensors")
        for path in folder.rglob(f"*.{extension}")
        if path.name != "verified.csv" and "work" not in path.parts
    }
    assert set(records) == made_files
    for name, entry in records.items():
        assert entry["sha256"] == io.sha256(demo.folder / name)
        # A workspace has no repository, and Snakemake may miss the memory of a short job.
        unmeasured = {"peak_mb"} if entry["seconds"] < 2 and entry["peak_mb"] is None else set()
        missing = {key for key, value in entry.items() if value is None}
        assert missing == {"commit", "taken_from"} | unmeasured, name
        assert entry["device"] == "cpu" and re.fullmatch(r"[0-9a-f]{16}", entry["code"])
        stage = "explain" if entry["job"].startswith("explain_") else entry["job"]
        assert entry["stage"] == stage.removesuffix("_together")
    with h5py.File(demo.folder / "results/demo_isic/gaze.h5") as file:
        params = json.loads(file.attrs["params"])
    assert records["results/demo_isic/gaze.h5"]["params"] == params
    page = (folder / "report.html").read_text()
    assert records["results/demo_isic/full/seed0/student.safetensors"]["code"] in page


def test_a_second_run_quickly_finds_nothing_to_do(demo):
    start_time = time.monotonic()
    assert "Nothing to be done" in demo.must_run("demo")
    assert time.monotonic() - start_time < 10


REPORT = {"provenance_together", "report_together", "demo"}
SUMMARY = REPORT | {"summarise_together"}
STUDENT = SUMMARY | {"student", "predict", "evaluate"}
PSEUDOLABELS = STUDENT | {"pseudolabels"}
TEACHER = PSEUDOLABELS | {"teacher"}


@pytest.mark.parametrize(
    ("path", "value", "rules"),
    [
        ("student.learning_rate", 0.5, STUDENT),
        ("student.target_crf", {"sxy": 9}, PSEUDOLABELS),
        ("teacher.learning_rate", 0.5, TEACHER),
        ("embed.batch_size", 3, TEACHER | {"embed"}),
        ("explain.seed", 3, set()),  # only for a language model; here the backend is `measured`
        ("explain.max_failed", 0.5, TEACHER | {"texts", "embed"}),
        ("predict.attention", False, SUMMARY | {"predict", "evaluate"}),
        ("gaze.sigma", 60, TEACHER | {"pseudomasks", "quality", "explain", "texts", "embed"}),
        ("quality.min_fixations", 9, REPORT | {"quality"}),
        ("title", "Another name", {"report_together", "demo"}),
        ("threads", 2, set()),
    ],
)
def test_a_setting_reruns_exactly_what_it_changes(demo, path, value, rules):
    part = demo.config["datasets"]["demo_isic"]
    *parents, key = path.split(".")
    for name in parents:
        part = part.setdefault(name, {})
    before = part.get(key)
    try:
        part[key] = value
        demo.save_config()
        assert demo.planned_rules("demo") == rules
    finally:
        part.pop(key)
        if before is not None:
            part[key] = before
        demo.save_config()


@pytest.mark.parametrize(
    ("module", "edit", "rules"),
    [
        ("training/losses", "\nEXTRA = 1\n", TEACHER),
        ("training/masking", "\nEXTRA = 1\n", STUDENT),
        ("training/methods/distilled", "\nEXTRA = 1\n", STUDENT),
        ("training/pseudolabels", "\nEXTRA = 1\n", PSEUDOLABELS),
        ("core/metrics", "\nEXTRA = 1\n", SUMMARY | {"quality", "evaluate"}),
        ("training/losses", "\n# A comment is no change.\n", set()),
    ],
)
def test_an_edit_of_code_reruns_the_stages_that_import_it(demo, module, edit, rules):
    file = demo.folder / f"stages/{module}.py"
    before = file.read_text()
    try:
        file.write_text(before + edit)
        assert demo.planned_rules("demo") == rules
    finally:
        file.write_text(before)


def test_another_clone_makes_the_same_bytes(demo, tmp_path):
    twin = Workspace(tmp_path, tiny_config())
    twin.must_run("demo_kvasir")
    run = "results/demo_kvasir/full/seed0"
    for name in (
        "results/demo_kvasir/prepared.h5", "results/demo_kvasir/gaze.h5",
        "results/demo_kvasir/explanations.h5", f"{run}/teacher.safetensors",
        f"{run}/pseudolabels.h5", f"{run}/student.safetensors", f"{run}/predictions.h5",
        f"{run}/metrics.csv",
        "results/demo_kvasir/gaze_only/seed0/student.safetensors",
        "results/demo_kvasir/supervised/seed0/metrics.csv",
    ):  # fmt: skip
        assert (twin.folder / name).read_bytes() == (demo.folder / name).read_bytes(), name
