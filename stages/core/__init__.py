"""What every stage family needs: the configuration, files, the command line, processes, arrays.

In: paths, arrays and plain values. Out: the same, checked, written atomically or resized.
Start reading at `config.py` (config.yaml as typed objects), `cli.py` (a stage's command line) and
`io.py` (HDF5 files with their provenance).
"""
