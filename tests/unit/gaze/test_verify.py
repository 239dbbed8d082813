"""One report of all that is wrong with raw data, and of no more than that."""

import shutil

import numpy as np
import pytest
from PIL import Image

from stages.core.cli import BadInput
from stages.gaze.verify import verify
from stages.settings.prepare import PrepareSettings
from stages.settings.recording import RecordingSettings
from stages.settings.verify import VerifySettings


@pytest.fixture
def check(kvasir, tmp_path):
    settings = VerifySettings(
        prepare=PrepareSettings(layout="folder", size=(32, 48)),
        recording=RecordingSettings(),
        min_fixation_ms=0,
        partial=False,
        supervised=(),
    )

    def check(**changes):
        changed = settings.model_copy(update=changes)
        verify(kvasir, tmp_path / "v.csv", changed, 1, kvasir / "fixations.csv")

    return check


def test_where_no_image_can_be_listed_the_gaze_is_not_called_wrong(kvasir, check):
    for name in ("train.txt", "test.txt"):
        (kvasir / name).write_text("no such image\n")
    with pytest.raises(BadInput) as caught:
        check()
    assert "no such image" in str(caught.value)
    assert "fixations.csv" not in str(caught.value)


def test_gaze_that_was_dropped_is_not_called_absent(kvasir, check):
    table = kvasir / "fixations.csv"
    lines = table.read_text().splitlines()
    kept = [line for line in lines if not line.startswith("frame 1")]
    table.write_text("\n".join([*kept, "frame 1.jpg,1,9,9,200,900,0"]) + "\n")
    with pytest.raises(BadInput) as caught:
        check()
    assert "frame 1 (dropped: 1 off the image)\n" in str(caught.value)
    assert "to mend:  check unit, origin and screen of gaze.recording; or" in str(caught.value)


def test_an_experiment_without_a_mask_to_learn_from_is_told_before_any_training(kvasir, check):
    check(supervised=("supervised", "halved"))
    shutil.rmtree(kvasir / "masks")
    check()
    with pytest.raises(BadInput) as caught:
        check(supervised=("supervised", "halved"))
    assert "masks\n  found:    none of a training image\n" in str(caught.value)
    assert "for supervised, halved to learn from" in str(caught.value)


@pytest.mark.parametrize(
    ("turn", "said"),
    [
        (lambda x, y: (x, y), None),
        (lambda x, y: (x, 1 - y), "y ran the other way"),
        (lambda x, y: (1 - x, y), "x ran the other way"),
        (lambda x, y: (1 - x, 1 - y), "x and y both ran the other way"),
        (lambda x, y: (y, x), "x and y were exchanged"),
    ],
)
def test_gaze_that_another_reading_would_put_on_the_masks_is_doubted(turn, said, tmp_path, caplog):
    # No fixation is off its image: nothing but the masks can tell.
    rows, rng = [], np.random.default_rng(0)
    for folder in ("images", "masks"):
        (tmp_path / folder).mkdir()
    for name in map(str, range(8)):
        mask = np.zeros((40, 40), np.uint8)
        mask[2:8, 20:28] = 255
        Image.fromarray(mask).save(tmp_path / f"masks/{name}.png")
        Image.fromarray(rng.integers(0, 255, (40, 40, 3), np.uint8)).save(
            tmp_path / f"images/{name}.png"
        )
        x, y = turn(0.6, 0.125)
        rows.append(f"{name},{x},{y},300,0")
    columns = "IMAGE,CURRENT_FIX_X,CURRENT_FIX_Y,CURRENT_FIX_DURATION,CURRENT_FIX_START"
    (tmp_path / "fixations.csv").write_text("\n".join([columns, *rows]) + "\n")
    verify(
        tmp_path, tmp_path / "v.csv",
        VerifySettings(
            prepare=PrepareSettings(layout="folder", size=(32, 32), split="drawn"),
            recording=RecordingSettings(), min_fixation_ms=0, partial=False, supervised=(),
        ),
        1, tmp_path / "fixations.csv",
    )  # fmt: skip
    warnings = [r.getMessage() for r in caplog.records if "gaze lies on the masks" in r.message]
    assert bool(warnings) == (said is not None)
    if said:
        assert (
            f"0 % of the gaze lies on the masks of 6 training images; 100 % would if {said}"
            in (warnings[0])
        )
