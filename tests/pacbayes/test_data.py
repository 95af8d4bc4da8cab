"""Loaders on small files of the published formats, on damage, and on what the packages ship."""

import gzip
import hashlib
import io
import struct
import tarfile

import numpy as np
import pytest
import torch

from minilab.pacbayes import data
from minilab.pacbayes.data import (
    Dataset,
    cifar10,
    digits,
    fashion_mnist,
    mnist5k,
    permuted_pixels,
    read_idx,
    shuffled_labels,
)


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def idx(array: np.ndarray) -> bytes:
    return struct.pack(f">HBB{array.ndim}i", 0, 8, array.ndim, *array.shape) + array.tobytes()


def some_bytes(*shape: int, below: int = 256, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(below, size=shape, dtype=np.uint8)


@pytest.fixture
def published(tmp_path, monkeypatch):
    """A folder with four small files, which are what was published as far as the loader knows."""
    folder, arrays = tmp_path / "published", [some_bytes(7, 28, 28), some_bytes(7, below=10), some_bytes(3, 28, 28),
                                              some_bytes(3, below=10)]
    folder.mkdir()
    hashes = {}
    for name, array in zip(data.FASHION_FILES, arrays, strict=True):
        (folder / name).write_bytes(gzip.compress(idx(array)))
        hashes[name] = hashlib.sha256(idx(array)).hexdigest()
    monkeypatch.setattr(data, "FASHION_FILES", hashes)
    monkeypatch.setattr(data, "DEBIAN", tmp_path / "no package")
    monkeypatch.setenv("MINILAB_CACHE", str(tmp_path / "cache"))
    return folder, arrays


def test_fashion_mnist_is_read_from_its_four_files(published):
    folder, (train_x, train_y, test_x, test_y) = published
    found = fashion_mnist(folder)
    assert found.shape == (1, 28, 28) and len(found.classes) == 10
    for tensor, array in ((found.train_x[:, 0], train_x), (found.train_y, train_y), (found.test_x[:, 0], test_x),
                          (found.test_y, test_y)):  # fmt: skip
        np.testing.assert_array_equal(tensor.numpy(), array)


def test_a_download_is_verified_and_kept(published, tmp_path):
    folder, (train_x, *_) = published
    with pytest.raises(FileNotFoundError, match=r"apt-get install dataset-fashion-mnist.*download=True"):
        fashion_mnist()
    fashion_mnist(download=True, url=folder.as_uri() + "/")
    (folder / "train-images-idx3-ubyte.gz").unlink()  # the cache has it now
    np.testing.assert_array_equal(fashion_mnist(download=True, url="file:///nowhere/").train_x[:, 0].numpy(), train_x)


def test_a_wrong_download_is_not_kept(published, tmp_path):
    folder, _ = published
    (folder / "train-images-idx3-ubyte.gz").write_bytes(gzip.compress(idx(some_bytes(7, 28, 28, seed=1))))
    with pytest.raises(ValueError, match="not what was published"):
        fashion_mnist(download=True, url=folder.as_uri() + "/")
    assert not list((tmp_path / "cache").rglob("*.*"))
    with pytest.raises(ConnectionError, match="by other means"):
        fashion_mnist(download=True, url=(tmp_path / "nowhere").as_uri() + "/")


@pytest.mark.parametrize("content, says", [
    (gzip.compress(idx(some_bytes(2, 3)))[:-9], "no whole .gz"), (b"not gzip", "no whole .gz"),
    (gzip.compress(idx(some_bytes(2, 3))[:-1]), "idx format"), (gzip.compress(b"\0\0\x0d\1" + bytes(8)), "idx format"),
    (gzip.compress(b"\0\0"), "idx format"),
], ids=["cut short", "another format", "a byte less", "another type", "too short"])  # fmt: skip
def test_files_that_are_no_arrays_are_refused(tmp_path, content, says):
    path = tmp_path / "a.gz"
    path.write_bytes(content)
    with pytest.raises(ValueError, match=says):
        read_idx(path)


def test_cifar_is_read_from_its_archive(tmp_path):
    records = {f"data_batch_{i}.bin": some_bytes(4, data.CIFAR_RECORD, below=10, seed=i) for i in range(1, 6)}
    records["test_batch.bin"] = some_bytes(2, data.CIFAR_RECORD, below=10, seed=9)
    path = tmp_path / "cifar.tar.gz"
    with tarfile.open(path, "w:gz") as tar:
        for name, table in reversed(records.items()):
            info = tarfile.TarInfo(f"cifar-10-batches-bin/{name}")
            info.size = table.size
            tar.addfile(info, io.BytesIO(table.tobytes()))
    found = cifar10(path, sha256=None)
    assert found.train_x.shape == (20, 3, 32, 32) and found.test_x.shape == (2, 3, 32, 32)
    second = records["data_batch_2.bin"][1]  # example 5: its label, then red, row by row
    assert found.train_y[5] == second[0] and found.train_x[5, 1, 2, 3] == second[1 + 1024 + 2 * 32 + 3]
    with pytest.raises(ValueError, match="not what was published"):
        cifar10(path)
    with pytest.raises(FileNotFoundError, match="download=True"):
        cifar10(tmp_path / "absent")


@pytest.mark.parametrize("load, n", [(digits, 1437), (mnist5k, 4000)])
def test_sets_that_ship_with_packages_are_split_at_random(load, n):
    found = load()
    assert len(found.train_y) == n and found.train_x.dtype == torch.uint8 and found.train_x.max() == 255
    share = found.train_y.bincount(minlength=10) / n
    assert (share - 0.1).abs().max() < 0.03
    assert (found.test_y.diff() != 0).float().mean() > 0.8  # not in the order of the classes


def test_a_split_belongs_to_its_seed():
    assert torch.equal(digits().train_x, digits().train_x)
    assert not torch.equal(digits().train_x, digits(seed=1).train_x)
    with pytest.raises(ValueError, match="keep some"):
        digits(test=2000)


@pytest.mark.skipif(not data.DEBIAN.is_dir(), reason="needs the Debian package dataset-fashion-mnist")
def test_the_debian_package_is_what_was_published():
    found = fashion_mnist()
    assert found.train_x.shape == (60_000, 1, 28, 28) and found.test_x.shape == (10_000, 1, 28, 28)
    assert found.train_y.bincount().tolist() == [6000] * 10
    assert float(found.train_x.float().mean() / 255) == pytest.approx(0.2860, abs=1e-4)  # as is often quoted


def small() -> Dataset:
    y = torch.arange(1000) % 10
    x = torch.arange(1000 * 12).view(1000, 1, 3, 4)
    return Dataset("small", x, y, x[:500], y[:500], tuple("0123456789"))


def test_shuffled_labels_keep_their_numbers_and_lose_their_pictures():
    plain, shuffled = small(), shuffled_labels(small(), generator())
    assert torch.equal(shuffled.train_y.bincount(), plain.train_y.bincount())
    assert (shuffled.train_y == plain.train_y).float().mean() == pytest.approx(0.1, abs=0.03)
    assert (shuffled.test_y == plain.test_y).float().mean() == pytest.approx(0.1, abs=0.05)
    assert torch.equal(shuffled.train_x, plain.train_x) and plain.train_y[3] == 3
    part = shuffled_labels(small(), generator(), share=0.4)
    assert (part.train_y != plain.train_y).float().mean() == pytest.approx(0.4 * 0.9, abs=0.03)
    with pytest.raises(ValueError, match="0 to 1"):
        shuffled_labels(small(), generator(), share=1.5)


def test_all_pictures_have_their_pixels_in_the_same_new_order():
    plain, permuted = small(), permuted_pixels(small(), generator())
    order = permuted.train_x[0].flatten() - plain.train_x[0, 0, 0, 0]  # pixel i of the first picture is i
    assert order.sort().values.tolist() == list(range(12)) and order.tolist() != list(range(12))
    assert torch.equal(permuted.test_x.flatten(1), plain.test_x.flatten(1)[:, order])
    assert permuted.shape == plain.shape
