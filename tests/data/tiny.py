"""Makers of tiny data in published file forms, written from the forms' definitions."""

import struct
from pathlib import Path

import numpy as np

BATCHES = tuple(f"data_batch_{number}" for number in range(1, 6))


def random_images(number, seed, shape=(32, 32, 3)):
    """uint8 images, each unlike any other."""
    return np.random.default_rng(seed).integers(0, 256, (number, *shape), dtype=np.uint8)


def planes(image):
    """An image's 3,072 bytes as CIFAR stores them: all red, all green, all blue, row by row."""
    return b"".join(image[:, :, channel].tobytes() for channel in range(3))


def cifar_record(image, *labels):
    """One record of CIFAR's binary form."""
    return bytes(labels) + planes(image)


class Python2Pickle:
    """What `cPickle.dumps(value, 2)` of Python 2 writes: the form of CIFAR's pickled files."""

    def __init__(self, value):
        self._out = [b"\x80\x02"]
        self._memos = 0
        self._save(value)
        self.content = b"".join([*self._out, b"."])

    def _put(self, *parts):
        """Writes something that is remembered."""
        self._memos += 1
        small = self._memos < 256
        memo = b"q" + bytes([self._memos]) if small else b"r" + struct.pack("<I", self._memos)
        self._out += [*parts, memo]

    def _save(self, value):
        if value is None or isinstance(value, bool):
            self._out.append({None: b"N", True: b"\x88", False: b"\x89"}[value])
        elif isinstance(value, int):
            self._out.append(self._integer(value))
        elif isinstance(value, bytes):
            short = len(value) < 256
            head = b"U" + bytes([len(value)]) if short else b"T" + struct.pack("<i", len(value))
            self._put(head, value)
        elif isinstance(value, np.ndarray):
            self._array(value)
        elif isinstance(value, tuple):
            self._tuple(value)
        elif isinstance(value, list):
            self._put(b"]")
            self._many(value, b"e")
        else:
            self._put(b"}")
            self._many([part for entry in value.items() for part in entry], b"u")

    def _integer(self, value):
        if 0 <= value < 256:
            return b"K" + bytes([value])
        return b"M" + struct.pack("<H", value) if value >= 0 else b"J" + struct.pack("<i", value)

    def _many(self, values, end):
        self._out.append(b"(")
        for value in values:
            self._save(value)
        self._out.append(end)

    def _tuple(self, values):
        if len(values) > 3:
            self._out.append(b"(")
        for value in values:
            self._save(value)
        self._put({1: b"\x85", 2: b"\x86", 3: b"\x87"}.get(len(values), b"t"))

    def _array(self, array):
        self._put(b"cnumpy.core.multiarray\n_reconstruct\n")
        self._put(b"cnumpy\nndarray\n")
        self._tuple((0,))
        self._save(b"b")
        self._put(b"\x87")
        self._put(b"R")
        self._out.append(b"(")
        self._save(1)
        self._tuple(array.shape)
        self._put(b"cnumpy\ndtype\n")
        self._tuple((array.dtype.str[1:].encode(), 0, 1))
        self._put(b"R")
        self._tuple((3, array.dtype.str[:1].encode(), None, None, None, -1, -1, 0))
        self._out.append(b"b")
        self._save(False)
        self._save(array.tobytes())
        self._put(b"t")
        self._out.append(b"b")


def cifar_pickle(images, labels, fine=False):
    """A pickled file of CIFAR-10, or of CIFAR-100 (`fine`), with the entries of the official."""
    names = [b"picture_%06d.png" % number for number in range(len(images))]
    kind = b"fine_labels" if fine else b"labels"
    batch = {b"filenames": names, b"batch_label": b"a batch", kind: [int(x) for x in labels]}
    if fine:
        batch[b"coarse_labels"] = [int(x) % 20 for x in labels]
    data = b"".join(planes(image) for image in images)
    batch[b"data"] = np.frombuffer(data, np.uint8).reshape(len(images), 3072)
    return Python2Pickle(batch).content


def cifar_meta(class_names, fine=False):
    """The pickled file with the class names."""
    names = [name.encode() for name in class_names]
    if fine:
        coarse = [b"superclass_%d" % number for number in range(20)]
        return Python2Pickle({b"fine_label_names": names, b"coarse_label_names": coarse}).content
    meta = {b"num_cases_per_batch": 10000, b"label_names": names, b"num_vis": 3072}
    return Python2Pickle(meta).content


def write_cifar(folder: Path, name, pickled, train, test, class_names):
    """Writes a data set's official files; `train` and `test` are (images, labels).

    CIFAR-10's training examples are dealt to the five batches in order.
    """
    folder.mkdir(parents=True, exist_ok=True)
    fine = name == "cifar100"
    stems = ("train",) if fine else BATCHES
    parts = dict(zip(stems, np.array_split(np.arange(len(train[1])), len(stems)), strict=True))
    files = {stem: (train[0][part], train[1][part]) for stem, part in parts.items()}
    files["test" if fine else "test_batch"] = test
    for stem, (images, labels) in files.items():
        if pickled:
            (folder / stem).write_bytes(cifar_pickle(images, labels, fine))
            continue
        records = (
            cifar_record(image, label % 20, label) if fine else cifar_record(image, label)
            for image, label in zip(images, labels.tolist(), strict=True)
        )
        (folder / f"{stem}.bin").write_bytes(b"".join(records))
    if pickled:
        (folder / ("meta" if fine else "batches.meta")).write_bytes(cifar_meta(class_names, fine))
    else:  # the official one of CIFAR-10 ends in an empty line
        text = "\n".join(class_names) + ("\n" if fine else "\n\n")
        (folder / ("fine_label_names.txt" if fine else "batches.meta.txt")).write_text(text)
