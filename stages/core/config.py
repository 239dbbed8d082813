"""config.yaml as frozen objects: parsed once, when the workflow is parsed.

A value is looked up in three places, the later winning: `defaults`, the data set, and, for
teacher and student, the experiment. Each result is validated whole, so an impossible combination
stops before any job, wherever its parts were written.
"""

import difflib
import json
import re
import sys
from collections.abc import Iterable, Mapping
from datetime import date
from itertools import chain
from pathlib import Path
from types import UnionType
from typing import Annotated, Any, TypeVar, Union, get_args, get_origin

import yaml
from pydantic import BaseModel, Field, ValidationError
from pydantic.config import JsonDict

from stages.settings.base import InputPath, Settings
from stages.settings.demo_data import DemoSettings
from stages.settings.explain import EmbedSettings, EndpointSettings, ExplainSettings
from stages.settings.gaze import GazeSettings
from stages.settings.predict import PredictSettings
from stages.settings.prepare import PrepareSettings
from stages.settings.quality import QualitySettings
from stages.settings.training import StudentSettings, TeacherSettings

S = TypeVar("S", bound=Settings)
# Names become folders and targets.
Name = Annotated[str, Field(pattern=r"^[a-z][a-z0-9_]*$", max_length=40)]
# The schema of a mapping by name would let any other name pass unread.
_NO_OTHER_NAMES: JsonDict = {"additionalProperties": False}
# Rules and targets of the workflow, and folders in results/, whose names no data set may take.
RESERVED = frozenset(
    {"all", "demo", "demo_data", "fetch_lesions", "verify", "prepare", "pseudomasks", "quality"}
    | {
        "explain",
        "texts",
        "embed",
        "teacher",
        "student",
        "pseudolabels",
        "predict",
        "evaluate",
        "summarise",
    }
    | {"summarise_together", "report", "report_together", "export_published", "logs"}
    | {"benchmarks", "compare", "compare_together", "tabulate"}
    | {"provenance", "provenance_together", "provenance_table"}
)
# Files and folders of a data set's results, beside which the folders of its experiments lie.
TAKEN = frozenset({"benchmarks", "export", "logs", "texts", "work"})
# Tables of a data set's results, beside which its comparisons lie.
TABLES = frozenset({"gaze_quality", "summary", "verified"})
# Each data set has a target of its name, and one of each of these before its name.
PREFIXES = ("verify_", "export_published_")
# Where the workflow puts raw data that it makes itself.
PHANTOMS, SCANS = "data/demo/", "data/lesions"


class ConfigError(Exception):
    """config.yaml cannot be used; the message lists every fault with its path."""

    def __init__(self, faults: Iterable[str]) -> None:
        self.faults = tuple(dict.fromkeys(faults))
        super().__init__("config.yaml cannot be used:\n  " + "\n  ".join(self.faults))


class Defaults(Settings):
    """What holds for every data set that does not say otherwise."""

    gaze: GazeSettings = GazeSettings()
    quality: QualitySettings = QualitySettings()
    explain: ExplainSettings = ExplainSettings()
    endpoint: EndpointSettings = EndpointSettings()
    embed: EmbedSettings = EmbedSettings()
    teacher: TeacherSettings = TeacherSettings()
    student: StudentSettings = StudentSettings()
    predict: PredictSettings = PredictSettings()


class DatasetSettings(Defaults):
    """One data set: where it is, how to read it, and what it sets of the defaults."""

    title: str = Field(description="name in tables and figures")
    note: str = Field(default="", description="what a reader of its figures must know")
    root: InputPath = Field(description="folder of the raw data")
    prepare: PrepareSettings
    fixations: InputPath | None = Field(
        default=None,
        description="recorded gaze: a file or, of maps, a folder, in gaze.recording.format; none: "
        "gaze.simulate says how it is simulated",
    )
    experiments: tuple[Name, ...] = Field(
        default=("full", "gaze_only", "supervised"),
        min_length=1,
        description="what its target runs",
    )
    threads: int = Field(default=4, ge=1, description="CPU threads of a training job")
    gpus: int = Field(
        default=1,
        ge=0,
        le=64,
        description="GPUs of a training, each with its share of a batch; 0: the CPU, which is "
        "also taken, with a warning, where none is seen",
    )
    resident_mb: int = Field(
        default=4000,
        ge=0,
        description="training samples up to this size, MB, stay in the memory of the device; "
        "more are read from the disk as they are needed",
    )
    mask_seconds: float | None = Field(
        default=None, gt=0, description="seconds to draw one full mask by hand, from literature"
    )
    demo: DemoSettings | None = Field(
        default=None, description="how the workflow makes the raw data itself (demo only)"
    )

    @property
    def fetched(self) -> bool:
        """Whether the workflow fetches the raw data itself."""
        return self.prepare.layout == "lesions"


