"""Heads: features `(B, D)` to logits `(B, C)`, in float32. All are called as `head(f, train)`."""

from typing import NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax.typing import DTypeLike
from jaxtyping import Array, Float, Key

from spa_jax.alignment import simplex_etf, unit_rows
from spa_jax.errors import InputError
from spa_jax.models.residual import batch_norm

# PyTorch's `kaiming_normal_`: of the fan-in, and not truncated.
_KAIMING_NORMAL = nn.initializers.variance_scaling(2.0, "fan_in", "normal")


class LinearHead(nn.Module):
    r"""A linear classifier, :math:`f W + b`, with the parameters and start of `flax.linen.Dense`.

    Attributes:
      num_classes: C.
      normalised: whether the class weights act at length 1, all times one learned scale:

        .. math:: z_c = s \langle f, \hat w_c \rangle + b_c

        The scale starts at 1, which is about the length of the columns that the kernel starts with.
        The gradient of such a column is orthogonal to it, and smaller the longer it is; a rotation
        of it, as by SpA, turns :math:`\hat w_c` by the same angle.
      scaled: whether each class weight has a learned scale of its own besides, which starts at 1:
        :math:`a_c w_c` in place of :math:`w_c`.

    Reference:
      Wang, Xiang, Cheng and Yuille, "NormFace: L2 Hypersphere Embedding for Face Verification", ACM
      Multimedia 2017, on layers that normalise, and why they need a scale. Kang et al., "Decoupling
      Representation and Classifier for Long-Tailed Recognition", ICLR 2020, on scales of classes.
    """

    num_classes: int
    normalised: bool = False
    scaled: bool = False

    @nn.compact
    def __call__(self, features: Float[Array, "B D"], train: bool) -> Float[Array, "B num_classes"]:
        """Features `(B, D)` to logits `(B, C)`.

        `kernel` is `(D, C)`, `bias` `(C,)`; where there are, `scale` is `()` and `scales` `(C,)`.
        """
        shape = (features.shape[-1], self.num_classes)
        kernel = self.param("kernel", nn.initializers.lecun_normal(), shape)
        bias = self.param("bias", nn.initializers.zeros, (self.num_classes,))
        if self.normalised:
            kernel = self.param("scale", nn.initializers.ones, ()) * unit_rows(kernel, axis=0)
        if self.scaled:
            kernel *= self.param("scales", nn.initializers.ones, (self.num_classes,))[None]
        return features @ kernel + bias[None]


class CosineHead(nn.Module):
    r"""The cosine of feature and class weight: lengths and a bias play no part.

    .. math:: z_c = s \langle \hat f, \hat w_c \rangle

    The columns of the kernel start as unit vectors in uniformly random directions. A zero feature
    or column has the logit 0 and the gradient 0.

    Attributes:
      num_classes: C.
      scale: what the learned scale s starts at; None for s = 1, where the loss has a scale of its
        own, as LDAM has.

    Reference:
      Gidaris and Komodakis, "Dynamic Few-Shot Visual Learning without Forgetting", CVPR 2018, where
      the scale is learned.
    """

    num_classes: int
    scale: float | None = None

    @nn.compact
    def __call__(self, features: Float[Array, "B D"], train: bool) -> Float[Array, "B num_classes"]:
        """Features `(B, D)` to logits `(B, C)`; `kernel` is `(D, C)`, `scale` `()` if learned."""
        kernel = self.param("kernel", _unit_columns, (features.shape[-1], self.num_classes))
        cosines = _cosines(unit_rows(features), unit_rows(kernel, axis=0))
        if self.scale is None:
            return cosines
        return self.param("scale", nn.initializers.constant(self.scale), ()) * cosines


class EtfOutputs(NamedTuple):
    """What dot regression needs, and the logits.

    Attributes:
      logits: `(B, C)`, the cosines with the frame, in [-1, 1].
      features: `(B, D)`, normalised; they live where the frame does.
      kernel: `(D, C)`, the frame.
    """

    logits: Float[Array, "B C"]
    features: Float[Array, "B D"]
    kernel: Float[Array, "D C"]


