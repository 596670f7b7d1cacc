"""Records two steps of GLMC with SpA-Proj in PyTorch, for the test of our step to compare with.

python -m benchmarks.peers.record_glmc        (from the repository's root; needs .[peers])

The equations are those of the papers and of SpA's released code, in float64; the second step has
momentum in it. The record holds what both sides start from, mixed images included, but for the
backbone, which tests/models/peer_weights.py makes from names. Every result has one row a step.
Images are drawn until no input of a ReLU is near zero: rounding to float32 might move it to the
other side, and that alone changes gradients by some thousandths. One thing differs from the
released code, which starts all class means at zero: here every class has been seen before.
"""

import itertools
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import torch
from torch.nn import functional

from benchmarks.peers.glmc import (
    DIM,
    NUM_CLASSES,
    SETTING,
    GlmcNetwork,
    losses,
    projected_gradient,
    updated_means,
)
from benchmarks.peers.record_backbones import fill
from tests.models.peer_weights import images, peer_tensor, uniform

RECORD = Path("tests/training/recorded/glmc_step.npz")
STEPS = 2
NEAR_ZERO = 3e-5
SIDE = 8
CENTRE = (6, 2)
"""Row and column of the middle of CutMix's box, which leaves the image below and on the left."""
BACKBONE_PARAMETERS = ("conv1.weight", "bn1.weight", "bn1.bias")
"""What is recorded of the backbone's gradient in full: it comes through all layers."""


def draw_images(draw: int) -> dict[str, np.ndarray]:
    """The first view of a batch, its mixup with a second batch, and CutMix of further views."""
    first, second, partner, second_partner = (
        images(f"GLMC, draw {draw}, {view}", len(SETTING.labels), 2 * SIDE)[:, ::2, ::2]
        for view in ("a 1", "a 2", "b 1", "b 2")
    )
    half = math.ceil(SIDE * math.sqrt(1 - SETTING.share)) // 2
    rows, columns = (slice(max(middle - half, 0), middle + half) for middle in CENTRE)
    local_view = second.copy()
    local_view[:, rows, columns] = second_partner[:, rows, columns]
    global_view = SETTING.share * first + (1 - SETTING.share) * partner
    return {"clean": first, "global": global_view.astype(np.float32), "local": local_view}


def draw_start() -> dict[str, np.ndarray]:
    """Class means of earlier steps, and the parameters of the heads as PyTorch lays them out."""
    start = {"means": uniform("GLMC, means", (NUM_CLASSES, DIM), 0.0, 2.0)}
    for name, parameter in _recorded_network().named_parameters():
        if not name.startswith("backbone."):
            bound = math.sqrt((6 if parameter.ndim == 2 else 1) / parameter.shape[-1])
            start[name] = uniform(f"GLMC, {name}", tuple(parameter.shape), -bound, bound)
    return start


def _recorded_network() -> GlmcNetwork:
    return GlmcNetwork(SETTING.depth, 1, SETTING.projection_dim)


def build_network(start: Mapping[str, np.ndarray]) -> GlmcNetwork:
    """The network in training mode and float64, filled with what is recorded or named."""

    def tensor(key: str, shape: tuple[int, ...]) -> np.ndarray:
        return start[key] if key in start else peer_tensor(key.removeprefix("backbone."), shape)

    network = _recorded_network()
    fill(network, tensor)
    return network.train()


def mixed_targets() -> torch.Tensor:
    """Of the recorded batch and its partners."""
    own, partner = (
        functional.one_hot(torch.tensor(labels), NUM_CLASSES).double()
        for labels in (SETTING.labels, SETTING.partner_labels)
    )
    return SETTING.share * own + (1 - SETTING.share) * partner


def take_step(
    network: GlmcNetwork,
    optimizer: torch.optim.Optimizer,
    views: Mapping[str, torch.Tensor],
    means: torch.Tensor,
) -> dict[str, torch.Tensor]:
    """One step, and what it computed on the way; three forward passes, each on its own."""
    with torch.no_grad():
        means = updated_means(means, network.backbone(views["clean"]), torch.tensor(SETTING.labels))
    parts = losses(network(views["global"]), network(views["local"]), mixed_targets())
    optimizer.zero_grad()
    parts["total"].backward()
    before = {name: p.detach().clone() for name, p in network.named_parameters()}
    gradients = {n: p.grad.clone() for n, p in network.named_parameters() if p.grad is not None}
    norms = torch.stack([gradient.norm() for gradient in gradients.values()])
    weight = network.fc.weight
    weight.grad = projected_gradient(weight.detach(), gradients["fc.weight"], means)
    results = {"edited.fc.weight": weight.grad.clone(), "gradient_norm": norms.norm()}
    optimizer.step()
    for key, parameter in network.named_parameters():
        name = key.removeprefix("backbone.")
        if name == key or name in BACKBONE_PARAMETERS:
            results[f"gradient.{name}"] = gradients[key]
            results[f"change.{name}"] = parameter.detach() - before[key]
    statistics = {
        key: buffer.clone()
        for key, buffer in network.backbone.named_buffers()
        if not key.endswith("num_batches_tracked")
    }
    return {"new_means": means, **parts, **results, **statistics}


def take_steps(draw: int) -> tuple[dict[str, Any], float]:
    """The record for a draw of images, and how near to zero an input of a ReLU came."""
    views, start = draw_images(draw), draw_start()
    network = build_network(start)
    optimizer = torch.optim.SGD(
        network.parameters(),
        lr=SETTING.learning_rate,
        momentum=SETTING.momentum,
        weight_decay=SETTING.weight_decay,
    )
    tensors = {
        name: torch.from_numpy(view).permute(0, 3, 1, 2).double() for name, view in views.items()
    }
    means, steps, nearest, relu = torch.from_numpy(start["means"]).double(), [], [], torch.relu

    def watched(x: torch.Tensor) -> torch.Tensor:
        if torch.is_grad_enabled():
            nearest.append(x.detach().abs().min().item())
        return relu(x)

    with mock.patch.object(torch, "relu", watched):
        for _ in range(STEPS):
            results = take_step(network, optimizer, tensors, means)
            means = results["new_means"]
            steps.append({name: value.detach().float().numpy() for name, value in results.items()})
    record: dict[str, Any] = {**SETTING._asdict(), **views, **start}
    record |= {name: np.stack([step[name] for step in steps]) for name in steps[0]}
    return record, min(nearest)


def main() -> None:
    """Writes the record of the first images that will do."""
    records = map(take_steps, itertools.count())
    record = next(record for record, nearest in records if nearest > NEAR_ZERO)
    RECORD.parent.mkdir(exist_ok=True)
    np.savez_compressed(RECORD, **record)
    print(f"{RECORD.name}: {RECORD.stat().st_size} bytes, total loss {record['total']}")


if __name__ == "__main__":
    main()
