import re
import threading
import time

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from stages.core import parallel
from stages.gaze.crf import _cell_keys, _Lattice, _unique_inverse, refine

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
def test_matches_exact_mean_field_within_lattice_error(seed, sxy, srgb, compat):
    image, probability = scene(seed)
    options = {"sxy": sxy, "srgb": srgb, "compat": compat, "iterations": 10}
    found = refine(image, probability, **options)
    exact = exact_mean_field(image, probability, **options)
    error = abs(found - exact)
    assert error.mean() < 0.006
    # The CRF changes the map several times as much as this error.
    assert error.mean() < 0.15 * abs(exact - probability).mean()
    for threshold in (0.3, 0.5):
        assert ((found >= threshold) == (exact >= threshold)).mean() >= 0.98


def test_merging_pixels_into_cells_changes_little(monkeypatch):
    image, probability = scene(0, (70, 90))
    options = DEFAULTS | {"sxy": (12.0, 13.0)}
    merged = refine(image, probability, **options)
    monkeypatch.setattr("stages.gaze.crf._CELL_SIDE_POSITION", 0)
    monkeypatch.setattr("stages.gaze.crf._CELL_SIDE_COLOUR", 0)
    single = refine(image, probability, **options)
    assert 0 < abs(merged - single).mean() < 0.002
    assert ((merged >= 0.5) == (single >= 0.5)).mean() > 0.995


def test_cells_keep_the_detail_of_a_rough_probability(monkeypatch):
    """A cell may hold zeros, ones and any value between."""
    image, probability = scene(0, (60, 80))
    rough = np.random.default_rng(0).uniform(-0.4, 0.4, probability.shape)
    probability = np.clip(probability + rough, 0, 1)
    options = DEFAULTS | {"sxy": (12.0, 13.0), "compat": 2.0}
    merged = refine(image, probability, **options)
    monkeypatch.setattr("stages.gaze.crf._CELL_SIDE_POSITION", 0)
    monkeypatch.setattr("stages.gaze.crf._CELL_SIDE_COLOUR", 0)
    single = refine(image, probability, **options)
    assert abs(merged - single).mean() < 0.003
    # The CRF changes the map 30 times as much.
    assert abs(merged - single).mean() < abs(single - probability).mean() / 30


@pytest.mark.parametrize(
    ("pixels", "iterations", "expected"),
    [
        # One cell: K is 1 / 2 everywhere, and m ← (tanh(u₁ + ½ m) + tanh(u₂ + ½ m)) / 2 from 0.
        # tanh u = 2 P − 1 = 0.2, so logit Q = ln 1.5 + 0.2 = 0.605465.
        ([0.6, 0.6], 1, [0.646906, 0.646906]),
        # u = ½ ln 9 = 1.0986 and 0: m = (0.8 + 0) / 2 = 0.4, logit Q = logit P + 0.4.
        ([0.9, 0.5], 1, [0.930683, 0.598688]),
        # Then m = (tanh(1.0986 + 0.2) + tanh 0.2) / 2 = (0.861365 + 0.197375) / 2 = 0.529370.
        ([0.9, 0.5], 2, [0.938578, 0.629336]),
    ],
)
def test_two_identical_pixels_match_values_computed_by_hand(pixels, iterations, expected):
    """Two pixels that are only 1e-5 stds apart, so their kernel value is 1."""
    image = np.full((1, 2, 3), 100, np.uint8)
    found = refine(
        image, np.array([pixels]), sxy=(1e5, 1e5), srgb=13, compat=1, iterations=iterations
    )
    np.testing.assert_allclose(found[0], expected, atol=2e-6)


@settings(max_examples=60)
@given(
    keys=st.lists(st.integers(0, 2**40), min_size=1, max_size=50),
    dtype=st.sampled_from([torch.int32, torch.int64]),
)
def test_unique_inverse_matches_numpy(keys, dtype):
    keys = torch.tensor(keys) % (2**31 if dtype == torch.int32 else 2**62)
    distinct, number = _unique_inverse(keys.to(dtype))
    expected = np.unique(keys.numpy(), return_inverse=True)
    np.testing.assert_array_equal(distinct.numpy(), expected[0])
    np.testing.assert_array_equal(number.numpy(), expected[1])
    assert distinct.dtype == dtype


