"""Configuration, and the choice of files that several rules share."""

import os
import shlex
import signal
import sys
from functools import wraps
from pathlib import Path

import yaml
from snakemake.exceptions import WorkflowError

# Of this file, wherever the run and, of a workflow that uses this one, the main Snakefile are.
ROOT = Path(workflow.current_basedir.get_path_or_uri(secret_free=True)).resolve().parent
sys.path.insert(0, str(ROOT))
# By it a job finds the stages from any working directory.
known = filter(None, [str(ROOT), os.environ.get("PYTHONPATH")])
os.environ.update(PYTHONPATH=os.pathsep.join(known))

# Under another name: all includes share one namespace with Snakemake's own `parse`.
from stages.core.config import (
    SCANS,
    Config,
    ConfigError,
    parse as parse_config,
    repeated,
)
from stages.core.contents import contents, refusal
from stages.data.datasets import layouts
from stages.core.fingerprint import fingerprint
from stages.settings.evaluation import CompareSettings
from stages.settings.report import History, ReportDataset, ReportSettings, Training
from stages.settings.modules import (
    SIMULATION,
    encoder_module,
    explain_module,
    method_module,
    reader_module,
)
from stages.settings.evaluation import Run, SummariseSettings
from stages.settings.report import TabulateSettings
from stages.settings.explain import TextsSettings
from stages.settings.verify import VerifySettings

try:
    # A job has them as the main process found them.
    for file in workflow.configfiles if workflow.is_main_process else []:
        if faults := list(repeated(yaml.compose(Path(file).read_text("utf-8")))):
            raise ConfigError(faults)
    CONFIG: Config = parse_config(config)
except ConfigError as error:
    raise WorkflowError(str(error)) from None

# What fetch_lesions makes: files, so that others may lie beside them.
SCAN_FILES = [f"{SCANS}/{name}" for name in layouts.LAYOUTS["lesions"].entries]

# On a cluster, where a job has its own: --profile leaves the default profile's limits in force,
# which are those of one machine.
if workflow.is_main_process and workflow.resource_scopes.is_local("gpu"):
    for name in ("gpu", "_cores"):
        workflow.register_resource(name, None)

# SLURM signals all processes of a job: Snakemake is to outlive the training that it waits for.
signal.signal(signal.SIGUSR1, signal.SIG_IGN)


wildcard_constraints:
    dataset="|".join(CONFIG.datasets),
    experiment="|".join(CONFIG.experiments),
    # Without tables no name is one: an empty pattern would match any.
    table="|".join(CONFIG.tables) or "(?!)",
    seed=r"\d+",
    shard=r"\d+",
    shards=r"\d+",


def draws_gaze(dataset):
    """Whether the rule that draws a phantom data set draws its recorded gaze, too."""
    return dataset.demo is not None and Path(dataset.fixations).is_relative_to(
        dataset.root
    )


def looks(function):
    """Have an input function name the data set whose files the system does not let it look at."""

    @wraps(function)
    def looking(wildcards):
        try:
            return function(wildcards)
        except OSError as error:
            raise WorkflowError(
                f"data set {wildcards.dataset}: {refusal(error)}"
            ) from None

    return looking


@looks
def raw_entries(wildcards):
    """What must lie in the raw folder; with one message on all that it lacks, otherwise.

    The entries, not the folder: its own time does not change with a split file's.
    """
    dataset = CONFIG.dataset(wildcards.dataset)
    if dataset.demo is not None:
        return dataset.root
    if dataset.fetched:
        return SCAN_FILES
    layout, fixations = dataset.prepare.layout, dataset.fixations
    root, drawn = Path(dataset.root), dataset.prepare.split == "drawn"
    key = f"datasets.{wildcards.dataset}.root"
    lack = layouts.missing(layout, root, fixations and Path(fixations), drawn, key)
    if lack is not None:
        raise WorkflowError(f"data set {wildcards.dataset}: {lack}")
    return without_times(layouts.present(layout, root, drawn))


