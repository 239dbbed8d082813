"""Which files each rule reads, worked out from the configuration alone."""

import json
import re

import pytest

from rules import data, evaluation, gaze, report, text, training
from rules.paths import (
    MissingInput,
    PlanError,
    Training,
    dataset_files,
    require_path,
    training_files,
)
from stages.core.config import parse
from tests.workspace import shipped_config

RUN = "results/demo_isic/{}/seed0"


def config(**over):
    """The shipped configuration, with settings of the data set demo_isic."""
    raw = shipped_config()
    raw["datasets"]["demo_isic"] |= over
    return parse(raw)


def test_paths_of_results():
    trainings = [Training("a", "full", 0), Training("b", "gaze_only", 12)]
    assert dataset_files("gaze.h5", ["a", "b"]) == ["results/a/gaze.h5", "results/b/gaze.h5"]
    assert training_files("metrics.csv", trainings) == [
        "results/a/full/seed0/metrics.csv", "results/b/gaze_only/seed12/metrics.csv",
    ]  # fmt: skip


def test_a_path_that_is_missing_names_its_setting(tmp_path):
    (tmp_path / "texts.csv").touch()
    assert require_path("explain.source", str(tmp_path / "texts.csv"))
    with pytest.raises(MissingInput, match=r"^explain\.source: \S+none\.csv does not exist: put"):
        require_path("explain.source", str(tmp_path / "none.csv"))


def test_raw_data_are_the_entries_of_the_layout(tmp_path):
    raw = shipped_config()
    raw["datasets"]["kvasir"] |= {"root": str(tmp_path), "fixations": str(tmp_path / "gaze.csv")}
    with pytest.raises(MissingInput, match="missing: "):
        data.raw_paths(parse(raw), "kvasir")
    for folder in ("images", "masks"):
        (tmp_path / folder).mkdir()
    for file in ("train.txt", "test.txt", "gaze.csv"):
        (tmp_path / file).touch()
    names = ["images", "masks", "train.txt", "test.txt"]
    assert data.raw_paths(parse(raw), "kvasir") == [str(tmp_path / name) for name in names]
    # The two folders.
    before = data.raw_contents(parse(raw), "kvasir")
    assert len(before) == 2
    assert gaze.recording_paths(parse(raw), "kvasir") == [str(tmp_path / "gaze.csv")]
    assert gaze.recording_contents(parse(raw), "kvasir") == []


def test_phantoms_and_fetched_scans_are_made_by_a_rule():
    assert data.raw_paths(config(), "demo_isic") == ["data/demo/isic"]
    assert data.raw_contents(config(), "demo_isic") == []
    assert data.raw_paths(config(), "lesions") == data.SCAN_FILES
    # A phantom's gaze lies in its folder; a simulated one nowhere.
    assert gaze.recording_paths(config(), "demo_kvasir") == ["data/demo/kvasir"]
    assert gaze.recording_paths(config(), "demo_isic") == []


def test_a_folder_of_maps_is_known_by_its_content(tmp_path):
    raw = shipped_config()
    raw["datasets"]["kvasir"] |= {"fixations": str(tmp_path)}
    raw["datasets"]["kvasir"]["gaze"] = {"recording": {"format": "heatmaps"}}
    (contents,) = gaze.recording_contents(parse(raw), "kvasir")
    assert contents


def test_verify_knows_which_experiments_learn_from_masks():
    settings = json.loads(gaze.verify_settings(config(), "demo_isic"))
    assert settings["supervised"] == ["supervised"]
    assert settings["min_fixation_ms"] == 0  # simulated
    settings = json.loads(gaze.verify_settings(config(), "demo_kvasir"))
    assert settings["min_fixation_ms"] == 50


def test_code_of_a_choice_that_is_not_made_does_not_count():
    codes = {
        name: (gaze.verify_code(config(), name), gaze.pseudomasks_code(config(), name))
        for name in ("demo_kvasir", "demo_isic", "kvasir", "isic")
    }
    assert codes["demo_kvasir"] == codes["kvasir"]
    assert codes["demo_isic"] == codes["isic"]
    assert codes["kvasir"][1] != codes["isic"][1]
    students = [training.student_code(config(), "demo_isic", name) for name in
                ("full", "no_text", "gaze_only", "supervised", "published")]  # fmt: skip
    assert students[0] == students[1] != students[2] == students[3] != students[4]


