"""Raw images and masks to one prepared file.

In: a folder of raw data in one of the layouts of `datasets/`. Out: `prepared.h5`: images and
masks of one size in one order, split by subject. Start reading at `prepare.py`; `datasets/` has
one module for each layout.
"""
