"""The settings of all stages: one frozen, validated class for each part of config.yaml.

In: values of config.yaml. Out: settings objects, which a rule passes to its stage as JSON.
Start reading at `base.py`; each other module has the name of the part that it describes.
"""
