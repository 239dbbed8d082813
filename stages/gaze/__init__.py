"""Turn recorded or simulated gaze into pseudomasks.

In: `prepared.h5`, and a recording in one of the formats of `recordings/` (or settings to simulate
gaze). Out: `gaze.h5` with heatmaps, refined maps and nested pseudomasks; `gaze_quality.csv`; and,
from the raw data, `verified.csv`.
Start reading at `pseudomasks.py`; `recordings/` has one module for each kind of export.
"""
