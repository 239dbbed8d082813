"""Pseudomasks and text to trained networks.

In: `prepared.h5`, `gaze.h5` and `explanations.h5`. Out: `teacher.safetensors`, `pseudolabels.h5`,
`student.safetensors` and their histories. Start reading at `teacher.py` and `student.py`;
`methods/` puts a student's loss together, `loop.py` is the training loop that all share.
"""
