"""Feature banks: three forms of one bank, lazily read, and what is wrong with a bank."""

import numpy as np
import pytest

from spa_jax.data.data_options import DataOptions
from spa_jax.data.sources.opening import load_data
from tests.refusals import refusal

CLASSES, WIDTH = 4, 6


def arrays(part):
    """40 training or 12 test features around the corners of a simplex, class by class in turn."""
    count = {"train": 40, "test": 12}[part]
    labels = np.arange(count) % CLASSES
    noise = np.random.default_rng(count).normal(0, 0.2, (count, WIDTH))
    return {"feature": (np.eye(CLASSES, WIDTH)[labels] + noise).astype(np.float16), "label": labels}


def write_npz(folder, **changes):
    """`test_x` changes the array x of the test set, `train_x` that of the training set."""
    folder.mkdir(exist_ok=True)
    for part in ("train", "test"):
        found = arrays(part)
        found |= {key.partition("_")[2]: new for key, new in changes.items() if part in key}
        np.savez(folder / f"{part}.npz", **found)
    return folder


def write_mapped(folder, **changes):
    for part in ("train", "test"):
        (folder / part).mkdir(parents=True, exist_ok=True)
        found = arrays(part)
        found |= {key.partition("_")[2]: new for key, new in changes.items() if part in key}
        for key, array in found.items():
            np.save(folder / part / f"{key}.npy", array)
    return folder


def write_whole(folder):
    """One file with all examples, and two lists of rows."""
    folder.mkdir()
    parts = [arrays(part) for part in ("train", "test")]
    np.savez(
        folder / "all.npz",
        **{key: np.concatenate([part[key] for part in parts]) for key in parts[0]},
    )
    labels = np.concatenate([part["label"] for part in parts])
    for part, rows in (("train", range(40)), ("test", range(40, 52))):
        (folder / f"{part}.txt").write_text("".join(f"{row} {labels[row]}\n" for row in rows))
    return {f"{part}_list": str(folder / f"{part}.txt") for part in ("train", "test")}


def load(folder, **options):
    """All that a bank has, unless the options say otherwise."""
    known = {"name": "features", "folder": str(folder), "profile": "natural"}
    return load_data(DataOptions(**known | options))


def test_a_bank_is_the_same_in_each_of_its_forms(tmp_path):
    lists = write_whole(tmp_path / "whole")
    banks = [
        load(write_npz(tmp_path / "npz")),
        load(write_mapped(tmp_path / "mapped")),
        load(tmp_path / "whole", **lists),
    ]
    for bank in banks:
        for part in ("train", "test"):
            found, expected = getattr(bank, part), arrays(part)
            np.testing.assert_array_equal(found.images[:], expected["feature"], strict=True)
            np.testing.assert_array_equal(found.labels, expected["label"])
    assert banks[0].content_checksum == banks[1].content_checksum
    assert isinstance(banks[1].train.images.stored, np.memmap)


@pytest.mark.parametrize("protocol", ["ldam", "glmc"])
def test_a_long_tailed_split_takes_rows_of_a_mapped_bank_and_reads_them_later(tmp_path, protocol):
    options = {"profile": "exponential", "imbalance_factor": 5, "protocol": protocol}
    data = load(write_mapped(tmp_path), validation=True, **options)
    assert [*data.split["class_counts"]] == [10, 5, 3, 2]
    assert len(data.train) + len(data.validation) == 20
    whole = arrays("train")
    for examples in (data.train, data.validation):
        images = examples.images
        assert isinstance(images.stored, np.memmap)
        np.testing.assert_array_equal(images[:], whole["feature"][images.rows])
        np.testing.assert_array_equal(examples.labels, whole["label"][images.rows])


@pytest.mark.parametrize("write", [write_npz, write_mapped])
def test_a_bank_is_checked_once_a_process_unless_it_changes(tmp_path, write, monkeypatch):
    checked = []
    monkeypatch.setattr(
        "spa_jax.data.features.track", lambda starts, *_, **__: checked.append(starts) or starts
    )
    first = load(write(tmp_path)).content_checksum
    assert load(tmp_path).content_checksum == first
    assert len(checked) == 2
    changed = arrays("test")["feature"] * 2
    assert load(write(tmp_path, test_feature=changed)).content_checksum != first
    assert len(checked) == 4


@pytest.mark.parametrize("write", [write_npz, write_mapped])
def test_what_a_bank_is_made_of_stands_for_its_features_in_a_checksum(tmp_path, write):
    made_of = np.array("weights 1, images 2")
    rounded = {"test_feature": arrays("test")["feature"] + np.float16(2**-10)}
    shuffled = {"test_label": arrays("test")["label"][::-1].copy()}
    origins = {"train_made_of": made_of, "test_made_of": made_of}
    other = {"test_made_of": np.array("weights 1, images 3")}
    banks = [
        load(write(tmp_path / str(number), **changes))
        for number, changes in enumerate(
            [origins, origins | rounded, origins | shuffled, origins | other]
        )
    ]
    first, *others = [bank.content_checksum for bank in banks]
    assert [other == first for other in others] == [True, False, False]
    np.testing.assert_array_equal(banks[1].test.images[:], rounded["test_feature"])


