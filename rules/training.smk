"""Pretrained encoders, teacher and student."""

import re

from rules.training import (
    encoder_weights_inputs,
    encoders,
    launch_command,
    pseudolabels_inputs,
    pseudolabels_settings,
    student_code,
    student_inputs,
    student_settings,
    teacher_network_inputs,
    teacher_settings,
    training_gpus,
)

ENCODERS = encoders(CONFIG)


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
    priority: 1
    conda:
        "../envs/training.yaml"
    threads: dataset_threads
    resources:
        gpu=from_config(training_gpus, limit=GPU_LIMIT),
        # Not a parameter: where the data lie changes no result.
        resident_mb=dataset_setting(lambda dataset: dataset.resident_mb),
    params:
        launch=lambda wildcards, resources: launch_command(
            count_gpus(wildcards, resources)
        ),
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
    """Join the teacher's predictions of the training images with the gaze, and align them."""
    input:
        unpack(from_config(pseudolabels_inputs)),
        prepared="results/{dataset}/prepared.h5",
    output:
        pseudolabels="results/{dataset}/{experiment}/seed{seed}/pseudolabels.h5",
    log:
        "results/{dataset}/{experiment}/seed{seed}/logs/pseudolabels.log",
    benchmark:
        "results/{dataset}/{experiment}/seed{seed}/benchmarks/pseudolabels.tsv"
    priority: 1
    conda:
        "../envs/training.yaml"
    threads: dataset_threads
    resources:
        gpu=one_gpu,
    params:
        gaze=option("gaze"),
        explanations=option("explanations"),
        settings=from_config(pseudolabels_settings),
        code=fingerprint("stages.training.pseudolabels"),
    shell:
        "python -m stages.training.pseudolabels --prepared {input.prepared:q}"
        " {params.gaze} {params.explanations} --teacher {input.teacher:q}"
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
        gpu=from_config(training_gpus, limit=GPU_LIMIT),
        # Not a parameter: where the data lie changes no result.
        resident_mb=dataset_setting(lambda dataset: dataset.resident_mb),
    params:
        launch=lambda wildcards, resources: launch_command(
            count_gpus(wildcards, resources)
        ),
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
