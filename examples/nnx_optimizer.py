"""SpA-Proj with Flax NNX: python examples/nnx_optimizer.py.

`nnx.Optimizer.update` hands extra arguments on, so that nothing is needed but the class means.
"""

import jax
import numpy as np
import optax
from digits import long_tailed_digits
from flax import nnx

import spa_jax


class Network(nnx.Module):
    """Gives logits, and the features that the classifier saw."""

    def __init__(self, rngs):
        self.body = nnx.Linear(64, 32, rngs=rngs)
        self.head = nnx.Linear(32, 10, rngs=rngs)

    def __call__(self, images):
        features = nnx.relu(self.body(images))
        return self.head(features), features


@nnx.jit
def step(model, optimizer, means, images, labels):
    """One training step, which changes model and optimiser in place and returns the means."""

    def loss_fn(model):
        logits, features = model(images)
        loss = optax.softmax_cross_entropy_with_integer_labels(logits, labels).mean()
        return loss, means.update(jax.lax.stop_gradient(features), labels)

    grads, new_means = nnx.grad(loss_fn, has_aux=True)(model)
    optimizer.update(model, grads, class_means=new_means)
    return new_means


def main(steps=300):
    """Trains, and prints what it came to."""
    (images, labels), (test_images, test_labels) = long_tailed_digits()
    model = Network(nnx.Rngs(0))
    tx = optax.chain(spa_jax.spa_proj(gamma=0.0), optax.sgd(0.1, momentum=0.9))
    optimizer = nnx.Optimizer(model, tx, wrt=nnx.Param)
    means = spa_jax.ClassMeans.create(num_classes=10, dim=32)
    rng = np.random.default_rng(0)
    for _ in range(steps):
        batch = rng.choice(len(labels), 64)
        means = step(model, optimizer, means, images[batch], labels[batch])
    logits, _ = model(test_images)
    accuracy = (logits.argmax(1) == test_labels).mean()
    cosine = spa_jax.class_cosines(nnx.state(model, nnx.Param), means).mean()
    print(f"test accuracy {accuracy:.2f}, mean cosine {cosine:.2f}")


if __name__ == "__main__":
    main()
