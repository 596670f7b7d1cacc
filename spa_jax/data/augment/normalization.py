"""What is subtracted from pixel values and what they are divided by, as networks are published."""

from collections.abc import Mapping
from types import MappingProxyType

OF_DATA_SET, IMAGENET = "dataset", "imagenet"

NORMALIZATIONS: Mapping[str, tuple[tuple[float, ...], tuple[float, ...]]] = MappingProxyType(
    {
        IMAGENET: ((123.675, 116.28, 103.53), (58.395, 57.12, 57.375)),
        "half": ((127.5,), (127.5,)),
        "efficientnet_lite": ((127.0,), (128.0,)),
    }
)
"""Mean and deviation of each channel, of values from 0 to 255; one number is for all of them.

`imagenet` is torchvision's and that of most of timm's networks, `half` that of timm's vision
transformers and of networks that it has from TensorFlow.
"""
