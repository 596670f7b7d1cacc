"""What a run needs before it starts: everything that can be refused is refused here."""

import dataclasses
from collections.abc import Iterable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import PyTree, UInt32

from spa_jax.alignment.kernels import find_kernels
from spa_jax.data.augment.augment_options import ENCODED_FIELDS, PIXEL_FIELDS, STREAM_FIELDS
from spa_jax.data.augment.normalization import NORMALIZATIONS, OF_DATA_SET
from spa_jax.data.data_options import DataOptions
from spa_jax.data.dataset import EncodedImages, LongTailedDataset
from spa_jax.data.features import Features
from spa_jax.data.sources.opening import load_data
from spa_jax.data.stream.batches import stream_side
from spa_jax.errors import InputError
from spa_jax.models.classifier import Classifier
from spa_jax.models.networks import build_classifier
from spa_jax.options import check_unread
from spa_jax.training.config import Config, RunOptions, resolve
from spa_jax.training.devices import AXIS, CannotTrainTogether, Layout
from spa_jax.training.rundir.first_run import FirstRun, check_first_run, read_first_run
from spa_jax.training.shards import Shards

DEVICE_BYTES = 2 * 2**30
"""What the images may take up to live on the devices."""

# A stream of the seed's key that steps, which count up from 0, never reach.
_INIT_STREAM = 2**32 - 1


@dataclasses.dataclass(frozen=True)
class PreparedRun:
    """A configuration that will train, with what it names; nothing is on the devices yet.

    Attributes:
      options: the configuration, decided.
      layout: the devices.
      shards: which arrays are cut over them.
      data: the data set, on the host.
      streamed: whether its images come in batches from the host.
      image_shape: `(H, W, channels)` that the network sees; `(D,)` of features.
      model: the network with the method's head.
    """

    options: RunOptions
    layout: Layout
    shards: Shards
    data: LongTailedDataset
    streamed: bool
    image_shape: tuple[int, ...]
    model: Classifier

    @property
    def dim(self) -> int:
        """The width of the features that the class weights are compared with."""
        return self.model.backbone.dim or self.image_shape[-1]

    def init_variables(self, seed: UInt32[jax.Array | np.ndarray, ""]) -> PyTree:
        """The network's variables for the seed of a run."""
        image = jnp.zeros((1, *self.image_shape), jnp.float32)
        rng = jax.random.fold_in(jax.random.key(seed), _INIT_STREAM)
        return self.model.init(rng, image, train=False)

    def check_network(self) -> None:
        """Raises InputError for what the network's variables do not fit.

        That is a classifier path that names no class weights, class means of the data set where
        steps move the features, or a fixed classifier or a frozen network where they do not.
        """
        method, classifier = self.options.longtail, self.options.aligned["classifier"]
        shapes: Any = self._shapes()
        moves = any("backbone" in part for part in shapes.values())
        network = self.options.model.name
        if self.options.spa.means_from == "dataset" and (
            moves or not isinstance(self.data.train.images, Features)
        ):
            raise InputError(
                "config.spa.means_from=dataset computes class means once, for features that no "
                f"step moves, and those of the network {network} move: set it to auto, or take "
                "config.model.name=identity on a feature bank."
            )
        if self.options.optimizer.train_only == "head" and not moves:
            raise InputError(
                f"config.optimizer.train_only=head does nothing, as the network {network} has no "
                "parameters besides the head: leave it at all."
            )
        if method.fixed_kernel and not moves:
            raise InputError(
                f"The method {self.options.method.name} moves features towards a fixed classifier, "
                f"and the network {network} does not move them: set config.model.name=adapter, or "
                "choose another config.method.name."
            )
        tree = shapes if method.fixed_kernel else shapes["params"]
        try:
            named = find_kernels(tree, classifier)
        except ValueError as error:
            raise InputError(f"config.spa.{error}") from error
        if not {*named} <= {*find_kernels(tree, method.kernels)}:
            raise InputError(
                f"config.spa.classifier={classifier!r} names a matrix that holds no class weights; "
                f"those of {self.options.method.name} are {', '.join(method.kernels)}."
            )

    def check_first_run(self) -> None:
        """Raises InputError if the run that this one starts from is not there or does not fit."""
        if self.options.init.run:
            check_first_run(self.options.init, self._shapes(), self.data)

    def read_first_run(self) -> FirstRun | None:
        """The run that this one starts from; None where the seed draws all values."""
        init = self.options.init
        if not init.run:
            return None
        return read_first_run(init, self._shapes(), self.data)

    def _shapes(self) -> PyTree:
        return jax.eval_shape(self.init_variables, np.uint32(0))


