"""Phantom data sets for the demo."""

import re

PHANTOMS = {d.root: d.demo for d in CONFIG.datasets.values() if d.demo}


rule demo_data:
    """Draw a phantom data set in its published raw layout."""
    output:
        raw=directory("data/demo/{phantom}"),
    log:
        "results/logs/demo_data_{phantom}.log",
    benchmark:
        "results/benchmarks/demo_data_{phantom}.tsv"
    wildcard_constraints:
        phantom="|".join(re.escape(Path(root).name) for root in PHANTOMS) or "(?!)",
    priority: 1
    conda:
        "../envs/data.yaml"
    threads: 1
    params:
        settings=lambda wildcards: PHANTOMS[
            f"data/demo/{wildcards.phantom}"
        ].model_dump_json(),
        code=fingerprint("stages.demo.demo_data"),
    shell:
        "python -m stages.demo.demo_data --output {output.raw:q}"
        " --settings {params.settings:q} --code {params.code} --log {log:q}"
