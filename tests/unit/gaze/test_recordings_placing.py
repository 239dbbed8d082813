"""Conversion of recorded x and y to positions on the image, and messages about wrong ones."""

import math
import re
from itertools import product

import numpy as np
import pytest
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from stages.core.cli import BadInput
from stages.gaze.placing import is_on_image, to_image_fractions
from stages.gaze.recordings.meaning import check_placement
from stages.settings.recording import RecordingSettings

SCREEN = {"size": (1000, 800)}


def settings(**values):
    return RecordingSettings.model_validate({"format": "eyelink", "unit": "px", **values})


def place(x, y, image=(400, 200), **values):
    found = to_image_fractions(
        np.array([[x, y]], float), np.array([image], float), settings(**values)
    )
    return found[0].tolist()


# On the image itself, 400 × 200 px. The point is a quarter from the left, a fifth from the top.
@pytest.mark.parametrize(
    ("unit", "origin", "x", "y"),
    [
        ("px", "top-left", 100, 40),
        ("px", "bottom-left", 100, 160),
        ("px", "centre", -100, 60),
        ("px", "centre-down", -100, -60),
        ("percent", "top-left", 25, 20),
        ("fraction", "top-left", 0.25, 0.2),
        ("fraction", "bottom-left", 0.25, 0.8),
        ("fraction", "centre", -0.25, 0.3),
        ("fraction", "centre-down", -0.25, -0.3),
    ],
)
def test_position_relative_to_the_image(unit, origin, x, y):
    assert place(x, y, unit=unit, origin=origin) == pytest.approx([0.25, 0.2])


# On a screen of 1000 × 800 px the same image is shown, by hand:
# fit: scale min(1000/400, 800/200) = 2.5, 1000 × 500 px, corner (0, 150): the point is at
#   (250, 150 + 100). In the area (100, 50, 600, 700): scale 1.5, 600 × 300 px, corner
#   (100, 50 + 200): (100 + 150, 250 + 60).
# native: corner (300, 300): (400, 340); in the area: corner (100 + 100, 50 + 250): (300, 340).
@pytest.mark.parametrize(
    ("shown", "area", "x", "y"),
    [
        ("fit", None, 250, 250),
        ("fit", (100, 50, 600, 700), 250, 310),
        ("native", None, 400, 340),
        ("native", (100, 50, 600, 700), 300, 340),
    ],
)
@pytest.mark.parametrize("unit", ["px", "fraction"])
@pytest.mark.parametrize("origin", ["top-left", "bottom-left", "centre"])
def test_position_relative_to_the_screen(shown, area, x, y, unit, origin):
    x, y = {"top-left": (x, y), "bottom-left": (x, 800 - y), "centre": (x - 500, 400 - y)}[origin]
    if unit == "fraction":
        x, y = x / 1000, y / 800
    screen = {**SCREEN, "shown": shown, "area": area}
    assert place(x, y, unit=unit, origin=origin, screen=screen) == pytest.approx([0.25, 0.2])


def record(fraction, image, recording):
    """Return the coordinates that a tracker records for a position: the inverse conversion."""
    frame = image
    pixels = fraction * image
    if recording.screen is not None:
        frame = np.array(recording.screen.size, float)
        area = np.array(recording.screen.area or (0, 0, *frame), float)
        scale = min(area[2:] / image) if recording.screen.shown == "fit" else 1
        middle = area[:2] + area[2:] / 2
        pixels = middle + (fraction - 0.5) * image * scale
    if recording.origin in ("bottom-left", "centre"):
        pixels = np.array([pixels[0], frame[1] - pixels[1]])
    if recording.origin in ("centre", "centre-down"):
        pixels = pixels - frame / 2
    return pixels / frame * {"fraction": 1, "percent": 100, "px": frame}[recording.unit]


ORIGINS = ["top-left", "bottom-left", "centre", "centre-down"]
UNITS = ["px", "percent", "fraction"]
sides = st.integers(16, 3000)


