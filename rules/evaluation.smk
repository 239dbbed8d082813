"""Predictions, their metrics, and tables of these."""

from rules.evaluation import (
    compare_inputs,
    compare_settings,
    predict_settings,
    summarise_inputs,
    summarise_settings,
)
from rules.training import teacher_inputs


rule predict:
    """Predict the validation and test images."""
    input:
        unpack(from_config(teacher_inputs)),
        prepared="results/{dataset}/prepared.h5",
        student="results/{dataset}/{experiment}/seed{seed}/student.safetensors",
    output:
        predictions="results/{dataset}/{experiment}/seed{seed}/predictions.h5",
    log:
        "results/{dataset}/{experiment}/seed{seed}/logs/predict.log",
    benchmark:
        "results/{dataset}/{experiment}/seed{seed}/benchmarks/predict.tsv"
    conda:
        "../envs/evaluation.yaml"
    threads: dataset_threads
    resources:
        gpu=one_gpu,
    params:
        gpus=count_gpus,
        explanations=option("explanations"),
        teacher=option("teacher"),
        settings=from_config(predict_settings),
        code=fingerprint("stages.evaluation.predict"),
    shell:
        "python -m stages.evaluation.predict --prepared {input.prepared:q}"
        " --student {input.student:q} {params.explanations} {params.teacher}"
        " --output {output.predictions:q} --settings {params.settings:q}"
        " --threads {threads} --gpus {params.gpus} --code {params.code} --log {log:q}"


rule evaluate:
    """Compare predictions with the masks at full resolution."""
    input:
        prepared="results/{dataset}/prepared.h5",
        predictions="results/{dataset}/{experiment}/seed{seed}/predictions.h5",
    output:
        metrics="results/{dataset}/{experiment}/seed{seed}/metrics.csv",
    log:
        "results/{dataset}/{experiment}/seed{seed}/logs/evaluate.log",
    benchmark:
        "results/{dataset}/{experiment}/seed{seed}/benchmarks/evaluate.tsv"
    conda:
        "../envs/evaluation.yaml"
    threads: 1
    params:
        code=fingerprint("stages.evaluation.evaluate"),
    shell:
        "python -m stages.evaluation.evaluate --prepared {input.prepared:q}"
        " --predictions {input.predictions:q} --output {output.metrics:q}"
        " --code {params.code} --log {log:q}"


rule summarise:
    """Put a data set's experiments side by side in one table."""
    input:
        unpack(lambda wildcards: summarise_inputs(CONFIG, [wildcards.dataset])),
    output:
        summary="results/{dataset}/summary.csv",
    log:
        "results/{dataset}/logs/summarise.log",
    benchmark:
        "results/{dataset}/benchmarks/summarise.tsv"
    conda:
        "../envs/evaluation.yaml"
    threads: 1
    params:
        settings=lambda wildcards: summarise_settings(CONFIG, [wildcards.dataset]),
        code=fingerprint("stages.evaluation.summarise"),
    shell:
        "python -m stages.evaluation.summarise --metrics {input.metrics:q} --gaze {input.gaze:q}"
        " --output {output.summary:q} --settings {params.settings:q}"
        " --code {params.code} --log {log:q}"


use rule summarise as summarise_together with:
    input:
        unpack(lambda wildcards: summarise_inputs(CONFIG, CONFIG.summary)),
    output:
        summary="results/summary.csv",
    log:
        "results/logs/summarise.log",
    benchmark:
        "results/benchmarks/summarise.tsv"
    params:
        settings=summarise_settings(CONFIG, CONFIG.summary),
        code=fingerprint("stages.evaluation.summarise"),


rule compare:
    """Hold a table's experiments, over seeds, against its reference."""
    input:
        unpack(
            lambda wildcards: compare_inputs(
                CONFIG, wildcards.table, [wildcards.dataset]
            )
        ),
    output:
        table="results/{dataset}/{table}.csv",
    log:
        "results/{dataset}/logs/compare_{table}.log",
    benchmark:
        "results/{dataset}/benchmarks/compare_{table}.tsv"
    conda:
        "../envs/evaluation.yaml"
    threads: 1
    params:
        settings=lambda wildcards: compare_settings(
            CONFIG, wildcards.table, [wildcards.dataset]
        ),
        code=fingerprint("stages.evaluation.compare"),
    shell:
        "python -m stages.evaluation.compare --metrics {input.metrics:q} --gaze {input.gaze:q}"
        " --output {output.table:q} --settings {params.settings:q}"
        " --code {params.code} --log {log:q}"


use rule compare as compare_together with:
    input:
        unpack(
            lambda wildcards: compare_inputs(CONFIG, wildcards.table, CONFIG.summary)
        ),
    output:
        table="results/{table}.csv",
    log:
        "results/logs/compare_{table}.log",
    benchmark:
        "results/benchmarks/compare_{table}.tsv"
    params:
        settings=lambda wildcards: compare_settings(
            CONFIG, wildcards.table, CONFIG.summary
        ),
        code=fingerprint("stages.evaluation.compare"),
