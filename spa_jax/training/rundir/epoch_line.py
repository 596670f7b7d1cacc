"""What a line of `metrics.jsonl` says of an epoch."""

from collections.abc import Mapping
from typing import Any

from spa_jax.training.collapse_meter import collapse_measures
from spa_jax.training.metrics import Totals, accuracy, mean_class_accuracy, number


def validation_line(report: Mapping[str, Any]) -> dict[str, float]:
    """What an epoch's line says of the validation part: nothing if there is none.

    Its accuracy is the mean over the classes it has, because it is as long-tailed as the training
    set and the test set is not.
    """
    if "validation_count" not in report:
        return {}
    correct, count = report["validation_correct"], report["validation_count"]
    return {"validation_accuracy": mean_class_accuracy(correct, count)}


def epoch_line(epoch: int, step: int, totals: Totals, report: Mapping[str, Any]) -> dict[str, Any]:
    """What `metrics.jsonl` says of an epoch (counted from 0), but for the time it took.

    Args:
      epoch: the epoch.
      step: steps completed after it.
      totals: fetched totals of it.
      report: the fetched result of :meth:`spa_jax.training.program.Program.evaluate` after it.
    """
    return {
        "epoch": epoch + 1,
        "step": step,
        "train_loss": number(totals.loss / totals.steps),
        "train_accuracy": number(totals.accuracy / totals.steps),
        "test_loss": number(report["loss"]),
        "test_accuracy": accuracy(report["correct"], report["count"]),
        **validation_line(report),
        **collapse_line(report),
        "mean_cosine": number(report["mean_cosine"]),
        "min_cosine": number(report["min_cosine"]),
        "test_mean_cosine": number(report["test_mean_cosine"]),
        "test_min_cosine": number(report["test_min_cosine"]),
    }


def collapse_line(report: Mapping[str, Any]) -> dict[str, Any]:
    """What an epoch's line says of neural collapse: nothing if it was not measured."""
    if "collapse" not in report:
        return {}
    parts = collapse_measures(report["collapse"])
    return {
        "train_mean_cosine": number(parts["train"]["mean_cosine"]),
        "collapse": {
            part: {name: number(value) for name, value in values.items() if name != "mean_cosine"}
            for part, values in parts.items()
        },
    }
