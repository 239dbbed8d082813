"""Each preset fits config.yaml, merged as `snakemake --configfile` does."""

import pytest
import yaml
from snakemake.utils import update_config

from stages.core.config import parse
from tests.workspace import ROOT, shipped_config

PRESETS = sorted((ROOT / "workflow/presets").glob("*.yaml"))


@pytest.mark.parametrize("preset", PRESETS, ids=lambda path: path.stem)
def test_a_preset_fits_the_shipped_configuration(preset):
    raw = shipped_config()
    update_config(raw, yaml.safe_load(preset.read_text()))
    config = parse(raw)
    for dataset in yaml.safe_load(preset.read_text())["datasets"]:
        full = config.experiment(dataset, "full")
        # Compared methods have equal networks.
        for experiment in ("gaze_only", "supervised", "published", "gazemedseg"):
            student = config.experiment(dataset, experiment).student
            assert student.encoder == full.student.encoder != "unet"
            assert student.iterations == full.student.iterations
        assert full.teacher.encoder == full.student.encoder