@st.composite
def recordings(draw):
    screen = None
    if draw(st.booleans()):
        size = (draw(sides), draw(sides))
        left, top = draw(st.floats(0, size[0] / 2)), draw(st.floats(0, size[1] / 2))
        area = (left, top, size[0] / 2, size[1] / 2) if draw(st.booleans()) else None
        screen = {"size": size, "shown": draw(st.sampled_from(["fit", "native"])), "area": area}
    return settings(
        unit=draw(st.sampled_from(UNITS)),
        origin=draw(st.sampled_from(ORIGINS)),
        screen=screen,
    )


@given(
    recording=recordings(),
    image=st.tuples(sides, sides),
    fraction=st.tuples(st.floats(-1, 2), st.floats(-1, 2)),
)
def test_conversion_inverts_a_recording(recording, image, fraction):
    image, fraction = np.array(image, float), np.array(fraction)
    recorded = record(fraction, image, recording)
    found = to_image_fractions(recorded[None], image[None], recording)
    np.testing.assert_allclose(found[0], fraction, atol=1e-6)


def test_input_positions_are_not_modified():
    position = np.array([[0.5, 0.5]])
    to_image_fractions(
        position, np.array([[10.0, 10.0]]), settings(unit="fraction", origin="centre")
    )
    assert position.tolist() == [[0.5, 0.5]]


def test_border_is_on_the_image_and_nan_is_not():
    places = np.array([[0, 0], [1, 1], [-1e-9, 0.5], [0.5, 1.0001], [np.nan, 0.5]])
    assert is_on_image(places).tolist() == [True, True, False, False, False]


# Messages

IMAGE = np.array([300.0, 400.0])
# What is always open without a screen.
SCREEN_TOO = "recording.screen, if x and y are of a screen that the images did not fill"
ALSO = "; the coordinates fit as well: "


def random_positions(n=200):
    """Return (n, 2) random positions on the whole image, as fractions from the top left."""
    return np.random.default_rng(0).uniform(0.02, 0.98, (n, 2))


def message(recorded, **values):
    image = np.broadcast_to(IMAGE, (len(recorded), 2))
    with pytest.raises(BadInput) as error:
        check_placement("f.csv", "columns X, Y", recorded, image, settings(**values), "fixations")
    return str(error.value)


def correction(*arguments, **values):
    return message(*arguments, **values).split("to mend:  ")[1]


def recorded_positions(**values):
    recording = settings(**values)
    return np.array([record(place, IMAGE, recording) for place in random_positions()])


def test_the_whole_message():
    recorded = np.array([[0.5, 0.5], [20, 390.5], [290, 30], [150, 200]])
    assert message(recorded, unit="fraction") == (
        "f.csv: columns X, Y\n"
        "  found:    75% of 4 fixations off their image; x from 0.5 to 290, y from 0.5 to 390.5\n"
        "  expected: at most 50% (recording.max_off_image), in fractions of the image from the "
        "top left\n"
        "  to mend:  x and y look like pixels, not fractions: set recording.unit: px; the "
        f"coordinates fit as well: columns swapped; recording.origin: bottom-left; "
        f"recording.origin: centre; recording.origin: centre-down; {SCREEN_TOO}"
    )


def test_fractions_read_as_pixels_are_rejected():
    recorded = recorded_positions(unit="fraction")
    assert is_on_image(to_image_fractions(recorded, IMAGE, settings())).all()
    text = message(recorded, unit="px")
    assert "found:    0% of 200 fixations off their image, nearly all others in one spot" in text
    assert "look like fractions, not pixels: set recording.unit: fraction" in text


def test_fractions_from_the_centre_read_as_pixels():
    assert correction(recorded_positions(unit="fraction", origin="centre"), unit="px") == (
        "x and y look like fractions, not pixels, and measured from the centre: "
        "set recording.unit: fraction and set recording.origin: centre"
        f"{ALSO}columns swapped; recording.origin: centre-down; {SCREEN_TOO}"
    )


@pytest.mark.parametrize("unit", ["px", "fraction"])
def test_suggests_origin_centre(unit):
    assert correction(recorded_positions(unit=unit, origin="centre"), unit=unit) == (
        "x and y look measured from the centre: set recording.origin: centre"
        f"{ALSO}columns swapped; recording.origin: centre-down; {SCREEN_TOO}"
    )


