"""A ray caster for boxes on a table, in tensors: pictures of a small 3-D world without OpenGL, on any device.

A pixel shows what its ray meets first. A ray meets a box between two planes of each of three pairs: it is inside from
the last entrance to the first exit, if it is inside at all (Kay and Kajiya's slabs). Notable:

- The camera does not roll and looks along +y. So a ray's x-part is the same in a column of pixels and its y- and z-part
  in a row, and boxes whose edges are parallel to the axes cost three operations a pixel.
- Light comes from far away on one side (Lambert): each face of a box has one brightness. Only the table shows shadows.
  They fade where the light had a short way through a box, which spares them jagged edges, as four rays a pixel do for
  boxes.

Shapes: B pictures of H x W pixels; space is x to the right, y away from the camera, z up.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

from minilab.lewm.worlds.base import check_size

RAYS = 2  # along each side of a pixel
BEHIND = 1e6  # farther than all boxes


@dataclass(frozen=True)
class Camera:
    """Looks along +y and down, and sees a square."""

    at: tuple[float, float, float]
    pitch: float  # how far below the horizon it looks, in radians
    view: float  # angle between the upper and the lower edge of the picture, in radians

    def sees(self, point: Float[Tensor, "*b 3"]) -> Float[Tensor, "*b 2"]:
        """Where points are in the picture: across and down, from 0 to 1."""
        x, y, z = (point - point.new_tensor(self.at)).unbind(dim=-1)
        cos, sin = math.cos(self.pitch), math.sin(self.pitch)
        ahead, up = cos * y - sin * z, sin * y + cos * z
        return 0.5 + torch.stack((x, -up), dim=-1) / (ahead[..., None] * 2 * math.tan(self.view / 2))


@dataclass(frozen=True)
class Light:
    """How bright a face is: its share of `ambient`, and more the more it faces `toward`."""

    toward: tuple[float, float, float]  # of length 1
    ambient: float
    fade: float  # a way through a box that takes all the direct light

    def on(self, cosine: Float[Tensor, "*b"]) -> Float[Tensor, "*b"]:
        return self.ambient + (1 - self.ambient) * cosine.clamp(min=0)


class Box(NamedTuple):
    """B boxes, one in each picture."""

    center: Float[Tensor, "B 3"]
    half: tuple[float, float, float]  # sides
    turn: Float[Tensor, "B 3 3"] | None = None  # columns are the box's axes; None if they are the world's


class Rays(NamedTuple):
    """Directions of an H x W grid of rays: their parts along x, y and z."""

    x: Float[Tensor, "1 W"]
    y: Float[Tensor, "H 1"]
    z: Float[Tensor, "H 1"]


def picture(camera: Camera, light: Light, table: Float[Tensor, "3 H W"],
            things: list[tuple[Float[Tensor, "B 3"], list[Box]]]) -> Float[Tensor, "B 3 H W"]:
    """Pictures of things on a table; each has a paint and some boxes, all in front of the camera."""
    size, B, device = table.shape[-1], len(things[0][0]), table.device
    rays = fine_rays(camera, size, device)
    hits = [[meet(box, camera, light, rays) for box in boxes] for _, boxes in things]
    nearest = torch.full((B, RAYS * size, RAYS * size), BEHIND, device=device)
    for enter, _ in (hit for thing in hits for hit in thing):
        torch.minimum(nearest, enter, out=nearest)
    bright = [folded(sum(as_number(torch.eq, enter, nearest).mul_(lit) for enter, lit in thing)) for thing in hits]
    bare = folded(as_number(torch.ge, nearest, nearest.new_tensor(BEHIND)))
    dark = shadow(camera, light, size, [box for _, boxes in things for box in boxes])
    bare.addcmul_(bare, dark, value=light.ambient / float(light.on(torch.tensor(light.toward[2]))) - 1)
    drawn = bare[:, None] * table
    for (paint, _), total in zip(things, bright, strict=True):
        drawn.addcmul_(paint[:, :, None, None], total[:, None])
    return drawn


def meet(box: Box, camera: Camera, light: Light, rays: Rays) -> tuple[Float[Tensor, "B H W"], Float[Tensor, "B H W"]]:
    """How far rays go until they enter a box (beyond the table if they miss it), and how bright the face is there."""
    away, toward, along = box.center - box.center.new_tensor(camera.at), box.center.new_tensor(light.toward), rays
    if box.turn is not None:  # the same in the box's own axes
        away, toward = (away[:, None] @ box.turn)[:, 0], toward @ box.turn
        along = [axis[:, 0] * rays.x + (axis[:, 1] * rays.y + axis[:, 2] * rays.z)
                 for axis in box.turn[..., None, None].unbind(dim=2)]
    faces = light.on(-away.sign() * toward)  # of the sides toward the camera
    near, far = [], []
    for middle, half, part in zip(away[..., None, None].unbind(dim=1), box.half, along, strict=True):
        low, high = (middle - half) / part, (middle + half) / part
        near.append(torch.minimum(low, high))
        far.append(torch.maximum(low, high))
    second = torch.maximum(near[1], near[2])  # of a box that is not turned still one number a row
    enter, leave = torch.maximum(near[0], second), torch.minimum(far[0], torch.minimum(far[1], far[2]))
    x, y, z = faces[..., None, None].unbind(dim=1)
    lit = z + (y - z) * as_number(torch.gt, near[1], near[2])
    lit = as_number(torch.gt, near[0], second).mul_(x - lit).add_(lit)
    return enter.add_(as_number(torch.ge, enter, leave), alpha=1e3 * BEHIND), lit


def folded(x: Float[Tensor, "B RH RW"]) -> Float[Tensor, "B H W"]:
    """The mean over a pixel's rays."""
    return x.unflatten(1, (RAYS, -1)).sum(dim=1).unflatten(2, (RAYS, -1)).sum(dim=2).div_(RAYS**2)


