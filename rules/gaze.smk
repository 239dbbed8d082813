"""Fixations to pseudomasks, and checks of both."""

from rules.gaze import (
    feature_inputs,
    pseudomasks_code,
    quality_inputs,
    recording_contents,
    recording_paths,
    verify_code,
    verify_settings,
)


rule verify:
    """Read all raw data, and tell everything that is wrong with them at once."""
    input:
        raw=paths_from_config(raw_paths),
        source=paths_from_config(recording_paths),
    output:
        verified="results/{dataset}/verified.csv",
    log:
        "results/{dataset}/logs/verify.log",
    benchmark:
        "results/{dataset}/benchmarks/verify.tsv"
    # Before what would stop at a part of it.
    priority: 2
    conda:
        "../envs/gaze.yaml"
    threads: dataset_threads
    params:
        root=dataset_setting(lambda dataset: dataset.root),
        fixations=dataset_setting(lambda dataset: dataset.fixations or ""),
        raw=from_config(raw_contents),
        maps=from_config(recording_contents),
        settings=from_config(verify_settings),
        code=from_config(verify_code),
    shell:
        "python -m stages.gaze.verify --raw {params.root:q} --fixations {params.fixations:q}"
        " --output {output.verified:q} --settings {params.settings:q} --threads {threads}"
        " --code {params.code} --log {log:q}"


rule pseudomasks:
    """Turn fixations into heatmaps, refined maps and nested pseudomasks."""
    input:
        unpack(from_config(feature_inputs)),
        prepared="results/{dataset}/prepared.h5",
        source=paths_from_config(recording_paths),
    output:
        gaze="results/{dataset}/gaze.h5",
    log:
        "results/{dataset}/logs/pseudomasks.log",
    benchmark:
        "results/{dataset}/benchmarks/pseudomasks.tsv"
    priority: 1
    conda:
        "../envs/gaze.yaml"
    threads: dataset_threads
    resources:
        gpu=one_gpu,
    params:
        fixations=dataset_setting(lambda dataset: dataset.fixations or ""),
        maps=from_config(recording_contents),
        encoder=option("encoder"),
        settings=dataset_setting(lambda dataset: dataset.gaze.model_dump_json()),
        code=from_config(pseudomasks_code),
    shell:
        "python -m stages.gaze.pseudomasks --prepared {input.prepared:q}"
        " --fixations {params.fixations:q} {params.encoder} --output {output.gaze:q}"
        " --settings {params.settings:q} --threads {threads} --gpus {resources.gpu}"
        " --code {params.code} --log {log:q}"


rule quality:
    """Measure each sample's gaze, and flag what lies beyond the limits."""
    input:
        prepared="results/{dataset}/prepared.h5",
        gaze="results/{dataset}/gaze.h5",
    output:
        quality="results/{dataset}/gaze_quality.csv",
    log:
        "results/{dataset}/logs/quality.log",
    benchmark:
        "results/{dataset}/benchmarks/quality.tsv"
    conda:
        "../envs/gaze.yaml"
    threads: 1
    params:
        settings=dataset_setting(lambda dataset: dataset.quality.model_dump_json()),
        code=fingerprint("stages.gaze.quality"),
    shell:
        "python -m stages.gaze.quality --prepared {input.prepared:q} --gaze {input.gaze:q}"
        " --output {output.quality:q} --settings {params.settings:q}"
        " --code {params.code} --log {log:q}"
