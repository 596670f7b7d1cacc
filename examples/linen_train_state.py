"""SpA-Proj with Flax Linen and a TrainState: python examples/linen_train_state.py.

The `apply_gradients` of Flax's own TrainState hands no class means on to the optimiser; a subclass
that does is four lines.
"""

import flax.linen as nn
import jax
import numpy as np
import optax
from digits import long_tailed_digits
from flax.training.train_state import TrainState

import spa_jax


class Network(nn.Module):
    """Gives logits, and the features that the classifier saw."""

    @nn.compact
    def __call__(self, images):
        features = nn.relu(nn.Dense(32, name="body")(images))
        return nn.Dense(10, name="head")(features), features


class AlignedState(TrainState):
    """A TrainState that carries the class means."""

    class_means: spa_jax.ClassMeans

    def apply_gradients(self, *, grads, class_means, **changes):
        """One step of the optimiser, which steers by the new class means."""
        more = {"class_means": class_means}
        updates, opt_state = self.tx.update(grads, self.opt_state, self.params, **more)
        params = optax.apply_updates(self.params, updates)
        new = {"step": self.step + 1, "params": params, "opt_state": opt_state, **more}
        return self.replace(**new, **changes)


@jax.jit
def step(state, images, labels):
    """One training step."""

    def loss_fn(params):
        logits, features = state.apply_fn({"params": params}, images)
        loss = optax.softmax_cross_entropy_with_integer_labels(logits, labels).mean()
        return loss, state.class_means.update(jax.lax.stop_gradient(features), labels)

    grads, means = jax.grad(loss_fn, has_aux=True)(state.params)
    return state.apply_gradients(grads=grads, class_means=means)


def main(steps=300):
    """Trains, and prints what it came to."""
    (images, labels), (test_images, test_labels) = long_tailed_digits()
    network = Network()
    state = AlignedState.create(
        apply_fn=network.apply,
        params=network.init(jax.random.key(0), images[:1])["params"],
        tx=optax.chain(spa_jax.spa_proj(gamma=0.0), optax.sgd(0.1, momentum=0.9)),
        class_means=spa_jax.ClassMeans.create(num_classes=10, dim=32),
    )
    rng = np.random.default_rng(0)
    for _ in range(steps):
        batch = rng.choice(len(labels), 64)
        state = step(state, images[batch], labels[batch])
    logits, _ = state.apply_fn({"params": state.params}, test_images)
    accuracy = (logits.argmax(1) == test_labels).mean()
    cosine = spa_jax.class_cosines(state.params, state.class_means).mean()
    print(f"test accuracy {accuracy:.2f}, mean cosine {cosine:.2f}")


if __name__ == "__main__":
    main()
