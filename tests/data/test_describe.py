"""What `python -m spa_jax.data.describe` prints, with and without the data."""

import re
import runpy
import sys

import numpy as np
import pytest

from spa_jax.data.data_options import DataOptions
from spa_jax.data.describe import PUBLISHED_CLASS_SIZES, bar_chart, describe, main
from spa_jax.data.sources.opening import load_data
from spa_jax.data.splits.profiles import exponential_profile
from spa_jax.data.splits.shot_groups import shot_groups
from tests.data.sources.test_idx import tiny_part, write_part
from tests.data.tiny_tfds import tiny_cifar10

# Of 60 images a class, by imbalance factor 10: 60 * 10^(-r/3), rounded down.
COUNTS = [60, 27, 12, 6]


@pytest.fixture
def npz_folder(tmp_path):
    """Four shuffled classes of 60 training images, 5 test images a class."""
    folder = tmp_path / "mine"
    folder.mkdir()
    for part, per_class in (("train", 60), ("test", 5)):
        labels = np.random.default_rng(0).permutation(np.repeat(np.arange(4), per_class))
        images = np.random.default_rng(1).integers(0, 256, (len(labels), 2, 2, 3), np.uint8)
        np.savez(folder / f"{part}.npz", image=images, label=labels)
    return str(folder)


@pytest.fixture
def no_data(tmp_path, monkeypatch):
    """A home without any prepared data set."""
    monkeypatch.delenv("TFDS_DATA_DIR", raising=False)
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    return tmp_path / "home"


def output_of(capsys, *arguments):
    """What the command prints; it has to succeed, and say nothing else."""
    assert main(arguments) == 0
    captured = capsys.readouterr()
    assert captured.err == ""
    return captured.out


def error_of(capsys, *arguments):
    """The one paragraph on standard error of a command that has to fail with status 2."""
    assert main(arguments) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.startswith("error: ")
    assert captured.err.count("\n") == 1
    return captured.err


def split_of(name, folder, **options):
    return load_data(DataOptions(name=name, folder=str(folder), **options)).split


def read_bar(line):
    """Class, count and length of a bar."""
    label, count, bar = re.fullmatch(r"class +(\d+) +(\d+) (#+)", line).groups()
    return int(label), int(count), len(bar)


def parsed(output):
    """The printed first line, counts, group sizes, checksum and bars."""
    first, counts, groups, checksum, empty, *bars = output.rstrip("\n").split("\n")
    assert empty == ""
    return {
        "first": first,
        "counts": [int(n) for n in re.fullmatch(r"counts: +([\d ]+)", counts)[1].split()],
        "groups": {name: int(n) for name, n in re.findall(r"(many|medium|few) (\d+)", groups)},
        "rule": re.fullmatch(r"groups: .*\((.*)\)", groups)[1],
        "checksum": re.fullmatch(r"checksum: (.*)", checksum)[1],
        "bars": [read_bar(bar) for bar in bars],
    }


def test_a_split_of_a_source_is_shown_with_its_checksum(capsys, npz_folder):
    shown = parsed(output_of(capsys, "mine", "--source", npz_folder, "--imbalance_factor", "10"))
    assert shown["first"] == "mine: 4 classes, 105 training images, from 60 down to 6 in a class"
    assert shown["counts"] == COUNTS
    assert shown["groups"] == {"many": 1, "medium": 2, "few": 1}
    assert "1 largest" in shown["rule"]
    split = split_of("mine", npz_folder, imbalance_factor=10)
    assert shown["checksum"] == f"{split['checksum']} (ldam, seed 0, official order)"
    assert [bar[:2] for bar in shown["bars"]] == list(enumerate(COUNTS))


@pytest.mark.parametrize(
    ("arguments", "options"),
    [
        ((), {}),
        (("--protocol=glmc", "--split_seed=3407"), {"protocol": "glmc", "split_seed": 3407}),
        (("--split_seed=5",), {"split_seed": 5}),
        (("--profile=step",), {"profile": "step"}),
        (("--profile=pareto",), {"profile": "pareto"}),
        (("--profile=natural",), {"profile": "natural"}),
        (("--n_max=30",), {"n_max": 30}),
        (("--n-max=30",), {"n_max": 30}),  # as it was spelt before
        (("--class_order=reversed",), {"class_order": "reversed"}),
        (
            ("--class_order=permuted", "--class_order_seed=4"),
            {"class_order": "permuted", "class_order_seed": 4},
        ),
    ],
    ids=str,
)
def test_every_argument_reaches_the_split(capsys, npz_folder, arguments, options):
    arguments = ("mine", f"--source={npz_folder}", "--imbalance_factor=10", *arguments)
    shown = parsed(output_of(capsys, *arguments))
    split = split_of("mine", npz_folder, **{"imbalance_factor": 10.0} | options)
    assert shown["counts"] == split["class_counts"]
    details = f"({split['protocol']}, seed {split['seed']}, official order)"
    assert shown["checksum"] == f"{split['checksum']} {details}"


