"""Prediction with trained networks, and evaluation of the predictions.

In: `student.safetensors` and `prepared.h5`. Out: `predictions.h5`, `metrics.csv`, `summary.csv` and
comparison tables.
Start reading at `predict.py` (validation and test images) and `evaluate.py` (metrics of each
sample).
"""
