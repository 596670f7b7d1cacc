"""Steps that would spoil a run: the run stops at them, or they are skipped and counted."""

import dataclasses
from typing import Any

import flax.struct
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from spa_jax.errors import InputError
from spa_jax.options import check_unread, option

GUARD_METRICS = ("skipped_steps", "skipped_in_a_row")
"""What is said of it after each step, where steps are skipped."""


@dataclasses.dataclass(frozen=True)
class GuardOptions:
    """The config's group `guard`."""

    action: str = option(
        "stop",
        "at a loss or gradient that is not finite: stop the run, or skip the step",
        choices=("stop", "skip"),
    )
    spike_factor: float = option(
        10.0,
        "skip: also gradients longer than so many times their running median; 0: none",
        low=0,
    )
    window: int = option(32, "skip: steps that the median is of", low=1, high=1024)
    limit: int = option(10, "skip: so many skipped steps in a row stop the run", low=1)

    @property
    def skips(self) -> bool:
        """Whether steps are skipped."""
        return self.action == "skip"

    def check_unused(self) -> None:
        """Raises InputError for an option that was set and would do nothing."""
        unread = [
            (not self.skips, name, "it is of config.guard.action=skip")
            for name in ("spike_factor", "window", "limit")
        ]
        check_unread(self, "guard", unread, otherwise=", or set that")
        if self.skips and 0 < self.spike_factor < 1:
            raise InputError(
                f"config.guard.spike_factor={self.spike_factor} skips ordinary steps too: choose "
                "1 or more, or 0 to skip none for its length."
            )
        if self.skips and not self.spike_factor and self.window != GuardOptions.window:
            raise InputError(
                f"config.guard.window={self.window} does nothing with config.guard.spike_factor=0: "
                "leave it out."
            )


class Guard(flax.struct.PyTreeNode):
    r"""Which steps are skipped: what is remembered of those before.

    A step is skipped if its loss L or the norm of its gradient g is not finite, or if

    .. math:: \|g_t\| > f \operatorname{median}(\|g_{t-1}\|, \dots, \|g_{t-w}\|)

    over the last w steps that were not skipped, as soon as there are as many, unless that is 0.

    Attributes:
      norms: `(w,)` float32, the gradients' norms, the newest last; NaN before there are any.
      skipped: int32 scalar, steps skipped so far.
      in_a_row: int32 scalar, of them the newest ones that follow each other.

    Example:
      >>> guard = Guard.create(window=3)
      >>> for norm in (1.0, 2.0, 3.0, 21.0, 19.0):
      ...     guard, taken = guard.see(jnp.float32(0.5), jnp.float32(norm), spike_factor=10.0)
      ...     print(taken.item(), guard.skipped.item(), guard.in_a_row.item())
      True 0 0
      True 0 0
      True 0 0
      False 1 1
      True 1 0
    """

    norms: Any
    skipped: Any
    in_a_row: Any

    @classmethod
    def create(cls, window: int) -> "Guard":
        """Before any step; `window` is w."""
        zero = jnp.zeros((), jnp.int32)
        return cls(jnp.full((window,), jnp.nan, jnp.float32), zero, zero)

    def see(
        self, loss: Float[Array, ""], gradient_norm: Float[Array, ""], spike_factor: float
    ) -> tuple["Guard", Bool[Array, ""]]:
        """With one more step, and whether it is taken; `spike_factor` is f, 0 for no spikes."""
        taken = jnp.isfinite(loss) & jnp.isfinite(gradient_norm)
        if spike_factor:
            median = jnp.median(self.norms)  # NaN while the window is not full
            taken &= ~((median > 0) & (gradient_norm > spike_factor * median))
        newest = jnp.append(self.norms[1:], gradient_norm)
        skipped = (~taken).astype(jnp.int32)
        return Guard(
            norms=jnp.where(taken, newest, self.norms),
            skipped=self.skipped + skipped,
            in_a_row=(self.in_a_row + 1) * skipped,
        ), taken

    @property
    def metrics(self) -> dict[str, Float[Array, ""]]:
        """Its counts, by the names of `GUARD_METRICS`."""
        counts = (self.skipped.astype(jnp.float32), self.in_a_row.astype(jnp.float32))
        return dict(zip(GUARD_METRICS, counts, strict=True))