def test_the_imbalance_factor_is_100_unless_it_is_given(capsys, no_data):
    assert parsed(output_of(capsys, "cifar10"))["counts"][-1] == 50


def test_idx_files_are_shown(capsys, tmp_path):
    write_part(tmp_path, "train", *tiny_part(4, seed=1))
    write_part(tmp_path, "t10k", *tiny_part(2, seed=2))
    arguments = ("fashion_mnist", f"--source={tmp_path}", "--imbalance_factor=4")
    shown = parsed(output_of(capsys, *arguments))
    assert shown["counts"] == [4, 3, 2, 2, 2, 1, 1, 1, 1, 1]
    split = split_of("fashion_mnist", tmp_path, imbalance_factor=4)
    assert shown["checksum"].startswith(split["checksum"])


def test_a_split_list_is_shown(capsys, tmp_path):
    for path in ("train/cat/1.jpg", "train/cat/2.jpg", "train/dog/1.jpg", "val/cat/1.jpg"):
        (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / path).touch()
    listed = tmp_path / "my_list.txt"
    listed.write_text("train/dog/1.jpg 1\ntrain/cat/2.jpg 0\n")
    arguments = ("pets", f"--source={tmp_path}", f"--train_list={listed}")
    shown = parsed(output_of(capsys, *arguments))
    assert shown["counts"] == [1, 1]
    split = split_of("pets", tmp_path, train_list=str(listed))
    assert shown["checksum"].startswith(split["checksum"])
    assert "list" in shown["checksum"]


@pytest.mark.parametrize(
    ("name", "factor", "total", "ends", "groups"),
    [
        ("cifar10", "100", 12_406, (5000, 50), (3, 4, 3)),
        ("cifar10", "200", 11_203, (5000, 25), (3, 4, 3)),
        ("cifar100", "100", 10_847, (500, 5), (35, 35, 30)),
        ("cifar100", "50", 12_608, (500, 10), (41, 41, 18)),
        ("fashion_mnist", "100", 14_886, (6000, 60), (3, 4, 3)),
    ],
)
def test_without_the_data_published_sizes_are_used_and_the_checksum_says_what_it_needs(
    capsys, no_data, name, factor, total, ends, groups
):
    shown = parsed(output_of(capsys, name, f"--imbalance_factor={factor}"))
    assert f"{total} training images" in shown["first"]
    assert sum(shown["counts"]) == total
    assert (shown["counts"][0], shown["counts"][-1]) == ends
    assert tuple(shown["groups"].values()) == groups
    assert "needs the images" in shown["checksum"]
    assert f"python -m spa_jax.data.prepare {name}" in shown["checksum"]
    assert not re.search(r"[0-9a-f]{64}", shown["checksum"])
    assert not no_data.exists()


def test_a_prepared_folder_of_ones_own_may_be_named_by_the_environment(
    capsys, no_data, tmp_path, monkeypatch
):
    tiny_cifar10(tmp_path / "elsewhere")
    assert "needs the images" in output_of(capsys, "cifar10")
    monkeypatch.setenv("TFDS_DATA_DIR", str(tmp_path / "elsewhere"))
    assert "official order" in output_of(capsys, "cifar10", "--imbalance_factor=5")


def test_a_damaged_set_is_refused_and_not_taken_for_one_that_is_not_there(
    capsys, no_data, tmp_path, monkeypatch
):
    tiny_cifar10(tmp_path / "elsewhere")
    for shard in (tmp_path / "elsewhere").rglob("*train*array_record*"):
        shard.write_bytes(shard.read_bytes()[:100])
    monkeypatch.setenv("TFDS_DATA_DIR", str(tmp_path / "elsewhere"))
    assert main(["cifar10"]) == 2
    assert "needs the images" not in capsys.readouterr().out


def test_options_count_without_the_data_too(capsys, no_data):
    arguments = ("--class_order=reversed", "--n_max=100", "--imbalance_factor=10")
    shown = parsed(output_of(capsys, "cifar10", *arguments))
    assert shown["counts"] == list(exponential_profile(100, 10, 10))[::-1]
    shown = parsed(output_of(capsys, "cifar100", "--shot_groups=mislas"))
    assert shown["groups"] == {"many": 36, "medium": 35, "few": 29}
    assert "36" in shown["rule"]
    shown = parsed(output_of(capsys, "cifar100", "--shot_groups=glmc"))
    assert shown["groups"] == {"many": 35, "medium": 34, "few": 31}


def test_published_sizes_are_those_of_the_papers():
    totals = {name: sum(sizes) for name, sizes in PUBLISHED_CLASS_SIZES.items()}
    assert totals == {"cifar10": 50_000, "cifar100": 50_000, "fashion_mnist": 60_000}
    classes = {name: len(sizes) for name, sizes in PUBLISHED_CLASS_SIZES.items()}
    assert classes == {"cifar10": 10, "cifar100": 100, "fashion_mnist": 10}


def test_the_groups_that_are_counted_are_those_of_training(capsys, npz_folder):
    shown = parsed(output_of(capsys, "mine", "--source", npz_folder, "--imbalance_factor", "10"))
    expected = {name: len(labels) for name, labels in shot_groups(COUNTS).items()}
    assert shown["groups"] == expected


