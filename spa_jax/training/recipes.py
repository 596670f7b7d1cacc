"""The configurations that `configs/` and the reproduction start from, a function for each data set.

Networks, rates and schedules are those of published codes, where there are any.
"""

from collections.abc import Callable, Collection, Mapping

from spa_jax.data.splits.profiles import exponential_profile
from spa_jax.errors import InputError
from spa_jax.training.config import Config, default_config

# Powers of the second sampler and of the class weights, and the weight of the consistency.
_GLMC = {
    ("cifar10", 10): (0.2, 1.0, 2.0),
    ("cifar10", 50): (0.0, 1.2, 1.0),
    ("cifar10", 100): (0.0, 1.2, 1.0),
    ("cifar100", 10): (0.2, 1.2, 4.0),
    ("cifar100", 50): (0.2, 1.2, 6.0),
    ("cifar100", 100): (0.0, 1.2, 4.0),
}


def digits_lt(model: str = "small") -> Config:
    """Long-tailed digits of scikit-learn (369 training images, IF 20).

    Args:
      model: "small"; "vit" with patches of 2 x 2 pixels, two layers and 200 epochs; or "convnext".

    Raises:
      InputError: another network.
    """
    _check_choice("model", model, ("small", "vit", "convnext"))
    config = default_config()
    config.epochs, config.batch_size, config.eval_batch_size = 60, 64, 600
    config.evaluate_every = 5  # an epoch has five steps, less than the evaluation takes
    config.data.name, config.data.n_max, config.data.imbalance_factor = "digits", 110, 20.0
    config.augment.crop_padding = 1
    config.optimizer.learning_rate, config.optimizer.warmup_epochs = 0.1, 2.0
    config.logging.every_steps, config.logging.collapse = 25, True
    if model == "vit":
        config.epochs = 200
        _use_vit(config, patch_size=2)
    elif model == "convnext":
        config.model.name, config.model.convnext.widths = "convnext", (32, 64)
        adamw_recipe(config)
    return config


def digits_balanced() -> Config:
    """Digits without the tail, without augmentation, with more epochs and features."""
    config = digits_lt()
    config.epochs, config.evaluate_every = 200, 1
    config.data.imbalance_factor = 1.0
    config.augment.crop_padding = 0
    config.model.small.widths = (32, 64)
    return config


def fashion_mnist_lt(
    imbalance_factor: float = 100.0, class_order: str = "label", model: str = "small"
) -> Config:
    """Fashion-MNIST-LT; the small network's stem takes 28x28 images to 7x7 at once.

    Args:
      imbalance_factor: of the training set.
      class_order: value of `config.data.class_order`.
      model: "small", or "vit" with patches of 7 x 7 pixels and two layers.

    Raises:
      InputError: another network.
    """
    _check_choice("model", model, ("small", "vit"))
    config = default_config()
    config.epochs, config.batch_size, config.eval_batch_size = 30, 128, 500
    config.data.name, config.data.n_max = "fashion_mnist", 6000
    config.data.folder = "/usr/share/datasets/fashion-mnist"
    config.data.imbalance_factor, config.data.class_order = imbalance_factor, class_order
    config.augment.crop_padding, config.augment.flip = 2, True
    config.optimizer.learning_rate, config.optimizer.warmup_epochs = 0.1, 1.0
    if model == "vit":
        _use_vit(config, patch_size=7)
    else:
        config.model.small.widths, config.model.small.stem_stride = (32, 64), 4
    return config


def cifar10_lt(imbalance_factor: float = 100.0, recipe: str = "standard") -> Config:
    """CIFAR-10-LT.

    Args:
      imbalance_factor: of the training set.
      recipe: one of `CIFAR_RECIPES`, or "small" for a network and ten epochs that suit a CPU.

    Raises:
      InputError: another recipe.
    """
    return _cifar_lt("cifar10", imbalance_factor, recipe, {"small": _small_recipe} | CIFAR_RECIPES)


def cifar100_lt(imbalance_factor: float = 100.0, recipe: str = "standard") -> Config:
    """CIFAR-100-LT.

    Args:
      imbalance_factor: of the training set.
      recipe: one of `CIFAR_RECIPES`.

    Raises:
      InputError: another recipe.
    """
    return _cifar_lt("cifar100", imbalance_factor, recipe, CIFAR_RECIPES)


