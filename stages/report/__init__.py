"""HTML pages that show the results, and the provenance of each result.

In: the tables, histories, HDF5 files and logs of a run. Out: `report.html`, the page of a
comparison table (`tabulate.py`) and `provenance.json`. Start reading at `report.py` (the
whole page), then `sections.py` (its part about a data set); `charts.py` plots numbers and
`figures.py` draws images.
"""
