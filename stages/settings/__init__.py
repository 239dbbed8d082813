"""What each stage can be told: one frozen, validated object for each part of config.yaml.

In: values of config.yaml. Out: settings that a rule hands to its stage as JSON.
Start reading at `base.py`; the other modules are named for the part that they describe.
"""
