import copy
import json
import re
from datetime import date
from pathlib import Path

import jsonschema
import pytest
import yaml
from pydantic import BaseModel, ValidationError

from stages.core import config
from stages.core.config import ConfigError, parse
from stages.settings.training import AugmentSettings, OptimisationSettings, StudentSettings

ROOT = Path(__file__).parents[3]
SCHEMA = ROOT / "workflow/schemas/config.schema.json"

SMALL = {
    "experiments": {"full": {}, "supervised": {"student": {"method": "single", "labels": "mask"}}},
    "datasets": {
        "kvasir": {
            "title": "Kvasir",
            "root": "data/kvasir",
            "fixations": "data/kvasir/fixations.csv",
            "prepare": {"layout": "kvasir"},
            "experiments": ["full", "supervised"],
        }
    },
}


def changed(*changes):
    """Return SMALL with new values at dotted paths."""
    raw = copy.deepcopy(SMALL)
    for path, value in changes:
        *parents, key = path.split(".")
        mapping = raw
        for parent in parents:
            mapping = mapping.setdefault(parent, {})
        mapping[key] = value
    return raw


def faults(*changes):
    """Return the lines of the error message, one per fault, without the first line."""
    with pytest.raises(ConfigError) as caught:
        parse(changed(*changes))
    head, *lines = str(caught.value).splitlines()
    assert head == "config.yaml cannot be used:"
    return [line.strip() for line in lines]


@pytest.mark.parametrize(
    ("path", "value", "near"),
    [
        ("sedes", [0], "seeds"),
        ("defaults.teachers", {}, "teacher"),
        ("defaults.teacher.widht", [8], "widths"),
        ("defaults.gaze.crf.compatt", 1, "compat"),
        ("datasets.kvasir.tittle", "x", "title"),
        ("datasets.kvasir.prepare.sizes", [64, 64], "size"),
        ("datasets.kvasir.teacher.iteration", 5, "iterations"),
        ("datasets.kvasir.gaze.thresolds", [0.5, 0.3], "thresholds"),
        ("datasets.kvasir.gaze.crf.srbg", 13, "srgb"),
        ("datasets.kvasir.gaze.simulate.jiter", 0.1, "jitter"),
        ("datasets.kvasir.demo.seeed", 1, "seed"),
        ("datasets.kvasir.demo.scan.jiter", 1, "jitter"),
        ("experiments.full.students", {}, "student"),
        ("experiments.full.student.metod", "single", "method"),
        ("experiments.full.teacher.text_drop", 0.1, "text_dropout"),
    ],
)
def test_a_typo_in_a_key_names_its_path_and_the_likely_key(path, value, near):
    # Other faults may follow from the missing key.
    (line,) = [line for line in faults((path, value)) if line.startswith(f"{path}: ")]
    assert f"unknown key; did you mean '{near}'? allowed: " in line
    assert near in line.split("allowed: ")[1].split(", ")


def test_a_key_unlike_all_others_gets_no_suggestion():
    (line,) = faults(("datasets.kvasir.gaze.crf.qqq", 1))
    assert (
        line == "datasets.kvasir.gaze.crf.qqq: unknown key; allowed: compat, iterations, srgb, sxy"
    )


def test_allowed_keys_are_right_below_a_data_set_that_has_the_name_of_a_key():
    raw = changed()
    raw["datasets"]["teacher"] = copy.deepcopy(raw["datasets"]["kvasir"]) | {"tittle": "x"}
    with pytest.raises(ConfigError, match=r"datasets\.teacher\.tittle: .*did you mean 'title'"):
        parse(raw)


