"""The exchange with the authors' code."""

from stages.data.datasets import layouts


rule export_published:
    """Write images, maps and embeddings as the published code reads them."""
    input:
        unpack(from_config(quality_inputs)),
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
        "../envs/data.yaml"
    threads: 1
    params:
        form=lambda wildcards: layouts.LAYOUTS[
            CONFIG.dataset(wildcards.dataset).prepare.layout
        ].form,
        quality=option("quality"),
        code=fingerprint("stages.published.export_published"),
    shell:
        "python -m stages.published.export_published --prepared {input.prepared:q} {params.quality}"
        " --form {params.form:q} --gaze {input.gaze:q} --explanations {input.explanations:q}"
        " --output {output.folder:q} --code {params.code} --log {log:q}"
