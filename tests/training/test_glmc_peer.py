"""Two steps of GLMC with SpA-Proj equal PyTorch's, recorded by benchmarks/peers/record_glmc.py."""

from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import spa_jax
from spa_jax.longtail import glmc
from spa_jax.longtail.losses import mix_targets
from spa_jax.longtail.method import LossContext
from spa_jax.models.networks import build_classifier
from spa_jax.training.config import default_config, resolve
from spa_jax.training.devices import Layout
from spa_jax.training.feeds.batch import Batch, Inputs
from spa_jax.training.optimizer import build_optimizer
from spa_jax.training.shards import Shards
from spa_jax.training.state import TrainState
from spa_jax.training.step import make_train_step
from tests.models.backbone_checks import shapes_of
from tests.models.peer_weights import peer_name, peer_tensor, peer_variables

with np.load(Path(__file__).parent / "recorded" / "glmc_step.npz") as file:
    RECORD = dict(file)
STEPS = len(RECORD["total"])
NUM_CLASSES = len(RECORD["class_counts"])
HEADS = ("fc", "fc_cb", "projector", "predictor")
PARAMETERS = [name.removeprefix("change.") for name in RECORD if name.startswith("change.")]
STATISTICS = [name for name in RECORD if ".running_" in name]
FORWARDS = 3  # of a step: clean, global, local

pytestmark = [pytest.mark.device, pytest.mark.thorough]

steps = pytest.mark.parametrize("step", range(STEPS))


def glmc_options():
    """The recorded setting as a configuration, decided."""
    config = default_config()
    config.epochs = int(RECORD["epochs"])
    config.batch_size = len(RECORD["labels"])
    config.model.name, config.model.cifar_resnet.depth = "cifar_resnet", int(RECORD["depth"])
    config.method.name = "glmc"
    config.method.glmc.label_power = float(RECORD["label_power"])
    config.method.glmc.similarity_weight = float(RECORD["similarity_weight"])
    config.method.glmc.projection_dim = int(RECORD["projection_dim"])
    config.optimizer.learning_rate = float(RECORD["learning_rate"])
    # The rate never falls in the epochs there are.
    config.optimizer.schedule, config.optimizer.step_epochs = "steps", (config.epochs + 1,)
    config.optimizer.momentum = float(RECORD["momentum"])
    config.optimizer.weight_decay = float(RECORD["weight_decay"])
    config.spa.method, config.spa.proj.radial = "proj", "scale"
    config.spa.proj.gamma = float(RECORD["gamma"])
    config.spa.decay = float(RECORD["decay"])
    return resolve(config)


OPTIONS = glmc_options()
METHOD = OPTIONS.longtail
MODEL = build_classifier(
    "cifar_resnet", OPTIONS.network, METHOD.head, METHOD.head_options, NUM_CLASSES
)


def start():
    """Params, running statistics and class means before the first step."""
    backbone = peer_variables(shapes_of(MODEL.backbone, RECORD["clean"])[0])
    heads = {
        name: {"kernel": RECORD[f"{name}.weight"].T, "bias": RECORD[f"{name}.bias"]}
        for name in HEADS
    }
    params = {"backbone": backbone["params"], "head": heads}
    means = spa_jax.ClassMeans(
        mean=jnp.asarray(RECORD["means"]),
        seen=jnp.ones(NUM_CLASSES, bool),
        decay=float(RECORD["decay"]),
    )
    trees = (params, {"backbone": backbone["batch_stats"]})
    return (*jax.tree.map(jnp.asarray, trees), means)


def as_pytorch(tree):
    """The leaves of params or statistics by PyTorch's names and in its layouts."""
    merged = {name: leaf for part in tree.values() for name, leaf in part.items()}
    orders = {1: (0,), 2: (1, 0), 4: (3, 2, 0, 1)}
    return {
        peer_name([key.key for key in path]): np.asarray(leaf).transpose(orders[leaf.ndim])
        for path, leaf in jax.tree_util.tree_leaves_with_path(merged)
    }