@pytest.mark.parametrize(
    ("path", "value", "expected"),
    [
        ("seeds", 3, "seeds: found 3; allowed: a list, as in [1, 2] or [full, gaze_only]"),
        ("seeds", [], "seeds: found []; allowed: at least 1 entries"),
        ("seeds", ["a"], 'seeds[0]: found "a"; allowed: a whole number'),
        ("seeds", [0, -1], "seeds[1]: found -1; allowed: a number of at least 0"),
        ("seeds", [0.5], "seeds[0]: found 0.5; allowed: a whole number"),
        ("summary", "kvasir", 'summary: found "kvasir"; allowed: a list, as in [1, 2] or [full, '
            "gaze_only]"),
        ("datasets", {}, "datasets: found {}; allowed: at least 1 entries"),
        ("datasets", None, "datasets: found null; allowed: keys with values"),
        ("datasets.kvasir", [1], "datasets.kvasir: found [1]; allowed: keys with values, or {} "
            "to set nothing"),
        ("experiments.full", None, "experiments.full: found null; allowed: keys with values, or {} "
            "to set nothing"),
        ("experiments.full.student", 3, "experiments.full.student: found 3; allowed: keys with "
            "values, or {} to set nothing"),
        ("datasets.kvasir.title", 3, "datasets.kvasir.title: found 3; allowed: text; put a "
            "number, a date, true or false in quotes"),
        ("datasets.kvasir.title", date(2024, 1, 1), "datasets.kvasir.title: found 2024-01-01; "
            "allowed: text; put a number, a date, true or false in quotes"),
        ("datasets.kvasir.experiments", [], "datasets.kvasir.experiments: found []; allowed: at "
            "least 1 entries"),
        ("datasets.kvasir.prepare.size", [224], "datasets.kvasir.prepare.size: found [224]; "
            "allowed: 2 entries"),
        ("datasets.kvasir.prepare.size", [224, 224, 3], "datasets.kvasir.prepare.size: found "
            "[224, 224, 3]; allowed: at most 2 entries"),
        ("datasets.kvasir.teacher.head_width", 9, "datasets.kvasir.teacher.head_width: found 9; "
            "allowed: a multiple of 8"),
        ("datasets.kvasir.prepare.size", [16, 224], "datasets.kvasir.prepare.size[0]: found 16; "
            "allowed: a number of at least 32"),
        ("datasets.kvasir.prepare.layout", "kvasr", "datasets.kvasir.prepare.layout: found "
            "\"kvasr\"; allowed: 'kvasir', 'nci_isbi', 'nci_isbi_volumes', 'isic', "
            "'isic_challenge', 'folder', 'nnunet' or 'lesions'"),
        ("datasets.kvasir.prepare.foreground", [1, 0], "datasets.kvasir.prepare.foreground[1]: "
            "found 0; allowed: a label, that is a whole number above 0, or its name in the "
            "dataset.json of the layout nnunet"),
        ("datasets.kvasir.prepare.foreground", ["whole"], "datasets.kvasir.prepare: foreground: "
            "found 'whole'; allowed: numbers, as only the layout nnunet names labels"),
        ("datasets.kvasir.prepare.channel", 1.5, "datasets.kvasir.prepare.channel: found 1.5; "
            "allowed: text; put a number, a date, true or false in quotes"),
        ("datasets.kvasir.prepare", {"size": [64, 64]}, "datasets.kvasir.prepare.layout: missing; "
            "it has no default"),
        ("datasets.kvasir.mask_seconds", 0, "datasets.kvasir.mask_seconds: found 0; allowed: a "
            "number above 0.0"),
        ("datasets.kvasir.gaze", None, "datasets.kvasir.gaze: found null; allowed: keys with "
            "values, or {} to set nothing"),
        ("datasets.kvasir.gaze.crf.sxy", "wide", 'datasets.kvasir.gaze.crf.sxy: found "wide"; '
            "allowed: a number"),
        ("datasets.kvasir.gaze.simulate", 3, "datasets.kvasir.gaze.simulate: found 3; allowed: "
            "keys with values, or {} to set nothing"),
        ("datasets.kvasir.gaze.thresholds", [0.5, 1.5], "datasets.kvasir.gaze.thresholds[1]: found "
            "1.5; allowed: a number below 1.0"),
        ("defaults.student.learning_rate", "fast", 'defaults.student.learning_rate: found "fast"; '
            "allowed: a number"),
        ("defaults.student.cwc_weighted", "maybe", "defaults.student.cwc_weighted: found "
            '"maybe"; allowed: true or false'),
        ("defaults.teacher.widths", [8, 16], "defaults.teacher.widths: found [8, 16]; allowed: 6 "
            "entries"),
        ("defaults.teacher.batch_size", 1, "defaults.teacher.batch_size: found 1; allowed: a "
            "number of at least 2"),
        ("defaults.embed.encoder", "word2vec", 'defaults.embed.encoder: found "word2vec"; allowed: '
            "'minilm', 'transformers', 'open_clip' or 'import'"),
    ],
)  # fmt: skip
def test_a_wrong_value_names_its_path_the_value_and_what_is_allowed(path, value, expected):
    assert faults((path, value)) == [expected]


