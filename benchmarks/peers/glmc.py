"""GLMC with SpA-Proj in PyTorch, by the equations of the papers and of SpA's released code."""

from typing import NamedTuple

import torch
from torch import nn
from torch.nn import functional

from benchmarks.peers.cifar_resnet import CifarResNet

DIM = 64


class Setting(NamedTuple):
    """What the record says of the run; `share` is the mixing coefficient."""

    labels: tuple[int, ...] = (0, 0, 3, 1, 9, 0, 4, 1)
    partner_labels: tuple[int, ...] = (2, 0, 5, 1, 1, 7, 0, 3)
    share: float = 0.35
    class_counts: tuple[int, ...] = (5000, 2997, 1796, 1077, 645, 387, 232, 139, 83, 50)
    epoch: int = 120
    epochs: int = 200
    depth: int = 8
    projection_dim: int = 32
    label_power: float = 1.2
    similarity_weight: float = 4.0
    decay: float = 0.9
    gamma: float = 0.6
    learning_rate: float = 0.01
    momentum: float = 0.9
    weight_decay: float = 5e-3


SETTING = Setting()
NUM_CLASSES = len(SETTING.class_counts)


class GlmcNetwork(nn.Module):
    """Images to the outputs o and o_cb of two classifiers, z and p."""

    def __init__(self, depth: int, width_factor: int, projection_dim: int) -> None:
        super().__init__()
        dim = DIM * width_factor
        self.backbone = CifarResNet(depth, width_factor)
        self.fc = nn.Linear(dim, NUM_CLASSES)
        self.fc_cb = nn.Linear(dim, NUM_CLASSES)
        self.projector = nn.Linear(dim, projection_dim)
        self.predictor = nn.Linear(projection_dim, projection_dim)

    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, ...]:
        """Images `(B, 3, H, W)` to `(B, C)` twice and `(B, projection_dim)` twice."""
        features = self.backbone(x)
        projected = self.projector(features)
        return self.fc(features), self.fc_cb(features), projected, self.predictor(projected)


def updated_means(
    means: torch.Tensor, features: torch.Tensor, labels: torch.Tensor
) -> torch.Tensor:
    """Moves the means of the classes in the batch towards their mean feature."""
    means = means.clone()
    for label in set(labels.tolist()):
        batch_mean = features[labels == label].mean(dim=0)
        means[label] = SETTING.decay * means[label] + (1 - SETTING.decay) * batch_mean
    return means


def losses(
    global_view: tuple[torch.Tensor, ...],
    local_view: tuple[torch.Tensor, ...],
    targets: torch.Tensor,
    setting: Setting = SETTING,
) -> dict[str, torch.Tensor]:
    """L_b, L_r, L_c and their weighted sum, for targets `(B, C)` and the rest of a setting."""
    inverse = torch.tensor(setting.class_counts).to(targets.dtype) ** -setting.label_power
    weighted_targets = targets * NUM_CLASSES * inverse / inverse.sum()
    logits_g, logits_cb_g, projected_g, predicted_g = global_view
    logits_l, logits_cb_l, projected_l, predicted_l = local_view
    plain = cross_entropy(logits_g, targets) + cross_entropy(logits_l, targets)
    rebalanced = cross_entropy(logits_cb_g, weighted_targets)
    rebalanced = rebalanced + cross_entropy(logits_cb_l, weighted_targets)
    similarity = -(
        functional.cosine_similarity(predicted_g, projected_l.detach()).mean()
        + functional.cosine_similarity(predicted_l, projected_g.detach()).mean()
    )
    alpha = 1 - (setting.epoch / setting.epochs) ** 2
    total = alpha * plain + (1 - alpha) * rebalanced + setting.similarity_weight * similarity
    return {"plain": plain, "rebalanced": rebalanced, "similarity": similarity, "total": total}


def cross_entropy(logits: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
    """Mean over the batch; targets are weights of classes, of any sum."""
    return -(targets * functional.log_softmax(logits, dim=1)).sum(dim=1).mean()


def projected_gradient(
    weight: torch.Tensor, gradient: torch.Tensor, means: torch.Tensor
) -> torch.Tensor:
    """SpA-Proj as released: gamma also scales the part along the weight."""
    gamma, edited = SETTING.gamma, []
    for w, g, mean in zip(weight, gradient, means - means.mean(dim=0), strict=True):
        w, mean = w / w.norm(), mean / mean.norm()
        tangent = g - (g @ w) * w
        towards = mean - (mean @ w) * w
        towards = towards / towards.norm().clamp(min=1e-8)
        tangent = tangent - (tangent @ towards).clamp(min=0) * towards
        edited.append((1 - gamma) * tangent + gamma * g)
    return torch.stack(edited)
