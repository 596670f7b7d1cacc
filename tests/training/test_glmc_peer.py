"""Two steps of GLMC with SpA-Proj equal PyTorch's, recorded by benchmarks/peers/record_glmc.py."""

import types
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import spa_jax
import spa_jax.training.step
from spa_jax.longtail import consistency
from spa_jax.longtail.glmc import make_glmc
from spa_jax.longtail.losses import mix_targets
from spa_jax.longtail.method import Situation
from spa_jax.training.build import build_model
from spa_jax.training.config import check_config, default_config
from spa_jax.training.feeds.batch import Batch, Inputs
from spa_jax.training.optimizer import build_optimizer
from spa_jax.training.state import TrainState, hyperparams_from
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

steps = pytest.mark.parametrize("step", range(STEPS))


def glmc_config():
    """The recorded setting as a configuration."""
    config = default_config()
    config.epochs = int(RECORD["epochs"])
    config.batch_size = len(RECORD["labels"])
    config.model.name, config.model.depth = "cifar_resnet", int(RECORD["depth"])
    config.method.name = "glmc"
    config.method.glmc_label_power = float(RECORD["label_power"])
    config.method.glmc_similarity_weight = float(RECORD["similarity_weight"])
    config.method.glmc_projection_dim = int(RECORD["projection_dim"])
    config.optimizer.learning_rate = float(RECORD["learning_rate"])
    config.optimizer.schedule, config.optimizer.step_epochs = "steps", ()
    config.optimizer.momentum = float(RECORD["momentum"])
    config.optimizer.weight_decay = float(RECORD["weight_decay"])
    config.spa.method, config.spa.radial = "proj", "scale"
    config.spa.gamma = float(RECORD["gamma"])
    config.spa.decay = float(RECORD["decay"])
    check_config(config)
    return config


CONFIG = glmc_config()
METHOD = make_glmc(CONFIG.method)
MODEL = build_model(CONFIG, METHOD, NUM_CLASSES, axis_name=None)


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


def forward(params, batch_stats, images):
    """Features, the outputs of the heads, and the next running statistics."""
    variables = {"params": params, "batch_stats": batch_stats}
    (features, outputs), changed = MODEL.apply(variables, images, train=True, mutable="batch_stats")
    return features, outputs, changed["batch_stats"]


def losses_of(outputs):
    """The parts of the loss, each the mean over the batch, and what the method makes of them."""
    seen = inputs()
    targets = mix_targets(seen.labels, seen.partner_labels, seen.share, NUM_CLASSES)
    counts = jnp.asarray(RECORD["class_counts"], jnp.float32)
    epoch, epochs = jnp.int32(RECORD["epoch"]), int(RECORD["epochs"])
    global_view, local_view = (consistency.ViewOutputs(*view) for view in outputs)
    parts = consistency.glmc_loss(
        global_view,
        local_view,
        targets,
        consistency.class_weights(counts, float(RECORD["label_power"])),
        consistency.cumulative_weight(epoch, epochs),
        float(RECORD["similarity_weight"]),
    )
    of_method = METHOD.loss(outputs, targets, Situation(seen.labels, counts, epoch, epochs, None))
    return jax.tree.map(jnp.mean, parts)._asdict() | {"method": of_method}


