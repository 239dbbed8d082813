"""The networks: teacher, student, and the parts that both are built of.

In: images (B, C, H, W) and, for the teacher, text tokens (B, K, D). Out: logits (B, 2, H, W) and
the features of four scales. Start reading at `models.py`.
"""
