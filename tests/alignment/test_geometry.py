"""Properties of the geometry and of what is built on it, over thousands of drawn rows."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import spa_jax
from spa_jax import ClassMeans
from spa_jax.alignment import geometry
from tests.parameters import first

pytestmark = pytest.mark.filterwarnings("ignore:spa_slerp.* turns a bfloat16 kernel")

SHAPES = [(8, 2), (8, 33)]
KINDS = ["random", "near", "opposite", "parallel", "antiparallel"]
NEAR_OPPOSITE = 1e-3  # sine below which float32 no longer knows the plane of an opposite pair

properties = settings(max_examples=150, deadline=None, derandomize=True)


def to_numpy(x):
    return np.asarray(x.astype(jnp.float32), np.float64)


def norms(x):
    return np.linalg.norm(x, axis=-1)


def angles(a, b):
    """Angles between rows in float64, accurate at 0 and pi."""
    a, b = a / norms(a)[:, None], b / norms(b)[:, None]
    return 2 * np.arctan2(norms(a - b), norms(a + b))


def draw_pair(seed, shape, log_scales, kinds):
    """Two arrays of rows: independent, or (nearly) parallel, or (nearly) antiparallel."""
    rng = np.random.default_rng(seed)
    a, b = rng.normal(size=(2, *shape))
    for c, kind in enumerate(kinds):
        if kind != "random":
            sign = -1.0 if kind in ("opposite", "antiparallel") else 1.0
            noisy = kind in ("near", "opposite")
            b[c] = sign * a[c] + noisy * 10 ** rng.uniform(-7, 0) * b[c]
    scales = 10.0 ** np.array(log_scales)
    return jnp.asarray(a * scales[0], jnp.float32), jnp.asarray(b * scales[1], jnp.float32)


def pairs(kinds=KINDS, shapes=SHAPES):
    """Strategy of pairs of (C, D) arrays whose rows have norms from 1e-6 to 1e6."""
    log_scale = st.floats(-6, 6)
    return st.builds(
        draw_pair,
        seed=st.integers(0, 2**32 - 1),
        shape=st.sampled_from(shapes),
        log_scales=st.tuples(log_scale, log_scale),
        kinds=st.lists(st.sampled_from(kinds), min_size=8, max_size=8),
    )


alphas = st.one_of(st.sampled_from([0.0, 1.0]), st.floats(0, 1))
row_norms, unit_rows = jax.jit(geometry.row_norms), jax.jit(geometry.unit_rows)
unit_columns = jax.jit(functools.partial(geometry.unit_rows, axis=0))
row_cosines, row_angles = jax.jit(geometry.row_cosines), jax.jit(geometry.row_angles)
tangent_part, slerp_rows = jax.jit(geometry.tangent_part), jax.jit(geometry.slerp_rows)
both_dtypes = pytest.mark.parametrize("dtype", first(1, [jnp.float32, jnp.bfloat16]))


@properties
@given(pairs())
def test_norms_and_unit_rows_have_the_right_length_and_direction(pair):
    a = to_numpy(pair[0])
    np.testing.assert_allclose(row_norms(pair[0]), norms(a), rtol=1e-6)
    np.testing.assert_allclose(unit_rows(pair[0]), a / norms(a)[:, None], atol=1e-6)
    np.testing.assert_allclose(unit_columns(pair[0].T), (a / norms(a)[:, None]).T, atol=1e-6)


@pytest.mark.parametrize(("length", "kept"), [(1e-11, 1), (1e-13, 0), (1e-40, 0), (0, 0)])
def test_unit_rows_shorter_than_the_minimum_are_zero_rows(length, kept):
    unit = unit_rows(jnp.array([[length * 0.6, length * 0.8], [3.0, 4.0]]))
    np.testing.assert_allclose(unit, [[kept * 0.6, kept * 0.8], [0.6, 0.8]], atol=1e-6)
    np.testing.assert_array_equal(geometry.unit_rows(jnp.ones((2, 3)), minimum=2.0), 0.0)


@pytest.mark.parametrize("size", [1e37, 9e37, 3.3e38, 1e-37])
def test_rows_at_the_ends_of_the_float_range_have_their_norm_and_direction(size):
    rows = jnp.array([[size, 0.0], [0.6, 0.8]], jnp.float32)
    np.testing.assert_allclose(row_norms(rows), [size, 1.0], rtol=1e-6)
    np.testing.assert_allclose(geometry.unit_rows(rows, 1e-38)[0], [1.0, 0.0], atol=1e-6)
    if size > 1:
        targets = jnp.array([[3.0, 4.0], [0.8, 0.6]])
        np.testing.assert_allclose(row_cosines(rows, targets), [0.6, 0.96], atol=1e-6)
        np.testing.assert_allclose(row_cosines(targets, rows), [0.6, 0.96], atol=1e-6)
        turned = slerp_rows(rows, targets, 1.0)
        np.testing.assert_allclose(np.asarray(turned)[0] / size, [0.6, 0.8], atol=1e-6)


def test_an_entry_that_is_zero_has_a_gradient():
    slope = jax.grad(lambda rows: geometry.unit_rows(rows)[0, 0])(jnp.array([[0.0, 2.0]]))
    np.testing.assert_allclose(slope, [[0.5, 0.0]])


@pytest.mark.parametrize(("dtype", "tolerance"), [(jnp.float32, 1e-6), (jnp.bfloat16, 2.0**-8)])
@properties
@given(pair=pairs())
def test_cosines_stay_between_minus_one_and_one(pair, dtype, tolerance):
    pair = [x.astype(dtype) for x in pair]
    cosines = row_cosines(*pair)
    assert cosines.shape == (8,)
    assert jnp.all(jnp.abs(cosines) <= 1)
    desired = np.cos(angles(*map(to_numpy, pair)))
    np.testing.assert_allclose(to_numpy(cosines), desired, atol=tolerance)


@properties
@given(pairs())
def test_angles_are_right_even_at_zero_and_pi(pair):
    actual = to_numpy(row_angles(*pair))
    np.testing.assert_allclose(actual, angles(*map(to_numpy, pair)), atol=2e-6)


@properties
@given(pairs())
def test_tangent_part_is_orthogonal_to_the_row_and_the_rest_is_along_it(pair):
    v, w = pair
    part = to_numpy(tangent_part(v, w))
    v, w = to_numpy(v), to_numpy(w)
    w_hat = w / norms(w)[:, None]
    along = np.sum(v * w_hat, axis=1, keepdims=True) * w_hat
    assert np.all(np.abs(np.sum(part * w_hat, axis=1)) <= 1e-6 * norms(v))
    assert np.all(norms(part + along - v) <= 1e-6 * norms(v))


@properties
@given(pairs())
def test_slerp_by_nothing_is_the_identity_bit_for_bit(pair):
    np.testing.assert_array_equal(slerp_rows(*pair, 0.0), pair[0])


@properties
@given(pairs(), alphas)
def test_slerp_keeps_every_norm(pair, alpha):
    turned = to_numpy(slerp_rows(*pair, alpha))
    np.testing.assert_allclose(norms(turned), norms(to_numpy(pair[0])), rtol=2e-6)


@properties
@given(pairs(), alphas)
def test_slerp_leaves_one_minus_alpha_of_the_angle(pair, alpha):
    before, target = map(to_numpy, pair)
    after = to_numpy(slerp_rows(*pair, alpha))
    theta = angles(before, target)
    known = (np.sin(theta) > NEAR_OPPOSITE) | (theta < 1)
    left = np.abs(angles(after, target) - (1 - alpha) * theta)
    assert np.all(left[known] <= 5e-6)
    assert np.all(np.abs(angles(after, before) - alpha * theta)[known] <= 5e-6)


@properties
@given(pairs(), st.tuples(alphas, alphas))
def test_slerp_brings_the_row_closer_the_larger_alpha_is(pair, two_alphas):
    turned = [to_numpy(slerp_rows(*pair, alpha)) for alpha in sorted(two_alphas)]
    less, more = (angles(rows, to_numpy(pair[1])) for rows in turned)
    assert np.all(more <= less + 2e-6)


@properties
@given(pairs(kinds=["parallel", "antiparallel"]), alphas)
def test_slerp_does_nothing_to_parallel_and_antiparallel_rows(pair, alpha):
    w, turned = to_numpy(pair[0]), to_numpy(slerp_rows(*pair, alpha))
    assert np.all(norms(turned - w) <= 2e-6 * norms(w))


@pytest.mark.parametrize("key", [None, 0, 1])
@pytest.mark.parametrize(("num_classes", "dim"), [(2, 1), (2, 7), (5, 5), (10, 64), (30, 29)])
def test_simplex_etf_rows_are_unit_and_equally_far_apart(num_classes, dim, key):
    key = None if key is None else jax.random.key(key)
    rows = np.asarray(spa_jax.simplex_etf(num_classes, dim, key=key))
    assert rows.shape == (num_classes, dim)
    identity = np.eye(num_classes)
    gram = identity - (1 - identity) / (num_classes - 1)
    np.testing.assert_allclose(rows @ rows.T, gram, atol=2e-6)
    np.testing.assert_allclose(rows.sum(axis=0), 0.0, atol=1e-5)


def test_simplex_etf_is_turned_by_its_key():
    one, other = (spa_jax.simplex_etf(4, 8, key=jax.random.key(k)) for k in (0, 1))
    assert np.abs(one - other).max() > 0.1
    assert np.abs(one - spa_jax.simplex_etf(4, 8)).max() > 0.1


@pytest.mark.parametrize(("num_classes", "dim"), [(3, 1), (10, 8)])
def test_simplex_etf_refuses_a_space_that_is_too_small(num_classes, dim):
    with pytest.raises(ValueError, match="dim"):
        spa_jax.simplex_etf(num_classes, dim)


def proj(options, gamma, incoming, weights, means):
    tx = spa_jax.spa_proj(gamma, classifier="w", class_axis=0, center=False, **dict(options))
    params = {"w": weights}
    updates, _ = tx.update({"w": incoming}, tx.init(params), params, class_means=means)
    return updates["w"]


jitted_proj = jax.jit(proj, static_argnums=0)
forms = pytest.mark.parametrize("radial", ["keep", "scale"])
places = pytest.mark.parametrize("acts_on", ["gradients", "updates"])
problems = st.tuples(pairs(), st.integers(0, 2**32 - 1), st.floats(-6, 6))


def solve(problem, gamma, **options):
    """Incoming and outgoing rows of Proj, the weights' directions, the unit tangent parts."""
    (weights, means), seed, log_scale = problem
    incoming = np.random.default_rng(seed).normal(size=weights.shape) * 10.0**log_scale
    incoming = incoming.astype(np.float32)
    outgoing = jitted_proj(tuple(options.items()), gamma, incoming, weights, means)
    w_hat, mu_hat = (x / norms(x)[:, None] for x in map(to_numpy, (weights, means)))
    part = mu_hat - np.sum(mu_hat * w_hat, axis=1, keepdims=True) * w_hat
    sine = norms(part)[:, None]
    d = np.where(sine > 2e-3, part / np.maximum(sine, 2e-3), 0.0)  # else float32 cannot tell
    return incoming.astype(float), to_numpy(outgoing), w_hat, d


