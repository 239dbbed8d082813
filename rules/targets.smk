"""What a user asks for by name."""


# Every data set of config.yaml.
rule all:
    input:
        finished(CONFIG.datasets),
    localrule: True


# The data sets of `summary` side by side, and on their own the real scans that are fetched.
rule demo:
    input:
        per_dataset("verified.csv", CONFIG.summary),
        "results/summary.csv",
        "results/report.html",
        finished(FETCHED),
    localrule: True


for name in CONFIG.datasets:

    rule:
        name:
            name
        input:
            finished([name]),
        localrule: True

    rule:
        name:
            f"verify_{name}"
        input:
            f"results/{name}/verified.csv",
        localrule: True

    rule:
        name:
            f"export_published_{name}"
        input:
            f"results/{name}/export",
        localrule: True


# The comparisons on the data sets of `summary`: each on its own, and side by side.
for name in CONFIG.tables:

    rule:
        name:
            name
        input:
            per_dataset(f"{name}.csv", CONFIG.summary),
            f"results/{name}.csv",
            f"results/{name}.html",
            f"results/{name}_provenance.json",
        localrule: True