class Pieces:
    """The steps made of the library's pieces: states before and after, and what they computed."""

    def __init__(self):
        project = spa_jax.spa_proj(
            float(RECORD["gamma"]), radial="scale", classifier="fc/kernel", center=True
        )
        decay = optax.add_decayed_weights(float(RECORD["weight_decay"]))
        sgd = optax.sgd(float(RECORD["learning_rate"]), momentum=float(RECORD["momentum"]))
        self.project, self.tx = project, optax.chain(project, decay, sgd)
        params, batch_stats, means = start()
        state = (params, batch_stats, means, self.tx.init(params))
        take = jax.jit(self.take)
        self.states, self.results = [self.named(state)], []
        for _ in range(STEPS):
            state, results = take(*state)
            self.states.append(self.named(state))
            self.results.append(results)

    def named(self, state):
        params, batch_stats, means, _ = state
        return types.SimpleNamespace(params=params, batch_stats=batch_stats, class_means=means)

    def take(self, params, batch_stats, means, opt_state):
        seen = inputs()
        features, _, batch_stats = forward(params, batch_stats, seen.clean_images)
        means = means.update(features, seen.labels)

        def loss(params):
            _, of_global, statistics = forward(params, batch_stats, seen.images)
            _, of_local, statistics = forward(params, statistics, seen.second_images)
            losses = losses_of((of_global, of_local))
            return losses["total"], (losses, statistics)

        grads, (losses, batch_stats) = jax.grad(loss, has_aux=True)(params)
        edited, _ = self.project.update(grads, self.project.init(params), params, class_means=means)
        updates, opt_state = self.tx.update(grads, opt_state, params, class_means=means)
        results = {"losses": losses, "gradients": grads, "edited": edited}
        return (optax.apply_updates(params, updates), batch_stats, means, opt_state), results


@pytest.fixture(scope="module")
def pieces():
    return Pieces()


@steps
@pytest.mark.parametrize("part", ["plain", "rebalanced", "similarity", "total"])
def test_the_losses_are_those_of_pytorch(pieces, step, part):
    assert_close(pieces.results[step]["losses"][part], RECORD[part][step])


@steps
def test_the_loss_of_the_method_is_the_total(pieces, step):
    assert_close(pieces.results[step]["losses"]["method"], RECORD["total"][step])


@steps
def test_the_gradients_are_those_of_pytorch(pieces, step):
    gradients = as_pytorch(pieces.results[step]["gradients"])
    assert {f"{head}.{kind}" for head in HEADS for kind in ("weight", "bias")} < {*PARAMETERS}
    for name in PARAMETERS:
        assert_close(gradients[name], RECORD[f"gradient.{name}"][step], name)
    assert_close(optax.tree.norm(pieces.results[step]["gradients"]), RECORD["gradient_norm"][step])


@steps
def test_spa_proj_edits_the_plain_classifier_as_released_and_nothing_else(pieces, step):
    raw, edited = (as_pytorch(pieces.results[step][name]) for name in ("gradients", "edited"))
    assert_close(edited["fc.weight"], RECORD["edited.fc.weight"][step])
    for name in edited.keys() - {"fc.weight"}:
        np.testing.assert_array_equal(edited[name], raw[name], err_msg=name)


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


@steps
def test_the_pieces_leave_the_state_that_pytorch_leaves(pieces, step):
    assert_state(step, *pieces.states[step : step + 2])


@pytest.fixture(scope="module")
def trained():
    """States and metrics of the training step, given the recorded images."""
    steps_per_epoch = 10
    counts = np.asarray(RECORD["class_counts"], np.float32)
    params, batch_stats, means = start()
    hyperparams = jax.tree.map(jnp.asarray, hyperparams_from(CONFIG))
    state = TrainState(
        step=jnp.int32(RECORD["epoch"] * steps_per_epoch),
        params=params,
        batch_stats=batch_stats,
        constants={},
        opt_state=build_optimizer(CONFIG, hyperparams, steps_per_epoch).init(params),
        class_means=means,
        rng=jax.random.key(0),
        hyperparams=hyperparams,
    )
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(spa_jax.training.step, "prepare", lambda *arguments: inputs())
        take = jax.jit(
            spa_jax.training.step.make_train_step(
                MODEL, METHOD, CONFIG, lambda images: images, counts, steps_per_epoch
            )
        )
        batch = Batch(None, None, None)
        states, metrics = [state], []
        for _ in range(STEPS):
            state, values = take(state, batch)
            states.append(state)
            metrics.append(values)
    return states, metrics


@steps
def test_the_training_step_has_the_loss_and_gradient_of_pytorch(trained, step):
    metrics = trained[1][step]
    assert_close(metrics["loss"], RECORD["total"][step])
    assert_close(metrics["gradient_norm"], RECORD["gradient_norm"][step])


@steps
def test_the_training_step_leaves_the_state_that_pytorch_leaves(trained, step):
    assert_state(step, *trained[0][step : step + 2])
