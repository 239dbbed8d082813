"""Read raw images and masks, and write them to one prepared file.

In: a folder of raw data in one of the layouts of `datasets/`. Out: `prepared.h5`, with images
and masks of one size in a fixed order, split by subject. Start reading at `prepare.py`; `datasets/`
has one module for each layout.
"""
