"""Results to pages that a person reads.

In: the tables, histories and HDF5 files of a run. Out: `report.html`, the page of a comparison
(`tabulate.py`) and `provenance.json`. Start reading at `report.py`, then `sections.py`;
`charts.py` draws curves and `figures.py` draws overlays.
"""
