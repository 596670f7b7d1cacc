"""What a configuration names: its data set, the feed that brings it, and the network."""

from typing import Any

import jax.numpy as jnp
import numpy as np

from spa_jax.data.dataset import LongTailedDataset
from spa_jax.data.sources.digits import load_digits_lt
from spa_jax.data.sources.opening import open_source
from spa_jax.data.splits.shot_groups import check_shot_group_rule
from spa_jax.data.splits.splitting import SplitOptions, make_split
from spa_jax.errors import InputError
from spa_jax.longtail.method import Method
from spa_jax.models.cifar_resnet import CifarResNet
from spa_jax.models.classifier import Classifier
from spa_jax.models.convnext import STAGES, ConvNeXt, Stages
from spa_jax.models.heads import CosineHead, EtfHead, GlmcHeads, LinearHead
from spa_jax.models.imagenet_resnet import ImageNetResNet
from spa_jax.models.small_resnet import SmallResNet
from spa_jax.models.vision_transformer import SIZES, Size, VisionTransformer
from spa_jax.training.config import Config, default_config
from spa_jax.training.devices import Layout
from spa_jax.training.feeds.resident import DEVICE_BYTES, Feed, ResidentFeed
from spa_jax.training.feeds.streamed import StreamFeed
from spa_jax.training.method import check_method
from spa_jax.training.rundir.workdir import flatten_config

_STREAMS_ONLY = ("image_size", "resize", "min_area", "color_jitter", "grey", "blur")


def load_data(config: Config) -> LongTailedDataset:
    """Loads the data set that `config.data` describes; InputError if it is missing or broken."""
    options = split_options(config)
    if config.data.name == "digits":
        data = load_digits_lt(options)
    else:
        data = make_split(
            open_source(
                config.data.name,
                config.data.folder,
                config.data.verify,
                config.data.train_list,
                config.data.test_list,
            ),
            options,
        )
    check_shot_group_rule(config.data.shot_groups, data.num_classes)
    return data


def split_options(config: Config) -> SplitOptions:
    """The fields of `config.data` that say which images train."""
    data = config.data
    return SplitOptions(
        profile=data.profile,
        protocol=data.protocol,
        imbalance_factor=data.imbalance_factor,
        n_max=data.n_max,
        class_order=data.class_order,
        class_order_seed=data.class_order_seed,
        seed=None if data.split_seed == -1 else data.split_seed,
        validation=data.validation,
        train_list=data.train_list,
        test_list=data.test_list,
    )


def build_feed(layout: Layout, config: Config, data: LongTailedDataset) -> Feed:
    """The devices' memory if the images fit there, otherwise a stream of batches."""
    feed = config.data.feed
    if feed == "auto":
        feed = "device" if _fits_on_device(data) else "stream"
    if feed == "device":
        return ResidentFeed(layout, config, data)
    return StreamFeed(layout, config, data)


def build_model(
    config: Config, method: Method, num_classes: int, axis_name: str | None
) -> Classifier:
    """The network that `config.model` describes, with the method's head."""
    norm_axis = axis_name if config.model.batch_norm == "global" else None
    head = _build_head(config, method, num_classes, norm_axis)
    return Classifier(_build_backbone(config, norm_axis), head)


def _build_backbone(config: Config, norm_axis: str | None) -> Any:
    model = config.model
    name, dtype, widths = model.name, jnp.dtype(model.dtype), tuple(model.widths)
    if name == "small":
        return SmallResNet(widths, model.blocks, model.stem_stride, axis_name=norm_axis)
    if name == "vit":
        size = Size(model.stem_stride, widths[-1], model.blocks, model.heads)
        return VisionTransformer(size, dtype=dtype)
    if name == "convnext":
        stages = Stages(model.stem_stride, widths, (model.blocks,) * len(widths))
        return ConvNeXt(stages, scale_init=1.0, dtype=dtype)
    if name in SIZES:
        return VisionTransformer(SIZES[name], dtype=dtype)
    if name in STAGES:
        return ConvNeXt(STAGES[name], dtype=dtype)
    if name == "cifar_resnet":
        return CifarResNet(model.depth, model.width_factor, axis_name=norm_axis, dtype=dtype)
    return ImageNetResNet(name, axis_name=norm_axis, dtype=dtype)


def _build_head(config: Config, method: Method, num_classes: int, norm_axis: str | None) -> Any:
    heads: dict[str, Any] = {
        "linear": lambda: LinearHead(num_classes),
        "cosine": lambda: CosineHead(num_classes, scale=1.0),
        "etf": lambda: EtfHead(num_classes, axis_name=norm_axis),
        "glmc": lambda: GlmcHeads(num_classes, config.method.glmc_projection_dim),
    }
    return heads[method.head]()


def check_is_used(config: Config, feed: Feed) -> None:
    """Raises InputError for a field that was set and would do nothing in this run."""
    check_method(config)
    given, unused = flatten_config(config.to_dict()), []
    if isinstance(feed, ResidentFeed):
        unused = [f"augment.{field}" for field in _STREAMS_ONLY]
    elif not feed.encoded:
        unused = [f"augment.{field}" for field in ("image_size", "resize", "min_area")]
    known = flatten_config(default_config().to_dict())
    for field in unused:
        if given[field] != known[field]:
            raise InputError(
                f"config.{field} is for images that are decoded from files of any size, and these "
                f"live in memory at one size: leave it at {known[field]!r}."
            )
    if config.model.name == "small" and config.model.dtype != "float32":
        raise InputError(
            "The small network computes in float32: choose another config.model.name for "
            f"config.model.dtype={config.model.dtype}."
        )
    if config.model.batch_norm == "per_device" and config.parallel == "jit":
        raise InputError(
            "config.model.batch_norm=per_device needs config.parallel=pmap or shard_map: under jit "
            "a batch is one batch, however many devices work on it."
        )


def _fits_on_device(data: LongTailedDataset) -> bool:
    parts = [part for part in (data.train, data.test, data.validation) if part is not None]
    images = [part.images for part in parts]
    return all(isinstance(array, np.ndarray) for array in images) and (
        sum(array.nbytes for array in images if isinstance(array, np.ndarray)) <= DEVICE_BYTES
    )