def without_times(paths):
    """Paths as inputs, the folders' times not to count: `folder_contents` says what changes."""
    return [ancient(str(path)) if Path(path).is_dir() else str(path) for path in paths]


def folder_contents(paths):
    return [contents(Path(path)) for path in paths if Path(path).is_dir()]


@looks
def raw_contents(wildcards):
    """What lies in the folders of the raw data, where no rule draws them."""
    dataset = CONFIG.dataset(wildcards.dataset)
    if dataset.demo is not None:
        return []
    drawn = dataset.prepare.split == "drawn"
    return folder_contents(
        layouts.present(dataset.prepare.layout, Path(dataset.root), drawn)
    )


@looks
def gaze_contents(wildcards):
    """What lies in a folder of maps, where the recorded gaze is one."""
    dataset = CONFIG.dataset(wildcards.dataset)
    if dataset.fixations is None or draws_gaze(dataset):
        return []
    return folder_contents([dataset.fixations])


def verify_settings(wildcards):
    """How a data set's raw data are to be read, and what is to learn from their masks."""
    dataset = CONFIG.dataset(wildcards.dataset)
    gaze = dataset.gaze
    return VerifySettings(
        prepare=dataset.prepare,
        recording=gaze.recording,
        # Simulation drops fixations, too, but there are none to be verified.
        min_fixation_ms=0 if gaze.simulate else gaze.min_fixation_ms,
        partial=gaze.partial,
        supervised=[
            name
            for name in dataset.experiments
            if labels(wildcards.dataset, name) == "mask"
        ],
    ).model_dump_json()


def reader(wildcards):
    """The module that reads a data set's recorded gaze."""
    return reader_module(CONFIG.dataset(wildcards.dataset).gaze.recording.format)


def verify_code(wildcards):
    """What reads the raw data, and the recorded gaze where there is any."""
    dataset = CONFIG.dataset(wildcards.dataset)
    modules = ["stages.gaze.verify", f"stages.data.datasets.{dataset.prepare.layout}"]
    return fingerprint(
        *modules, *([] if dataset.gaze.simulate else [reader(wildcards)])
    )


def gaze_code(wildcards):
    """What makes the pseudomasks, and what reads or draws the gaze."""
    simulated = CONFIG.dataset(wildcards.dataset).gaze.simulate
    return fingerprint(
        "stages.gaze.pseudomasks", SIMULATION if simulated else reader(wildcards)
    )


def predict_settings(wildcards):
    """What predictions are written: attention is of a teacher that reads text."""
    attends = "explanations" in teacher_inputs(wildcards)
    predict = CONFIG.dataset(wildcards.dataset).predict
    return predict.model_copy(
        update={"attention": predict.attention and attends}
    ).model_dump_json()


@looks
def fixation_source(wildcards):
    """The recorded gaze; in the demo the raw folder in which it is made; none if simulated."""
    dataset = CONFIG.dataset(wildcards.dataset)
    if dataset.fixations is None:
        return []
    return dataset.root if draws_gaze(dataset) else without_times([dataset.fixations])


def there(wildcards, field, path):
    """`path`, which a setting names; a missing one would be no reason to run where results are."""
    if not Path(path).exists():
        raise WorkflowError(
            f"data set {wildcards.dataset}, {field}: {path} is not there: put it there, or mend the"
            " setting"
        )
    return path


@looks
def explain_inputs(wildcards):
    """What the backend needs beside images and gaze."""
    folder = f"results/{wildcards.dataset}"
    inputs = {"prepared": f"{folder}/prepared.h5", "gaze": f"{folder}/gaze.h5"}
    explain = CONFIG.dataset(wildcards.dataset).explain
    if explain.backend in ("transformers", "openai"):
        # A user's own, or one of ours.
        own = Path(explain.prompt).exists()
        prompt = explain.prompt if own else str(ROOT / explain.prompt)
        inputs["prompt"] = there(wildcards, "explain.prompt", prompt)
    if explain.backend == "import":
        inputs["source"] = there(wildcards, "explain.source", explain.source)
    return inputs


