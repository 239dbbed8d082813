"""Draw phantom data sets for the demo.

In: a seed and a number of images. Out: a folder of raw data in the published layout of a benchmark
data set. Start reading at `demo_data.py`; `phantoms.py` draws one image with its mask.
"""
