"""SpA's variants as a run uses them: a term of the loss, or a link of the optimiser chain."""

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any

import jax.numpy as jnp
import optax
from jaxtyping import Array, Float, PyTree

from spa_jax.alignment import ClassMeans, slerp_schedule, spa_proj, spa_reg, spa_slerp_transform
from spa_jax.options import Entry, NoOptions, option
from spa_jax.training.random_turns import in_random_directions

Strengths = Mapping[str, Any]
"""Traced values of a variant's options, by their names."""

Aligned = Mapping[str, Any]
"""The keyword arguments that say which kernels are aligned with what: `classifier`, `center`."""

LossTerm = Callable[[PyTree, ClassMeans, Strengths, Aligned], Float[Array, ""]]
Transformation = optax.GradientTransformation
Link = Callable[[Strengths, Aligned, int], Transformation]


@dataclasses.dataclass(frozen=True)
class Variant:
    """How a variant of SpA takes part in a step; everything that is None it leaves alone.

    Attributes:
      loss_term: `(params, class means, strengths, aligned)` -> a scalar that is added to the loss.
      first_link: `(strengths, aligned, steps of the run)` -> the link before all others of the
        optimiser chain, which sees the gradients.
      last_link: the same for the link after all others, which sees the updates.
      traced: names of its options that are traced, so that one program trains many values.
      metrics: by name, a scalar of the state of its link.
      needs_end: whether it depends on how many steps the run has.
    """

    loss_term: LossTerm | None = None
    first_link: Link | None = None
    last_link: Link | None = None
    traced: tuple[str, ...] = ()
    metrics: Mapping[str, Callable[[PyTree], Float[Array, ""]]] = dataclasses.field(
        default_factory=dict
    )
    needs_end: bool = False


def make_none(_: NoOptions) -> Variant:
    """No alignment."""
    return Variant()


@dataclasses.dataclass(frozen=True)
class RegOptions:
    """Of SpA-Reg."""

    weight: float = option(1.0, "weight of the loss term", low=0)


def make_reg(_: RegOptions) -> Variant:
    """SpA-Reg: a term of the loss."""
    return Variant(
        lambda params, means, strengths, aligned: (
            strengths["weight"] * spa_reg(params, means, **aligned)
        ),
        traced=("weight",),
    )


@dataclasses.dataclass(frozen=True)
class SlerpOptions:
    """Of SpA-SLERP."""

    alpha_max: float = option(0.02, "largest share of the angle turned at a step", low=0, high=1)
    threshold: float = option(0.95, "turn only below this cosine", low=-1, high=1)
    direction: str = option(
        "means", "random: a control that turns by the same angle", choices=("means", "random")
    )


def make_slerp(options: SlerpOptions) -> Variant:
    """SpA-SLERP: the last link of the chain, on a schedule over the run."""

    def link(strengths: Strengths, aligned: Aligned, total_steps: int) -> Transformation:
        alpha = slerp_schedule(strengths["alpha_max"], total_steps)
        turning = spa_slerp_transform(alpha, strengths["threshold"], **aligned)
        return turning if options.direction == "means" else in_random_directions(turning, aligned)

    return Variant(last_link=link, traced=("alpha_max", "threshold"), needs_end=True)


@dataclasses.dataclass(frozen=True)
class ProjOptions:
    """Of SpA-Proj."""

    gamma: float = option(0.6, "share of the harmful component that is kept", low=0, high=1)
    radial: str = option("keep", "whether the radial part is scaled", choices=("keep", "scale"))
    acts_on: str = option(
        "gradients", "first or last in the chain", choices=("gradients", "updates")
    )


def make_proj(options: ProjOptions) -> Variant:
    """SpA-Proj: the first link of the chain or the last."""

    def link(strengths: Strengths, aligned: Aligned, _: int) -> Transformation:
        form: dict[str, Any] = {"radial": options.radial, "acts_on": options.acts_on}
        return spa_proj(strengths["gamma"], **form, **aligned)

    first = options.acts_on == "gradients"
    return Variant(
        first_link=link if first else None,
        last_link=None if first else link,
        traced=("gamma",),
        metrics={  # of each head; their mean says what was done
            "corrected_share": lambda state: jnp.mean(optax.tree.get(state, "corrected")),
            "removed_ratio": lambda state: jnp.mean(optax.tree.get(state, "removed")),
        },
    )


VARIANTS: dict[str, Entry] = {
    "none": Entry(make_none),
    "reg": Entry(make_reg, RegOptions),
    "slerp": Entry(make_slerp, SlerpOptions),
    "proj": Entry(make_proj, ProjOptions),
}
"""The variants; to add one, write its file and a line here."""