class EtfHead(nn.Module):
    r"""Class weights fixed as a simplex equiangular tight frame; only the features are trained.

    .. math:: z_c = \langle \hat h, m_c \rangle, \quad h = \operatorname{BatchNorm}(f), \quad
       M = \sqrt{C / (C - 1)} \, P (I - \tfrac{1}{C} 1 1^\top), \quad P^\top P = I

    The `(D, C)` kernel M, its orientation drawn from the key of `init`, is no parameter: it is
    `kernel` in the variable collection `constants`, which `init` returns next to `params`. Keep it
    in the checkpoint and pass it to `apply`: the key would not give the same frame again under
    another version of JAX.

    Attributes:
      num_classes: C, 2 or more.
      axis_name: as in :func:`spa_jax.models.residual.batch_norm`.

    Raises:
      InputError: fewer than two classes, or features too narrow for the frame: D < C - 1.

    Reference:
      Yang, Chen, Li, Xie, Lin and Tao, "Inducing neural collapse in imbalanced learning: do we
      really need a learnable classifier at the end of deep neural network?", NeurIPS 2022.
    """

    num_classes: int
    axis_name: str | None = None

    def __post_init__(self) -> None:
        if self.num_classes < 2:
            raise InputError(
                f"A simplex ETF holds 2 classes or more, got num_classes={self.num_classes}; use "
                f"another head."
            )
        super().__post_init__()

    @nn.compact
    def __call__(self, features: Float[Array, "B D"], train: bool) -> EtfOutputs:
        """Features `(B, D)` to logits `(B, C)`, with what the loss needs besides."""
        dim = features.shape[-1]
        if dim < self.num_classes - 1:
            raise InputError(
                f"A simplex ETF of {self.num_classes} classes needs features of width "
                f"{self.num_classes - 1} or more, got {dim}: widen the backbone "
                f"(config.model.cifar_resnet.width_factor or config.model.small.widths), or use "
                f"another head."
            )

        def frame() -> Float[Array, "D C"]:
            return simplex_etf(self.num_classes, dim, self.make_rng("params")).T

        kernel = self.variable("constants", "kernel", frame).value
        directions = unit_rows(batch_norm(train, self.axis_name, name="bn")(features))
        return EtfOutputs(_cosines(directions, kernel), directions, kernel)


class GlmcOutputs(NamedTuple):
    """What the GLMC loss needs of one view of a batch.

    Attributes:
      logits: `(B, C)` of the plain classifier, `fc`.
      logits_cb: `(B, C)` of the class-balanced one, `fc_cb`, by which a GLMC network classifies.
      projected: `(B, projection_dim)`, z.
      predicted: `(B, projection_dim)`, p, computed from z.
    """

    logits: Float[Array, "B C"]
    logits_cb: Float[Array, "B C"]
    projected: Float[Array, "B P"]
    predicted: Float[Array, "B P"]


class GlmcHeads(nn.Module):
    r"""GLMC's two linear classifiers, and the projector and predictor of its consistency loss.

    .. math:: o = f W + b, \quad o_{cb} = f W_{cb} + b_{cb}, \quad z = f A + a, \quad p = z Q + q

    There is no activation or normalisation between z and p. Kernels start He-normal of the fan-in,
    biases uniform within :math:`1 / \sqrt{D}`, as in PyTorch. The layers are `fc`, `fc_cb`,
    `projector` and `predictor`.

    Attributes:
      num_classes: C.
      projection_dim: width of z and p. GLMC has 128 on CIFAR and 256 elsewhere.

    Reference:
      Du, Yang, Jia, Nan, Chen and Yang, "Global and local mixture consistency cumulative learning
      for long-tailed visual recognitions", CVPR 2023.
    """

    num_classes: int
    projection_dim: int = 128

    @nn.compact
    def __call__(self, features: Float[Array, "B D"], train: bool) -> GlmcOutputs:
        """Features `(B, D)` to two logits `(B, C)`, z and p."""
        projected = _linear(self.projection_dim, features, "projector")
        return GlmcOutputs(
            logits=_linear(self.num_classes, features, "fc"),
            logits_cb=_linear(self.num_classes, features, "fc_cb"),
            projected=projected,
            predicted=_linear(self.projection_dim, projected, "predictor"),
        )


