"""The record of a run: last and best accuracy, shot groups, nulls where there is no value."""

import json

import jax
import numpy as np
import pytest

from spa_jax.data.dataset import LabelledImages, LongTailedDataset
from spa_jax.data.sources.opening import load_data
from spa_jax.training.config import resolve
from spa_jax.training.devices import Layout
from spa_jax.training.rundir.summary import evaluation_line, make_summary
from tests.training.small import small_config

PARAMS = {"head": {"kernel": np.ones((8, 10), np.float32), "bias": np.zeros(10, np.float32)}}
LINES = [
    {"epoch": epoch, "step": 5 * epoch, "test_accuracy": accuracy, "seconds": 0.5}
    for epoch, accuracy in enumerate([0.2, 0.9, 0.4, 0.9, 0.55], start=1)
]


CONFIG = small_config(seed=7, spa__method="reg")


@pytest.fixture(scope="module")
def digits():
    return load_data(resolve(CONFIG).data)


def two_classes(train_counts):
    """Two classes of tiny images."""
    labels = np.repeat(np.arange(2, dtype=np.int32), train_counts)
    images = np.arange(len(labels) * 16, dtype=np.uint8).reshape(-1, 4, 4, 1)
    examples = LabelledImages(images, labels)
    split = {"checksum": "c", "class_counts": list(train_counts)}
    return LongTailedDataset("two", examples, examples, ("a", "b"), split)


def fake_report(num_classes=10, **changes):
    """As fetched from the device: class c has 40 test images, 4 * c of them classified right."""
    report = {
        "correct": 4 * np.arange(num_classes, dtype=np.float32),
        "count": np.full(num_classes, 40, np.float32),
        "cosines": np.linspace(0.0, 0.9, num_classes, dtype=np.float32)[None],
        "test_cosines": np.linspace(-0.5, 0.5, num_classes, dtype=np.float32)[None],
        "mean_cosine": np.float32(0.5),
        "min_cosine": np.float32(0.25),
        "test_mean_cosine": np.float32(0.125),
        "test_min_cosine": np.float32(-0.5),
        "heads": {"head/kernel": {"mean_cosine": np.float32(0.5), "min_cosine": np.float32("nan")}},
    }
    return report | changes


def summary_of(data, report=None, params=PARAMS, lines=LINES):
    """A summary that has been through JSON, which has no NaN."""
    report = fake_report() if report is None else report
    layout = Layout("jit", jax.devices()[:1])
    summary = make_summary(CONFIG, data, layout, report, params, lines)
    assert json.loads(json.dumps(summary, allow_nan=False)) == summary
    return summary


def test_last_and_best_accuracy_are_both_recorded(digits):
    accuracy = summary_of(digits)["test_accuracy"]
    assert accuracy["last"] == 0.55
    assert accuracy["best"] == 0.9
    assert accuracy["best_epoch"] == 2  # the first of equals


def test_accuracy_is_recorded_by_class_and_by_shot_group(digits):
    summary = summary_of(digits)
    assert summary["per_class_accuracy"] == pytest.approx([0.1 * c for c in range(10)])
    groups = summary["shot_groups"]
    assert groups["many"] == pytest.approx(0.1)
    assert groups["medium"] == pytest.approx(0.45)
    assert groups["few"] == pytest.approx(0.8)
    assert groups["classes"] == {"many": [0, 1, 2], "medium": [3, 4, 5, 6], "few": [7, 8, 9]}
    assert groups["rule"] == "the 3 largest classes / the rest / the 3 smallest, by training images"


def test_shot_groups_weigh_test_images_alike(digits):
    count = np.array([10, 20, 70, *[40] * 7], np.float32)
    correct = np.array([10, 0, 35, *[0] * 7], np.float32)
    summary = summary_of(digits, fake_report(correct=correct, count=count))
    assert summary["shot_groups"]["many"] == pytest.approx(0.45)
    over_classes = summary["balanced_shot_groups"]
    assert over_classes == {"many": pytest.approx(0.5), "medium": 0.0, "few": 0.0}
    assert summary_of(digits)["balanced_shot_groups"] is None
    unequal = fake_report(2, count=np.array([40, 0], np.float32))
    groups = summary_of(two_classes((6, 2)), unequal)["balanced_shot_groups"]
    assert groups == {"many": 0.0, "medium": None, "few": None}


@pytest.mark.parametrize("train_counts", [(6, 2), (2, 6), (4, 4)])
def test_an_empty_shot_group_is_null(train_counts):
    summary = summary_of(two_classes(train_counts), fake_report(2))
    groups = summary["shot_groups"]
    assert groups["medium"] is None
    assert groups["classes"]["medium"] == []
    larger = int(train_counts[1] > train_counts[0])
    assert groups["many"] == pytest.approx(0.1 * larger)
    assert groups["few"] == pytest.approx(0.1 * (1 - larger))
    assert summary["class_counts"] == list(train_counts)


