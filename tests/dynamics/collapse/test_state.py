"""The state behind NC1 to NC4: streams of batches, merges, devices, transformations, dtypes."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st
from jax.sharding import PartitionSpec as P

from spa_jax.dynamics import collapse
from spa_jax.dynamics.collapse import NCState
from tests.dynamics.collapse import reference
from tests.dynamics.collapse.cases import (
    C,
    D,
    N,
    assert_metrics,
    assert_same_states,
    draw,
    gather,
    merge,
    narrow,
    update,
)

properties = settings(max_examples=25, deadline=None, derandomize=True)


@properties
@given(st.integers(0, 10**6), st.integers(1, 5))
def test_every_split_merge_and_order_gives_the_moments_of_all_examples(seed, number):
    """Some parts have no example, or none of a class."""
    features, labels, _, _ = draw(seed % 5)
    rng = np.random.default_rng(seed)
    features, owner = np.float32(features), rng.integers(0, number, N) * rng.integers(0, 2, N)
    parts = [update(NCState.create(C, D), features, labels, owner == k) for k in range(number)]
    merged = functools.reduce(merge, [parts[k] for k in rng.permutation(number)])
    own = [np.float64(features[labels == c]) for c in range(C)]
    scatters = [reference.within_scatter(rows) for rows in own]
    np.testing.assert_array_equal(merged.counts, [len(rows) for rows in own])
    np.testing.assert_allclose(merged.mean, [np.mean(rows, axis=0) for rows in own], atol=1e-5)
    np.testing.assert_allclose(merged.scatter, sum(scatters), atol=1e-4)
    np.testing.assert_allclose(merged.traces, [np.trace(s) for s in scatters], atol=1e-4)
    assert merged.not_finite == 0


def test_labels_that_do_not_fit_into_32_bits_contribute_nothing():
    state = NCState.create(C, D)
    for label in (np.int64(2**32), np.int64(-(2**32)), np.uint64(2**63)):
        labels = np.array([label, 1], dtype=label.dtype)
        assert state.update(np.ones((2, D), np.float32), labels).counts.tolist()[:2] == [0, 1]


def test_padding_and_labels_outside_contribute_nothing():
    features, labels, _, _ = draw(0)
    features = np.float32(features)
    alone = update(NCState.create(C, D), features[:32], labels[:32])
    mask = (np.arange(N) < 32).astype(np.float32)
    features[40] = np.nan  # neither counted as left out
    padded = update(NCState.create(C, D), features, labels, mask=mask)
    outside = np.where(mask > 0, labels, np.where(np.arange(N) % 2, -1, C))
    for state in (padded, update(NCState.create(C, D), features, outside)):
        assert_same_states(state, alone, tolerance=1e-6)
    again = update(padded, np.full((4, D), 7, np.float32), labels[:4], mask=np.zeros(4, bool))
    jax.tree.map(np.testing.assert_array_equal, again, padded)


def test_examples_that_are_not_finite_are_left_out_and_counted():
    features, labels, _, _ = draw(0)
    features = np.float32(features)
    kept = np.ones(N, bool)
    kept[[3, 20, 50]] = False
    without = update(NCState.create(C, D), features[kept], labels[kept])
    features[3, 1], features[20, 0], features[50] = np.nan, np.inf, -np.inf
    state = update(NCState.create(C, D), features, labels)
    assert state.not_finite == 3
    assert merge(state, state).not_finite == 6
    assert_same_states(dataclasses.replace(state, not_finite=jnp.int32(0)), without)


def merge_on_eight_devices():
    """A function to the states that the devices have after merging, stacked; three batches each."""

    def one(features, labels, mask):
        state = NCState.create(C, D)
        for part in zip(*(jnp.split(x, 3) for x in (features, labels, mask)), strict=True):
            state = state.update(*part)
        return jax.tree.map(lambda x: x[None], state.merge_over("data"))

    mesh = jax.make_mesh((8,), ("data",), axis_types=(jax.sharding.AxisType.Auto,))
    specs = {"in_specs": P("data"), "out_specs": P("data")}
    return jax.jit(jax.shard_map(one, mesh=mesh, **specs))


def test_eight_devices_in_shard_map_agree_with_one_and_with_each_other():
    features, labels, weights, _ = draw(8, size=240, offset=3.0)
    mask, on_eight_devices = np.arange(240) % 5 != 0, merge_on_eight_devices()
    # In the second order some classes are on one device only.
    for order in (np.arange(240), np.argsort(labels, kind="stable")):
        some, their_labels = np.float32(features[order]), labels[order]
        some[7] = np.nan
        whole = jax.device_get(update(NCState.create(C, D), some, their_labels, mask))
        assert whole.not_finite == 1
        states = jax.device_get(on_eight_devices(some, their_labels, mask))
        for device in range(8):
            own = jax.tree.map(lambda x, device=device: x[device], states)
            assert_same_states(own, whole)
            jax.tree.map(np.testing.assert_array_equal, own, jax.tree.map(lambda x: x[0], states))
        own, whole = (dataclasses.replace(s, not_finite=np.zeros(())) for s in (own, whole))
        assert_metrics(*(collapse.metrics(s, np.float32(weights)) for s in (own, whole)), 2e-5)


def test_pmap_and_vmap_merge_over_their_axis_too():
    features, labels, _, _ = draw(8)
    split = np.float32(features).reshape(8, 8, D), labels.reshape(8, 8)

    def one(features, labels):
        return NCState.create(C, D).update(features, labels).merge_over("data")

    whole = update(NCState.create(C, D), np.float32(features), labels)
    for spread in (jax.pmap(one, "data"), jax.jit(jax.vmap(one, axis_name="data"))):
        states = spread(*split)
        assert_same_states(jax.tree.map(lambda x: x[5], states), whole)


def test_features_sharded_under_jit_agree_with_one_device():
    features, labels, weights, bias = draw(9)
    features, weights, bias = narrow(features, weights, bias)
    mesh = jax.make_mesh((8,), ("data",), axis_types=(jax.sharding.AxisType.Auto,))
    sharded = jax.device_put((features, labels), jax.NamedSharding(mesh, P("data")))
    state, whole = update(NCState.create(C, D), *sharded), gather(features, labels, batch=N)
    assert_same_states(state, whole)
    assert_metrics(*(collapse.metrics(s, weights, bias) for s in (state, whole)), 2e-5)
    agrees = collapse.nc4_agreement(sharded[0], state.mean, weights, bias)
    np.testing.assert_array_equal(
        agrees, collapse.nc4_agreement(features, whole.mean, weights, bias)
    )


def test_states_go_through_jit_scan_and_vmap():
    features, labels, _, _ = draw(0)
    features = np.float32(features)
    batches = features.reshape(4, 16, D), labels.reshape(4, 16)
    whole = gather(features, labels)
    scanned, _ = jax.lax.scan(lambda s, b: (s.update(*b), None), NCState.create(C, D), batches)
    assert_same_states(scanned, whole)
    of_each = jax.jit(jax.vmap(NCState.update, in_axes=(None, 0, 0)))
    each = of_each(NCState.create(C, D), *batches)
    merged = functools.reduce(merge, [jax.tree.map(lambda x, i=i: x[i], each) for i in range(4)])
    assert_same_states(merged, whole)


def test_dtypes_are_float32_unless_features_or_state_are_float64():
    features, labels, _, _ = draw(0)
    short = jnp.asarray(features, jnp.bfloat16)
    state = update(NCState.create(C, D), short, labels)
    assert state.mean.dtype == state.scatter.dtype == state.traces.dtype == jnp.float32
    assert_same_states(state, update(NCState.create(C, D), np.float32(short), labels))
    with jax.enable_x64(True):
        for start in (jnp.float32, jnp.float64):
            state = NCState.create(C, D, start)
            assert update(state, np.float32(features), labels).mean.dtype == start
            assert update(state, features, labels).scatter.dtype == jnp.float64
        state = update(NCState.create(C, D, jnp.float64), np.float32(features), labels)
        exact = reference.class_means(np.float64(np.float32(features)), labels, C)
        np.testing.assert_allclose(state.mean, exact, rtol=1e-13)
        state = NCState.create(C, D, jnp.float64)
        assert state.counts.dtype == state.not_finite.dtype == jnp.int32
        assert state.merge(NCState.create(C, D)).mean.dtype == jnp.float64


def test_a_label_of_eight_bits_counts_for_its_class_alone():
    features, labels = jnp.ones((2, D)), np.array([5, 200], np.uint8)
    state = update(NCState.create(300, D), features, labels)
    assert np.flatnonzero(state.counts).tolist() == [5, 200]
    contributions = collapse.nc1_contributions(features, labels, np.ones((300, D)), np.eye(D))
    np.testing.assert_array_equal(contributions, 0.0)
