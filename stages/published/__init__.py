"""The exchange with the authors' code.

In: a checkpoint of theirs, or our `prepared.h5`, `gaze.h5` and `explanations.h5`. Out: our weight
files (`import_published.py`), or a folder that their code reads (`export_published.py`).
"""
