"""A classifier on the features of a frozen backbone: python examples/frozen_backbone.py.

Features that do not move have class means that do not move either: one pass over the training set
gives them, and no decay is needed. The backbone here is a stand-in, random convolutions.
"""

import jax
import jax.numpy as jnp
import numpy as np
import optax
from digits import long_tailed_digits

import spa_jax


@jax.jit
def backbone(images):
    """Features (B, 256) of images (B, 64); yours are those of a network that others trained."""
    kernel = jax.random.normal(jax.random.key(0), (16, 1, 3, 3)) / 3
    maps = jax.lax.conv(images.reshape(-1, 1, 8, 8), kernel, (2, 2), "SAME")
    return jax.nn.relu(maps).reshape(len(images), -1)


def main(steps=400):
    """Trains, and prints what it came to."""
    (images, labels), (test_images, test_labels) = long_tailed_digits()
    features = backbone(images)
    dim = features.shape[1]
    means = spa_jax.ClassMeans.create(num_classes=10, dim=dim).update(features, labels)
    params = {"head": {"kernel": jnp.zeros((dim, 10)), "bias": jnp.zeros(10)}}
    # Weights of zero have no direction that could be held: their own class means are a start.
    params["head"]["kernel"] = means.directions().T
    # Adam rescales gradients, so that SpA-Proj goes last and sees the step itself.
    tx = optax.chain(optax.adamw(0.01), spa_jax.spa_proj(gamma=0.0, acts_on="updates"))
    opt_state = tx.init(params)

    @jax.jit
    def step(params, opt_state, features, labels):
        def loss_fn(params):
            logits = features @ params["head"]["kernel"] + params["head"]["bias"]
            return optax.softmax_cross_entropy_with_integer_labels(logits, labels).mean()

        grads = jax.grad(loss_fn)(params)
        updates, opt_state = tx.update(grads, opt_state, params, class_means=means)
        return optax.apply_updates(params, updates), opt_state

    rng = np.random.default_rng(0)
    for _ in range(steps):
        batch = rng.choice(len(labels), 64)
        params, opt_state = step(params, opt_state, features[batch], labels[batch])
    logits = backbone(test_images) @ params["head"]["kernel"] + params["head"]["bias"]
    accuracy = (logits.argmax(1) == test_labels).mean()
    cosine = spa_jax.class_cosines(params, means).mean()
    print(f"test accuracy {accuracy:.2f}, mean cosine {cosine:.2f}")


if __name__ == "__main__":
    main()
