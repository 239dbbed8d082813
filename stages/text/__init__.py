"""Explanations: sentences about the region that a clinician looked at, and their vectors.

In: `prepared.h5` and `gaze.h5`. Out: `texts.h5` and `explanations.h5`.
Start reading at `explain.py` (images to sentences; `describers/` has one module per backend), then
read `texts.py` (merges the sentences and checks them) and `embed.py` (sentences to vectors;
`encoders/` has one module per encoder).
"""
