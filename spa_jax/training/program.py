"""A run's compiled functions and the data they work on; runs that differ in seeds share one."""

from collections.abc import Iterator, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Key, PyTree, UInt32

from spa_jax.alignment import ClassMeans
from spa_jax.alignment.kernels import find_kernels
from spa_jax.data.dataset import LabelledImages, LongTailedDataset
from spa_jax.errors import InputError
from spa_jax.training.build import (
    build_feed,
    build_model,
    check_is_used,
    load_data,
)
from spa_jax.training.collapse_meter import CollapseMeter
from spa_jax.training.config import Config, check_config
from spa_jax.training.devices import Layout, TakePart
from spa_jax.training.evaluation import EvaluationSums, make_eval_step, make_report
from spa_jax.training.method import build_method, spa_options
from spa_jax.training.metrics import Totals
from spa_jax.training.optimizer import build_optimizer
from spa_jax.training.rundir.workdir import FREE_ON_RESUME, differing_fields, flatten_config
from spa_jax.training.state import HYPERPARAMETERS, TrainState, hyperparams_from
from spa_jax.training.step import make_train_step

# A stream of the seed's key that steps, which count up from 0, never reach.
_INIT_STREAM = 2**32 - 1


def compiled_differences(one: Config, other: Config) -> list[str]:
    """The fields in which two configurations differ and for which each needs its own program."""
    free = tuple(group for group in FREE_ON_RESUME if group != "parallel")
    traced = {"seed", *HYPERPARAMETERS.values()}
    flat_one, flat_other = flatten_config(one.to_dict()), flatten_config(other.to_dict())
    return [field for field in differing_fields(flat_one, flat_other, free) if field not in traced]


