"""How devices share the work of a program: a batch of one run, or the members of many.

`jit` over a mesh, `pmap` and `shard_map` train one run: its state is replicated, and each device
works on its part of the global batch. Data that fit on a device are replicated too, and the batch
is cut there; a streamed batch arrives cut. What differs is who cuts and who reduces: the compiler
(`jit`) or the step itself, over the named axis (`pmap`, `shard_map`). Under `jit` the state may be
cut too, see :mod:`spa_jax.training.shards`.

`vmap` trains many runs, its members, at once: arrays have a leading axis of members, of which each
device holds some, so that nothing is sent between devices. To a step it looks like one device that
has the whole batch.
"""

import dataclasses
import functools
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import numpy as np
from jax.core import Tracer
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec
from jaxtyping import Array, PyTree

from spa_jax.errors import InputError
from spa_jax.options import option

AXIS, CLASSES = "data", "classes"
PARALLEL_MODES = ("jit", "pmap", "shard_map")

# Where an array of a function's arguments or results lies: one for everybody, one for each run that
# a program trains, or cut over the devices that share a batch.
SHARED, OWN, SPLIT = "shared", "own", "split"

Function = Callable[..., Any]
Places = tuple[PyTree, ...]
"""For each argument `SHARED`, `OWN` or `SPLIT`, or a prefix tree of them; or, under `jit`, of
shardings."""


class CannotTrainTogether(InputError):
    """The configuration's runs cannot be one program; one after another they can be trained."""