def one_gpu(wildcards):
    """A GPU, where the data set's trainings have any."""
    return min(1, CONFIG.dataset(wildcards.dataset).gpus)


def training_gpus(wildcards):
    """The GPUs of a training.

    Snakemake would cut them down to the run's limit, and a later run train all anew with as many as
    its own.
    """
    gpus = CONFIG.dataset(wildcards.dataset).gpus
    limit = workflow.global_resources.get("gpu")
    # None or of no value: no limit.
    if workflow.is_main_process and gpus > 1 and limit and (limit.value or gpus) < gpus:
        raise WorkflowError(
            f"data set {wildcards.dataset}: a training asks for gpus: {gpus}, and this run has"
            f" {limit.value}: run snakemake with --resources gpu={gpus}, or lower `gpus`"
        )
    return gpus


def explain_gpus(wildcards):
    """A GPU for a model that runs here; an endpoint has its own."""
    backend = CONFIG.dataset(wildcards.dataset).explain.backend
    return one_gpu(wildcards) if backend == "transformers" else 0


@looks
def explain_model(wildcards):
    """What lies in the folder of a model that runs here, if it is one."""
    explain = CONFIG.dataset(wildcards.dataset).explain
    return folder_contents([explain.model] if explain.backend == "transformers" else [])


@looks
def embed_inputs(wildcards):
    """What the encoder reads beside the texts: vectors made elsewhere, or a file of weights."""
    embed = CONFIG.dataset(wildcards.dataset).embed
    inputs = {}
    if embed.source:
        source = there(wildcards, "embed.source", embed.source)
        inputs["source"] = without_times([source])
    weights = embed.weights
    # Else the name of published ones, which has no folder, or none.
    if Path(weights).is_file() or "/" in weights:
        inputs["weights"] = there(wildcards, "embed.weights", weights)
    return inputs


@looks
def embed_folders(wildcards):
    """What lies in the folder of vectors, or of a model."""
    embed = CONFIG.dataset(wildcards.dataset).embed
    folders = (embed.source, embed.model.removeprefix("local-dir:"))
    return folder_contents([folder for folder in folders if folder])


def student_inputs(wildcards):
    """Only what the experiment's student learns from."""
    student = CONFIG.experiment(wildcards.dataset, wildcards.experiment).student
    folder = f"results/{wildcards.dataset}"
    inputs = {"prepared": f"{folder}/prepared.h5"}
    if student.labels == "pseudomask":
        inputs["gaze"] = f"{folder}/gaze.h5"
        inputs |= left_out(wildcards)
    if student.trains_teacher:
        inputs |= told(wildcards)
    if student.reads_pseudolabels:
        run = f"{folder}/{wildcards.experiment}/seed{wildcards.seed}"
        inputs["pseudolabels"] = f"{run}/pseudolabels.h5"
    return inputs | teacher_inputs(wildcards)


def student_settings(wildcards):
    """The student's settings, with the widths of the teacher that its method trains along."""
    experiment = CONFIG.experiment(wildcards.dataset, wildcards.experiment)
    student = experiment.student
    if student.trains_teacher and student.teacher_widths is None:
        widths = {"teacher_widths": experiment.teacher.widths}
        student = student.model_copy(update=widths)
    return student.model_dump_json()


def left_out(wildcards):
    """The table of gaze quality, where it leaves samples out of training."""
    if not CONFIG.dataset(wildcards.dataset).quality.leave_out:
        return {}
    return {"quality": f"results/{wildcards.dataset}/gaze_quality.csv"}


def told(wildcards):
    """The explanations, for a teacher that reads them."""
    if not reads_text(wildcards.dataset, wildcards.experiment):
        return {}
    return {"explanations": f"results/{wildcards.dataset}/explanations.h5"}


