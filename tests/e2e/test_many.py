"""The benchmark of the load: it calls each stage as its rule does, so it must keep up with them."""

import json
import subprocess
import sys

from tests.workspace import ROOT


def test_every_stage_but_the_trainings_runs():
    small = ["--images", "20", "--frame", "64", "64", "--size", "64", "64", "--threads", "1"]
    run = subprocess.run(
        [sys.executable, str(ROOT / "benchmarks/many.py"), *small],
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    result = json.loads(run.stdout.splitlines()[-1])
    assert list(result["peak_mib"]) == [
        "verify", "prepare", "pseudomasks", "quality", "explain", "texts", "embed", "evaluate",
        "summarise", "compare", "report",
    ]  # fmt: skip
    assert result["pictures"][0] > 0