def test_the_code_of_raw_gaze_is_its_own_reader():
    raw = {
        "screen": {"size": [1920, 1080]},
        "detection": {"rate_hz": 60, "screen_mm": [531, 299], "distance_mm": 650},
    }
    recordings = [{"format": "gazepoint"}, {"format": "gazepoint"} | raw]
    recordings += [{"format": "samples", "unit": "px"} | raw]
    own, detected, samples = (
        gaze.verify_code(
            config(fixations="gaze.csv", gaze={"recording": recording, "simulate": None}),
            "demo_isic",
        )
        for recording in recordings
    )
    assert own != detected == samples


@pytest.mark.parametrize(
    ("experiment", "inputs"),
    [
        ("full", {"prepared", "gaze", "teacher", "explanations", "pseudolabels"}),
        ("no_text", {"prepared", "gaze", "teacher", "pseudolabels"}),
        ("no_crf", {"prepared", "gaze", "teacher", "explanations"}),
        ("published", {"prepared", "gaze", "explanations"}),
        ("gazemedseg", {"prepared", "gaze"}),
        ("gaze_only", {"prepared", "gaze"}),
        ("supervised", {"prepared"}),
    ],
)
def test_a_student_reads_only_what_it_learns_from(experiment, inputs):
    assert set(training.student_inputs(config(), "demo_isic", experiment, "0")) == inputs
    strict = config(quality={"leave_out": True})
    more = set() if experiment == "supervised" else {"quality"}
    assert set(training.student_inputs(strict, "demo_isic", experiment, "0")) == inputs | more


def test_a_student_reads_the_files_of_its_own_training():
    inputs = training.student_inputs(config(), "demo_isic", "full", "3")
    folder = "results/demo_isic/full/seed3"
    assert inputs["teacher"] == f"{folder}/teacher.safetensors"
    assert inputs["pseudolabels"] == f"{folder}/pseudolabels.h5"
    assert inputs["gaze"] == "results/demo_isic/gaze.h5"


ENCODER = {"encoder": "tf_efficientnet_lite0", "encoder_weights": "imagenet"}
FILE = "results/encoders/tf_efficientnet_lite0-imagenet.safetensors"


def test_a_network_trained_from_scratch_needs_no_encoder():
    assert training.encoders(config()) == {}
    assert "encoder" not in training.student_inputs(config(), "demo_isic", "full", "0")
    assert "encoder" not in training.teacher_network_inputs(config(), "demo_isic", "full")


def test_a_network_on_a_pretrained_encoder_reads_its_file():
    over = config(student=ENCODER)
    assert training.student_inputs(over, "demo_isic", "gaze_only", "0")["encoder"] == FILE
    assert "encoder" not in training.teacher_network_inputs(over, "demo_isic", "full")
    over = config(teacher=ENCODER, student=ENCODER | {"encoder": "resnet34"})
    assert training.teacher_network_inputs(over, "demo_isic", "full")["encoder"] == FILE
    assert set(training.encoders(over)) == {
        "tf_efficientnet_lite0-imagenet", "resnet34-imagenet",
    }  # fmt: skip
    assert training.training_encoders(over, "demo_isic", "full") == [
        "tf_efficientnet_lite0-imagenet", "resnet34-imagenet",
    ]  # fmt: skip
    assert training.training_encoders(over, "demo_isic", "supervised") == ["resnet34-imagenet"]
    # It is before the trainings in the list, and once.
    chosen = [Training("demo_isic", "full", 0), Training("demo_isic", "gaze_only", 0)]
    jobs = rules_of(report.jobs_behind(over, chosen, shown=False))
    assert jobs.count("encoder") == 2 and jobs.index("encoder") < jobs.index("teacher")


def test_pseudomasks_on_which_features_vote_read_their_encoder():
    assert gaze.feature_inputs(config(), "demo_isic") == {}
    plain = gaze.pseudomasks_code(config(), "demo_isic")
    over = config(gaze={"simulate": {}, "features": {}})
    assert gaze.feature_inputs(over, "demo_isic") == {"encoder": FILE}
    assert set(training.encoders(over)) == {"tf_efficientnet_lite0-imagenet"}
    assert gaze.pseudomasks_code(over, "demo_isic") != plain
    jobs = rules_of(report.jobs_behind(over, [Training("demo_isic", "full", 0)], shown=False))
    assert "encoder" in jobs


