"""Snakemake as ever, but that it asks SLURM every second what has become of its jobs.

While no job ends, the plugin asks ever more seldom, which suits jobs of hours; here it would let
most of the time pass.
"""

from snakemake.cli import main
from snakemake_executor_plugin_slurm import Executor

Executor.next_seconds_between_status_checks = property(lambda self: 1, lambda self, longer: None)

if __name__ == "__main__":
    main()