class BclOutputs(NamedTuple):
    """What BCL needs of one view of a batch.

    Attributes:
      logits: `(B, C)`, cosines of features and class weights, in [-1, 1].
      projected: `(B, projection_dim)`, what is contrasted.
      prototypes: `(C, projection_dim)`, what it is contrasted with besides, one for each class.
    """

    logits: Float[Array, "B C"]
    projected: Float[Array, "B P"]
    prototypes: Float[Array, "C P"]


class BclHead(nn.Module):
    r"""BCL's classifier of cosines, and the two projectors of its contrastive loss.

    .. math:: z_c = \langle \hat f, \hat w_c \rangle, \quad p = g(f), \quad c = g'(W^\top), \quad
       g = \operatorname{Linear} \circ \operatorname{ReLU} \circ \operatorname{BatchNorm} \circ
       \operatorname{Linear}

    The hidden layers are as wide as the features. The prototypes c are made of the class weights as
    they are, so that the contrastive loss moves these too.

    Attributes:
      num_classes: C.
      axis_name: as in :func:`spa_jax.models.residual.batch_norm`.
      projection_dim: width of p and c.

    Reference:
      Zhu, Wang, Chen, Chen and Jiang, "Balanced contrastive learning for long-tailed visual
      recognition", CVPR 2022.
    """

    num_classes: int
    axis_name: str | None = None
    projection_dim: int = 128

    @nn.compact
    def __call__(self, features: Float[Array, "B D"], train: bool) -> BclOutputs:
        """Features `(B, D)` to logits, projections and prototypes; `kernel` is `(D, C)`."""
        kernel = self.param("kernel", _unit_columns, (features.shape[-1], self.num_classes))

        def project(rows: Float[Array, "N D"], name: str) -> Float[Array, "N P"]:
            hidden = nn.Dense(rows.shape[-1], use_bias=False, name=f"{name}_hidden")(rows)
            normal = batch_norm(train, self.axis_name, name=f"{name}_bn")(hidden)
            return nn.Dense(self.projection_dim, name=name)(nn.relu(normal))

        return BclOutputs(
            logits=_cosines(unit_rows(features), unit_rows(kernel, axis=0)),
            projected=project(features, "projector"),
            prototypes=project(kernel.T, "prototypes"),
        )


class ExpertHeads(nn.Module):
    """Several classifiers of cosines on the same features, `expert_0` and so on.

    Attributes:
      num_classes: C.
      experts: E, how many.
    """

    num_classes: int
    experts: int = 3

    @nn.compact
    def __call__(self, features: Float[Array, "B D"], train: bool) -> Float[Array, "B E C"]:
        """Features `(B, D)` to the logits of each, `(B, E, C)`."""
        each = [
            CosineHead(self.num_classes, name=f"expert_{expert}")(features, train)
            for expert in range(self.experts)
        ]
        return jnp.stack(each, axis=1)


def _linear(width: int, inputs: Float[Array, "B D"], name: str) -> Float[Array, "B width"]:
    bound = inputs.shape[-1] ** -0.5

    def bias_init(key: Array, shape: tuple[int, ...], dtype: DTypeLike) -> Array:
        return jax.random.uniform(key, shape, dtype, -bound, bound)

    return nn.Dense(width, kernel_init=_KAIMING_NORMAL, bias_init=bias_init, name=name)(inputs)


def _unit_columns(key: Key[Array, ""], shape: tuple[int, int]) -> Float[Array, "D C"]:
    return unit_rows(jax.random.normal(key, shape[::-1])).T


def _cosines(unit_features: Float[Array, "B D"], unit_kernel: Float[Array, "D C"]) -> Array:
    # A product of shorter floats would err by several thousandths, which a scale or a loss of
    # 1 - cosine near collapse makes large.
    return jnp.matmul(unit_features, unit_kernel, precision=jax.lax.Precision.HIGHEST)