def imagenet_lt(epochs: int = 90, model: str = "resnet") -> Config:
    """ImageNet-LT: 90 epochs (as BCL), 135 (GLMC), or 180 (MiSLAS's first stage, mixup).

    BCL augments by RandAugment; here it is colour jitter, as with the others. GLMC's code sets its
    rate after each epoch, so that epoch 0 runs at the peak and the warm-up begins after it; here
    the warm-up begins with epoch 0.

    Args:
      epochs: which of the three recipes.
      model: "resnet", the recipe's own network; or "vit_s16" or "convnext_tiny" with AdamW, batches
        of 1,024 and decay on kernels alone, which follows no published code for long tails.

    Raises:
      InputError: another number of epochs, or another network.
    """
    _check_choice("model", model, ("resnet", "vit_s16", "convnext_tiny"))
    if epochs not in (90, 135, 180):
        raise InputError(f"The recipes of ImageNet-LT have 90, 135 or 180 epochs, got {epochs}.")
    config = default_config()
    config.epochs, config.batch_size, config.eval_batch_size = epochs, 256, 256
    _stream_natural(config, "imagenet_lt")
    config.augment.color_jitter = 0.4
    optimizer = config.optimizer
    optimizer.learning_rate, optimizer.weight_decay, optimizer.per_epoch = 0.1, 5e-4, True
    config.model.name = "resnet50" if epochs == 180 else "resnext50_32x4d"
    if epochs == 180:
        config.augment.mix, config.augment.mix_alpha = "mixup", 0.2
    if epochs == 135:
        config.batch_size, optimizer.weight_decay, optimizer.warmup_epochs = 120, 2e-4, 10.0
        config.augment.grey, config.augment.blur = 0.2, 0.5
        _use_glmc(config, 0.2, 1.0, 10.0)
        config.method.glmc.projection_dim = 256
    if model != "resnet":
        config.model.name, config.batch_size, optimizer.per_epoch = model, 1024, False
        adamw_recipe(config)
        optimizer.decayed = "kernels"
    return config


def places_lt(recipe: str = "mixup") -> Config:
    """Places-LT: ResNet-152 for ImageNet, fine-tuned, and the second stages of it.

    The first stage is MiSLAS's: 90 epochs of mixup in batches of 256, decay 5e-4, a cosine. There
    the last block and the classifier alone are trained, the latter with rate 0.1; here the whole
    network, with 0.01, which is what Kang's code has for networks. `config.init` has to name the
    ImageNet weights, with `parts=backbone`. The second stages are Kang's.

    Args:
      recipe: "mixup", the first stage; "crt" or "lws", second stages of ten and five epochs on
        class-aware draws, for which `config.init.run` names the first.

    Raises:
      InputError: another recipe.

    Reference:
      Liu et al., "Large-Scale Long-Tailed Recognition in an Open World", CVPR 2019, has the lists.
      Zhong et al., "Improving Calibration for Long-Tailed Recognition", CVPR 2021. Kang et al.,
      "Decoupling Representation and Classifier for Long-Tailed Recognition", ICLR 2020.
    """
    _check_choice("recipe", recipe, ("mixup", "crt", "lws"))
    config = default_config()
    config.epochs, config.batch_size, config.eval_batch_size = 90, 256, 256
    _stream_natural(config, "places_lt")
    config.augment.color_jitter, config.model.name = 0.4, "resnet152"
    config.optimizer.learning_rate, config.optimizer.weight_decay = 0.01, 5e-4
    if recipe == "mixup":
        config.augment.mix, config.augment.mix_alpha = "mixup", 0.2
        config.optimizer.per_epoch = True
    else:
        config.epochs, config.data.sampler = 10 if recipe == "crt" else 5, "class_aware"
        config.optimizer.learning_rate = 0.1
        config.optimizer.train_only = "head" if recipe == "crt" else "scales"
        config.init.parts = "backbone" if recipe == "crt" else "all"
    return config


def inaturalist2018() -> Config:
    """iNaturalist 2018: ResNet-50, batch 512, cosine from 0.2 after five epochs of warm-up."""
    config = default_config()
    config.epochs, config.batch_size, config.eval_batch_size = 90, 512, 512
    _stream_natural(config, "i_naturalist2018")
    config.model.name = "resnet50"
    optimizer = config.optimizer
    optimizer.learning_rate, optimizer.weight_decay, optimizer.warmup_epochs = 0.2, 2e-4, 5.0
    return config


def features(imbalance_factor: float = 0.0, model: str = "identity") -> Config:
    """A classifier on a feature bank, 20 epochs of AdamW with rate 0.01.

    That suits features whose numbers are about 0.1 or more.

    Args:
      imbalance_factor: of the training set; 0: all examples that the bank has.
      model: "identity", with class means of the whole training set; or "adapter".

    Raises:
      InputError: another network.
    """
    _check_choice("model", model, ("identity", "adapter"))
    config = default_config()
    config.epochs, config.batch_size, config.eval_batch_size = 20, 128, 1000
    # An epoch takes less than its evaluation, or its checkpoint.
    config.evaluate_every = config.checkpoint.every_epochs = 5
    config.data.name, config.model.name = "features", model
    config.spa.means_from = "dataset" if model == "identity" else "auto"
    if imbalance_factor:
        config.data.imbalance_factor = imbalance_factor
    else:
        config.data.profile = "natural"
    adamw_recipe(config)
    config.optimizer.learning_rate = 0.01
    return config


