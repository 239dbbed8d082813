"""Raw data to prepared images, and fixations to pseudomasks."""


rule prepare:
    """Bring images and masks to one size and one order, split by subject."""
    input:
        raw=raw_entries,
    output:
        prepared="results/{dataset}/prepared.h5",
    log:
        "results/{dataset}/logs/prepare.log",
    benchmark:
        "results/{dataset}/benchmarks/prepare.tsv"
    conda:
        "../envs/images.yaml"
    threads: 1
    resources:
        mem_mb=2000,
        runtime=240,
    params:
        root=lambda wildcards: CONFIG.dataset(wildcards.dataset).root,
        settings=lambda wildcards: CONFIG.dataset(
            wildcards.dataset
        ).prepare.model_dump_json(),
        code=lambda wildcards: fingerprint(
            "stages.prepare",
            f"stages.datasets.{CONFIG.dataset(wildcards.dataset).prepare.layout}",
        ),
    shell:
        "python -m stages.prepare --raw {params.root:q} --output {output.prepared:q}"
        " --settings {params.settings:q} --log {log:q}"


rule gaze:
    """Turn fixations into heatmaps, refined maps and nested pseudomasks."""
    input:
        prepared="results/{dataset}/prepared.h5",
        source=fixation_source,
    output:
        gaze="results/{dataset}/gaze.h5",
    log:
        "results/{dataset}/logs/gaze.log",
    benchmark:
        "results/{dataset}/benchmarks/gaze.tsv"
    conda:
        "../envs/images.yaml"
    threads: 1
    resources:
        mem_mb=2000,
        runtime=120,
    params:
        fixations=lambda wildcards: CONFIG.dataset(wildcards.dataset).fixations or "",
        settings=lambda wildcards: CONFIG.dataset(
            wildcards.dataset
        ).gaze.model_dump_json(),
        code=fingerprint("stages.gaze"),
    shell:
        "python -m stages.gaze --prepared {input.prepared:q}"
        " --fixations {params.fixations:q} --output {output.gaze:q}"
        " --settings {params.settings:q} --log {log:q}"
