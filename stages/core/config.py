"""Parse config.yaml into frozen objects, once, when Snakemake parses the workflow.

A value comes from three places, each overriding the one before: `defaults`, the data set and, for
teacher and student, the experiment. The merged settings are validated as a whole, so an impossible
combination stops the run before any job, even if its parts come from different places.
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
# Names become folder names and Snakemake targets.
Name = Annotated[str, Field(pattern=r"^[a-z][a-z0-9_]*$", max_length=40)]
# Without it the JSON Schema would accept names that `Name` refuses.
_FORBID_OTHER_NAMES: JsonDict = {"additionalProperties": False}
# Rules and targets of the workflow, and folders in results/: no data set may have these names.
RESERVED_NAMES = frozenset(
    {"all", "demo", "demo_data", "fetch_lesions", "verify", "prepare", "pseudomasks", "quality"}
    | {
        "explain",
        "texts",
        "embed",
        "encoder",
        "encoders",
        "figures",
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
# Files and folders in the results of a data set: no experiment may have these names.
RESULT_FOLDERS = frozenset({"benchmarks", "export", "figures", "logs", "texts", "work"})
# Tables in the results of a data set: no comparison may have these names.
RESULT_TABLES = frozenset({"gaze_quality", "summary", "verified"})
# A data set has a target with its own name, and one for each prefix followed by its name.
TARGET_PREFIXES = ("verify_", "export_published_")
# Folders of the raw data that the workflow draws or fetches itself.
DEMO_ROOT, LESIONS_ROOT = "data/demo/", "data/lesions"


class ConfigError(Exception):
    """The configuration cannot be used; the message lists all faults, each with its path."""

    def __init__(self, faults: Iterable[str], file: str = "config.yaml") -> None:
        self.faults = tuple(dict.fromkeys(faults))
        super().__init__(f"{file} cannot be used:\n  " + "\n  ".join(self.faults))


class Defaults(Settings):
    """Settings of every data set that does not override them."""

    gaze: GazeSettings = GazeSettings()
    quality: QualitySettings = QualitySettings()
    explain: ExplainSettings = ExplainSettings()
    endpoint: EndpointSettings = EndpointSettings()
    embed: EmbedSettings = EmbedSettings()
    teacher: TeacherSettings = TeacherSettings()
    student: StudentSettings = StudentSettings()
    predict: PredictSettings = PredictSettings()


class DatasetSettings(Defaults):
    """One data set: where it is, how to read it, and which defaults it overrides."""

    title: str = Field(description="name in tables and figures")
    note: str = Field(default="", description="remark shown with its figures")
    root: InputPath = Field(description="folder of the raw data")
    prepare: PrepareSettings
    fixations: InputPath | None = Field(
        default=None,
        description="recorded gaze in gaze.recording.format: a file, or a folder of maps; null: "
        "gaze is simulated as gaze.simulate says",
    )
    experiments: tuple[Name, ...] = Field(
        default=("full", "gaze_only", "supervised"),
        min_length=1,
        description="experiments that its target runs",
    )
    tables: tuple[Name, ...] = Field(
        default=(),
        description="comparisons of `tables` that its report shows; its target runs their "
        "experiments, too",
    )
    threads: int = Field(default=4, ge=1, description="CPU threads of a training job")
    gpus: int = Field(
        default=1,
        ge=0,
        le=64,
        description="GPUs of a training, which divide each batch; 0: the CPU; if no GPU is "
        "visible, the CPU is used with a warning",
    )
    resident_mb: int = Field(
        default=4000,
        ge=0,
        description="training samples up to this total size, MB, stay in the memory of the device; "
        "larger sets are read from disk during training",
    )
    mask_seconds: float | None = Field(
        default=None, gt=0, description="seconds to draw one full mask by hand, from the literature"
    )
    demo: DemoSettings | None = Field(
        default=None, description="how the workflow draws the raw data itself (demo only)"
    )

    @property
    def fetched_by_workflow(self) -> bool:
        """Whether the workflow downloads the raw data itself."""
        return self.prepare.layout == "lesions"


class Experiment(Settings):
    """Named overrides of teacher and student."""

    teacher: TeacherSettings = TeacherSettings()
    student: StudentSettings = StudentSettings()


class Table(Settings):
    """Experiments to compare on the data sets of `summary`."""

    reference: Name = Field(description="experiment with which the others are compared")
    experiments: tuple[Name, ...] = Field(
        min_length=1, description="experiments to compare with it"
    )
    seed: int = Field(default=0, ge=0, description="random seed of its intervals and tests")

    @property
    def rows(self) -> tuple[str, ...]:
        """Names of the reference and of the experiments that are compared with it."""
        return (self.reference, *self.experiments)


class Config(Settings):
    """config.yaml."""

    seeds: tuple[Annotated[int, Field(ge=0, lt=2**32)], ...] = Field(
        default=(0,), min_length=1, description="each experiment is trained once per seed"
    )
    summary: tuple[Name, ...] = Field(
        default=(), description="data sets shown together in results/summary.csv and report.html"
    )
    cache: str = Field(
        default="",
        description="folder of answers and vectors that several workflows share: explain and embed "
        "reuse its files and add their own; empty: no shared folder",
    )
    defaults: Defaults = Defaults()
    experiments: dict[Name, Experiment] = Field(min_length=1, json_schema_extra=_FORBID_OTHER_NAMES)
    datasets: dict[Name, DatasetSettings] = Field(
        min_length=1, json_schema_extra=_FORBID_OTHER_NAMES
    )
    tables: dict[Name, Table] = Field(
        default={},
        description="comparisons of experiments; each name is a target",
        json_schema_extra=_FORBID_OTHER_NAMES,
    )

    def experiments_of(self, dataset: str) -> list[str]:
        """List the experiments that a data set may train: its own, and those of tables."""
        names = self.tables if dataset in self.summary else self.datasets[dataset].tables
        compared = (self.tables[name].rows for name in names if name in self.tables)
        named = chain(self.datasets[dataset].experiments, *compared)
        return [name for name in dict.fromkeys(named) if name in self.experiments]

    def dataset(self, name: str) -> DatasetSettings:
        """Merge a data set over the defaults; fields that its choices make unused are reset.

        Raises
        ------
        ConfigError
            The combination is impossible; cannot happen for a parsed config.
        """
        return _resolve(
            DatasetSettings,
            f"datasets.{name}",
            "over defaults",
            _merge(_explicit_values(self.defaults), _explicit_values(self.datasets[name])),
        ).reset_unused_fields()

    def experiment(self, dataset: str, name: str) -> Experiment:
        """Merge an experiment over the data set and the defaults; unused fields are reset.

        Raises
        ------
        ConfigError
            The combination is impossible; cannot happen for a parsed config if the data set lists
            the experiment, or if a table has it that the data set lists or, for a data set of
            `summary`, any table.
        """
        merged = _merge(_explicit_values(self.defaults), _explicit_values(self.datasets[dataset]))
        merged = _merge(merged, _explicit_values(self.experiments[name]))
        return _resolve(
            Experiment,
            f"experiments.{name}",
            f"over datasets.{dataset} and defaults",
            {key: merged.get(key, {}) for key in Experiment.model_fields},
        ).reset_unused_fields()


def _explicit_values(model: BaseModel) -> dict[str, Any]:
    """Return only the values that the user set, so that defaults do not override earlier values."""
    return model.model_dump(exclude_unset=True)


def _merge(base: Mapping[str, Any], overrides: Mapping[str, Any]) -> dict[str, Any]:
    merged = dict(base)
    for key, value in overrides.items():
        old = merged.get(key)
        nested = isinstance(old, Mapping) and isinstance(value, Mapping)
        merged[key] = _merge(old, value) if nested else value  # type: ignore[arg-type]
    return merged


def _resolve(model: type[S], where: str, layers: str, values: Mapping[str, Any]) -> S:
    """Validate merged values; faults are reported at `where`, the last place that can set them.

    Each part is already valid by itself, so a fault here comes from their combination.
    """
    try:
        return model.model_validate(values)
    except ValidationError as error:
        faults = describe_faults(error, model)
        raise ConfigError(f"{where}.{fault} ({layers})" for fault in faults) from None


# Allowed values for each error type of pydantic; the error context fills the placeholders.
_ALLOWED = {
    "bool_parsing": "true or false",
    "bool_type": "true or false",
    "dict_type": "keys with values",
    "finite_number": "a finite number",
    "float_parsing": "a number",
    "float_type": "a number",
    "greater_than": "a number above {gt}",
    "greater_than_equal": "a number of at least {ge}",
    "int_from_float": "a whole number",
    "int_parsing": "a whole number",
    "int_type": "a whole number",
    "invalid_key": "text as a key, in quotes if necessary",
    "less_than": "a number below {lt}",
    "less_than_equal": "a number of at most {le}",
    "literal_error": "{expected}",
    "model_type": "keys with values, or {{}} to set nothing",
    "multiple_of": "a multiple of {multiple_of}",
    "string_pattern_mismatch": "a lower-case letter, then lower-case letters, digits or _",
    "string_too_long": "at most {max_length} characters",
    "string_type": "text; put a number, a date, true or false in quotes",
    "too_long": "at most {max_length} entries",
    "too_short": "at least {min_length} entries",
    "tuple_type": "a list, as in [1, 2] or [full, gaze_only]",
}


def _type_at(annotation: Any, loc: Iterable[int | str]) -> Any:
    """Return the type of the field at `loc` inside a value of type `annotation`."""
    for key in loc:
        if get_origin(annotation) is dict:
            annotation = get_args(annotation)[1]
        elif get_origin(annotation) is tuple:
            annotation = get_args(annotation)[0]
        else:
            annotation = annotation.model_fields[key].annotation
        if get_origin(annotation) in (Union, UnionType):  # all unions here are `X | None`
            annotation = get_args(annotation)[0]
    return annotation


def dotted_path(loc: Iterable[int | str]) -> str:
    """Format a location as a path: `datasets.kvasir.prepare.size[0]`."""
    path = "".join(f"[{key}]" if isinstance(key, int) else f".{key}" for key in loc)
    return path.removeprefix(".")


def describe_faults(error: ValidationError, model: type[BaseModel]) -> Iterable[str]:
    """Describe pydantic's errors in the words of a user who writes YAML."""
    for fault in error.errors():
        kind, found, context = fault["type"], fault["input"], fault.get("ctx", {})
        loc = tuple(key for key in fault["loc"] if key != "[key]")
        path = dotted_path(loc)
        if kind == "extra_forbidden":
            known = _type_at(model, loc[:-1]).model_fields
            yield f"{path}: unknown key; {_suggest(str(loc[-1]), known)}"
        elif kind == "missing" and isinstance(loc[-1], int):
            length = len(get_args(_type_at(model, loc[:-1])))
            parent = dotted_path(loc[:-1])
            yield f"{parent}: found {_format_value(found)}; allowed: {length} entries"
        elif kind == "missing":
            yield f"{path}: missing; it has no default"
        elif kind == "value_error":
            yield f"{path}: {context['error']}"
        # pydantic also reports a list as too short if one of its entries is invalid: skip that.
        elif kind != "too_short" or len(found) < context["min_length"]:
            allowed = _ALLOWED[kind].format(**context) if kind in _ALLOWED else fault["msg"]
            yield f"{path}: found {_format_value(found)}; allowed: {allowed}"