class Experiment(Settings):
    """A named set of overrides."""

    teacher: TeacherSettings = TeacherSettings()
    student: StudentSettings = StudentSettings()


class Table(Settings):
    """Experiments compared on the data sets of `summary`."""

    reference: Name = Field(description="experiment against which the others are tested")
    experiments: tuple[Name, ...] = Field(min_length=1, description="the others")
    seed: int = Field(default=0, ge=0, description="draws the resamples of its intervals and tests")

    @property
    def rows(self) -> tuple[str, ...]:
        """The reference, and what is held against it."""
        return (self.reference, *self.experiments)


class Config(Settings):
    """config.yaml."""

    seeds: tuple[Annotated[int, Field(ge=0)], ...] = Field(
        default=(0,), min_length=1, description="each experiment is trained once per seed"
    )
    summary: tuple[Name, ...] = Field(
        default=(), description="data sets side by side in results/summary.csv and report.html"
    )
    cache: str = Field(
        default="",
        description="folder of answers and vectors that workflows share: explain and embed take "
        "from it what any of them has made, and put there what they make; empty: none",
    )
    defaults: Defaults = Defaults()
    experiments: dict[Name, Experiment] = Field(min_length=1, json_schema_extra=_NO_OTHER_NAMES)
    datasets: dict[Name, DatasetSettings] = Field(min_length=1, json_schema_extra=_NO_OTHER_NAMES)
    tables: dict[Name, Table] = Field(
        default={},
        description="comparisons of experiments, each a target of its name",
        json_schema_extra=_NO_OTHER_NAMES,
    )

    def dataset(self, name: str) -> DatasetSettings:
        """Resolve a data set over the defaults, without what its other choices leave unread.

        Raises
        ------
        ConfigError
            The two together are impossible. Never, for a parsed config.
        """
        return _resolve(
            DatasetSettings,
            f"datasets.{name}",
            "over defaults",
            _merge(_given(self.defaults), _given(self.datasets[name])),
        ).without_unread()

    def experiment(self, dataset: str, name: str) -> Experiment:
        """Resolve an experiment over a data set over the defaults, likewise.

        Raises
        ------
        ConfigError
            The three together are impossible. Never, for a parsed config and an experiment that
            the data set lists or, for a data set of `summary`, a table has.
        """
        merged = _merge(_given(self.defaults), _given(self.datasets[dataset]))
        merged = _merge(merged, _given(self.experiments[name]))
        return _resolve(
            Experiment,
            f"experiments.{name}",
            f"over datasets.{dataset} and defaults",
            {key: merged.get(key, {}) for key in Experiment.model_fields},
        ).without_unread()


def _given(model: BaseModel) -> dict[str, Any]:
    """Only what the user wrote, so that an unwritten value does not hide an earlier one."""
    return model.model_dump(exclude_unset=True)


def _merge(base: Mapping[str, Any], over: Mapping[str, Any]) -> dict[str, Any]:
    merged = dict(base)
    for key, value in over.items():
        old = merged.get(key)
        both = isinstance(old, Mapping) and isinstance(value, Mapping)
        merged[key] = _merge(old, value) if both else value  # type: ignore[arg-type]
    return merged


def _resolve(model: type[S], where: str, layers: str, values: Mapping[str, Any]) -> S:
    """Validate merged values; their faults are put at `where`, the last place that could set them.

    Each part has been validated before: a fault here is of their combination.
    """
    try:
        return model.model_validate(values)
    except ValidationError as error:
        faults = _describe(error, model)
        raise ConfigError(f"{where}.{fault} ({layers})" for fault in faults) from None


# What a value must be, by the kind of pydantic's fault; the fault's context fills the gaps.
_ALLOWED = {
    "bool_parsing": "true or false",
    "bool_type": "true or false",
    "dict_type": "keys with values",
    "finite_number": "a finite number",
    "float_parsing": "a number",
    "float_type": "a number",
    "greater_than": "a number above {gt}",
    "greater_than_equal": "a number from {ge} on",
    "int_from_float": "a whole number",
    "int_parsing": "a whole number",
    "int_type": "a whole number",
    "invalid_key": "text as a key, in quotes if need be",
    "less_than": "a number below {lt}",
    "less_than_equal": "a number up to {le}",
    "literal_error": "{expected}",
    "model_type": "keys with values, or {{}} where nothing is to be set",
    "multiple_of": "a multiple of {multiple_of}",
    "string_pattern_mismatch": "a small letter, then small letters, digits and _",
    "string_too_long": "at most {max_length} letters",
    "string_type": "text; what YAML takes for a number, a date or true is put in quotes",
    "too_long": "at most {max_length} entries",
    "too_short": "at least {min_length} entries",
    "tuple_type": "a list, as in [1, 2] or [full, gaze_only]",
}


