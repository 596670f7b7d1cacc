"""Compiled functions and the data they work on; runs that differ in seeds share a program."""

from collections.abc import Mapping, Sequence
from functools import cached_property, partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, PyTree, UInt32

from spa_jax.alignment import ClassMeans
from spa_jax.data.dataset import LongTailedDataset
from spa_jax.data.features import Features
from spa_jax.data.sources.opening import load_data
from spa_jax.errors import InputError
from spa_jax.options import is_read
from spa_jax.training.checking import check_validation, prepare_run
from spa_jax.training.config import Config, flatten_config, resolve, traced_fields
from spa_jax.training.dataset_means import dataset_means
from spa_jax.training.devices import OWN, Layout
from spa_jax.training.evaluation import Evaluation
from spa_jax.training.feeds import Feed
from spa_jax.training.feeds.batch import prepare
from spa_jax.training.feeds.resident import ResidentFeed
from spa_jax.training.feeds.streamed import StreamFeed
from spa_jax.training.guard import GUARD_METRICS, Guard
from spa_jax.training.metrics import STEP_METRICS, Totals, alignment_metrics, known_cosines
from spa_jax.training.optimizer import build_optimizer
from spa_jax.training.rundir.first_run import FirstRun
from spa_jax.training.rundir.workdir import FREE_ON_RESUME
from spa_jax.training.state import COLLECTIONS, STATE_PLACES, TrainState, replaced
from spa_jax.training.step import make_train_step


def compiled_differences(one: Config, other: Config) -> list[str]:
    """The fields in which two configurations differ and for which each needs its own program."""
    values, others = flatten_config(one.to_dict()), flatten_config(other.to_dict())
    free = {"seed", "evaluate_every", *traced_fields(one).values(), *FREE_ON_RESUME}
    free -= {"parallel", "mesh"}
    return [
        field
        for field in sorted(values)
        if values[field] != others[field]
        # Whether it is measured is compiled too.
        and (field == "logging.collapse" or not {field, field.split(".")[0]} & free)
        and (is_read(field, values) or is_read(field, others))
    ]