@forms
@places
@properties
@given(problem=problems)
def test_proj_with_gamma_one_is_the_identity_bit_for_bit(problem, radial, acts_on):
    incoming, outgoing, _, _ = solve(problem, 1.0, radial=radial, acts_on=acts_on)
    np.testing.assert_array_equal(outgoing, incoming)


@forms
@places
@properties
@given(problem=problems, gamma=alphas)
def test_proj_leaves_gamma_of_what_is_harmful(problem, gamma, radial, acts_on):
    incoming, outgoing, _, d = solve(problem, gamma, radial=radial, acts_on=acts_on)
    sign = 1.0 if acts_on == "gradients" else -1.0
    before, after = (sign * np.sum(x * d, axis=1) for x in (incoming, outgoing))
    desired = np.where(before > 0, gamma * before, before)
    assert np.all(np.abs(after - desired) <= 1e-4 * norms(incoming))  # d is good to 1e-4


@places
@properties
@given(problem=problems, gamma=alphas)
def test_proj_keeps_the_radial_part_and_never_lengthens_a_row(problem, gamma, acts_on):
    incoming, outgoing, w_hat, _ = solve(problem, gamma, radial="keep", acts_on=acts_on)
    change = np.sum((outgoing - incoming) * w_hat, axis=1)
    assert np.all(np.abs(change) <= 2e-6 * norms(incoming))
    assert np.all(norms(outgoing) <= (1 + 1e-6) * norms(incoming))