@pytest.mark.parametrize(
    "path",
    [
        "datasets.kvasir.root",
        "datasets.kvasir.fixations",
        "defaults.explain.source",
        "defaults.explain.prompt",
        "defaults.embed.source",
        "datasets.kvasir.embed.weights",
    ],
)
def test_a_path_with_braces_is_refused(path):
    expected = f"{path}: found 'data/{{x}}/own'; allowed: a path without {{ and }}"
    assert faults((path, "data/{x}/own")) == [expected]


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_nan_and_infinity_are_refused(value):
    (line,) = faults(("defaults.student.learning_rate", value))
    assert line.startswith("defaults.student.learning_rate: found ")


@pytest.mark.parametrize("name", ["Kvasir", "2018", "../x", "a b", "", "x" * 41])
@pytest.mark.parametrize("kind", ["datasets", "experiments"])
def test_names_that_cannot_be_folders_or_targets_are_refused(kind, name):
    raw = changed()
    raw[kind][name] = copy.deepcopy(next(iter(raw[kind].values())))
    with pytest.raises(ConfigError) as caught:
        parse(raw)
    (line,) = caught.value.faults
    assert line.startswith(f"{kind}.{name}: found {json.dumps(name)}; allowed: ")


@pytest.mark.parametrize("key", [2018, True, None])
def test_a_key_that_is_not_text_is_refused(key):
    for path in ((), ("defaults", "teacher"), ("datasets",)):
        raw = changed(("defaults.teacher", {}))
        mapping = raw
        for part in path:
            mapping = mapping[part]
        mapping[key] = {}
        with pytest.raises(ConfigError, match="text"):
            parse(raw)


def test_a_reserved_name_of_a_data_set_is_refused():
    raw = changed()
    raw["datasets"]["all"] = raw["datasets"]["kvasir"]
    with pytest.raises(ConfigError, match=r"datasets\.all: the name is a target of the workflow"):
        parse(raw)


def test_all_faults_are_reported_at_once():
    lines = faults(
        ("seeds", 3),
        ("defaults.teacher.widht", [8]),
        ("datasets.kvasir.prepare.size", [16, 16]),
        ("experiments.full.student.method", "maybe"),
    )
    assert [line.split(": ")[0] for line in lines] == [
        "seeds",
        "defaults.teacher.widht",
        "experiments.full.student.method",
        "datasets.kvasir.prepare.size[0]",
        "datasets.kvasir.prepare.size[1]",
    ]


def test_all_impossible_combinations_are_reported_at_once():
    lines = faults(
        ("summary", ["kvasr"]),
        ("datasets.kvasir.experiments", ["fulll", "supervised"]),
        ("datasets.kvasir.fixations", None),
        ("experiments.supervised.student.method", "distilled"),
    )
    assert lines == [
        "summary: found 'kvasr'; did you mean 'kvasir'? allowed: kvasir",
        "datasets.kvasir.experiments: found 'fulll'; did you mean 'full'? allowed: full, "
        "supervised",
        "datasets.kvasir: found fixations: null and gaze.simulate not set; allowed: exactly one "
        "of the two, recorded fixations or the scan model that simulates them",
        "experiments.supervised.student: labels: mask with method: distilled is impossible: the "
        "method needs weak labels; set method: single (over datasets.kvasir and defaults)",
    ]