def test_the_maps_of_the_gaze_reach_the_pseudolabels_in_which_they_join():
    plain = training.pseudolabels_inputs(config(), "demo_isic", "full", "0")
    joined = training.pseudolabels_inputs(
        config(student={"target_gaze": 0.5, "target_crf": None}), "demo_isic", "full", "0"
    )
    assert joined == plain | {"gaze": "results/demo_isic/gaze.h5"}
    assert {"teacher", "explanations"} == set(plain)


def test_weights_of_the_users_own_are_an_input_and_must_exist(tmp_path):
    path = tmp_path / "own.safetensors"
    over = config(student=ENCODER | {"encoder_weights": str(path)})
    (name,) = training.encoders(over)
    assert re.fullmatch(r"tf_efficientnet_lite0-[0-9a-f]{8}", name)
    with pytest.raises(MissingInput, match=r"encoder_weights: \S+own\.safetensors does not exist"):
        training.encoder_weights_inputs(over, name)
    path.touch()
    assert training.encoder_weights_inputs(over, name) == {"weights": str(path)}
    imagenet = config(student=ENCODER)
    assert training.encoder_weights_inputs(imagenet, "tf_efficientnet_lite0-imagenet") == {}


def test_the_teachers_network_reaches_the_student_that_is_trained_with_it():
    over = config(teacher={"widths": [16] * 6})
    settings = json.loads(training.student_settings(over, "demo_isic", "published"))
    assert settings["teacher_widths"] == [16] * 6
    assert (
        json.loads(training.student_settings(over, "demo_isic", "full"))["teacher_widths"] is None
    )


@pytest.mark.parametrize(
    ("experiment", "attention"), [("full", True), ("no_text", False), ("published", False)]
)
def test_attention_is_of_a_trained_teacher_that_reads_text(experiment, attention):
    settings = evaluation.predict_settings(config(), "demo_isic", experiment)
    assert json.loads(settings)["attention"] == attention


def test_a_summary_rests_on_every_training_and_on_gaze_that_one_learned_from():
    inputs = evaluation.summarise_inputs(config(experiments=["supervised"]), ["demo_isic"])
    assert inputs == {"metrics": [f"{RUN.format('supervised')}/metrics.csv"], "gaze": []}
    inputs = evaluation.summarise_inputs(config(), ["demo_isic", "demo_kvasir"])
    assert len(inputs["metrics"]) == 6
    assert inputs["gaze"] == ["results/demo_isic/gaze.h5", "results/demo_kvasir/gaze.h5"]
    settings = json.loads(evaluation.summarise_settings(config(), ["demo_isic", "demo_kvasir"]))
    named = [f"results/{r['dataset']}/{r['experiment']}/seed{r['seed']}" for r in settings["runs"]]
    assert [f"{name}/metrics.csv" for name in named] == inputs["metrics"]
    assert settings["gaze"] == ["demo_isic", "demo_kvasir"]


def test_seconds_of_a_mask_count_where_masks_are_learned_from():
    settings = evaluation.summarise_settings(config(mask_seconds=20), ["demo_isic"])
    seconds = {run["experiment"]: run["mask_seconds"] for run in json.loads(settings)["runs"]}
    assert seconds == {"full": None, "gaze_only": None, "supervised": 20}


def test_a_table_compares_its_experiments_on_every_seed():
    raw = shipped_config()
    raw["seeds"] = [0, 1]
    raw["tables"] = {"small": {"reference": "full", "experiments": ["no_text"], "seed": 5}}
    inputs = evaluation.compare_inputs(parse(raw), "small", ["demo_isic"])
    assert inputs["metrics"] == [
        f"results/demo_isic/{experiment}/seed{seed}/metrics.csv"
        for experiment in ("full", "no_text")
        for seed in (0, 1)
    ]
    settings = json.loads(evaluation.compare_settings(parse(raw), "small", ["demo_isic"]))
    assert (settings["reference"], settings["seed"]) == ("full", 5)


