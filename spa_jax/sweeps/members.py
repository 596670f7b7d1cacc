"""One program that trains many runs at once: vmapped over its members, sharded over the devices.

Members differ in what the state carries, the seed and the traced hyper-parameters; the images are
the same for all. Each device holds whole members, so that nothing is sent between devices.
"""

from collections.abc import Callable, Sequence
from typing import Any

import jax
import numpy as np
from jax.sharding import AxisType, NamedSharding, PartitionSpec
from jaxtyping import PyTree

from spa_jax.data.dataset import LongTailedDataset
from spa_jax.errors import InputError
from spa_jax.training.config import Config, check_config
from spa_jax.training.devices import Layout
from spa_jax.training.program import Program
from spa_jax.training.state import TrainState, hyperparams_from

AXIS = "members"


class CannotTrainTogether(InputError):
    """The configuration's runs cannot be one program; one after another they can be trained."""


class MembersLayout(Layout):
    """A layout whose functions take and give arrays with a leading axis of members.

    To the functions themselves it looks like one device that holds the whole batch.

    Attributes:
      size: length of the axis of members: as asked for, rounded up so that the devices share it
        evenly.
      on_each: members on each device.
    """

    def __init__(self, num_members: int, devices: Sequence[Any] | None = None) -> None:
        devices = list(jax.devices() if devices is None else devices)[:num_members]
        super().__init__("jit", devices[:1])
        self.on_each = -(-num_members // len(devices))
        self.size = self.on_each * len(devices)
        self._members = jax.make_mesh(
            (len(devices),), (AXIS,), axis_types=(AxisType.Auto,), devices=devices
        )
        self.replicated = NamedSharding(self._members, PartitionSpec())
        self.stacked = NamedSharding(self._members, PartitionSpec(AXIS))

    def place(self, tree: PyTree) -> PyTree:
        """Puts host arrays on the devices, each of which gets its members.

        Args:
          tree: arrays `(members, ...)` of `size` members or fewer; where they are fewer, the last
            is repeated.
        """

        def place_one(array: np.ndarray) -> jax.Array:
            copies = np.repeat(array[-1:], self.size - len(array), axis=0)
            return jax.device_put(np.concatenate([array, copies]), self.stacked)

        return jax.tree.map(place_one, tree)

    def make(self, function: Callable[..., Any]) -> Callable[..., Any]:
        """Compiles a function of one member for all."""
        return self._map(function)

    def compile(
        self,
        function: Callable[..., Any],
        num_args: int,
        donate: tuple[int, ...] = (),
        split: tuple[int, ...] = (),
        shared: tuple[int, ...] = (),
    ) -> Callable[..., Any]:
        """Compiles `function(take_part, *args)` of one member for all.

        Args:
          function: the view's function; the part that it takes of a batch is the whole batch.
          num_args: number of `args`.
          donate: positions among `args` whose buffers may be reused for results.
          split: must be empty: a batch is not cut over devices.
          shared: positions among `args` that have no axis of members.

        Returns:
          A function of `args`.

        Raises:
          CannotTrainTogether: something is to be split.
        """
        if split:
            raise CannotTrainTogether(
                "Runs are trained together on images that live on the devices, and these are "
                "streamed: train one after another, or set config.data.feed=device."
            )
        del num_args

        def whole(*args: Any) -> Any:
            return function(lambda array: array, *args)

        return self._map(whole, donate, shared)

    def _map(
        self,
        function: Callable[..., Any],
        donate: tuple[int, ...] = (),
        shared: tuple[int, ...] = (),
    ) -> Callable[..., Any]:
        def all_members(*args: Any) -> Any:
            is_shared = [i in shared for i in range(len(args))]
            mapped = jax.vmap(
                function,
                in_axes=tuple(None if whole else 0 for whole in is_shared),
                axis_size=self.on_each,
            )
            on_devices = jax.shard_map(
                mapped,
                mesh=self._members,
                in_specs=tuple(PartitionSpec(*() if whole else (AXIS,)) for whole in is_shared),
                out_specs=PartitionSpec(AXIS),
                check_vma=False,
            )
            return on_devices(*args)

        return jax.jit(all_members, donate_argnums=donate)


class MembersProgram(Program):
    """A :class:`Program` whose states, totals and reports have a leading axis of members.

    It trains any members that differ from its configuration only in the seed and the traced
    hyper-parameters, as many as its layout has room for.
    """

    def __init__(
        self,
        config: Config,
        num_members: int,
        data: LongTailedDataset | None = None,
        devices: Sequence[Any] | None = None,
    ) -> None:
        """Checks the configuration and prepares; `data` saves loading it again.

        Raises:
          InputError: a wrong configuration.
          CannotTrainTogether: one that streams its images, or computes statistics per device.
        """
        check_config(config)
        if config.model.batch_norm == "per_device":
            raise CannotTrainTogether(
                "Runs trained together hold their whole batch on one device each, which leaves "
                "config.model.batch_norm=per_device without a meaning: set it to global, or train "
                "one after another."
            )
        self._of_members = MembersLayout(num_members, devices)
        super().__init__(config, data, layout=self._of_members)

    @property
    def size(self) -> int:
        """Length of the axis of members."""
        return self._of_members.size

    def init_states(self, members: Sequence[Config]) -> TrainState:
        """The states before the first step; a last state is repeated where there is room."""
        for member in members:
            self.check_fits(member)
        seeds = np.array([member.seed for member in members], np.uint32)
        hyperparams = [hyperparams_from(member) for member in members]
        stacked = jax.tree.map(lambda *leaves: np.stack(leaves), *hyperparams)
        return self._init(*self._of_members.place((seeds, stacked)))

    def place(self, on_host: TrainState) -> TrainState:
        """Puts states on the devices, from a host copy of :func:`serializable` ones."""
        placed = self._of_members.place(on_host)
        return placed.replace(rng=jax.random.wrap_key_data(placed.rng))

    def device_bytes(self) -> int | None:
        """Bytes that training and evaluation take up on each device; None where none can tell.

        Their programs are compiled for that, and not again when they run.
        """
        states = jax.eval_shape(lambda: self.init_states([self.config]))
        order = jax.eval_shape(lambda state: next(self.batches(state, 0, 0)), states)
        train, shared = (states, self.zero_totals, *order), self.feed.num_shared_inputs
        evaluate = (states.variables, self._zero_sums, *next(self.feed.evaluation(self.data.test)))
        sizes = [
            _bytes(self._train, self._abstract(train, shared)),
            _bytes(self._eval, self._abstract(evaluate, len(evaluate) - 2)),
        ]
        known = [size for size in sizes if size is not None]
        return max(known) if known else None

    def _abstract(self, args: tuple[Any, ...], num_shared: int) -> list[Any]:
        """Shapes and places of arguments, of which those after the second begin the shared ones."""
        places = [self._of_members.stacked] * len(args)
        places[2 : 2 + num_shared] = [self._of_members.replicated] * num_shared
        return [
            jax.tree.map(
                lambda leaf, place=place: jax.ShapeDtypeStruct(
                    leaf.shape, leaf.dtype, sharding=place
                ),
                arg,
            )
            for arg, place in zip(args, places, strict=True)
        ]


def _bytes(function: Any, args: list[Any]) -> int | None:
    """What a function of :meth:`MembersLayout.compile` needs on a device while it runs."""
    analysis = function.lower(*args).compile().memory_analysis()
    if analysis is None:
        return None
    return int(
        analysis.argument_size_in_bytes
        + analysis.output_size_in_bytes
        + analysis.temp_size_in_bytes
        - analysis.alias_size_in_bytes
    )