@settings(max_examples=60)
@given(seed=st.integers(0, 10_000), d=st.integers(1, 7), n=st.integers(1, 40), ties=st.booleans())
def test_a_simplex_contains_its_point(seed, d, n, ties):
    features = torch.tensor(np.random.default_rng(seed).uniform(-3, 3, (d, n)), dtype=torch.float32)
    if ties:
        features = features.round()
    lattice = _Lattice(features)
    weight = lattice._barycentric
    torch.testing.assert_close(weight.sum(dim=0), torch.ones(n))
    assert (weight >= -1e-6).all()
    # Corner k is the floor plus 1 at the k largest fractions.
    points = lattice._basis @ features
    corners = points.floor() + torch.zeros(d + 1, d + 1, n)
    for k in range(1, d + 1):
        corners[k] = corners[k - 1].scatter_add(0, lattice._axis_order[k - 1 : k], torch.ones(1, n))
    mixed = (weight[:, None] * corners).sum(dim=0)
    # Both are equal up to a multiple of the diagonal.
    torch.testing.assert_close(
        mixed - mixed.mean(dim=0), points - points.mean(dim=0), atol=1e-5, rtol=0
    )
    # Fractions in descending order; the axis that comes first wins a tie.
    fraction = (points - points.floor()).gather(0, lattice._axis_order)
    assert (fraction[:-1] >= fraction[1:] - 1e-6).all()
    if ties and d == 1:
        same = fraction[0] == fraction[1]
        assert (lattice._axis_order[0][same] == 0).all()


def test_neighbours_are_found_in_both_directions():
    features = torch.tensor(np.random.default_rng(0).uniform(-2, 2, (5, 300)), dtype=torch.float32)
    lattice = _Lattice(features)
    m = lattice._vertex_count
    for forward, back in lattice._neighbours:
        exists = forward < m
        assert 0 < exists.sum() < m
        assert (back[forward[exists]] == torch.arange(m)[exists]).all()
        assert exists.sum() == (back < m).sum()


def test_filter_approximates_the_gaussian_sum():
    """Compare with Σⱼ exp(−½ |fᵢ − fⱼ|²) vⱼ up to a common factor, which the CRF divides out.

    Only roughly: along each lattice axis the blur is a triangle of that variance, not a Gaussian.
    """
    rng = np.random.default_rng(0)
    features = rng.uniform(0, 4, (2, 2000)).astype(np.float32)
    values = (features[0] > 2).astype(np.float32)
    apart = ((features[:, :, None] - features[:, None]) ** 2).sum(axis=0)
    exact = np.exp(-0.5 * apart) @ np.stack([values, np.ones(2000)], axis=1)
    lattice = _Lattice(torch.tensor(features))
    found, total = (lattice.filter(torch.tensor(v)) for v in (values, np.ones(2000, np.float32)))
    error = abs((found / total).numpy() - exact[:, 0] / exact[:, 1])
    assert error.mean() < 0.015
    assert error.max() < 0.06


def test_gradient_is_the_derivative_of_the_filter():
    rng = np.random.default_rng(1)
    features = torch.tensor(rng.uniform(0, 3, (3, 400)), dtype=torch.float32)
    values = torch.tensor(rng.uniform(size=400), dtype=torch.float32)
    # The moved points have no weight; they only read the values that the other points produce.
    moved = features + 1e-3
    lattice = _Lattice(torch.cat([features, moved], dim=1))
    value, slope = lattice.filter_with_gradient(torch.cat([values, torch.zeros(400)]))
    torch.testing.assert_close(value, lattice.filter(torch.cat([values, torch.zeros(400)])))
    found = (slope[:, :400] * 1e-3).sum(dim=0)
    change = value[400:] - value[:400]
    # The map is linear between two points in one simplex.
    close = abs(found - change) < 0.1 * abs(change) + 1e-3
    assert close.float().mean() > 0.97