class Program:
    """Data on the devices and the compiled functions of one configuration.

    The seed and the traced hyper-parameters are not part of it: they live in the state that
    :meth:`init_state` makes. With a layout of many members its states, totals and reports are those
    of all members.

    Attributes:
      config: the configuration it was built from.
      layout: the devices.
      feed: where steps get their examples from.
      method: the long-tailed method.
      steps_per_epoch: full batches in an epoch, and one for the rest where that is not left out.
      zero_totals: the totals of no step.
      places: of the arguments of `train_step`.
      batches: `(state, seed, epoch, done=0)` -> the inputs of an epoch's steps (counted from 0) but
        the first `done`, for `train_step`; the state must stand there, and have that seed.
      evaluate: state -> a report, see :meth:`spa_jax.training.evaluation.Evaluation.evaluate`.
      logits: `(state, part)` -> what its examples are predicted from, see
        :meth:`spa_jax.training.evaluation.Evaluation.logits`.
      train_step: `(state, totals, inputs)` -> the state after one optimiser step, and the totals
        with it; the old state's buffers are given up.
      measure: `(state, totals)` after a step -> the totals, whose last metrics then have the
        alignment of that state and what the variant of SpA says of the step: of no step that
        writes no line.
    """

    def __init__(
        self,
        config: Config,
        data: LongTailedDataset | None = None,
        layout: Layout | None = None,
    ) -> None:
        """Checks the configuration, loads the data and prepares (but does not yet compile).

        Raises:
          InputError: as :func:`spa_jax.training.checking.prepare_run`.
        """
        run = prepare_run(resolve(config), data, layout)
        run.check_network()
        self.config, self.layout = config, run.layout
        self.method, self._run, self._options = run.options.longtail, run, run.options
        self._first_means = self._means_of(run.data)
        self.feed: Feed = StreamFeed(run) if run.streamed else ResidentFeed(run)
        self.steps_per_epoch, self.batches = self.feed.steps_per_epoch, self.feed.batches
        self._evaluation = Evaluation(run, self.feed)
        self.evaluate, self.logits = self._evaluation.evaluate, self._evaluation.logits
        self._optimizer = partial(
            build_optimizer,
            self._options.optimizer,
            self._options.variant,
            self._options.aligned,
            epochs=self._options.epochs,
            steps_per_epoch=self.steps_per_epoch,
        )
        measured = STEP_METRICS + (GUARD_METRICS if self._options.guard.skips else ())
        self.zero_totals: Totals = self.layout.compile(partial(Totals.create, measured))()
        drawn, of_state = OWN, STATE_PLACES
        if self.layout.options.cuts_state:
            seed = np.uint32(0)
            variables = jax.eval_shape(run.init_variables, seed)
            start = (seed, self._options.hyperparams, variables, self._first_means)
            drawn = run.shards.places(variables)
            of_state = run.shards.places(jax.eval_shape(self._start_run, *start))
        # Apart, as it takes long to compile and is the same under every variant of SpA.
        self._init_variables = self.layout.compile(
            self._run.init_variables, (OWN,), drawn, called_once=True
        )
        self._start = self.layout.compile(
            self._start_run, (OWN, OWN, OWN, OWN), of_state, donate=(2,)
        )
        self.places = (of_state, OWN, self.feed.places)
        self.train_step = self.layout.compile(
            self._make_step(), self.places, (of_state, OWN), donate=(0,)
        )
        self.measure = self.layout.compile(self._measure, (of_state, OWN))

    @property
    def data(self) -> LongTailedDataset:
        """The data set, on the host."""
        return self.feed.data

    def adopt(self, config: Config) -> bool:
        """Becomes the program of another configuration, if what is compiled serves it too.

        That is so where they differ in what a state carries, and for splits of a feature bank by
        different seeds.
        """
        differing = compiled_differences(self.config, config)
        if differing == ["data.split_seed"] and isinstance(self.feed, ResidentFeed):
            old, data = self.data, load_data(resolve(config).data)
            # Of images the normalisation is the split's, and compiled.
            if isinstance(data.train.images, Features) and _same_labels(old, data):
                self.feed.place(data)
                self._first_means = self._means_of(data)
                differing = []
        if not differing:
            self.config = config
        return not differing

    def check_fits(self, config: Config) -> None:
        """Raises InputError unless the config differs only in what the state carries."""
        differing = compiled_differences(self.config, config)
        if differing:
            raise InputError(
                f"The program was compiled for other values of {', '.join(differing)}: build "
                "Program(config) anew; only the seed and the strengths may differ."
            )
        if config.checkpoint.keep_best:
            check_validation(self.data)

    @cached_property
    def first_run(self) -> FirstRun | None:
        """The run that its runs start from, read once; None where seeds draw all values.

        Raises:
          InputError: it is not there, does not fit, or its checkpoint is damaged.
        """
        return self._run.read_first_run()

    def init_state(self, *configs: Config, resumed: bool = False) -> TrainState:
        """The state before the first step, for the seed and the hyper-parameters of each run.

        Args:
          configs: of the runs.
          resumed: whether a checkpoint takes its place, so that no first run has to be there.

        Raises:
          InputError: another program, or as :attr:`first_run`.
        """
        for config in configs:
            self.check_fits(config)
        runs = [resolve(config) for config in configs]
        seeds, hyperparams = self.layout.stack(
            [(np.asarray(run.seed, np.uint32), dict(run.hyperparams)) for run in runs]
        )
        means = self._put(len(runs) * [self._first_means], self.places[0].class_means)
        first = None if resumed else self.first_run
        variables = self._init_variables(seeds)
        if first is not None:
            places = self._run.shards.places(first.variables)
            variables = replaced(variables, self._put(len(runs) * [first.variables], places))
        return self._start(seeds, hyperparams, variables, means)

    def _put(self, trees: Sequence[PyTree], places: PyTree) -> PyTree:
        """Host arrays of each run on the devices; where a state is cut, none gets all of them."""
        if self.layout.options.cuts_state:
            return jax.device_put(trees[0], places)
        return self.layout.stack(trees)

    def device_bytes(self) -> int | None:
        """Bytes that training and evaluation take up on each device; None where none can tell.

        Their programs are compiled for that, and not again when they run.
        """
        state = jax.eval_shape(lambda: self.init_state(self.config, resumed=True))
        inputs = jax.eval_shape(lambda state: next(self.batches(state, 0, 0)), state)
        images = next(self.feed.evaluation("test"))
        evaluation, of_state = self._evaluation, self.places[0]
        evaluated = of_state.evaluated if self.layout.options.cuts_state else OWN
        training = (state, self.zero_totals, inputs)
        evaluating = (state.evaluated, evaluation.no_sums, images)
        places = (evaluated, *evaluation.places[1:])
        sizes = (
            _bytes(self.train_step, self.layout.abstract(training, self.places)),
            _bytes(evaluation.add_batch, self.layout.abstract(evaluating, places)),
        )
        return max(filter(None, sizes), default=None)

    def _means_of(self, data: LongTailedDataset) -> ClassMeans:
        """What class means start from, on the host."""
        run, spa = self._run, self._options.spa
        if spa.means_from == "dataset":
            return dataset_means(run.model, data.train, data.num_classes)
        nothing = np.zeros((data.num_classes, run.dim), np.float32)
        return ClassMeans(nothing, nothing.any(axis=1), spa.decay)

    def _start_run(
        self,
        seed: UInt32[Array, ""],
        hyperparams: Mapping[str, Array],
        variables: PyTree,
        means: ClassMeans,
    ) -> TrainState:
        optimizer, guard = self._options.optimizer, self._options.guard
        trained, average = optimizer.trained(variables["params"]), None
        if optimizer.ema:
            average = {"params": trained}
            if optimizer.train_only == "all":
                average["batch_stats"] = variables.get("batch_stats", {})
        return TrainState(
            step=jnp.zeros((), jnp.int32),
            **{name: variables.get(name, {}) for name in COLLECTIONS},
            opt_state=self._optimizer(hyperparams).init(trained),
            class_means=means,
            rng=jax.random.key(seed),
            hyperparams=dict(hyperparams),
            average=average,
            guard=Guard.create(guard.window) if guard.skips else None,
        )

    def _measure(self, state: TrainState, totals: Totals) -> Totals:
        cosines = known_cosines(state.variables, state.class_means, **self._options.aligned)
        of_variant = self._options.variant.metrics
        return totals.replace(
            last=totals.last
            | alignment_metrics(cosines)
            | {name: read(state.opt_state) for name, read in of_variant.items()}
        )

    def _make_step(self) -> Any:
        """A step: this view's part of the batch, the pure step on it, its metrics added up."""
        options, feed = self._options, self.feed
        step = make_train_step(
            options,
            self._run.model,
            partial(
                prepare, augment=options.augment, views=options.views, normalize=feed.normalize
            ),
            self._optimizer,
            np.array(self.data.class_counts, np.float32),
            self.steps_per_epoch,
            self.layout.axis_name,
            shards=self._run.shards,
        )

        def train(state: TrainState, totals: Totals, inputs: Any) -> tuple[TrainState, Totals]:
            state, metrics = step(state, feed.batch(state, inputs))
            return state, totals.add(metrics, state.step, options.guard.limit)

        return train


def _same_labels(one: LongTailedDataset, other: LongTailedDataset) -> bool:
    """Whether two splits take as many examples of each class, in the same order of classes."""
    pairs = [(one.train, other.train), (one.test, other.test), (one.validation, other.validation)]
    return all(
        (None not in pair and np.array_equal(pair[0].labels, pair[1].labels)) or pair[0] is pair[1]
        for pair in pairs
    )


def _bytes(function: Any, args: Sequence[Any]) -> int | None:
    """What a compiled function needs on a device while it runs."""
    analysis = function.lower(*args).compile().memory_analysis()
    if analysis is None:
        return None
    return int(
        analysis.argument_size_in_bytes
        + analysis.output_size_in_bytes
        + analysis.temp_size_in_bytes
        - analysis.alias_size_in_bytes
    )
