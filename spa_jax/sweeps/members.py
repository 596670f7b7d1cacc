"""Many runs as one program: vmapped over its members, which the devices share.

Members differ in what the state carries, the seed and the traced hyper-parameters; the images are
the same for all. Each device holds whole members, so that nothing is sent between devices.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import numpy as np
from jax.sharding import NamedSharding, PartitionSpec
from jaxtyping import Array, PyTree

from spa_jax.errors import InputError
from spa_jax.training.devices import OWN, SHARED, SPLIT, make_mesh, where

AXIS = "members"


class CannotTrainTogether(InputError):
    """The configuration's runs cannot be one program; one after another they can be trained."""


class Members:
    """A :class:`spa_jax.training.devices.Layout` whose arrays have a leading axis of members.

    To the functions themselves it looks like one device that holds the whole batch.

    Attributes:
      size: length of the axis of members: as asked for, rounded up so that the devices share it
        evenly.
    """

    mode = "vmap"
    axis_name: str | None = None
    num_devices = 1

    def __init__(self, num_members: int, devices: Sequence[Any] | None = None) -> None:
        devices = list(jax.devices() if devices is None else devices)[:num_members]
        self._on_each = -(-num_members // len(devices))
        self.size = self._on_each * len(devices)
        self.mesh = make_mesh(AXIS, devices)
        self._replicated = NamedSharding(self.mesh, PartitionSpec())
        self._stacked = NamedSharding(self.mesh, PartitionSpec(AXIS))
        self.shardings: Mapping[str, NamedSharding] = {SHARED: self._replicated, OWN: self._stacked}

    def replicate(self, tree: PyTree) -> PyTree:
        """Puts a copy of every host array on every device."""
        return jax.device_put(tree, self._replicated)

    def stack(self, trees: Sequence[PyTree]) -> PyTree:
        """Puts the host arrays of the members on the devices, each of which gets its members.

        Args:
          trees: of `size` members or fewer; where they are fewer, the last is repeated.
        """
        padded = [*trees, *[trees[-1]] * (self.size - len(trees))]
        stacked = jax.tree.map(lambda *leaves: np.stack(leaves), *padded)
        return jax.device_put(stacked, self._stacked)

    def unstack(self, tree: PyTree, places: PyTree = OWN) -> list[PyTree]:
        """The fetched arrays of each member, copies at the end too."""

        def of_member(i: int) -> PyTree:
            def pick(place: str, part: PyTree) -> PyTree:
                return part if place == SHARED else jax.tree.map(lambda leaf: leaf[i], part)

            return jax.tree.map(pick, places, tree)

        return [of_member(i) for i in range(self.size)]

    def compile(
        self,
        function: Callable[..., Any],
        places: tuple[PyTree, ...] = (),
        results: PyTree = OWN,
        donate: tuple[int, ...] = (),
    ) -> Callable[..., Any]:
        """Compiles a function of one member for all: see :class:`spa_jax.training.devices.Layout`.

        Raises:
          CannotTrainTogether: something is split over devices.
        """
        if SPLIT in jax.tree.leaves(places):
            raise CannotTrainTogether(
                "Runs are trained together on images that live on the devices, and these are "
                "streamed: train one after another, or set config.data.feed=device."
            )
        axes, specs = {OWN: 0, SHARED: None}, {OWN: PartitionSpec(AXIS), SHARED: PartitionSpec()}
        mapped = jax.vmap(
            function,
            in_axes=where(places, axes),
            out_axes=where(results, axes),
            axis_size=self._on_each,
        )
        on_devices = jax.shard_map(
            mapped,
            mesh=self.mesh,
            in_specs=where(places, specs),
            out_specs=where(results, specs),
            check_vma=False,
        )
        return jax.jit(on_devices, donate_argnums=donate)

    def make(
        self,
        function: Callable[..., Any],
        places: tuple[PyTree, ...] = (),
        results: PyTree = OWN,
    ) -> Callable[..., Any]:
        """Compiles a function of one member for all, as :meth:`compile`."""
        return self.compile(function, places, results)

    def take_part(self, array: Array) -> Array:
        """A member has the whole batch."""
        return array

    def gather(self, part: Array) -> Array:
        """A member has the whole batch."""
        return part

    def local_rows(self, batch_size: int) -> np.ndarray:
        """A member has the whole batch."""
        return np.arange(batch_size)

    def split(self, rows: np.ndarray, batch_size: int, tree: PyTree) -> PyTree:
        """Nothing is split over devices: see :meth:`compile`."""
        raise CannotTrainTogether("A batch of members is not split over devices.")