def test_a_report_shows_pictures_of_the_first_seed_and_curves_of_all():
    raw = shipped_config()
    raw["seeds"] = [4, 5]
    inputs = report.report_inputs(parse(raw), ["demo_isic"])
    assert {file.split("/")[3] for file in inputs["predictions"]} == {"seed4"}
    assert {file.split("/")[3] for file in inputs["histories"]} == {"seed4", "seed5"}
    # Three students and one teacher, of two seeds.
    assert len(inputs["histories"]) == 8
    settings = json.loads(report.report_settings(parse(raw), ["demo_isic"]))
    assert len(settings["histories"]) == 8 and len(settings["trainings"]) == 3


def rules_of(jobs):
    return [job.rule for job in jobs]


def test_the_jobs_behind_a_training_are_those_that_it_needs():
    chosen = [Training("demo_isic", "supervised", 0)]
    jobs = report.jobs_behind(config(), chosen, shown=False)
    assert rules_of(jobs) == ["prepare", "student", "predict", "evaluate"]
    jobs = report.jobs_behind(config(), chosen, shown=True)
    assert rules_of(jobs) == ["prepare", "pseudomasks", "quality", "explain", "texts", "embed",
                              "student", "predict", "evaluate"]  # fmt: skip
    jobs = report.jobs_behind(config(), [Training("demo_isic", "full", 0)], shown=False)
    assert rules_of(jobs) == ["prepare", "pseudomasks", "explain", "texts", "embed", "teacher",
                              "pseudolabels", "student", "predict", "evaluate"]  # fmt: skip


def test_each_shard_of_explanations_is_a_job():
    shards = config(explain={"shards": 2})
    assert text.answer_files(shards, "demo_isic") == [
        "results/demo_isic/texts/0of2.jsonl", "results/demo_isic/texts/1of2.jsonl",
    ]  # fmt: skip
    jobs = report.jobs_behind(shards, [Training("demo_isic", "full", 0)], shown=False)
    explained = [job.wildcards for job in jobs if job.rule == "explain"]
    assert explained == [{"dataset": "demo_isic", "shard": n, "shards": 2} for n in (0, 1)]


def test_a_gpu_for_explanations_only_where_a_model_runs_here():
    assert text.explain_gpus(config(gpus=4), "demo_isic") == 0
    local = {"backend": "transformers", "model": "folder"}
    assert text.explain_gpus(config(gpus=4, explain=local), "demo_isic") == 1
    assert text.explain_gpus(config(gpus=0, explain=local), "demo_isic") == 0


def test_texts_and_vectors_from_elsewhere_must_exist(tmp_path):
    absent = config(explain={"backend": "import", "source": str(tmp_path / "texts.csv")})
    with pytest.raises(MissingInput, match=r"explain\.source"):
        text.explain_inputs(absent, "demo_isic")
    (tmp_path / "texts.csv").touch()
    inputs = text.explain_inputs(absent, "demo_isic")
    assert inputs["source"] == str(tmp_path / "texts.csv") and "prompt" not in inputs
    vectors = config(embed={"encoder": "import", "source": str(tmp_path / "none")})
    with pytest.raises(MissingInput, match=r"embed\.source"):
        text.embed_inputs(vectors, "demo_isic")


def test_a_shipped_prompt_is_found_from_any_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    asked = {"backend": "openai", "url": "http://localhost:1", "model": "m",
             "prompt": "workflow/prompts/polyp.yaml"}  # fmt: skip
    prompt = text.explain_inputs(config(explain=asked), "demo_isic")["prompt"]
    assert prompt == str(text.ROOT / "workflow/prompts/polyp.yaml")


def test_a_training_is_not_cut_down_to_fewer_gpus():
    assert training.training_gpus(config(gpus=4), "demo_isic", limit=None) == 4
    assert training.training_gpus(config(gpus=4), "demo_isic", limit=4) == 4
    assert training.training_gpus(config(gpus=1), "demo_isic", limit=0) == 1
    with pytest.raises(PlanError, match="gpus: 4, and this run has 2"):
        training.training_gpus(config(gpus=4), "demo_isic", limit=2)


def test_several_gpus_are_several_processes():
    assert training.launch_command(0) == training.launch_command(1) == "exec python -m"
    assert "--nproc-per-node 4" in training.launch_command(4)