def check_run(config: Config) -> None:
    """Raises InputError for whatever would stop a run of this configuration from starting."""
    check_runs([config])


def check_runs(
    configs: Iterable[Config],
    together: bool | None = False,
    continued: Iterable[Config] = (),
) -> dict[DataOptions, str]:
    """:func:`check_run` for several runs; what they share is loaded and looked at once.

    Args:
      configs: of the runs.
      together: whether they train as members of programs; None: where they can.
      continued: of further runs, which go on from checkpoints of their own.

    Returns:
      The checksum of the content of each data set that was loaded.
    """
    run, networks, checksums = None, set(), {}
    known = [(resolve(config), True) for config in configs]
    known += [(resolve(config), False) for config in continued]
    # By data, one data set at a time: all together might not fit into memory.
    for options, starts in sorted(known, key=lambda pair: repr(pair[0].data)):
        data = run.data if run is not None and run.options.data == options.data else None
        run = None
        try:
            run = prepare_run(options, data, None if together is False else Layout("vmap"))
        except CannotTrainTogether:
            if together:
                raise
            run = prepare_run(options, data)
        network = (
            run.model,
            run.image_shape,
            options.aligned["classifier"],
            options.spa.means_from,
            starts and (options.init, options.data),
        )
        if network not in networks:
            run.check_network()
            if starts:
                run.check_first_run()
        networks.add(network)
        checksums[options.data] = run.data.content_checksum
    return checksums


def prepare_run(
    options: RunOptions, data: LongTailedDataset | None = None, layout: Layout | None = None
) -> PreparedRun:
    """Loads a run's data and plans its network.

    Args:
      options: the configuration, decided.
      data: its data set, where that is loaded already.
      layout: of the devices; None: as the configuration says.

    Raises:
      InputError: a field that does not fit data, devices or network.
      CannotTrainTogether: a run that cannot be one of a program's members.
    """
    layout = Layout(options.parallel, options=options.mesh) if layout is None else layout
    if options.batch_size % layout.num_devices:
        raise InputError(
            f"config.batch_size={options.batch_size} cannot be shared evenly by "
            f"{layout.num_devices} devices: choose a multiple of {layout.num_devices}."
        )
    parts = options.accumulation_steps * layout.num_devices
    if options.batch_size % parts:
        raise InputError(
            f"config.batch_size={options.batch_size} cannot be cut into config.accumulation_steps="
            f"{options.accumulation_steps} micro-batches that {layout.num_devices} device(s) share "
            f"evenly: choose a multiple of {parts}."
        )
    data = load_data(options.data) if data is None else data
    if len(data.train) < options.batch_size:
        raise InputError(
            f"config.batch_size={options.batch_size} is larger than the training set of "
            f"{len(data.train)} images: lower it."
        )
    classes = layout.options.classes
    if layout.options.fsdp and layout.mesh.shape[AXIS] == 1 < layout.num_devices:
        raise InputError(
            f"config.mesh.fsdp cuts parameters over data, of which config.mesh.classes={classes} "
            "leaves one part: lower that, or leave fsdp at False."
        )
    if data.num_classes % classes:
        raise InputError(
            f"config.mesh.classes={classes} cannot share {data.num_classes} classes evenly: "
            "choose a divisor of that number."
        )
    if options.checkpoint.keep_best:
        check_validation(data)
    feed = options.data.feed
    streamed = feed == "stream" or (feed == "auto" and not _fits_on_device(data))
    rest = 0 if options.data.drop_last else len(data.train) % options.batch_size
    if rest and streamed:
        raise InputError(
            "config.data.drop_last=False is for data that live on the devices: of a stream each "
            "process reads the same rows of every batch, and a smaller one has not all of them. "
            "Leave it at True, or set config.data.feed=device."
        )
    # Under jit devices that cannot share the last batch evenly all work on the whole of it.
    parts = parts if layout.axis_name else options.accumulation_steps
    if rest % parts:
        raise InputError(
            f"config.data.drop_last=False leaves a last batch of {rest} examples, which cannot be "
            f"cut into {parts} equal parts, one for each device and micro-batch (under "
            "config.parallel=jit for each micro-batch): set config.data.drop_last=True, or choose "
            "another config.batch_size."
        )
    if layout.mode == "vmap":
        _check_together(options, streamed)
    images = data.train.images
    if streamed and not isinstance(images, Features):
        size = stream_side(data.train, options.augment)
        image_shape: tuple[int, ...] = (size, size, 3)  # a stream makes grey images RGB
    elif isinstance(images, EncodedImages):
        raise InputError(
            "config.data.feed='device' needs images of one size that are decoded already; "
            "these are JPEG or PNG files of any size: set config.data.feed=stream."
        )
    else:
        image_shape = images.shape[1:]
    why = "images that are decoded from files of any size, and these live in memory at one size"
    unused = ENCODED_FIELDS if isinstance(images, np.ndarray) else ()
    if isinstance(images, Features):
        unused, why = PIXEL_FIELDS, f"images, and {data.train.origin} has features"
    elif not streamed:
        unused = STREAM_FIELDS
    unread = [(True, field, f"it is for {why}") for field in unused]
    check_unread(options.augment, "augment", unread)
    normalization = options.augment.normalization
    mean, _ = NORMALIZATIONS.get(normalization, ((0,), ()))
    if len(mean) not in (1, image_shape[-1]):
        raise InputError(
            f"config.augment.normalization={normalization} is for images of {len(mean)} channels, "
            f"and those of {data.train.origin} have {image_shape[-1]}: leave it at {OF_DATA_SET}."
        )
    model = build_classifier(
        options.model.name,
        options.network,
        options.longtail.head,
        options.longtail.head_options,
        data.num_classes,
        jnp.dtype(options.model.dtype),
        layout.axis_name if options.model.batch_norm == "global" else None,
        frozen_backbone=options.optimizer.train_only != "all",
        remat=options.model.remat,
    )
    _check_kind(options, data, getattr(model.backbone, "takes_features", False))
    shards = Shards(layout, options.longtail.kernels, data.num_classes)
    if classes > 1:
        model = model.clone(share=shards.share_features)
    return PreparedRun(options, layout, shards, data, streamed, image_shape, model)


