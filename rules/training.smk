"""Pretrained encoders, teacher and student."""

import re

from rules.training import (
    encoder_weights_inputs,
    encoders,
    pseudolabels_settings,
    student_code,
    student_inputs,
    student_settings,
    teacher_inputs,
    teacher_network_inputs,
    teacher_settings,
)

ENCODERS = encoders(CONFIG)


def training_gpus(wildcards):
    """Count the GPUs of a training.

    Snakemake would lower them to the limit of the run, and a later run with another limit would
    then train everything anew.
    """
    gpus = CONFIG.dataset(wildcards.dataset).gpus
    limit = workflow.global_resources.get("gpu")
    # None, or a limit without a value: no limit.
    if workflow.is_main_process and gpus > 1 and limit and (limit.value or gpus) < gpus:
        raise WorkflowError(
            f"data set {wildcards.dataset}: a training asks for gpus: {gpus}, and this run has"
            f" {limit.value}: run snakemake with --resources gpu={gpus}, or lower `gpus`"
        )
    return gpus


def launch(wildcards, resources):
    """Start one process for each GPU, in place of the shell, which a signal would end."""
    gpus = count_gpus(wildcards, resources)
    if gpus > 1:
        return (
            "exec python -m torch.distributed.run --standalone"
            # Seconds that writing a checkpoint may take; SLURM has its own limit.
            f" --shutdown-timeout 600 --nproc-per-node {gpus} -m"
        )
    return "exec python -m"


rule encoder:
    """Fetch the pretrained weights of an encoder, and check that it fits."""
    input:
        unpack(from_config(encoder_weights_inputs)),
    output:
        weights="results/encoders/{encoder}.safetensors",
    log:
        "results/logs/encoder_{encoder}.log",
    benchmark:
        "results/benchmarks/encoder_{encoder}.tsv"
    wildcard_constraints:
        encoder="|".join(map(re.escape, ENCODERS)) or "(?!)",
    # Before any training, so that a wrong name stops at once.
    priority: 2
    # Compute nodes see no internet.
    localrule: True
    conda:
        "../envs/training.yaml"
    threads: 1
    params:
        settings=lambda wildcards: ENCODERS[wildcards.encoder].model_dump_json(),
        code=fingerprint("stages.training.encoder"),
    shell:
        "python -m stages.training.encoder --output {output.weights:q}"
        " --settings {params.settings:q} --code {params.code} --log {log:q}"


rule teacher:
    """Train the teacher on the precise gaze region, fused with the text."""
    input:
        unpack(from_config(teacher_network_inputs)),
        prepared="results/{dataset}/prepared.h5",
        gaze="results/{dataset}/gaze.h5",
    output:
        weights="results/{dataset}/{experiment}/seed{seed}/teacher.safetensors",
        history="results/{dataset}/{experiment}/seed{seed}/teacher_history.csv",
    log:
        "results/{dataset}/{experiment}/seed{seed}/logs/teacher.log",
    benchmark:
        "results/{dataset}/{experiment}/seed{seed}/benchmarks/teacher.tsv"
    conda:
        "../envs/training.yaml"
    threads: dataset_threads
    resources:
        gpu=training_gpus,
        # Not a parameter: where the data lie changes no result.
        resident_mb=dataset_setting(lambda dataset: dataset.resident_mb),
    params:
        launch=launch,
        gpus=count_gpus,
        # Not an output: a checkpoint outlives a killed job.
        work="results/{dataset}/{experiment}/seed{seed}/work",
        quality=option("quality"),
        explanations=option("explanations"),
        encoder=option("encoder"),
        settings=from_config(teacher_settings),
        code=fingerprint("stages.training.teacher"),
    shell:
        "{params.launch} stages.training.teacher --prepared {input.prepared:q} --gaze {input.gaze:q}"
        " {params.quality} {params.explanations} {params.encoder} --output {output.weights:q}"
        " --history {output.history:q} --settings {params.settings:q}"
        " --seed {wildcards.seed} --work {params.work:q} --threads {threads}"
        " --gpus {params.gpus} --resident-mb {resources.resident_mb}"
        " --code {params.code} --log {log:q}"


rule pseudolabels:
    """Draw what the teacher says of the training images to their edges."""
    input:
        unpack(from_config(teacher_inputs)),
        prepared="results/{dataset}/prepared.h5",
    output:
        pseudolabels="results/{dataset}/{experiment}/seed{seed}/pseudolabels.h5",
    log:
        "results/{dataset}/{experiment}/seed{seed}/logs/pseudolabels.log",
    benchmark:
        "results/{dataset}/{experiment}/seed{seed}/benchmarks/pseudolabels.tsv"
    conda:
        "../envs/training.yaml"
    threads: dataset_threads
    resources:
        gpu=one_gpu,
    params:
        explanations=option("explanations"),
        settings=from_config(pseudolabels_settings),
        code=fingerprint("stages.training.pseudolabels"),
    shell:
        "python -m stages.training.pseudolabels --prepared {input.prepared:q}"
        " {params.explanations} --teacher {input.teacher:q}"
        " --output {output.pseudolabels:q} --settings {params.settings:q}"
        " --threads {threads} --gpus {resources.gpu} --code {params.code} --log {log:q}"


rule student:
    """Train the student by the experiment's method."""
    input:
        unpack(from_config(student_inputs)),
    output:
        weights="results/{dataset}/{experiment}/seed{seed}/student.safetensors",
        history="results/{dataset}/{experiment}/seed{seed}/student_history.csv",
    log:
        "results/{dataset}/{experiment}/seed{seed}/logs/student.log",
    benchmark:
        "results/{dataset}/{experiment}/seed{seed}/benchmarks/student.tsv"
    conda:
        "../envs/training.yaml"
    threads: dataset_threads
    resources:
        gpu=training_gpus,
        # Not a parameter: where the data lie changes no result.
        resident_mb=dataset_setting(lambda dataset: dataset.resident_mb),
    params:
        launch=launch,
        gpus=count_gpus,
        work="results/{dataset}/{experiment}/seed{seed}/work",
        gaze=option("gaze"),
        quality=option("quality"),
        explanations=option("explanations"),
        teacher=option("teacher"),
        pseudolabels=option("pseudolabels"),
        encoder=option("encoder"),
        settings=from_config(student_settings),
        code=from_config(student_code),
    shell:
        "{params.launch} stages.training.student --prepared {input.prepared:q} {params.gaze}"
        " {params.quality} {params.explanations} {params.teacher} {params.pseudolabels}"
        " {params.encoder}"
        " --output {output.weights:q} --history {output.history:q} --settings {params.settings:q}"
        " --seed {wildcards.seed} --work {params.work:q} --threads {threads}"
        " --gpus {params.gpus} --resident-mb {resources.resident_mb}"
        " --code {params.code} --log {log:q}"
