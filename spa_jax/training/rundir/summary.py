"""What a run says of itself: the line of an epoch in `metrics.jsonl`, and `summary.json`."""

import os
import platform
from collections.abc import Mapping
from importlib.metadata import version
from pathlib import Path
from typing import Any

import jax
import numpy as np
from jaxtyping import PyTree

import spa_jax
from spa_jax.data.dataset import LongTailedDataset
from spa_jax.data.splits.shot_groups import shot_group_rule, shot_groups
from spa_jax.training.config import Config
from spa_jax.training.devices import Layout
from spa_jax.training.evaluation import collapse_measures
from spa_jax.training.metrics import Totals, accuracy, mean_class_accuracy, number
from spa_jax.training.rundir.checkpoints import tree_checksum

TRAIN_FIELDS = (
    *("epoch", "step", "train_loss", "train_accuracy"),
    *("skipped_steps", "images_per_second", "seconds"),
)
"""Of a line of `metrics.jsonl`, those that it has before it is evaluated."""

_COSINES = ("mean_cosine", "min_cosine", "test_mean_cosine", "test_min_cosine")
_PACKAGES = ("jax", "jaxlib", "flax", "optax", "orbax-checkpoint", "numpy", "tensorflow-datasets")


def train_line(epoch: int, step: int, totals: Totals) -> dict[str, Any]:
    """What `metrics.jsonl` says of an epoch before it is evaluated, but for the time it took.

    Args:
      epoch: the epoch, counted from 0.
      step: steps completed after it.
      totals: fetched totals of it.

    Returns:
      A part of a line. Where steps are skipped, it has how many of the run have been so far; the
      means are over the others.
    """
    steps = totals.steps or np.nan  # of an epoch that was skipped nothing is known
    line: dict[str, Any] = {
        "epoch": epoch + 1,
        "step": step,
        "train_loss": number(totals.loss / steps),
        "train_accuracy": number(totals.accuracy / steps),
    }
    if "skipped_steps" in totals.last:
        line["skipped_steps"] = int(totals.last["skipped_steps"])
    return line


def evaluation_line(report: Mapping[str, Any]) -> dict[str, Any]:
    """What `metrics.jsonl` says of the evaluation after an epoch.

    Args:
      report: what :meth:`spa_jax.training.evaluation.Evaluation.evaluate` gave after it, fetched.

    Returns:
      A part of a line. Where the test set has not as many images of each class, it has the mean
      accuracy over the classes that are there too, `test_balanced_accuracy`. The accuracy on a
      validation part, if there is one, is always that mean, because it is as long-tailed as the
      training set.
    """
    line: dict[str, Any] = {
        "test_loss": number(report["loss"]),
        "test_accuracy": accuracy(report["correct"], report["count"]),
    }
    if np.ptp(report["count"]) > 0:
        line["test_balanced_accuracy"] = mean_class_accuracy(report["correct"], report["count"])
    if "validation_count" in report:
        correct, count = report["validation_correct"], report["validation_count"]
        line["validation_accuracy"] = mean_class_accuracy(correct, count)
    if "collapse" in report:
        parts = collapse_measures(report["collapse"])
        line["train_mean_cosine"] = number(parts["train"]["mean_cosine"])
        line["collapse"] = {
            part: {name: number(value) for name, value in values.items() if name != "mean_cosine"}
            for part, values in parts.items()
        }
    return line | {name: number(report[name]) for name in _COSINES}


def make_summary(
    config: Config,
    data: LongTailedDataset,
    layout: Layout,
    report: dict[str, Any],
    params: PyTree,
    lines: list[dict[str, Any]],
    command: str | None = None,
    init: Mapping[str, Any] | None = None,
) -> dict[str, Any]:
    """The summary of a run.

    Args:
      config: the run's configuration.
      data: what it trained and was tested on.
      layout: the devices.
      report: the fetched report after the last epoch.
      params: the fetched parameters.
      lines: the lines of `metrics.jsonl`.
      command: the command line that made the run, if it is known.
      init: the run that it started from; None: from its seed alone.

    Returns:
      A dictionary that JSON can hold; what does not exist (an empty shot group, the cosine of a
      class without a direction) is null.
    """
    counts = data.class_counts
    correct, total = report["correct"], report["count"]
    # Of the whole split: what is held out of a class does not move it to another group.
    sizes, rule = data.split["class_counts"], config.data.shot_groups
    groups = shot_groups(sizes, rule)
    over_classes = {
        name: mean_class_accuracy(correct[labels], total[labels]) if total[labels].any() else None
        for name, labels in groups.items()
    }
    return {
        "test_accuracy": _last_and_best(lines, "test_accuracy"),
        "balanced_accuracy": _last_and_best(lines, "test_balanced_accuracy"),
        "validation_accuracy": _last_and_best(lines, "validation_accuracy"),
        "shot_groups": {
            **{name: accuracy(correct[labels], total[labels]) for name, labels in groups.items()},
            "rule": shot_group_rule(len(counts), rule),
            "classes": groups,
        },
        "balanced_shot_groups": over_classes if np.ptp(total) > 0 else None,
        **{name: number(report[name]) for name in _COSINES},
        "heads": {
            path: {name: number(value) for name, value in values.items()}
            for path, values in report["heads"].items()
        },
        "per_class_accuracy": list(map(accuracy, correct, total)),
        "per_class_cosine": _by_head(report["cosines"]),
        "per_class_test_cosine": _by_head(report["test_cosines"]),
        "class_names": list(data.class_names),
        "class_counts": list(counts),
        "test_class_counts": [int(images) for images in total],
        "split": data.split,
        "split_checksum": data.split["checksum"],
        "content_checksum": data.content_checksum,
        "init": init,
        "params_checksum": tree_checksum(params),
        "parameters": int(sum(np.size(leaf) for leaf in jax.tree.leaves(params))),
        "command": command,
        "seed": config.seed,
        "steps": lines[-1]["step"],
        "epochs": lines[-1]["epoch"],
        "skipped_steps": lines[-1].get("skipped_steps", 0),
        "method": config.method.name,
        "spa_method": config.spa.method,
        "parallel": layout.mode,
        "versions": {
            "python": platform.python_version(),
            "spa_jax": spa_jax.__version__,
            **{package: version(package) for package in _PACKAGES},
        },
        "hardware": hardware(layout),
        "wall_time_seconds": sum(line["seconds"] for line in lines),
    }


def _last_and_best(lines: list[dict[str, Any]], name: str) -> dict[str, Any] | None:
    """An accuracy after the last epoch and after the best; null if it was not measured."""
    if name not in lines[-1]:
        return None
    best = max(lines, key=lambda line: line[name])
    return {"last": lines[-1][name], "best": best[name], "best_epoch": best["epoch"]}


def hardware(layout: Layout) -> dict[str, Any]:
    """The devices of a run and the machine that holds them."""
    device = layout.mesh.devices.flat[0]
    return {
        "platform": device.platform,
        "device_kind": device.device_kind,
        "devices": layout.num_devices,
        "processes": jax.process_count(),
        "machine": platform.machine(),
        "cpu": processor(),
        "cpu_count": os.cpu_count(),
    }


def processor() -> str:
    """The processor's name where Linux tells it, or its kind, as "x86_64"."""
    path = Path("/proc/cpuinfo")
    lines = path.read_text().splitlines() if path.exists() else []
    names = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.machine()


def _by_head(cosines: np.ndarray) -> list[Any]:
    """One list for one head, a list of lists for several; null where there is no value."""
    lists = [[number(cosine) for cosine in head] for head in cosines]
    return lists[0] if len(lists) == 1 else lists
