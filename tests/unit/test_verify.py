"""One report of all that is wrong with raw data, and of no more than that."""

import shutil

import pytest

from stages.cli import BadInput
from stages.settings.prepare import PrepareSettings
from stages.settings.recording import RecordingSettings
from stages.settings.verify import VerifySettings
from stages.verify import verify


@pytest.fixture
def check(kvasir, tmp_path):
    settings = VerifySettings(
        prepare=PrepareSettings(layout="folder", size=(32, 48)),
        recording=RecordingSettings(),
        min_fixation_ms=0,
        partial=False,
    )
    return lambda: verify(kvasir, tmp_path / "v.csv", settings, 1, kvasir / "fixations.csv")


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


def test_training_images_without_a_mask_are_told(kvasir, check, caplog):
    check()
    assert "no training image has a mask" not in caplog.text
    shutil.rmtree(kvasir / "masks")
    check()
    assert f"{kvasir}: no training image has a mask" in caplog.text
