"""The ray caster against formulas of a pinhole camera, and against MuJoCo's own rays."""

import math
import os
import subprocess
import sys
from dataclasses import replace

import mujoco
import numpy as np
import pytest
import torch

from minilab.lewm.worlds.cube import CAMERA, LIGHT, Cube, _model, _quaternion, boxes
from minilab.lewm.worlds.raycast import Box, Camera, Light, picture, shadow

WORLD = Cube()
ABOVE = Camera(at=(0.0, 0.0, 1.0), pitch=math.pi / 2, view=math.radians(30))
EVEN = replace(LIGHT, ambient=1.0)  # every face is as bright as its paint, and nothing throws a shadow


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def some_states(n=24):
    """Starts, half of them with the cube turned at random and in the air."""
    state = WORLD.reset(n, generator())
    state[::2, 6] += 0.1 * torch.rand(len(state[::2]), generator=generator())
    state[::2, 7:] = 0.6 * torch.randn(len(state[::2]), 3, generator=generator())
    return state


def covered(state, size):
    """The share of each pixel that shows the cube, the palm and the fingers."""
    cube, palm, *fingers = boxes(state)
    paints = torch.eye(3)[:, None].expand(3, len(state), 3)
    table = torch.zeros(3, size, size)
    return picture(CAMERA, EVEN, table, list(zip(paints, ([cube], [palm], fingers), strict=True)))


def bodies(state):
    """MuJoCo's model without walls, and its data in each state."""
    model = _model().__copy__()
    for wall in ("west", "east", "south", "north"):
        model.geom_group[model.geom(wall).id] = 5
    for row in state.double().numpy():
        data = mujoco.MjData(model)
        data.qpos[:] = (*row[:3], row[3] / 2, row[3] / 2, *row[4:7], *_quaternion(row[None, 7:])[0])
        mujoco.mj_forward(model, data)
        yield model, data


def masks(model, ids):
    """From the numbers of geoms to the pictures of cube, palm and fingers."""
    cube, palm, right, left = (model.geom(name).id for name in ("cube", "palm", "right", "left"))
    return np.stack((ids == cube, ids == palm, (ids == right) | (ids == left)))


def test_every_ray_meets_what_mujocos_ray_meets():
    """Four rays a pixel from a pinhole camera written down once more; each picture to a quarter of a pixel."""
    size, state = 32, some_states()
    fine = (np.arange(2 * size) + 0.5) / size - 1
    across, up = np.meshgrid(fine, -fine)
    local = np.stack((across, up, np.full_like(up, -1 / math.tan(CAMERA.view / 2))), axis=-1)
    sin, cos = math.sin(CAMERA.pitch), math.cos(CAMERA.pitch)
    frame = np.array([[1, 0, 0], [0, sin, -cos], [0, cos, sin]])  # columns: right, up, back
    rays = local.reshape(-1, 3) @ frame.T
    rays /= np.linalg.norm(rays, axis=1, keepdims=True)
    found = []
    for model, data in bodies(state):
        ids, far = np.zeros(len(rays), dtype=np.int32), np.zeros(len(rays))
        mujoco.mj_multiRay(model, data, np.array(CAMERA.at), rays.flatten(), np.array([1, 1, 1, 1, 1, 0], np.uint8), 1,
                           -1, ids, far, None, len(rays), 10.0)
        hit = masks(model, ids.reshape(size, 2, size, 2))
        found.append(hit.mean(axis=(2, 4)))
    found = torch.tensor(np.array(found), dtype=torch.float32)
    assert (found.mean(dim=(0, 2, 3)) > 0.002).all()  # each thing is seen
    off = (covered(state, size) - found).abs() > 0.01
    assert off.float().mean() < 1e-4  # a ray along an edge may fall to either side


def test_a_camera_sees_points_where_a_pinhole_puts_them():
    """In its own axes a point stands to its right, above it and ahead; similar triangles do the rest."""
    right, up, ahead = 0.03, -0.05, 0.7
    cos, sin = math.cos(CAMERA.pitch), math.sin(CAMERA.pitch)
    point = torch.tensor(CAMERA.at) + torch.tensor([right, up * sin + ahead * cos, up * cos - ahead * sin])
    half = ahead * math.tan(CAMERA.view / 2)
    expected = torch.tensor([0.5 + right / (2 * half), 0.5 - up / (2 * half)])
    torch.testing.assert_close(CAMERA.sees(point), expected, atol=1e-6, rtol=0)
    north = ABOVE.sees(torch.tensor([0.0, 0.1, 0.5]))
    torch.testing.assert_close(north, torch.tensor([0.5, 0.5 - 0.1 / math.tan(ABOVE.view / 2)]))


@pytest.mark.parametrize("size", [32, 33, 64, 224])
def test_what_is_seen_of_a_cube_is_centered_on_its_place_in_the_picture(size):
    """A small cube's silhouette is nearly symmetric around its center."""
    center = WORLD.reset(40, generator())[:, 4:7]
    box, white = Box(center, (0.02,) * 3), torch.ones(40, 3)
    share = picture(CAMERA, EVEN, torch.zeros(3, size, size), [(white, [box])])[:, 0]
    at = (torch.arange(size) + 0.5) / size
    mean = torch.stack(((share.sum(dim=1) * at).sum(dim=1), (share.sum(dim=2) * at).sum(dim=1)), dim=1)
    assert (mean / share.sum(dim=(1, 2))[:, None] - CAMERA.sees(center)).abs().max() < 0.3 / size + 1e-3


