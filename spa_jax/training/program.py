"""A run's compiled functions and the data they work on; runs that differ in seeds share one."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Key, PyTree, UInt8, UInt32

from spa_jax.alignment import ClassMeans
from spa_jax.alignment.classifier import find_kernels
from spa_jax.data.dataset import LabelledImages, LongTailedDataset
from spa_jax.data.digits import load_digits_lt
from spa_jax.data.idx import load_fashion_mnist_lt
from spa_jax.errors import InputError
from spa_jax.models.classifier import Classifier
from spa_jax.models.small_resnet import SmallResNet
from spa_jax.training.config import Config, check_config, differing_fields, flatten_config
from spa_jax.training.devices import Layout, TakePart
from spa_jax.training.metrics import Totals, alignment_metrics, known_cosines
from spa_jax.training.optimizer import build_optimizer, spa_options
from spa_jax.training.state import HYPERPARAMETERS, TrainState, hyperparams_from
from spa_jax.training.step import (
    Batch,
    EvaluationSums,
    make_eval_step,
    make_train_step,
)

# Streams of the seed's key that steps, which count up from 0, never reach.
_INIT_STREAM = 2**32 - 1
_ORDER_STREAM = 2**32 - 2


class Program:
    """Data on the devices and the compiled functions of one configuration.

    The seed and the traced hyper-parameters (:data:`spa_jax.training.state.HYPERPARAMETERS`) are
    not part of it: they live in the state that :meth:`init_state` makes.

    Attributes:
      config: the configuration it was built from.
      data: the data set, on the host.
      layout: the devices.
      steps_per_epoch: full batches in an epoch; the rest of a shuffled epoch is left out.
    """

    def __init__(
        self,
        config: Config,
        data: LongTailedDataset | None = None,
        devices: Sequence[Any] | None = None,
    ) -> None:
        """Checks the configuration, loads the data and prepares (but does not yet compile).

        Raises:
          InputError: a field that is wrong in itself or does not fit data, devices or model.
        """
        check_config(config)
        self.config = config
        self.layout = Layout(config.parallel, devices)
        self.layout.check_batch_size(config.batch_size)
        self.data = load_data(config) if data is None else data
        num_examples = len(self.data.train.labels)
        if num_examples < config.batch_size:
            raise InputError(
                f"config.batch_size={config.batch_size} is larger than the training set of "
                f"{num_examples} images: lower it."
            )
        self.steps_per_epoch = num_examples // config.batch_size
        self._model = build_model(config, self.data.num_classes, self.layout.axis_name)
        self._normalize = _normalizer(self.data.train)
        self._dim = self._model.backbone.dim
        self._check_classifier()
        self._place_data()
        self._compile_start()
        self._compile_training()
        self._compile_evaluation()

    def check_fits(self, config: Config) -> None:
        """Raises InputError unless the config differs only in what the state carries."""
        own, other = (flatten_config(c.to_dict()) for c in (self.config, config))
        traced = {"seed", *HYPERPARAMETERS.values()}
        fields = differing_fields(own, other, free=("checkpoint", "logging"))
        differing = [field for field in fields if field not in traced]
        if differing:
            raise InputError(
                f"The program was compiled for other values of {', '.join(differing)}: build "
                "Program(config) anew; only the seed and the strengths may differ."
            )

    def init_state(self, config: Config) -> TrainState:
        """The state before the first step, replicated, for a config's seed and hyper-parameters."""
        seed = np.asarray(config.seed, np.uint32)
        return self._init(*self.layout.replicate((seed, hyperparams_from(config))))

    def epoch_order(self, state: TrainState) -> Array:
        """The shuffled example positions of the state's epoch, `(steps_per_epoch, batch)`."""
        return self._order(state.rng, state.step)

    def train_step(
        self, state: TrainState, totals: Totals, order: Array
    ) -> tuple[TrainState, Totals]:
        """One optimiser step; the old state's buffers are given up."""
        return self._train(state, totals, *self._train_arrays, order)

    def evaluate(self, state: TrainState) -> dict[str, Any]:
        """Test accuracy and alignment, still on the device.

        Returns:
          `loss` scalar, `correct` and `count` `(C,)`, `cosines` and `test_cosines` `(H, C)`
          for H heads, and `mean_cosine`, `min_cosine` and their `test_` counterparts; NaN where
          a class, or all of them, has no direction.
        """
        sums = self._zero_sums
        for _ in range(self._eval_order.shape[0]):
            sums = self._eval(
                state.params,
                state.batch_stats,
                sums,
                *self._test_arrays,
                self._eval_order,
                self._eval_mask,
            )
        return self._report(state.params, state.class_means, sums)

    def _check_classifier(self) -> None:
        """Refuses a classifier path that names no kernel of the model."""
        shapes = jax.eval_shape(self._init_variables, jax.random.key(0))
        try:
            find_kernels(shapes["params"], spa_options(self.config)["classifier"])
        except ValueError as error:
            raise InputError(f"config.spa.{error}") from error

    def _init_variables(self, rng: Key[Array, ""]) -> PyTree:
        image = jnp.zeros((1, *self.data.train.images.shape[1:]), jnp.float32)
        return self._model.init(jax.random.fold_in(rng, _INIT_STREAM), image, train=False)

    def _place_data(self) -> None:
        replicate = self.layout.replicate
        self._train_arrays = replicate((self.data.train.images, self.data.train.labels))
        self._test_arrays = replicate((self.data.test.images, self.data.test.labels))
        order, mask = _evaluation_batches(
            len(self.data.test.labels), self.config.eval_batch_size, self.layout.num_devices
        )
        self._eval_order, self._eval_mask = replicate((order, mask))

    def _compile_start(self) -> None:
        """What begins a run and each of its epochs: the state, and the order of the examples."""
        config, spe = self.config, self.steps_per_epoch

        def init(seed: UInt32[Array, ""], hyperparams: dict[str, Array]) -> TrainState:
            rng = jax.random.key(seed)
            variables = self._init_variables(rng)
            params = variables["params"]
            tx = build_optimizer(config, hyperparams, spe)
            return TrainState(
                step=jnp.zeros((), jnp.int32),
                params=params,
                batch_stats=variables.get("batch_stats", {}),
                opt_state=tx.init(params),
                class_means=ClassMeans.create(self.data.num_classes, self._dim, config.spa.decay),
                rng=rng,
                hyperparams=hyperparams,
            )

        def order(rng: Key[Array, ""], step: Array) -> Array:
            key = jax.random.fold_in(jax.random.fold_in(rng, _ORDER_STREAM), step // spe)
            shuffled = jax.random.permutation(key, len(self.data.train.labels))
            return shuffled[: spe * config.batch_size].reshape(spe, config.batch_size)

        self._init = self.layout.make(init)
        self._order = self.layout.make(order)
        self.zero_totals = self.layout.make(lambda: Totals.create(self._metric_names()))()

    def _compile_training(self) -> None:
        """A step: this view's part of the batch, the pure step on it, its metrics added up."""
        config, layout, spe = self.config, self.layout, self.steps_per_epoch
        step = make_train_step(self._model, config, self._normalize, spe, layout.axis_name)

        def train(
            take_part: TakePart,
            state: TrainState,
            totals: Totals,
            images: Array,
            labels: Array,
            order: Array,
        ) -> tuple[TrainState, Totals]:
            chosen = take_part(order[state.step % spe])
            positions = take_part(jnp.arange(config.batch_size))
            state, metrics = step(state, Batch(images[chosen], labels[chosen], positions))
            return state, totals.add(metrics, state.step)

        self._train = layout.compile(train, num_args=5, donate=(0,))

    def _compile_evaluation(self) -> None:
        """Sums over a batch of test images, and the report on the sums of all."""
        num_classes, dim, layout = self.data.num_classes, self._dim, self.layout
        eval_step = make_eval_step(self._model, self._normalize, layout.axis_name)
        options = spa_options(self.config)

        def evaluate(
            take_part: TakePart,
            params: PyTree,
            batch_stats: PyTree,
            sums: EvaluationSums,
            images: Array,
            labels: Array,
            order: Array,
            mask: Array,
        ) -> EvaluationSums:
            chosen, mask = take_part(order[sums.batches]), take_part(mask[sums.batches])
            batch = Batch(images[chosen], labels[chosen], chosen, mask)
            return jax.tree.map(jnp.add, sums, eval_step(params, batch_stats, batch))

        def report(params: PyTree, means: ClassMeans, sums: EvaluationSums) -> dict[str, Any]:
            nothing_seen = ClassMeans.create(num_classes, dim)
            test_means = nothing_seen.towards(sums.features, sums.count)
            cosines = known_cosines(params, means, **options)
            test_cosines = known_cosines(params, test_means, **options)
            held_out = alignment_metrics(test_cosines)
            return {
                "loss": sums.loss / jnp.sum(sums.count),
                "correct": sums.correct,
                "count": sums.count,
                "cosines": cosines,
                "test_cosines": test_cosines,
                **alignment_metrics(cosines),
                **{f"test_{name}": value for name, value in held_out.items()},
            }

        self._eval = layout.compile(evaluate, num_args=7)
        self._report = layout.make(report)
        self._zero_sums = layout.make(lambda: EvaluationSums.create(num_classes, dim))()

    def _metric_names(self) -> tuple[str, ...]:
        names = ["loss", "accuracy", "gradient_norm", "mean_cosine", "min_cosine"]
        if self.config.spa.method == "proj":
            names += ["corrected_share", "removed_ratio"]
        return tuple(names)


def load_data(config: Config) -> LongTailedDataset:
    """Loads the data set that `config.data` describes; InputError if it is missing or broken."""
    n_max, factor = config.data.n_max, config.data.imbalance_factor
    if config.data.name == "digits":
        return load_digits_lt(n_max, factor, config.data.split_seed)
    folder = Path(config.data.folder).expanduser()
    return load_fashion_mnist_lt(folder, n_max, factor, config.data.split_seed)


def build_model(config: Config, num_classes: int, axis_name: str | None) -> Classifier:
    """The network that `config.model` describes."""
    backbone = SmallResNet(
        widths=tuple(config.model.widths),
        blocks=config.model.blocks,
        stem_stride=config.model.stem_stride,
        axis_name=axis_name,
    )
    return Classifier(backbone, num_classes)


def _normalizer(train: LabelledImages) -> Any:
    """Scales each channel to mean 0 and deviation 1 over the training images."""
    pixels = train.images.astype(np.float64)
    mean = pixels.mean(axis=(0, 1, 2)).astype(np.float32)[None, None, None]
    deviation = pixels.std(axis=(0, 1, 2)).astype(np.float32)[None, None, None]
    deviation = np.where(deviation > 0, deviation, np.float32(1))

    def normalize(images: UInt8[Array, "B H W K"]) -> Float[Array, "B H W K"]:
        return (images.astype(jnp.float32) - mean) / deviation

    return normalize


def _evaluation_batches(
    num_examples: int, batch_size: int, num_devices: int
) -> tuple[np.ndarray, np.ndarray]:
    """Example positions and weights of every evaluation batch; the last is padded with weight 0."""
    batch_size = min(batch_size, num_examples)
    batch_size += -batch_size % num_devices
    batches = -(-num_examples // batch_size)
    positions = np.zeros(batches * batch_size, np.int32)
    positions[:num_examples] = np.arange(num_examples)
    mask = np.zeros(batches * batch_size, np.float32)
    mask[:num_examples] = 1.0
    return positions.reshape(batches, batch_size), mask.reshape(batches, batch_size)
