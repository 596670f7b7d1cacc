"""Hostile input: what a person, a broken disk or a stranger may hand to the library.

python -m benchmarks.hostile_input --inputs=1000 --seed=0 [--record=FILE]

Draws configurations, data sets in every form that is read without TFDS, split lists and folders of
runs, each whole first and then spoilt in a few places: values of another type or size, files cut
off, bits flipped, arrays of other shapes, pickles that would run a command. Every one is given to
`check_run`, or to what reads it. It is read, or refused by an `InputError`. A fault is any other
error, a file written outside the folder of the input, anything executed (a command, or a global
that a pickle asks for beyond what NumPy's arrays are made of), or an input that takes more than
half a minute. What is written and executed is told by Python's audit events.
"""

import argparse
import contextlib
import dataclasses
import functools
import gzip
import io
import json
import os
import pickle
import shutil
import signal
import struct
import sys
import tempfile
import traceback
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from types import FrameType
from typing import Any, TypeVar

import numpy as np
from PIL import Image

from spa_jax.data.data_options import DataOptions
from spa_jax.data.dataset import EncodedImages
from spa_jax.data.sources.opening import load_data
from spa_jax.errors import InputError
from spa_jax.report import PARTS
from spa_jax.reporting.finished_runs import find_run_folders, read_runs
from spa_jax.reporting.grouping import group_runs
from spa_jax.training.checking import check_run
from spa_jax.training.config import default_config, option_fields
from spa_jax.training.devices import Layout
from spa_jax.training.loop import run
from spa_jax.training.rundir.checkpoints import read_arrays, saved_steps
from spa_jax.training.rundir.summary import hardware
from spa_jax.training.rundir.workdir import check_finished, check_workdir, made_config, read_summary
from studies.tables import publish

_SECONDS = 30
_CLASSES, _EACH = 3, 8
_NUMBERS = (-1, 0, 1, 2, 3, 7, 2**31 - 1, 2**31, 10**30, -0.0, 0.5, 1e-30, 1e30, float("nan"))
_TEXTS = ("", " ", "none", "nan", "../..", "/", "/dev/null", "gs://bucket/x", "a\nb", "\0")
_TEXTS += ("é" * 300,)
_OTHERS = (None, True, (), (0,), (1, -1), [1.5], {}, {"a": 1}, b"x", object())
_VALUES = (*_NUMBERS, float("inf"), *_TEXTS, *_OTHERS)
# What a pickle of NumPy arrays may ask for.
_PLAIN = ("numpy", "_codecs")


Item = TypeVar("Item")


def one_of(rng: np.random.Generator, items: Sequence[Item]) -> Item:
    """One of several, whatever they are."""
    return items[int(rng.integers(len(items)))]


class TooLong(BaseException):
    """An input was not through in time; no `except Exception` takes it."""


class Trap:
    """What would run if a pickle that holds it were read."""

    def __reduce__(self) -> tuple[Any, ...]:
        return os.system, ("true",)


def spoil_config(rng: np.random.Generator) -> Any:
    """The default configuration with a few fields set to other values."""
    config, fields = default_config(), option_fields()
    config.logging.tensorboard = False
    config.unlock()
    for _ in range(rng.integers(1, 4)):
        *groups, key = str(rng.choice(list(fields))).split(".")
        group = functools.reduce(lambda part, name: part[name], groups, config)
        if not hasattr(group, "keys"):  # which another value has taken the place of
            continue
        field = fields[".".join([*groups, key])]
        choices: Any = field.metadata["choices"]
        names: Any = choices() if callable(choices) else choices or ()
        kind = rng.integers(20)
        with group.ignore_type():
            if kind == 0:
                group[f"{key}_"] = one_of(rng, _VALUES)
            elif kind == 1 and key in group:
                del group[key]
            elif kind < 16 and names:
                group[key] = one_of(rng, names)
            elif kind < 16 and isinstance(field.default, bool):
                group[key] = not field.default
            elif kind < 16 and isinstance(field.default, int | float):
                number = field.default * float(rng.choice([-1, 0, 0.5, 0.9, 1.5, 2, 3, 10, 1000]))
                group[key] = type(field.default)(number)
            else:
                group[key] = one_of(rng, _VALUES)
    return config