def _below(annotation: Any, loc: Iterable[int | str]) -> Any:
    """Type of what lies at `loc` below a value of type `annotation`."""
    for key in loc:
        if get_origin(annotation) is dict:
            annotation = get_args(annotation)[1]
        elif get_origin(annotation) is tuple:
            annotation = get_args(annotation)[0]
        else:
            annotation = annotation.model_fields[key].annotation
        if get_origin(annotation) in (Union, UnionType):  # ours are all `X | None`
            annotation = get_args(annotation)[0]
    return annotation


def _path(loc: Iterable[int | str]) -> str:
    """Write a place as in the file: `datasets.kvasir.prepare.size[0]`."""
    path = "".join(f"[{key}]" if isinstance(key, int) else f".{key}" for key in loc)
    return path.removeprefix(".")


def _describe(error: ValidationError, model: type[BaseModel]) -> Iterable[str]:
    """Put pydantic's faults in the words of someone who writes YAML."""
    for fault in error.errors():
        kind, found, context = fault["type"], fault["input"], fault.get("ctx", {})
        loc = tuple(key for key in fault["loc"] if key != "[key]")
        path = _path(loc)
        if kind == "extra_forbidden":
            known = _below(model, loc[:-1]).model_fields
            yield f"{path}: unknown key; {_choose(str(loc[-1]), known)}"
        elif kind == "missing" and isinstance(loc[-1], int):
            length = len(get_args(_below(model, loc[:-1])))
            yield f"{_path(loc[:-1])}: found {_short(found)}; allowed: {length} entries"
        elif kind == "missing":
            yield f"{path}: missing; it has no default"
        elif kind == "value_error":
            yield f"{path}: {context['error']}"
        # A list is also called too short where one of its entries is at fault.
        elif kind != "too_short" or len(found) < context["min_length"]:
            allowed = _ALLOWED[kind].format(**context) if kind in _ALLOWED else fault["msg"]
            yield f"{path}: found {_short(found)}; allowed: {allowed}"


def _short(value: Any) -> str:
    # Quotes would make text of a date.
    if isinstance(value, date):
        return str(value)
    text = json.dumps(value, default=str, ensure_ascii=False, skipkeys=True)
    return text if len(text) < 80 else text[:77] + "..."


def _choose(found: str, known: Iterable[str]) -> str:
    near = difflib.get_close_matches(found, known := sorted(known), n=1)
    return (f"did you mean {near[0]!r}? " if near else "") + f"allowed: {', '.join(known)}"


def _names(path: str, names: Iterable[str], known: Iterable[str]) -> Iterable[str]:
    for name in names:
        if name not in known:
            yield f"{path}: found {name!r}; {_choose(name, known)}"


def _twice(path: str, values: tuple[Any, ...]) -> Iterable[str]:
    for value in values:
        if values.count(value) > 1:
            yield f"{path}: found {value!r} {values.count(value)} times; allowed: each once"


