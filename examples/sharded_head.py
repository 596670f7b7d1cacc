"""A head that is sharded over its classes, under jit: python examples/sharded_head.py.

With a mesh of automatic axes nothing of SpA changes, and no device ever holds the whole head. To
see it on a CPU: XLA_FLAGS=--xla_force_host_platform_device_count=8 python examples/sharded_head.py
"""

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax.sharding import AxisType, NamedSharding
from jax.sharding import PartitionSpec as P

import spa_jax

C, D = 512, 64  # the number of devices has to divide the number of classes


def main(steps=60):
    """Trains, and prints what it came to."""
    mesh = jax.make_mesh((jax.device_count(),), ("classes",), axis_types=(AxisType.Auto,))

    def put(values, *spec):
        return jax.device_put(values, NamedSharding(mesh, P(*spec)))

    rng = np.random.default_rng(0)
    centres = rng.normal(size=(C, D)).astype(np.float32)
    kernel = rng.normal(size=(D, C)).astype(np.float32) / np.sqrt(D)
    params = {"head": {"kernel": put(kernel, None, "classes")}}
    empty = spa_jax.ClassMeans.create(num_classes=C, dim=D)
    means = jax.tree.map(lambda leaf: put(leaf, *(("classes",) if leaf.ndim else ())), empty)
    tx = optax.chain(spa_jax.spa_proj(gamma=0.0), optax.sgd(1.0, momentum=0.9))
    opt_state = jax.jit(tx.init)(params)

    @jax.jit
    def step(params, opt_state, means, features, labels):
        means = means.update(features, labels)

        def loss_fn(params):
            logits = features @ params["head"]["kernel"]
            return optax.softmax_cross_entropy_with_integer_labels(logits, labels).mean()

        grads = jax.grad(loss_fn)(params)
        updates, opt_state = tx.update(grads, opt_state, params, class_means=means)
        return optax.apply_updates(params, updates), opt_state, means

    for _ in range(steps):
        labels = rng.integers(0, C, 1024)
        features = centres[labels] + 0.5 * rng.normal(size=(1024, D)).astype(np.float32)
        batch = put(features), put(labels)
        params, opt_state, means = step(params, opt_state, means, *batch)
    kernel = params["head"]["kernel"]
    accuracy = jnp.mean((centres @ kernel).argmax(1) == np.arange(C))
    shard = kernel.addressable_shards[0].data.shape
    cosine = spa_jax.class_cosines(params, means).mean()
    print(f"{jax.device_count()} device(s), {shard} of {kernel.shape} on each")
    print(f"test accuracy {accuracy:.2f}, mean cosine {cosine:.2f}")


if __name__ == "__main__":
    main()