@pytest.mark.parametrize("unit", ["px", "fraction"])
def test_suggests_origin_top_left(unit):
    text = correction(recorded_positions(unit=unit), unit=unit, origin="centre")
    assert text == (
        "x and y look measured from the top left: set recording.origin: top-left"
        f"{ALSO}columns swapped; recording.origin: bottom-left; {SCREEN_TOO}"
    )


def test_suggests_origin_bottom_left_for_images_off_the_screen_centre():
    screen = {"size": (1000, 1000), "area": (0, 0, 1000, 400)}
    assert correction(recorded_positions(origin="bottom-left", screen=screen), screen=screen) == (
        "x and y look measured from the bottom left: set recording.origin: bottom-left"
    )


def test_suggests_swapping_x_and_y():
    # Gaze at the right of wide images, where x exceeds the height.
    image, places = np.array([400.0, 200.0]), random_positions() * [0.4, 1] + [0.6, 0]
    recorded = (places * image)[:, ::-1]
    with pytest.raises(BadInput) as error:
        check_placement(
            "f.csv", "columns", recorded, np.tile(image, (200, 1)), settings(), "fixations"
        )
    assert "to mend:  x and y look swapped: swap the two columns" in str(error.value)


def test_image_coordinates_read_as_screen_coordinates():
    screen = {"size": (1920, 1080), "shown": "native"}
    assert correction(recorded_positions(), screen=screen) == (
        "x and y look measured on the image, not on the screen: remove recording.screen"
        f"{ALSO}columns swapped; recording.origin: bottom-left"
    )


@pytest.mark.parametrize(("unit", "also"), [("px", ""), ("fraction", "recording.unit: px and ")])
def test_screen_coordinates_read_as_image_coordinates(unit, also):
    screen = {"size": (1920, 1080), "shown": "native"}
    assert correction(recorded_positions(screen=screen), unit=unit) == (
        "x and y look like pixels of the screen, not of the image: set "
        f"{also}recording.screen, with the screen's size"
    )


def test_unexplained_coordinates_get_general_advice():
    recorded = np.random.default_rng(0).normal(0, 1e5, (100, 2))
    assert correction(recorded).startswith(
        "compare some rows with their images, then correct recording.unit"
    )


def test_a_lost_eye_has_its_own_advice():
    recorded = recorded_positions()
    recorded[:120] = np.nan
    text = message(recorded)
    assert "found:    60% of 200 fixations off their image, 60% without a position\n" in text
    assert text.endswith("complete the recording, or raise recording.max_off_image")


# Readings


def named_readings(stated, text):
    """Return each (unit, origin, screen, swapped) that an advice names, and the words it adds."""
    advice, _, more = text.partition(ALSO)
    more = more.split("; ")
    said = [*re.findall(r"recording\.\w+: [a-z-]+", advice), *more]
    values = {
        name: [v.removeprefix(f"recording.{name}: ") for v in said if f"recording.{name}: " in v]
        for name in ("unit", "origin")
    }
    if "recording.unit: " not in advice:
        values["unit"].append(stated.unit)
    if "recording.origin: " not in advice:
        values["origin"].append(stated.origin)
    removed = "remove recording.screen" in advice
    screens = [None if removed else stated.screen]
    screens += [None] * ("without recording.screen" in more)
    screens += [stated.screen] * ("with recording.screen" in more)
    exchanged = ["swap the two columns" in advice]
    exchanged += [True] * ("columns swapped" in more) + [False] * ("columns not swapped" in more)
    return [*product(values["unit"], values["origin"], screens, exchanged)], more


def check(recorded, image, recording):
    size = np.broadcast_to(np.array(image, float), (len(recorded), 2))
    try:
        check_placement("f.csv", "X, Y", recorded, size, recording, "fixations")
    except BadInput as error:
        return str(error).split("to mend:  ")[1]
    return None