def teacher_inputs(wildcards):
    """The teacher and its text, for an experiment that has one."""
    student = CONFIG.experiment(wildcards.dataset, wildcards.experiment).student
    if not student.needs_teacher:
        return {}
    run = f"results/{wildcards.dataset}/{wildcards.experiment}/seed{wildcards.seed}"
    return {"teacher": f"{run}/teacher.safetensors"} | told(wildcards)


def count_gpus(wildcards, resources):
    """How many GPUs a job asks for: `gpu`, or `gres` (gpu, gpu:2, gpu:a100:2) of a profile."""
    if gres := resources.get("gres"):
        count = gres.rpartition(":")[2]
        return int(count) if count.isdigit() else 1
    return resources.gpu


def launch(wildcards, resources):
    """How a training starts: a process per GPU, in place of the shell, which signals would end."""
    gpus = count_gpus(wildcards, resources)
    if gpus > 1:
        return (
            "exec python -m torch.distributed.run --standalone"
            # As long as a checkpoint may take to be written, s: SLURM has a limit of its own.
            f" --shutdown-timeout 600 --nproc-per-node {gpus} -m"
        )
    return "exec python -m"


def optional(name):
    """`--name FILE` for an input that only some experiments have."""
    return lambda wildcards, input: (
        f"--{name} {shlex.quote(str(getattr(input, name)))}"
        if name in input.keys()
        else ""
    )


def runs(names, seeds=CONFIG.seeds):
    """(data set, experiment, seed) of every training of the named data sets."""
    return [
        (name, experiment, seed)
        for name in names
        for experiment in CONFIG.dataset(name).experiments
        for seed in seeds
    ]


def compared(table, names):
    """(data set, experiment, seed) of every training that a table is of."""
    return [
        (name, experiment, seed)
        for name in names
        for experiment in CONFIG.tables[table].rows
        for seed in CONFIG.seeds
    ]


def trained(names):
    """(data set, experiment, seed, network) of everything that these trainings train."""
    return [
        (name, experiment, seed, network)
        for name, experiment, seed in runs(names)
        for network in ("teacher", "student")
        if network == "student"
        or CONFIG.experiment(name, experiment).student.needs_teacher
    ]


def per_dataset(file, names):
    return [f"results/{name}/{file}" for name in names]


def finished(names):
    """What a user looks at in the end, and the check of the raw data."""
    return [
        file
        for name in ("verified.csv", "summary.csv", "report.html")
        for file in per_dataset(name, names)
    ]


def per_run(file, chosen):
    return [
        f"results/{name}/{experiment}/seed{seed}/{file}"
        for name, experiment, seed in chosen
    ]


def labels(name, experiment):
    """What an experiment's student learns from."""
    return CONFIG.experiment(name, experiment).student.labels


def reads_text(name, experiment):
    """Whether a teacher of the experiment reads the explanations."""
    chosen = CONFIG.experiment(name, experiment)
    trained_first = chosen.student.needs_teacher and chosen.teacher.text
    return trained_first or chosen.student.trains_teacher


def looked_at(chosen):
    """The data sets of those trainings that learn from gaze."""
    return list(
        dict.fromkeys(
            name
            for name, experiment, _ in chosen
            if labels(name, experiment) == "pseudomask"
        )
    )


def measured(chosen):
    """What a table of trainings is made of."""
    return {
        "metrics": per_run("metrics.csv", chosen),
        "gaze": per_dataset("gaze.h5", looked_at(chosen)),
    }


def measured_settings(chosen):
    """What the files of `measured` are."""
    return SummariseSettings(
        runs=[
            Run(
                dataset=name,
                experiment=experiment,
                seed=seed,
                labels=labels(name, experiment),
                mask_seconds=(
                    CONFIG.dataset(name).mask_seconds
                    if labels(name, experiment) == "mask"
                    else None
                ),
            )
            for name, experiment, seed in chosen
        ],
        gaze=looked_at(chosen),
    )