def spoil_file(path: Path, rng: np.random.Generator) -> None:
    """Cuts a file off, flips bits, adds or doubles bytes, or replaces it."""
    content = bytearray(path.read_bytes())
    place = int(rng.integers(len(content) + 1))
    kind = rng.integers(8)
    if kind == 0:
        del content[place:]
    elif kind == 1 and content:
        for bit in rng.integers(8 * len(content), size=int(rng.integers(1, 9))):
            content[bit // 8] ^= 1 << int(bit % 8)
    elif kind == 2:
        content[place:place] = rng.bytes(int(rng.integers(1, 64)))
    elif kind == 3:
        words = (b"\xff" * 4, b"\0" * 4, b"\x7f\xff\xff\xff", b"NaN,")
        content[place : place + 4] = one_of(rng, words)
    elif kind == 4:
        others = (b"", b"{}", b"[]", b"null", b"\0", b"1", b"a b c\n", b"[" * 10**5)
        content = bytearray(one_of(rng, others))
    elif kind == 5:
        content = bytearray(pickle.dumps(Trap(), protocol=int(rng.integers(5))))
    path.unlink()
    if kind == 6:
        path.mkdir()
    elif kind != 7:
        path.write_bytes(bytes(content))


def spoil_json(path: Path, rng: np.random.Generator) -> None:
    """Sets a value anywhere in a JSON file, or in one of its lines, to another, or drops it."""
    lines = path.read_text().splitlines() if path.suffix == ".jsonl" else [path.read_text()]
    at = int(rng.integers(len(lines)))
    content = json.loads(lines[at])
    group: Any = content
    while group:
        key = one_of(rng, list(group) if isinstance(group, dict) else range(len(group)))
        if isinstance(group[key], dict | list) and rng.random() < 0.7:
            group = group[key]
            continue
        if rng.random() < 0.2:
            del group[key]
        else:
            group[key] = one_of(rng, (*_NUMBERS, *_TEXTS, None, True, [], [1], {}, {"a": 1}))
        break
    lines[at] = json.dumps(content)
    path.write_text("\n".join(lines) + "\n")


def strange_array(rng: np.random.Generator, whole: np.ndarray) -> np.ndarray:
    """An array of another dtype, shape or content."""
    other = [
        lambda: whole.astype(rng.choice(["f8", "f2", "i1", "i8", "u8", "?", "c8", "U3", "S2"])),
        lambda: whole[: len(whole) // 2],
        lambda: whole.reshape(-1),
        lambda: whole[None],
        lambda: whole[:0],
        lambda: np.full_like(whole, rng.choice([0, 1, 100])),
        lambda: whole.astype("i8") - 5,
        lambda: whole.astype("u8") + np.uint64(2**62),
        lambda: np.where(rng.random(whole.shape) < 0.1, np.nan, whole.astype("f4")),
        lambda: np.array([Trap()] * len(whole), object),
        lambda: np.array(3),
        lambda: np.zeros(len(whole), [("a", "i4"), ("b", "O")]),
        lambda: whole.astype("M8[s]"),
    ]
    with np.errstate(all="ignore"), contextlib.suppress(ValueError, TypeError):
        return one_of(rng, other)()
    return whole


def _labels() -> np.ndarray:
    return np.repeat(np.arange(_CLASSES), _EACH).astype(np.int64)


def _images(rng: np.random.Generator) -> np.ndarray:
    return rng.integers(0, 256, (_CLASSES * _EACH, 4, 4, 3), dtype=np.uint8)


def _options(folder: Path, rng: np.random.Generator, **fields: Any) -> DataOptions:
    natural = {"profile": "natural"} if rng.random() < 0.7 else {"imbalance_factor": 2.0}
    return DataOptions(**{"name": "own", "folder": str(folder), **natural, **fields})


def _arrays(rng: np.random.Generator, features: bool) -> dict[str, Any]:
    """What a part of a data set of one's own has, one of which may be strange, or missing."""
    content = rng.normal(size=(_CLASSES * _EACH, 5)).astype("f4") if features else _images(rng)
    arrays: dict[str, Any] = {"feature" if features else "image": content, "label": _labels()}
    if rng.random() < 0.5:
        arrays["class_names"] = np.array(["a", "b", "c"])
    if rng.random() < 0.3:
        key = one_of(rng, list(arrays))
        arrays[key] = strange_array(rng, arrays[key])
        if rng.random() < 0.2:
            del arrays[key]
    return arrays


def npz_folder(folder: Path, rng: np.random.Generator) -> DataOptions:
    """`train.npz` and `test.npz`, of images or features."""
    features = bool(rng.random() < 0.5)
    for part in ("train", "test"):
        np.savez(folder / f"{part}.npz", **_arrays(rng, features))
    return _options(folder, rng, name="features" if features else "own")


def mapped_bank(folder: Path, rng: np.random.Generator) -> DataOptions:
    """A feature bank of arrays that are mapped."""
    for part in ("train", "test"):
        (folder / part).mkdir()
        for name, array in _arrays(rng, features=True).items():
            np.save(folder / part / f"{name}.npy", array)
    return _options(folder, rng, name="features")


def idx_folder(folder: Path, rng: np.random.Generator) -> DataOptions:
    """The four idx files, gzipped or not."""
    for part in ("train", "t10k"):
        parts = {"images-idx3": _images(rng)[..., 0], "labels-idx1": _labels().astype(np.uint8)}
        for name, array in parts.items():
            shape = [int(n) for n in array.shape]
            if rng.random() < 0.1:
                shape[int(rng.integers(len(shape)))] = one_of(rng, [0, 1, 2**31, 2**32 - 1])
            kind = int(rng.choice([8] * 20 + [9, 13, 0]))
            header = bytes([0, 0, kind, len(shape)]) + struct.pack(f">{len(shape)}I", *shape)
            content = header + array.tobytes()
            zipped = bool(rng.random() < 0.5)
            path = folder / f"{part}-{name}-ubyte{'.gz' if zipped else ''}"
            path.write_bytes(gzip.compress(content) if zipped else content)
    return _options(folder, rng, name=str(rng.choice(["own", "fashion_mnist"])))


def cifar_folder(folder: Path, rng: np.random.Generator) -> DataOptions:
    """The official files of CIFAR-10, pickled or binary, shortened."""
    images = rng.integers(0, 256, (30, 3072), dtype=np.uint8)
    labels, names = [int(n) for n in np.arange(30) % 10], [b"class %d" % n for n in range(10)]
    pickled = bool(rng.random() < 0.6)
    for stem in (*(f"data_batch_{number}" for number in range(1, 6)), "test_batch"):
        entries: dict[Any, Any] = {b"data": images, b"labels": labels}
        if rng.random() < 0.1:
            entries[b"data"] = strange_array(rng, images)
        if rng.random() < 0.1:
            entries[b"labels"] = one_of(rng, _VALUES[:-1])
        if rng.random() < 0.05:
            entries[b"labels"] = [Trap()]
        records = np.concatenate([np.array(labels, np.uint8)[:, None], images], axis=1)
        content = pickle.dumps(entries, protocol=2) if pickled else records.tobytes()
        (folder / (stem if pickled else f"{stem}.bin")).write_bytes(content)
    meta = pickle.dumps({b"label_names": names}, protocol=2) if pickled else b"\n".join(names)
    (folder / ("batches.meta" if pickled else "batches.meta.txt")).write_bytes(meta)
    verify = bool(rng.random() < 0.1)
    return _options(folder, rng, name="cifar10", verify=verify)


def _write_images(folder: Path, rng: np.random.Generator) -> list[tuple[str, int]]:
    """A folder of images with their paths and labels."""
    listed = []
    for part, number in (("train", _EACH), ("test", 2)):
        for label in range(_CLASSES):
            place = folder / part / f"class_{label}"
            place.mkdir(parents=True)
            for i in range(number):
                buffer = io.BytesIO()
                Image.fromarray(_images(rng)[0]).save(buffer, "PNG" if i % 2 else "JPEG")
                path = place / f"{i}.{'png' if i % 2 else 'jpg'}"
                path.write_bytes(buffer.getvalue())
                listed.append((path.relative_to(folder).as_posix(), label))
    return listed


def image_folder(folder: Path, rng: np.random.Generator) -> DataOptions:
    """Class folders of images, with links, and names that a shell would not like."""
    _write_images(folder, rng)
    place = folder / "train" / f"class_{rng.integers(_CLASSES)}"
    kind = rng.integers(6)
    if kind == 0:
        shutil.rmtree(place)
    elif kind == 1:
        (place / "loop").symlink_to(folder / "train")
    elif kind == 2:
        (place / "gone.jpg").symlink_to(folder / "nowhere.jpg")
    elif kind == 3:
        (place / "a\nb $(true).jpg").write_bytes(b"\xff\xd8\xff")
    elif kind == 4:
        os.mkfifo(place / "pipe.jpg")
        (place / "link.jpg").symlink_to("pipe.jpg")
    return _options(folder, rng)


def lists(folder: Path, rng: np.random.Generator) -> DataOptions:
    """A folder of images with a list for each part."""
    listed = _write_images(folder, rng)
    fields = {}
    for part in ("train", "test"):
        lines = [f"{path} {label}" for path, label in listed if path.startswith(part)]
        for _ in range(rng.integers(3)):
            at = int(rng.integers(len(lines)))
            path, _, label = lines[at].rpartition(" ")
            labels = ("-1", str(10**30), "٣", "1.0", "2147483647", "")
            paths = ("", f"../../{path}", "/etc/passwd", f"{path}\0", f"{path}/", f"./{path}")
            paths += (f"~/{path}", "x" * 5000, path.upper())
            others = [f"{path} {other}" for other in labels] + [f"{p} {label}" for p in paths]
            lines[at] = one_of(rng, ["", lines[0], *others])
        (folder / f"{part}.txt").write_text("\n".join(lines))
        fields[f"{part}_list"] = str(folder / f"{part}.txt")
    if rng.random() < 0.1:
        fields["train_list"] = one_of(rng, _TEXTS)
    return _options(folder, rng, **fields)


def read_data(make: Callable[[Path, np.random.Generator], DataOptions], folder: Path, rng: Any):
    """Makes a data set, spoils a file of it now and then, loads it and reads its images."""
    options = make(folder, rng)
    if rng.random() < 0.4:
        files = sorted(path for path in folder.rglob("*") if path.is_file())
        spoil_file(one_of(rng, files), rng)
    data = load_data(options)
    for part in (data.train, data.test):
        if isinstance(part.images, EncodedImages):
            for i in range(len(part)):
                part.images[i]
    return data.content_checksum


def check_config(folder: Path, rng: np.random.Generator) -> None:
    """Checks a spoilt configuration."""
    del folder
    check_run(spoil_config(rng))


def read_workdir(finished: Path, folder: Path, rng: np.random.Generator) -> None:
    """Reads a spoilt folder of a finished run, in all the ways in which one is read."""
    place = folder / "run"
    shutil.copytree(finished, place)
    files = sorted(path for path in place.rglob("*") if path.is_file() and path.stat().st_size)
    if rng.random() < 0.6:
        records = [path for path in files if path.suffix in (".json", ".jsonl")]
        for _ in range(rng.integers(1, 4)):
            spoil_json(one_of(rng, records), rng)
    else:
        spoil_file(one_of(rng, files), rng)
    config = _run_config()
    starting = _run_config()
    starting.init.run = str(place)
    checkpoints = place / "checkpoints"
    ways = [
        lambda: report_tables(place),
        lambda: (read_summary(place), made_config(place)),
        lambda: check_workdir(place, config),
        lambda: check_finished(place, DataOptions()),
        lambda: [read_arrays(checkpoints / str(step)) for step in saved_steps(checkpoints)],
        lambda: check_run(starting),
    ]
    refusals = []
    for way in ways:
        try:
            way()
        except InputError as error:
            refusals.append(error)
    if refusals:
        raise refusals[0]


def report_tables(folder: Path) -> None:
    """All that a report says of a run but its figures."""
    groups = group_runs(read_runs(find_run_folders([folder]))[0])
    for part in ("accuracy", "cosines", "differences", "classes", "runs"):
        list(PARTS[part](groups))


def _run_config() -> Any:
    config = default_config()
    config.epochs, config.batch_size, config.eval_batch_size = 1, 64, 256
    config.model.small.widths = (4,)
    config.logging.plots = config.logging.tensorboard = False
    config.logging.collapse = True
    return config


def kinds(finished: Path) -> dict[str, Callable[[Path, Any], object]]:
    """What reads each kind of input, from a folder for it."""
    forms = {
        "npz archives": npz_folder,
        "mapped feature banks": mapped_bank,
        "idx files": idx_folder,
        "official archives": cifar_folder,
        "image folders": image_folder,
        "split lists": lists,
    }
    return {
        "configurations": check_config,
        "folders of runs": functools.partial(read_workdir, finished),
        **{name: functools.partial(read_data, make) for name, make in forms.items()},
    }


@dataclasses.dataclass
class Watch:
    """What the process does while an input is read, by Python's audit events.

    Attributes:
      folder: where it may write; None: nothing is watched.
      seen: what it may not have done.
    """

    folder: Path | None = None
    seen: list[str] = dataclasses.field(default_factory=list)

    def __call__(self, event: str, args: tuple[Any, ...]) -> None:
        if self.folder is None:
            return
        if event in ("os.system", "os.exec", "os.posix_spawn", "os.fork", "subprocess.Popen"):
            self.seen.append(f"executed: {event}")
        if event == "pickle.find_class" and not args[0].startswith(_PLAIN):
            self.seen.append(f"executed: a pickle's {args[0]}.{args[1]}")
        writes = os.O_WRONLY | os.O_RDWR | os.O_CREAT
        if event == "open" and isinstance(args[0], str | bytes) and (args[2] or 0) & writes:
            self._note(args[0])
        if event in ("os.mkdir", "os.remove", "os.rename", "os.rmdir", "os.truncate"):
            beside = args[-1] if event in ("os.mkdir", "os.remove", "os.rmdir") else -1
            self._note(args[0], "" if beside == -1 else os.readlink(f"/proc/self/fd/{beside}"))

    def _note(self, path: Any, beside: str = "") -> None:
        whole = "" if isinstance(path, int) else os.path.join(beside, os.fsdecode(path))
        if whole and not os.path.realpath(whole).startswith((f"{self.folder}/", "/dev/null")):
            self.seen.append(f"written outside: {whole}")


_WATCH = Watch()


@functools.cache
def watch() -> None:
    """Begins to listen to Python's audit events, which a process cannot end."""
    sys.addaudithook(_WATCH)


@contextlib.contextmanager
def _in_time() -> Iterator[None]:
    def stop(number: int, frame: FrameType | None) -> None:
        raise TooLong()

    before = signal.signal(signal.SIGALRM, stop)
    signal.alarm(_SECONDS)
    try:
        yield
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)


def outcome_of(read: Callable[[Path, Any], object], folder: Path, rng: Any) -> tuple[str, str]:
    """How one input is taken: "read", "refused", or a fault; and what was seen."""
    _WATCH.folder, _WATCH.seen = folder, []
    found = ("read", "")
    try:
        with _in_time():
            read(folder, rng)
    except InputError as error:
        found = ("refused", str(error))
    except TooLong as error:
        found = ("hung", "".join(traceback.format_tb(error.__traceback__)[-3:]))
    except (Exception, SystemExit):
        found = ("traceback", traceback.format_exc())
    finally:
        _WATCH.folder = None
    for seen in _WATCH.seen:
        found = (seen.partition(":")[0], seen)
    return found


def try_inputs(inputs: int, seed: int, finished: Path | None = None) -> list[dict[str, Any]]:
    """Draws inputs of all kinds in turn.

    Args:
      inputs: how many.
      seed: of what is drawn.
      finished: the folder of a finished run, of which spoilt copies are made; None: it is trained.

    Returns:
      Of each its number, kind and outcome, and what was seen.
    """
    results = []
    with tempfile.TemporaryDirectory() as root:
        if finished is None:
            finished = Path(root) / "finished"
            run(_run_config(), finished, say=lambda line: None)
        readers = kinds(finished)
        watch()
        for number in range(inputs):
            kind = list(readers)[number % len(readers)]
            folder = Path(os.path.realpath(root)) / f"input_{number}"
            folder.mkdir()
            rng = np.random.default_rng([seed, number])
            outcome, seen = outcome_of(readers[kind], folder, rng)
            results.append({"input": number, "kind": kind, "outcome": outcome, "seen": seen})
            shutil.rmtree(folder)
    return results


def main() -> None:
    """Prints the table, and writes the record where an argument says."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--inputs", type=int, default=1000, help="how many are drawn")
    parser.add_argument("--seed", type=int, default=0, help="of what is drawn")
    parser.add_argument("--record", help="a JSON file for the numbers")
    values = parser.parse_args()
    results = try_inputs(values.inputs, values.seed)
    faults = [result for result in results if result["outcome"] not in ("read", "refused")]
    for fault in faults:
        print(f"{fault['kind']}, input {fault['input']}: {fault['outcome']}: {fault['seen']}")
    names = dict.fromkeys(result["kind"] for result in results)
    numbers = {
        "hardware": hardware(Layout("jit")),
        "seed": values.seed,
        "outcomes": {
            name: Counter(r["outcome"] for r in results if r["kind"] == name) for name in names
        },
        "faults": faults,
    }
    publish("hostile_input", numbers, values.record)


if __name__ == "__main__":
    main()
