"""What a user asks for by name."""


# Every data set of config.yaml.
rule all:
    input:
        per_dataset("summary.csv", CONFIG.datasets),
        per_dataset("report.html", CONFIG.datasets),
    localrule: True


# The data sets of `summary` side by side, and on their own the real scans that are fetched.
rule demo:
    input:
        "results/summary.csv",
        "results/report.html",
        per_dataset("summary.csv", FETCHED),
        per_dataset("report.html", FETCHED),
    localrule: True


for name in CONFIG.datasets:

    rule:
        name:
            name
        input:
            per_dataset("summary.csv", [name]),
            per_dataset("report.html", [name]),
        localrule: True
