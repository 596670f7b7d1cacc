"""SpA-SLERP with Equinox: python examples/equinox_slerp.py.

Equinox keeps weights as (C, D), as PyTorch does: `class_axis=0` says so.
"""

import equinox as eqx
import jax
import numpy as np
import optax
from digits import long_tailed_digits

import spa_jax

STEPS = 300
HEAD = {"classifier": "head/weight", "class_axis": 0}


class Network(eqx.Module):
    """Gives the logits of one image, and the features that the classifier saw."""

    body: eqx.nn.Linear
    head: eqx.nn.Linear

    def __init__(self, key):
        keys = jax.random.split(key)
        self.body = eqx.nn.Linear(64, 32, key=keys[0])
        self.head = eqx.nn.Linear(32, 10, key=keys[1])

    def __call__(self, image):
        features = jax.nn.relu(self.body(image))
        return self.head(features), features


# The last link of the chain: it turns the weights on which the step would land.
tx = optax.chain(
    optax.sgd(0.1, momentum=0.9),
    spa_jax.spa_slerp_transform(spa_jax.slerp_schedule(0.2, STEPS), threshold=0.95, **HEAD),
)


@eqx.filter_jit
def step(model, opt_state, means, images, labels):
    """One training step."""

    def loss_fn(model):
        logits, features = jax.vmap(model)(images)
        loss = optax.softmax_cross_entropy_with_integer_labels(logits, labels).mean()
        return loss, means.update(jax.lax.stop_gradient(features), labels)

    grads, new_means = eqx.filter_grad(loss_fn, has_aux=True)(model)
    params = eqx.filter(model, eqx.is_array)
    updates, opt_state = tx.update(grads, opt_state, params, class_means=new_means)
    return eqx.apply_updates(model, updates), opt_state, new_means


def main():
    """Trains, and prints what it came to."""
    (images, labels), (test_images, test_labels) = long_tailed_digits()
    model = Network(jax.random.key(0))
    opt_state = tx.init(eqx.filter(model, eqx.is_array))
    means = spa_jax.ClassMeans.create(num_classes=10, dim=32)
    rng = np.random.default_rng(0)
    for _ in range(STEPS):
        batch = rng.choice(len(labels), 64)
        model, opt_state, means = step(model, opt_state, means, images[batch], labels[batch])
    logits, _ = jax.vmap(model)(test_images)
    accuracy = (logits.argmax(1) == test_labels).mean()
    cosine = spa_jax.class_cosines(eqx.filter(model, eqx.is_array), means, **HEAD).mean()
    print(f"test accuracy {accuracy:.2f}, mean cosine {cosine:.2f}")


if __name__ == "__main__":
    main()
