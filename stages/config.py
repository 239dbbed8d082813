"""config.yaml as frozen objects: parsed once, when the workflow is parsed.

A value is looked up in three places, the later winning: `defaults`, the data set, and, for
teacher and student, the experiment. Each result is validated whole, so an impossible combination
stops before any job, wherever its parts were written.
"""

import difflib
import json
import sys
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Annotated, Any, get_args

from pydantic import BaseModel, Field, ValidationError

from stages.settings.base import Settings
from stages.settings.demo_data import DemoSettings
from stages.settings.explain import EmbedSettings, ExplainSettings
from stages.settings.gaze import GazeSettings
from stages.settings.prepare import PrepareSettings
from stages.settings.training import StudentSettings, TeacherSettings

# Names become folders and targets.
Name = Annotated[str, Field(pattern=r"^[a-z][a-z0-9_]*$", max_length=40)]
# Targets of the workflow itself, which no data set may take.
RESERVED = frozenset({"all", "demo", "report", "summarise", "evaluate", "predict"})
STAGES = ("gaze", "explain", "embed", "teacher", "student")


class ConfigError(Exception):
    """config.yaml cannot be used; the message lists every fault with its path."""


class Defaults(Settings):
    """What holds for every data set that does not say otherwise."""

    gaze: GazeSettings = GazeSettings()
    explain: ExplainSettings = ExplainSettings()
    embed: EmbedSettings = EmbedSettings()
    teacher: TeacherSettings = TeacherSettings()
    student: StudentSettings = StudentSettings()


class DatasetSettings(Defaults):
    """One data set: where it is, how to read it, and what it sets of the defaults."""

    title: str = Field(description="name in tables and figures")
    note: str = Field(default="", description="what a reader of its figures must know")
    root: str = Field(description="folder of the raw data")
    prepare: PrepareSettings
    fixations: str | None = Field(
        default=None, description="fixation CSV; none: gaze.simulate says how they are simulated"
    )
    experiments: tuple[Name, ...] = Field(
        default=("full", "gaze_only", "supervised"), description="what its target runs"
    )
    threads: int = Field(default=4, ge=1, description="CPU threads of a training job")
    gpus: int = Field(default=1, ge=0, description="GPUs that a training job asks for; 0: none")
    mask_seconds: float | None = Field(
        default=None, gt=0, description="seconds to draw one full mask by hand, from literature"
    )
    demo: DemoSettings | None = Field(
        default=None, description="how the workflow makes the raw data itself (demo only)"
    )


class Experiment(Settings):
    """A named set of overrides."""

    teacher: TeacherSettings = TeacherSettings()
    student: StudentSettings = StudentSettings()


class Config(Settings):
    """config.yaml."""

    seeds: tuple[Annotated[int, Field(ge=0)], ...] = Field(
        default=(0,), min_length=1, description="each experiment is trained once per seed"
    )
    summary: tuple[Name, ...] = Field(
        default=(), description="data sets side by side in results/summary.csv and report.html"
    )
    defaults: Defaults = Defaults()
    experiments: dict[Name, Experiment] = Field(min_length=1)
    datasets: dict[Name, DatasetSettings] = Field(min_length=1)

    def dataset(self, name: str) -> DatasetSettings:
        """Resolve a data set over the defaults."""
        merged = _merge(_given(self.defaults), _given(self.datasets[name]))
        return DatasetSettings.model_validate(merged)

    def experiment(self, dataset: str, name: str) -> Experiment:
        """Resolve an experiment over a data set over the defaults."""
        merged = _merge(
            _merge(_given(self.defaults), _given(self.datasets[dataset])),
            _given(self.experiments[name]),
        )
        return Experiment.model_validate(
            {key: merged.get(key, {}) for key in Experiment.model_fields}
        )


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


def _models_in(annotation: Any) -> Iterable[type[BaseModel]]:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        yield annotation
    for part in get_args(annotation):
        yield from _models_in(part)


