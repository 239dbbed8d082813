"""`verify`: one report that lists every problem of the raw data, and nothing else."""

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


def test_no_gaze_error_is_reported_if_no_image_is_listed(kvasir, check):
    for name in ("train.txt", "test.txt"):
        (kvasir / name).write_text("no such image\n")
    with pytest.raises(BadInput) as caught:
        check()
    assert "no such image" in str(caught.value)
    assert "fixations.csv" not in str(caught.value)


def test_message_counts_dropped_fixations_of_samples_without_gaze(kvasir, check):
    table = kvasir / "fixations.csv"
    lines = table.read_text().splitlines()
    kept = [line for line in lines if not line.startswith("frame 1")]
    table.write_text("\n".join([*kept, "frame 1.jpg,1,9,9,200,900,0"]) + "\n")
    with pytest.raises(BadInput) as caught:
        check()
    assert "frame 1 (dropped: 1 off the image)\n" in str(caught.value)
    assert "to mend:  check unit, origin and screen of gaze.recording; or" in str(caught.value)


def test_supervised_experiments_need_a_training_mask(kvasir, check):
    check(supervised=("supervised", "halved"))
    shutil.rmtree(kvasir / "masks")
    check()
    with pytest.raises(BadInput) as caught:
        check(supervised=("supervised", "halved"))
    assert "masks\n  found:    no training image has a mask\n" in str(caught.value)
    assert "expected: masks of training images for supervised, halved\n" in str(caught.value)


@pytest.mark.parametrize(
    ("change_axes", "mistake"),
    [
        (lambda x, y: (x, y), None),
        (lambda x, y: (x, 1 - y), "y were flipped"),
        (lambda x, y: (1 - x, y), "x were flipped"),
        (lambda x, y: (1 - x, 1 - y), "x and y were both flipped"),
        (lambda x, y: (y, x), "x and y were swapped"),
    ],
)
def test_warns_if_other_axes_would_put_the_gaze_on_the_masks(
    change_axes, mistake, tmp_path, caplog
):
    # No fixation is off its image: only the masks can show the mistake.
    caplog.set_level("INFO")
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
        x, y = change_axes(0.6, 0.125)
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
    warnings = [r.getMessage() for r in caplog.records if "compare some fixations" in r.message]
    logged = [r.getMessage() for r in caplog.records if r.message.endswith("both flipped")]
    assert "of the gaze lies on the masks of 6 training images; " in logged[0]
    assert f"100 % if {mistake}" in logged[0] if mistake else "100 % of the gaze" in logged[0]
    assert bool(warnings) == (mistake is not None)
    if mistake:
        assert (
            f"0 % of the gaze lies on the masks of 6 training images; 100 % would if {mistake}"
            in (warnings[0])
        )


def test_masks_tell_from_which_origin_gaze_was_measured(tmp_path):
    """Without masks, y up and y down are as likely; only half of the images have one."""
    rows, rng = [], np.random.default_rng(0)
    for folder in ("images", "masks"):
        (tmp_path / folder).mkdir()
    for number in range(8):
        mask = np.zeros((40, 40), np.uint8)
        mask[2:12, 10:30] = 255
        if number % 2:
            Image.fromarray(mask).save(tmp_path / f"masks/{number}.png")
        Image.fromarray(rng.integers(0, 255, (40, 40, 3), np.uint8)).save(
            tmp_path / f"images/{number}.png"
        )
        for time, x, y in ((0, 0.3, 0.1), (400, 0.6, 0.2), (800, 0.9, 0.9)):
            # Recorded from the bottom left.
            rows.append(f"{number},{x},{1 - y:.1f},300,{time}")
    columns = "IMAGE,CURRENT_FIX_X,CURRENT_FIX_Y,CURRENT_FIX_DURATION,CURRENT_FIX_START"
    (tmp_path / "fixations.csv").write_text("\n".join([columns, *rows]) + "\n")
    with pytest.raises(BadInput) as caught:
        verify(
            tmp_path, tmp_path / "v.csv",
            VerifySettings(
                prepare=PrepareSettings(layout="folder", size=(32, 32), split="drawn"),
                recording=RecordingSettings(origin="centre"), min_fixation_ms=0, partial=False,
                supervised=(),
            ),
            1, tmp_path / "fixations.csv",
        )  # fmt: skip
    text = str(caught.value)
    assert "look measured from the bottom left: set recording.origin: bottom-left; " in text
    assert "fit as well: columns swapped; recording.origin: top-left; " in text
    assert (
        "of the gaze on images with masks, on the masks: 67% recording.origin: bottom-left, 0% "
        "recording.origin: top-left, 0% "
    ) in text


def test_masks_show_what_other_settings_would_do(tmp_path, caplog):
    """Gaze on the image and gaze on a larger screen are both possible; only masks tell."""
    caplog.set_level("INFO")
    rows, rng = [], np.random.default_rng(0)
    for folder in ("images", "masks"):
        (tmp_path / folder).mkdir()
    for number in range(8):
        mask = np.zeros((40, 40), np.uint8)
        mask[15:25, 15:25] = 255
        if number % 2:
            Image.fromarray(mask).save(tmp_path / f"masks/{number}.png")
        Image.fromarray(rng.integers(0, 255, (40, 40, 3), np.uint8)).save(
            tmp_path / f"images/{number}.png"
        )
        # The mask reaches from 0.375 to 0.625: on the image two thirds of the time are on it.
        for time, x, y in ((0, 0.5, 0.5), (400, 0.42, 0.54), (800, 0.3, 0.7)):
            rows.append(f"{number},{x},{y},300,{time}")
    columns = "IMAGE,CURRENT_FIX_X,CURRENT_FIX_Y,CURRENT_FIX_DURATION,CURRENT_FIX_START"
    (tmp_path / "fixations.csv").write_text("\n".join([columns, *rows]) + "\n")
    screen = {"size": (80, 40), "area": (20, 0, 40, 40)}
    verify(
        tmp_path, tmp_path / "v.csv",
        VerifySettings(
            prepare=PrepareSettings(layout="folder", size=(32, 32), split="drawn"),
            recording=RecordingSettings(screen=screen), min_fixation_ms=0, partial=False,
            supervised=(),
        ),
        1, tmp_path / "fixations.csv",
    )  # fmt: skip
    fit = next(text for text in caplog.messages if "fit several settings" in text)
    # On the screen x is stretched about its centre by 2: 0.42 becomes 0.34, off the mask.
    assert ", 67% without recording.screen, " in fit
    assert fit.endswith(", 33% as stated")