def test_pixels_of_a_cell_are_similar_in_position_and_colour():
    image, _ = scene(3, (40, 50))
    levels = torch.tensor(image).permute(2, 0, 1).float()
    keys = _cell_keys(levels, (20.0, 30.0), 20.0).view(40, 50)
    y, x = np.indices((40, 50))
    # 0.3 of the spatial stds: 6 and 9 px; 0.7 of the colour's: 14 levels.
    expected = np.stack([y // 6, x // 9, *(image // 14).transpose(2, 0, 1)]).reshape(5, -1)
    together = np.unique(np.vstack([expected, keys.view(1, -1).numpy()]), axis=1).shape[1]
    assert together == len(keys.unique()) == np.unique(expected, axis=1).shape[1]


def test_large_key_ranges_use_64_bits():
    """One cell per pixel and grey level: 40 · 50 · 257³ possible keys."""
    levels = torch.arange(3 * 2000).view(3, 40, 50) % 256.0
    keys = _cell_keys(levels, (1.0, 1.0), 1.0)
    assert keys.dtype == torch.int64
    assert (keys >= 0).all()
    assert len(keys.unique()) == 2000


def sizes():
    return [(30, 41), (1, 7), (23, 5), (64, 48), (12, 12), (50, 33), (8, 90), (31, 31)]


def test_a_thread_pool_gives_the_serial_results_bit_for_bit():
    scenes = [scene(i, size) for i, size in enumerate(sizes())] * 3
    threads = torch.get_num_threads()
    try:
        # As in the stage: with several threads, an operation adds in another order.
        torch.set_num_threads(1)
        serial = [refine(*arrays, **DEFAULTS) for arrays in scenes]
        for _ in range(2):
            pool = parallel.ordered_map(lambda arrays: refine(*arrays, **DEFAULTS), scenes, 2)
            for one, other in zip(serial, pool, strict=True):
                np.testing.assert_array_equal(one, other)
    finally:
        torch.set_num_threads(threads)


def test_the_number_of_threads_changes_last_bits_at_most():
    # The image is large enough for PyTorch to use several threads.
    image, probability = scene(0, (260, 300))
    rng = np.random.default_rng(0)
    image = np.clip(image + rng.integers(-20, 21, image.shape), 0, 255).astype(np.uint8)
    threads = torch.get_num_threads()
    try:
        found = []
        for count in (1, 2, 2):
            torch.set_num_threads(count)
            found.append(refine(image, probability, **DEFAULTS))
    finally:
        torch.set_num_threads(threads)
    np.testing.assert_allclose(found[1], found[0], rtol=1e-5, atol=1e-7)
    np.testing.assert_array_equal(found[1], found[2])


def test_refinement_releases_the_python_lock():
    """A second thread can run every millisecond, on its own core or on a shared one."""
    image = np.random.default_rng(0).integers(0, 256, (400, 500, 3), np.uint8)
    heat = np.linspace(0, 1, 200_000).reshape(400, 500)
    options = {"sxy": (80.0, 80.0), "srgb": 13.0, "compat": 1.0, "iterations": 10}
    waits, done = [], threading.Event()

    def tick():
        while not done.is_set():
            before = time.perf_counter()
            time.sleep(0.001)
            waits.append(time.perf_counter() - before)

    clock = threading.Thread(target=tick)
    clock.start()
    try:
        before = time.perf_counter()
        refine(image, heat, **options)
        spent = time.perf_counter() - before
    finally:
        done.set()
        clock.join()
    # If the code held the lock all the time, threads would switch every 5 ms at best.
    assert len(waits) > 0.25 * spent / 0.001


def test_every_tensor_is_created_on_the_requested_device():
    """A tensor on any other device would be on `meta` here, and an operation with it raises."""
    image, probability = scene(0)
    expected = refine(image, probability, **DEFAULTS)
    with torch.device("meta"):
        found = refine(image, probability, device=torch.device("cpu"), **DEFAULTS)
    np.testing.assert_array_equal(found, expected)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
@pytest.mark.parametrize("size", [(14, 17), (120, 150)])
def test_gpu_result_matches_cpu(size):
    image, probability = scene(0, size)
    cpu = refine(image, probability, **DEFAULTS)
    gpu = refine(image, probability, device=torch.device("cuda"), **DEFAULTS)
    np.testing.assert_allclose(gpu, cpu, atol=1e-3)
    assert abs(gpu - cpu).mean() < 1e-5


@pytest.mark.parametrize(
    "change",
    [
        lambda a: np.ascontiguousarray(a),
        lambda a: np.asfortranarray(a),
        lambda a: np.flip(np.flip(a, 0).copy(), 0),
        lambda a: a.astype(a.dtype.newbyteorder(">")),
        lambda a: np.frombuffer(a.tobytes(), a.dtype).reshape(a.shape),
    ],
    ids=["plain", "columns first", "flipped view", "big-endian", "read-only"],
)
@pytest.mark.filterwarnings("error")
def test_memory_layout_of_the_input_does_not_matter(change):
    image, probability = scene(4)
    found = refine(change(image), change(probability), **DEFAULTS)
    np.testing.assert_array_equal(found, refine(image, probability, **DEFAULTS))


def test_result_does_not_keep_other_memory_alive():
    image, probability = scene(5)
    found = refine(image, probability, **DEFAULTS)
    assert torch.from_numpy(found).untyped_storage().nbytes() == found.nbytes
    base = found.base
    assert not isinstance(base, torch.Tensor) or base.untyped_storage().nbytes() == found.nbytes


def test_the_map_snaps_to_the_edge_of_a_two_coloured_image():
    image = np.full((24, 30, 3), 40, np.uint8)
    image[:, 12:] = 200
    # The heatmap crosses 0.5 five pixels beyond the edge.
    probability = np.tile(1 / (1 + np.exp(0.2 * (17.0 - np.arange(30)))), (24, 1))
    assert not (probability[:, 12:17] >= 0.5).any()
    found = refine(image, probability, sxy=(20, 20), srgb=13, compat=4, iterations=10)
    np.testing.assert_array_equal(found >= 0.5, image[..., 0] == 200)


@settings(max_examples=60)
@given(
    seed=st.integers(0, 10_000),
    size=st.tuples(st.integers(1, 20), st.integers(1, 20)),
    sxy=st.tuples(st.floats(0.3, 200), st.floats(0.3, 200)),
    srgb=st.floats(1, 300),
    compat=st.floats(0, 10),
    iterations=st.integers(0, 6),
    dtype=st.sampled_from([np.float16, np.float32, np.float64]),
)
def test_any_image_gives_reproducible_marginals(seed, size, sxy, srgb, compat, iterations, dtype):
    rng = np.random.default_rng(seed)
    image = rng.integers(0, 256, (*size, 3), np.uint8)
    # The values include exact zeros and ones.
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


@settings(max_examples=30)
@given(seed=st.integers(0, 10_000), compat=st.floats(0, 4))
def test_swapping_the_labels_swaps_the_result(seed, compat):
    image, probability = scene(seed)
    probability = probability.astype(np.float64)
    options = DEFAULTS | {"compat": compat}
    one, other = refine(image, probability, **options), refine(image, 1 - probability, **options)
    np.testing.assert_allclose(one + other, 1, atol=1e-5)


@settings(max_examples=30)
@given(seed=st.integers(0, 10_000), axis=st.integers(0, 1))
def test_a_flipped_image_gives_the_flipped_map(seed, axis):
    """The tolerance is for the lattice and the cells, which are not symmetric."""
    image, probability = scene(seed)
    found = refine(image, probability, **DEFAULTS)
    flipped = refine(np.flip(image, axis), np.flip(probability, axis), **DEFAULTS)
    assert abs(np.flip(flipped, axis) - found).mean() < 0.01


@settings(max_examples=30)
@given(seed=st.integers(0, 10_000), raised=st.floats(0, 1))
def test_more_evidence_never_means_less_foreground(seed, raised):
    """The kernel has no negative entries, so each update is monotone in P."""
    image, probability = scene(seed)
    more = probability.copy()
    more[3:9, 4:11] += raised * (1 - more[3:9, 4:11])
    assert (refine(image, more, **DEFAULTS) > refine(image, probability, **DEFAULTS) - 0.01).all()


@pytest.mark.parametrize("off", [{"compat": 0.0}, {"iterations": 0}])
def test_without_pairwise_term_the_probability_is_unchanged(off):
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