@dataclasses.dataclass(frozen=True)
class MeshOptions:
    """The config's group `mesh`: a batch is cut over all devices, a state as it says."""

    data: int = option(0, "devices over classes; 0: as many as there are", low=0)
    classes: int = option(1, "parts of head and class means; several with jit only", low=1)
    fsdp: bool = option(False, "cut parameters and optimiser state over data; with jit only")

    @property
    def cuts_state(self) -> bool:
        """Whether a device has only a part of the state."""
        return self.classes > 1 or self.fsdp

    def shape(self, num_devices: int) -> tuple[int, int]:
        """Devices along `data` and along `classes`.

        Raises:
          InputError: another number of devices than there is.
        """
        data, classes = self.data or max(num_devices // self.classes, 1), self.classes
        if data * classes != num_devices:
            raise InputError(
                f"config.mesh.data={self.data} and config.mesh.classes={classes} do not share out "
                f"{num_devices} device(s): their product has to be that, and classes a divisor of "
                "it; with data=0 the number along data follows."
            )
        return data, classes


class Layout:
    """Where arrays live and how functions of them are compiled.

    Attributes:
      mode: "jit", "pmap" or "shard_map"; "vmap" for members.
      options: how the devices are arranged, and what is cut over them.
      mesh: the devices.
      num_devices: that share a batch.
      size: length of the axis of members: as many as asked for, rounded up so that the devices
        share it evenly; 1 for the batch of one run.
      axis_name: the axis that a step has to reduce over; None where it sees the whole batch.
      shardings: where arrays of each place lie.
    """

    def __init__(
        self,
        mode: str,
        devices: Sequence[Any] | None = None,
        members: int = 1,
        options: MeshOptions | None = None,
    ) -> None:
        devices = list(jax.devices() if devices is None else devices)
        if mode == "pmap" and jax.process_count() > 1:
            raise InputError(
                f"config.parallel='pmap' drives the devices of one process, but there are "
                f"{jax.process_count()}: use 'jit' or 'shard_map' on several hosts."
            )
        vmapped = mode == "vmap"
        devices = devices[:members] if vmapped else devices
        self.mode, self.options = mode, options or MeshOptions()
        self.mesh: Mesh = jax.make_mesh(
            self.options.shape(len(devices)),
            (AXIS, CLASSES),
            axis_types=(AxisType.Auto, AxisType.Auto),
            devices=devices,
        )
        self.num_devices = 1 if vmapped else len(devices)
        self._on_each = -(-members // len(devices))
        self.size = self._on_each * len(devices) if vmapped else 1
        self.axis_name = AXIS if mode in ("pmap", "shard_map") else None
        whole = self.sharding()
        cut = self.sharding((AXIS, CLASSES) if self.options.classes > 1 else AXIS)
        self.shardings = {SHARED: whole, OWN: cut if vmapped else whole, SPLIT: cut}
        # What pmap maps over where all else is replicated.
        self._device_numbers = jax.device_put(np.arange(len(devices)), cut)

    def sharding(self, *axes: Any) -> NamedSharding:
        """Of an array whose dimensions are cut over these axes of the mesh; None: not cut."""
        return NamedSharding(self.mesh, PartitionSpec(*axes))

    def replicate(self, tree: PyTree) -> PyTree:
        """Puts a copy of every host array on every device, over all processes."""
        return jax.device_put(tree, self.shardings[SHARED])

    def stack(self, trees: Sequence[PyTree]) -> PyTree:
        """Puts the host arrays of the runs that a program trains on the devices.

        Args:
          trees: one a run, `size` or fewer; where they are fewer, the last is repeated.
        """
        if self.mode != "vmap":
            (tree,) = trees
            return self.replicate(tree)
        padded = [*trees, *[trees[-1]] * (self.size - len(trees))]
        stacked = jax.tree.map(lambda *leaves: np.stack(leaves), *padded)
        return jax.device_put(stacked, self.shardings[OWN])

    def unstack(self, tree: PyTree, places: PyTree = OWN) -> list[PyTree]:
        """The fetched arrays of each run, of copies at the end too."""
        if self.mode != "vmap":
            return [tree]

        def pick(i: int, place: str, part: PyTree) -> PyTree:
            return part if place == SHARED else jax.tree.map(lambda leaf: leaf[i], part)

        return [jax.tree.map(functools.partial(pick, i), places, tree) for i in range(self.size)]

    def compile(
        self,
        function: Function,
        places: Places = (),
        results: PyTree = OWN,
        donate: tuple[int, ...] = (),
        called_once: bool = False,
    ) -> Function:
        """Compiles a function for all devices.

        Args:
          function: of one view of the batch, or of what no batch is cut for; its results must be
            the same on every device.
          places: of its arguments.
          results: the same for what it returns, without `SPLIT`.
          donate: positions of the arguments whose buffers may be reused for results.
          called_once: make it soon rather than fast, on CPUs; its values are the same.
        """
        soon = called_once and self.mesh.devices.flat[0].platform == "cpu"
        jit = _jit_soon if soon else jax.jit
        if self.mode == "jit":
            shardings = _where(results, self.shardings)
            return jit(function, donate_argnums=donate, out_shardings=shardings)
        if self.mode == "pmap":
            mapped = jax.pmap(
                lambda number, *args: function(*args),
                axis_name=AXIS,
                in_axes=(0, *_where(places, {SPLIT: 0, OWN: None, SHARED: None})),
                out_axes=None,
                donate_argnums=tuple(position + 1 for position in donate),
                devices=list(self.mesh.devices.flat),
            )
            return lambda *args: mapped(self._device_numbers, *args)
        if self.mode == "vmap":
            axes = {OWN: 0, SHARED: None}
            function = jax.vmap(
                function, _where(places, axes), _where(results, axes), axis_size=self._on_each
            )
        specs = {place: sharding.spec for place, sharding in self.shardings.items()}
        # With check_vma=True gradients of replicated params arrive summed over the devices, and the
        # step's own pmean would leave them multiplied by the number of devices.
        mapped = jax.shard_map(
            function,
            mesh=self.mesh,
            in_specs=_where(places, specs),
            out_specs=_where(results, specs),
            check_vma=False,
        )
        return jit(mapped, donate_argnums=donate)

    def take_part(self, array: Array) -> Array:
        """Traced: of a `(global batch, ...)` array the part that this view works on."""
        if self.mode == "vmap" or (self.mode == "jit" and array.shape[0] % self.num_devices):
            return array  # which devices that cannot share it evenly all work on
        if self.mode == "jit":
            return jax.lax.with_sharding_constraint(array, self.shardings[SPLIT])
        size = array.shape[0] // self.num_devices
        return jax.lax.dynamic_slice_in_dim(array, jax.lax.axis_index(AXIS) * size, size)

    def gather(self, part: Array) -> Array:
        """Traced: the global batch again, from the part that this view has."""
        if self.axis_name is None:
            return part
        return jax.lax.all_gather(part, self.axis_name, tiled=True)

    def sum(self, tree: PyTree) -> Any:
        """Traced: sums over the whole batch, from those over the part that this view has."""
        return tree if self.axis_name is None else jax.lax.psum(tree, self.axis_name)

    def local_rows(self, batch_size: int) -> np.ndarray:
        """Positions in the global batch that this process has to provide, ascending."""
        slices = self.shardings[SPLIT].addressable_devices_indices_map((batch_size,)).values()
        return np.unique(np.concatenate([np.arange(batch_size)[cut] for cut in slices]))

    def split(self, batch_size: int, tree: PyTree) -> PyTree:
        """Puts a batch on the devices, each of which gets its part, for arguments in `SPLIT`.

        Args:
          batch_size: of the global batch.
          tree: host arrays that hold the rows that :meth:`local_rows` names.
        """
        sharding = self.shardings[SPLIT]

        def split_one(local: np.ndarray) -> Array:
            if self.mode == "pmap":  # which maps over a leading axis of devices
                parts = local.reshape(self.num_devices, -1, *local.shape[1:])
                return jax.device_put(parts, sharding)
            shape = (batch_size, *local.shape[1:])
            with jax.transfer_guard_host_to_device("allow"):  # or jax takes it for an accident
                return jax.make_array_from_process_local_data(sharding, local, shape)

        return jax.tree.map(split_one, tree)

    def abstract(self, tree: PyTree, places: PyTree) -> Any:
        """The shapes of arrays, each with the sharding of its place."""

        def shapes_of(sharding: NamedSharding, part: PyTree) -> PyTree:
            return jax.tree.map(
                lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=sharding), part
            )

        return jax.tree.map(shapes_of, _where(places, self.shardings), tree)


def _where(places: PyTree, meaning: Mapping[str, Any]) -> Any:
    """A prefix tree of places with each replaced by what it means; shardings stay."""
    return jax.tree.map(lambda place: meaning.get(place, place), places)


def _jit_soon(function: Function, **options: Any) -> Function:
    """`jax.jit` with little optimisation: that of ResNet-32's random initial values takes XLA up to
    half a minute, and saves milliseconds."""
    nested = jax.jit(function, **options)  # which takes no options for the compiler
    outer = jax.jit(function, compiler_options={"xla_backend_optimization_level": 1}, **options)

    def call(*args: Any) -> Any:
        traced = any(isinstance(leaf, Tracer) for leaf in jax.tree.leaves(args))
        return (nested if traced else outer)(*args)

    return call
