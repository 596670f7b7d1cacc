"""Long-tailed class sizes: how many training images each class gets."""

from collections.abc import Callable

import numpy as np

from spa_jax.errors import InputError

NATURAL = "natural"
"""The profile that takes all images as they are."""


def exponential_profile(n_max: int, num_classes: int, imbalance_factor: float) -> tuple[int, ...]:
    r"""Class sizes that fall exponentially with the rank.

    .. math:: n_r = \lfloor n_{\max} \, \text{IF}^{-r / (C - 1)} \rfloor

    Args:
      n_max: images of the largest class, 1 or more.
      num_classes: C, 2 or more.
      imbalance_factor: IF >= 1, the ratio of the largest to the smallest class before rounding.

    Returns:
      C sizes, largest first.

    Raises:
      InputError: a number out of range, or an imbalance factor that leaves a class empty.

    Example:
      >>> exponential_profile(110, 10, 20)
      (110, 78, 56, 40, 29, 20, 14, 10, 7, 5)

    Reference:
      Cui et al., "Class-Balanced Loss Based on Effective Number of Samples", CVPR 2019.
    """
    _check_profile(n_max, num_classes, imbalance_factor)
    shares = (imbalance_factor ** (r / (num_classes - 1.0)) for r in range(num_classes))
    return _without_empty(tuple(int(n_max / share) for share in shares), imbalance_factor)


def step_profile(n_max: int, num_classes: int, imbalance_factor: float) -> tuple[int, ...]:
    r"""Half of the classes large, the others small.

    .. math:: n_r = n_{\max} \text{ for } r < \lfloor C / 2 \rfloor, \quad
              \lfloor n_{\max} / \text{IF} \rfloor \text{ for the rest}

    Args:
      n_max: images of each large class, 1 or more.
      num_classes: C, 2 or more.
      imbalance_factor: IF >= 1, the ratio of the sizes before rounding.

    Returns:
      C sizes, largest first.

    Raises:
      InputError: a number out of range, or an imbalance factor that leaves a class empty.

    Example:
      >>> step_profile(100, 5, 10)
      (100, 100, 10, 10, 10)

    Reference:
      Buda, Maki and Mazurowski, "A Systematic Study of the Class Imbalance Problem in
      Convolutional Neural Networks", Neural Networks 106, 2018.
    """
    _check_profile(n_max, num_classes, imbalance_factor)
    large = num_classes // 2
    sizes = (n_max,) * large + (int(n_max / imbalance_factor),) * (num_classes - large)
    return _without_empty(sizes, imbalance_factor)


def pareto_profile(
    n_max: int, num_classes: int, imbalance_factor: float, alpha: float = 6.0
) -> tuple[int, ...]:
    r"""Class sizes that follow the tail of a Pareto distribution, as in ImageNet-LT.

    .. math:: n_r = \lfloor n_{\max} \, x_r^{-\alpha} \rfloor, \quad
              x_r = 1 + \frac{r}{C - 1} \left(\text{IF}^{1/\alpha} - 1\right)

    :math:`x^{-\alpha}` is the distribution's tail :math:`P(X > x)`, taken at evenly spaced points
    from where it is 1 to where it is 1 / IF. ImageNet-LT itself was drawn at random from such a
    distribution; its own class sizes come with its list of images.

    Args:
      n_max: images of the largest class, 1 or more.
      num_classes: C, 2 or more.
      imbalance_factor: IF >= 1, the ratio of the largest to the smallest class before rounding.
      alpha: shape of the distribution, 0.1 or more.

    Returns:
      C sizes, largest first.

    Raises:
      InputError: a number out of range, or an imbalance factor that leaves a class empty.

    Example:
      >>> pareto_profile(1280, 5, 256)
      (1280, 185, 43, 13, 5)

    Reference:
      Liu et al., "Large-Scale Long-Tailed Recognition in an Open World", CVPR 2019.
    """
    _check_profile(n_max, num_classes, imbalance_factor)
    if not 0.1 <= alpha < np.inf:  # below that the points leave the floating-point numbers
        raise InputError(f"alpha of the Pareto profile must be 0.1 or more, got {alpha}.")
    farthest = imbalance_factor ** (1.0 / alpha)
    points = 1.0 + np.arange(num_classes) / (num_classes - 1.0) * (farthest - 1.0)
    sizes = n_max * points**-alpha
    sizes[-1] = n_max / imbalance_factor  # its rounded power could miss a whole number
    return _without_empty(tuple(int(size) for size in sizes), imbalance_factor)


PROFILES: dict[str, Callable[[int, int, float], tuple[int, ...]]] = {
    "exponential": exponential_profile,
    "step": step_profile,
    "pareto": pareto_profile,
}


CLASS_ORDERS: dict[str, Callable[[np.ndarray, int], np.ndarray]] = {
    "label": lambda labels, seed: labels,
    "reversed": lambda labels, seed: labels[::-1],
    "permuted": lambda labels, seed: np.random.default_rng(seed).permutation(labels),
}


def ranked_classes(num_classes: int, order: str, seed: int = 0) -> np.ndarray:
    """The classes from the largest to the smallest.

    Args:
      num_classes: C.
      order: a key of :data:`CLASS_ORDERS`; "label": class 0 is the largest; "reversed": class C - 1
        is; "permuted": a seeded permutation.
      seed: of the permutation.

    Returns:
      `(C,)` labels; the one at position r gets the size of rank r.

    Example:
      >>> ranked_classes(4, "reversed").tolist()
      [3, 2, 1, 0]
    """
    return CLASS_ORDERS[order](np.arange(num_classes), seed)


def _check_profile(n_max: int, num_classes: int, imbalance_factor: float) -> None:
    if num_classes < 2 or n_max < 1:
        raise InputError(
            f"A long-tailed split needs at least 2 classes and 1 image, got num_classes="
            f"{num_classes}, n_max={n_max}."
        )
    if not 1 <= imbalance_factor < np.inf:
        raise InputError(f"imbalance_factor must be 1 or more and finite, got {imbalance_factor}.")


class EmptyClassError(InputError):
    """An imbalance factor leaves classes without an image; `rank` is that of the first of them."""

    def __init__(self, message: str, rank: int) -> None:
        super().__init__(message)
        self.rank = rank


def _without_empty(sizes: tuple[int, ...], imbalance_factor: float) -> tuple[int, ...]:
    """The sizes back, after a check that every class has an image."""
    if sizes[-1] == 0:
        raise EmptyClassError(
            f"imbalance_factor={imbalance_factor:g} leaves class {sizes.index(0)} of {len(sizes)} "
            f"without an image (classes by size, 0 the largest): with n_max={sizes[0]} the largest "
            f"that works is {sizes[0]}.",
            sizes.index(0),
        )
    return sizes
