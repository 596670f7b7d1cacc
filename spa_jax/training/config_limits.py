"""What the fields of a configuration may be: names to choose from, and ranges of numbers."""

from spa_jax.data.augment.one_image import POLICIES
from spa_jax.data.splits.profiles import CLASS_ORDERS, PROFILES
from spa_jax.data.splits.protocols import PROTOCOLS
from spa_jax.data.splits.samplers import SAMPLERS
from spa_jax.data.splits.shot_groups import SHOT_GROUP_RULES
from spa_jax.data.splits.splitting import NATURAL
from spa_jax.longtail.registry import METHODS
from spa_jax.models.convnext import STAGES
from spa_jax.models.imagenet_resnet import ARCHITECTURES
from spa_jax.models.vision_transformer import SIZES

SPA_METHODS = ("none", "reg", "slerp", "proj")
PARALLEL_MODES = ("jit", "pmap", "shard_map")
OPTIMIZERS = ("sgd", "adamw")
SCHEDULES = ("cosine", "steps", "spa_released")
BACKBONES = ("small", "vit", "convnext", "cifar_resnet", *ARCHITECTURES, *SIZES, *STAGES)
FEEDS = ("auto", "device", "stream")
MIXES = ("none", "mixup", "cutmix")

CHOICES = (
    ("parallel", PARALLEL_MODES),
    ("data.profile", (*PROFILES, NATURAL)),
    ("data.protocol", tuple(PROTOCOLS)),
    ("data.class_order", CLASS_ORDERS),
    ("data.shot_groups", tuple(SHOT_GROUP_RULES)),
    ("data.sampler", SAMPLERS),
    ("data.feed", FEEDS),
    ("augment.policy", POLICIES),
    ("augment.mix", MIXES),
    ("model.name", BACKBONES),
    ("model.dtype", ("float32", "bfloat16")),
    ("model.batch_norm", ("global", "per_device")),
    ("method.name", tuple(METHODS)),
    ("method.arb_counts", ("batch", "global")),
    ("optimizer.name", OPTIMIZERS),
    ("optimizer.schedule", SCHEDULES),
    ("spa.method", SPA_METHODS),
    ("spa.radial", ("keep", "scale")),
    ("spa.acts_on", ("gradients", "updates")),
    ("spa.means_from", ("auto", "clean", "training")),
)

RANGES = (
    ("seed", 0, 2**31 - 1),
    ("epochs", 1, 1e6),
    ("batch_size", 1, 1e7),
    ("eval_batch_size", 1, 1e7),
    ("data.n_max", 0, 1e9),
    ("data.imbalance_factor", 1, 1e9),
    ("data.class_order_seed", 0, 2**31 - 1),
    ("data.split_seed", -1, 2**31 - 1),
    ("data.sampler_power", -10, 10),
    ("augment.crop_padding", 0, 1e3),
    ("augment.randaugment_layers", 1, 100),
    ("augment.randaugment_magnitude", 0, 30),
    ("augment.cutout", 0, 1e4),
    ("augment.mix_alpha", 1e-3, 1e3),
    ("augment.image_size", 1, 1e4),
    ("augment.resize", 1, 1e4),
    ("augment.min_area", 1e-3, 1),
    ("augment.color_jitter", 0, 1e3),
    ("augment.grey", 0, 1),
    ("augment.blur", 0, 1),
    ("model.depth", 1, 1e4),
    ("model.width_factor", 1, 1e3),
    ("loader.workers", 0, 1e3),
    ("model.blocks", 1, 1e3),
    ("model.stem_stride", 1, 1e3),
    ("model.heads", 1, 1e3),
    ("method.tau", 0, 1e3),
    ("method.ldam_margin", 0, 1e3),
    ("method.ldam_scale", 1e-3, 1e6),
    ("method.drw_beta", 0, 1),
    ("method.drw_epoch", 0, 1e6),
    ("method.glmc_label_power", -10, 10),
    ("method.glmc_sampler_power", -10, 10),
    ("method.glmc_similarity_weight", 0, 1e6),
    ("method.glmc_projection_dim", 1, 1e6),
    ("optimizer.learning_rate", 0, 1e6),
    ("optimizer.warmup_epochs", 0, 1e6),
    ("optimizer.step_factor", 0, 1),
    ("optimizer.momentum", 0, 1),
    ("optimizer.weight_decay", 0, 1e6),
    ("spa.gamma", 0, 1),
    ("spa.weight", 0, 1e6),
    ("spa.alpha_max", 0, 1),
    ("spa.threshold", -1, 1),
    ("spa.decay", 0, 1),
    ("checkpoint.every_epochs", 0, 1e6),
    ("checkpoint.keep", 1, 1e6),
    ("logging.every_steps", 0, 1e9),
)
