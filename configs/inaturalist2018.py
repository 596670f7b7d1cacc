"""iNaturalist 2018 (437,513 training images of 8,142 species, as they are): ResNet-50, 90 epochs.

Data: `python -m spa_jax.data.prepare i_naturalist2018`; its validation images are the test set.
Paper: Wang, Gao and Xie, AAAI 2026, has none of it; data of Van Horn et al., CVPR 2018; the recipe
is a plain one that follows no published code.
Command: python train.py --config=configs/inaturalist2018.py --workdir=runs/inaturalist2018
Wall time: for accelerators; not measured yet. Expected figure: none at hand.
Status: not run yet.
"""

from spa_jax.training.config import Config
from spa_jax.training.recipes import inaturalist2018


def get_config() -> Config:
    """ResNet-50, batch 512, cosine from 0.2 after five epochs of warm-up."""
    return inaturalist2018()
