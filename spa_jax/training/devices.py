"""The three ways to spread a step over devices: `jit` over a mesh, `pmap`, `shard_map`.

In all of them the state is replicated, and each device works on its part of the global batch. Data
that fit on a device are replicated too, and the batch is cut there; a streamed batch arrives cut.
What differs is who cuts and who reduces: the compiler (`jit`) or the step itself, over the named
axis (`pmap`, `shard_map`).
"""

from collections.abc import Callable, Sequence
from typing import Any

import jax
import numpy as np
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec
from jaxtyping import Array, PyTree

from spa_jax.errors import InputError

AXIS = "data"

TakePart = Callable[[Array], Array]
"""Takes from a `(global batch, ...)` array the part that this view of the step works on."""


class Layout:
    """Where arrays live and how a function of replicated arrays is compiled.

    Attributes:
      mode: "jit", "pmap" or "shard_map".
      mesh: one axis, `data`, over the devices.
      axis_name: the axis that the step has to reduce over; None under `jit`.
    """

    def __init__(self, mode: str, devices: Sequence[Any] | None = None) -> None:
        devices = list(jax.devices() if devices is None else devices)
        if mode == "pmap" and jax.process_count() > 1:
            raise InputError(
                f"config.parallel='pmap' drives the devices of one process, but there are "
                f"{jax.process_count()}: use 'jit' or 'shard_map' on several hosts."
            )
        self.mode = mode
        self.mesh: Mesh = jax.make_mesh(
            (len(devices),), (AXIS,), axis_types=(AxisType.Auto,), devices=devices
        )
        self.axis_name = None if mode == "jit" else AXIS
        self.replicated = NamedSharding(self.mesh, PartitionSpec())
        self._split = NamedSharding(self.mesh, PartitionSpec(AXIS))
        self._device_numbers = jax.device_put(np.arange(len(devices)), self._split)

    @property
    def num_devices(self) -> int:
        """Devices in the mesh, over all processes."""
        return self.mesh.size

    def check_batch_size(self, batch_size: int) -> None:
        """Raises InputError if the devices cannot share a batch evenly."""
        if batch_size % self.num_devices:
            raise InputError(
                f"config.batch_size={batch_size} cannot be shared evenly by {self.num_devices} "
                f"devices: choose a multiple of {self.num_devices}."
            )

    def replicate(self, tree: PyTree) -> PyTree:
        """Puts a copy of every host array on every device, over all processes."""
        return jax.device_put(tree, self.replicated)

    def local_rows(self, batch_size: int) -> np.ndarray:
        """Positions in the global batch that this process has to provide, ascending."""
        slices = self._split.addressable_devices_indices_map((batch_size,)).values()
        return np.unique(np.concatenate([np.arange(batch_size)[cut] for cut in slices]))

    def split(self, rows: np.ndarray, batch_size: int, tree: PyTree) -> PyTree:
        """Puts a batch on the devices, each of which gets its part.

        Args:
          rows: what :meth:`local_rows` gave.
          batch_size: of the global batch.
          tree: host arrays that hold these rows, `(len(rows), ...)`.

        Returns:
          Arrays for the `split` arguments of :meth:`compile`.
        """
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

    def gather(self, part: Array) -> Array:
        """The global batch again, from the part that this view of the step has."""
        if self.axis_name is None:
            return part
        return jax.lax.all_gather(part, self.axis_name, tiled=True)

    def make(self, function: Callable[..., Any]) -> Callable[..., Any]:
        """Compiles a function whose results are made on every device alike, without cutting."""
        return jax.jit(function, out_shardings=self.replicated)

    def compile(
        self,
        function: Callable[..., Any],
        num_args: int,
        donate: tuple[int, ...] = (),
        split: tuple[int, ...] = (),
        shared: tuple[int, ...] = (),
    ) -> Callable[..., Any]:
        """Compiles `function(take_part, *args)`; `args` are replicated, but for those of `split`.

        Args:
          function: the view's function; its results must be the same on every device.
          num_args: number of `args`.
          donate: positions among `args` whose buffers may be reused for results.
          split: positions among `args` that come from :meth:`split`.
          shared: positions among `args` that are the same for runs of any seed. A layout of one
            run has no use for them; :class:`spa_jax.sweeps.members.MembersLayout` has.

        Returns:
          A function of `args` that gives replicated results.
        """
        del shared
        if self.mode == "jit":

            def whole(*args: Any) -> Any:
                return function(self._cut_by_compiler, *args)

            return jax.jit(whole, donate_argnums=donate, out_shardings=self.replicated)

        def part(device_number: Array, *args: Any) -> Any:
            return function(lambda array: self._cut(array, device_number), *args)

        if self.mode == "pmap":
            mapped = jax.pmap(
                part,
                axis_name=AXIS,
                in_axes=(0, *(0 if i in split else None for i in range(num_args))),
                out_axes=None,
                donate_argnums=tuple(position + 1 for position in donate),
                devices=list(self.mesh.devices.flat),
            )
            return lambda *args: mapped(self._device_numbers, *args)

        def shard(*args: Any) -> Any:
            return part(jax.lax.axis_index(AXIS), *args)

        # With check_vma=True gradients of replicated params arrive summed over the devices, and the
        # step's own pmean would leave them multiplied by the number of devices.
        mapped = jax.shard_map(
            shard,
            mesh=self.mesh,
            in_specs=tuple(
                PartitionSpec(AXIS) if i in split else PartitionSpec() for i in range(num_args)
            ),
            out_specs=PartitionSpec(),
            check_vma=False,
        )
        return jax.jit(mapped, donate_argnums=donate)

    def _cut_by_compiler(self, array: Array) -> Array:
        return jax.lax.with_sharding_constraint(array, self._split)

    def _cut(self, array: Array, device_number: Array) -> Array:
        size = array.shape[0] // self.num_devices
        return jax.lax.dynamic_slice_in_dim(array, device_number * size, size)
