"""The three ways to spread a step over devices: `jit` over a mesh, `pmap`, `shard_map`.

In all of them the state is replicated, and each device works on its part of the global batch. Data
that fit on a device are replicated too, and the batch is cut there; a streamed batch arrives cut.
What differs is who cuts and who reduces: the compiler (`jit`) or the step itself, over the named
axis (`pmap`, `shard_map`).
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol

import jax
import numpy as np
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec
from jaxtyping import Array, PyTree

from spa_jax.errors import InputError

AXIS = "data"
PARALLEL_MODES = ("jit", "pmap", "shard_map")

# Where an array of a function's arguments or results lies: one for everybody, one for each run that
# a program trains, or cut over the devices that share a batch.
SHARED, OWN, SPLIT = "shared", "own", "split"


class Layout(Protocol):
    """Where arrays live and how functions of them are compiled.

    Attributes:
      mode: how devices share the work, for records.
      axis_name: the axis that a step has to reduce over; None where it sees the whole batch.
      num_devices: that share a batch.
      mesh: the devices.
      shardings: where arrays of each place lie.
    """

    mode: str
    axis_name: str | None
    num_devices: int
    mesh: Mesh
    shardings: Mapping[str, NamedSharding]

    def replicate(self, tree: PyTree) -> PyTree:
        """Puts a copy of every host array on every device."""
        ...

    def stack(self, trees: Sequence[PyTree]) -> PyTree:
        """Puts the host arrays of the runs that a program trains on the devices."""
        ...

    def unstack(self, tree: PyTree, places: PyTree = OWN) -> list[PyTree]:
        """The fetched arrays of each run."""
        ...

    def compile(
        self,
        function: Callable[..., Any],
        places: tuple[PyTree, ...] = (),
        results: PyTree = OWN,
        donate: tuple[int, ...] = (),
    ) -> Callable[..., Any]:
        """Compiles a step's function for all devices; `places` are prefix trees of its arguments.

        Args:
          function: of one view of the batch; its results must be the same on every device.
          places: for each argument `SHARED`, `OWN` or `SPLIT`, or a prefix tree of them.
          results: the same for what it returns, without `SPLIT`.
          donate: positions of the arguments whose buffers may be reused for results.
        """
        ...

    def make(
        self,
        function: Callable[..., Any],
        places: tuple[PyTree, ...] = (),
        results: PyTree = OWN,
    ) -> Callable[..., Any]:
        """Compiles a function that no batch is cut for, as :meth:`compile`."""
        ...

    def take_part(self, array: Array) -> Array:
        """Traced: of a `(global batch, ...)` array the part that this view works on."""
        ...

    def gather(self, part: Array) -> Array:
        """Traced: the global batch again, from the part that this view has."""
        ...

    def local_rows(self, batch_size: int) -> np.ndarray:
        """Positions in the global batch that this process has to provide, ascending."""
        ...

    def split(self, rows: np.ndarray, batch_size: int, tree: PyTree) -> PyTree:
        """Puts a batch on the devices, each of which gets its part, for arguments in `SPLIT`.

        Args:
          rows: what :meth:`local_rows` gave.
          batch_size: of the global batch.
          tree: host arrays that hold these rows, `(len(rows), ...)`.
        """
        ...


class Devices:
    """A :class:`Layout` in which all devices share the batch of one run."""

    def __init__(self, mode: str, devices: Sequence[Any] | None = None) -> None:
        devices = list(jax.devices() if devices is None else devices)
        if mode == "pmap" and jax.process_count() > 1:
            raise InputError(
                f"config.parallel='pmap' drives the devices of one process, but there are "
                f"{jax.process_count()}: use 'jit' or 'shard_map' on several hosts."
            )
        self.mode = mode
        self.mesh: Mesh = make_mesh(AXIS, devices)
        self.num_devices = self.mesh.size
        self.axis_name: str | None = None if mode == "jit" else AXIS
        self._replicated = NamedSharding(self.mesh, PartitionSpec())
        self._split = NamedSharding(self.mesh, PartitionSpec(AXIS))
        whole = self._replicated
        self.shardings: Mapping[str, NamedSharding] = {
            SHARED: whole,
            OWN: whole,
            SPLIT: self._split,
        }
        # What pmap maps over where all else is replicated.
        self._device_numbers = jax.device_put(np.arange(len(devices)), self._split)

    def replicate(self, tree: PyTree) -> PyTree:
        """Puts a copy of every host array on every device, over all processes."""
        return jax.device_put(tree, self._replicated)

    def stack(self, trees: Sequence[PyTree]) -> PyTree:
        """Puts the host arrays of the one run on the devices."""
        (tree,) = trees
        return self.replicate(tree)

    def unstack(self, tree: PyTree, places: PyTree = OWN) -> list[PyTree]:
        """The fetched arrays of the one run."""
        del places
        return [tree]

    def compile(
        self,
        function: Callable[..., Any],
        places: tuple[PyTree, ...] = (),
        results: PyTree = OWN,
        donate: tuple[int, ...] = (),
    ) -> Callable[..., Any]:
        """Compiles a step's function: see :meth:`Layout.compile`."""
        if self.mode == "jit":
            return jax.jit(function, donate_argnums=donate, out_shardings=self._replicated)
        if self.mode == "pmap":
            mapped = jax.pmap(
                lambda number, *args: function(*args),
                axis_name=AXIS,
                in_axes=(0, *where(places, {SPLIT: 0, OWN: None, SHARED: None})),
                out_axes=None,
                donate_argnums=tuple(position + 1 for position in donate),
                devices=list(self.mesh.devices.flat),
            )
            return lambda *args: mapped(self._device_numbers, *args)
        whole, cut = PartitionSpec(), PartitionSpec(AXIS)
        # With check_vma=True gradients of replicated params arrive summed over the devices, and the
        # step's own pmean would leave them multiplied by the number of devices.
        mapped = jax.shard_map(
            function,
            mesh=self.mesh,
            in_specs=where(places, {SPLIT: cut, OWN: whole, SHARED: whole}),
            out_specs=whole,
            check_vma=False,
        )
        return jax.jit(mapped, donate_argnums=donate)

    def make(
        self,
        function: Callable[..., Any],
        places: tuple[PyTree, ...] = (),
        results: PyTree = OWN,
    ) -> Callable[..., Any]:
        """Compiles a function whose results are made on every device alike."""
        return jax.jit(function, out_shardings=self._replicated)

    def take_part(self, array: Array) -> Array:
        """Traced: the part of a global batch that this view works on."""
        if self.axis_name is None:
            return jax.lax.with_sharding_constraint(array, self._split)
        size = array.shape[0] // self.num_devices
        first = jax.lax.axis_index(AXIS) * size
        return jax.lax.dynamic_slice_in_dim(array, first, size)

    def gather(self, part: Array) -> Array:
        """Traced: the global batch, from the part that this view has."""
        if self.axis_name is None:
            return part
        return jax.lax.all_gather(part, self.axis_name, tiled=True)

    def local_rows(self, batch_size: int) -> np.ndarray:
        """Positions in the global batch that this process has to provide, ascending."""
        slices = self._split.addressable_devices_indices_map((batch_size,)).values()
        return np.unique(np.concatenate([np.arange(batch_size)[cut] for cut in slices]))

    def split(self, rows: np.ndarray, batch_size: int, tree: PyTree) -> PyTree:
        """Puts a batch on the devices: see :meth:`Layout.split`."""
        return jax.tree.map(lambda local: self._split_one(rows, batch_size, local), tree)

    def _split_one(self, rows: np.ndarray, batch_size: int, local: np.ndarray) -> Array:
        if self.mode == "pmap":  # which maps over a leading axis of devices
            parts = local.reshape(self.num_devices, -1, *local.shape[1:])
            return jax.device_put(parts, self._split)
        shape = (batch_size, *local.shape[1:])
        places = self._split.addressable_devices_indices_map(shape)
        parts = [
            jax.device_put(local[np.searchsorted(rows, np.arange(batch_size)[index[0]])], device)
            for device, index in places.items()
            if index is not None
        ]
        return jax.make_array_from_single_device_arrays(shape, self._split, parts)


def make_mesh(axis: str, devices: Sequence[Any]) -> Mesh:
    """A mesh of one axis over devices, whose sharding is left to the compiler."""
    return jax.make_mesh((len(devices),), (axis,), axis_types=(AxisType.Auto,), devices=devices)


def where(places: PyTree, meaning: dict[str, Any]) -> Any:
    """A prefix tree of places with each replaced by what it means."""
    return jax.tree.map(lambda place: meaning[place], places)


def abstract(tree: PyTree, places: PyTree, shardings: Mapping[str, NamedSharding]) -> Any:
    """The shapes of arrays, each with the sharding of its place."""

    def of_place(place: str, part: PyTree) -> PyTree:
        return jax.tree.map(
            lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=shardings[place]),
            part,
        )

    return jax.tree.map(of_place, places, tree)
