"""Which files each rule reads, and with which settings: plain Python, free of Snakemake.

`<family>.py` holds the functions of `<family>.smk`. Each takes the parsed configuration and the
wildcards of the rule, by their names; `from_config` in common.smk makes Snakemake input functions
of them.
"""
