"""Refusals that the neural-collapse functions share; values are checked where they are known."""

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Shaped

from spa_jax.alignment.checks import is_known
from spa_jax.errors import InputError

Anything = Shaped[Array | np.ndarray, "..."]
Faults = dict[str, Array]
"""What is wrong with a state or with weights, each 0 or False where all is well."""

_FAULTS = {
    "empty": "Neural collapse needs examples of every class, but there are none of {count}: update "
    "the state with all of the data, and check num_classes.",
    "left_out": "{examples} examples were left out, as their features hold NaN or infinity: has "
    "the training diverged? Metrics of the rest would mislead.",
    "range": "The features are too large or too small to be squared in their dtype: scale them, or "
    "use float64. The metrics do not depend on the scale.",
    "coincide": "All class means coincide up to rounding, so that nothing is measured against: "
    "does the backbone give the same features for every image?",
    "weights": "weights and bias must be finite, got NaN or infinity in {count}: has the training "
    "diverged?",
    "no_weights": "All weights are zero, or the same with center_weights=True, and point nowhere: "
    "measure after the first step.",
}


def check_features(features: Anything, dim: int) -> None:
    """Raises InputError unless features are a floating `(B, dim)` array."""
    if features.ndim != 2 or features.shape[1] != dim:
        raise InputError(
            f"features must have shape (B, {dim}), got {features.shape}: pass what the classifier "
            "sees, of the width that the state and the weights have."
        )
    if not jnp.issubdtype(features.dtype, jnp.floating):
        raise InputError(
            f"features must be floating, got dtype {features.dtype}: pass the backbone's features, "
            "not images or labels."
        )


def check_labels(labels: Anything, batch: int) -> None:
    """Raises InputError unless labels are `(batch,)` integers."""
    if labels.shape != (batch,) or not jnp.issubdtype(labels.dtype, jnp.integer):
        raise InputError(
            f"labels must be integers of shape ({batch},), got shape {labels.shape} and dtype "
            f"{labels.dtype}: neural collapse is measured on clean examples of one class each."
        )


def check_mask(mask: Anything | None, batch: int) -> None:
    """Raises InputError unless there is no mask or one number an example."""
    if mask is not None and mask.shape != (batch,):
        raise InputError(
            f"mask must have shape ({batch},), one number an example (0 for padding), got "
            f"{mask.shape}."
        )


def check_rows(rows: Anything, name: str, shape: tuple[int, int]) -> None:
    """Raises InputError unless the rows are floating, one a class."""
    if rows.shape != shape or not jnp.issubdtype(rows.dtype, jnp.floating):
        flipped = "; a Flax kernel is (D, C): pass kernel.T" if rows.shape == shape[::-1] else ""
        raise InputError(
            f"{name} must be floating of shape {shape}, one row a class, got shape {rows.shape} "
            f"and dtype {rows.dtype}{flipped}."
        )


def check_bias(bias: Anything | None, num_classes: int) -> None:
    """Raises InputError unless there is no bias or a floating one for each class."""
    if bias is None:
        return
    if bias.shape != (num_classes,) or not jnp.issubdtype(bias.dtype, jnp.floating):
        raise InputError(
            f"bias must be floating of shape ({num_classes},), got shape {bias.shape} and dtype "
            f"{bias.dtype}. None stands for no bias."
        )


def check_finite(rows: Anything, name: str) -> None:
    """Raises InputError if a known row holds NaN or infinity."""
    if not is_known(rows):
        return
    finite = np.asarray(jnp.isfinite(jnp.asarray(rows)).reshape(rows.shape[0], -1).all(axis=1))
    wrong = np.flatnonzero(~finite)
    if wrong.size:
        raise InputError(
            f"{name} must be finite, got NaN or infinity in {wrong.size} of {len(finite)} rows, "
            f"the first of them {wrong[:3].tolist()}: has the training diverged?"
        )


def any_of(faults: Faults) -> Bool[Array, ""]:
    """Whether anything is wrong."""
    return jnp.any(jnp.stack([jnp.any(fault != 0) for fault in faults.values()]))


def where_sound(values: dict[str, Array], faults: Faults) -> dict[str, Array]:
    """NaN in place of values that nobody may take for a result."""
    at_fault = any_of(faults)
    return {name: jnp.where(at_fault, jnp.nan, value) for name, value in values.items()}


def refuse(faults: Faults) -> None:
    """Raises InputError for the first fault, if the values are known."""
    if not all(is_known(fault) for fault in faults.values()):
        return
    for name, fault in jax.device_get(faults).items():
        where = np.flatnonzero(fault)
        if where.size:
            count = f"{where.size} of {np.size(fault)} classes, first {where[:3].tolist()}"
            raise InputError(_FAULTS[name].format(count=count, examples=np.sum(fault)))
