"""Pages of tables, curves and overlays, and how each result came to be."""

from rules.report import (
    dataset_report_jobs,
    joint_report_jobs,
    report_inputs,
    report_settings,
    table_jobs,
    tabulate_settings,
)


rule provenance:
    """Tell how each result behind a data set's report came to be: by what, where, how fast."""
    input:
        results=lambda wildcards: job_results(
            dataset_report_jobs(CONFIG, wildcards.dataset)
        ),
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
        logs=lambda wildcards: job_logs(dataset_report_jobs(CONFIG, wildcards.dataset)),
        code=fingerprint("stages.report.provenance"),
    shell:
        "python -m stages.report.provenance --results {input.results:q} --logs {params.logs:q}"
        " --output {output.provenance:q} --code {params.code} --log {log:q}"


use rule provenance as provenance_together with:
    input:
        results=lambda wildcards: job_results(joint_report_jobs(CONFIG)),
    output:
        provenance="results/provenance.json",
    log:
        "results/logs/provenance.log",
    benchmark:
        "results/benchmarks/provenance.tsv"
    params:
        logs=lambda wildcards: job_logs(joint_report_jobs(CONFIG)),
        code=fingerprint("stages.report.provenance"),


use rule provenance as provenance_table with:
    input:
        results=lambda wildcards: job_results(table_jobs(CONFIG, wildcards.table)),
    output:
        provenance="results/{table}_provenance.json",
    log:
        "results/logs/provenance_{table}.log",
    benchmark:
        "results/benchmarks/provenance_{table}.tsv"
    params:
        logs=lambda wildcards: job_logs(table_jobs(CONFIG, wildcards.table)),
        code=fingerprint("stages.report.provenance"),


rule report:
    """Show a data set's tables, curves and overlays on one page."""
    input:
        unpack(lambda wildcards: report_inputs(CONFIG, [wildcards.dataset])),
        summary="results/{dataset}/summary.csv",
        provenance="results/{dataset}/provenance.json",
    output:
        report=report(
            "results/{dataset}/report.html",
            caption="../workflow/report/page.rst",
            category="Report",
            labels={"data set": "{dataset}"},
        ),
        figures=report(
            directory("results/{dataset}/figures"),
            patterns=["{figure}.png"],
            caption="../workflow/report/figure.rst",
            category="Figures",
            subcategory="{dataset}",
            labels={"figure": "{figure}"},
        ),
    log:
        "results/{dataset}/logs/report.log",
    benchmark:
        "results/{dataset}/benchmarks/report.tsv"
    conda:
        "../envs/report.yaml"
    threads: 1
    params:
        settings=lambda wildcards: report_settings(CONFIG, [wildcards.dataset]),
        code=fingerprint("stages.report.report"),
    shell:
        "python -m stages.report.report --summary {input.summary:q} --provenance {input.provenance:q}"
        " --prepared {input.prepared:q} --gaze {input.gaze:q} --quality {input.quality:q}"
        " --explanations {input.explanations:q} --predictions {input.predictions:q}"
        " --metrics {input.metrics:q} --histories {input.histories:q} --tables {input.tables:q}"
        " --output {output.report:q} --figures {output.figures:q} --settings {params.settings:q}"
        " --code {params.code} --log {log:q}"


use rule report as report_together with:
    input:
        unpack(lambda wildcards: report_inputs(CONFIG, CONFIG.summary)),
        summary="results/summary.csv",
        provenance="results/provenance.json",
    output:
        report=report(
            "results/report.html",
            caption="../workflow/report/page.rst",
            category="Report",
            labels={"data set": "all of summary"},
        ),
        figures=report(
            directory("results/figures"),
            patterns=["{figure}.png"],
            caption="../workflow/report/figure.rst",
            category="Figures",
            subcategory="all of summary",
            labels={"figure": "{figure}"},
        ),
    log:
        "results/logs/report.log",
    benchmark:
        "results/benchmarks/report.tsv"
    params:
        settings=report_settings(CONFIG, CONFIG.summary),
        code=fingerprint("stages.report.report"),


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
        settings=from_config(tabulate_settings),
        code=fingerprint("stages.report.tabulate"),
    shell:
        "python -m stages.report.tabulate --table {input.table:q} --output {output.page:q}"
        " --settings {params.settings:q} --code {params.code} --log {log:q}"