IMPOSSIBLE = {
    "in one place": (
        [("defaults.student", {"labels": "mask", "method": "distilled"})],
        "defaults.",
    ),
    "data set, default method": ([("datasets.kvasir.student.labels", "mask")], "datasets.kvasir."),
    "data set over defaults": (
        [("datasets.kvasir.student.labels", "mask"), ("defaults.student.method", "gazemedseg")],
        "datasets.kvasir.",
    ),
    "experiment over data set": (
        [
            ("datasets.kvasir.student", {"labels": "mask", "method": "single"}),
            ("experiments.full.student.method", "published"),
        ],
        "experiments.full.",
    ),
    "experiment over defaults": (
        [("experiments.full.student.labels", "mask")],
        "experiments.full.",
    ),
}


@pytest.mark.parametrize("case", IMPOSSIBLE)
def test_mask_labels_for_a_weak_method_are_impossible_wherever_they_are_set(case):
    changes, where = IMPOSSIBLE[case]
    (line,) = faults(*changes)
    assert line.startswith(f"{where}student: labels: mask with method: ")
    assert " is impossible" in line


def test_an_impossible_part_is_accepted_if_the_merged_settings_are_possible():
    parsed = parse(
        changed(("defaults.student.method", "single"), ("experiments.full.student.labels", "mask"))
    )
    student = parsed.experiment("kvasir", "full").student
    assert (student.labels, student.method) == ("mask", "single")
    # A stage receives complete settings and refuses.
    with pytest.raises(ValidationError):
        StudentSettings.model_validate_json('{"labels": "mask"}')


def test_an_impossible_experiment_that_no_data_set_lists_is_refused_when_resolved():
    parsed = parse(changed(("experiments.odd.student.labels", "mask")))
    with pytest.raises(ConfigError, match=r"experiments\.odd\.student: labels: mask"):
        parsed.experiment("kvasir", "odd")


def test_batch_size_must_fit_the_gpus_and_levels_must_fit_the_thresholds():
    lines = faults(
        ("datasets.kvasir.experiments", ["full"]),
        ("datasets.kvasir.gpus", 3),
        ("defaults.gaze.thresholds", [0.5]),
        ("experiments.full.student.levels", 2),
        ("experiments.full.teacher.levels", 1),
    )
    assert lines == [
        "experiments.full.student.batch_size: found 8; allowed: a multiple of gpus: 3 (over "
        "datasets.kvasir and defaults)",
        "experiments.full.student.levels: found 2; allowed: 1, because gaze.thresholds has a "
        "single value (over datasets.kvasir and defaults)",
        "experiments.full.teacher.batch_size: found 8; allowed: a multiple of gpus: 3 (over "
        "datasets.kvasir and defaults)",
    ]


def test_quarter_turns_need_a_square_working_size_for_the_networks_that_are_trained():
    wide = [("datasets.kvasir.prepare.size", [64, 96]), ("datasets.kvasir.experiments", ["full"])]
    turns = [
        ("defaults.teacher.augment.quarter_turns", True),
        ("experiments.full.student.augment", {"quarter_turns": True}),
    ]
    parse(changed(*wide, ("defaults.teacher.augment.scale", 0.2)))
    parse(changed(*turns))
    assert faults(*wide, *turns) == [
        f"experiments.full.{network}.augment.quarter_turns: found true; allowed: false, because "
        "prepare.size [64, 96] is not square (over datasets.kvasir and defaults)"
        for network in ("student", "teacher")
    ]


@pytest.mark.parametrize(
    ("field", "limit"),
    [("scale", 1), ("shift", 0.5), ("brightness", 0.5), ("contrast", 0.5), ("saturation", 0.5)],
)
def test_limits_of_the_augmentation(field, limit):
    path = f"defaults.student.augment.{field}"
    parse(changed((path, limit)))
    assert faults((path, limit + 0.1)) == [
        f"{path}: found {limit + 0.1}; allowed: a number of at most {float(limit)}"
    ]
    assert faults((path, -0.1)) == [f"{path}: found -0.1; allowed: a number of at least 0.0"]


def test_augmentation_is_merged_key_by_key():
    parsed = parse(
        changed(
            ("defaults.teacher.augment", {"flips": False, "scale": 0.2}),
            ("datasets.kvasir.teacher.augment.scale", 0.1),
            ("experiments.full.teacher.augment.shift", 0.3),
        )
    )
    found = parsed.experiment("kvasir", "full").teacher.augment
    assert (found.flips, found.scale, found.shift) == (False, 0.1, 0.3)
    assert parsed.experiment("kvasir", "full").student.augment == AugmentSettings()