def _format_value(value: Any) -> str:
    # A date is shown without quotes; with quotes it would be text.
    if isinstance(value, date):
        return str(value)
    text = json.dumps(value, default=str, ensure_ascii=False, skipkeys=True)
    return text if len(text) < 80 else text[:77] + "..."


def _suggest(found: str, known: Iterable[str]) -> str:
    near = difflib.get_close_matches(found, known := sorted(known), n=1)
    return (f"did you mean {near[0]!r}? " if near else "") + f"allowed: {', '.join(known)}"


def _check_names(path: str, names: Iterable[str], known: Iterable[str]) -> Iterable[str]:
    for name in names:
        if name not in known:
            yield f"{path}: found {name!r}; {_suggest(name, known)}"


def _check_unique(path: str, values: tuple[Any, ...]) -> Iterable[str]:
    for value in values:
        if values.count(value) > 1:
            yield f"{path}: found {value!r} {values.count(value)} times; allowed: each once"


def _check_combinations(config: Config) -> Iterable[str]:
    """Yield the faults that only show when the parts of the configuration are combined."""
    yield from _check_unique("seeds", config.seeds)
    yield from _check_unique("summary", config.summary)
    yield from _check_names("summary", config.summary, config.datasets)
    try:
        _resolve(
            Defaults, "defaults", "over the built-in defaults", _explicit_values(config.defaults)
        )
    except ConfigError as error:
        # Stop here: every data set would repeat these faults.
        yield from error.faults
        return
    for name in RESULT_FOLDERS & set(config.experiments):
        yield f"experiments.{name}: the name is a folder of the results; choose another"
    yield from _check_tables(config)
    demo_roots = tuple(part.root for part in config.datasets.values() if part.demo)
    yield from _check_unique("datasets with demo, their root", demo_roots)
    for name, part in config.datasets.items():
        path = f"datasets.{name}"
        if part.demo and not re.fullmatch(f"{DEMO_ROOT}[^/]+", part.root):
            allowed = f"a folder of {DEMO_ROOT} for a phantom"
            yield f"{path}.root: found {part.root!r}; allowed: {allowed}"
        if part.fetched_by_workflow and part.root != LESIONS_ROOT:
            allowed = f"{LESIONS_ROOT!r} for the layout lesions"
            yield f"{path}.root: found {part.root!r}; allowed: {allowed}"
        if name in RESERVED_NAMES or name.startswith(TARGET_PREFIXES):
            yield f"{path}: the name is a target of the workflow; choose another"
        yield from _check_unique(f"{path}.experiments", part.experiments)
        yield from _check_names(f"{path}.experiments", part.experiments, config.experiments)
        yield from _check_unique(f"{path}.tables", part.tables)
        yield from _check_names(f"{path}.tables", part.tables, config.tables)
        try:
            dataset = config.dataset(name)
        except ConfigError as error:
            yield from error.faults
            continue
        if (dataset.fixations is None) == (dataset.gaze.simulate is None):
            yield (
                f"{path}: found fixations: {_format_value(dataset.fixations)} and gaze.simulate "
                f"{'set' if dataset.gaze.simulate else 'not set'}; allowed: exactly one of the "
                "two, recorded fixations or the scan model that simulates them"
            )
        for experiment in config.experiments_of(name):
            try:
                resolved = config.experiment(name, experiment)
            except ConfigError as error:
                yield from error.faults
                continue
            for fault in _check_training(dataset, resolved):
                yield f"experiments.{experiment}.{fault} (over datasets.{name} and defaults)"