def compare_settings(table, names):
    """How a table's experiments are compared."""
    chosen = CONFIG.tables[table]
    return CompareSettings(
        **dict(measured_settings(compared(table, names))),
        reference=chosen.reference,
        seed=chosen.seed,
    ).model_dump_json()


def described(names):
    """Titles and notes of data sets."""
    return [
        ReportDataset(name=name, title=dataset.title, note=dataset.note)
        for name, dataset in ((name, CONFIG.dataset(name)) for name in names)
    ]


def text_jobs(name):
    """(rule, wildcards) of each job from gaze to embedded text."""
    shards = CONFIG.dataset(name).explain.shards
    explained = [
        (rules.explain, {"dataset": name, "shard": shard, "shards": shards})
        for shard in range(shards)
    ]
    return explained + [
        (rule, {"dataset": name}) for rule in (rules.texts, rules.embed)
    ]


def run_jobs(name, experiment, seed):
    """(rule, wildcards) of each job of a training, from its networks to its metrics."""
    student = CONFIG.experiment(name, experiment).student
    needed = [rules.teacher] if student.needs_teacher else []
    needed += [rules.pseudolabels] if student.reads_pseudolabels else []
    needed += [rules.student, rules.predict, rules.evaluate]
    of = {"dataset": name, "experiment": experiment, "seed": seed}
    return [(rule, of) for rule in needed]


def jobs(chosen, shown):
    """(rule, wildcards) of each job behind trainings and, if it is shown, behind a report on them."""
    found = []
    for name in dict.fromkeys(name for name, _, _ in chosen):
        own = [run for run in chosen if run[0] == name]
        shared = [rules.prepare]
        if shown or looked_at(own):
            shared.append(rules.pseudomasks)
        if shown or CONFIG.dataset(name).quality.leave_out:
            shared.append(rules.quality)
        found += [(rule, {"dataset": name}) for rule in shared]
        if shown or any(reads_text(*run[:2]) for run in own):
            found += text_jobs(name)
        found += [job for run in own for job in run_jobs(*run)]
    return found


def results(jobs):
    """What jobs make."""
    return [file for rule, of in jobs for file in expand(rule.output, **of)]


def logs(jobs):
    """The log of each of `results`."""
    return [
        log for rule, of in jobs for log in expand(rule.log, **of) for _ in rule.output
    ]


def dataset_report_jobs(name):
    """What the report on one data set rests on."""
    return jobs(runs([name]), shown=True) + [(rules.summarise, {"dataset": name})]


def joint_report_jobs():
    """What the report on all data sets of `summary` rests on."""
    return jobs(runs(CONFIG.summary), shown=True) + [(rules.summarise_together, {})]


def table_jobs(table):
    """What a table's page rests on."""
    own = [
        (rules.compare, {"dataset": name, "table": table}) for name in CONFIG.summary
    ]
    needed = jobs(compared(table, CONFIG.summary), shown=False)
    return needed + own + [(rules.compare_together, {"table": table})]


def report_inputs(names):
    """What a report over data sets is made of: pictures of each experiment's first seed."""
    shown = runs(names, CONFIG.seeds[:1])
    return {
        "prepared": per_dataset("prepared.h5", names),
        "gaze": per_dataset("gaze.h5", names),
        "quality": per_dataset("gaze_quality.csv", names),
        "explanations": per_dataset("explanations.h5", names),
        "predictions": per_run("predictions.h5", shown),
        "metrics": per_run("metrics.csv", shown),
        "histories": [
            f"results/{name}/{experiment}/seed{seed}/{network}_history.csv"
            for name, experiment, seed, network in trained(names)
        ],
    }


def report_settings(names):
    """What the files of `report_inputs` are."""
    return ReportSettings(
        datasets=described(names),
        trainings=[
            Training(dataset=name, experiment=experiment, seed=seed)
            for name, experiment, seed in runs(names, CONFIG.seeds[:1])
        ],
        histories=[
            History(dataset=name, experiment=experiment, seed=seed, network=network)
            for name, experiment, seed, network in trained(names)
        ],
    ).model_dump_json()