@pytest.mark.parametrize(
    ("changes", "possible"),
    [
        ([], True),
        ([("datasets.kvasir.gaze.simulate", {})], False),
        ([("datasets.kvasir.fixations", None)], False),
        ([("datasets.kvasir.fixations", None), ("datasets.kvasir.gaze.simulate", {})], True),
        ([("datasets.kvasir.fixations", None), ("defaults.gaze.simulate", {})], True),
        ([("defaults.gaze.simulate", {})], False),
        ([("defaults.gaze.simulate", {}), ("datasets.kvasir.gaze.simulate", None)], True),
    ],
)
def test_fixations_are_either_recorded_or_simulated(changes, possible):
    if possible:
        parse(changed(*changes))
    else:
        (line,) = faults(*changes)
        assert line.startswith("datasets.kvasir: found fixations: ")
        assert "exactly one of the two" in line


@pytest.mark.parametrize(
    ("path", "value"),
    [
        ("seeds", [1, 0, 1]),
        ("summary", ["kvasir", "kvasir"]),
        ("datasets.kvasir.experiments", ["full", "full"]),
    ],
)
def test_repeated_list_entries_are_refused(path, value):
    (line,) = faults((path, value))
    assert line == f"{path}: found {value[0]!r} 2 times; allowed: each once"


def test_no_message_contains_words_of_pydantic():
    lines = faults(
        ("seeds", 3),
        ("summary", [3]),
        ("defaults", []),
        ("experiments.full.teacher", {"text": 5, "widths": [7] * 6, "text_dropout": 1}),
        ("experiments.Bad", {}),
        ("datasets.kvasir.title", None),
        ("datasets.kvasir.prepare", {}),
        ("datasets.kvasir.gaze", {"thresholds": [0.5, 0.5], "seed": "x", "sigma": 0}),
        ("datasets.kvasir.demo", {"dataset": "brain", "train": 1.5, "scan": {"search": [1]}}),
    )
    assert len(lines) > 12
    jargon = r"pydantic|https?:|[Ii]nput|instance|Settings|Value error|validat|dictionary|tuple"
    assert not [line for line in lines if re.search(jargon, line)]


def test_later_places_override_earlier_ones_and_unset_values_do_not():
    parsed = parse(
        changed(
            ("defaults.teacher", {"iterations": 7, "batch_size": 4}),
            ("defaults.student.noise", 0.5),
            ("defaults.gaze.crf", {"sxy": 40, "srgb": 20}),
            ("datasets.kvasir.teacher.widths", [8, 8, 8, 8, 8, 16]),
            ("datasets.kvasir.gaze.crf.sxy", 25),
            ("experiments.full.teacher.batch_size", 2),
        )
    )
    gaze = parsed.dataset("kvasir").gaze
    assert (gaze.crf.sxy, gaze.crf.srgb, gaze.crf.compat, gaze.sigma) == (25, 20, 1, 70)
    teacher = parsed.experiment("kvasir", "full").teacher
    assert teacher.iterations == 7  # from the defaults, although the data set sets widths
    assert teacher.widths == (8, 8, 8, 8, 8, 16)  # from the data set
    assert teacher.batch_size == 2  # from the experiment
    assert teacher.text_dropout == 0.1  # set nowhere: the default of the class
    assert parsed.experiment("kvasir", "supervised").teacher.batch_size == 4
    assert parsed.experiment("kvasir", "full").student.noise == 0.5


def test_an_explicit_default_overrides_an_earlier_value():
    parsed = parse(changed(("defaults.student.ema", 0.5), ("experiments.full.student.ema", 0)))
    assert parsed.experiment("kvasir", "full").student.ema == 0
    assert parsed.experiment("kvasir", "supervised").student.ema == 0.5