def bars_of(counts):
    return [read_bar(line) for line in bar_chart(counts)]


def test_bars_are_as_long_as_their_class_is_large():
    bars = bars_of([5, 80, 40, 20])
    assert [bar[:2] for bar in bars] == [(1, 80), (2, 40), (3, 20), (0, 5)]
    lengths = [bar[2] for bar in bars]
    assert lengths[0] == max(lengths)
    np.testing.assert_allclose(np.array(lengths) / lengths[0], [1, 1 / 2, 1 / 4, 1 / 16], atol=0.02)


def test_the_smallest_class_has_a_bar_too():
    assert bars_of([100_000, 1])[1] == (1, 1, 1)


def test_classes_of_one_size_stand_by_label_with_equal_bars():
    bars = bars_of([7] * 5)
    assert [bar[0] for bar in bars] == [0, 1, 2, 3, 4]
    assert len({bar[2] for bar in bars}) == 1


@pytest.mark.parametrize("num_classes", [20, 21, 100, 1000])
def test_of_many_classes_twenty_are_shown_from_the_largest_to_the_smallest(num_classes):
    counts = np.random.default_rng(0).permutation(np.arange(1, num_classes + 1)).tolist()
    bars = bars_of(counts)
    assert len(bars) == 20
    assert (bars[0][1], bars[-1][1]) == (num_classes, 1)
    assert all(counts[label] == count for label, count, _ in bars)
    shown = [count for _, count, _ in bars]
    steps = -np.diff(shown)
    assert steps.min() >= 1
    assert steps.max() - steps.min() <= 1


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (("nosuchdataset",), ("nosuchdataset",)),
        (("cifar11",), ("cifar11", "did you mean cifar1")),
        (("mnist",), ("mnist is not prepared", "python -m spa_jax.data.prepare mnist")),
        (("cifar10", "--source=no/such/folder"), ("no/such/folder", "no folder")),
        (
            ("cifar10", "--imbalance_factor=5001"),
            ("class 9 of 10 without an image", "largest that works is 5000"),
        ),
        (
            ("cifar10", "--imbalance_factor=0.5"),
            ("--imbalance_factor must be at least 1, got 0.5",),
        ),
        (("cifar10", "--n_max=-3"), ("--n_max must be at least 0, got -3",)),
        (("cifar10", "--train_list=list.txt"), ("cifar10 is not prepared",)),
    ],
    ids=str,
)
def test_wrong_arguments_get_one_paragraph_and_status_2(capsys, no_data, arguments, expected):
    message = error_of(capsys, *arguments)
    for part in expected:
        assert part in message


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (("--imbalance_factor=61",), ("class 3 of 4", "largest that works is 60")),
        (
            ("--n_max=70", "--imbalance_factor=1"),
            ("4 of the classes have fewer", "class 0 has 60 of 70", "Lower --n_max"),
        ),
        (("--imbalance_factor=10", "--shot_groups=mislas"), ("10, 100 and 1000", "not for 4")),
        (("--train_list=no_list.txt",), ("no_list.txt", "cannot be read")),
    ],
    ids=str,
)
def test_what_does_not_fit_a_source_gets_one_paragraph_and_status_2(
    capsys, npz_folder, arguments, expected
):
    message = error_of(capsys, "mine", f"--source={npz_folder}", *arguments)
    for part in expected:
        assert part in message


def test_a_published_set_that_is_broken_in_its_folder_is_not_replaced_by_published_sizes(
    capsys, tmp_path
):
    (tmp_path / "train.npz").write_bytes(b"no archive")
    assert "train.npz" in error_of(capsys, "cifar10", f"--source={tmp_path}")


@pytest.mark.parametrize(
    "argument",
    [
        "--profile=linear",
        "--protocol=oltr",
        "--class_order=up",
        "--shot_groups=halves",
        "--n_max=x",
    ],
)
def test_an_unknown_choice_stops_with_status_2(capsys, argument):
    with pytest.raises(SystemExit) as stopped:
        main(["cifar10", argument])
    assert stopped.value.code == 2
    assert argument.split("=")[0] in capsys.readouterr().err


def test_the_text_is_that_of_the_function(capsys, npz_folder):
    printed = output_of(capsys, "mine", f"--source={npz_folder}", "--imbalance_factor=10")
    options = DataOptions(name="mine", folder=npz_folder, imbalance_factor=10.0)
    assert printed == describe(options) + "\n"


def test_as_a_command_it_names_an_unknown_data_set_and_ends_with_status_2(
    capsys, no_data, monkeypatch
):
    monkeypatch.setattr(sys, "argv", ["describe", "nosuchdataset"])
    with pytest.raises(SystemExit) as stopped:  # by path, or what --typed compiles of it would stay
        runpy.run_path(sys.modules["spa_jax.data.describe"].__file__, run_name="__main__")
    assert stopped.value.code == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.startswith("error: ")
    assert captured.err.count("\n") == 1
    assert "nosuchdataset" in captured.err