def standard_recipe(config: Config) -> None:
    """CIFAR recipe that most codes share, from LDAM-DRW's: ResNet-32, 200 epochs; of any method.

    As there the last batch of an epoch is a smaller one. Under `pmap` and `shard_map` devices can
    seldom share it: `config.data.drop_last=True` leaves it out.

    Reference:
      Cao et al., "Learning Imbalanced Datasets with Label-Distribution-Aware Margin Loss", NeurIPS
      2019.
    """
    _resnet32_recipe(config)
    config.data.drop_last = False


def _resnet32_recipe(config: Config) -> None:
    config.epochs, config.batch_size = 200, 128
    config.augment.crop_padding, config.augment.flip = 4, True
    config.model.name = "cifar_resnet"
    optimizer = config.optimizer
    optimizer.learning_rate, optimizer.weight_decay = 0.1, 2e-4
    optimizer.warmup_epochs, optimizer.per_epoch = 5.0, True
    optimizer.schedule, optimizer.step_epochs, optimizer.step_factor = "steps", (160, 180), 0.01


def glmc_recipe(config: Config) -> None:
    """CIFAR recipe of GLMC's code: ResNet-32 of four times the width, 200 epochs, decay 5e-3.

    Its settings by data set and imbalance factor are published for 10, 50 and 100; other factors
    get those of 100. Its README and issues give the consistency on CIFAR-10 the weight 4 or 1 at
    100 and 50; this takes 1.

    Reference:
      Du et al., "Global and Local Mixture Consistency Cumulative Learning for Long-tailed Visual
      Recognitions", CVPR 2023.
    """
    _resnet32_recipe(config)
    config.batch_size = 64
    config.data.protocol = "glmc"
    config.model.cifar_resnet.width_factor = 4
    name, factor = config.data.name, config.data.imbalance_factor
    _use_glmc(config, *_GLMC.get((name, factor), _GLMC.get((name, 100), (0.0, 1.2, 4.0))))
    optimizer = config.optimizer
    optimizer.learning_rate, optimizer.weight_decay = 0.01, 5e-3
    optimizer.warmup_epochs, optimizer.schedule = 0.0, "cosine"


def spa_recipe(config: Config) -> None:
    """CIFAR recipe of SpA's released code: GLMC's with another warm-up, class weights and split.

    It is SpA-Proj as released: gamma 0.6, the radial part scaled too, on the plain classifier, and
    class means of unmixed images. One thing differs: there class means start at zero and unseen
    classes count, here a class's first batch sets its mean and unseen classes are left out. Its
    baseline is this recipe with `spa.method="none"`, not GLMC's.

    Reference:
      Wang, Gao and Xie, "Space Alignment Matters: The Missing Piece for Inducing Neural Collapse in
      Long-Tailed Learning", AAAI 2026.
    """
    glmc_recipe(config)
    config.data.split_seed = 42
    _use_glmc(config, 0.0, 1.1, 4.0)
    config.optimizer.schedule = "spa_released"
    config.spa.means_from = "auto"
    config.spa.method, config.spa.proj.gamma, config.spa.proj.radial = "proj", 0.6, "scale"


