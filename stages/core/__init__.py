"""Shared code of all stages: configuration, files, command line, processes, arrays.

In: paths, arrays and plain values. Out: checked settings, files written atomically, resized arrays.
Start reading at `config.py` (config.yaml as typed objects), `cli.py` (a stage's command line) and
`io.py` (HDF5 files with their provenance).
"""
