"""Prediction with trained networks, and evaluation of the predictions.

In: `student.safetensors` and `prepared.h5`, or a folder of new images. Out: `predictions.h5`,
`metrics.csv`, `summary.csv` and comparison tables, or PNG masks of the new images.
Start reading at `predict.py` (validation and test images), `segment.py` (new images) and
`evaluate.py` (metrics of each sample).
"""
