"""In bfloat16 the network computes; parameters, head, class means and SpA stay in float32."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import spa_jax
from spa_jax.longtail.losses import cross_entropy
from spa_jax.models.networks import NETWORKS, build_classifier
from tests.refusals import refusal

FLOAT32_ONLY = ("small", "identity")
TINY = {
    "cifar_resnet": {"depth": 8},
    "vit": {"patch_size": 8, "width": 8, "layers": 1},
    "convnext": {"widths": (4, 8)},
    "adapter": {"width": 4},
}
LABELS = jnp.array([0, 1, 2, 1])


def inputs_of(name):
    shape = (4, 6) if name == "adapter" else (4, 32, 32, 3)
    return jnp.asarray(np.random.default_rng(0).normal(size=shape), jnp.float32)


def step_of(name, dtype):
    """A function of a key and inputs: what a step of training has of a network, by name."""
    options = NETWORKS[name].options(**TINY.get(name, {}))
    model = build_classifier(name, options, "linear", {}, 5, dtype)

    def step(key, inputs):
        variables = model.init(key, inputs, train=False)
        means = spa_jax.ClassMeans.create(5, model.backbone.dim or inputs.shape[-1])

        def loss(params):
            (features, logits), _ = model.apply(
                variables | {"params": params}, inputs, train=True, mutable=["batch_stats"]
            )
            moved = means.update(jax.lax.stop_gradient(features), LABELS)
            total = jnp.mean(cross_entropy(logits, LABELS)) + spa_jax.spa_reg(params, moved)
            return total, (features, logits, moved.mean)

        (value, outputs), gradient = jax.value_and_grad(loss, has_aux=True)(variables["params"])
        return {"loss": value, "outputs": outputs, "gradient": gradient, "variables": variables}

    return step


def all_networks(quick, others, tiny=()):
    """Those that compute in bfloat16, with marks: quick ones with none."""
    marks = dict.fromkeys(NETWORKS, others) | dict.fromkeys(TINY, tiny) | dict.fromkeys(quick, ())
    return [pytest.param(x, marks=marks[x]) for x in NETWORKS if x not in FLOAT32_ONLY]


@pytest.mark.parametrize("name", all_networks(TINY, pytest.mark.thorough))
def test_every_network_computes_in_bfloat16_and_all_that_stays_is_float32(name):
    jaxpr, shapes = jax.make_jaxpr(step_of(name, "bfloat16"), return_shape=True)(
        jax.random.key(0), inputs_of(name)
    )
    assert {str(leaf.dtype) for leaf in jax.tree.leaves(shapes)} == {"float32"}
    assert ":bf16[" in str(jaxpr.jaxpr)


def test_a_network_that_does_not_says_so():
    for name in FLOAT32_ONLY:
        options = NETWORKS[name].options()
        message = refusal(build_classifier, name, options, "linear", {}, 5, "bfloat16")
        assert "config.model.dtype=bfloat16" in message


@pytest.mark.parametrize(
    "name", all_networks(["adapter"], pytest.mark.slow, tiny=pytest.mark.thorough)
)
def test_its_loss_and_gradients_are_finite_and_of_a_tiny_network_nearly_those_of_float32(name):
    half = jax.jit(step_of(name, "bfloat16"))(jax.random.key(0), inputs_of(name))
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(half))
    if name in TINY:
        whole = jax.jit(step_of(name, "float32"))(jax.random.key(0), inputs_of(name))
        assert half["loss"] == pytest.approx(float(whole["loss"]), rel=0.05)
        kernels = [np.ravel(found["gradient"]["head"]["kernel"]) for found in (whole, half)]
        cosine = np.dot(*kernels) / np.prod([np.linalg.norm(kernel) for kernel in kernels])
        assert cosine > 0.95
