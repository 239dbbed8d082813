"""What each looked-at region is, in words and in vectors."""


rule explain:
    """Explain each image that somebody looked at."""
    input:
        prepared="results/{dataset}/prepared.h5",
        gaze="results/{dataset}/gaze.h5",
    output:
        texts="results/{dataset}/texts.h5",
    log:
        "results/{dataset}/logs/explain.log",
    benchmark:
        "results/{dataset}/benchmarks/explain.tsv"
    conda:
        "../envs/images.yaml"
    threads: 1
    resources:
        mem_mb=2000,
        runtime=60,
    params:
        settings=lambda wildcards: CONFIG.dataset(
            wildcards.dataset
        ).explain.model_dump_json(),
        code=fingerprint("stages.explain"),
    shell:
        "python -m stages.explain --prepared {input.prepared:q} --gaze {input.gaze:q}"
        " --output {output.texts:q} --settings {params.settings:q} --log {log:q}"


rule embed:
    """Turn the sentences into vectors."""
    input:
        texts="results/{dataset}/texts.h5",
    output:
        explanations="results/{dataset}/explanations.h5",
    log:
        "results/{dataset}/logs/embed.log",
    benchmark:
        "results/{dataset}/benchmarks/embed.tsv"
    conda:
        "../envs/training.yaml"
    threads: 1
    resources:
        mem_mb=3000,
        runtime=30,
    params:
        settings=lambda wildcards: CONFIG.dataset(
            wildcards.dataset
        ).embed.model_dump_json(),
        code=fingerprint("stages.embed"),
    shell:
        "python -m stages.embed --texts {input.texts:q} --output {output.explanations:q}"
        " --settings {params.settings:q} --threads {threads} --log {log:q}"
