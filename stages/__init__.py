"""What a stage computes: plain Python, no Snakemake.

One folder for each stage family. Each imports only from those below it: {report, deploy},
evaluation, {text, training, demo, published}, gaze, {data, networks}, core, settings.
"""
