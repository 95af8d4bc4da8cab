"""The public file format: reads the HDF5 sets of stable-worldmodel and le-wm as trajectories that keep their pictures.

Columns: pixels (N H W 3, bytes), action (N A), ep_len and ep_offset (E), and mostly state or proprio (N S). Actions at
an episode's boundary are NaN. Pictures stay in the file until a clip needs them; everything else is read at once.
Nothing is downloaded. `Hdf5("pusht", "pusht_expert_train.h5")` stands in a `study.Setting` where a recipe does.

Shapes: E episodes, N rows, S numbers in a state, A in an action; B pictures.
"""

import contextlib
import importlib
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType

import numpy as np
import torch
from jaxtyping import Int, UInt8
from torch import Tensor
from torch.nn.functional import interpolate

from minilab.lewm.data import Trajectories, check_table
from minilab.lewm.worlds import world_named

STATES = ("state", "proprio")  # whichever comes first; without one, states have no columns
NEEDED = ("pixels", "action", "ep_len", "ep_offset")


@dataclass(frozen=True)
class Hdf5:
    """A set in a file, in place of a `collect.Recipe`. It holds states of `world`, where what was learned is tried."""

    world: str
    path: str
    steps: int = 100  # of an episode at most: no goal is sought farther ahead

    def read(self) -> Trajectories:
        return read_hdf5(self.path, world=self.world)

    @property
    def name(self) -> str:
        """Another file, or a later version of it, has another. By its date: the published ones are too big to hash."""
        path = Path(self.path).resolve()
        return f"{path} {path.stat().st_size} {path.stat().st_mtime_ns}"


def read_hdf5(path: Path | str, *, world: str = "") -> Trajectories:
    """A set in a file. Name one of our worlds if the states are its states, so that they can be drawn and stepped.

    The file stays open while the set is in use. Raises ImportError if h5py is not installed, FileNotFoundError if
    there is no such file, and ValueError if it is damaged, lacks a column, or its columns do not fit each other.
    """
    h5py, path = _h5py(), Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"no file {path}. minilab makes its own data: minilab.lewm.collect.collect")
    try:
        file = h5py.File(path)
    except OSError as error:
        raise ValueError(f"{path} is no HDF5 file, or is truncated ({error}): get it again") from error
    try:
        return _read(file, path, world)
    except BaseException:
        file.close()
        raise


def _read(file, path: Path, world: str) -> Trajectories:
    if absent := [column for column in NEEDED if column not in file]:
        raise ValueError(f"{path} lacks {', '.join(absent)}; it has {', '.join(file) or 'nothing'}, and a set needs "
                         f"{', '.join(NEEDED)}")
    pixels, N = file["pixels"], len(file["pixels"])
    if pixels.ndim != 4 or pixels.shape[3] != 3 or pixels.shape[1] != pixels.shape[2] or pixels.dtype != np.uint8:
        raise ValueError(f"the pixels of {path} are {pixels.dtype} of shape {pixels.shape}, not bytes of square "
                         "pictures (rows, side, side, 3): convert them")
    try:
        actions = torch.from_numpy(file["action"][:]).float()
        ep_len, ep_offset = (torch.from_numpy(file[column][:]).long() for column in ("ep_len", "ep_offset"))
        column = next((column for column in STATES if column in file), None)
        states = torch.from_numpy(file[column][:]).float() if column else torch.zeros(N, 0)
    except OSError as error:
        raise ValueError(f"{path} cannot be read ({error}): get it again, or pip install hdf5plugin if it is "
                         "compressed") from error
    if actions.ndim != 2 or states.ndim != 2 or len(states) != N:
        raise ValueError(f"{path} has {N} pictures, actions of shape {tuple(actions.shape)} and states of shape "
                         f"{tuple(states.shape)}: one row of each is needed for every picture")
    check_table(str(path), world_named(world) if world else None, states, actions, ep_len, ep_offset)
    return Trajectories(world, states, actions, ep_len, ep_offset, _Pixels(pixels, path))


class _Pixels:
    """Pictures of a file by their rows."""

    def __init__(self, column, path: Path) -> None:
        self.column, self.path = column, path

    def __call__(self, rows: Int[Tensor, "B"], size: int | None) -> UInt8[Tensor, "B 3 H W"]:
        # One by one: h5py reads a list of rows no faster, and only if it is sorted and has none twice.
        try:
            frames = np.stack([self.column[row] for row in rows.tolist()])
        except OSError as error:
            raise ValueError(f"pictures of {self.path} cannot be read ({error}): get it again, or pip install "
                             "hdf5plugin if they are compressed") from error
        frames = torch.from_numpy(frames).permute(0, 3, 1, 2)  # B 3 H W
        if size in (None, frames.shape[-1]):
            return frames.contiguous()
        return interpolate(frames.float(), (size, size), mode="bilinear", antialias=True).round().to(torch.uint8)


def _h5py() -> ModuleType:
    with contextlib.suppress(ImportError):
        importlib.import_module("hdf5plugin")  # the filters of files that were compressed with more than gzip
    try:
        return importlib.import_module("h5py")
    except ImportError as error:
        raise ImportError("HDF5 sets need h5py: pip install h5py") from error
