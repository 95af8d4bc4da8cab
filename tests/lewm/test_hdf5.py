"""The public file format, on files that the tests write."""

import sys
from dataclasses import replace

import numpy as np
import pytest
import torch

from minilab.core.device import cache_dir
from minilab.lewm.collect import Recipe, collect
from minilab.lewm.data import Clips
from minilab.lewm.hdf5 import Hdf5, read_hdf5
from minilab.lewm.learn import small
from minilab.lewm.model import cpu
from minilab.lewm.planner import small as small_plan
from minilab.lewm.study import Ground, Setting
from minilab.lewm.worlds import world_named

h5py = pytest.importorskip("h5py")
SIZE = 48


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


@pytest.fixture(scope="module")
def ours(tmp_path_factory):
    return collect(Recipe("rooms", episodes=8, steps=30), folder=tmp_path_factory.mktemp("ours"))


@pytest.fixture
def columns(ours):
    """A set as it is published."""
    pixels = world_named("rooms").render(ours.states, SIZE).permute(0, 2, 3, 1).numpy()
    return {"pixels": pixels, "action": ours.actions.numpy(), "state": ours.states.numpy(),
            "ep_len": ours.ep_len.numpy().astype(np.int32), "ep_offset": ours.ep_offset.numpy()}


def written(path, columns):
    with h5py.File(path, "w") as file:
        for name, column in columns.items():
            file.create_dataset(name, data=column, chunks=True, compression="gzip")
    return path


def test_a_file_gives_the_clips_that_the_world_would(ours, columns, tmp_path):
    assert np.isnan(columns["action"]).any()  # the boundaries
    data = read_hdf5(written(tmp_path / "a.h5", columns), world="rooms")
    assert len(data) == 8 and torch.equal(data.ep_len, ours.ep_len)
    for size in (SIZE, None):
        drawn, read = Clips(ours, size=SIZE), Clips(data, size=size)
        a, b = drawn.draw(50, generator()), read.draw(50, generator())
        for name in ("frames", "actions", "states", "episode", "start"):
            assert torch.equal(getattr(a, name), getattr(b, name)), name
        assert b.actions.isfinite().all()
    assert torch.equal(read.frames(a.states)[..., 0, 0], drawn.world.render(a.states.flatten(0, 1), 224)
                       .unflatten(0, (50, 4))[..., 0, 0])


def test_a_split_of_a_file_reads_its_own_pictures(columns, tmp_path):
    data = read_hdf5(written(tmp_path / "a.h5", columns))
    train, held = data.split(0.25, generator())
    clip = Clips(held, size=None, scale=train.scale).draw(20, generator())
    for i in range(20):
        rows = int(held.ep_offset[clip.episode[i]] + clip.start[i]) + 5 * np.arange(4)
        assert np.array_equal(clip.frames[i].permute(0, 2, 3, 1).numpy(), columns["pixels"][rows])


def test_pictures_are_resized_smoothly_if_asked(columns, tmp_path):
    data = read_hdf5(written(tmp_path / "a.h5", columns), world="rooms")
    small, clips = Clips(data, size=24).draw(30, generator()), Clips(data, size=None)
    large = clips.draw(30, generator())
    assert small.frames.shape == (30, 4, 3, 24, 24) and small.frames.dtype == torch.uint8
    torch.testing.assert_close(small.frames.float().mean(dim=(3, 4)), large.frames.float().mean(dim=(3, 4)),
                               atol=3.0, rtol=0)


def test_a_set_without_states_can_be_trained_on_but_not_drawn(columns, tmp_path):
    del columns["state"]
    data = read_hdf5(written(tmp_path / "a.h5", columns))
    clips = Clips(data, size=SIZE)
    clip = clips.draw(5, generator())
    assert clip.frames.shape == (5, 4, 3, SIZE, SIZE) and clip.states.shape == (5, 4, 0)
    with pytest.raises(ValueError, match="name one of ours when you read it"):
        clips.frames(torch.zeros(3, 2))


def test_proprio_stands_in_for_a_state(columns, tmp_path):
    columns["proprio"] = columns.pop("state") + 1
    data = read_hdf5(written(tmp_path / "a.h5", columns))
    assert np.array_equal(data.states.numpy(), columns["proprio"])


@pytest.fixture
def setting(tmp_path, monkeypatch):
    """Two steps of training on a file of the disc's world, whose pictures are the world's in negative."""
    monkeypatch.setenv("MINILAB_CACHE", str(tmp_path / "cache"))
    data = collect(Recipe("disc", episodes=12, steps=30), folder=tmp_path)
    pixels = 255 - world_named("disc").render(data.states, 32).permute(0, 2, 3, 1).numpy()
    path = written(tmp_path / "a.h5", {
        "pixels": pixels, "action": data.actions.numpy(), "state": data.states.numpy(), "ep_len": data.ep_len.numpy(),
        "ep_offset": data.ep_offset.numpy()})
    return Setting(Hdf5("disc", str(path)), cpu(10), small(2, batch=8, directions=8, log_every=1), tasks=3, budget=10,
                   plan=small_plan(samples=8, elites=2, iterations=1))