@pytest.mark.parametrize("angle", [0.0, 0.4])
def test_from_straight_above_a_cube_is_the_square_of_its_top(angle):
    """Its silhouette's area by similar triangles, however it is turned."""
    size, half, height = 224, 0.05, 0.3
    turn = None
    if angle:
        cos, sin = math.cos(angle), math.sin(angle)
        turn = torch.tensor([[[cos, -sin, 0], [sin, cos, 0], [0, 0, 1.0]]])
    share = picture(ABOVE, EVEN, torch.zeros(3, size, size),
                    [(torch.ones(1, 3), [Box(torch.tensor([[0.0, 0.0, height]]), (half,) * 3, turn)])])[0, 0]
    side = half / ((1 - height - half) * math.tan(ABOVE.view / 2)) * size
    torch.testing.assert_close(share.sum(), torch.tensor(side**2), rtol=0.01, atol=0)


def test_faces_are_as_bright_as_lambert_says_and_the_nearer_thing_hides_the_other():
    size, sun = 64, Light(toward=(0.6, 0.0, 0.8), ambient=0.3, fade=0.01)
    below = Box(torch.tensor([[0.0, 0.0, 0.1]]), (0.1, 0.1, 0.1))
    above = Box(torch.tensor([[0.0, 0.0, 0.3]]), (0.05, 0.05, 0.05))
    red, green = torch.tensor([[200.0, 0, 0]]), torch.tensor([[0, 100.0, 0]])
    for things in ([(red, [below]), (green, [above])], [(green, [above]), (red, [below])]):
        drawn = picture(ABOVE, sun, torch.zeros(3, size, size), things)[0]
        torch.testing.assert_close(drawn[:, 32, 32], torch.tensor([0, 100 * (0.3 + 0.7 * 0.8), 0]))
        torch.testing.assert_close(drawn[:, 32, 44], torch.tensor([200 * (0.3 + 0.7 * 0.8), 0, 0]))


@pytest.mark.parametrize("turned", [False, True])
def test_a_shadow_lies_where_the_light_through_the_center_meets_the_table(turned):
    """A box is symmetric around its center, and so is its shadow around the center's."""
    size, sun, center = 224, Light((0.6, 0.0, 0.8), 0.3, 1e-3), torch.tensor([[0.1, 0.02, 0.2]])
    turn = torch.linalg.matrix_exp(torch.tensor([[[0.0, -0.3, 0.2], [0.3, 0.0, -0.5], [-0.2, 0.5, 0.0]]]))
    dark = shadow(ABOVE, sun, size, [Box(center, (0.04, 0.03, 0.02), turn if turned else None)])[0]
    at = (torch.arange(size) + 0.5) / size
    found = torch.stack(((dark.sum(dim=0) * at).sum(), (dark.sum(dim=1) * at).sum())) / dark.sum()
    expected = ABOVE.sees(torch.tensor([0.1 - 0.2 * 0.6 / 0.8, 0.02, 0.0]))
    assert (found - expected).abs().max() < 0.003 and dark.max() == 1 and 0.003 < dark.mean() < 0.2
    table = torch.full((3, size, size), 100.0)
    drawn = picture(ABOVE, sun, table, [(torch.zeros(1, 3), [Box(center, (0.04, 0.03, 0.02))])])[0, 0]
    torch.testing.assert_close(drawn[dark == 1].median(), torch.tensor(100 * 0.3 / (0.3 + 0.7 * 0.8)))


def test_a_camera_that_sees_the_horizon_is_refused():
    camera = Camera(at=(0.0, 0.0, 1.0), pitch=0.2, view=0.5)
    with pytest.raises(ValueError, match="sees the horizon"):
        picture(camera, LIGHT, torch.zeros(3, 16, 16), [(torch.ones(1, 3), [Box(torch.zeros(1, 3), (0.1,) * 3)])])


@pytest.mark.slow  # a process that loads torch and MuJoCo
@pytest.mark.parametrize("choice", [None, "disable"])
def test_worlds_on_mujoco_are_drawn_without_opengl(choice):
    """By our own rays: MUJOCO_GL is not set or says no, there is no screen, and whoever loads OpenGL fails."""
    script = """
import sys
for name in ("OpenGL", "glfw"):
    sys.modules[name] = None  # to import it is an error from here on
import torch
from minilab.lewm.worlds import world_named
for name in ("pusht", "cube"):
    world = world_named(name)
    state = world.step(world.reset(2, torch.Generator().manual_seed(0)), torch.zeros(2, world.action_dim))
    print(name, *world.render(state, 32).shape, world.render(state, 32).float().std() > 10)
"""
    environment = {key: value for key, value in os.environ.items() if key not in ("MUJOCO_GL", "DISPLAY")}
    environment |= {"MUJOCO_GL": choice} if choice else {}
    done = subprocess.run([sys.executable, "-c", script], env=environment, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    assert done.stdout.split("\n")[:2] == [f"{name} 2 3 32 32 tensor(True)" for name in ("pusht", "cube")]