class Program:
    """Data on the devices and the compiled functions of one configuration.

    The seed and the traced hyper-parameters (:data:`spa_jax.training.state.HYPERPARAMETERS`) are
    not part of it: they live in the state that :meth:`init_state` makes.

    Attributes:
      config: the configuration it was built from.
      data: the data set, on the host.
      method: the long-tailed method.
      layout: the devices.
      steps_per_epoch: full batches in an epoch; the rest of a shuffled epoch is left out.
    """

    def __init__(
        self,
        config: Config,
        data: LongTailedDataset | None = None,
        devices: Sequence[Any] | None = None,
        layout: Layout | None = None,
    ) -> None:
        """Checks the configuration, loads the data and prepares (but does not yet compile).

        Raises:
          InputError: a field that is wrong in itself or does not fit data, devices or model.
        """
        check_config(config)
        self.config = config
        self.layout = Layout(config.parallel, devices) if layout is None else layout
        self.layout.check_batch_size(config.batch_size)
        self.data = load_data(config) if data is None else data
        if len(self.data.train) < config.batch_size:
            raise InputError(
                f"config.batch_size={config.batch_size} is larger than the training set of "
                f"{len(self.data.train)} images: lower it."
            )
        self.feed = build_feed(self.layout, config, self.data)
        check_is_used(config, self.feed)
        self.steps_per_epoch = self.feed.steps_per_epoch
        self.method = build_method(config)
        self._model = build_model(config, self.method, self.data.num_classes, self.layout.axis_name)
        self._class_counts = np.array(self.data.class_counts, np.float32)
        self._dim = self._model.backbone.dim
        self._check_classifier()
        self._meter: CollapseMeter | None = None
        self._compile_start()
        self._compile_training()
        self._compile_evaluation()

    def check_fits(self, config: Config) -> None:
        """Raises InputError unless the config differs only in what the state carries."""
        differing = compiled_differences(self.config, config)
        if differing:
            raise InputError(
                f"The program was compiled for other values of {', '.join(differing)}: build "
                "Program(config) anew; only the seed and the strengths may differ."
            )

    def init_state(self, config: Config) -> TrainState:
        """The state before the first step, replicated, for a config's seed and hyper-parameters."""
        seed = np.asarray(config.seed, np.uint32)
        return self._init(*self.layout.replicate((seed, hyperparams_from(config))))

    def batches(self, state: TrainState, seed: int, epoch: int) -> Iterator[tuple[Array, ...]]:
        """The inputs of the steps of an epoch (counted from 0), for :meth:`train_step`.

        The state must stand at the first step of that epoch, and have that seed.
        """
        return self.feed.batches(state, seed, epoch)

    def train_step(
        self, state: TrainState, totals: Totals, inputs: tuple[Array, ...]
    ) -> tuple[TrainState, Totals]:
        """One optimiser step; the old state's buffers are given up."""
        return self._train(state, totals, *inputs)

    def evaluate(self, state: TrainState) -> dict[str, Any]:
        """Test accuracy and alignment, still on the device.

        Returns:
          `loss` scalar, `correct` and `count` `(C,)`, `cosines` and `test_cosines` `(H, C)`
          for the H heads that SpA acts on, and `mean_cosine`, `min_cosine` and their `test_`
          counterparts; `heads`, the same four for each kernel of the method, by its path; NaN
          where a class, or all of them, has no direction. With a validation part also its
          `validation_correct` and `validation_count` `(C,)`.
        """
        sums = self._sums(state, self.data.test)
        report = self._report(state.variables, state.class_means, sums)
        if self.data.validation is not None:
            sums = self._sums(state, self.data.validation)
            report |= {"validation_correct": sums.correct, "validation_count": sums.count}
        return report

    def collapse(self, state: TrainState) -> dict[str, Any]:
        """Neural collapse on training and test set: see :meth:`CollapseMeter.measure`."""
        if self._meter is None:
            self._meter = CollapseMeter(
                self.config, self._model, self.method, self.layout, self.feed, self.data
            )
        return self._meter.measure(state)

    def _sums(self, state: TrainState, examples: LabelledImages) -> EvaluationSums:
        sums = self._zero_sums
        for inputs in self.feed.evaluation(examples):
            sums = self._eval(state.variables, sums, *inputs)
        return sums

    def _check_classifier(self) -> None:
        """Refuses a classifier path that names no class weights of the model."""
        shapes = jax.eval_shape(self._init_variables, jax.random.key(0))
        tree = shapes if self.method.fixed_kernel else shapes["params"]
        classifier = spa_options(self.config)["classifier"]
        try:
            named = find_kernels(tree, classifier)
        except ValueError as error:
            raise InputError(f"config.spa.{error}") from error
        if not set(named) <= set(find_kernels(tree, self.method.kernels)):
            raise InputError(
                f"config.spa.classifier={classifier!r} names a matrix that holds no class weights; "
                f"those of {self.config.method.name} are {', '.join(self.method.kernels)}."
            )

    def _init_variables(self, rng: Key[Array, ""]) -> PyTree:
        image = jnp.zeros((1, *self.feed.image_shape), jnp.float32)
        return self._model.init(jax.random.fold_in(rng, _INIT_STREAM), image, train=False)

    def _compile_start(self) -> None:
        """What begins a run: its state, and totals of nothing."""
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
                constants=variables.get("constants", {}),
                opt_state=tx.init(params),
                class_means=ClassMeans.create(self.data.num_classes, self._dim, config.spa.decay),
                rng=rng,
                hyperparams=hyperparams,
            )

        self._init = self.layout.make(init)
        self.zero_totals = self.layout.make(lambda: Totals.create(self._metric_names()))()

    def _compile_training(self) -> None:
        """A step: this view's part of the batch, the pure step on it, its metrics added up."""
        layout, feed = self.layout, self.feed
        step = make_train_step(
            self._model,
            self.method,
            self.config,
            feed.normalize,
            self._class_counts,
            self.steps_per_epoch,
            layout.axis_name,
        )

        def train(
            take_part: TakePart, state: TrainState, totals: Totals, *inputs: Array
        ) -> tuple[TrainState, Totals]:
            state, metrics = step(state, feed.batch(take_part, state, *inputs))
            return state, totals.add(metrics, state.step)

        num_args = 2 + feed.num_inputs
        split = tuple(range(2, num_args)) if feed.split else ()
        shared = tuple(range(2, 2 + feed.num_shared_inputs))
        self._train = layout.compile(train, num_args, donate=(0,), split=split, shared=shared)

    def _compile_evaluation(self) -> None:
        """Sums over a batch of test images, and the report on the sums of all."""
        num_classes, dim, layout = self.data.num_classes, self._dim, self.layout
        feed = self.feed
        eval_step = make_eval_step(
            self._model, self.method, feed.normalize, self._class_counts, layout.axis_name
        )

        def evaluate(
            take_part: TakePart,
            variables: PyTree,
            sums: EvaluationSums,
            *inputs: Array,
        ) -> EvaluationSums:
            batch = feed.evaluation_batch(take_part, sums.batches, *inputs)
            return jax.tree.map(jnp.add, sums, eval_step(variables, batch))

        num_args = 2 + feed.num_evaluation_inputs
        inputs = tuple(range(2, num_args))
        split = inputs if feed.split else ()
        self._eval = layout.compile(evaluate, num_args, split=split, shared=inputs)
        self._report = layout.make(make_report(self.config, self.method))
        self._zero_sums = layout.make(lambda: EvaluationSums.create(num_classes, dim))()

    def _metric_names(self) -> tuple[str, ...]:
        names = ["loss", "accuracy", "gradient_norm", "mean_cosine", "min_cosine"]
        if self.config.spa.method == "proj":
            names += ["corrected_share", "removed_ratio"]
        return tuple(names)