def _check_training(dataset: DatasetSettings, experiment: Experiment) -> Iterable[str]:
    """Yield the faults of an experiment on its data set; each starts with the network's name."""
    networks: dict[str, TeacherSettings | StudentSettings] = {"student": experiment.student}
    if experiment.student.needs_teacher:
        networks["teacher"] = experiment.teacher
    for network, settings in networks.items():
        if dataset.gpus and settings.batch_size % dataset.gpus:
            yield (
                f"{network}.batch_size: found {settings.batch_size}; allowed: a multiple of"
                f" gpus: {dataset.gpus}"
            )
        height, width = dataset.prepare.size
        if settings.augment.quarter_turns and height != width:
            yield (
                f"{network}.augment.quarter_turns: found true; allowed: false, because prepare.size"
                f" [{height}, {width}] is not square"
            )
        if (settings.levels or 1) > 1 and len(dataset.gaze.thresholds) == 1:
            yield (
                f"{network}.levels: found {settings.levels}; allowed: 1, because gaze.thresholds"
                " has a single value"
            )


def _check_tables(config: Config) -> Iterable[str]:
    for name, table in config.tables.items():
        path = f"tables.{name}"
        targets = (
            name in RESERVED_NAMES or name in config.datasets or name.startswith(TARGET_PREFIXES)
        )
        if targets or name in RESULT_TABLES:
            yield f"{path}: the name is a target or a table of the workflow; choose another"
        yield from _check_names(f"{path}.reference", [table.reference], config.experiments)
        yield from _check_names(f"{path}.experiments", table.experiments, config.experiments)
        yield from _check_unique(f"{path}.experiments", table.experiments)
        if table.reference in table.experiments:
            yield (
                f"{path}.experiments: found {table.reference!r}, the reference; "
                "allowed: other experiments, to compare with it"
            )


def parse(raw: Mapping[str, Any]) -> Config:
    """Validate the content of config.yaml.

    Keys, types and ranges are checked first; combinations only if all of these are valid.

    Raises
    ------
    ConfigError
        The message has one line per fault: the path of the key, the value found, the allowed
        values and, for a misspelled key, the likely one.
    """
    try:
        # The values of one place may be impossible alone, but possible when merged with others.
        config = Config.model_validate(raw, context={"partial": True})
    except ValidationError as error:
        raise ConfigError(describe_faults(error, Config)) from None
    if faults := list(_check_combinations(config)):
        raise ConfigError(faults)
    return config


def schema() -> str:
    """Return the JSON Schema of config.yaml, which workflow/schemas/ holds."""
    return json.dumps(Config.model_json_schema(), indent=2, sort_keys=True) + "\n"


if __name__ == "__main__":
    Path(sys.argv[1]).write_text(schema())