def corners():
    """Pairs of rows at which a norm, a quotient or an angle has no derivative."""
    w, v, zero = np.arange(5.0) - 1, np.array([1.0, 2.0, -1.0, 0.0, 3.0]), np.zeros(5)
    rows = {"parallel": (w, 2 * w), "antiparallel": (w, -w), "orthogonal": np.eye(5)[:2],
            "zero row": (zero, v), "zero target": (w, zero), "both zero": (zero, zero)}  # fmt: skip
    for size in (1e-40, 1e-30, 1e-19, 1e-12, 1e-6, 1e6):
        rows |= {f"row of {size}": (size * w, v), f"both of {size}": (size * w, size * v)}
        rows[f"target of {size}"] = (w, size * v)
    return rows


def everything(w, means):
    """Every differentiable function of two sets of rows: the values and both gradients."""
    options = {"classifier": "w", "class_axis": 0}
    functions = {
        "row_norms": lambda w, m: geometry.row_norms(w) + geometry.row_norms(m),
        "unit_rows": lambda w, m: geometry.unit_rows(w) + geometry.unit_rows(m),
        "row_cosines": geometry.row_cosines,
        "row_angles": geometry.row_angles,
        "tangent_part": geometry.tangent_part,
        "slerp_rows": lambda w, m: geometry.slerp_rows(w, m, 0.3),
        "spa_reg": lambda w, m: spa_jax.spa_reg({"w": w}, m, **options),
        "uncentred": lambda w, m: spa_jax.spa_reg({"w": w}, m, center=False, **options),
        "class_cosines": lambda w, m: spa_jax.class_cosines({"w": w}, m, **options),
        "spa_slerp": lambda w, m: spa_jax.spa_slerp({"w": w}, m, 0.3, 1.0, **options)["w"],
        "spa_proj": lambda w, m: proj((), 0.3, jnp.ones_like(w), w, m),
        "directions": lambda w, m: ClassMeans(m.astype(jnp.float32), m[:, 0] > 0, 0.9).directions(),
    }
    total = {name: lambda w, m, f=f: jnp.sum(f(w, m), dtype=float) for name, f in functions.items()}
    return {name: jax.value_and_grad(f, (0, 1))(w, means) for name, f in total.items()}


