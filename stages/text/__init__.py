"""Explanations of what was looked at, in words and in vectors.

In: `prepared.h5` and `gaze.h5`. Out: `texts.h5` and `explanations.h5`.
Start reading at `explain.py` (image to words; `describers/` has one module for each backend),
`texts.py` (words joined and checked) and `embed.py` (words to vectors; `encoders/` has one module
for each encoder).
"""