def assert_close(found, recorded, what=""):
    """Equal to 1e-4 of the largest recorded entry."""
    assert np.shape(found) == np.shape(recorded)
    error = np.abs(np.asarray(found, np.float64) - recorded).max() / np.abs(recorded).max()
    assert error < 1e-4, f"{what} is off by {error:.1e}"


def assert_state(step, before, after):
    """The parameters moved as recorded, and statistics and class means are as recorded."""
    old, new = (as_pytorch(state.params) for state in (before, after))
    for name in PARAMETERS:
        assert_close(new[name] - old[name], RECORD[f"change.{name}"][step], name)
    assert_close(after.class_means.mean, RECORD["new_means"][step], "class means")
    statistics = as_pytorch(after.batch_stats)
    assert sorted(statistics) == sorted(STATISTICS)
    for name, found in statistics.items():
        assert_close(found, expected_statistics(name, step), name)


def expected_statistics(name, step):
    """PyTorch's, but for the variances: they took n - 1 n-ths of the steps that PyTorch's took."""
    recorded = RECORD[name][step]
    if name.endswith("running_mean"):
        return recorded
    batch, side = RECORD["clean"].shape[:2]
    stage = int(name[len("layer")]) if name.startswith("layer") else 1
    values = batch * (side // 2 ** (stage - 1)) ** 2
    kept = 0.9 ** (FORWARDS * (step + 1)) * peer_tensor(name, recorded.shape)
    return kept + (1 - 1 / values) * (recorded - kept)


def inputs():
    """What the network sees of the batch."""
    labels, partner_labels = (
        jnp.asarray(RECORD[name], jnp.int32) for name in ("labels", "partner_labels")
    )
    return Inputs(
        jnp.asarray(RECORD["global"]),
        labels,
        partner_labels,
        jnp.float32(RECORD["share"]),
        second_images=jnp.asarray(RECORD["local"]),
        clean_images=jnp.asarray(RECORD["clean"]),
    )


def keep_gradients():
    """A link of an optimiser chain that changes nothing; its state is what it was given."""

    def update(updates, state, params=None, **extra):
        del state, params, extra
        return updates, updates

    return optax.GradientTransformationExtraArgs(lambda params: params, update)


class Steps:
    """The training step on the recorded images: states, metrics and gradients."""

    def __init__(self):
        steps_per_epoch = 10
        counts = np.asarray(RECORD["class_counts"], np.float32)
        params, batch_stats, means = start()

        def optimizer(hyperparams):
            parts = (OPTIONS.optimizer, OPTIONS.variant, OPTIONS.aligned, hyperparams)
            return optax.chain(
                keep_gradients(), build_optimizer(*parts, OPTIONS.epochs, steps_per_epoch)
            )

        hyperparams = jax.tree.map(jnp.asarray, dict(OPTIONS.hyperparams))
        state = TrainState(
            step=jnp.int32(RECORD["epoch"] * steps_per_epoch),
            params=params,
            batch_stats=batch_stats,
            constants={},
            opt_state=optimizer(hyperparams).init(params),
            class_means=means,
            rng=jax.random.key(0),
            hyperparams=hyperparams,
        )
        step = make_train_step(
            OPTIONS,
            MODEL,
            lambda *parts: inputs(),
            optimizer,
            counts,
            steps_per_epoch,
            shards=Shards(Layout("jit"), METHOD.kernels, len(counts)),
        )
        take = jax.jit(step)
        self.states, self.metrics = [state], []
        for _ in range(STEPS):
            state, values = take(state, Batch(None, None, None))
            self.states.append(state)
            self.metrics.append(values)

    def gradients(self, step):
        """Of a step's loss, before anything is done to them."""
        return self.states[step + 1].opt_state[0]


@pytest.fixture(scope="module")
def trained():
    return Steps()


@jax.jit
def losses_at(params, batch_stats):
    """The parts of the loss, each the mean over the batch, and what the method makes of them."""
    seen = inputs()
    outputs = []
    for images in (seen.images, seen.second_images):
        variables = {"params": params, "batch_stats": batch_stats}
        (_, of_head), _ = MODEL.apply(variables, images, train=True, mutable="batch_stats")
        outputs.append(of_head)
    targets = mix_targets(seen.labels, seen.partner_labels, seen.share, NUM_CLASSES)
    counts = jnp.asarray(RECORD["class_counts"], jnp.float32)
    epoch, epochs = jnp.int32(RECORD["epoch"]), int(RECORD["epochs"])
    parts = glmc.glmc_loss(
        *(glmc.ViewOutputs(*view) for view in outputs),
        targets,
        glmc.class_weights(counts, float(RECORD["label_power"])),
        glmc.cumulative_weight(epoch, epochs),
        float(RECORD["similarity_weight"]),
    )
    context = LossContext(seen.labels, counts, epoch, epochs, None, seen.labels, targets)
    of_method = METHOD.loss(tuple(outputs), targets, context)
    return jax.tree.map(jnp.mean, parts)._asdict() | {"method": of_method}


@steps
def test_the_losses_are_those_of_pytorch(trained, step):
    state = trained.states[step]
    losses = losses_at(state.params, state.batch_stats)
    for part in ("plain", "rebalanced", "similarity", "total"):
        assert_close(losses[part], RECORD[part][step], part)
    assert_close(losses["method"], RECORD["total"][step], "the loss of the method")
    assert_close(trained.metrics[step]["loss"], RECORD["total"][step], "the loss of the step")


@steps
def test_the_gradients_are_those_of_pytorch(trained, step):
    gradients = as_pytorch(trained.gradients(step))
    assert {f"{head}.{kind}" for head in HEADS for kind in ("weight", "bias")} < {*PARAMETERS}
    for name in PARAMETERS:
        assert_close(gradients[name], RECORD[f"gradient.{name}"][step], name)
    assert_close(trained.metrics[step]["gradient_norm"], RECORD["gradient_norm"][step])


@steps
def test_spa_proj_edits_the_plain_classifier_as_released_and_nothing_else(trained, step):
    project = spa_jax.spa_proj(float(RECORD["gamma"]), radial="scale", classifier="fc/kernel")
    gradients, params = trained.gradients(step), trained.states[step].params
    means = trained.states[step + 1].class_means
    changed, _ = project.update(gradients, project.init(params), params, class_means=means)
    raw, edited = as_pytorch(gradients), as_pytorch(changed)
    assert_close(edited["fc.weight"], RECORD["edited.fc.weight"][step])
    for name in edited.keys() - {"fc.weight"}:
        np.testing.assert_array_equal(edited[name], raw[name], err_msg=name)


@steps
def test_the_training_step_leaves_the_state_that_pytorch_leaves(trained, step):
    assert_state(step, *trained.states[step : step + 2])


def test_the_record_has_harmful_and_harmless_gradients_and_seen_and_absent_classes():
    for step in range(STEPS):
        weight = RECORD["fc.weight"] + RECORD["change.fc.weight"][:step].sum(axis=0)
        unit = weight / np.linalg.norm(weight, axis=1, keepdims=True)
        gradient = RECORD["gradient.fc.weight"][step]
        tangent = gradient - (gradient * unit).sum(axis=1, keepdims=True) * unit
        # Without anything harmful, the released form is this.
        harmless = (1 - RECORD["gamma"]) * tangent + RECORD["gamma"] * gradient
        removed = np.linalg.norm(RECORD["edited.fc.weight"][step] - harmless, axis=1)
        assert 3 <= np.sum(removed > 1e-3 * np.linalg.norm(gradient, axis=1)) <= 7
    absent = np.setdiff1d(np.arange(NUM_CLASSES), RECORD["labels"])
    assert 3 <= len(absent) <= 7
    np.testing.assert_array_equal(RECORD["new_means"][:, absent], [RECORD["means"][absent]] * STEPS)