def _keys_at(model: type[BaseModel], path: Iterable[int | str]) -> list[str]:
    """Keys that are allowed beside the last element of `path`, which starts at `model`."""
    *parents, _ = path
    models = [model]
    for key in parents:
        below = [m.model_fields[str(key)].annotation for m in models if str(key) in m.model_fields]
        # A key of a mapping (the name of a data set) is no field: the models stay.
        models = [m for annotation in below for m in _models_in(annotation)] if below else models
    return sorted({name for m in models for name in m.model_fields})


def _describe(error: ValidationError, prefix: str = "") -> list[str]:
    faults = []
    model = {"Config": Config, "DatasetSettings": DatasetSettings, "Experiment": Experiment}[
        error.title
    ]
    for fault in error.errors():
        path = prefix + ".".join(str(part) for part in fault["loc"] if part != "[key]")
        if fault["type"] == "extra_forbidden":
            allowed = _keys_at(model, fault["loc"])
            near = difflib.get_close_matches(str(fault["loc"][-1]), allowed, n=1)
            hint = f"did you mean {near[0]!r}? " if near else ""
            faults.append(f"{path}: unknown key; {hint}allowed: {', '.join(allowed)}")
        elif fault["type"] == "missing":
            faults.append(f"{path}: missing; it has no default")
        else:
            message = fault["msg"].removeprefix("Value error, ")
            faults.append(f"{path}: found {_short(fault['input'])}; {message}")
    return faults


def _short(value: Any) -> str:
    text = json.dumps(value, default=str)
    return text if len(text) < 80 else text[:77] + "..."


def _unknown(path: str, found: str, known: Iterable[str]) -> str:
    known = sorted(known)
    near = difflib.get_close_matches(found, known, n=1)
    hint = f"did you mean {near[0]!r}? " if near else ""
    return f"{path}: found {found!r}; {hint}allowed: {', '.join(known)}"


def _cross_checks(config: Config) -> Iterable[str]:
    """Yield the faults that no single model can see."""
    for name in config.summary:
        if name not in config.datasets:
            yield _unknown("summary", name, config.datasets)
    for name in config.datasets:
        if name in RESERVED:
            yield f"datasets.{name}: the name is a target of the workflow; choose another"
        try:
            dataset = config.dataset(name)
        except ValidationError as error:
            yield from _describe(error, f"datasets.{name} (over defaults): ")
            continue
        if (dataset.fixations is None) == (dataset.gaze.simulate is None):
            yield (
                f"datasets.{name}: found fixations: {_short(dataset.fixations)} and gaze.simulate "
                f"{'set' if dataset.gaze.simulate else 'not set'}; exactly one of the two must be "
                "given: recorded fixations, or the scan model that simulates them"
            )
        for experiment in dataset.experiments:
            if experiment not in config.experiments:
                yield _unknown(f"datasets.{name}.experiments", experiment, config.experiments)
                continue
            try:
                config.experiment(name, experiment)
            except ValidationError as error:
                yield from _describe(
                    error, f"experiments.{experiment} (over datasets.{name} and defaults): "
                )


def parse(raw: Mapping[str, Any]) -> Config:
    """Validate the content of config.yaml.

    Raises
    ------
    ConfigError
        With one line per fault: the path of the key, the value found, what is allowed and, for a
        near miss, the likely key.
    """
    try:
        config = Config.model_validate(raw)
        faults = list(_cross_checks(config))
    except ValidationError as error:
        faults = _describe(error)
    if faults:
        raise ConfigError("config.yaml cannot be used:\n  " + "\n  ".join(faults))
    return config


def schema() -> str:
    """JSON Schema of config.yaml, as kept in workflow/schemas/."""
    return json.dumps(Config.model_json_schema(), indent=2, sort_keys=True) + "\n"


if __name__ == "__main__":
    Path(sys.argv[1]).write_text(schema())