def balms_recipe(config: Config) -> None:
    """CIFAR recipe of Balanced Meta-Softmax's code without its meta sampler: balanced softmax.

    ResNet-32, AutoAugment and cutout after crops and flips, batches of 512, a cosine after 800
    steps of warm-up, and 13,000 steps in all. Here a run has whole epochs, and an epoch whole
    batches: of the epochs' numbers of steps the nearest to 13,000 is taken, for the imbalance
    factor of the configuration. There the rate rises from 0.05 to its peak, here from zero.
    Not known is the side of the cutout: it is 16 here, as AutoAugment's authors have it. Which
    images their split takes is not known either: it is LDAM's here.

    Reference:
      Ren et al., "Balanced Meta-Softmax for Long-Tailed Visual Recognition", NeurIPS 2020. Cubuk et
      al., "AutoAugment: Learning Augmentation Strategies from Data", CVPR 2019.
    """
    _resnet32_recipe(config)
    config.batch_size = 512
    num_classes = 100 if config.data.name == "cifar100" else 10
    counts = exponential_profile(50_000 // num_classes, num_classes, config.data.imbalance_factor)
    steps_per_epoch = sum(counts) // config.batch_size
    config.epochs = round(13_000 / steps_per_epoch)
    config.augment.policy, config.augment.cutout = "autoaugment_cifar", 16
    config.method.name = "balanced_softmax"
    optimizer = config.optimizer
    optimizer.weight_decay, optimizer.warmup_epochs = 5e-4, 800 / steps_per_epoch
    optimizer.schedule, optimizer.per_epoch = "cosine", False


def crt_recipe(config: Config) -> None:
    """Classifier re-training (cRT) for CIFAR, the second stage after a run of any recipe.

    The classifier is drawn anew and trained for ten epochs on class-aware draws, by plain
    cross-entropy and a cosine from the rate of the first stage; the network stays as the first run
    has left it, batch statistics too. `config.init.run` has to name that run, and `config.model`
    and `config.data` to be its own. The authors' code has no CIFAR: batch size, rate and weight
    decay are those of `standard_recipe`. Its sampler draws four images of a class in turn, and this
    one draws each for itself.

    Reference:
      Kang, Xie, Rohrbach, Yan, Gordo, Feng and Kalantidis, "Decoupling Representation and
      Classifier for Long-Tailed Recognition", ICLR 2020.
    """
    _resnet32_recipe(config)
    config.epochs, config.data.sampler = 10, "class_aware"
    config.init.parts, config.optimizer.train_only = "backbone", "head"
    config.optimizer.warmup_epochs, config.optimizer.schedule = 0.0, "cosine"
    config.optimizer.per_epoch = False


def lws_recipe(config: Config) -> None:
    """Learnable weight scaling (LWS) for CIFAR, another second stage than `crt_recipe`.

    Network and classifier stay as the first run has left them; one scale of each class's weight is
    learned, from 1 on, all else being as in `crt_recipe`.

    Reference:
      Kang, Xie, Rohrbach, Yan, Gordo, Feng and Kalantidis, "Decoupling Representation and
      Classifier for Long-Tailed Recognition", ICLR 2020.
    """
    crt_recipe(config)
    config.init.parts, config.optimizer.train_only = "all", "scales"


def adamw_recipe(config: Config) -> None:
    """What networks without batch normalisation, and classifiers alone, are usually trained with.

    AdamW with rate 1e-3 and decay 0.05, after a warm-up over a tenth of the epochs.

    Reference:
      Touvron et al., "Training data-efficient image transformers and distillation through
      attention", ICML 2021. Liu et al., "A ConvNet for the 2020s", CVPR 2022.
    """
    optimizer = config.optimizer
    optimizer.name = "adamw"
    optimizer.learning_rate, optimizer.weight_decay = 1e-3, 0.05
    optimizer.warmup_epochs = config.epochs / 10


CIFAR_RECIPES = {
    "standard": standard_recipe,
    "glmc": glmc_recipe,
    "spa": spa_recipe,
    "balms": balms_recipe,
    "crt": crt_recipe,
    "lws": lws_recipe,
}
"""The recipes for CIFAR by name."""


def _small_recipe(config: Config) -> None:
    config.epochs, config.batch_size = 10, 128
    config.augment.crop_padding, config.augment.flip = 4, True
    config.model.small.widths, config.model.small.stem_stride = (64, 128), 4
    config.optimizer.warmup_epochs = 1.0


def _cifar_lt(
    name: str, imbalance_factor: float, recipe: str, recipes: Mapping[str, Callable[[Config], None]]
) -> Config:
    _check_choice("recipe", recipe, recipes)
    config = default_config()
    config.eval_batch_size = 1000
    config.data.name, config.data.imbalance_factor = name, imbalance_factor
    recipes[recipe](config)
    return config


def _use_glmc(config: Config, *strengths: float) -> None:
    """GLMC with the strengths that `_GLMC` has; its code has no forward of unmixed images."""
    config.method.name, config.spa.means_from = "glmc", "training"
    names = ("sampler_power", "label_power", "similarity_weight")
    config.method.glmc.update(dict(zip(names, strengths, strict=True)))


def _use_vit(config: Config, patch_size: int) -> None:
    """A vision transformer of two layers, with the recipe that suits it."""
    config.model.name, vit = "vit", config.model.vit
    vit.patch_size, vit.width, vit.layers = patch_size, 64, 2
    adamw_recipe(config)


def _stream_natural(config: Config, name: str) -> None:
    """Images of a TFDS data set as many as there are, decoded by a large machine."""
    config.data.name, config.data.profile, config.data.feed = name, "natural", "stream"
    config.augment.flip = True
    config.model.dtype = "bfloat16"
    config.loader.workers = 16


def _check_choice(name: str, value: str, choices: Collection[str]) -> None:
    if value not in choices:
        raise InputError(f"{name} must be one of {', '.join(choices)}: got {value!r}.")