def draw_gaze(kind, count, rng):
    """Return (count, 2) gaze on the image, as fractions from the top left."""
    half = rng.integers(0, 2, 2) / 2
    clusters = rng.uniform(0.1, 0.9, (3, 2))[rng.integers(0, 3, count)]
    places = {
        "middle": rng.beta(2, 2, (count, 2)),
        "everywhere": rng.uniform(0, 1, (count, 2)),
        "edges": rng.beta(0.7, 0.7, (count, 2)),
        "half": rng.uniform(0, 1, (count, 2)) * [0.5, 1] + half * [1, 0],
        "quarter": rng.uniform(0, 0.5, (count, 2)) + half,
        "clusters": np.clip(clusters + rng.normal(0, 0.03, (count, 2)), 0, 1),
        "narrow": clusters[:1] + rng.uniform(-0.05, 0.05, (count, 2)),
    }
    return places[kind]


IMAGES = [(64, 48), (224, 224), (320, 320), (640, 480), (1280, 1024), (1024, 1024), (1500, 2000)]


@st.composite
def cases(draw):
    """What a file holds, what the user says of it, and where the gaze was."""
    image = draw(st.sampled_from(IMAGES))
    screens = [None, {"size": image}, {"size": (1920, 1080)},
               {"size": (1920, 1080), "area": (460, 40, 1000, 1000)}]  # fmt: skip
    screen = draw(st.sampled_from(screens))
    truth, stated = (
        settings(
            unit=draw(st.sampled_from(UNITS)),
            origin=draw(st.sampled_from(ORIGINS)),
            screen=draw(st.sampled_from([screen, screen, None])),
        )
        for _ in range(2)
    )
    count, kind = draw(st.sampled_from([5, 8, 12, 30, 100])), draw(st.sampled_from(KINDS))
    rng = np.random.default_rng(draw(st.integers(0, 100_000)))
    places = draw_gaze(kind, count, rng)
    outside = rng.permutation(count) < int(draw(st.floats(0, 0.2)) * count)
    far = draw(st.sampled_from([1.2, 3.0, 27.0]))
    places[outside] = 0.5 + far * np.sign(rng.uniform(-1, 1, (int(outside.sum()), 2)))
    return image, truth, stated, draw(st.booleans()), places


KINDS = ["middle", "everywhere", "edges", "half", "quarter", "clusters", "narrow"]


def extent(places):
    """Return the larger extent of the middle 80 % of positions."""
    return np.ptp(np.percentile(places, (10, 90), axis=0), axis=0).max()


def rests(places):
    """Return whether nearly all positions are in one spot: the three quarters in the middle."""
    distance = np.abs(places - np.median(places, axis=0)).max(axis=1)
    return extent(places[np.argsort(distance)[: math.ceil(0.75 * len(places))]]) < 0.15


def check_case(case):
    """Check that gaze never ends in one spot, and that an advice names the truth.

    The gaze has any unit and origin, exchanged axes and up to a fifth far off the screen.
    """
    image, truth, stated, swapped, places = case
    recorded = np.array([record(place, np.array(image, float), truth) for place in places])
    recorded = recorded[:, ::-1] if swapped else recorded
    size = np.broadcast_to(np.array(image, float), recorded.shape)
    seen = is_on_image(places)
    text = check(recorded, image, stated)
    found = to_image_fractions(recorded, size, stated)
    if text is None:
        # The same unit on another frame is no matter of the unit, and warned of.
        if truth.screen == stated.screen:
            squeezed = extent(places[seen]) > 2 * extent(found[seen])
            assert extent(found[seen]) >= 0.15 or not squeezed or rests(places[seen])
        return
    is_right = np.allclose(found, places)
    assert not is_right or rests(places[seen]), f"a right declaration is refused: {text}"
    if is_right:
        assert "; if nearly all gaze rests in one spot, set recording.max_off_image: 1" in text
    if not text.startswith("x and y look"):
        return
    if "pixels of the screen, not of the image" in text:
        assert truth.unit == "px" and truth.screen is not None
        return
    readings, more = named_readings(stated, text)
    if f"recording.unit: {truth.unit}, if nearly all gaze rests in one spot" in more:
        assert rests(places[seen])
        return
    if SCREEN_TOO in more and truth.screen is not None:
        assert truth.unit in [unit for unit, *_ in readings]
        return
    for unit, origin, screen, exchanged in readings:
        if "," not in unit:
            new = stated.model_copy(update={"unit": unit, "origin": origin, "screen": screen})
            position = recorded[:, ::-1] if exchanged else recorded
            if np.allclose(to_image_fractions(position, size, new), places):
                return
    raise AssertionError(f"the truth, {truth}, swapped: {swapped}, is not in {text}")


