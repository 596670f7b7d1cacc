"""Features with classes, their states, and comparisons, for the tests of neural collapse."""

import jax
import numpy as np

from spa_jax.dynamics.collapse import NCState

C, D, N = 6, 9, 64


def draw(seed, num_classes=C, dim=D, size=N, spread=0.5, offset=0.0):
    """Long-tailed features with a class structure, and a classifier."""
    rng = np.random.default_rng(seed)
    shares = 0.7 ** np.arange(num_classes)
    labels = rng.choice(num_classes, size, p=shares / shares.sum())
    labels[: 2 * num_classes] = np.tile(np.arange(num_classes), 2)  # two or more of each
    centres = rng.normal(size=(num_classes, dim)) + offset
    features = centres[labels] + spread * rng.normal(size=(size, dim))
    weights, bias = rng.normal(size=(num_classes, dim)), rng.normal(size=num_classes)
    return features, labels, weights, bias


def narrow(*arrays):
    return [np.float32(x) for x in arrays]


def gather(features, labels, num_classes=C, batch=16):
    """The state of all examples, taken in by batches."""
    state = NCState.create(num_classes, features.shape[1])
    for i in range(0, len(labels), batch):
        state = update(state, features[i : i + batch], labels[i : i + batch])
    return state


update, merge = jax.jit(NCState.update), jax.jit(NCState.merge)


def assert_metrics(found, desired, tolerance):
    assert set(found) == set(desired)
    for name, value in desired.items():
        scale = max(1.0, float(np.max(np.abs(value))))
        np.testing.assert_allclose(
            np.asarray(found[name], np.float64), value, rtol=0, atol=tolerance * scale, err_msg=name
        )


def assert_same_states(one, other, tolerance=2e-5):
    np.testing.assert_array_equal(one.counts, other.counts)
    np.testing.assert_array_equal(one.not_finite, other.not_finite)
    for name in ("mean", "scatter", "traces"):
        a, b = (np.asarray(getattr(state, name)) for state in (one, other))
        scale = max(1.0, np.abs(b).max())
        np.testing.assert_allclose(a, b, rtol=0, atol=tolerance * scale, err_msg=name)