@pytest.mark.parametrize("drawn", [False, True])
def test_a_setting_learns_from_a_file_and_acts_in_the_world_that_it_names(setting, drawn):
    ground = Ground(replace(setting, drawn=drawn), "cpu")
    clip = ground.clips.draw(20, generator())
    assert torch.equal(clip.frames, 255 - ground.world.render(clip.states.flatten(0, 1), 32).unflatten(0, (20, 4)))
    trained = ground.trained("sigreg", 0)
    assert len(trained.history.log.losses) == 2
    start, goal = ground.tasks(3)
    assert all((ground.seen.states == row).all(dim=1).any() for row in torch.cat((start, goal)))  # the file's table
    assert ground.reached(ground.agent(trained, 0), 0).shape == (3,)


def test_another_file_is_learned_from_anew_and_the_same_is_not(setting):
    first = Ground(setting, "cpu").trained("sigreg", 0)
    kept = list((cache_dir() / "lewm" / "trained").iterdir())
    again = Ground(setting, "cpu").trained("sigreg", 0)
    assert all(map(torch.equal, first.model.parameters(), again.model.parameters()))
    assert list((cache_dir() / "lewm" / "trained").iterdir()) == kept
    with h5py.File(setting.recipe.path, "r+") as file:
        file["pixels"][:] = file["pixels"][:] // 2
    other = Ground(setting, "cpu").trained("sigreg", 0)
    assert not all(map(torch.equal, first.model.parameters(), other.model.parameters()))


def test_pictures_of_a_file_are_not_mirrored_by_drawing_others(setting):
    with pytest.raises(ValueError, match="if the set keeps states and no pictures"):
        Ground(replace(setting, mirrored=True), "cpu").to_learn(4)


@pytest.mark.parametrize("column", ["pixels", "action", "ep_len", "ep_offset"])
def test_a_missing_column_is_named(columns, tmp_path, column):
    del columns[column]
    with pytest.raises(ValueError, match=f"lacks {column}; it has .*state"):
        read_hdf5(written(tmp_path / "a.h5", columns))


def test_truncated_and_foreign_files_are_refused(columns, tmp_path):
    path = written(tmp_path / "a.h5", columns)
    content = path.read_bytes()
    path.write_bytes(content[: len(content) // 2])
    with pytest.raises(ValueError, match="is no HDF5 file, or is truncated.*get it again"):
        read_hdf5(path)
    path.write_bytes(b"nothing of the kind")
    with pytest.raises(ValueError, match="is no HDF5 file"):
        read_hdf5(path)
    with pytest.raises(FileNotFoundError, match="no file .*b.h5.*makes its own data"):
        read_hdf5(tmp_path / "b.h5")


def test_a_picture_that_cannot_be_read_is_an_error_and_not_a_gray_square(columns, tmp_path):
    path = written(tmp_path / "a.h5", columns)
    with h5py.File(path) as file:
        chunk = file["pixels"].id.get_chunk_info(0)
    with open(path, "r+b") as file:
        file.seek(chunk.byte_offset)
        file.write(b"\xff" * chunk.size)
    clips = Clips(read_hdf5(path), size=None)
    with pytest.raises(ValueError, match="cannot be read.*hdf5plugin"):
        clips.take(torch.arange(len(clips)))


def test_columns_that_do_not_fit_each_other_or_the_world_are_refused(columns, tmp_path):
    N = len(columns["action"])
    for column, value, message in (
            ("action", columns["action"][:-1], f"{N} states and {N - 1} actions"),
            ("state", columns["state"][:-1], "one row of each is needed for every picture"),
            ("action", columns["action"][:, 0], "one row of each is needed"),
            ("ep_len", columns["ep_len"] + 1, f"has {N} rows, and its episodes go from 0 to {N + 1}"),
            ("ep_len", columns["ep_len"] * 0, "the shortest over 0"),
            ("ep_offset", columns["ep_offset"][:-1], "8 lengths and 7 offsets"),
            ("pixels", columns["pixels"][:, :-8], "not bytes of square pictures"),
            ("pixels", columns["pixels"] / 255, "not bytes of square pictures"),
            ("state", columns["state"].repeat(2, axis=1), "4 numbers a state and 2 an action; the world")):
        with pytest.raises(ValueError, match=message):
            read_hdf5(written(tmp_path / "a.h5", {**columns, column: value}), world="rooms")


def test_an_absent_library_is_named(columns, tmp_path, monkeypatch):
    path = written(tmp_path / "a.h5", columns)
    monkeypatch.setitem(sys.modules, "h5py", None)
    with pytest.raises(ImportError, match="pip install h5py"):
        read_hdf5(path)