@pytest.mark.parametrize(
    ("choice", "path", "value", "unused"),
    [
        ({}, "gaze.seed", 1, True),
        ({"gaze.recording": {"format": "heatmaps"}}, "gaze.sigma", 10, True),
        ({"gaze.recording": {"format": "heatmaps"}}, "gaze.crf.sxy", 10, False),
        ({"gaze.recording": {"format": "refined"}}, "gaze.crf.sxy", 10, True),
        ({"gaze.simulate": {}, "fixations": None}, "gaze.seed", 1, False),
        ({"gaze.simulate": {}, "fixations": None}, "gaze.recording.max_off_image", 1, True),
        ({}, "prepare.test_fraction", 0.5, True),
        ({"prepare.split": "drawn"}, "prepare.test_fraction", 0.5, False),
        ({}, "prepare.split_seed", 1, False),
        ({"prepare.val_fraction": 0}, "prepare.split_seed", 1, True),
        ({}, "explain.attempts", 1, True),
        ({}, "explain.max_failed", 1, False),
        ({"explain.backend": "transformers", "explain.model": "m"}, "explain.seed", 1, True),
        ({"explain.backend": "transformers", "explain.model": "m", "explain.temperature": 1},
         "explain.seed", 1, False),
        ({"explain.backend": "openai", "explain.model": "m", "explain.url": "u"},
         "explain.view.margin", 1, True),
        ({"explain.backend": "openai", "explain.model": "m", "explain.url": "u",
          "explain.view.show": "crop"}, "explain.view.margin", 1, False),
        ({}, "embed.pooling", "first", True),
        ({"embed.encoder": "transformers", "embed.model": "m"}, "embed.pooling", "first", False),
    ],
)  # fmt: skip
def test_unused_fields_of_a_data_set_are_reset(choice, path, value, unused):
    chosen = [(f"datasets.kvasir.{key}", setting) for key, setting in choice.items()]
    before = parse(changed(*chosen)).dataset("kvasir")
    after = parse(changed(*chosen, (f"datasets.kvasir.{path}", value))).dataset("kvasir")
    assert (before == after) == unused


@pytest.mark.parametrize(
    ("changes", "path", "value", "unused"),
    [
        ({}, "student.afc_weight", 9, False),
        ({"student.method": "single"}, "student.afc_weight", 9, True),
        ({"student.method": "single"}, "student.levels", 3, False),
        ({"student.method": "single", "student.labels": "mask"}, "student.levels", 3, True),
        ({}, "student.teacher_widths", [8] * 6, True),
        ({"student.method": "published"}, "student.teacher_widths", [8] * 6, False),
        ({}, "teacher.momentum", 0.5, True),
        ({"teacher.optimiser": "sgd"}, "teacher.momentum", 0.5, False),
        ({}, "teacher.text_dropout", 0.5, False),
        ({"teacher.text": False}, "teacher.text_dropout", 0.5, True),
    ],
)
def test_unused_fields_of_an_experiment_are_reset(changes, path, value, unused):
    chosen = [(f"experiments.full.{key}", setting) for key, setting in changes.items()]
    before = parse(changed(*chosen)).experiment("kvasir", "full")
    after = parse(changed(*chosen, (f"defaults.{path}", value))).experiment("kvasir", "full")
    assert (before == after) == unused


def test_lists_are_replaced_not_joined():
    parsed = parse(
        changed(
            ("defaults.gaze.thresholds", [0.5, 0.4, 0.3]),
            ("datasets.kvasir.gaze.thresholds", [0.4, 0.2]),
        )
    )
    assert parsed.dataset("kvasir").gaze.thresholds == (0.4, 0.2)


def test_null_in_a_data_set_overrides_a_value_of_the_defaults():
    simulated = [("defaults.gaze.simulate", {"jitter": 0.5}), ("datasets.kvasir.fixations", None)]
    assert parse(changed(*simulated)).dataset("kvasir").gaze.simulate.jitter == 0.5
    recorded = [
        ("defaults.gaze.simulate", {"jitter": 0.5}),
        ("datasets.kvasir.gaze.simulate", None),
    ]
    assert parse(changed(*recorded)).dataset("kvasir").gaze.simulate is None
    again = [("datasets.kvasir.gaze.simulate", {"drift": 0}), *simulated]
    simulate = parse(changed(*again)).dataset("kvasir").gaze.simulate
    assert (simulate.jitter, simulate.drift) == (0.5, 0)


