"""Runs for the tests of the report, small and complete, and how to read back its figures."""

import hashlib
import json

import numpy as np

from spa_jax.reporting.finished_runs import read_run
from spa_jax.reporting.grouping import group_runs

CONFIG = {
    "seed": 0,
    "epochs": 6,
    "parallel": "jit",
    "data": {"name": "digits", "imbalance_factor": 20.0},
    "model": {"name": "small", "batch_norm": "global"},
    "method": {"name": "cross_entropy", "ldam_drw": {"margin": 0.5}},
    "optimizer": {"name": "sgd", "learning_rate": 0.1},
    "spa": {
        "method": "none",
        "center": True,
        "classifier": "head/kernel",
        "proj": {"gamma": 0.6, "radial": "keep"},
        "reg": {"weight": 1.0},
        "slerp": {"alpha_max": 0.02, "threshold": 0.95},
    },
    "checkpoint": {"every_epochs": 1, "keep": 2},
    "logging": {"every_steps": 50},
}
COLLAPSE = {
    "nc1": 2.0,
    "nc1_over_c": 0.5,
    "nc1_quotient": 0.7,
    "cdnv": 0.3,
    "nc2_equinorm_means": 0.2,
    "nc2_equinorm_weights": 0.25,
    "nc2_equiangular_means": 0.15,
    "nc2_equiangular_weights": 0.12,
    "nc2_etf_means": 0.4,
    "nc2_etf_weights": 0.35,
    "nc3": 0.3,
    "nc4": 0.9,
}


def write_run(
    folder,
    changes=None,
    accuracy=0.8,
    counts=(50, 20, 10, 5),
    names=None,
    epochs=6,
    heads=("head/kernel",),
    collapse=True,
    geometry=True,
    split="",
    **summary,
):
    """Writes a finished run; `changes` are dotted fields of its config, `summary` overrides."""
    config = json.loads(json.dumps(CONFIG))
    for field, value in (changes or {}).items():
        *groups, name = field.split(".")
        place = config
        for group in groups:
            place = place[group]
        place[name] = value
    seed = config["seed"]
    rng = np.random.default_rng([seed, len(counts), len(heads)])
    folder.mkdir(parents=True)
    (folder / "config.json").write_text(json.dumps(config))
    lines = [line(epoch, epochs, accuracy, collapse) for epoch in range(1, epochs + 1)]
    (folder / "metrics.jsonl").write_text("".join(json.dumps(entry) + "\n" for entry in lines))
    num_classes = len(counts)
    cosines = (0.95 - 0.3 * rng.random((len(heads), num_classes))).tolist()
    held_out = [[cosine - 0.1 for cosine in head] for head in cosines]
    content = {
        "test_accuracy": {"last": accuracy, "best": accuracy + 0.01, "best_epoch": 2},
        "shot_groups": {
            "many": accuracy + 0.1,
            "medium": accuracy,
            "few": accuracy - 0.2,
            "rule": "the 1 largest classes / the rest / the 1 smallest, by training images",
            "classes": {
                "many": [0],
                "medium": list(range(1, num_classes - 1)),
                "few": [num_classes - 1],
            },
        },
        "mean_cosine": 0.9,
        "min_cosine": 0.7,
        "test_mean_cosine": 0.8,
        "test_min_cosine": 0.6,
        "per_class_accuracy": np.linspace(1, 0.5, num_classes).tolist(),
        "per_class_cosine": cosines[0] if len(heads) == 1 else cosines,
        "per_class_test_cosine": held_out[0] if len(heads) == 1 else held_out,
        "heads": {head: {} for head in heads},
        "class_names": list(names or (f"class {i}" for i in range(num_classes))),
        "class_counts": list(counts),
        "split_checksum": hashlib.sha256(f"{split}{counts}".encode()).hexdigest(),
        "seed": seed,
        "spa_method": config["spa"]["method"],
        "command": f"python train.py --config=configs/digits_lt.py --workdir={folder.name}",
        "versions": {"python": "3.11.7", "spa_jax": "0.1.0", "jax": "0.10.2"},
        "hardware": {"device_kind": "cpu", "devices": 1, "cpu_count": 2},
        "wall_time_seconds": 12.3,
    } | summary
    if geometry:
        dim = 6
        np.savez(
            folder / "geometry.npz",
            weights=rng.normal(size=(len(heads), num_classes, dim)).astype(np.float32),
            heads=np.array(heads),
            train_means=rng.normal(size=(num_classes, dim)).astype(np.float32),
            test_means=rng.normal(size=(num_classes, dim)).astype(np.float32),
        )
    (folder / "summary.json").write_text(json.dumps(content))
    return folder


def line(epoch, epochs, accuracy, collapse):
    """A line of `metrics.jsonl` that comes nearer to `accuracy` and to collapse."""
    share = epoch / epochs
    result = {
        "epoch": epoch,
        "step": 5 * epoch,
        "test_accuracy": accuracy * share,
        "mean_cosine": 0.9 * share,
        "test_mean_cosine": 0.8 * share,
    }
    if collapse:
        part = {name: value / share for name, value in COLLAPSE.items()} | {"nc4": 0.9 * share}
        result["collapse"] = {"train": part, "test": {k: 1.3 * v for k, v in part.items()}}
    return result


def one_group(folder, **options):
    """The groups of one run."""
    return group_runs([read_run(write_run(folder, **options))])


def two_methods(root):
    """Two seeds without alignment and two with SpA-Reg."""
    accuracies = {"none": (0.7, 0.8), "reg": (0.75, 0.95)}
    return group_runs(
        [
            read_run(
                write_run(root / f"{method}{seed}", {"spa.method": method, "seed": seed}, value)
            )
            for method, values in accuracies.items()
            for seed, value in enumerate(values)
        ]
    )


def lines_of(axes):
    """The curves of a panel by their labels."""
    return {line.get_label(): line for line in axes.get_lines()}


def titles(drawing):
    """The titles of its panels."""
    found = [axes.get_title(loc="left").replace("\n", " ") for axes in drawing.figure.axes]
    return [title for title in found if title]
