"""Predictions against the masks, summed up and shown."""


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
        "../envs/report.yaml"
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
        unpack(lambda wildcards: measured(runs([wildcards.dataset]))),
    output:
        summary="results/{dataset}/summary.csv",
    log:
        "results/{dataset}/logs/summarise.log",
    benchmark:
        "results/{dataset}/benchmarks/summarise.tsv"
    conda:
        "../envs/report.yaml"
    threads: 1
    params:
        settings=lambda wildcards: measured_settings(
            runs([wildcards.dataset])
        ).model_dump_json(),
        code=fingerprint("stages.evaluation.summarise"),
    shell:
        "python -m stages.evaluation.summarise --metrics {input.metrics:q} --gaze {input.gaze:q}"
        " --output {output.summary:q} --settings {params.settings:q}"
        " --code {params.code} --log {log:q}"


use rule summarise as summarise_together with:
    input:
        unpack(lambda wildcards: measured(runs(CONFIG.summary))),
    output:
        summary="results/summary.csv",
    log:
        "results/logs/summarise.log",
    benchmark:
        "results/benchmarks/summarise.tsv"
    params:
        settings=measured_settings(runs(CONFIG.summary)).model_dump_json(),
        code=fingerprint("stages.evaluation.summarise"),


rule provenance:
    """Tell how each result behind a data set's report came to be: by what, where, how fast."""
    input:
        results=lambda wildcards: results(dataset_report_jobs(wildcards.dataset)),
    output:
        provenance="results/{dataset}/provenance.json",
    log:
        "results/{dataset}/logs/provenance.log",
    benchmark:
        "results/{dataset}/benchmarks/provenance.tsv"
    conda:
        "../envs/report.yaml"
    threads: 1
    params:
        logs=lambda wildcards: logs(dataset_report_jobs(wildcards.dataset)),
        code=fingerprint("stages.report.provenance"),
    shell:
        "python -m stages.report.provenance --results {input.results:q} --logs {params.logs:q}"
        " --output {output.provenance:q} --code {params.code} --log {log:q}"


use rule provenance as provenance_together with:
    input:
        results=lambda wildcards: results(joint_report_jobs()),
    output:
        provenance="results/provenance.json",
    log:
        "results/logs/provenance.log",
    benchmark:
        "results/benchmarks/provenance.tsv"
    params:
        logs=lambda wildcards: logs(joint_report_jobs()),
        code=fingerprint("stages.report.provenance"),


use rule provenance as provenance_table with:
    input:
        results=lambda wildcards: results(table_jobs(wildcards.table)),
    output:
        provenance="results/{table}_provenance.json",
    log:
        "results/logs/provenance_{table}.log",
    benchmark:
        "results/benchmarks/provenance_{table}.tsv"
    params:
        logs=lambda wildcards: logs(table_jobs(wildcards.table)),
        code=fingerprint("stages.report.provenance"),


rule report:
    """Show a data set's tables, curves and overlays on one page."""
    input:
        unpack(lambda wildcards: report_inputs([wildcards.dataset])),
        summary="results/{dataset}/summary.csv",
        provenance="results/{dataset}/provenance.json",
    output:
        report="results/{dataset}/report.html",
    log:
        "results/{dataset}/logs/report.log",
    benchmark:
        "results/{dataset}/benchmarks/report.tsv"
    conda:
        "../envs/report.yaml"
    threads: 1
    params:
        settings=lambda wildcards: report_settings([wildcards.dataset]),
        code=fingerprint("stages.report.report"),
    shell:
        "python -m stages.report.report --summary {input.summary:q} --provenance {input.provenance:q}"
        " --prepared {input.prepared:q} --gaze {input.gaze:q} --quality {input.quality:q}"
        " --explanations {input.explanations:q} --predictions {input.predictions:q}"
        " --metrics {input.metrics:q} --histories {input.histories:q}"
        " --output {output.report:q} --settings {params.settings:q}"
        " --code {params.code} --log {log:q}"


use rule report as report_together with:
    input:
        unpack(lambda wildcards: report_inputs(CONFIG.summary)),
        summary="results/summary.csv",
        provenance="results/provenance.json",
    output:
        report="results/report.html",
    log:
        "results/logs/report.log",
    benchmark:
        "results/benchmarks/report.tsv"
    params:
        settings=report_settings(CONFIG.summary),
        code=fingerprint("stages.report.report"),


rule compare:
    """Hold a table's experiments, over seeds, against its reference."""
    input:
        unpack(
            lambda wildcards: measured(compared(wildcards.table, [wildcards.dataset]))
        ),
    output:
        table="results/{dataset}/{table}.csv",
    log:
        "results/{dataset}/logs/compare_{table}.log",
    benchmark:
        "results/{dataset}/benchmarks/compare_{table}.tsv"
    conda:
        "../envs/report.yaml"
    threads: 1
    params:
        settings=lambda wildcards: compare_settings(
            wildcards.table, [wildcards.dataset]
        ),
        code=fingerprint("stages.evaluation.compare"),
    shell:
        "python -m stages.evaluation.compare --metrics {input.metrics:q} --gaze {input.gaze:q}"
        " --output {output.table:q} --settings {params.settings:q}"
        " --code {params.code} --log {log:q}"


use rule compare as compare_together with:
    input:
        unpack(lambda wildcards: measured(compared(wildcards.table, CONFIG.summary))),
    output:
        table="results/{table}.csv",
    log:
        "results/logs/compare_{table}.log",
    benchmark:
        "results/benchmarks/compare_{table}.tsv"
    params:
        settings=lambda wildcards: compare_settings(wildcards.table, CONFIG.summary),
        code=fingerprint("stages.evaluation.compare"),


rule tabulate:
    """Show a table of all data sets on one page, with what its numbers mean."""
    input:
        table="results/{table}.csv",
    output:
        page="results/{table}.html",
    log:
        "results/logs/tabulate_{table}.log",
    benchmark:
        "results/benchmarks/tabulate_{table}.tsv"
    conda:
        "../envs/report.yaml"
    threads: 1
    params:
        settings=lambda wildcards: TabulateSettings(
            table=wildcards.table, datasets=described(CONFIG.summary)
        ).model_dump_json(),
        code=fingerprint("stages.report.tabulate"),
    shell:
        "python -m stages.report.tabulate --table {input.table:q} --output {output.page:q}"
        " --settings {params.settings:q} --code {params.code} --log {log:q}"
