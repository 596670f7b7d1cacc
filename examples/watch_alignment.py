"""Watches alignment in a loop that is not ours: python examples/watch_alignment.py.

Here scikit-learn trains, and nothing of it knows of spa_jax. After each epoch its classifier is
measured against the class means of features that it was not trained on, which alone is evidence.
"""

import jax.numpy as jnp
import numpy as np
from digits import long_tailed_digits
from sklearn.linear_model import SGDClassifier

import spa_jax
from spa_jax.dynamics import collapse


def main(epochs=8):
    """Trains, and prints what each epoch came to."""
    (features, labels), (held_out, test_labels) = long_tailed_digits()
    # One pass over the held-out set; states of several batches, devices or files merge.
    state = collapse.NCState.create(num_classes=10, dim=64).update(held_out, test_labels)
    model = SGDClassifier(loss="log_loss", random_state=0)
    for epoch in range(epochs):
        model.partial_fit(features, labels, classes=np.arange(10))
        weights = jnp.asarray(model.coef_, jnp.float32)  # (C, D)
        params = {"head": {"kernel": weights.T}}
        cosines = spa_jax.class_cosines(params, state.mean)
        found = collapse.metrics(state, weights)
        accuracy = model.score(held_out, test_labels)
        print(
            f"epoch {epoch}: NC1 {found['nc1']:.2f}, NC3 {found['nc3']:.2f}, "
            f"lowest cosine {cosines.min():.2f}, "
            f"test accuracy {accuracy:.2f}, mean cosine {cosines.mean():.2f}"
        )


if __name__ == "__main__":
    main()
