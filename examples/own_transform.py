"""An optax transform of your own, made of the package's geometry: python examples/own_transform.py.

Frequent classes grow long weights, and win by length where directions tie. This link keeps every
class's weight at the length that it has, and leaves its direction to the optimiser.
"""

import jax
import jax.numpy as jnp
import numpy as np
import optax
from digits import long_tailed_digits

import spa_jax


def keep_lengths(classifier="head/kernel"):
    """The last link of a chain: the step lands on weights turned, but as long as before."""

    def update(updates, state, params=None):
        leaves, structure = jax.tree.flatten(updates)
        for i in spa_jax.find_kernels(params, classifier):
            weights = jax.tree.leaves(params)[i]  # (D, C)
            lengths = jnp.linalg.norm(weights, axis=0)
            turned = spa_jax.unit_rows((weights + leaves[i]).T).T * lengths
            leaves[i] = turned - weights
        return structure.unflatten(leaves), state

    return optax.GradientTransformation(lambda params: optax.EmptyState(), update)


def main(steps=300):
    """Trains, and prints what it came to."""
    (images, labels), (test_images, test_labels) = long_tailed_digits()
    # A classifier alone, of equally long weights in random directions.
    weights = 4 * spa_jax.simplex_etf(10, 64, jax.random.key(0))
    params = {"head": {"kernel": weights.T}}
    center = images.mean(0)
    means = spa_jax.ClassMeans.create(num_classes=10, dim=64).update(images - center, labels)
    tx = optax.chain(spa_jax.spa_proj(gamma=0.0), optax.sgd(0.1, momentum=0.9), keep_lengths())
    opt_state = tx.init(params)

    @jax.jit
    def step(params, opt_state, images, labels):
        def loss_fn(params):
            logits = (images - center) @ params["head"]["kernel"]
            return optax.softmax_cross_entropy_with_integer_labels(logits, labels).mean()

        grads = jax.grad(loss_fn)(params)
        updates, opt_state = tx.update(grads, opt_state, params, class_means=means)
        return optax.apply_updates(params, updates), opt_state

    rng = np.random.default_rng(0)
    for _ in range(steps):
        batch = rng.choice(len(labels), 64)
        params, opt_state = step(params, opt_state, images[batch], labels[batch])
    kernel = params["head"]["kernel"]
    accuracy = (((test_images - center) @ kernel).argmax(1) == test_labels).mean()
    lengths, turned = jnp.linalg.norm(kernel, axis=0), spa_jax.row_angles(kernel.T, weights)
    print(f"lengths {lengths.min():.3f} to {lengths.max():.3f}, turned by {turned.mean():.2f} rad")
    cosine = spa_jax.class_cosines(params, means).mean()
    print(f"test accuracy {accuracy:.2f}, mean cosine {cosine:.2f}")


if __name__ == "__main__":
    main()
