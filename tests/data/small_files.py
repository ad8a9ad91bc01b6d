"""Small data files in the published formats."""

import gzip
import hashlib
import struct

import numpy as np
from PIL import Image

FASHION = {"train": 240, "t10k": 60}


def idx_bytes(array):
    return struct.pack(f">HBB{array.ndim}I", 0, 8, array.ndim, *array.shape) + array.tobytes()


def pictures(n, shape, seed):
    return np.random.RandomState(seed).randint(0, 256, (n, *shape), dtype=np.uint8)


def labels(n, n_classes=10):
    return (np.arange(n) % n_classes).astype(np.uint8)


def write_fashion(folder, *, packed=True):
    folder.mkdir(parents=True, exist_ok=True)
    for seed, (part, n) in enumerate(FASHION.items()):
        for name, array in (
            (f"{part}-images-idx3-ubyte", pictures(n, (28, 28), seed)),
            (f"{part}-labels-idx1-ubyte", labels(n)),
        ):
            data = idx_bytes(array)
            (folder / (name + (".gz" if packed else ""))).write_bytes(gzip.compress(data) if packed else data)


def write_cifar10_binary(folder, *, per_file=40):
    folder.mkdir(parents=True, exist_ok=True)
    for seed, name in enumerate([*(f"data_batch_{i}" for i in range(1, 6)), "test_batch"]):
        rows = np.concatenate([labels(per_file)[:, None], pictures(per_file, (3072,), seed)], axis=1)
        (folder / f"{name}.bin").write_bytes(rows.tobytes())


def write_folder(folder, *, classes=("cat", "dog"), per_class=30, seed=0, mode="RGB"):
    for label, name in enumerate(classes):
        (folder / name).mkdir(parents=True, exist_ok=True)
        for i in range(per_class):
            pixels = pictures(1, (20, 30, 3), seed + 1000 * label + i)[0]
            Image.fromarray(pixels).convert(mode).save(folder / name / f"{i:03d}.png")


def sha(split):
    return hashlib.sha256(split.x.numpy().tobytes()).hexdigest()
