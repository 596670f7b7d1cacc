"""NC1 to NC4: the published definitions, exact collapse, invariances, the second pass."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from spa_jax.dynamics import collapse
from spa_jax.dynamics.collapse import NCState
from spa_jax.dynamics.collapse import measures as collapse_measures
from tests.dynamics.collapse import reference
from tests.dynamics.collapse.cases import C, D, N, assert_metrics, draw, gather, narrow, update

centers = pytest.mark.parametrize("center", ["class_means", "samples"])
ONES = {"nc3_cosines", "nc4_means"}


@pytest.mark.parametrize(
    ("shape", "center", "center_weights"),
    [
        ((C, D), "class_means", False),
        ((C, D), "samples", True),
        ((8, 5), "samples", False),
        ((8, 5), "class_means", True),
    ],
    ids=str,
)
def test_metrics_are_those_of_the_definitions(shape, center, center_weights):
    for seed in range(3):
        features, labels, weights, bias = draw(seed, *shape)
        features, weights, bias = narrow(features, weights, bias)
        state = gather(features, labels, shape[0])
        found = collapse.metrics(state, weights, bias, center, center_weights)
        desired = reference.metrics(features, labels, weights, bias, center, center_weights)
        assert desired["nc1_rank"] == min(shape[0] - 1, shape[1])
        assert_metrics(found, desired, 2e-5)
        for name, value in found.items():
            kind = int if name == "nc1_rank" else float
            assert type(value) is kind if np.ndim(value) == 0 else value.dtype == np.float64, name


def test_float64_features_are_measured_in_float64():
    features, labels, weights, bias = draw(3)
    with jax.enable_x64(True):
        state = gather(features, labels)
        found = collapse.metrics(state, weights, bias, "samples")
        desired = reference.metrics(features, labels, weights, bias, "samples")
        assert_metrics(found, desired, 1e-12)
        assert state.mean.dtype == state.scatter.dtype == jnp.float64


def test_the_two_centres_differ_under_imbalance():
    features, labels, weights, _ = draw(0)
    one, other = (
        collapse.metrics(gather(*narrow(features), labels), *narrow(weights), center=center)
        for center in ("class_means", "samples")
    )
    changed = {k for k in one if np.abs(one[k] - other[k]).max() > 1e-3}
    assert {"nc1", "nc1_quotient", "nc2_equinorm_means", "nc3"} <= changed
    assert not changed & {"cdnv", "nc2_equinorm_weights", "nc4_means", "nc1_rank"}


def test_a_case_by_hand():
    """Means (0, 0), (4, 0); scatter 2 along the first axis, 8 along the second; 5 examples."""
    features = jnp.array([[-1.0, 0], [1, 0], [4, 2], [4, -2], [4, 0]])
    state = update(NCState.create(2, 2), features, jnp.array([0, 0, 1, 1, 1]))
    found = collapse.metrics(state, jnp.array([[-3.0, 0], [0, 1]]), jnp.array([0.0, 1.0]))
    # S_B = diag(4, 0), so that the scatter along the second axis is left out of the trace form.
    assert found["nc1"] == pytest.approx(2 / 5 / 4)
    assert found["nc1_over_c"] == pytest.approx(2 / 5 / 4 / 2)
    assert found["nc1_quotient"] == pytest.approx(10 / 5 / 4)
    np.testing.assert_allclose(found["nc1_per_class"], [1 / 4, 8 / 3 / 4], rtol=1e-6)
    assert found["cdnv"] == pytest.approx((1 + 8 / 3) / 2 / 16)
    np.testing.assert_allclose(found["nc3_cosines"], [1, 0], atol=1e-6)
    np.testing.assert_allclose(found["nc3_angles"], [0, 90], atol=1e-4)
    assert found["nc2_equinorm_weights"] == pytest.approx(np.sqrt(2) / 2)
    assert found["nc2_equiangular_weights"] == pytest.approx(1)
    assert found["nc4_means"] == 0.5


def collapsed(num_classes, dim):
    """Unequal numbers of copies of the rows of a moved, scaled simplex ETF; a matching classifier.

    As the middle is not at 0, only the right biases make the classifier agree with the means.
    """
    frame = reference.simplex_etf(num_classes, dim, seed=1)
    middle = np.linspace(-0.5, 0.5, dim)
    labels = np.repeat(np.arange(num_classes), 3 * num_classes - 2 * np.arange(num_classes))
    labels = np.random.default_rng(0).permutation(labels)
    return (2 * frame + middle)[labels], labels, 0.3 * frame, -0.3 * frame @ middle


@pytest.mark.parametrize(
    ("num_classes", "dim", "dtype", "tolerance"),
    [(2, 1, np.float32, 1e-6), (30, 64, np.float32, 1e-6), (10, 32, np.float64, 1e-12)],
)
def test_a_collapsed_simplex_etf_is_0_and_1(num_classes, dim, dtype, tolerance):
    with jax.enable_x64(dtype == np.float64):
        features, labels, weights, bias = collapsed(num_classes, dim)
        features, weights, bias = (x.astype(dtype) for x in (features, weights, bias))
        state = gather(features, labels, num_classes, batch=len(labels) // 2)
        found = collapse.metrics(state, weights, bias)
        assert found.pop("nc1_rank") == num_classes - 1
        angles = found.pop("nc3_angles")
        np.testing.assert_allclose(angles, 0, atol=np.degrees(tolerance))
        desired = {name: float(name in ONES) * np.ones(np.shape(found[name])) for name in found}
        assert_metrics(found, desired, tolerance)
        assert collapse.nc4(features, state.mean, weights, bias) == 1


def test_an_offset_that_all_features_share_does_not_cancel_the_scatter():
    """With sums of squares the scatter 1e-4 of squares 1e6 would be lost in float32."""
    features, labels, weights, _ = draw(0, spread=0.01, offset=1000.0)
    features, weights = narrow(features, weights)
    found = collapse.metrics(gather(features, labels), weights)
    desired = reference.metrics(features, labels, weights)
    for name in ("nc1", "nc1_quotient", "nc1_per_class", "cdnv"):
        np.testing.assert_allclose(found[name], desired[name], rtol=0.02, err_msg=name)


@centers
def test_metrics_do_not_depend_on_scale_rotation_shift_or_order_of_classes(center):
    features, labels, weights, _ = draw(2)
    plain = collapse.metrics(gather(*narrow(features), labels), *narrow(weights), center=center)
    for seed, scale in ((0, 1e-6), (1, 1.0), (2, 1e6)):
        rng = np.random.default_rng(seed)
        turn, _ = np.linalg.qr(rng.normal(size=(D, D)))
        order = rng.permutation(C)  # class c becomes class order[c]
        moved = scale * (features @ turn + rng.normal(size=D))
        turned = 1e-3 * weights @ turn
        found = collapse.metrics(
            gather(*narrow(moved), order[labels]), *narrow(turned[np.argsort(order)]), center=center
        )
        for name in set(plain) - {"nc4_means"}:  # needs a bias that moves along
            value = found[name] if np.ndim(found[name]) == 0 else found[name][order]
            np.testing.assert_allclose(value, plain[name], rtol=1e-3, atol=1e-4, err_msg=name)


def test_a_weight_that_all_classes_share_counts_unless_weights_are_centred():
    features, labels, weights, bias = draw(0)
    state = gather(*narrow(features), labels)
    (weights, bias), shift = narrow(weights, bias), np.float32(np.arange(D)) / 4

    def both(centred):
        of = functools.partial(collapse.metrics, state, bias=bias, center_weights=centred)
        return of(weights), of(weights + shift)

    plain, shifted = both(False)
    for name in [k for k in plain if "weights" in k or k.startswith("nc3")]:
        assert np.abs(plain[name] - shifted[name]).max() > 1e-2, name
    plain, shifted = both(True)
    assert_metrics(plain, shifted, 1e-5)


def test_directions_in_which_no_mean_differs_are_left_out_of_nc1():
    rng = np.random.default_rng(0)
    labels = np.arange(80) % 4
    line = np.outer([-1.0, 0.5, 2.0, 4.0], rng.normal(size=5)) + 3.0
    features = np.float32(line[labels] + 0.1 * rng.normal(size=(80, 5)))
    means = reference.class_means(np.float64(features), labels, 4)
    features += np.float32(line - means)[labels]  # the means are now on the line, up to rounding
    found = collapse.metrics(gather(features, labels, 4), *narrow(rng.normal(size=(4, 5))))
    centred = line - line.mean(axis=0)
    within = sum(reference.within_scatter(np.float64(features[labels == c])) for c in range(4)) / 80
    desired = np.trace(within @ reference.between_pseudo_inverse(centred))
    assert found["nc1_rank"] == 1
    np.testing.assert_allclose(found["nc1"], desired, rtol=1e-4)


def test_two_means_that_coincide_make_cdnv_infinite_and_nothing_else():
    features, labels, weights, _ = draw(1)
    features, weights = narrow(features, weights)
    means = reference.class_means(features, labels, C)
    features = features + np.float32(means[4] - means[5]) * (labels == 5)[:, None]
    found = collapse.metrics(gather(features, labels), weights)
    assert found.pop("cdnv") == np.inf
    assert found["nc1_rank"] == C - 2
    assert all(np.all(np.isfinite(value)) for value in found.values())
    same = np.ones((2, 3), np.float32)
    assert collapse_measures.class_distance_normalized_variance(same, np.zeros(2)) == np.inf


@pytest.mark.parametrize("offset", [0.0, 0.4, 0.7, 0.9])
def test_a_mean_on_the_global_mean_and_a_zero_weight_have_cosine_0(offset):
    """With an offset the centred mean is not 0 but rounding noise, which has a direction."""
    features = offset + jnp.array([[8.0, 0.1], [-3.0, 0.1], [-5.0, 0.1], [0.0, 0.1]]) / 3
    state = update(NCState.create(4, 2), features, jnp.arange(4))
    found = collapse.metrics(state, jnp.array([[1.0, 0], [0, 1], [0, 0], [1, 0]]))
    np.testing.assert_allclose(found["nc3_cosines"], [1, 0, 0, 0], atol=1e-5)
    np.testing.assert_allclose(found["nc3_angles"], [0, 90, 90, 90], atol=1e-3)
    # Six pairs: of the means' cosines two are -1, one is 1; of the weights' one is 1; others are 0.
    desired = (2 * (1 - 1 / 3) + (1 + 1 / 3) + 3 * (1 / 3)) / 6
    assert found["nc2_equiangular_means"] == pytest.approx(desired)
    assert found["nc2_equiangular_weights"] == pytest.approx((1 + 1 / 3 + 5 / 3) / 6)


@centers
def test_the_second_pass_gives_nc1_of_each_class(center):
    features, labels, weights, _ = draw(4)
    features, weights = narrow(features, weights)
    state = gather(features, labels)
    root = collapse.whitening(state, center)
    assert root.shape == (C - 1, D)
    parts = collapse.nc1_contributions(features, labels, state.mean, root)
    nc1 = collapse.metrics(state, weights, center=center)["nc1"]
    np.testing.assert_allclose(parts.mean(), nc1, rtol=1e-5)
    of_classes = [parts[labels == c].mean() for c in range(C)]
    desired = reference.nc1_of_classes(np.float64(features), labels, C, center)
    np.testing.assert_allclose(of_classes, desired, rtol=1e-4)
    outside = np.where(labels == 2, C, np.where(labels == 3, -1, labels))
    kept = (labels != 2) & (labels != 3)
    again = collapse.nc1_contributions(features, outside, state.mean, root)
    np.testing.assert_array_equal(again, np.where(kept, parts, 0))


@centers
def test_whitening_is_a_root_of_the_pseudo_inverse(center):
    features, labels, _, _ = draw(5)
    root = np.float64(collapse.whitening(gather(*narrow(features), labels), center))
    means = reference.centred_means(features, labels, C, center)
    desired = reference.between_pseudo_inverse(means)
    np.testing.assert_allclose(root.T @ root, desired, atol=1e-4 * np.abs(desired).max())
    centred = collapse.centred_means(gather(*narrow(features), labels), center)
    np.testing.assert_allclose(centred, means, atol=1e-5)


@pytest.mark.parametrize("offset", [0.0, 3000.0])
def test_nc4_is_the_share_on_which_classifier_and_nearest_mean_agree(offset):
    features, labels, weights, bias = draw(6, spread=1.5)
    weights = weights + reference.class_means(features, labels, C)
    bias = bias - 0.5 * np.sum(weights**2, axis=1) - offset * weights.sum(axis=1)
    features, weights, bias = narrow(features + offset, weights, bias)
    means = np.float32(reference.class_means(np.float64(features), labels, C))
    desired = reference.nc4(*map(np.float64, (features, means, weights, bias)))
    assert 0.2 < desired.mean() < 0.9
    agrees = collapse.nc4_agreement(features, means, weights, bias)
    np.testing.assert_array_equal(agrees, desired)
    assert collapse.nc4(features, means, weights, bias) == pytest.approx(desired.mean())
    mask = np.float32(np.arange(N) % 3 == 0)
    features[1] = np.nan
    masked = collapse.nc4(features, means, weights, bias, mask=mask)
    assert masked == pytest.approx(desired[mask > 0].mean())
    without_bias = reference.nc4(*map(np.float64, (features[2:], means, weights, 0 * bias)))
    np.testing.assert_array_equal(
        collapse.nc4_agreement(features[2:], means, weights), without_bias
    )


def test_traced_nc4_takes_no_class_without_examples_and_no_example_that_is_not_finite():
    features = jnp.array([[0.1, 0.1], [3.0, 3.0], [jnp.nan, 0.0]])
    means = jnp.array([[0.0, 0.0], [2.0, 2.0], [9.0, 9.0]])
    weights, bias = jnp.array([[0.0, 0], [1, 1], [0, 0]]), jnp.array([-9.0, 0, 0])
    agrees = jax.jit(collapse.nc4_agreement)(features, means, weights, bias)
    assert agrees.tolist() == [True, True, False]
    agrees = jax.jit(collapse.nc4_agreement)(features, means + 0.1, weights, -bias)
    assert agrees.tolist() == [True, False, False]


@pytest.mark.parametrize("group", [[0, 1, 2, 3], [1, 4], np.array([5, 0, 2])], ids=str)
def test_minority_collapse_is_mean_and_deviation_of_pairwise_cosines(group):
    _, _, weights, _ = draw(7)
    found = collapse.minority_collapse(np.float32(weights), group)
    cosines = [reference.cosine(a, b) for a, b in reference.pairs(weights[np.asarray(group)])]
    np.testing.assert_allclose(found, [np.mean(cosines), np.std(cosines)], atol=1e-6)


def test_minority_collapse_of_an_etf_and_of_one_direction():
    frame = np.float32(reference.simplex_etf(C, D, seed=0))
    np.testing.assert_allclose(
        collapse.minority_collapse(frame, [3, 4, 5]), [-1 / (C - 1), 0], atol=1e-6
    )
    frame[4], frame[5] = 2 * frame[3], 1e-9 * frame[3]
    np.testing.assert_allclose(collapse.minority_collapse(frame, [3, 4, 5]), [1, 0], atol=1e-6)
    frame[5] = 0
    assert collapse.minority_collapse(frame, [3, 5]).mean == 0
