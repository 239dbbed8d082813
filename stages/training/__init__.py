"""Training of the teacher and the student from pseudomasks and text.

In: `prepared.h5`, `gaze.h5` and `explanations.h5`. Out: `teacher.safetensors`, `pseudolabels.h5`,
`student.safetensors` and the training histories. Start reading at `teacher.py` and `student.py`;
`methods/` defines a student's training step, `loop.py` is the training loop of all networks.
"""