jitted_everything = jax.jit(everything)


def assert_finite(*rows):
    for name, out in jitted_everything(*rows).items():
        assert all(jnp.all(jnp.isfinite(x)) for x in jax.tree.leaves(out)), name


@both_dtypes
@pytest.mark.parametrize("corner", corners().values(), ids=corners())
def test_every_value_and_gradient_is_finite_in_the_corners(corner, dtype):
    rest = np.random.default_rng(0).normal(size=(2, 7, 5))
    w, means = (np.stack([row, *others]) for row, others in zip(corner, rest, strict=True))
    assert_finite(jnp.asarray(w, dtype), jnp.asarray(means, dtype))
    assert_finite(jnp.asarray(w, dtype), jnp.asarray([means[0]] * 8, dtype))  # they coincide


@both_dtypes
@properties
@given(pair=pairs(shapes=[(8, 5)]))
def test_every_value_and_gradient_is_finite_for_drawn_rows(pair, dtype):
    assert_finite(*(x.astype(dtype) for x in pair))


def test_reg_pulls_the_weights_and_not_the_means():
    w, means = jnp.array([[1.0, 0.0], [0.0, 2.0]]), jnp.array([[1.0, 1.0], [-1.0, 0.5]])
    reg = functools.partial(spa_jax.spa_reg, classifier="head", class_axis=0, center=False)
    pull, push = jax.jit(jax.grad(reg, (0, 1)))({"head": w}, means)
    np.testing.assert_allclose(
        pull["head"], [[0.0, -np.sqrt(0.125)], [np.sqrt(0.05), 0.0]], atol=1e-6
    )
    np.testing.assert_array_equal(push, 0.0)