def as_number(compare: Callable[..., Tensor], a: Float[Tensor, "*a"], b: Float[Tensor, "*b"]) -> Float[Tensor, "*c"]:
    """1 where a comparison holds and 0 elsewhere. On a processor booleans cost ten times as much."""
    shape = torch.broadcast_shapes(a.shape, b.shape)
    return compare(a, b, out=a.new_empty(shape))


def shadow(camera: Camera, light: Light, size: int, boxes: list[Box]) -> Float[Tensor, "B H W"]:
    """How much of the direct light boxes keep from the table: a ray from there to the light goes through them."""
    x, y = ground(camera, size, boxes[0].center.device)
    dark = None
    for box in boxes:
        center, sun = box.center, box.center.new_tensor(light.toward).expand_as(box.center)
        if box.turn is not None:
            center, sun = ((v[:, None] @ box.turn)[:, 0] for v in (center, sun))
        slow = 1 / sun.where(sun.abs() > 1e-6, 1e-6)  # the way that light needs for a length along an axis
        middle, half = center * slow, sun.new_tensor(box.half) * slow.abs()
        ways = [(middle - half)[..., None, None], (middle + half)[..., None, None]]
        if box.turn is None:
            parts = x * slow[:, 0, None, None], y * slow[:, 1, None, None], torch.zeros_like(y)
        else:
            east, north = ((box.turn[:, axis] * slow)[..., None, None] for axis in (0, 1))
            parts = [east[:, k] * x + north[:, k] * y for k in range(3)]
        (a, b, c), (d, e, f) = ([way[:, k] - part for k, part in enumerate(parts)] for way in ways)
        enter, leave = torch.maximum(a, torch.maximum(b, c)), torch.minimum(d, torch.minimum(e, f))
        through = leave.sub_(enter)
        dark = through if dark is None else torch.maximum(dark, through)
    return (dark / light.fade).clamp_(0, 1)


@cache
def fine_rays(camera: Camera, size: int, device: torch.device) -> Rays:
    """RAYS x RAYS grids side by side, each with one ray for each pixel."""
    check_size(size)
    if camera.pitch <= camera.view / 2:
        raise ValueError(f"a camera with a view of {camera.view} that looks down by {camera.pitch} sees the horizon, "
                         "where no table is: let it look farther down")
    columns, rows, depths = zip(*(_rays(camera, size, (i + 0.5) / RAYS, device) for i in range(RAYS)), strict=True)
    return Rays(torch.cat(columns, dim=1), torch.cat(rows), torch.cat(depths))


@cache
def ground(camera: Camera, size: int, device: torch.device) -> tuple[Float[Tensor, "H W"], Float[Tensor, "H 1"]]:
    """x and y of the points of the table (z = 0) in the middle of pixels."""
    rays = _rays(camera, size, 0.5, device)
    far = camera.at[2] / -rays.z
    return camera.at[0] + far * rays.x, camera.at[1] + far * rays.y


def _rays(camera: Camera, size: int, share: float, device: torch.device) -> Rays:
    """Rays through the points at this share of each pixel's width and height."""
    half = math.tan(camera.view / 2)
    at = ((torch.arange(size, device=device) + share) * (2 / size) - 1) * half
    cos, sin, up = math.cos(camera.pitch), math.sin(camera.pitch), -at[:, None]
    return Rays(at[None], cos + sin * up, cos * up - sin)