@hypothesis_settings(deadline=None, max_examples=300)
@given(case=cases())
def test_gaze_never_ends_in_one_spot_and_advice_is_right(case):
    check_case(case)


@pytest.mark.slow
@hypothesis_settings(deadline=None, max_examples=2000)
@given(case=cases())
def test_of_two_thousand_advices_none_is_wrong(case):
    check_case(case)


def test_max_off_image_sets_the_allowed_share():
    recorded = recorded_positions()
    recorded[:50, 0] += 300
    image = np.tile(IMAGE, (200, 1))
    check_placement("f", "c", recorded, image, settings(max_off_image=0.25), "fixations")
    with pytest.raises(BadInput, match=r"25% of 200 .*\n.*at most 24%"):
        check_placement("f", "c", recorded, image, settings(max_off_image=0.24), "fixations")


def test_a_single_value_far_off_hides_nothing():
    """One fixation off the screen used to switch off the check of gaze within one pixel."""
    recorded, image = random_positions(), (1280, 1024)
    recorded[7] = [1.3, -0.2]
    assert check(recorded, image, settings(unit="px")) == (
        "x and y look like fractions, not pixels: set recording.unit: fraction"
        f"{ALSO}columns swapped; recording.origin: bottom-left; {SCREEN_TOO}"
    )
    assert check(100 * recorded, image, settings(unit="fraction")) == (
        "x and y look like percent, not fractions: set recording.unit: percent"
        f"{ALSO}columns swapped; recording.origin: bottom-left; recording.unit: px, if nearly "
        f"all gaze rests in one spot; {SCREEN_TOO}"
    )


def test_percent_in_one_corner_is_no_gaze_in_pixels():
    image = (1280, 1024)
    recorded = 100 * random_positions()
    assert check(recorded, image, settings(unit="px")) == (
        "x and y look like percent, not pixels: set recording.unit: percent"
        f"{ALSO}columns swapped; recording.origin: bottom-left; recording.unit: px, if nearly "
        f"all gaze rests in one spot; {SCREEN_TOO}; if nearly all gaze rests in one spot, set "
        "recording.max_off_image: 1"
    )
    # The user may insist, except within one pixel.
    assert check(recorded, image, settings(unit="px", max_off_image=1)) is None
    assert check(recorded / 100, image, settings(unit="px", max_off_image=1)) is not None


def test_narrow_gaze_in_the_right_unit_is_accepted():
    """A small target in the middle of each image: nothing larger spreads its gaze."""
    narrow = 0.5 + 0.04 * (random_positions() - 0.5)
    for unit in UNITS:
        for origin in ("top-left", "bottom-left"):
            truth = settings(unit=unit, origin=origin)
            image = np.array([1280.0, 1024.0])
            recorded = np.array([record(place, image, truth) for place in narrow])
            assert check(recorded, image, truth) is None


def test_a_warning_names_a_clearly_better_reading(caplog):
    """On a wide image, exchanged axes leave two thirds of the gaze on it."""
    image = np.array([1500.0, 1000.0])
    recorded = (random_positions() * image)[:, ::-1]
    assert check(recorded, image, settings()) is None
    assert "of the fixations lie on their images; otherwise 100 % would: x and y look swapped" in (
        caplog.text
    )


def test_a_warning_names_settings_that_would_spread_the_gaze(caplog):
    """Percent on an image of 320 px, read as pixels, is no spot, but all in one corner."""
    assert check(100 * random_positions(), (320, 320), settings(unit="px")) is None
    assert "other settings would spread it: recording.unit: percent. Compare" in caplog.text
    caplog.clear()
    assert check(320 * random_positions(), (320, 320), settings(unit="px")) is None
    assert not caplog.text
