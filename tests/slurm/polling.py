"""Run Snakemake, but ask SLURM for the state of the jobs every second.

While no job ends, the plugin asks less and less often. This suits jobs of hours; here the test
would mostly wait.
"""

from snakemake.cli import main
from snakemake_executor_plugin_slurm import Executor

Executor.next_seconds_between_status_checks = property(lambda self: 1, lambda self, longer: None)

if __name__ == "__main__":
    main()