def _check_together(options: RunOptions, streamed: bool) -> None:
    """Raises CannotTrainTogether for what no member of a program can have."""
    refused = {
        "hold each state on one device, and config.mesh cuts it over several: leave its classes "
        "and fsdp out": options.mesh.cuts_state,
        "share their checkpoints, of which no one is the best of all of them: leave "
        "config.checkpoint.keep_best out": options.checkpoint.keep_best,
        "need images that live on the devices, and these are streamed: set "
        "config.data.feed=device": streamed,
        "hold their whole batch on one device each, which leaves config.model.batch_norm="
        "per_device without a meaning: set it to global": options.model.batch_norm == "per_device",
    }
    for why, holds in refused.items():
        if holds:
            raise CannotTrainTogether(f"Runs trained together {why}, or train one after another.")


def _check_kind(options: RunOptions, data: LongTailedDataset, takes_features: bool) -> None:
    """Raises InputError for a network or a mixing of images on features, or the reverse."""
    has_features, name = isinstance(data.train.images, Features), options.model.name
    if takes_features and not has_features:
        raise InputError(
            f"config.model.name={name} takes features, and {data.train.origin} has images: choose "
            "a network for images, or a feature bank for config.data.folder."
        )
    if has_features and not takes_features:
        raise InputError(
            f"config.model.name={name} takes images, and {data.train.origin} has features: set "
            "config.model.name to identity or adapter."
        )
    if has_features and options.views.second:
        raise InputError(
            f"The method {options.method.name} compares two views of an image, and "
            f"{data.train.origin} has features, of which both would be the same: choose another "
            "config.method.name."
        )
    if has_features and options.views.mix in ("cutmix", "glmc"):
        raise InputError(
            f"{options.views.mix} pastes a part of one image into another, and "
            f"{data.train.origin} has features: choose another config.augment.mix, such as mixup, "
            "or another config.method.name."
        )


def check_validation(data: LongTailedDataset) -> None:
    """Raises InputError if there is nothing that the best checkpoint could be chosen by."""
    if data.validation is None:
        raise InputError(
            "config.checkpoint.keep_best chooses by the accuracy on a validation part, not on the "
            "test set, and there is none: set config.data.validation=true, or leave keep_best out."
        )


def _fits_on_device(data: LongTailedDataset) -> bool:
    parts = [part for part in (data.train, data.test, data.validation) if part is not None]
    sizes = [getattr(part.images, "nbytes", None) for part in parts]  # encoded images have none
    return None not in sizes and sum(filter(None, sizes)) <= DEVICE_BYTES
