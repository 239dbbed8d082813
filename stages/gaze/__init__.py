"""Recorded or simulated gaze to pseudomasks.

In: `prepared.h5` and a recording in one of the formats of `recordings/`. Out: `gaze.h5`: heatmaps,
refined maps and nested pseudomasks; `verified.csv` and `gaze_quality.csv`.
Start reading at `pseudomasks.py`; `recordings/` has one module for each kind of export.
"""
