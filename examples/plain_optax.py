"""SpA-Proj on a plain dictionary of arrays, with optax: python examples/plain_optax.py."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
from digits import long_tailed_digits

import spa_jax

C, D = 10, 32


def features_of(params, images):
    """What the classifier sees: (B, D)."""
    return jax.nn.relu(images @ params["body"]["kernel"] + params["body"]["bias"])


def logits_of(params, features):
    """Scores of the classes: (B, C)."""
    return features @ params["head"]["kernel"] + params["head"]["bias"]


def main(steps=300):
    """Trains, and prints what it came to."""
    (images, labels), (test_images, test_labels) = long_tailed_digits()
    init = jax.nn.initializers.he_normal()
    keys = jax.random.split(jax.random.key(0))
    params = {
        "body": {"kernel": init(keys[0], (64, D)), "bias": jnp.zeros(D)},
        "head": {"kernel": init(keys[1], (D, C)), "bias": jnp.zeros(C)},
    }
    means = spa_jax.ClassMeans.create(num_classes=C, dim=D, decay=0.9)
    tx = optax.chain(spa_jax.spa_proj(gamma=0.0), optax.sgd(0.1, momentum=0.9))
    opt_state = tx.init(params)

    @jax.jit
    def step(params, opt_state, means, images, labels):
        def loss_fn(params):
            features = features_of(params, images)
            logits = logits_of(params, features)
            loss = optax.softmax_cross_entropy_with_integer_labels(logits, labels).mean()
            return loss, means.update(jax.lax.stop_gradient(features), labels)

        grads, new_means = jax.grad(loss_fn, has_aux=True)(params)
        updates, opt_state = tx.update(grads, opt_state, params, class_means=new_means)
        return optax.apply_updates(params, updates), opt_state, new_means

    rng = np.random.default_rng(0)
    for _ in range(steps):
        batch = rng.choice(len(labels), 64)
        params, opt_state, means = step(params, opt_state, means, images[batch], labels[batch])
    predicted = logits_of(params, features_of(params, test_images)).argmax(1)
    accuracy = (predicted == test_labels).mean()
    cosine = spa_jax.class_cosines(params, means).mean()
    print(f"test accuracy {accuracy:.2f}, mean cosine {cosine:.2f}")


if __name__ == "__main__":
    main()
