import re

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from stages.crf import refine

DEFAULTS = {"sxy": (4.0, 5.0), "srgb": 20.0, "compat": 1.0, "iterations": 10}


def scene(seed, size=(14, 17)):
    """A brighter rectangle on a noisy gradient, and a probability that is off by two pixels."""
    rng = np.random.default_rng(seed)
    height, width = size
    y, x = np.mgrid[:height, :width]
    inside = (abs(y - height / 2) < height / 4) & (abs(x - width / 2) < width / 4)
    colour = np.array([90, 70, 60]) + 2 * x[..., None] + 50 * inside[..., None]
    image = np.clip(colour + rng.normal(0, 6, (*size, 3)), 0, 255).astype(np.uint8)
    distance = ((y - height / 2 - 2) / height) ** 2 + ((x - width / 2 + 2) / width) ** 2
    return image, np.exp(-distance / 0.08).astype(np.float32)


def exact_mean_field(image, probability, *, sxy, srgb, compat, iterations):
    """Mean field with the full n × n kernel, in the notation of Krähenbühl & Koltun.

    E(x) = Σᵢ ψ(xᵢ) + w Σ_{i<j} [xᵢ ≠ xⱼ] k(fᵢ, fⱼ) with ψ = −log P. Minimising the KL divergence
    to a product of marginals gives Qᵢ(l) ∝ exp(−ψᵢ(l) − w Σ_{l' ≠ l} Σⱼ k̂ᵢⱼ Qⱼ(l')). Because
    Σ_l' Qⱼ(l') = 1, the sum over l' ≠ l is a constant less Σⱼ k̂ᵢⱼ Qⱼ(l), and the constant drops
    out: Q ∝ exp(−ψ + w K̂ Q). K̂ = D^-½ K D^-½ with D the row sums of K, its diagonal kept.
    """
    y, x = np.indices(probability.shape)
    position = np.stack([y / sxy[0], x / sxy[1]], axis=-1)
    features = np.concatenate([position, image / srgb], axis=-1).reshape(-1, 5)
    kernel = np.exp(-0.5 * ((features[:, None] - features[None]) ** 2).sum(axis=-1))
    root = np.sqrt(kernel.sum(axis=1))
    kernel /= root[:, None] * root
    p = np.clip(probability.astype(np.float64).ravel(), 1e-5, 1 - 1e-5)
    start = np.stack([1 - p, p])
    q = start
    for _ in range(iterations):
        q = start * np.exp(compat * q @ kernel)
        q /= q.sum(axis=0)
    return q[1].reshape(probability.shape)


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize(
    ("sxy", "srgb", "compat"),
    [((4, 5), 20, 1), ((4, 5), 60, 2), ((3, 3), 40, 1), ((8, 2), 30, 2), ((1.5, 1.5), 13, 1)],
)
def test_it_is_the_exact_mean_field_up_to_the_lattice(seed, sxy, srgb, compat):
    image, probability = scene(seed)
    options = {"sxy": sxy, "srgb": srgb, "compat": compat, "iterations": 10}
    found = refine(image, probability, **options)
    exact = exact_mean_field(image, probability, **options)
    error = abs(found - exact)
    assert error.mean() < 0.006
    # The CRF moves the map several times further than we are off.
    assert error.mean() < 0.15 * abs(exact - probability).mean()
    for threshold in (0.3, 0.5):
        assert ((found >= threshold) == (exact >= threshold)).mean() >= 0.98


def test_merging_pixels_into_cells_changes_little(monkeypatch):
    image, probability = scene(0, (70, 90))
    options = DEFAULTS | {"sxy": (12.0, 13.0)}
    merged = refine(image, probability, **options)
    monkeypatch.setattr("stages.crf._CELL_POSITION", 0)
    monkeypatch.setattr("stages.crf._CELL_COLOUR", 0)
    single = refine(image, probability, **options)
    assert 0 < abs(merged - single).mean() < 0.002
    assert ((merged >= 0.5) == (single >= 0.5)).mean() > 0.995


def test_the_map_snaps_to_the_edge_of_a_two_coloured_image():
    image = np.full((24, 30, 3), 40, np.uint8)
    image[:, 12:] = 200
    # The heatmap crosses 0.5 five pixels beyond the edge.
    probability = np.tile(1 / (1 + np.exp(0.2 * (17.0 - np.arange(30)))), (24, 1))
    assert not (probability[:, 12:17] >= 0.5).any()
    found = refine(image, probability, sxy=(20, 20), srgb=13, compat=4, iterations=10)
    np.testing.assert_array_equal(found >= 0.5, image[..., 0] == 200)