def test_a_number_that_yaml_reads_as_text_is_accepted():
    raw = yaml.safe_load("defaults: {student: {learning_rate: 1e-3}}") | changed()
    assert isinstance(raw["defaults"]["student"]["learning_rate"], str)
    assert parse(raw).experiment("kvasir", "full").student.learning_rate == 1e-3


def test_parsing_does_not_change_the_raw_mapping():
    raw = changed(("defaults.gaze.simulate", None))
    before = copy.deepcopy(raw)
    parse(raw)
    assert raw == before


def test_settings_are_frozen():
    parsed = parse(changed())
    with pytest.raises(ValidationError):
        parsed.seeds = (1,)
    with pytest.raises(ValidationError):
        parsed.dataset("kvasir").gaze.sigma = 1


def test_the_example_entry_of_own_data_is_valid():
    page = (ROOT / "docs/own_data.md").read_text(encoding="utf-8")
    (example,) = re.findall(r"```yaml\n(datasets:\n.*?)```", page, re.DOTALL)
    raw = yaml.safe_load((ROOT / "config.yaml").read_text(encoding="utf-8"))
    mine = parse(raw | yaml.safe_load(example) | {"summary": []}).dataset("mine")
    assert (mine.prepare.layout, mine.prepare.split) == ("folder", "drawn")


def test_resolved_settings_survive_json():
    raw = yaml.safe_load((ROOT / "config.yaml").read_text())
    parsed = parse(raw)
    for name in parsed.datasets:
        dataset = parsed.dataset(name)
        parts: list[BaseModel] = [dataset, *(getattr(dataset, part) for part in raw["defaults"])]
        parts += [dataset.prepare, *([dataset.demo] if dataset.demo else [])]
        for experiment in dataset.experiments:
            resolved = parsed.experiment(name, experiment)
            parts += [resolved.teacher, resolved.student]
        for part in parts:
            assert type(part).model_validate_json(part.model_dump_json()) == part


@pytest.mark.parametrize("name", ["logs", "benchmarks", "export"])
def test_an_experiment_cannot_take_the_name_of_a_folder_of_results(name):
    raw = changed()
    raw["experiments"][name] = {}
    with pytest.raises(ConfigError, match=f"experiments.{name}: the name is a folder"):
        parse(raw)


@pytest.mark.parametrize("name", ["verify_polyps", "export_published_polyps", "quality"])
def test_a_data_set_cannot_take_the_name_of_a_target(name):
    raw = changed()
    raw["datasets"][name] = raw["datasets"]["kvasir"]
    with pytest.raises(ConfigError, match=f"datasets.{name}: the name is a target"):
        parse(raw)


def test_the_schema_file_is_up_to_date():
    assert SCHEMA.is_file() and SCHEMA.read_text("utf-8") == config.schema(), (
        "regenerate it: python -m stages.core.config workflow/schemas/config.schema.json"
    )


def test_each_experiment_of_config_yaml_is_possible_on_each_data_set():
    parsed = parse(yaml.safe_load((ROOT / "config.yaml").read_text("utf-8")))
    for dataset in parsed.datasets:
        found = {name: parsed.experiment(dataset, name) for name in parsed.experiments}
        # The settings of published methods do not follow those of a data set.
        assert not found["paper"].teacher.class_balance
        for name, optimiser, last in [
            ("paper", "adam", 0), ("published_sgd", "sgd", 1e-4), ("gazemedseg_sgd", "sgd", 1e-4)
        ]:  # fmt: skip
            student = found[name].student
            assert student.optimiser == optimiser
            assert (student.learning_rate, student.final_learning_rate) == (0.01, last)
        # Baselines use the same optimisation settings.
        for name in ("published", "gazemedseg", "supervised"):
            for field in OptimisationSettings.model_fields:
                ours, theirs = (found[n].student for n in ("full", name))
                assert getattr(ours, field) == getattr(theirs, field), (name, field)
        for levels in range(1, 6):
            experiment = found[f"levels_{levels}"]
            assert experiment.teacher.levels == experiment.student.levels == levels