def _cross_checks(config: Config) -> Iterable[str]:
    """Yield the faults that no single part can see."""
    yield from _twice("seeds", config.seeds)
    yield from _twice("summary", config.summary)
    yield from _names("summary", config.summary, config.datasets)
    try:
        _resolve(Defaults, "defaults", "over what is built in", _given(config.defaults))
    except ConfigError as error:
        # Each data set would repeat them.
        yield from error.faults
        return
    for name in TAKEN & set(config.experiments):
        yield f"experiments.{name}: the name is a folder of the results; choose another"
    yield from _table_checks(config)
    phantoms = tuple(part.root for part in config.datasets.values() if part.demo)
    yield from _twice("datasets with demo, their root", phantoms)
    for name, part in config.datasets.items():
        path = f"datasets.{name}"
        if part.demo and not re.fullmatch(f"{PHANTOMS}[^/]+", part.root):
            yield f"{path}.root: found {part.root!r}; allowed: a folder of {PHANTOMS} for a phantom"
        if part.fetched and part.root != SCANS:
            yield f"{path}.root: found {part.root!r}; allowed: {SCANS!r} for the layout lesions"
        if name in RESERVED or name.startswith(PREFIXES):
            yield f"{path}: the name is a target of the workflow; choose another"
        yield from _twice(f"{path}.experiments", part.experiments)
        yield from _names(f"{path}.experiments", part.experiments, config.experiments)
        try:
            dataset = config.dataset(name)
        except ConfigError as error:
            yield from error.faults
            continue
        if (dataset.fixations is None) == (dataset.gaze.simulate is None):
            yield (
                f"{path}: found fixations: {_short(dataset.fixations)} and gaze.simulate "
                f"{'set' if dataset.gaze.simulate else 'not set'}; allowed: exactly one of the "
                "two, recorded fixations or the scan model that simulates them"
            )
        compared = (table.rows for table in config.tables.values() if name in config.summary)
        for experiment in dict.fromkeys(chain(part.experiments, *compared)):
            if experiment in config.experiments:
                try:
                    found = config.experiment(name, experiment)
                except ConfigError as error:
                    yield from error.faults
                    continue
                for fault in _training_checks(dataset, found):
                    yield f"experiments.{experiment}.{fault} (over datasets.{name} and defaults)"


def _training_checks(dataset: DatasetSettings, experiment: Experiment) -> Iterable[str]:
    """Yield what of an experiment does not fit its data set, after the experiment's name."""
    trained: dict[str, TeacherSettings | StudentSettings] = {"student": experiment.student}
    if experiment.student.needs_teacher:
        trained["teacher"] = experiment.teacher
    for network, settings in trained.items():
        if dataset.gpus and settings.batch_size % dataset.gpus:
            yield (
                f"{network}.batch_size: found {settings.batch_size}; allowed: a multiple of"
                f" gpus: {dataset.gpus}"
            )
        if (settings.levels or 1) > 1 and len(dataset.gaze.thresholds) == 1:
            yield (
                f"{network}.levels: found {settings.levels}; allowed: 1, between the one threshold"
                " of gaze.thresholds"
            )


def _table_checks(config: Config) -> Iterable[str]:
    for name, table in config.tables.items():
        path = f"tables.{name}"
        targets = name in RESERVED or name in config.datasets or name.startswith(PREFIXES)
        if targets or name in TABLES:
            yield f"{path}: the name is a target or a table of the workflow; choose another"
        yield from _names(f"{path}.reference", [table.reference], config.experiments)
        yield from _names(f"{path}.experiments", table.experiments, config.experiments)
        yield from _twice(f"{path}.experiments", table.experiments)
        if table.reference in table.experiments:
            yield (
                f"{path}.experiments: found {table.reference!r}, the reference; "
                "allowed: what is held against it"
            )


def repeated(node: yaml.Node | None, loc: tuple[int | str, ...] = ()) -> Iterable[str]:
    """Yield the keys that stand twice in one mapping: YAML lets the last one win, in silence.

    Parameters
    ----------
    node
        What `yaml.compose` makes of a file.
    loc
        Place of the node in it.
    """
    if isinstance(node, yaml.MappingNode):
        lines: dict[str, int] = {}
        for key, value in node.value:
            name, line = str(key.value), key.start_mark.line + 1
            path = (*loc, name)
            # Merges add up.
            if name in lines and key.tag != "tag:yaml.org,2002:merge":
                yield (
                    f"{_path(path)}: found twice, in lines {lines[name]} and {line}; allowed: each "
                    "key once, with all that is below it"
                )
            lines[name] = line
            yield from repeated(value, path)
    elif isinstance(node, yaml.SequenceNode):
        for place, value in enumerate(node.value):
            yield from repeated(value, (*loc, place))


def parse(raw: Mapping[str, Any]) -> Config:
    """Validate the content of config.yaml.

    Keys, types and ranges come first; whether the parts fit together is asked once each is sound.

    Raises
    ------
    ConfigError
        With one line per fault: the path of the key, the value found, what is allowed and, for a
        near miss, the likely key.
    """
    try:
        # What one place sets may be impossible alone, and possible over the others.
        config = Config.model_validate(raw, context={"part": True})
    except ValidationError as error:
        raise ConfigError(_describe(error, Config)) from None
    if faults := list(_cross_checks(config)):
        raise ConfigError(faults)
    return config


def schema() -> str:
    """JSON Schema of config.yaml, as kept in workflow/schemas/."""
    return json.dumps(Config.model_json_schema(), indent=2, sort_keys=True) + "\n"


if __name__ == "__main__":
    Path(sys.argv[1]).write_text(schema())
