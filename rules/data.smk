"""Raw data to prepared images, and fixations to pseudomasks."""


rule verify:
    """Read all raw data, and tell everything that is wrong with them at once."""
    input:
        raw=raw_entries,
        source=fixation_source,
    output:
        verified="results/{dataset}/verified.csv",
    log:
        "results/{dataset}/logs/verify.log",
    benchmark:
        "results/{dataset}/benchmarks/verify.tsv"
    # Before what would stop at a part of it.
    priority: 1
    conda:
        "../envs/images.yaml"
    threads: lambda wildcards: CONFIG.dataset(wildcards.dataset).threads
    params:
        root=lambda wildcards: CONFIG.dataset(wildcards.dataset).root,
        fixations=lambda wildcards: CONFIG.dataset(wildcards.dataset).fixations or "",
        raw=raw_contents,
        maps=gaze_contents,
        settings=verify_settings,
        code=verify_code,
    shell:
        "python -m stages.gaze.verify --raw {params.root:q} --fixations {params.fixations:q}"
        " --output {output.verified:q} --settings {params.settings:q} --threads {threads}"
        " --code {params.code} --log {log:q}"


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
    threads: lambda wildcards: CONFIG.dataset(wildcards.dataset).threads
    params:
        root=lambda wildcards: CONFIG.dataset(wildcards.dataset).root,
        raw=raw_contents,
        settings=lambda wildcards: CONFIG.dataset(
            wildcards.dataset
        ).prepare.model_dump_json(),
        code=lambda wildcards: fingerprint(
            "stages.data.prepare",
            f"stages.data.datasets.{CONFIG.dataset(wildcards.dataset).prepare.layout}",
        ),
    shell:
        "python -m stages.data.prepare --raw {params.root:q} --output {output.prepared:q}"
        " --settings {params.settings:q} --threads {threads}"
        " --code {params.code} --log {log:q}"


rule pseudomasks:
    """Turn fixations into heatmaps, refined maps and nested pseudomasks."""
    input:
        prepared="results/{dataset}/prepared.h5",
        source=fixation_source,
    output:
        gaze="results/{dataset}/gaze.h5",
    log:
        "results/{dataset}/logs/pseudomasks.log",
    benchmark:
        "results/{dataset}/benchmarks/pseudomasks.tsv"
    conda:
        "../envs/gaze.yaml"
    threads: lambda wildcards: CONFIG.dataset(wildcards.dataset).threads
    resources:
        gpu=one_gpu,
    params:
        fixations=lambda wildcards: CONFIG.dataset(wildcards.dataset).fixations or "",
        maps=gaze_contents,
        settings=lambda wildcards: CONFIG.dataset(
            wildcards.dataset
        ).gaze.model_dump_json(),
        code=gaze_code,
    shell:
        "python -m stages.gaze.pseudomasks --prepared {input.prepared:q}"
        " --fixations {params.fixations:q} --output {output.gaze:q}"
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
        "../envs/report.yaml"
    threads: 1
    params:
        settings=lambda wildcards: CONFIG.dataset(
            wildcards.dataset
        ).quality.model_dump_json(),
        code=fingerprint("stages.gaze.quality"),
    shell:
        "python -m stages.gaze.quality --prepared {input.prepared:q} --gaze {input.gaze:q}"
        " --output {output.quality:q} --settings {params.settings:q}"
        " --code {params.code} --log {log:q}"


rule export_published:
    """Write images, maps and embeddings as the published code reads them."""
    input:
        unpack(left_out),
        prepared="results/{dataset}/prepared.h5",
        gaze="results/{dataset}/gaze.h5",
        explanations="results/{dataset}/explanations.h5",
    output:
        folder=directory("results/{dataset}/export"),
    log:
        "results/{dataset}/logs/export_published.log",
    benchmark:
        "results/{dataset}/benchmarks/export_published.tsv"
    conda:
        "../envs/images.yaml"
    threads: 1
    params:
        form=lambda wildcards: layouts.LAYOUTS[
            CONFIG.dataset(wildcards.dataset).prepare.layout
        ].form,
        quality=optional("quality"),
        code=fingerprint("stages.published.export_published"),
    shell:
        "python -m stages.published.export_published --prepared {input.prepared:q} {params.quality}"
        " --form {params.form:q} --gaze {input.gaze:q} --explanations {input.explanations:q}"
        " --output {output.folder:q} --code {params.code} --log {log:q}"