@settings(deadline=None, max_examples=60)
@given(
    seed=st.integers(0, 10_000),
    size=st.tuples(st.integers(1, 20), st.integers(1, 20)),
    sxy=st.tuples(st.floats(0.3, 200), st.floats(0.3, 200)),
    srgb=st.floats(1, 300),
    compat=st.floats(0, 10),
    iterations=st.integers(0, 6),
    dtype=st.sampled_from([np.float16, np.float32, np.float64]),
)
def test_any_image_gives_marginals_the_same_each_time(
    seed, size, sxy, srgb, compat, iterations, dtype
):
    rng = np.random.default_rng(seed)
    image = rng.integers(0, 256, (*size, 3), np.uint8)
    # Exact zeros and ones among them.
    probability = np.clip(rng.uniform(-0.3, 1.3, size), 0, 1).astype(dtype)
    options = {"sxy": sxy, "srgb": srgb, "compat": compat, "iterations": iterations}
    before = image.copy(), probability.copy()
    found = refine(image, probability, **options)
    assert found.shape == size
    assert found.dtype == np.float32
    assert (found >= 0).all()
    assert (found <= 1).all()
    np.testing.assert_array_equal(found, refine(image, probability, **options))
    np.testing.assert_array_equal(image, before[0])
    np.testing.assert_array_equal(probability, before[1])


@settings(deadline=None, max_examples=30)
@given(seed=st.integers(0, 10_000), compat=st.floats(0, 4))
def test_swapping_the_labels_swaps_the_result(seed, compat):
    image, probability = scene(seed)
    probability = probability.astype(np.float64)
    options = DEFAULTS | {"compat": compat}
    one, other = refine(image, probability, **options), refine(image, 1 - probability, **options)
    np.testing.assert_allclose(one + other, 1, atol=1e-5)


@settings(deadline=None, max_examples=30)
@given(seed=st.integers(0, 10_000), axis=st.integers(0, 1))
def test_a_flipped_image_gives_the_flipped_map(seed, axis):
    """Up to the lattice and the cells, which are not symmetric."""
    image, probability = scene(seed)
    found = refine(image, probability, **DEFAULTS)
    flipped = refine(np.flip(image, axis), np.flip(probability, axis), **DEFAULTS)
    assert abs(np.flip(flipped, axis) - found).mean() < 0.01


@settings(deadline=None, max_examples=30)
@given(seed=st.integers(0, 10_000), raised=st.floats(0, 1))
def test_more_evidence_never_means_less_foreground(seed, raised):
    """The kernel has no negative entries, so each update is monotone in P."""
    image, probability = scene(seed)
    more = probability.copy()
    more[3:9, 4:11] += raised * (1 - more[3:9, 4:11])
    assert (refine(image, more, **DEFAULTS) > refine(image, probability, **DEFAULTS) - 0.01).all()


@pytest.mark.parametrize("off", [{"compat": 0.0}, {"iterations": 0}])
def test_without_a_pairwise_term_the_probability_comes_back(off):
    image, probability = scene(1)
    probability[0, 0], probability[0, 1] = 0, 1
    found = refine(image, probability, **DEFAULTS | off)
    np.testing.assert_allclose(found, np.clip(probability, 1e-5, 1 - 1e-5), atol=1e-6)


def test_rows_and_columns_have_their_own_std():
    image, probability = scene(2, (20, 20))
    turned = refine(np.swapaxes(image, 0, 1), probability.T, **DEFAULTS | {"sxy": (2.0, 9.0)}).T
    right = refine(image, probability, **DEFAULTS | {"sxy": (9.0, 2.0)})
    wrong = refine(image, probability, **DEFAULTS | {"sxy": (2.0, 9.0)})
    assert 3 * abs(turned - right).mean() < abs(wrong - right).mean()


@pytest.mark.parametrize("size", [(1, 1), (1, 40), (40, 1), (9, 13)])
@pytest.mark.parametrize("value", [0.0, 0.5, 1.0])
def test_constant_input(size, value):
    image = np.full((*size, 3), 128, np.uint8)
    found = refine(image, np.full(size, value), **DEFAULTS)
    np.testing.assert_allclose(found, value, atol=2e-5)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"image": np.zeros((14, 17), np.uint8)}, "image must be (H, W, 3) uint8, found (14, 17)"),
        ({"image": np.zeros((14, 17, 3))}, "found (14, 17, 3) float64"),
        ({"image": np.zeros((0, 17, 3), np.uint8)}, "found (0, 17, 3) uint8"),
        ({"probability": np.zeros((17, 14))}, "probability must be (14, 17)"),
        ({"probability": np.zeros((14, 17), np.uint8)}, "found (14, 17) uint8"),
        ({"probability": np.full((14, 17), 1.5)}, "probability must lie in [0, 1], found 1.5"),
        ({"probability": np.full((14, 17), np.nan)}, "found nan to nan"),
        ({"sxy": (0.0, 5.0)}, "sxy must be two positive numbers of pixels, found (0.0, 5.0)"),
        ({"sxy": (4.0, np.inf)}, "found (4.0, inf)"),
        ({"srgb": -1.0}, "srgb must be a positive number of grey levels, found -1.0"),
        ({"srgb": np.nan}, "found nan"),
        ({"sxy": (1e-4, 1e-4), "srgb": 1e-4}, "sxy and srgb are too small, found (0.0001, 0.0001)"),
        ({"compat": -0.5}, "compat must be at least 0, found -0.5"),
        ({"iterations": -1}, "iterations must be at least 0, found -1"),
    ],
)
def test_errors_name_the_argument_and_its_value(change, message):
    image, probability = scene(0)
    arguments = {"image": image, "probability": probability} | DEFAULTS | change
    with pytest.raises(ValueError, match=re.escape(message)):
        refine(**arguments)