def test_config_yaml_is_valid_for_the_parser_and_the_schema():
    raw = yaml.safe_load((ROOT / "config.yaml").read_text("utf-8"))
    parsed = parse(raw)
    assert set(parsed.summary) <= set(parsed.datasets)
    jsonschema.Draft202012Validator.check_schema(json.loads(config.schema()))
    jsonschema.validate(raw, json.loads(config.schema()), jsonschema.Draft202012Validator)


@pytest.mark.parametrize(
    ("path", "value"),
    [
        ("seeds", 3),
        ("datasets.kvasir.teacher.widht", [8]),
        ("datasets.kvasir.prepare.size", [16, 224]),
        ("datasets.Bad", SMALL["datasets"]["kvasir"]),
    ],
)
def test_the_schema_refuses_what_the_parser_refuses(path, value):
    with pytest.raises(ConfigError):
        parse(changed((path, value)))
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate(changed((path, value)), json.loads(config.schema()))


@pytest.mark.parametrize(
    ("changes", "allowed"),
    [
        (
            [("datasets.kvasir.demo", {"dataset": "kvasir"})],
            "a folder of data/demo/ for a phantom",
        ),
        (
            [("datasets.kvasir.prepare.layout", "lesions")],
            "'data/lesions' for the layout lesions",
        ),
    ],
)
def test_raw_data_of_the_workflow_must_be_in_its_own_folders(changes, allowed):
    expected = f"datasets.kvasir.root: found 'data/kvasir'; allowed: {allowed}"
    assert faults(*changes) == [expected]


def test_two_phantoms_in_one_folder_are_refused():
    raw = changed(
        ("datasets.kvasir.demo", {"dataset": "kvasir"}), ("datasets.kvasir.root", "data/demo/a")
    )
    raw["datasets"]["other"] = copy.deepcopy(raw["datasets"]["kvasir"])
    with pytest.raises(ConfigError, match="found 'data/demo/a' 2 times; allowed: each once"):
        parse(raw)


TABLE = {"reference": "full", "experiments": ["supervised"]}


def test_the_rows_of_a_table_are_the_reference_and_the_others():
    assert parse(changed(("tables.mine", TABLE))).tables["mine"].rows == ("full", "supervised")


@pytest.mark.parametrize(
    "name", ["kvasir", "demo", "compare", "summary", "gaze_quality", "verify_x"]
)
def test_a_table_cannot_have_a_reserved_name(name):
    (line,) = faults((f"tables.{name}", TABLE))
    assert line.startswith(f"tables.{name}: the name is a target or a table of the workflow")


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        (
            "reference",
            "ful",
            "reference: found 'ful'; did you mean 'full'? allowed: full, supervised",
        ),
        (
            "experiments",
            ["supervisd"],
            "experiments: found 'supervisd'; did you mean 'supervised'? allowed: full, supervised",
        ),
        (
            "experiments",
            ["supervised"] * 2,
            "experiments: found 'supervised' 2 times; allowed: each once",
        ),
        (
            "experiments",
            ["full", "supervised"],
            "experiments: found 'full', the reference; allowed: other experiments, to "
            "compare with it",
        ),
        ("experiments", [], "experiments: found []; allowed: at least 1 entries"),
    ],
)
def test_an_impossible_table_is_refused(key, value, message):
    assert faults(("tables.mine", TABLE | {key: value})) == [f"tables.mine.{message}"]


def test_a_report_shows_only_known_tables():
    (line,) = faults(("tables.mine", TABLE), ("datasets.kvasir.tables", ["mime"]))
    assert line == "datasets.kvasir.tables: found 'mime'; did you mean 'mine'? allowed: mine"


def test_experiments_of_a_table_must_be_possible_on_the_data_sets_that_it_compares():
    odd = [
        ("experiments.odd.student.labels", "mask"),
        ("tables.mine", TABLE | {"reference": "odd"}),
    ]
    parse(changed(*odd))
    (line,) = faults(*odd, ("summary", ["kvasir"]))
    assert faults(*odd, ("datasets.kvasir.tables", ["mine"])) == [line]
    expected = "experiments.odd.student: labels: mask with method: distilled is impossible"
    assert line.startswith(expected)
