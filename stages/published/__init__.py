"""Exchange data and weights with the published code of the authors.

In: a checkpoint of their code, or our `prepared.h5`, `gaze.h5` and `explanations.h5`. Out: our
weight files, or a folder that their code reads. Start reading at `import_published.py` for the
first, and at `export_published.py` for the second.
"""
