"""The parsed configuration, and what the rules of all families use."""

import os
import shlex
import signal
import sys
from pathlib import Path

from snakemake.exceptions import WorkflowError

# The folder of this workflow, wherever it runs, also as a module of another workflow.
RULES = Path(workflow.current_basedir.get_path_or_uri(secret_free=True))
ROOT = RULES.resolve().parent
sys.path.insert(0, str(ROOT))
# Jobs import the stages from any working directory.
search_path = filter(None, [str(ROOT), os.environ.get("PYTHONPATH")])
os.environ.update(PYTHONPATH=os.pathsep.join(search_path))

from rules.paths import PlanError, check_workflow_folder

# All includes share one namespace, in which Snakemake has a `parse` of its own.
from stages.core.config import Config, ConfigError, parse as parse_config
from stages.core.config_file import check_files
from stages.core.contents import describe_os_error
from stages.core.fingerprint import fingerprint

try:
    check_workflow_folder(RULES, ROOT)
    # A job has the configuration as the main process read it, and a module that of its workflow.
    if workflow.is_main_process:
        check_files(workflow.configfiles, not workflow.modifier.skip_configfile)
except (ConfigError, PlanError) as error:
    raise WorkflowError(str(error)) from None


configfile: "config.yaml"


try:
    CONFIG: Config = parse_config(config)
except ConfigError as error:
    raise WorkflowError(str(error)) from None

# On a cluster SLURM counts GPUs and cores; the default profile's limits are those of one machine.
if workflow.is_main_process and workflow.resource_scopes.is_local("gpu"):
    for name in ("gpu", "_cores"):
        workflow.register_resource(name, None)

# GPUs that trainings may use at a time; None: no limit, or not the process that plans.
GPU_LIMIT = None
if workflow.is_main_process:
    GPU_LIMIT = getattr(workflow.global_resources.get("gpu"), "value", None)

# SLURM signals all processes of a job: Snakemake must outlive the training that it waits for.
signal.signal(signal.SIGUSR1, signal.SIG_IGN)


wildcard_constraints:
    dataset="|".join(CONFIG.datasets),
    experiment="|".join(CONFIG.experiments),
    # Without tables no name is one; an empty pattern would match any.
    table="|".join(CONFIG.tables) or "(?!)",
    seed=r"\d+",
    shard=r"\d+",
    shards=r"\d+",


def from_config(function, **given):
    """Make a Snakemake function of `function(CONFIG, <wildcards by name>, **given)`.

    Its errors name the data set, or what else the rule is of.
    """
    names = function.__code__.co_varnames[1 : function.__code__.co_argcount]

    def call(wildcards):
        try:
            return function(
                CONFIG, **{name: getattr(wildcards, name) for name in names}, **given
            )
        except (PlanError, OSError) as error:
            problem = describe_os_error(error) if isinstance(error, OSError) else error
        first = "dataset" if "dataset" in names else names[0]
        owner = f"{first.replace('dataset', 'data set')} {getattr(wildcards, first)}"
        raise WorkflowError(f"{owner}: {problem}") from None

    return call


def paths_from_config(function):
    """Make an input function like `from_config`; a digest counts in place of folders' times.

    A folder that a rule draws stays an ordinary input.
    """
    drawn = {dataset.root for dataset in CONFIG.datasets.values() if dataset.demo}

    def mark(path):
        return ancient(path) if path not in drawn and Path(path).is_dir() else path

    def marked(paths):
        if isinstance(paths, dict):
            return {name: mark(path) for name, path in paths.items()}
        return [mark(path) for path in paths]

    return lambda wildcards: marked(from_config(function)(wildcards))


def dataset_setting(function):
    """Make a Snakemake function of `function(settings of the data set)`."""
    return lambda wildcards: function(CONFIG.dataset(wildcards.dataset))


dataset_threads = dataset_setting(lambda dataset: dataset.threads)
# A GPU, if trainings of the data set have any.
one_gpu = dataset_setting(lambda dataset: min(1, dataset.gpus))


def count_gpus(wildcards, resources):
    """Count the GPUs of a job: `gpu`, or `gres` (gpu, gpu:2, gpu:a100:2) of a profile."""
    if gres := resources.get("gres"):
        count = gres.rpartition(":")[2]
        return int(count) if count.isdigit() else 1
    return resources.gpu


def option(name):
    """Make a params function: `--name FILE` if the rule has that input, else nothing."""
    return lambda wildcards, input: (
        f"--{name} {shlex.quote(str(getattr(input, name)))}"
        if name in input.keys()
        else ""
    )


def job_results(jobs):
    """List the outputs of jobs."""
    return [
        file
        for job in jobs
        for file in expand(getattr(rules, job.rule).output, **job.wildcards)
    ]


def job_logs(jobs):
    """List the log behind each file of `job_results`."""
    return [
        log
        for job in jobs
        for log in expand(getattr(rules, job.rule).log, **job.wildcards)
        for _ in getattr(rules, job.rule).output
    ]
