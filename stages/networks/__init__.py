"""The two networks, teacher and student, and the layers that both use.

In: images (B, C, H, W) and, for the teacher, text tokens (B, K, D). Out: logits (B, 2, H, W) and
the features of four scales. Start reading at `models.py`; `unet.py` is the U-Net in both networks.
"""