def test_a_class_without_test_images_has_no_accuracy(digits):
    count = np.array([0, *[40] * 9], np.float32)
    summary = summary_of(digits, fake_report(count=count))
    assert summary["per_class_accuracy"][0] is None
    assert summary["per_class_accuracy"][1] == pytest.approx(0.1)
    assert summary["shot_groups"]["many"] == pytest.approx(12 / 80)


def test_accuracy_over_classes_is_recorded_where_the_test_set_is_not_balanced(digits):
    """40, 20, 5 and no images, of which the commonest are classified right most often."""
    report = fake_report(count=np.array([40, 20, 5, 0], np.float32), loss=np.float32(1.0))
    report["correct"] = np.array([40, 10, 1, 0], np.float32)
    line = evaluation_line(report)
    assert line["test_accuracy"] == pytest.approx(51 / 65)
    assert line["test_balanced_accuracy"] == pytest.approx((1 + 0.5 + 0.2) / 3)
    assert "test_balanced_accuracy" not in evaluation_line(fake_report(loss=np.float32(1.0)))
    count = np.array([0, 20, *[40] * 8], np.float32)
    lines = [
        line | {"test_balanced_accuracy": accuracy}
        for line, accuracy in zip(LINES, [0.1, 0.3, 0.8, 0.2, 0.5], strict=True)
    ]
    summary = summary_of(digits, fake_report(count=count), lines=lines)
    assert summary["balanced_accuracy"] == {"last": 0.5, "best": 0.8, "best_epoch": 3}
    assert summary["test_class_counts"] == count.tolist()
    assert summary_of(digits)["balanced_accuracy"] is None


def test_alignment_is_recorded_for_each_of_the_methods_heads(digits):
    heads = summary_of(digits)["heads"]
    assert heads == {"head/kernel": {"mean_cosine": 0.5, "min_cosine": None}}


@pytest.mark.parametrize("field", ["mean_cosine", "min_cosine", "test_mean_cosine"])
def test_a_cosine_that_no_class_has_is_null_and_the_others_stay(digits, field):
    summary = summary_of(digits, fake_report(**{field: np.float32("nan")}))
    assert summary[field] is None
    expected = {"mean_cosine": 0.5, "min_cosine": 0.25, "test_mean_cosine": 0.125}
    del expected[field]
    assert {name: summary[name] for name in expected} == expected


@pytest.mark.parametrize(
    ("reported", "recorded"),
    [("cosines", "per_class_cosine"), ("test_cosines", "per_class_test_cosine")],
)
def test_cosines_are_recorded_by_class_with_null_for_nan(digits, reported, recorded):
    cosines = np.linspace(-1, 1, 10, dtype=np.float32)
    expected = cosines.tolist()
    assert summary_of(digits, fake_report(**{reported: cosines[None]}))[recorded] == expected
    cosines[3], expected[3] = np.nan, None
    assert summary_of(digits, fake_report(**{reported: cosines[None]}))[recorded] == expected


def test_several_heads_have_a_row_of_cosines_each(digits):
    cosines = np.linspace(-1, 1, 20, dtype=np.float32).reshape(2, 10)
    summary = summary_of(digits, fake_report(cosines=cosines, test_cosines=cosines))
    assert summary["per_class_cosine"] == cosines.tolist()
    assert summary["per_class_test_cosine"] == cosines.tolist()


def test_the_record_says_what_was_run(digits):
    summary = summary_of(digits)
    assert summary["seed"] == 7
    assert summary["spa_method"] == "reg"
    assert (summary["epochs"], summary["steps"]) == (5, 25)
    assert summary["wall_time_seconds"] == pytest.approx(2.5)
    assert summary["split"] == digits.split
    assert summary["split_checksum"] == digits.split["checksum"]
    assert summary["content_checksum"] == digits.content_checksum
    assert summary["class_counts"] == [110, 78, 56, 40, 29, 20, 14, 10, 7, 5]
    assert summary["class_names"] == list("0123456789")
    assert summary["versions"]["jax"] == jax.__version__
    assert summary["versions"]["numpy"] == np.__version__
    assert summary["hardware"]["platform"] == jax.devices()[0].platform
    assert summary["hardware"]["devices"] == 1
    assert summary["hardware"]["cpu"]


def test_the_parameters_are_counted_and_their_checksum_sees_every_change(digits):
    def checksum(params):
        return summary_of(digits, params=params)["params_checksum"]

    kernel, bias = PARAMS["head"]["kernel"], PARAMS["head"]["bias"]
    nudged = kernel.copy()
    nudged[-1, -1] = np.nextafter(np.float32(1), np.float32(2))
    assert summary_of(digits)["parameters"] == 90
    assert checksum(PARAMS) == checksum({"head": {"bias": bias + 0, "kernel": kernel + 0}})
    others = [{"kernel": nudged, "bias": bias}, {"kernel": kernel.T, "bias": bias}]
    others += [
        {"kernel": kernel, "bias": bias.astype(np.float16)},
        {"weight": kernel, "bias": bias},
    ]
    assert len({checksum(PARAMS), *(checksum({"head": head}) for head in others)}) == 5
