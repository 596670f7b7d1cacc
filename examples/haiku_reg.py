"""SpA-Reg with Haiku: python examples/haiku_reg.py."""

import haiku as hk
import jax
import numpy as np
import optax
from digits import long_tailed_digits

import spa_jax


def network(images):
    """Logits, and the features that the classifier saw."""
    features = jax.nn.relu(hk.Linear(32, name="body")(images))
    return hk.Linear(10, name="head")(features), features


init, apply = hk.without_apply_rng(hk.transform(network))
tx = optax.sgd(0.1, momentum=0.9)


@jax.jit
def step(params, opt_state, means, images, labels):
    """One training step, in which the loss has a term that turns the weights to the means."""

    def loss_fn(params):
        logits, features = apply(params, images)
        new_means = means.update(jax.lax.stop_gradient(features), labels)
        loss = optax.softmax_cross_entropy_with_integer_labels(logits, labels).mean()
        return loss + spa_jax.spa_reg(params, new_means, classifier="head/w"), new_means

    grads, new_means = jax.grad(loss_fn, has_aux=True)(params)
    updates, opt_state = tx.update(grads, opt_state)
    return optax.apply_updates(params, updates), opt_state, new_means


def main(steps=300):
    """Trains, and prints what it came to."""
    (images, labels), (test_images, test_labels) = long_tailed_digits()
    params = init(jax.random.key(0), images[:1])
    opt_state = tx.init(params)
    means = spa_jax.ClassMeans.create(num_classes=10, dim=32)
    rng = np.random.default_rng(0)
    for _ in range(steps):
        batch = rng.choice(len(labels), 64)
        params, opt_state, means = step(params, opt_state, means, images[batch], labels[batch])
    logits, _ = apply(params, test_images)
    accuracy = (logits.argmax(1) == test_labels).mean()
    cosine = spa_jax.class_cosines(params, means, classifier="head/w").mean()
    print(f"test accuracy {accuracy:.2f}, mean cosine {cosine:.2f}")


if __name__ == "__main__":
    main()
