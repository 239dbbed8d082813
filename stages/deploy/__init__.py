"""What people take away: masks of new images in the images' own format, and an exported student.

In: `student.safetensors` and images, or the results beside a student. Out: masks (PNG, NIfTI,
DICOM-SEG), probability and uncertainty maps, also on a local page; `student.onnx`, `student.pt2`
and a model card.
Start reading at `main.py` (the command `gaze-to-insight`), `segment.py`, `app.py` and `export.py`.
"""
