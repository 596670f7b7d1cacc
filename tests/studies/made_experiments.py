"""Runs for the tests of the studies, with curves that are given."""

import json

import numpy as np

from studies.study import study_tables
from tests.reporting.made_runs import write_run


def write_curves(folder, method, seed, curves=None, **options):
    """A run whose lines hold the given curves, by dotted names."""
    write_run(folder, {"spa.method": method, "seed": seed}, **options)
    summary = json.loads((folder / "summary.json").read_text())
    summary["split"] = {"imbalance_factor": 10.0}
    summary["hardware"] = {"platform": "cpu", "cpu_count": 2}
    (folder / "summary.json").write_text(json.dumps(summary))
    lines = [json.loads(text) for text in (folder / "metrics.jsonl").read_text().splitlines()]
    for path, values in (curves or {}).items():
        *groups, name = path.split(".")
        for entry, value in zip(lines, values, strict=True):
            for group in groups:
                entry = entry[group]
            entry[name] = value
    (folder / "metrics.jsonl").write_text("".join(json.dumps(entry) + "\n" for entry in lines))
    return folder


def write_experiment(root, seeds=(0, 1, 2), methods=("none", "reg"), **options):
    """Runs of some methods and seeds with accuracies and cosines of their own."""
    for m, method in enumerate(methods):
        for seed in seeds:
            rng = np.random.default_rng([m, seed])
            accuracy, cosine = rng.uniform(0.5, 0.9), rng.uniform(0.6, 0.9)
            train = [*np.linspace(0.4, 0.9, 3), 1.0, 0.95, 1.0]
            write_curves(
                root / f"{method}{seed}",
                method,
                seed,
                {"train_accuracy": train},
                accuracy=accuracy,
                test_mean_cosine=cosine,
                per_class_cosine=rng.uniform(0.5, 1, 4).tolist(),
                per_class_test_cosine=rng.uniform(0.5, 1, 4).tolist(),
                **options,
            )
    return root


def tables_of(name, numbers):
    """The tables of a study's numbers, with what a record adds to them."""
    origin = {"title": "Set", "training_images": 85, "epochs": 6, "seeds": {"none": [0, 1]}}
    machine = {"jax": "0", "hardware": {"cpu_count": 2, "platform": "cpu"}}
    data_set = origin | machine | {"split_checksum": "0" * 64} | numbers
    return study_tables({"study": name, "date": "", "data_sets": [data_set]})