FEATURES = arrays("train")["feature"]


def with_value(value, dtype=np.float16):
    changed = FEATURES.astype(dtype)
    changed[17, 3] = value
    return changed


WRONG = {
    "NaN": ({"train_feature": with_value(np.nan)}, ("Row 17", "NaN or infinity", "leave such")),
    "infinity": ({"train_feature": with_value(np.inf)}, ("Row 17", "NaN or infinity")),
    "too large for float32": (
        {"train_feature": with_value(1e39, np.float64)},
        ("Row 17", "NaN or infinity"),
    ),
    "integers": (
        {"train_feature": FEATURES.astype(np.int32)},
        ("int32 of shape (40, 6)", "expected floating numbers of shape (N, D)", "astype"),
    ),
    "a third axis": ({"train_feature": FEATURES[:, None]}, ("(40, 1, 6)", "(N, D)")),
    "no width": ({"train_feature": FEATURES[:, :0]}, ("(40, 0)", "(N, D)")),
    "another width": (
        {"test_feature": arrays("test")["feature"][:, :5]},
        ("features", "(6,)", "(5,)", "both must be of one size"),
    ),
    "a label short": ({"train_label": arrays("train")["label"][1:]}, ("(39,)", "(40,)")),
    "labels out of range": (
        {"test_label": arrays("test")["label"] + 1},
        ("holds the label 4", "[0, 4)"),
    ),
    "several origins": (
        {"train_made_of": np.array(["weights", "images"])},
        ("`made_of`", "(2,)", "expected one string"),
    ),
    "no origin": ({"train_made_of": np.array("")}, ("`made_of`", "expected one string")),
    "negative labels": ({"train_label": arrays("train")["label"] - 1}, ("from -1 to 2",)),
}


@pytest.mark.parametrize("write", [write_npz, write_mapped])
@pytest.mark.parametrize("case", WRONG)
def test_a_wrong_bank_is_refused_with_what_is_wrong(tmp_path, case, write):
    changes, parts = WRONG[case]
    message = refusal(load, write(tmp_path, **changes))
    for part in (str(tmp_path), *parts):
        assert part in message


def remove(name):
    return lambda folder: (folder / name).unlink()


def cut_off(name):
    def change(folder):
        content = (folder / name).read_bytes()
        (folder / name).write_bytes(content[: len(content) // 2])

    return change


BROKEN = {
    "no test file": (write_npz, remove("test.npz"), ("There is no", "test.npz", "np.savez")),
    "no labels": (
        write_mapped,
        remove("train/label.npy"),
        ("train lacks `label`, it has feature",),
    ),
    "no features": (write_mapped, remove("test/feature.npy"), ("test lacks `feature`", "np.save")),
    "cut off": (write_mapped, cut_off("train/feature.npy"), ("`feature` cannot be read",)),
    "a cut archive": (write_npz, cut_off("train.npz"), ("fetch or write it again",)),
}


@pytest.mark.parametrize("case", BROKEN)
def test_a_broken_bank_is_refused_by_name(tmp_path, case):
    write, change, parts = BROKEN[case]
    change(write(tmp_path))
    message = refusal(load, tmp_path)
    for part in parts:
        assert part in message


@pytest.mark.parametrize("folder", ["", "no/such/folder"])
def test_a_bank_needs_a_folder(folder):
    message = refusal(load, folder)
    assert f"config.data.folder={folder!r}" in message
    assert "train.npz and test.npz" in message


def test_one_file_needs_two_lists_that_share_nothing_and_labels_that_agree(tmp_path):
    lists = write_whole(tmp_path / "whole")
    for given in ({}, {"test_list": lists["test_list"]}):
        assert "config.data.train_list" in refusal(load, tmp_path / "whole", **given)
    with open(lists["test_list"], "a") as file:
        file.write("7 3\n")
    assert "train and be tested on: 7" in refusal(load, tmp_path / "whole", **lists)
    for part in ("train", "test"):  # which name row 7 in folders of their own
        path = tmp_path / "whole" / f"{part}.txt"
        lines = path.read_text().splitlines()
        path.write_text("".join(f"{part}/{line}\n" for line in lines))
    assert "train and be tested on: 7" in refusal(load, tmp_path / "whole", **lists)
    with open(lists["train_list"], "w") as file:
        file.write("0 0\n1 2\n")
    assert "1 has 2 in the list, 1 there" in refusal(load, tmp_path / "whole", **lists)


def test_two_files_beside_one_of_all_are_taken_unless_both_lists_are_given(tmp_path):
    lists = write_whole(tmp_path / "bank")
    changed = arrays("test")["feature"] * 2
    write_npz(tmp_path / "bank", test_feature=changed)
    for given in ({}, {"test_list": write_rows(tmp_path, arrays("test")["label"])}):
        found = load(tmp_path / "bank", **given).test.images[:]
        np.testing.assert_array_equal(found, changed)
    found = load(tmp_path / "bank", **lists).test.images[:]
    np.testing.assert_array_equal(found, arrays("test")["feature"])


def write_rows(folder, labels):
    """A list of all rows."""
    path = folder / "rows.txt"
    path.write_text("".join(f"{row} {label}\n" for row, label in enumerate(labels)))
    return str(path)
